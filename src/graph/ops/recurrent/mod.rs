//! Recurrent cells over a whole sequence: Elman's network, LSTM and GRU, one independent network for each head.
//!
//! What can be done for all steps at once is left to matrix products: the inputs' part of the gates before the chain, the
//! weights' gradients behind it. The chain itself is one kernel in which a workgroup owns a head and keeps its state; it is cut
//! into dispatches of some hundred steps, each of which goes on from the last row that the one before has written.

mod backward;
mod cpu;
mod lower;

use crate::graph::{Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, TensorType};

/// Largest state for which a workgroup's memory is enough.
pub const LARGEST_STATE: usize = 512;

/// What happens at a step, from the inputs' part x of the gates and the state's part y = U h. Gates lie one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// `h = tanh(x + y)`.
    Rnn,
    /// `i, f, o = σ(x + y)`, `g = tanh(x + y)`; `c = f c + i g`, `h = o tanh(c)`; in the order i, f, g, o.
    Lstm,
    /// `r, u = σ(x + y)`, `n = tanh(x + r (y + b))`; `h = (1 - u) n + u h`; in the order r, u, n.
    Gru,
}

impl Cell {
    /// Gates, each of the state's size.
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }

    fn suffix(self, names: [&'static str; 3]) -> &'static str {
        match self {
            Cell::Rnn => names[0],
            Cell::Lstm => names[1],
            Cell::Gru => names[2],
        }
    }
}

/// Inputs: the inputs' part of the gates `[B, H, N, G·D]`, Uᵀ `[H, D, G·D]`, for a GRU b `[H, D]`, then `[B, N]`, 0 where a step
/// is padding, where there is any. Outputs: h `[B, H, N, D]`, and for an LSTM c of the same shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recurrent {
    pub cell: Cell,
    pub padded: bool,
}

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    heads: usize,
    n: usize,
    dim: usize,
}

impl Sizes {
    fn instances(&self) -> usize {
        self.batch * self.heads
    }
}

impl Graph {
    /// The states of a recurrent network, `[B, H, N, D]`, starting from zeros: `x` is the inputs' part of the gates
    /// `[B, H, N, G·D]`, `u` the recurrent weights `[H, G·D, D]`, `bias` a GRU's b `[H, D]`. Steps at which `real` `[B, N]` is 0
    /// carry the state on unchanged.
    pub fn recurrent(&mut self, cell: Cell, x: Node, u: Node, bias: Option<Node>, real: Option<Node>) -> Node {
        assert_eq!(bias.is_some(), cell == Cell::Gru, "b belongs to a GRU");
        let u = self.swap_axes(u, 1, 2);
        let inputs: Vec<Node> = [x, u].into_iter().chain(bias).chain(real).collect();
        self.apply(Recurrent { cell, padded: real.is_some() }, &inputs)[0]
    }
}

impl Recurrent {
    fn bias_at(&self) -> usize {
        2
    }

    fn real_at(&self) -> usize {
        2 + usize::from(self.cell == Cell::Gru)
    }

    fn sizes(&self, x: &TensorType) -> Sizes {
        Sizes { batch: x.shape[0], heads: x.shape[1], n: x.shape[2], dim: x.shape[3] / self.cell.gates() }
    }

    fn flops(&self, s: &Sizes) -> u64 {
        (s.instances() * s.n * s.dim * self.cell.gates()) as u64 * (2 * s.dim as u64 + 10)
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let (h, c) = cpu::forward(self, self.sizes(inputs[0].0), &cpu::reals(inputs));
        let mut all = vec![Data::Real(h), Data::Real(c)];
        all.truncate(outputs.len());
        all
    }
}

impl Op for Recurrent {
    fn name(&self) -> &'static str {
        self.cell.suffix(["rnn", "lstm", "gru"])
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let fail = || Err(ShapeError(format!("{self:?} does not take {inputs:?}")));
        if inputs.len() != self.real_at() + usize::from(self.padded) || inputs[0].shape.len() != 4 {
            return fail();
        }
        let (s, gates) = (self.sizes(inputs[0]), inputs[0].shape[3]);
        let mut wanted = vec![inputs[0].shape.clone(), vec![s.heads, s.dim, gates]];
        if self.cell == Cell::Gru {
            wanted.push(vec![s.heads, s.dim]);
        }
        if self.padded {
            wanted.push(vec![s.batch, s.n]);
        }
        let fits = wanted.iter().zip(inputs).all(|(shape, ty)| **ty == TensorType::f32(shape));
        if !fits || gates != s.dim * self.cell.gates() || inputs[0].is_empty() || s.dim > LARGEST_STATE {
            return fail();
        }
        let states = TensorType::f32(&[s.batch, s.heads, s.n, s.dim]);
        Ok(vec![states; if self.cell == Cell::Lstm { 2 } else { 1 }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(self.flops(&self.sizes(inputs[0])), inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        backward::gradients(self, g, c)
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::forward(self, self.sizes(inputs[0]))
    }
}
