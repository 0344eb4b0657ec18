//! Synthesizer: attention weights that are not products of queries and keys but made up, `O = softmax(C) V`.
//!
//! C by kind, with tensors of each head's own: *dense* `C_ij = W2_j·relu(W1 q_i + b1) + b2_j`; *random* `C = R`; *factorized dense*
//! `C_ij = A_i[j mod a] B_i[⌊j / a⌋]` with `A_i = WA q_i`, `B_i = WB q_i`; *factorized random* `C = R1 R2ᵀ`; *mixture*
//! `C = α_1 Q Kᵀ / √D + α_2 C_dense + α_3 R1 R2ᵀ` with α a softmax of three learned numbers. There is no 1/√D on C.
//!
//! Tay et al., 2021, "Synthesizer: Rethinking Self-Attention in Transformer Models", arXiv:2005.00743, section 3. Time O(N² D);
//! memory O(N D) where C is a product of narrow factors (dense, factorized random, mixture), because fused attention takes
//! these for queries and keys; O(N²) for random and factorized dense. Differs from the paper: queries stand for the tokens x,
//! as in the public code; F_A and F_B are linear; a mixture has these three parts.

use super::setup::product;
use super::{
    Causal, Effective, EffectiveKind, Extra, Family, Init, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant,
    full,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Graph, Node, Real};
use crate::pattern::BlockList;
use crate::reference::{At, is_real_key, is_real_query};
use std::rc::Rc;

const KIND: Param = Param {
    name: "kind",
    kind: ParamKind::Choice {
        options: &["dense", "random", "factorized_dense", "factorized_random", "mixture"],
        default: "dense",
    },
    meaning: "Where weights come from: dense computes a token's row of them from that token alone, random learns one matrix \
              for all texts, the factorized forms make either of narrow factors, mixture weighs dense, random and dot \
              products.",
};

const RANK: Param = Param {
    name: "rank",
    kind: ParamKind::Int { min: 1, max: 128, default: |_| 8 },
    meaning: "Width of the factors of a factorized random matrix, also in a mixture.",
};

const COLUMNS: Param = Param {
    name: "columns",
    kind: ParamKind::Int { min: 1, max: 1024, default: |n| n.isqrt() as u32 },
    meaning: "Length a of the part that factorized dense repeats along a row; the other part has N / a numbers.",
};

pub static VARIANT: Variant = Variant {
    id: "synthesizer",
    name: "Synthesizer",
    family: Family::LowRank,
    paper: Paper {
        title: "Synthesizer: Rethinking Self-Attention in Transformer Models",
        authors: "Tay et al.",
        year: 2021,
        arxiv: "2005.00743",
    },
    summary: "Tokens are not compared with each other at all: each writes its own row of attention weights, or the same \
              learned matrix serves every text. The surprise is how well that does, which says that much of attention is \
              about positions; mixed with dot products it does better than either. It still computes N×N weights, so it \
              is not faster for long texts, and its matrices belong to positions, so the length is fixed in advance. Use \
              it to ask what the comparison of tokens is worth; not to find things in a text.",
    complexity: "O(N^2 D) time, O(N D) memory (random: O(N^2))",
    exponent: 2.0,
    exact: false,
    causal: Causal::Both,
    params: &[KIND, RANK, COLUMNS],
    extras,
    check: |_| Ok(()),
    largest: |s| match s.choice(&KIND).as_str() {
        "random" => product(&[s.batch, s.heads, s.length, s.keys]),
        "factorized_dense" => {
            let (columns, times) = factors(s);
            product(&[s.batch, s.heads, s.length, columns, times])
        }
        _ => 0,
    },
    graph,
    effective,
    rule: |s| Some(full::rule(s)),
    blocks,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

/// a and b of factorized dense.
fn factors(s: &Setup) -> (usize, usize) {
    let columns = s.int(&COLUMNS).min(s.keys);
    (columns, s.keys.div_ceil(columns))
}

fn extras(s: &Setup) -> Vec<Extra> {
    let (h, n, m, d, rank) = (s.heads, s.length, s.keys, s.dim, s.int(&RANK));
    let (columns, times) = factors(s);
    let learned = |name, shape, role, init| Extra { name, shape, role, differentiable: true, optional: false, init };
    let narrow = Init::Normal(1.0 / (d as f32).sqrt());
    let dense = vec![
        learned("W1", vec![h, d, d], "first layer of a token's row of weights", narrow),
        learned("b1", vec![h, d], "its bias", Init::Zeros),
        learned("W2", vec![h, m, d], "second layer, one row for each key position", narrow),
        learned("b2", vec![h, m], "its bias", Init::Zeros),
    ];
    let low_rank = vec![
        learned("R1", vec![h, n, rank], "left factor of the learned matrix", Init::Normal(1.0)),
        learned("R2", vec![h, m, rank], "right factor of the learned matrix", Init::Normal(1.0)),
    ];
    match s.choice(&KIND).as_str() {
        "random" => vec![learned("R", vec![h, n, m], "the matrix of scores, the same for every text", Init::Normal(1.0))],
        "factorized_dense" => vec![
            learned("WA", vec![h, columns, d], "makes the part that is repeated along a row", narrow),
            learned("WB", vec![h, times, d], "makes the factor of each repetition", narrow),
        ],
        "factorized_random" => low_rank,
        "mixture" => {
            let weights = learned("alpha", vec![h, 3], "logits of the parts: dot product, dense, random", Init::Zeros);
            dense.into_iter().chain(low_rank).chain([weights]).collect()
        }
        _ => dense,
    }
}

fn is_fused(s: &Setup) -> bool {
    !["random", "factorized_dense"].contains(&s.choice(&KIND).as_str())
}

fn blocks(s: &Setup) -> Option<BlockList> {
    is_fused(s).then(|| full::blocks(s, &full::rule(s)))
}

/// `x` `[H, rows, R]` for every batch entry.
fn for_all(g: &mut Graph, x: Node, s: &Setup) -> Node {
    let shape = [&[s.batch], g.shape(x)].concat();
    g.broadcast_to(x, &shape)
}

/// The dense form as a product of `[relu(W1 q + b1), 1]` and `[W2, b2]`.
fn dense(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let hidden = g.matmul_nt(x.q, x.extras["W1"], 1.0);
    let bias = g.reshape(x.extras["b1"], &[1, s.heads, 1, s.dim]);
    let hidden = g.add(hidden, bias);
    let hidden = g.relu(hidden);
    let left = g.pad(hidden, 3, 0, 1, 1.0);
    let column = g.reshape(x.extras["b2"], &[s.heads, s.keys, 1]);
    let right = g.concat(&[x.extras["W2"], column], 2);
    (left, for_all(g, right, s))
}

/// Scores in factors: C is the product of left `[B, H, N, R]` and right `[B, H, M, R]`, R a multiple of four and no less than D.
fn product_form(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let low_rank = |g: &mut Graph| (for_all(g, x.extras["R1"], s), for_all(g, x.extras["R2"], s));
    let (left, right) = match s.choice(&KIND).as_str() {
        "factorized_random" => low_rank(g),
        "mixture" => {
            let parts = [(x.q, x.k), dense(g, x, s), low_rank(g)];
            let share = g.softmax(x.extras["alpha"]);
            let lefts: Vec<Node> = (0..3)
                .map(|part| {
                    let share = g.slice(share, 1, part..part + 1);
                    let share = g.reshape(share, &[1, s.heads, 1, 1]);
                    let share = if part == 0 { g.scale(share, 1.0 / (s.dim as f64).sqrt()) } else { share };
                    g.mul(parts[part].0, share)
                })
                .collect();
            (g.concat(&lefts, 3), g.concat(&parts.map(|(_, right)| right), 3))
        }
        _ => dense(g, x, s),
    };
    let rank = g.shape(left)[3];
    let missing = rank.max(s.dim).next_multiple_of(4) - rank;
    (g.pad(left, 3, 0, missing, 0.0), g.pad(right, 3, 0, missing, 0.0))
}

/// Fused attention over scores in factors: output and log-sum-exp.
fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup, left: Node, right: Node) -> (Node, Node) {
    let rule = full::rule(s);
    let options = BlockAttentionOptions {
        padding: x.key_padding,
        scale: Some(1.0),
        ..BlockAttentionOptions::new(Rc::new(full::blocks(s, &rule)), rule)
    };
    let missing = g.shape(left)[3] - s.dim;
    let values = g.pad(x.v, 3, 0, missing, 0.0);
    let (out, lse) = g.block_attention(left, right, values, &options);
    (g.slice(out, 3, 0..s.dim), lse)
}

/// The weights of random and factorized dense, `[B or 1, H, N, M]`.
fn weights(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let scores = g.stage("synthesise", |g| {
        if s.choice(&KIND) == "random" {
            // One matrix for all texts, unless each has padding of its own.
            let batch = if x.key_padding.is_some() { s.batch } else { 1 };
            return g.broadcast_to(x.extras["R"], &[batch, s.heads, s.length, s.keys]);
        }
        let (columns, times) = factors(s);
        let part = g.matmul_nt(x.q, x.extras["WA"], 1.0);
        let factor = g.matmul_nt(x.q, x.extras["WB"], 1.0);
        let part = g.unsqueeze(part, 3);
        let factor = g.unsqueeze(factor, 4);
        let scores = g.mul(factor, part);
        let scores = g.reshape(scores, &[s.batch, s.heads, s.length, columns * times]);
        g.slice(scores, 3, 0..s.keys)
    });
    g.stage("normalise", |g| g.masked_softmax(scores, x.key_padding, full::rule(s)))
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let out = if is_fused(s) {
        let (left, right) = g.stage("synthesise", |g| product_form(g, x, s));
        g.stage("attend", |g| attend(g, x, s, left, right).0)
    } else {
        let weights = weights(g, x, s);
        g.stage("mix", |g| g.matmul(weights, x.v))
    };
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let rule = full::rule(s);
    if is_fused(s) {
        let (left, right) = product_form(g, x, s);
        let (_, lse) = attend(g, x, s, left, right);
        return Effective { left, right, row: Some(lse), bias: None, kind: EffectiveKind::Softmax, rule };
    }
    let weights = weights(g, x, s);
    let left = g.broadcast_to(weights, &[s.batch, s.heads, s.length, s.keys]);
    Effective { left, right: left, row: None, bias: None, kind: EffectiveKind::Cells, rule }
}

/// Section 3's formulas, a row of scores at a time.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let kind = s.choice(&KIND);
    let (n, m, dim, rank) = (s.length, s.keys, s.dim, s.int(&RANK));
    let a = s.int(&COLUMNS).min(m);
    let b_count = m.div_ceil(a);
    let queries = At { heads: s.heads, rows: n, cols: dim };
    let keys = At { heads: s.heads, rows: m, cols: dim };
    let dot = |a: &[R], b: &[R]| a.iter().zip(b).fold(R::zero(), |dot, (&a, &b)| dot + a * b);
    let dense = |h: usize, q: &[R]| -> Vec<R> {
        let [w1, b1, w2, b2] = ["W1", "b1", "W2", "b2"].map(|name| &x.extras[name]);
        let hidden: Vec<R> = (0..dim)
            .map(|r| (dot(&w1[(h * dim + r) * dim..][..dim], q) + b1[h * dim + r]).maximum(R::zero()))
            .collect();
        (0..m).map(|j| dot(&w2[(h * m + j) * dim..][..dim], &hidden) + b2[h * m + j]).collect()
    };
    let low_rank = |h: usize, i: usize| -> Vec<R> {
        let left = &x.extras["R1"][(h * n + i) * rank..][..rank];
        (0..m).map(|j| dot(left, &x.extras["R2"][(h * m + j) * rank..][..rank])).collect()
    };
    let mut out = vec![R::zero(); s.instances() * n * dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in (0..n).filter(|&i| is_real_query(x, s, b, i)) {
                let q = &x.q[queries.index(b, h, i, 0)..][..dim];
                let scores: Vec<R> = match kind.as_str() {
                    "random" => x.extras["R"][(h * n + i) * m..][..m].to_vec(),
                    "factorized_random" => low_rank(h, i),
                    "factorized_dense" => (0..m)
                        .map(|j| {
                            let part = dot(&x.extras["WA"][(h * a + j % a) * dim..][..dim], q);
                            part * dot(&x.extras["WB"][(h * b_count + j / a) * dim..][..dim], q)
                        })
                        .collect(),
                    "mixture" => {
                        let exps: Vec<R> = x.extras["alpha"][h * 3..][..3].iter().map(|&x| x.exp()).collect();
                        let total = exps[0] + exps[1] + exps[2];
                        let scale = R::one() / R::from_f64(dim as f64).sqrt();
                        let (dense, low_rank) = (dense(h, q), low_rank(h, i));
                        let key = |j: usize| &x.k[keys.index(b, h, j, 0)..][..dim];
                        (0..m)
                            .map(|j| {
                                let sum = exps[0] * dot(q, key(j)) * scale + exps[1] * dense[j] + exps[2] * low_rank[j];
                                sum / total
                            })
                            .collect()
                    }
                    _ => dense(h, q),
                };
                let sees = |&j: &usize| is_real_key(x, s, b, j) && (!s.causal || j + n <= i + m);
                let visible: Vec<usize> = (0..m).filter(sees).collect();
                let largest = visible.iter().map(|&j| scores[j].to_f64()).fold(f64::NEG_INFINITY, f64::max);
                let weight: Vec<R> = visible.iter().map(|&j| (scores[j] - R::from_f64(largest)).exp()).collect();
                let sum = weight.iter().fold(R::zero(), |sum, &w| sum + w);
                for d in 0..dim {
                    let terms = visible.iter().zip(&weight);
                    let mixed = terms.fold(R::zero(), |o, (&j, &w)| o + w / sum * x.v[keys.index(b, h, j, d)]);
                    out[queries.index(b, h, i, d)] = mixed;
                }
            }
        }
    }
    out
}
