//! Full attention as the paper writes it, with its matrices in memory: `O = softmax(Q Kᵀ / √D) V`.
//!
//! Vaswani et al., 2017, "Attention Is All You Need", arXiv:1706.03762, eq. 1. Time O(N² D), memory O(N²).
//! Differs from the paper: none. It is the baseline that the others are compared with; [`super::full`] computes the same
//! without the N×M buffers.

use super::{Causal, Effective, Family, Inputs, Paper, Reference, Setup, Variant, full};
use super::setup::product;
use crate::graph::{Graph, Node, Real};
use crate::reference::softmax_attention;

pub static VARIANT: Variant = Variant {
    id: "full_naive",
    name: "Full attention, naive",
    family: Family::Full,
    paper: Paper {
        title: "Attention Is All You Need",
        authors: "Vaswani et al.",
        year: 2017,
        arxiv: "1706.03762",
    },
    summary: "Every token looks at every token: all N×N scores are computed, turned into weights by a softmax, and used to \
              average the values. This form writes the scores and the weights to memory as whole matrices, as the formula \
              reads, so doubling the text makes it four times as slow and four times as big. Use it to see what the other \
              methods save, and for short texts; never for long ones, where memory ends first.",
    complexity: "O(N^2 D) time, O(N^2) memory",
    exponent: 2.0,
    exact: true,
    causal: Causal::Both,
    params: &[],
    extras: |_| vec![],
    check: |_| Ok(()),
    largest: |s| product(&[s.batch, s.heads, s.length, s.keys]),
    graph,
    effective,
    rule: |s| Some(full::rule(s)),
    blocks: |_| None,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let scores = g.stage("score", |g| g.matmul_nt(x.q, x.k, s.scale()));
    let weights = g.stage("normalise", |g| g.masked_softmax(scores, x.key_padding, full::rule(s)));
    let out = g.stage("mix", |g| g.matmul(weights, x.v));
    x.without_padded_queries(g, out, s)
}

/// The weights themselves would be N×M; their factors are those of the fused form.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    full::softmax_effective(g, x, s, full::rule(s))
}

/// Query i sees key j unless j lies behind it; with more keys than queries the sequences end together.
pub(super) fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    softmax_attention(x, s, |i, j| !s.causal || j + s.length <= i + s.keys)
}
