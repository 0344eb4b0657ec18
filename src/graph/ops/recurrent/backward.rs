//! Backpropagation through time: the chain by a kernel of its own, what comes before and behind it by matrix products.

use super::{Cell, Recurrent, Sizes, cpu, lower};
use crate::graph::ops::matmul::Matmul;
use crate::graph::{Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, TensorType};

/// Inputs: the inputs' part x and the state's part y of the gates, U `[H, G·D, D]`, h, the gradient of h, for an LSTM c, then the
/// mask of real steps where there is one. Output: the gradient of x, and behind it, for a GRU, that of n's part of y; what is left
/// of y has the gradient of x.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrentBackward {
    pub cell: Cell,
    pub padded: bool,
}

impl RecurrentBackward {
    pub fn real_at(&self) -> usize {
        5 + usize::from(self.cell == Cell::Lstm)
    }

    fn sizes(&self, x: &TensorType) -> Sizes {
        Recurrent { cell: self.cell, padded: self.padded }.sizes(x)
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let reals = cpu::reals(inputs);
        let saved = cpu::Saved {
            x: reals[0],
            y: reals[1],
            u: reals[2],
            h: reals[3],
            dh: reals[4],
            c: if self.cell == Cell::Lstm { reals[5] } else { &[] },
            real: self.padded.then(|| reals[self.real_at()]),
        };
        let s = self.sizes(inputs[0].0);
        vec![Data::Real(cpu::backward(self.cell, s, &saved, *outputs[0].shape.last().expect("four axes")))]
    }
}

impl Op for RecurrentBackward {
    fn name(&self) -> &'static str {
        self.cell.suffix(["rnn_backward", "lstm_backward", "gru_backward"])
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        if inputs.len() != self.real_at() + usize::from(self.padded) || inputs[0] != inputs[1] || inputs[3] != inputs[4]
        {
            return Err(ShapeError(format!("{self:?} does not take {inputs:?}")));
        }
        let s = self.sizes(inputs[0]);
        Ok(vec![TensorType::f32(&[s.batch, s.heads, s.n, s.dim * if self.cell == Cell::Rnn { 1 } else { 4 }])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = Recurrent { cell: self.cell, padded: self.padded }.flops(&self.sizes(inputs[0]));
        Cost::streaming(flops, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("{} has no gradient", self.name())
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::backward(self, self.sizes(inputs[0]))
    }
}

/// One gradient for each input of the forward op.
pub fn gradients(op: &Recurrent, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
    let mut grads = vec![None; c.inputs.len()];
    let Some(dh) = c.douts[0] else { return grads };
    let (x, transposed, h) = (c.inputs[0], c.inputs[1], c.outputs[0]);
    let Sizes { heads, n, dim, .. } = op.sizes(g.ty(x));
    // The state in front of each step.
    let shifted = g.pad(h, 2, 1, 0, 0.0);
    let before = g.slice(shifted, 2, 0..n);
    let mut y = g.matmul(before, transposed);
    if op.cell == Cell::Gru {
        let bias = g.pad(c.inputs[op.bias_at()], 1, 2 * dim, 0, 0.0);
        let bias = g.reshape(bias, &[heads, 1, 3 * dim]);
        y = g.add(y, bias);
    }
    let u = g.swap_axes(transposed, 1, 2);
    let mut inputs = vec![x, y, u, h, dh];
    inputs.extend(c.outputs.get(1));
    inputs.extend(op.padded.then(|| c.inputs[op.real_at()]));
    let chain = g.apply1(RecurrentBackward { cell: op.cell, padded: op.padded }, &inputs);
    let (mut dx, mut dy) = (chain, chain);
    if op.cell == Cell::Gru {
        let dn = g.slice(chain, 3, 3 * dim..4 * dim);
        grads[op.bias_at()] = Some(g.sum(dn, &[0, 2], false));
        let same = g.slice(chain, 3, 0..2 * dim);
        dy = g.concat(&[same, dn], 3);
        dx = g.slice(chain, 3, 0..3 * dim);
    }
    grads[0] = Some(dx);
    let product = Matmul { trans_a: true, batch: Some(vec![heads]), ..Matmul::default() };
    grads[1] = Some(g.matmul_with(product, before, dy));
    grads
}
