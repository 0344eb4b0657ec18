//! Funnel-Transformer: queries are pooled, and attend to keys and values at full length.
//!
//! `q'_u` is the mean of the 2^p queries from `2^p u` on; `o'_u = softmax(q'_u Kᵀ / √D) V`; and each output is that of its pool,
//! `o_i = o'_⌊i / 2^p⌋`, as the decoder repeats them. With the first token apart it is a pool of its own. The effective matrix is
//! that of the pooled queries with every row repeated; its rows sum to 1.
//!
//! Dai et al., 2020, "Funnel-Transformer: Filtering out Sequential Redundancy for Efficient Language Processing",
//! arXiv:2006.03236, section 2.2 (pool-query-only attention) and eq. 2 (up-sampling). Time O(N² D / 2^p), memory O(N D). Differs
//! from the paper: one attention alone pools and repeats, where the model pools between blocks, computes the deeper layers at
//! the shorter length and repeats once at the end; a mean is over the real tokens of a pool, the last pool may be short, and
//! nothing is cut off; no relative positions;
//! a choice takes one query of a pool by lot in place of the mean.

use super::{
    Causal, Decision, Effective, EffectiveKind, Family, Form, Inputs, Of, Paper, Param, ParamKind, Reference, Setup,
    Variant, full, lots,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Data, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};
use std::rc::Rc;

const POOLINGS: Param = Param {
    name: "poolings",
    kind: ParamKind::Int { min: 0, max: 3, default: |_| 1 },
    meaning: "How often the queries are halved: 1 pools two tokens, 2 four, 3 eight; 0 is full attention.",
};

const SEPARATE_FIRST: Param = Param {
    name: "separate_first",
    kind: ParamKind::Bool { default: true },
    meaning: "Whether the first token, which often stands for the whole text, is kept apart from pooling.",
};

const POOL: Param = Param {
    name: "pool",
    kind: ParamKind::Choice { options: &["mean", "random"], default: "mean" },
    meaning: "What asks for a pool: the mean of its queries, or one of them by lot, to see whether pooling matters.",
};

pub static VARIANT: Variant = Variant {
    id: "funnel",
    name: "Funnel-Transformer",
    family: Family::LowRank,
    paper: Paper {
        title: "Funnel-Transformer: Filtering out Sequential Redundancy for Efficient Language Processing",
        authors: "Dai et al.",
        year: 2020,
        arxiv: "2006.03236",
    },
    summary: "Neighbouring tokens say much the same, so pairs of queries are averaged and attend as one, to all tokens; what \
              they find is handed back to both. One such layer costs half of full attention, and a model that stays at \
              the shorter length for the layers that follow saves most of its work. The square of the length remains, only \
              smaller, and a pool mixes a token with the next, so it cannot generate text. Use it for encoders whose \
              answer is one per text; not where every token needs an answer of its own.",
    complexity: "O(N^2 D / 2^p) time, O(N D) memory",
    exponent: 2.0,
    exact: false,
    causal: Causal::Never("a pooled query is a mean with the tokens that follow, so future tokens would leak into the first"),
    params: &[POOLINGS, SEPARATE_FIRST, POOL],
    extras: |s| if s.choice(&POOL) == "random" { vec![lots::extra(s)] } else { vec![] },
    check: |_| Ok(()),
    largest: |_| 0,
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: Some(decide),
    reference: Reference::new(naive, naive),
};

/// Tokens of a pool, tokens put in front so that the first one is apart, and how many pools there are.
fn pools(s: &Setup) -> (usize, usize, usize) {
    let size = 1 << s.int(&POOLINGS);
    let before = if s.bool(&SEPARATE_FIRST) { size - 1 } else { 0 };
    (size, before, (s.length + before).div_ceil(size))
}

/// `x` `[B, H, N, C]` filled up with zeros and cut, `[B, H, pools, tokens of a pool, C]`.
fn cut(g: &mut Graph, x: Node, s: &Setup) -> Node {
    let (size, before, count) = pools(s);
    let &[batch, heads, _, columns] = g.shape(x) else { panic!("rows are [B, H, N, C]") };
    let filled = g.pad(x, 2, before, size * count - before - s.length, 0.0);
    g.reshape(filled, &[batch, heads, count, size, columns])
}

/// 1 for a query that asks for its pool and 0 for others, `[B or 1, 1, pools, tokens of a pool, 1]`.
fn shares(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let ones = g.constant(&[1, 1, s.length, 1], Data::Real(vec![1.0; s.length]));
    let real = x.real_keys(g, s).filter(|_| s.is_of_itself()).unwrap_or(ones);
    let share = cut(g, real, s);
    let Some(&lots) = x.extras.get(lots::LOTS) else { return share };
    let lots = g.reshape(lots, &[1, 1, s.length, 1]);
    let lots = cut(g, lots, s);
    lots::winners(g, lots, share, 3)
}

/// Means over the real queries of each pool, `[B, H, pools, D]`.
fn pool(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let share = shares(g, x, s);
    let total = g.sum(share, &[3], true);
    let one = g.constant(&[], Data::Real(vec![1.0]));
    let total = g.maximum(total, one);
    let weights = g.div(share, total);
    let rows = cut(g, x.q, s);
    let weighted = g.mul(rows, weights);
    g.sum(weighted, &[3], false)
}

/// Each pool's row for all its tokens: `[B, H, pools, C]` to `[B, H, N, C]`.
fn repeat(g: &mut Graph, x: Node, s: &Setup) -> Node {
    let (size, before, count) = pools(s);
    let columns = g.shape(x)[3];
    let apart = g.unsqueeze(x, 3);
    let copies = g.broadcast_to(apart, &[s.batch, s.heads, count, size, columns]);
    let rows = g.reshape(copies, &[s.batch, s.heads, count * size, columns]);
    g.slice(rows, 2, before..before + s.length)
}

/// What the pooled queries see, and the log-sum-exp.
fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup, pooled: Node) -> (Node, Node) {
    let rule = Rule::All { causal: false };
    let list = Rc::new(full::blocks_of(pools(s).2, s.keys, &rule));
    let options = BlockAttentionOptions { padding: x.key_padding, ..BlockAttentionOptions::new(list, rule) };
    g.block_attention(pooled, x.k, x.v, &options)
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let pooled = g.stage("pool", |g| pool(g, x, s));
    let (seen, _) = g.stage("attend", |g| attend(g, x, s, pooled));
    let out = g.stage("repeat", |g| repeat(g, seen, s));
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let pooled = pool(g, x, s);
    let (_, lse) = attend(g, x, s, pooled);
    let left = repeat(g, pooled, s);
    let left = g.scale(left, s.scale().into());
    let lse = g.unsqueeze(lse, 3);
    let row = repeat(g, lse, s);
    let row = g.reshape(row, &[s.batch, s.heads, s.length]);
    let rule = Rule::All { causal: false };
    Effective { left, right: x.k, row: Some(row), bias: None, kind: EffectiveKind::Softmax, rule }
}

/// The pool of each query, `[B, 1, 1, N]`, and how many are left.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let (_, before, count) = pools(s);
    let share = shares(g, x, s);
    let of = lots::numbered(g, share, count, before..before + s.length);
    vec![
        Decision::new(g, "pools", Form::Labels { count, of: Of::Queries }, of),
        Decision::known(g, "lengths", Form::Lengths, [1, 2, 1], [s.length, count]),
    ]
}

/// Section 2.2 and eq. 2, token by token.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let size = 1 << s.int(&POOLINGS);
    let pool_of = |i: usize| if s.bool(&SEPARATE_FIRST) { i.div_ceil(size) } else { i / size };
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: s.dim };
    let scale = R::one() / R::from_f64(s.dim as f64).sqrt();
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        let asking: Vec<usize> = (0..s.length).filter(|&i| is_real_query(x, s, b, i)).collect();
        let visible: Vec<usize> = (0..s.keys).filter(|&j| is_real_key(x, s, b, j)).collect();
        for h in 0..s.heads {
            for &i in asking.iter().filter(|_| !visible.is_empty()) {
                let mut pool: Vec<usize> = asking.iter().copied().filter(|&t| pool_of(t) == pool_of(i)).collect();
                if let Some(lots) = x.extras.get(lots::LOTS) {
                    pool = lots::winner(pool, lots).into_iter().collect();
                }
                let mean: Vec<R> = (0..s.dim)
                    .map(|d| {
                        let sum = pool.iter().fold(R::zero(), |sum, &t| sum + x.q[queries.index(b, h, t, d)]);
                        sum / R::from_f64(pool.len() as f64)
                    })
                    .collect();
                let score = |&j: &usize| {
                    let dot = (0..s.dim).fold(R::zero(), |dot, d| dot + mean[d] * x.k[keys.index(b, h, j, d)]);
                    dot * scale
                };
                let scores: Vec<R> = visible.iter().map(score).collect();
                let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
                let weights: Vec<R> = scores.into_iter().map(|score| (score - largest).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                for d in 0..s.dim {
                    let terms = visible.iter().zip(&weights);
                    let mixed = terms.fold(R::zero(), |o, (&j, &w)| o + w * x.v[keys.index(b, h, j, d)]);
                    out[queries.index(b, h, i, d)] = mixed / sum;
                }
            }
        }
    }
    out
}
