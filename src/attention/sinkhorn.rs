//! Sparse Sinkhorn attention: blocks of keys are sorted by a learned, nearly doubly stochastic matrix, and each block of queries
//! attends to its own block and to the one that was sorted to it.
//!
//! Blocks of b tokens are pooled to means; `R_uv = (mean of q in u + e_u)·(mean of k in v + f_v) / (t √D)` with learned e and f;
//! rows and columns of R are normalised in turn, `R ← R - lse(R)`, and `Π = exp(R)`. Sorted keys are `K'_u = Σ_v Π_uv K_v`, values
//! likewise; queries of block u attend to `[K'_u; K_u]` by one softmax. *SortCut*: all queries attend to the first few sorted blocks.
//! With P' and P the two halves of a row's weights, `A_ij = Π_uv P'_i(j mod b) + [u = v] P_i(j mod b)`.
//!
//! Tay et al., 2020, "Sparse Sinkhorn Attention", arXiv:2002.11296, sections 3 and 4. Time O(N b D + N² D / b) (attending, and mixing
//! with Π), memory O(N D + (N / b)²). Differs from the paper: no Gumbel noise; the sorting net is the public package's (products of
//! pooled queries and keys with learned embeddings of blocks); causal: a block is sorted by its queries up to its first token,
//! takes from earlier blocks only, and normalises rows only, since the sum over a column would look ahead; the first block then
//! has only itself. A sorted key counts as real where more than half of what was mixed is.

use super::setup::product;
use super::{
    Causal, Decision, Effective, EffectiveKind, Extra, Family, Form, Init, Inputs, Paper, Param, ParamKind, Reference,
    Refusal, Setup, Variant, full,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{BinaryKind, Data, Dtype, Graph, Node, Real};
use crate::reference::{At, is_real_key};
use std::rc::Rc;

const BLOCK: Param = Param {
    name: "block",
    kind: ParamKind::Int {
        min: 1,
        max: 512,
        default: |n| if n <= 256 { 16 } else if n <= 1024 { 32 } else { 64 },
    },
    meaning: "Tokens of a block; larger blocks attend to more, smaller ones are sorted more finely.",
};

const ITERATIONS: Param = Param {
    name: "iterations",
    kind: ParamKind::Int { min: 0, max: 30, default: |_| 8 },
    meaning: "How often rows and columns of the sorting matrix are normalised in turn; 0 leaves it as it is.",
};

const TEMPERATURE: Param = Param {
    name: "temperature",
    kind: ParamKind::Int { min: 1, max: 1000, default: |_| 75 },
    meaning: "Temperature of the sorting in hundredths: the lower, the nearer to a true permutation of blocks.",
};

const CUT: Param = Param {
    name: "cut",
    kind: ParamKind::Int { min: 0, max: 64, default: |_| 0 },
    meaning: "SortCut: how many sorted blocks, the first ones, all queries attend to in place of their own two; 0 is the \
              usual form.",
};

const SORT: Param = Param {
    name: "sort",
    kind: ParamKind::Choice { options: &["learned", "random"], default: "learned" },
    meaning: "Whether blocks are sorted by what they hold or by lot, to see whether sorting matters.",
};

pub static VARIANT: Variant = Variant {
    id: "sinkhorn",
    name: "Sparse Sinkhorn attention",
    family: Family::LearnedPattern,
    paper: Paper { title: "Sparse Sinkhorn Attention", authors: "Tay et al.", year: 2020, arxiv: "2002.11296" },
    summary: "The sequence is cut into blocks, and a small network learns to sort them, so that blocks which should meet \
              become neighbours; each block then attends to itself and to the block sorted to it. The sorting is a soft \
              permutation made by normalising rows and columns in turn, so it can be trained. It costs the blocks it \
              visits plus mixing all blocks, N²/b in all. Use it where a text has far-away parts that belong together and \
              local attention would miss them; generation sorts without looking ahead and gains less.",
    complexity: "O(N b D + N^2 D / b) time, O(N D + (N/b)^2) memory",
    exponent: 1.5,
    exact: false,
    causal: Causal::Both,
    params: &[BLOCK, ITERATIONS, TEMPERATURE, CUT, SORT],
    extras,
    check,
    largest: |s| product(&[s.batch, s.heads, count(s), count(s)]).max(product(&[s.batch, s.heads, 2, s.length, s.dim])),
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: Some(decide),
    reference: Reference::new(naive, naive),
};

fn check(s: &Setup) -> Result<(), Refusal> {
    if s.keys != s.length {
        let reason =
            format!("Sinkhorn attention pairs blocks of queries and of keys; there are {} queries and {} keys", s.length, s.keys);
        return Err(Refusal::new(reason, format!("{} keys", s.length)));
    }
    if s.causal && s.int(&CUT) > 0 {
        let reason = "SortCut shows every query the same blocks, sorted from the whole text: future tokens would leak";
        return Err(Refusal::new(reason, "cut 0".to_owned()));
    }
    Ok(())
}

/// Number of blocks.
fn count(s: &Setup) -> usize {
    s.length.div_ceil(s.int(&BLOCK))
}

fn extras(s: &Setup) -> Vec<Extra> {
    let (blocks, h) = (count(s), s.heads);
    let extra = |name, shape, role, differentiable, init| Extra { name, shape, role, differentiable, optional: false, init };
    if s.choice(&SORT) == "random" {
        let role = "logits of the sorting, drawn by lot";
        return vec![extra("lots", vec![h, blocks, blocks], role, false, Init::Normal(4.0))];
    }
    let shape = vec![h, blocks, s.dim];
    vec![
        extra("query_blocks", shape.clone(), "embedding of each block's place, added to its mean query", true, Init::Normal(1.0)),
        extra("key_blocks", shape, "embedding of each block's place, added to its mean key", true, Init::Normal(1.0)),
    ]
}

/// `x` `[B, H, N, C]` filled up with zeros and cut, `[B, H, blocks, b, C]`.
fn cut(g: &mut Graph, x: Node, s: &Setup) -> Node {
    let &[batch, heads, _, columns] = g.shape(x) else { panic!("rows are [B, H, N, C]") };
    let filled = g.pad(x, 2, 0, count(s) * s.int(&BLOCK) - s.length, 0.0);
    g.reshape(filled, &[batch, heads, count(s), s.int(&BLOCK), columns])
}

/// The sorting and what it makes.
struct Sorted {
    /// 1 for real tokens, `[B or 1, 1, blocks, b]`; none where all are.
    real: Option<Node>,
    /// Π `[B, H, rows, blocks]`: all rows, or the first few for SortCut.
    sorting: Node,
    /// `[B, H, rows, b, D]`.
    keys: Node,
    values: Node,
    /// 1 for sorted keys that are real, `[B, H, rows, b]`; none where all are.
    visible: Option<Node>,
}

/// Rows of the sorting that are used.
fn rows(s: &Setup) -> usize {
    match s.int(&CUT) {
        0 => count(s),
        cut => cut.min(count(s)),
    }
}

/// Π before any is cut off.
fn sorting(g: &mut Graph, x: &Inputs<Node>, s: &Setup, real: Node, is_masked: bool) -> Node {
    let blocks = count(s);
    let one = g.constant(&[], Data::Real(vec![1.0]));
    let real_column = g.unsqueeze(real, 4);
    let sizes = g.sum(real_column, &[3], false);
    let mut logits = if s.choice(&SORT) == "random" {
        g.broadcast_to(x.extras["lots"], &[s.batch, s.heads, blocks, blocks])
    } else {
        let sum_of = |g: &mut Graph, rows: Node| {
            let rows = cut(g, rows, s);
            let rows = if is_masked { g.mul(rows, real_column) } else { rows };
            g.sum(rows, &[3], false)
        };
        let at_least_one = g.maximum(sizes, one);
        let keys = sum_of(g, x.k);
        let keys = g.div(keys, at_least_one);
        let queries = if s.causal {
            // Everything before the block, and its first token.
            let first = |g: &mut Graph, rows: Node| {
                let rows = g.slice(rows, 3, 0..1);
                let shape = g.shape(rows).to_vec();
                g.reshape(rows, &[shape[0], shape[1], blocks, shape[4]])
            };
            let own = cut(g, x.q, s);
            let own = if is_masked { g.mul(own, real_column) } else { own };
            let (own, own_real) = (first(g, own), first(g, real_column));
            let before = sum_of(g, x.q);
            let (before, real_before) = (g.cumsum(before, 2, false, true), g.cumsum(sizes, 2, false, true));
            let (sums, seen) = (g.add(before, own), g.add(real_before, own_real));
            let seen = g.maximum(seen, one);
            g.div(sums, seen)
        } else {
            let queries = sum_of(g, x.q);
            g.div(queries, at_least_one)
        };
        let queries = g.add(queries, x.extras["query_blocks"]);
        let keys = g.add(keys, x.extras["key_blocks"]);
        g.matmul_nt(queries, keys, s.scale())
    };
    logits = g.scale(logits, 100.0 / s.int(&TEMPERATURE) as f64);
    // Pairs of blocks that may meet: both have tokens, and the keys lie before the queries.
    let mut allowed = is_masked.then(|| {
        let zero = g.constant(&[], Data::Real(vec![0.0]));
        let has = g.binary(BinaryKind::Greater, sizes, zero);
        let across = g.swap_axes(has, 2, 3);
        g.mul(has, across)
    });
    if s.causal {
        let past = (0..blocks * blocks).map(|i| if i % blocks < i / blocks { 1.0 } else { 0.0 }).collect();
        let past = g.constant(&[1, 1, blocks, blocks], Data::Real(past));
        allowed = Some(allowed.map_or(past, |allowed| g.mul(allowed, past)));
    }
    let lowest = g.constant(&[], Data::Real(vec![-1e30]));
    let mask = |g: &mut Graph, x: Node| allowed.map_or(x, |allowed| g.select(allowed, x, lowest));
    logits = mask(g, logits);
    if s.causal {
        logits = g.log_softmax(logits);
    } else {
        for _ in 0..s.int(&ITERATIONS) {
            let by_rows = g.log_softmax(logits);
            let by_rows = mask(g, by_rows);
            let turned = g.swap_axes(by_rows, 2, 3);
            let by_columns = g.log_softmax(turned);
            let back = g.swap_axes(by_columns, 2, 3);
            logits = mask(g, back);
        }
    }
    let sorting = g.exp(logits);
    let zero = g.constant(&[], Data::Real(vec![0.0]));
    allowed.map_or(sorting, |allowed| g.select(allowed, sorting, zero))
}

fn sorted(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Sorted {
    let (blocks, size) = (count(s), s.int(&BLOCK));
    let is_masked = x.key_padding.is_some() || blocks * size != s.length;
    let (real, sorting) = g.stage("sort", |g| {
        let ones = g.constant(&[1, 1, s.length, 1], Data::Real(vec![1.0; s.length]));
        let real = x.real_keys(g, s).unwrap_or(ones);
        let real = cut(g, real, s);
        let batch = g.shape(real)[0];
        let real = g.reshape(real, &[batch, 1, blocks, size]);
        let sorting = sorting(g, x, s, real, is_masked);
        (real, g.slice(sorting, 2, 0..rows(s)))
    });
    g.stage("move blocks", |g| {
        let real_column = g.unsqueeze(real, 4);
        let [keys, values] = [x.k, x.v].map(|tokens| {
            let tokens = cut(g, tokens, s);
            let tokens = if is_masked { g.mul(tokens, real_column) } else { tokens };
            let flat = g.reshape(tokens, &[s.batch, s.heads, blocks, size * s.dim]);
            let moved = g.matmul(sorting, flat);
            g.reshape(moved, &[s.batch, s.heads, rows(s), size, s.dim])
        });
        let visible = (is_masked || s.causal).then(|| {
            let share = g.matmul(sorting, real);
            let total = g.sum(sorting, &[3], true);
            let half = g.scale(total, 0.5);
            g.binary(BinaryKind::Greater, share, half)
        });
        Sorted { real: is_masked.then_some(real), sorting, keys, values, visible }
    })
}

/// Queries, keys, values and padding of what attends: for each block `[B·H·blocks, 1, b, D]` to twice as many keys, or for
/// SortCut `[B·H, 1, N, D]` to the sorted ones.
fn parties(g: &mut Graph, x: &Inputs<Node>, s: &Setup, sorted: &Sorted) -> ([Node; 3], Option<Node>) {
    let (blocks, size, dim) = (count(s), s.int(&BLOCK), s.dim);
    if s.int(&CUT) > 0 {
        let keys = rows(s) * size;
        let q = g.reshape(x.q, &[s.instances(), 1, s.length, dim]);
        let [k, v] = [sorted.keys, sorted.values].map(|moved| g.reshape(moved, &[s.instances(), 1, keys, dim]));
        let padding = sorted.visible.map(|visible| {
            let flat = g.reshape(visible, &[s.instances(), keys]);
            g.cast(flat, Dtype::U32)
        });
        return ([q, k, v], padding);
    }
    let total = s.instances() * blocks;
    let q = cut(g, x.q, s);
    let q = g.reshape(q, &[total, 1, size, dim]);
    let [k, v] = [(sorted.keys, x.k), (sorted.values, x.v)].map(|(moved, own)| {
        let own = cut(g, own, s);
        let both = g.concat(&[moved, own], 3);
        g.reshape(both, &[total, 1, 2 * size, dim])
    });
    let padding = sorted.visible.map(|visible| {
        let shape = [s.batch, s.heads, blocks, size];
        let own = match sorted.real {
            Some(real) => g.broadcast_to(real, &shape),
            None => g.constant(&shape, Data::Real(vec![1.0; shape.iter().product()])),
        };
        let both = g.concat(&[visible, own], 3);
        let flat = g.reshape(both, &[total, 2 * size]);
        g.cast(flat, Dtype::U32)
    });
    ([q, k, v], padding)
}

/// q, k and v `[B, H, N, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    g.reusing(|g| forward(g, x, s))
}

fn forward(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let sorted = sorted(g, x, s);
    let out = g.stage("attend", |g| {
        let ([q, k, v], padding) = parties(g, x, s, &sorted);
        // Causal: all sorted keys, which lie in front, and of the own block those up to the query.
        let rule = full::rule(s);
        let list = Rc::new(full::blocks_of(g.shape(q)[2], g.shape(k)[2], &rule));
        let options = BlockAttentionOptions { padding, ..BlockAttentionOptions::new(list, rule) };
        let (out, _) = g.block_attention(q, k, v, &options);
        if s.int(&CUT) > 0 {
            return g.reshape(out, &[s.batch, s.heads, s.length, s.dim]);
        }
        let out = g.reshape(out, &[s.batch, s.heads, count(s) * s.int(&BLOCK), s.dim]);
        g.slice(out, 2, 0..s.length)
    });
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (blocks, size, total) = (count(s), s.int(&BLOCK), s.instances());
    let sorted = sorted(g, x, s);
    let ([q, k, _], padding) = parties(g, x, s, &sorted);
    let scores = g.matmul_nt(q, k, s.scale());
    let weights = g.masked_softmax(scores, padding, full::rule(s));
    let cells = if s.int(&CUT) > 0 {
        let weights = g.reshape(weights, &[s.batch, s.heads, s.length, rows(s), size]);
        let by_place = g.swap_axes(weights, 3, 4);
        let sorting = g.unsqueeze(sorted.sorting, 2);
        let back = g.matmul(by_place, sorting);
        g.swap_axes(back, 3, 4)
    } else {
        let half = |g: &mut Graph, from: usize| {
            let half = g.slice(weights, 3, from..from + size);
            g.reshape(half, &[total, blocks, size, 1, size])
        };
        let sorting = g.reshape(sorted.sorting, &[total, blocks, 1, blocks, 1]);
        let (moved, own) = (half(g, 0), half(g, size));
        let moved = g.mul(moved, sorting);
        let diagonal = (0..blocks * blocks).map(|i| if i / blocks == i % blocks { 1.0 } else { 0.0 }).collect();
        let diagonal = g.constant(&[blocks, 1, blocks, 1], Data::Real(diagonal));
        let own = g.mul(own, diagonal);
        let both = g.add(moved, own);
        let rows = g.reshape(both, &[s.batch, s.heads, blocks * size, blocks * size]);
        g.slice(rows, 2, 0..s.length)
    };
    let cells = g.reshape(cells, &[s.batch, s.heads, s.length, blocks * size]);
    let left = g.slice(cells, 3, 0..s.length);
    let rule = full::rule(s);
    Effective { left, right: left, row: None, bias: None, kind: EffectiveKind::Cells, rule }
}

/// Π, `[B, H, rows, blocks]`.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let sorting = sorted(g, x, s).sorting;
    let size = s.int(&BLOCK);
    // With SortCut a row is a place that all queries see.
    let row_tokens = if s.int(&CUT) > 0 { 0 } else { size };
    vec![Decision::new(g, "sorting", Form::Shares { tokens: size, row_tokens }, sorting)]
}

/// Sections 3.1 to 3.4, block by block.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let (n, dim, size) = (s.length, s.dim, s.int(&BLOCK));
    let blocks = n.div_ceil(size);
    let at = At { heads: s.heads, rows: n, cols: dim };
    let scale = R::one() / R::from_f64(dim as f64).sqrt();
    let temperature = R::from_f64(s.int(&TEMPERATURE) as f64 / 100.0);
    let mut out = vec![R::zero(); s.instances() * n * dim];
    for b in 0..s.batch {
        let is_real = |i: usize| i < n && is_real_key(x, s, b, i);
        let members = |u: usize| (u * size..(u + 1) * size).filter(|&i| is_real(i)).collect::<Vec<usize>>();
        let allowed = |u: usize, v: usize| {
            !members(u).is_empty() && !members(v).is_empty() && (!s.causal || v < u)
        };
        for h in 0..s.heads {
            let value = |tensor: &[R], i: usize, d: usize| tensor[at.index(b, h, i, d)];
            let mean = |tensor: &[R], tokens: &[usize]| -> Vec<R> {
                let count = R::from_f64(tokens.len().max(1) as f64);
                (0..dim).map(|d| tokens.iter().fold(R::zero(), |sum, &i| sum + value(tensor, i, d)) / count).collect()
            };
            let mut logits = vec![vec![R::zero(); blocks]; blocks];
            for u in 0..blocks {
                let asking = if s.causal { (0..=u * size).filter(|&i| is_real(i)).collect() } else { members(u) };
                let query = mean(&x.q, &asking);
                for v in 0..blocks {
                    logits[u][v] = match x.extras.get("lots") {
                        Some(lots) => lots[(h * blocks + u) * blocks + v],
                        None => {
                            let key = mean(&x.k, &members(v));
                            let embedded = |name: &str, block: usize, d: usize| x.extras[name][(h * blocks + block) * dim + d];
                            let dot = (0..dim).fold(R::zero(), |dot, d| {
                                dot + (query[d] + embedded("query_blocks", u, d)) * (key[d] + embedded("key_blocks", v, d))
                            });
                            dot * scale
                        }
                    } / temperature;
                }
            }
            // Takes the log-sum-exp of some cells from each of them.
            let normalise = |logits: &mut Vec<Vec<R>>, cells: Vec<(usize, usize)>| {
                let largest = cells.iter().map(|&(u, v)| logits[u][v].to_f64()).fold(f64::NEG_INFINITY, f64::max);
                let largest = R::from_f64(largest);
                let sum = cells.iter().fold(R::zero(), |sum, &(u, v)| sum + (logits[u][v] - largest).exp());
                for &(u, v) in &cells {
                    logits[u][v] = logits[u][v] - largest - sum.ln();
                }
            };
            let row = |u: usize| (0..blocks).map(|v| (u, v)).filter(|&(u, v)| allowed(u, v)).collect::<Vec<_>>();
            let column = |v: usize| (0..blocks).map(|u| (u, v)).filter(|&(u, v)| allowed(u, v)).collect::<Vec<_>>();
            for _ in 0..if s.causal { 1 } else { s.int(&ITERATIONS) } {
                (0..blocks).for_each(|u| normalise(&mut logits, row(u)));
                if !s.causal {
                    (0..blocks).for_each(|v| normalise(&mut logits, column(v)));
                }
            }
            // The sorted key and value of place t of block u, where more than half of it is real.
            let moved = |u: usize, t: usize| -> Option<(Vec<R>, Vec<R>)> {
                let parts: Vec<(R, usize)> = (0..blocks)
                    .filter(|&v| allowed(u, v) && is_real(v * size + t))
                    .map(|v| (logits[u][v].exp(), v * size + t))
                    .collect();
                let share: f64 = parts.iter().map(|(share, _)| share.to_f64()).sum();
                let total: f64 = (0..blocks).filter(|&v| allowed(u, v)).map(|v| logits[u][v].exp().to_f64()).sum();
                let mix = |tensor: &[R]| -> Vec<R> {
                    (0..dim).map(|d| parts.iter().fold(R::zero(), |sum, &(w, i)| sum + w * value(tensor, i, d))).collect()
                };
                (share > 0.5 * total).then(|| (mix(&x.k), mix(&x.v)))
            };
            for i in (0..n).filter(|&i| is_real(i)) {
                let u = i / size;
                let token = |tensor: &[R], j: usize| (0..dim).map(|d| value(tensor, j, d)).collect::<Vec<R>>();
                let pairs: Vec<(Vec<R>, Vec<R>)> = match s.int(&CUT) {
                    0 => {
                        let own = members(u).into_iter().filter(|&j| !s.causal || j <= i);
                        let own = own.map(|j| (token(&x.k, j), token(&x.v, j)));
                        (0..size).filter_map(|t| moved(u, t)).chain(own).collect()
                    }
                    cut => (0..cut.min(blocks) * size).filter_map(|place| moved(place / size, place % size)).collect(),
                };
                let q = token(&x.q, i);
                let scores: Vec<R> = pairs
                    .iter()
                    .map(|(k, _)| q.iter().zip(k).fold(R::zero(), |dot, (&q, &k)| dot + q * k) * scale)
                    .collect();
                let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
                let weights: Vec<R> = scores.into_iter().map(|score| (score - largest).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                for d in 0..dim {
                    let mixed = pairs.iter().zip(&weights).fold(R::zero(), |o, ((_, v), &w)| o + w * v[d]);
                    out[at.index(b, h, i, d)] = if weights.is_empty() { R::zero() } else { mixed / sum };
                }
            }
        }
    }
    out
}
