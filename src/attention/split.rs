//! A few queries over many keys: keys are cut into parts that are attended to side by side, and the parts' outputs weighted
//! by their shares of the softmax sum.
//!
//! Fused attention gives each block of queries to one workgroup, which walks the keys one after the other. A few global
//! tokens or landmarks are one block, so most of a GPU would watch one workgroup walk the whole text. The same idea:
//! Dao et al., 2023, "Flash-Decoding for long-context inference".

use super::full;
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Graph, Node};
use crate::pattern::Rule;
use std::rc::Rc;

/// Keys of a part, at least.
const KEYS: usize = 128;
/// Most parts: with a few heads, enough for any GPU.
const PARTS: usize = 16;

/// Into how many equal parts `keys` are cut. They must come out even, since a part is a view of the whole.
fn parts(keys: usize) -> usize {
    (2..=PARTS.min(keys / KEYS)).rev().find(|&parts| keys.is_multiple_of(parts)).unwrap_or(1)
}

/// Attention of q `[B, H, n, D]` to all of k and v `[B, H, M, D]`: o `[B, H, n, D]` and the log-sum-exp `[B, H, n]`. `padding`
/// is u32 `[B, M]`, 1 = real; with it the keys stay together.
pub(super) fn attend(g: &mut Graph, q: Node, k: Node, v: Node, padding: Option<Node>) -> (Node, Node) {
    let &[batch, heads, n, dim] = g.shape(q) else { panic!("queries are [B, H, n, D]") };
    let keys = g.shape(k)[2];
    let rule = Rule::All { causal: false };
    let parts = if padding.is_some() { 1 } else { parts(keys) };
    let list = Rc::new(full::blocks_of(n, keys / parts, &rule));
    let options = BlockAttentionOptions { padding, ..BlockAttentionOptions::new(list, rule) };
    if parts == 1 {
        return g.block_attention(q, k, v, &options);
    }
    // Parts lie one behind the other, so that each is a head of its own.
    let [k, v] = [k, v].map(|x| {
        let width = g.shape(x)[3];
        g.reshape(x, &[batch, heads * parts, keys / parts, width])
    });
    let apart = g.unsqueeze(q, 2);
    let copies = g.broadcast_to(apart, &[batch, heads, parts, n, dim]);
    let copies = g.reshape(copies, &[batch, heads * parts, n, dim]);
    let (out, lse) = g.block_attention(copies, k, v, &options);
    let width = g.shape(out)[3];
    let out = g.reshape(out, &[batch, heads, parts, n, width]);
    let lse = g.reshape(lse, &[batch, heads, parts, n, 1]);
    // Whatever is subtracted from the exponents, the shares are the same.
    let top = g.max(lse, &[2], true);
    let top = g.detach(top);
    let below = g.sub(lse, top);
    let sums = g.exp(below);
    let total = g.sum(sums, &[2], true);
    let shares = g.div(sums, total);
    let weighted = g.mul(out, shares);
    let log = g.ln(total);
    let whole = g.add(top, log);
    (g.sum(weighted, &[2], false), g.reshape(whole, &[batch, heads, n]))
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn parts_are_even_and_not_small() {
        assert_eq!([100, 255, 256, 1000, 1021, 4096, 16_384, 65_536].map(parts), [1, 1, 2, 5, 1, 16, 16, 16]);
    }
}
