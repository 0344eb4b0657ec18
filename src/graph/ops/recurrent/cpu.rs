//! Recurrent cells on the CPU, step by step.

use super::{Cell, Recurrent, Sizes};
use crate::graph::{Data, Real, TensorType};

/// The real data of some inputs.
pub fn reals<'a, R>(inputs: &[(&TensorType, &'a Data<R>)]) -> Vec<&'a [R]> {
    inputs.iter().map(|(_, data)| data.real()).collect()
}

pub fn sigmoid<R: Real>(x: R) -> R {
    R::one() / (R::one() + (-x).exp())
}

/// h and c, the latter of zeros where a cell has none.
pub fn forward<R: Real>(op: &Recurrent, s: Sizes, inputs: &[&[R]]) -> (Vec<R>, Vec<R>) {
    let (dim, gates) = (s.dim, s.dim * op.cell.gates());
    let mut h = vec![R::zero(); s.instances() * s.n * dim];
    let mut c = h.clone();
    for head in 0..s.instances() {
        let weights = &inputs[1][head % s.heads * dim * gates..][..dim * gates];
        let (mut state, mut memory) = (vec![R::zero(); dim], vec![R::zero(); dim]);
        for t in 0..s.n {
            let at = head * s.n + t;
            if !op.padded || inputs[op.real_at()][head / s.heads * s.n + t] != R::zero() {
                let mut y = vec![R::zero(); gates];
                for (&h, row) in state.iter().zip(weights.chunks_exact(gates)) {
                    y.iter_mut().zip(row).for_each(|(y, &u)| *y += h * u);
                }
                let x = &inputs[0][at * gates..][..gates];
                for d in 0..dim {
                    let sum = |gate: usize| x[gate * dim + d] + y[gate * dim + d];
                    state[d] = match op.cell {
                        Cell::Rnn => sum(0).tanh(),
                        Cell::Lstm => {
                            memory[d] = sigmoid(sum(1)) * memory[d] + sigmoid(sum(0)) * sum(2).tanh();
                            sigmoid(sum(3)) * memory[d].tanh()
                        }
                        Cell::Gru => {
                            let bias = inputs[op.bias_at()][head % s.heads * dim + d];
                            let n = (x[2 * dim + d] + sigmoid(sum(0)) * (y[2 * dim + d] + bias)).tanh();
                            let keep = sigmoid(sum(1));
                            (R::one() - keep) * n + keep * state[d]
                        }
                    };
                }
            }
            h[at * dim..][..dim].copy_from_slice(&state);
            c[at * dim..][..dim].copy_from_slice(&memory);
        }
    }
    (h, c)
}

/// What the chain's gradient reads.
pub struct Saved<'a, R> {
    /// The inputs' part of the gates, and the state's (with a GRU's b), `[B, H, N, G·D]`.
    pub x: &'a [R],
    pub y: &'a [R],
    /// `[H, G·D, D]`.
    pub u: &'a [R],
    pub h: &'a [R],
    /// c of an LSTM.
    pub c: &'a [R],
    pub real: Option<&'a [R]>,
    pub dh: &'a [R],
}

/// Gradients of x and, behind them in each row of `width`, of the parts of y that have others.
pub fn backward<R: Real>(cell: Cell, s: Sizes, saved: &Saved<R>, width: usize) -> Vec<R> {
    let (dim, gates) = (s.dim, s.dim * cell.gates());
    let mut all = vec![R::zero(); s.instances() * s.n * width];
    let (zero, one) = (R::zero(), R::one());
    for head in 0..s.instances() {
        let weights = &saved.u[head % s.heads * dim * gates..][..dim * gates];
        let (mut carried, mut dmemory) = (vec![zero; dim], vec![zero; dim]);
        for t in (0..s.n).rev() {
            let at = head * s.n + t;
            carried.iter_mut().zip(&saved.dh[at * dim..][..dim]).for_each(|(carried, &dh)| *carried += dh);
            if saved.real.is_some_and(|real| real[head / s.heads * s.n + t] == zero) {
                continue;
            }
            let dx = &mut all[at * width..][..width];
            for d in 0..dim {
                let dh = carried[d];
                let before = |states: &[R]| if t > 0 { states[(at - 1) * dim + d] } else { zero };
                let x = |gate: usize| saved.x[at * gates + gate * dim + d];
                let y = |gate: usize| saved.y[at * gates + gate * dim + d];
                match cell {
                    Cell::Rnn => {
                        let h = saved.h[at * dim + d];
                        dx[d] = dh * (one - h * h);
                        carried[d] = zero;
                    }
                    Cell::Lstm => {
                        let [i, f, o] = [0, 1, 3].map(|gate| sigmoid(x(gate) + y(gate)));
                        let g = (x(2) + y(2)).tanh();
                        let squashed = saved.c[at * dim + d].tanh();
                        let dc = dmemory[d] + dh * o * (one - squashed * squashed);
                        dx[d] = dc * g * i * (one - i);
                        dx[dim + d] = dc * before(saved.c) * f * (one - f);
                        dx[2 * dim + d] = dc * i * (one - g * g);
                        dx[3 * dim + d] = dh * squashed * o * (one - o);
                        dmemory[d] = dc * f;
                        carried[d] = zero;
                    }
                    Cell::Gru => {
                        let [r, u] = [0, 1].map(|gate| sigmoid(x(gate) + y(gate)));
                        let n = (x(2) + r * y(2)).tanh();
                        let dn = dh * (one - u) * (one - n * n);
                        dx[d] = dn * y(2) * r * (one - r);
                        dx[dim + d] = dh * (before(saved.h) - n) * u * (one - u);
                        dx[2 * dim + d] = dn;
                        carried[d] = dh * u;
                        dx[3 * dim + d] = dn * r;
                    }
                }
            }
            let mut dy = dx[..gates].to_vec();
            if cell == Cell::Gru {
                dy[2 * dim..].copy_from_slice(&dx[3 * dim..]);
            }
            for (&dy, row) in dy.iter().zip(weights.chunks_exact(dim)) {
                carried.iter_mut().zip(row).for_each(|(carried, &u)| *carried += dy * u);
            }
        }
    }
    all
}
