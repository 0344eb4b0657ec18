//! Routing attention: each of k centroids gathers the tokens nearest to it, which attend to each other.
//!
//! Queries and keys are normalised, `x̂ = (x - mean) / std`, so that the nearest have the largest products with a centroid μ_c.
//! Each centroid takes the w queries and the w keys with the largest `x̂·μ_c` and attends in full between them. A query that
//! several centroids took gets the mean of their outputs, one that none took zeros:
//! `A_ij = 1/n_i Σ over c with i and j of softmax over the keys of c of (q_i·k_j / √D)`.
//!
//! Roy et al., 2021, "Efficient Content-Based Sparse Attention with Routing Transformers", arXiv:2003.05997, section 4. Time
//! O(N k D + N w D), which is O(N^1.5 D) at k = w = √N, and sorting N tokens for each centroid; memory O(N k + k w D). The choice has
//! no gradient. Differs from the paper: attention is between raw queries and keys, as in the public package, and they are
//! normalised for the choice only; the mean of several outputs; centroids are given or drawn, their running update belongs to
//! training. Causal: a key is taken with its query, so that both lists are one, and a query sees the earlier members. As in the
//! paper who shares a centroid is decided over the whole sequence; only what is read is never ahead.

use crate::sort::Arrange;
use super::setup::product;
use super::{
    Causal, Decision, Effective, EffectiveKind, Extra, Family, Form, Init, Inputs, Of, Paper, Param, ParamKind,
    Reference, Refusal, Setup, Variant, full,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Data, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};
use std::rc::Rc;

/// Added to the variance of a row.
const EPSILON: f64 = 1e-5;

const CLUSTERS: Param = Param {
    name: "clusters",
    kind: ParamKind::Int { min: 1, max: 256, default: |n| n.isqrt().clamp(2, 128) as u32 },
    meaning: "How many centroids gather tokens; about the root of the length balances choosing and attending.",
};

const WINDOW: Param = Param {
    name: "window",
    kind: ParamKind::Int { min: 1, max: 65_536, default: |n| n.div_ceil(n.isqrt().clamp(2, 128)) as u32 },
    meaning: "How many tokens each centroid takes; usually the length divided by the number of centroids.",
};

const CHOOSE: Param = Param {
    name: "choose",
    kind: ParamKind::Choice { options: &["nearest", "random"], default: "nearest" },
    meaning: "Whether a centroid takes the tokens nearest to it or some by lot, to see whether the content matters.",
};

pub static VARIANT: Variant = Variant {
    id: "routing",
    name: "Routing attention",
    family: Family::LearnedPattern,
    paper: Paper {
        title: "Efficient Content-Based Sparse Attention with Routing Transformers",
        authors: "Roy et al.",
        year: 2021,
        arxiv: "2003.05997",
    },
    summary: "Tokens are routed by content: each of k learned centroids gathers the tokens that point its way, and these attend \
              only to each other. With k near the root of the length the cost grows as N^1.5, and what a token sees depends on \
              what it says and not on where it stands. Centroids must be trained along with the model, and a token that none \
              takes gets nothing. Use it for long texts with far-away repetitions of a theme, beside heads that look at \
              neighbours; not as the only attention.",
    complexity: "O(N^1.5 D) time, O(N^1.5) memory for the choice",
    exponent: 1.5,
    exact: false,
    causal: Causal::Both,
    params: &[CLUSTERS, WINDOW, CHOOSE],
    extras,
    check: |s| {
        if s.causal && s.keys != s.length {
            let reason = format!("causal routing takes a key with its query; there are {} keys", s.keys);
            return Err(Refusal::new(reason, format!("{} keys", s.length)));
        }
        Ok(())
    },
    largest: |s| {
        let rows = s.length.max(s.keys);
        let affinities = product(&[s.batch, s.heads, s.int(&CLUSTERS), rows]);
        affinities.max(product(&[s.batch, s.heads, s.int(&CLUSTERS), s.int(&WINDOW).min(rows), s.dim]))
    },
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: Some(decide),
    reference: Reference::new(naive, naive),
};

fn extras(s: &Setup) -> Vec<Extra> {
    let (h, k) = (s.heads, s.int(&CLUSTERS));
    let extra = |name, shape, role| Extra {
        name,
        shape,
        role,
        differentiable: false,
        optional: false,
        init: Init::Normal(1.0),
    };
    if s.choice(&CHOOSE) == "nearest" {
        return vec![extra("centroids", vec![h, k, s.dim], "the centroids of each head")];
    }
    let mut lots = vec![extra("query_lots", vec![h, k, s.length], "each centroid's lots of the queries")];
    if !s.causal {
        lots.push(extra("key_lots", vec![h, k, s.keys], "each centroid's lots of the keys"));
    }
    lots
}

/// Tokens that a centroid takes of so many.
fn window(s: &Setup, rows: usize) -> usize {
    s.int(&WINDOW).min(rows)
}

/// The tokens that each centroid takes, in order: u32 `[B·H, k, w]`, by their affinities `[B, H, k, rows]`.
fn members(g: &mut Graph, affinities: Node, s: &Setup, rows: usize) -> Node {
    let (total, k, w) = (s.instances(), s.int(&CLUSTERS), window(s, rows));
    let nearest = g.largest(affinities, w);
    g.reshape(nearest, &[total, k, w])
}

/// Affinities of `tokens` `[B, H, rows, D]`, very low for padding.
fn affinities(g: &mut Graph, tokens: Node, lots: &str, real: Option<Node>, x: &Inputs<Node>, s: &Setup) -> Node {
    let (k, rows) = (s.int(&CLUSTERS), g.shape(tokens)[2]);
    let affinities = match x.extras.get(lots) {
        Some(&lots) => g.broadcast_to(lots, &[s.batch, s.heads, k, rows]),
        None => {
            let ones = g.constant(&[s.dim], Data::Real(vec![1.0; s.dim]));
            let zeros = g.constant(&[s.dim], Data::Real(vec![0.0; s.dim]));
            let normalised = g.layer_norm(tokens, ones, zeros, EPSILON);
            g.matmul_nt(x.extras["centroids"], normalised, 1.0)
        }
    };
    let Some(real) = real else { return affinities };
    let lowest = g.constant(&[], Data::Real(vec![-1e30]));
    let real = g.reshape(real, &[s.batch, 1, 1, rows]);
    g.select(real, affinities, lowest)
}

/// Members of the centroids among queries and among keys.
fn route(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> [Node; 2] {
    let real_queries = x.key_padding.filter(|_| s.is_of_itself());
    let by_query = g.stage("affinity", |g| affinities(g, x.q, "query_lots", real_queries, x, s));
    let queries = g.stage("choose", |g| members(g, by_query, s, s.length));
    if s.causal {
        return [queries, queries];
    }
    let by_key = g.stage("affinity", |g| affinities(g, x.k, "key_lots", x.key_padding, x, s));
    [queries, g.stage("choose", |g| members(g, by_key, s, s.keys))]
}

/// Rows of `x` `[B, H, rows, D]` that the centroids take, `[B·H·k, 1, w, D]`.
fn take(g: &mut Graph, x: Node, members: Node, s: &Setup) -> Node {
    let (rows, (total, k, w)) = (g.shape(x)[2], sizes(g, members));
    let table = g.reshape(x, &[total, rows, s.dim]);
    let flat = g.reshape(members, &[total, k * w]);
    let taken = g.gather_rows(table, flat);
    g.reshape(taken, &[total * k, 1, w, s.dim])
}

fn sizes(g: &Graph, members: Node) -> (usize, usize, usize) {
    let &[total, k, w] = g.shape(members) else { panic!("members are [B·H, k, w]") };
    (total, k, w)
}

/// Which keys that the centroids took are real, u32 `[B·H·k, w]`.
fn real_members(g: &mut Graph, x: &Inputs<Node>, s: &Setup, keys: Node) -> Option<Node> {
    let (total, k, w) = sizes(g, keys);
    x.key_padding.map(|padding| {
        let padding = g.reshape(padding, &[s.batch, 1, s.keys, 1]);
        let padding = g.broadcast_to(padding, &[s.batch, s.heads, s.keys, 1]);
        let padding = g.reshape(padding, &[total, s.keys, 1]);
        let flat = g.reshape(keys, &[total, k * w]);
        let real = g.gather_rows(padding, flat);
        g.reshape(real, &[total * k, w])
    })
}

/// How many centroids took each query, at least 1: `[B·H, N, 1]`; and the queries' numbers `[B·H, k w]`.
fn times_taken(g: &mut Graph, queries: Node, s: &Setup) -> (Node, Node) {
    let (total, k, w) = sizes(g, queries);
    let flat = g.reshape(queries, &[total, k * w]);
    let ones = g.constant(&[total, k * w, 1], Data::Real(vec![1.0; total * k * w]));
    let times = g.scatter_add_rows(ones, flat, s.length);
    let one = g.constant(&[], Data::Real(vec![1.0]));
    (g.maximum(times, one), flat)
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`, centroids `[H, k, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    g.reusing(|g| forward(g, x, s))
}

fn forward(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let [queries, keys] = route(g, x, s);
    let (total, k, w) = sizes(g, queries);
    let [q, key, v] = g.stage("gather", |g| [(x.q, queries), (x.k, keys), (x.v, keys)].map(|(x, of)| take(g, x, of, s)));
    let out = g.stage("attend", |g| {
        let rule = Rule::All { causal: s.causal };
        let list = Rc::new(full::blocks_of(w, sizes(g, keys).2, &rule));
        let padding = real_members(g, x, s, keys);
        let options = BlockAttentionOptions { padding, ..BlockAttentionOptions::new(list, rule) };
        g.block_attention(q, key, v, &options).0
    });
    let out = g.stage("scatter", |g| {
        let out = g.reshape(out, &[total, k * w, s.dim]);
        let (times, flat) = times_taken(g, queries, s);
        let sums = g.scatter_add_rows(out, flat, s.length);
        let mean = g.div(sums, times);
        g.reshape(mean, &[s.batch, s.heads, s.length, s.dim])
    });
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let [queries, keys] = route(g, x, s);
    let (total, k, w) = sizes(g, queries);
    let wide = sizes(g, keys).2;
    let [q, key] = [(x.q, queries), (x.k, keys)].map(|(x, of)| take(g, x, of, s));
    let scores = g.matmul_nt(q, key, s.scale());
    let padding = real_members(g, x, s, keys);
    let weights = g.masked_softmax(scores, padding, Rule::All { causal: s.causal });
    // To the columns of the keys, then to the rows of the queries.
    let weights = g.reshape(weights, &[total * k * w, wide, 1]);
    let places = g.reshape(keys, &[total * k, 1, wide]);
    let places = g.broadcast_to(places, &[total * k, w, wide]);
    let places = g.reshape(places, &[total * k * w, wide]);
    let rows = g.scatter_add_rows(weights, places, s.keys);
    let rows = g.reshape(rows, &[total, k * w, s.keys]);
    let (times, flat) = times_taken(g, queries, s);
    let sums = g.scatter_add_rows(rows, flat, s.length);
    let cells = g.div(sums, times);
    let left = g.reshape(cells, &[s.batch, s.heads, s.length, s.keys]);
    let rule = Rule::All { causal: s.causal };
    Effective { left, right: left, row: None, bias: None, kind: EffectiveKind::Cells, rule }
}

/// The members of each centroid: of queries and of keys, or of both at once.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let [queries, keys] = route(g, x, s);
    let mut of = |name, members, count, of| {
        let (_, k, w) = sizes(g, members);
        let members = g.reshape(members, &[s.batch, s.heads, k, w]);
        Decision::new(g, name, Form::Members { count, tokens: 1, row_tokens: 0, of }, members)
    };
    if s.causal {
        return vec![of("tokens", queries, s.length, Of::Tokens)];
    }
    vec![of("queries", queries, s.length, Of::Queries), of("keys", keys, s.keys, Of::Keys)]
}

/// Section 4.1, centroid by centroid.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let (k, dim) = (s.int(&CLUSTERS), s.dim);
    let queries = At { heads: s.heads, rows: s.length, cols: dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: dim };
    let scale = R::one() / R::from_f64(dim as f64).sqrt();
    let mut out = vec![R::zero(); s.instances() * s.length * dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            // The `window` rows with the largest affinity to centroid c, real ones first, in order.
            let taken = |tensor: &[R], at: &At, lots: &str, c: usize, is_real: &dyn Fn(usize) -> bool| -> Vec<usize> {
                let affinity = |i: usize| -> f64 {
                    if !is_real(i) {
                        return -1e30;
                    }
                    if let Some(lots) = x.extras.get(lots) {
                        return lots[(h * k + c) * at.rows + i].to_f64();
                    }
                    let row: Vec<f64> = (0..dim).map(|d| tensor[at.index(b, h, i, d)].to_f64()).collect();
                    let mean = row.iter().sum::<f64>() / dim as f64;
                    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / dim as f64;
                    let centroid = &x.extras["centroids"][(h * k + c) * dim..][..dim];
                    let dot = row.iter().zip(centroid).map(|(x, m)| (x - mean) * m.to_f64()).sum::<f64>();
                    dot / (variance + EPSILON).sqrt()
                };
                let mut order: Vec<usize> = (0..at.rows).collect();
                order.arrange_by(|&i, &j| affinity(j).total_cmp(&affinity(i)));
                order.truncate(s.int(&WINDOW));
                order.sort_unstable();
                order
            };
            let mut times = vec![0; s.length];
            for c in 0..k {
                let of_queries = taken(&x.q, &queries, "query_lots", c, &|i| is_real_query(x, s, b, i));
                let of_keys = if s.causal {
                    of_queries.clone()
                } else {
                    taken(&x.k, &keys, "key_lots", c, &|j| is_real_key(x, s, b, j))
                };
                for &i in of_queries.iter().filter(|&&i| is_real_query(x, s, b, i)) {
                    times[i] += 1;
                    let sees = |j: &usize| is_real_key(x, s, b, *j) && (!s.causal || *j <= i);
                    let visible: Vec<usize> = of_keys.iter().copied().filter(sees).collect();
                    let score = |&j: &usize| {
                        let dot = (0..dim).fold(R::zero(), |dot, d| {
                            dot + x.q[queries.index(b, h, i, d)] * x.k[keys.index(b, h, j, d)]
                        });
                        dot * scale
                    };
                    let scores: Vec<R> = visible.iter().map(score).collect();
                    let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
                    let weights: Vec<R> = scores.into_iter().map(|score| (score - largest).exp()).collect();
                    let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                    for d in 0..dim {
                        for (&j, &w) in visible.iter().zip(&weights) {
                            out[queries.index(b, h, i, d)] += w / sum * x.v[keys.index(b, h, j, d)];
                        }
                    }
                }
            }
            for (i, &times) in times.iter().enumerate().filter(|(_, times)| **times > 1) {
                for d in 0..dim {
                    let at = queries.index(b, h, i, d);
                    out[at] = out[at] / R::from_f64(f64::from(times));
                }
            }
        }
    }
    out
}
