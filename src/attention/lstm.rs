//! Long short-term memory, in place of a head of attention.
//!
//! `i, f, o = σ(W x_t + U h_(t-1) + b)`, `g = tanh(W x_t + U h_(t-1) + b)`, each with rows of W, U and b of its own in the order
//! i, f, g, o; `c_t = f c_(t-1) + i g`, `h_t = o tanh(c_t)`; `x_t = [q_t; k_t; v_t]`.
//!
//! Hochreiter and Schmidhuber, 1997, "Long Short-Term Memory", Neural Computation 9(8), with the forget gate of Gers et al.,
//! 2000. Time O(N D²) in N dependent steps, state O(D). Differs from the papers: a constant is added to the forget gates'
//! input, 1 unless told otherwise, as is usual since Jozefowicz et al., 2015; gradients go back through all steps.

use super::recurrence::{self, sigmoid};
use super::{Causal, Family, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant};
use crate::graph::Real;
use crate::graph::ops::recurrent::Cell;

pub(super) const FORGET_BIAS: Param = Param {
    name: "forget_bias",
    kind: ParamKind::Int { min: 0, max: 8, default: |_| 1 },
    meaning: "Added to the input of the forget gates: from 1 on, a network that has not learned yet remembers more than it \
              forgets.",
};

pub static VARIANT: Variant = Variant {
    id: "lstm",
    name: "LSTM",
    family: Family::RecurrentNetwork,
    paper: Paper { title: "Long Short-Term Memory", authors: "Hochreiter and Schmidhuber", year: 1997, arxiv: "" },
    summary: "No attention: a recurrent network with a second state, the cell, that is only added to and scaled by gates, so \
              that gradients reach back some hundred tokens instead of a dozen. Before transformers it was what language was \
              modelled with. Cost grows with the length only, but the steps depend on each other and a parallel machine \
              waits; and all that was read must fit the state. Use it for streams on small machines, and as a yardstick.",
    complexity: "O(N D^2) time, N dependent steps",
    exponent: 1.0,
    exact: false,
    causal: Causal::Always,
    params: &[FORGET_BIAS],
    extras: |s| recurrence::extras(s, Cell::Lstm),
    check: recurrence::check,
    largest: |s| recurrence::largest(s, Cell::Lstm),
    graph: |g, x, s| recurrence::graph(g, x, s, Cell::Lstm, s.int(&FORGET_BIAS) as f64),
    effective: recurrence::effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let dim = s.dim;
    let forget = R::from_f64(s.int(&FORGET_BIAS) as f64);
    recurrence::naive(x, s, 4 * dim, 2 * dim, |head, input, state| {
        let (h, c) = state.split_at_mut(dim);
        let recurrent = recurrence::of_state(&x.extras["U"], 4 * dim, head, h);
        for d in 0..dim {
            let sum = |gate: usize| input[gate * dim + d] + recurrent[gate * dim + d];
            c[d] = sigmoid(sum(1) + forget) * c[d] + sigmoid(sum(0)) * sum(2).tanh();
            h[d] = sigmoid(sum(3)) * c[d].tanh();
        }
    })
}
