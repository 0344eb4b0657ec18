//! The effective matrix: those of the three branches by their gates, compression handed on to the tokens.

use super::*;
use crate::graph::Data;

/// One cell for each pair; with values of their own the branches mix different ones, and this is what each is mixed with.
pub fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let compressed = compressed(g, x, s);
    let skimmed = compressed.as_ref().map(|c| skim(g, x, c));
    let blocks = select(g, x, s, compressed.as_ref().zip(skimmed.map(|(_, lse)| lse)));
    let [gate_cmp, gate_slc, gate_win] = gates(g, x);

    let scores = |g: &mut Graph, branch: usize| {
        let [k, _] = own(x, branch);
        g.matmul_nt(x.q, k, s.scale())
    };
    let read = read(g, blocks, s);
    let all = scores(g, 1);
    let lowest = g.constant(&[], Data::Real(vec![-1e30]));
    let chosen = g.select(read, all, lowest);
    let chosen = g.masked_softmax(chosen, x.key_padding, Rule::All { causal: true });
    // A row of padding alone has the lowest score everywhere.
    let chosen = g.mul(chosen, read);
    let near = scores(g, 2);
    let near = g.masked_softmax(near, x.key_padding, window(s));
    let (chosen, near) = (g.mul(chosen, gate_slc), g.mul(near, gate_win));
    let mut cells = g.add(chosen, near);
    if let Some(c) = &compressed {
        let scores = g.matmul_nt(x.q, c.k, s.scale());
        let weights = g.masked_softmax(scores, c.real, c.rule.clone());
        let shares = hand_on(g, weights, x, s);
        let shares = g.mul(shares, gate_cmp);
        cells = g.add(cells, shares);
    }
    strips::cells(x, s, cells)
}

/// 1 where a query reads a key's block, `[B, H, N, N]`.
fn read(g: &mut Graph, blocks: Node, s: &Setup) -> Node {
    let Choice { block, count, group, .. } = choice(s);
    let (b, h, n, lists, all) = (s.batch, s.heads, s.length, s.heads.div_ceil(group), s.length.div_ceil(block));
    let rows = b * lists * n;
    let numbers = g.reshape(blocks, &[rows, count]);
    let ones = g.constant(&[rows, count, 1], Data::Real(vec![1.0; rows * count]));
    let marks = g.scatter_add_rows(ones, numbers, all);
    // To the heads of a list, and to the keys of a block.
    let marks = g.reshape(marks, &[b * lists, 1, n * all, 1]);
    let marks = g.broadcast_to(marks, &[b * lists, group, n * all, block]);
    let marks = g.reshape(marks, &[b, lists * group, n, all * block]);
    let marks = g.slice(marks, 1, 0..h);
    g.slice(marks, 3, 0..n)
}

/// Weights of compressed keys `[B, H, N, C]` as weights of what they were made of, `[B, H, N, N]`.
fn hand_on(g: &mut Graph, weights: Node, x: &Inputs<Node>, s: &Setup) -> Node {
    let Choice { length, stride, .. } = choice(s);
    let (b, h, n, parts) = (s.batch, s.heads, s.length, length / stride);
    let strides = g.shape(weights)[3] + parts - 1;
    let mut total: Option<Node> = None;
    for part in 0..parts {
        // Part p of block c is stride c + p.
        let moved = g.pad(weights, 3, part, parts - 1 - part, 0.0);
        let moved = g.reshape(moved, &[b, h, n * strides, 1]);
        let shares = match x.extras.get("phi_v") {
            Some(&phi) => {
                let phi = g.slice(phi, 1, part * stride..(part + 1) * stride);
                let phi = g.reshape(phi, &[h, 1, stride]);
                g.mul(moved, phi)
            }
            None => {
                let share = g.scale(moved, 1.0 / length as f64);
                g.broadcast_to(share, &[b, h, n * strides, stride])
            }
        };
        total = Some(total.map_or(shares, |total| g.add(total, shares)));
    }
    let total = total.expect("a block has at least one stride");
    let cells = g.reshape(total, &[b, h, n, strides * stride]);
    g.pad(cells, 3, 0, n - strides * stride, 0.0)
}
