//! The dispatches of a recurrent chain.

use super::backward::RecurrentBackward;
use super::{Cell, Recurrent, Sizes};
use crate::gpu::Source;
use crate::graph::ops::kernel::uniform;
use crate::graph::{Dispatch, Lowered, Slot};

/// Floating-point operations that one workgroup does in one dispatch, and the bounds of the steps that they are: a chain is slow
/// for its operations, and no dispatch should hold the device for long.
const OPERATIONS: usize = 1 << 25;
const FEWEST_STEPS: usize = 16;
const MOST_STEPS: usize = 512;

/// First steps and numbers of steps of the dispatches.
fn chunks(cell: Cell, s: Sizes) -> Vec<(usize, usize)> {
    let steps = (OPERATIONS / (2 * cell.gates() * s.dim * s.dim)).clamp(FEWEST_STEPS, MOST_STEPS);
    (0..s.n).step_by(steps).map(|first| (first, steps.min(s.n - first))).collect()
}

fn dispatch(
    cell: Cell,
    s: Sizes,
    entry: &'static str,
    (first, count): (usize, usize),
    padded: bool,
    bindings: Vec<(&'static str, Slot)>,
) -> Dispatch {
    let gates = cell.gates() * s.dim;
    Dispatch {
        source: Source::Table("attention/recurrent"),
        entry,
        consts: vec![("DIM", s.dim as f64), ("GATES", gates as f64)],
        uniform: uniform(&[s.n, s.heads, first, count, usize::from(padded)].map(|x| x as u32)),
        bindings,
        groups: [s.instances() as u32, 1, 1],
        flops: (2 * s.instances() * count * gates * s.dim) as u64,
    }
}

pub fn forward(op: &Recurrent, s: Sizes) -> Lowered {
    let entry = op.cell.suffix(["rnn", "lstm", "gru"]);
    let real = Slot::In(if op.padded { op.real_at() } else { 0 });
    let mut bindings = vec![("x", Slot::In(0)), ("u", Slot::In(1)), ("real", real), ("h", Slot::Out(0))];
    match op.cell {
        Cell::Rnn => {}
        Cell::Lstm => bindings.push(("c", Slot::Out(1))),
        Cell::Gru => bindings.push(("bias", Slot::In(op.bias_at()))),
    }
    let chunks = chunks(op.cell, s).into_iter();
    let dispatches = chunks.map(|chunk| dispatch(op.cell, s, entry, chunk, op.padded, bindings.clone())).collect();
    Lowered { dispatches, scratch: vec![] }
}

pub fn backward(op: &RecurrentBackward, s: Sizes) -> Lowered {
    let entry = op.cell.suffix(["rnn_backward", "lstm_backward", "gru_backward"]);
    let real = Slot::In(if op.padded { op.real_at() } else { 0 });
    let mut bindings = vec![("u", Slot::In(2)), ("h_read", Slot::In(3)), ("dh", Slot::In(4)), ("real", real)];
    bindings.extend([("dx", Slot::Out(0)), ("carry", Slot::Scratch(0))]);
    let gates = [("x", Slot::In(0)), ("y", Slot::In(1))];
    match op.cell {
        Cell::Rnn => {}
        Cell::Lstm => {
            // The output o tanh(c) can be had from c, so that h is not read.
            bindings.retain(|(name, _)| *name != "h_read");
            bindings.extend(gates);
            bindings.push(("c_read", Slot::In(5)));
        }
        Cell::Gru => bindings.extend(gates),
    }
    let chunks = chunks(op.cell, s).into_iter().rev();
    let dispatches = chunks.map(|chunk| dispatch(op.cell, s, entry, chunk, op.padded, bindings.clone())).collect();
    Lowered { dispatches, scratch: vec![(s.instances() * 2 * s.dim * 4) as u64] }
}
