//! Elman's recurrent network, in place of a head of attention: `h_t = tanh(W x_t + U h_(t-1) + b)`, `x_t = [q_t; k_t; v_t]`.
//!
//! Elman, 1990, "Finding Structure in Time", Cognitive Science 14(2). Time O(N D²) in N dependent steps, state O(D). Differs
//! from the paper: gradients go back through all steps; what is read and written is said at [`super::recurrence`].

use super::{Causal, Family, Inputs, Paper, Reference, Setup, Variant, recurrence};
use crate::graph::Real;
use crate::graph::ops::recurrent::Cell;

pub static VARIANT: Variant = Variant {
    id: "rnn",
    name: "Recurrent network",
    family: Family::RecurrentNetwork,
    paper: Paper { title: "Finding Structure in Time", authors: "Elman", year: 1990, arxiv: "" },
    summary: "No attention: a network reads the tokens one after the other and keeps a state of fixed size, to which each step \
              adds and from which each step takes. Cost grows with the length only, and memory while generating not at all. \
              But the steps depend on each other, so a parallel machine waits, and what was read some dozen tokens ago has \
              faded from the state and from the gradient. Use it as the yardstick that attention was invented to beat.",
    complexity: "O(N D^2) time, N dependent steps",
    exponent: 1.0,
    exact: false,
    causal: Causal::Always,
    params: &[],
    extras: |s| recurrence::extras(s, Cell::Rnn),
    check: recurrence::check,
    largest: |s| recurrence::largest(s, Cell::Rnn),
    graph: |g, x, s| recurrence::graph(g, x, s, Cell::Rnn, 0.0),
    effective: recurrence::effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    recurrence::naive(x, s, s.dim, s.dim, |head, input, h| {
        let recurrent = recurrence::of_state(&x.extras["U"], s.dim, head, h);
        for d in 0..s.dim {
            h[d] = (input[d] + recurrent[d]).tanh();
        }
    })
}
