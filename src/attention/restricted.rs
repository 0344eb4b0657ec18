//! Softmax attention over the pairs of a pattern: what all variants share that are full attention with something left out.

use super::{Effective, EffectiveKind, Inputs, Setup};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Graph, Node};
use crate::pattern::{BlockList, Rule};
use std::rc::Rc;

/// Rows of a block, of queries and of keys, where nothing speaks for others.
pub(super) const BLOCK: usize = 64;

/// A rule, and the blocks in which its pairs are visited.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub rule: Rule,
    pub list: Rc<BlockList>,
}

impl Pattern {
    /// Blocks of 64 × 64: for bands and everything else that is wide.
    pub fn tiled(s: &Setup, rule: Rule) -> Self {
        Self::blocked(s, rule, BLOCK, BLOCK)
    }

    /// Blocks of other sizes, where the pattern is cut into such.
    pub fn blocked(s: &Setup, rule: Rule, block_q: usize, block_k: usize) -> Self {
        let list = match &rule {
            Rule::Listed { list, causal: false } => list.as_ref().clone(),
            // Blocks on the diagonal are partial.
            Rule::Listed { list, causal: true } => {
                BlockList::of_heads(&rule, list.heads, s.length, s.keys, list.block_q, list.block_k)
            }
            rule => BlockList::of_heads(rule, s.heads, s.length, s.keys, block_q, block_k),
        };
        Self { rule, list: Rc::new(list) }
    }

    /// A list of keys for each query: for what is too thin for blocks. Each key is loaded for one query alone, so a pair costs
    /// more than in a block, but only allowed pairs are scored.
    pub fn gathered(s: &Setup, rule: Rule) -> Self {
        Self::blocked(s, rule, 1, 1)
    }

    /// o `[B, H, N, D]` and the log-sum-exp `[B, H, N]`.
    pub fn attend(&self, g: &mut Graph, x: &Inputs<Node>) -> (Node, Node) {
        let options = BlockAttentionOptions {
            padding: x.key_padding,
            bias: x.extras.get("bias").copied(),
            ..BlockAttentionOptions::new(self.list.clone(), self.rule.clone())
        };
        g.block_attention(x.q, x.k, x.v, &options)
    }

    pub fn graph(&self, g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
        let (out, _) = g.stage("attend", |g| self.attend(g, x));
        x.without_padded_queries(g, out, s)
    }

    pub fn effective(&self, g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
        let (_, lse) = self.attend(g, x);
        weights(g, x, s, lse, self.rule.clone())
    }
}

/// `exp(q·k / √D - lse)` inside a rule.
pub(super) fn weights(g: &mut Graph, x: &Inputs<Node>, s: &Setup, lse: Node, rule: Rule) -> Effective {
    let left = g.scale(x.q, s.scale().into());
    let bias = x.extras.get("bias").copied();
    Effective { left, right: x.k, row: Some(lse), bias, kind: EffectiveKind::Softmax, rule }
}

/// Two attentions over disjoint keys as one: their outputs weighted by the shares of their softmax sums, and the log-sum-exp of
/// both. o `[B, H, N, D]`, log-sum-exp `[B, H, N]`.
pub(super) fn merge(g: &mut Graph, (o_a, lse_a): (Node, Node), (o_b, lse_b): (Node, Node)) -> Node {
    let difference = g.sub(lse_a, lse_b);
    let [b, h, n, _] = g.shape(o_a)[..] else { unreachable!("attention gives [B, H, N, D]") };
    // sigmoid(x) = (1 + tanh(x / 2)) / 2, which no size of x takes out of range.
    let half = g.scale(difference, 0.5);
    let half = g.tanh(half);
    let half = g.scale(half, 0.5);
    let share = g.add_scalar(half, 0.5);
    let share = g.reshape(share, &[b, h, n, 1]);
    let change = g.sub(o_a, o_b);
    let change = g.mul(change, share);
    g.add(o_b, change)
}

/// The log-sum-exp of two attentions over disjoint keys.
pub(super) fn merge_sums(g: &mut Graph, lse_a: Node, lse_b: Node) -> Node {
    let top = g.maximum(lse_a, lse_b);
    let parts = [lse_a, lse_b].map(|lse| {
        let below = g.sub(lse, top);
        g.exp(below)
    });
    let sum = g.add(parts[0], parts[1]);
    let sum = g.ln(sum);
    g.add(top, sum)
}

/// A power of two near √N: the stride and block length of patterns that cost N√N.
pub(super) fn near_root(n: usize) -> u32 {
    1 << ((n.max(1) as f64).log2() / 2.0).round() as u32
}
