//! The gated recurrent unit, in place of a head of attention.
//!
//! `r, u = σ(W x_t + U h_(t-1) + b)`, `n = tanh(W x_t + b + r (U h_(t-1) + b_n))`, each with rows of W, U and b of its own in the
//! order r, u, n; `h_t = (1 - u) n + u h_(t-1)`; `x_t = [q_t; k_t; v_t]`.
//!
//! Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
//! arXiv:1406.1078, eq. 5-8. Time O(N D²) in N dependent steps, state O(D). Differs from the paper: the reset gate r is applied
//! behind U and not before it, as in today's libraries, so that U h is one product for all gates.

use super::recurrence::{self, sigmoid};
use super::{Causal, Family, Inputs, Paper, Reference, Setup, Variant};
use crate::graph::Real;
use crate::graph::ops::recurrent::Cell;

pub static VARIANT: Variant = Variant {
    id: "gru",
    name: "GRU",
    family: Family::RecurrentNetwork,
    paper: Paper {
        title: "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
        authors: "Cho et al.",
        year: 2014,
        arxiv: "1406.1078",
    },
    summary: "No attention: a recurrent network whose state is at each step a mixture of what it was and of something new, with \
              learned gates for how much of each. It does about what an LSTM does with three gates in place of four and one \
              state in place of two. Cost grows with the length only, but the steps depend on each other, and all that was \
              read must fit the state. Use it where an LSTM would do and a quarter less work counts.",
    complexity: "O(N D^2) time, N dependent steps",
    exponent: 1.0,
    exact: false,
    causal: Causal::Always,
    params: &[],
    extras: |s| recurrence::extras(s, Cell::Gru),
    check: recurrence::check,
    largest: |s| recurrence::largest(s, Cell::Gru),
    graph: |g, x, s| recurrence::graph(g, x, s, Cell::Gru, 0.0),
    effective: recurrence::effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let dim = s.dim;
    recurrence::naive(x, s, 3 * dim, dim, |head, input, h| {
        let recurrent = recurrence::of_state(&x.extras["U"], 3 * dim, head, h);
        for d in 0..dim {
            let [reset, update] = [0, 1].map(|gate| sigmoid(input[gate * dim + d] + recurrent[gate * dim + d]));
            let inner = recurrent[2 * dim + d] + x.extras["b_n"][head * dim + d];
            let candidate = (input[2 * dim + d] + reset * inner).tanh();
            h[d] = (R::one() - update) * candidate + update * h[d];
        }
    })
}
