//! Recurrent chains.

use crate::check::Check;
use attention_lab::graph::ops::recurrent::Cell;

const CELLS: [Cell; 3] = [Cell::Rnn, Cell::Lstm, Cell::Gru];

/// A chain of `[b, h, n, d]` with weights that neither explode nor vanish; with padding at random steps or none.
fn chain(cell: Cell, [b, h, n, d]: [usize; 4], padded: bool, gradients: bool) {
    let gates = cell.gates() * d;
    let bound = 1.5 / (d as f64).sqrt();
    let mut check = Check::new(&format!("{cell:?} {b} {h} {n} {d} {padded}")).real(&[b, h, n, gates]).between(
        &[h, gates, d],
        -bound,
        bound,
    );
    if cell == Cell::Gru {
        check = check.real(&[h, d]);
    }
    if padded {
        check = check.fixed(&[b, n], |r| if r.below(3) == 0 { 0.0 } else { 1.0 });
    }
    let check = if gradients { check } else { check.without_gradients() };
    check.run(|g, x| {
        let bias = (cell == Cell::Gru).then(|| x[2]);
        let real = padded.then(|| *x.last().expect("there are inputs"));
        vec![g.recurrent(cell, x[0], x[1], bias, real)]
    });
}

#[test]
fn chains_of_odd_sizes() {
    for cell in CELLS {
        for sizes in [[1, 1, 1, 1], [2, 3, 2, 3], [2, 2, 17, 5], [1, 1, 9, 66]] {
            chain(cell, sizes, false, true);
        }
    }
}

#[test]
fn padded_steps_carry_the_state_on() {
    for cell in CELLS {
        chain(cell, [2, 2, 1, 3], true, true);
        chain(cell, [2, 2, 19, 4], true, true);
    }
}

#[test]
fn chains_of_several_dispatches() {
    for cell in CELLS {
        chain(cell, [1, 2, 1100, 3], true, true);
    }
}
