//! Clustered attention: queries are grouped, and each group attends once, with the mean of its queries.
//!
//! Queries are hashed to bits (`bit r is 1 where a_r·q > a_r0`) and grouped by K-means on the bits. With the mean q̄_c of group c:
//! `A_c = softmax(q̄_c Kᵀ / √D)`, and `o_i = A_c(i) V`. *Improved*: for the k keys T_c with the largest weights of a group, of
//! mass m_c together, each query weighs these anew, `A_ij = m_c softmax over T_c of (q_i·k_j / √D)`, and keeps A_c elsewhere, which
//! brings every row nearer to the exact one.
//!
//! Vyas et al., 2020, "Fast Transformers with Clustered Attention", arXiv:2007.04825, section 3. Time O(N C D), improved
//! O(N (C + k) D) and the search for the largest of C rows of N scores; memory O(N D + C D), improved O(N (C + k)). The groups and
//! T_c have no gradient. Differs from the paper: where bits tie, the first group wins and a bit becomes 0; a group left without
//! queries takes its first code again; planes and first codes are the same for all heads, as in the published code.

use crate::sort::Arrange;
use super::setup::product;
use super::{
    Causal, Decision, Effective, EffectiveKind, Extra, Family, Form, Init, Inputs, Of, Paper, Param, ParamKind,
    Reference, Setup, Variant, full,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{BinaryKind, Data, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};
use std::rc::Rc;

const CLUSTERS: Param = Param {
    name: "clusters",
    kind: ParamKind::Int { min: 1, max: 512, default: |_| 100 },
    meaning: "How many groups the queries are put in, at most one for each query; more is closer to full attention.",
};

const BITS: Param = Param {
    name: "bits",
    kind: ParamKind::Int { min: 1, max: 64, default: |_| 32 },
    meaning: "How many bits a query is hashed to before grouping; more tells queries apart better.",
};

const ITERATIONS: Param = Param {
    name: "iterations",
    kind: ParamKind::Int { min: 0, max: 20, default: |_| 10 },
    meaning: "Rounds of K-means; 0 leaves the groups where chance put them, to see whether grouping matters.",
};

const IMPROVED: Param = Param {
    name: "improved",
    kind: ParamKind::Bool { default: false },
    meaning: "Whether each query weighs the keys that matter most to its group for itself.",
};

const TOP: Param = Param {
    name: "top",
    kind: ParamKind::Int { min: 1, max: 256, default: |_| 32 },
    meaning: "How many keys of each group the improved form weighs anew.",
};

pub static VARIANT: Variant = Variant {
    id: "clustered",
    name: "Clustered attention",
    family: Family::LowRank,
    paper: Paper {
        title: "Fast Transformers with Clustered Attention",
        authors: "Vyas et al.",
        year: 2020,
        arxiv: "2007.04825",
    },
    summary: "Queries that point the same way attend to much the same keys, so they are put into C groups by hashing and \
              K-means, and only the groups' means attend: the cost is that of C queries and grows with the length only. \
              The improved form lets every query weigh the few most important keys of its group for itself and is closer \
              to full attention in every row. Since a mean holds queries from the whole sequence it cannot generate text. \
              Use it to speed up a trained softmax encoder without training it again; not where every query asks \
              something different.",
    complexity: "O(N C D) time, O((N + C) D) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Never("each group's query is a mean over the whole sequence, so future tokens would leak into every output"),
    params: &[CLUSTERS, BITS, ITERATIONS, IMPROVED, TOP],
    extras,
    check: |_| Ok(()),
    largest: |s| {
        if !s.bool(&IMPROVED) {
            return product(&[s.batch, s.heads, s.length, s.int(&BITS)]);
        }
        let top = top(s);
        let scores = product(&[s.batch, s.heads, clusters(s), s.keys]);
        let tables = product(&[s.batch, s.heads, clusters(s), top, s.dim]);
        scores.max(tables).max(product(&[s.batch, s.heads, s.length, top]))
    },
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: Some(decide),
    reference: Reference::new(naive, naive),
};

fn clusters(s: &Setup) -> usize {
    s.int(&CLUSTERS).min(s.length)
}

fn top(s: &Setup) -> usize {
    s.int(&TOP).min(s.keys)
}

fn extras(s: &Setup) -> Vec<Extra> {
    let drawn = |name, shape, role| {
        Extra { name, shape, role, differentiable: false, optional: false, init: Init::Normal(1.0) }
    };
    vec![
        drawn("planes", vec![s.int(&BITS), s.dim + 1], "hashing planes, one a row, the threshold a_r0 in its last column"),
        drawn("codes", vec![clusters(s), s.int(&BITS)], "the groups' first codes: a bit is 1 where an element is above 0"),
    ]
}

/// The groups, all as T = B·H independent heads.
struct Groups {
    /// u32 `[T, N]`: the group of each query; some group for padded queries.
    of: Node,
    /// Mean queries `[B, H, C, D]`; zero for a group without queries.
    means: Node,
}

fn group(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Groups {
    let (total, count) = (s.instances(), clusters(s));
    let values = g.stage("hash", |g| {
        let planes = g.slice(x.extras["planes"], 1, 0..s.dim);
        let thresholds = g.slice(x.extras["planes"], 1, s.dim..s.dim + 1);
        let thresholds = g.reshape(thresholds, &[s.int(&BITS)]);
        let values = g.matmul_nt(x.q, planes, 1.0);
        g.sub(values, thresholds)
    });
    let padding = x.key_padding.filter(|_| s.is_of_itself());
    let of = g.stage("cluster", |g| {
        let mut of = g.hamming_clusters(values, x.extras["codes"], padding, s.int(&ITERATIONS));
        if padding.is_some() {
            let last = g.constant(&[], Data::Index(vec![count as u32 - 1]));
            of = g.minimum(of, last);
        }
        g.reshape(of, &[total, s.length])
    });
    let means = g.stage("centroids", |g| {
        let ones = g.constant(&[1, 1, s.length, 1], Data::Real(vec![1.0; s.length]));
        let (mut queries, mut real) = (x.q, ones);
        if padding.is_some() {
            real = x.real_keys(g, s).unwrap_or(ones);
            queries = g.mul(queries, real);
        }
        let queries = g.reshape(queries, &[total, s.length, s.dim]);
        let real = g.broadcast_to(real, &[s.batch, s.heads, s.length, 1]);
        let real = g.reshape(real, &[total, s.length, 1]);
        let (sums, sizes) =
            g.reusing(|g| (g.scatter_add_rows(queries, of, count), g.scatter_add_rows(real, of, count)));
        let one = g.constant(&[], Data::Real(vec![1.0]));
        let sizes = g.maximum(sizes, one);
        let means = g.div(sums, sizes);
        g.reshape(means, &[s.batch, s.heads, count, s.dim])
    });
    Groups { of, means }
}

/// What each group's mean query sees: `[B, H, C, D]` and the log-sum-exp `[B, H, C]`.
fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup, groups: &Groups) -> (Node, Node) {
    let rule = Rule::All { causal: false };
    let list = Rc::new(full::blocks_of(clusters(s), s.keys, &rule));
    let options = BlockAttentionOptions { padding: x.key_padding, ..BlockAttentionOptions::new(list, rule) };
    g.block_attention(groups.means, x.k, x.v, &options)
}

/// The most important keys of each group and how they are weighed anew.
struct Best {
    /// u32 `[T, C, k]`.
    keys: Node,
    /// The groups' weights of these keys `[T, C, k]`.
    group_weights: Node,
    /// The queries' own weights of them, of the same mass, `[T, N, k]`.
    own_weights: Node,
    /// The groups' weights, for each query.
    looked_up: Node,
}

fn best(g: &mut Graph, x: &Inputs<Node>, s: &Setup, groups: &Groups, lse: Node) -> Best {
    let (total, count, top) = (s.instances(), clusters(s), top(s));
    let (best_scores, keys) = g.stage("top keys", |g| {
        let mut scores = g.matmul_nt(groups.means, x.k, s.scale());
        if let Some(padding) = x.key_padding {
            let real = g.reshape(padding, &[s.batch, 1, 1, s.keys]);
            let lowest = g.constant(&[], Data::Real(vec![-1e30]));
            scores = g.select(real, scores, lowest);
        }
        let (best, keys) = g.top_k(scores, top);
        (g.reshape(best, &[total, count, top]), g.reshape(keys, &[total, count, top]))
    });
    g.stage("improve", |g| {
        let lse = g.reshape(lse, &[total, count, 1]);
        let less = g.sub(best_scores, lse);
        let mut group_weights = g.exp(less);
        // Padding is among the best where there are no other keys.
        let hidden = x.key_padding.map(|_| {
            let bound = g.constant(&[], Data::Real(vec![-1e29]));
            let visible = g.binary(BinaryKind::Greater, best_scores, bound);
            let (zero, lowest) = (g.constant(&[], Data::Real(vec![0.0])), g.constant(&[], Data::Real(vec![-1e30])));
            group_weights = g.select(visible, group_weights, zero);
            g.select(visible, zero, lowest)
        });
        let looked_up = g.gather_rows(group_weights, groups.of);
        let mass = g.sum(looked_up, &[2], true);
        let table = tables(g, x.k, keys, s);
        let queries = g.reshape(x.q, &[total, s.length, s.dim]);
        let queries = g.scale(queries, s.scale().into());
        let mut scores = g.grouped_dot(queries, table, groups.of);
        if let Some(hidden) = hidden {
            let hidden = g.gather_rows(hidden, groups.of);
            scores = g.add(scores, hidden);
        }
        let shares = g.softmax(scores);
        Best { keys, group_weights, own_weights: g.mul(shares, mass), looked_up }
    })
}

/// The rows of `x` `[B, H, M, D]` that each group has chosen, `[T, C, k, D]`.
fn tables(g: &mut Graph, x: Node, keys: Node, s: &Setup) -> Node {
    let (total, count, top) = (s.instances(), clusters(s), top(s));
    let rows = g.reshape(x, &[total, s.keys, s.dim]);
    let keys = g.reshape(keys, &[total, count * top]);
    let picked = g.gather_rows(rows, keys);
    g.reshape(picked, &[total, count, top, s.dim])
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let groups = group(g, x, s);
    let (seen, lse) = g.stage("attend", |g| attend(g, x, s, &groups));
    let mut out = g.stage("hand out", |g| {
        let seen = g.reshape(seen, &[s.instances(), clusters(s), s.dim]);
        g.gather_rows(seen, groups.of)
    });
    if s.bool(&IMPROVED) {
        let best = best(g, x, s, &groups, lse);
        out = g.stage("improve", |g| {
            let correction = g.sub(best.own_weights, best.looked_up);
            let values = tables(g, x.v, best.keys, s);
            let change = g.grouped_mix(correction, values, groups.of);
            g.add(out, change)
        });
    }
    let out = g.reshape(out, &[s.batch, s.heads, s.length, s.dim]);
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (total, count) = (s.instances(), clusters(s));
    let groups = group(g, x, s);
    let (_, lse) = attend(g, x, s, &groups);
    let rule = Rule::All { causal: false };
    if !s.bool(&IMPROVED) {
        let means = g.reshape(groups.means, &[total, count, s.dim]);
        let left = g.gather_rows(means, groups.of);
        let left = g.scale(left, s.scale().into());
        let lse = g.reshape(lse, &[total, count, 1]);
        let row = g.gather_rows(lse, groups.of);
        return Effective {
            left: g.reshape(left, &[s.batch, s.heads, s.length, s.dim]),
            right: x.k,
            row: Some(g.reshape(row, &[s.batch, s.heads, s.length])),
            bias: None,
            kind: EffectiveKind::Softmax,
            rule,
        };
    }
    // The groups' rows without their best keys, and the queries' own weights of those.
    let best = best(g, x, s, &groups, lse);
    let top = top(s);
    let scores = g.matmul_nt(groups.means, x.k, s.scale());
    let weights = g.masked_softmax(scores, x.key_padding, rule.clone());
    let weights = g.reshape(weights, &[total, count, s.keys]);
    let spread = |g: &mut Graph, values: Node, keys: Node, rows: usize| {
        let values = g.reshape(values, &[total * rows, top, 1]);
        let keys = g.reshape(keys, &[total * rows, top]);
        let spread = g.scatter_add_rows(values, keys, s.keys);
        g.reshape(spread, &[total, rows, s.keys])
    };
    let chosen = spread(g, best.group_weights, best.keys, count);
    let rest = g.sub(weights, chosen);
    let rest = g.gather_rows(rest, groups.of);
    let own_keys = g.gather_rows(best.keys, groups.of);
    let own = spread(g, best.own_weights, own_keys, s.length);
    let cells = g.add(rest, own);
    let left = g.reshape(cells, &[s.batch, s.heads, s.length, s.keys]);
    Effective { left, right: left, row: None, bias: None, kind: EffectiveKind::Cells, rule }
}

/// The group of each query, `[B, H, 1, N]`.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let of = group(g, x, s).of;
    let of = g.reshape(of, &[s.batch, s.heads, 1, s.length]);
    vec![Decision::new(g, "groups", Form::Labels { count: clusters(s), of: Of::Queries }, of)]
}

/// Section 3.1 and, improved, 3.3: groups by whole bit strings, then rows of weights.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let (n, m, dim, bits) = (s.length, s.keys, s.dim, s.int(&BITS));
    let count = s.int(&CLUSTERS).min(n);
    let queries = At { heads: s.heads, rows: n, cols: dim };
    let keys = At { heads: s.heads, rows: m, cols: dim };
    let scale = R::one() / R::from_f64(dim as f64).sqrt();
    let planes = &x.extras["planes"];
    let first: Vec<Vec<bool>> =
        x.extras["codes"].chunks(bits).map(|code| code.iter().map(|c| c.to_f64() > 0.0).collect()).collect();
    let mut out = vec![R::zero(); s.instances() * n * dim];
    for b in 0..s.batch {
        let visible: Vec<usize> = (0..m).filter(|&j| is_real_key(x, s, b, j)).collect();
        let asking: Vec<usize> = (0..n).filter(|&i| is_real_query(x, s, b, i)).collect();
        for h in 0..s.heads {
            let q = |i: usize| &x.q[queries.index(b, h, i, 0)..][..dim];
            let k = |j: usize| &x.k[keys.index(b, h, j, 0)..][..dim];
            let v = |j: usize, d: usize| x.v[keys.index(b, h, j, d)];
            let dot = |a: &[R], b: &[R]| a.iter().zip(b).fold(R::zero(), |dot, (&a, &b)| dot + a * b);
            let softmax = |scores: Vec<R>| -> Vec<R> {
                let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
                let weights: Vec<R> = scores.into_iter().map(|score| (score - largest).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                weights.into_iter().map(|w| w / sum).collect()
            };
            let hash = |i: usize| -> Vec<bool> {
                let plane = |r: usize| &planes[r * (dim + 1)..][..dim + 1];
                (0..bits).map(|r| dot(&plane(r)[..dim], q(i)).to_f64() > plane(r)[dim].to_f64()).collect()
            };
            let hashes: Vec<Vec<bool>> = asking.iter().map(|&i| hash(i)).collect();
            let members = |codes: &[Vec<bool>]| -> Vec<Vec<usize>> {
                let mut members = vec![Vec::new(); count];
                for (place, hash) in hashes.iter().enumerate() {
                    let distance = |c: &usize| codes[*c].iter().zip(hash).filter(|(a, b)| a != b).count();
                    members[(0..count).min_by_key(distance).expect("a code")].push(place);
                }
                members
            };
            let mut codes = first.clone();
            for _ in 0..s.int(&ITERATIONS) {
                for (c, places) in members(&codes).iter().enumerate() {
                    codes[c] = first[c].clone();
                    for (bit, code) in codes[c].iter_mut().enumerate().filter(|_| !places.is_empty()) {
                        *code = places.iter().filter(|&&p| hashes[p][bit]).count() * 2 > places.len();
                    }
                }
            }
            for places in members(&codes).iter().filter(|places| !places.is_empty()) {
                let size = R::from_f64(places.len() as f64);
                let mean: Vec<R> = (0..dim)
                    .map(|d| places.iter().fold(R::zero(), |sum, &p| sum + q(asking[p])[d]) / size)
                    .collect();
                let weights = softmax(visible.iter().map(|&j| dot(&mean, k(j)) * scale).collect());
                // Places among the visible keys, the largest weights first.
                let mut order: Vec<usize> = (0..visible.len()).collect();
                order.arrange_by(|&a, &b| weights[b].to_f64().total_cmp(&weights[a].to_f64()));
                let best = if s.bool(&IMPROVED) { &order[..s.int(&TOP).min(order.len())] } else { &[] };
                let mass = best.iter().fold(R::zero(), |mass, &at| mass + weights[at]);
                for &place in places {
                    let i = asking[place];
                    let mut own = weights.clone();
                    let anew = softmax(best.iter().map(|&at| dot(q(i), k(visible[at])) * scale).collect());
                    for (&at, &share) in best.iter().zip(&anew) {
                        own[at] = mass * share;
                    }
                    for d in 0..dim {
                        let terms = visible.iter().zip(&own);
                        out[queries.index(b, h, i, d)] = terms.fold(R::zero(), |o, (&j, &w)| o + w * v(j, d));
                    }
                }
            }
        }
    }
    out
}
