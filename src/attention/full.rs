//! Full attention by online softmax: the same function as [`super::full_naive`] without any N×M buffer.
//!
//! Key blocks stream past each query block, which keeps a running maximum `m`, a running sum `l` and a running output; a new
//! block rescales them: `m' = max(m, max s)`, `l' = e^(m - m') l + sum e^(s - m')`, and likewise for the output.
//!
//! Dao et al., 2022, "FlashAttention", arXiv:2205.14135, algorithm 1; the rescaling is due to Milakov and Gimelshein, 2018.
//! Time O(N² D), memory O(N). Differs from the paper: the backward pass walks the blocks twice, once for dk and dv and once
//! for dq, because there are no float atomics to add into dq with.

use super::restricted::{BLOCK, Pattern};
use super::{Causal, Effective, Extra, Family, Init, Inputs, Paper, Reference, Setup, Variant, full_naive};
use crate::graph::{Graph, Node};
use crate::pattern::{BlockList, Rule};

pub static VARIANT: Variant = Variant {
    id: "full",
    name: "Full attention, fused",
    family: Family::Full,
    paper: Paper {
        title: "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness",
        authors: "Dao et al.",
        year: 2022,
        arxiv: "2205.14135",
    },
    summary: "Every token looks at every token, with exactly the result of naive full attention, but the N×N matrix is never \
              stored: keys and values stream past in blocks while each query keeps a running softmax. Memory grows only with \
              the length of the text; time still grows with its square. Use it whenever full attention is wanted. It is the \
              yardstick for the methods that leave something out.",
    complexity: "O(N^2 D) time, O(N) memory",
    exponent: 2.0,
    exact: true,
    causal: Causal::Both,
    params: &[],
    extras,
    check: |_| Ok(()),
    largest: |_| 0,
    graph: |g, x, s| softmax_graph(g, x, s, rule(s)),
    effective: |g, x, s| softmax_effective(g, x, s, rule(s)),
    rule: |s| Some(rule(s)),
    blocks: |s| Some(blocks(s, &rule(s))),
    loss: None,
    decide: None,
    reference: Reference::new(full_naive::naive, full_naive::naive),
};

/// A bias is N×M for every head, whatever the kernel does without; it is there for whoever has one.
fn extras(s: &Setup) -> Vec<Extra> {
    vec![Extra {
        name: "bias",
        shape: vec![s.batch, s.heads, s.length, s.keys],
        role: "added to the scaled scores",
        differentiable: true,
        optional: true,
        init: Init::Zeros,
    }]
}

pub(super) fn rule(s: &Setup) -> Rule {
    Rule::All { causal: s.causal }
}

pub(super) fn blocks(s: &Setup, rule: &Rule) -> BlockList {
    blocks_of(s.length, s.keys, rule)
}

/// The same for other numbers of queries and keys than a setup's.
pub(super) fn blocks_of(length: usize, keys: usize, rule: &Rule) -> BlockList {
    BlockList::new(rule, length, keys, BLOCK, BLOCK)
}

/// The graph of full attention restricted to a rule, over blocks of 64 × 64 pairs.
pub(super) fn softmax_graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup, rule: Rule) -> Node {
    Pattern::tiled(s, rule).graph(g, x, s)
}

/// Its effective matrix.
pub(super) fn softmax_effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup, rule: Rule) -> Effective {
    Pattern::tiled(s, rule).effective(g, x, s)
}
