//! Reformer: tokens are hashed to buckets, sorted by them, and attend within chunks of the sorted order.
//!
//! Keys are the normalised queries, `k_j = q_j / |q_j|`. In each of several rounds `hash(x) = argmax [x R; -x R]` with random R; tokens
//! are sorted by (hash, position) and cut into chunks of m; a query sees its chunk and the one before, and of those the tokens of
//! its own bucket. Itself it sees only where it sees nothing else (a logit of -64). With N_ij the number of rounds in which i sees
//! j and z the log-sum-exp of a round, `o_i = Σ over rounds exp(z - lse of all z) Σ_j exp(q_i·k_j / √D - ln N_ij - z) v_j`: exactly the
//! softmax over all that i sees in any round.
//!
//! Kitaev et al., 2020, "Reformer: The Efficient Transformer", arXiv:2001.04451, sections 2 and 3.1, eq. 2-4. Time
//! O(rounds N (D buckets + m D + m rounds)), since few buckets are sorted by counting; memory O(N (D + buckets rounds)): no chunk's
//! scores are kept. Hash and order have no gradient. Differs from the paper: the first
//! chunk looks back to the last of its own round; a choice lets chunks attend across buckets, as the public code does; the scores
//! are divided by √D; -64 and not -10⁵, which would leave f32 two digits of such a row. Causal: a query sees earlier positions only; as in the paper, who shares a bucket's chunk depends on the
//! whole sequence.

use super::setup::product;
use super::{
    Causal, Decision, Effective, EffectiveKind, Extra, Family, Form, Init, Inputs, Of, Paper, Param, ParamKind,
    Reference, Refusal, Setup, Variant,
};
use crate::graph::ops::sorted_attention::Chunks;
use crate::graph::{BinaryKind, Data, Dtype, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key};

/// What a token's logit with itself is.
const SELF: f64 = -64.0;
/// What a pair scores that is not to be seen.
const HIDDEN: f64 = -1e30;
/// Added to the square of a query's length before keys are normalised.
const EPSILON: f64 = 1e-12;

const ROUNDS: Param = Param {
    name: "rounds",
    kind: ParamKind::Int { min: 1, max: 8, default: |_| 4 },
    meaning: "How often tokens are hashed anew; more rounds miss fewer of the keys that matter, each costs as much again.",
};

const CHUNK: Param = Param {
    name: "chunk",
    kind: ParamKind::Int { min: 1, max: 256, default: |n| if n <= 256 { 16 } else { 64 } },
    meaning: "Tokens of a chunk of the sorted order; a query looks through its own and the one before.",
};

const BUCKETS: Param = Param {
    name: "buckets",
    kind: ParamKind::Int { min: 2, max: 256, default: |n| (n / if n <= 256 { 16 } else { 64 }).clamp(2, 64) as u32 & !1 },
    meaning: "How many buckets a hash tells apart, an even number, usually one for each chunk.",
};

const ACROSS: Param = Param {
    name: "across_buckets",
    kind: ParamKind::Bool { default: false },
    meaning: "Whether a query sees all tokens of its two chunks, or only those of its bucket.",
};

const HASH: Param = Param {
    name: "hash",
    kind: ParamKind::Choice { options: &["angles", "random"], default: "angles" },
    meaning: "Whether tokens are hashed by where they point or by lot, to see whether the hash matters.",
};

pub static VARIANT: Variant = Variant {
    id: "reformer",
    name: "Reformer",
    family: Family::LearnedPattern,
    paper: Paper {
        title: "Reformer: The Efficient Transformer",
        authors: "Kitaev et al.",
        year: 2020,
        arxiv: "2001.04451",
    },
    summary: "A query's softmax is mostly about the keys that point its way, so queries and keys are made one, hashed such that \
              near ones fall into one bucket, sorted by bucket, and compared only with their neighbours in that order. The \
              cost is that of sorting, N log N, and of a fixed chunk for each token, times the rounds of hashing that it takes \
              to miss little. The overhead is large, so it pays for very long texts only, and queries that are their own keys \
              change the model. Use it where one text has tens of thousands of tokens; not for short ones.",
    complexity: "O(N log N + N m D) time for each round, O(N D) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Both,
    params: &[ROUNDS, CHUNK, BUCKETS, ACROSS, HASH],
    extras,
    check,
    largest: |s| product(&[s.batch, s.heads, s.int(&ROUNDS), chunks(s), s.int(&CHUNK), 2 * s.int(&CHUNK)]),
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
        let reason = format!("Reformer's keys are its queries; there are {} queries and {} keys", s.length, s.keys);
        return Err(Refusal::new(reason, format!("{} keys", s.length)));
    }
    let buckets = s.int(&BUCKETS);
    if !buckets.is_multiple_of(2) {
        let reason = format!("buckets: each direction has an opposite, so their number is even, not {buckets}");
        return Err(Refusal::new(reason, format!("buckets {}", buckets - 1)));
    }
    Ok(())
}

fn extras(s: &Setup) -> Vec<Extra> {
    let drawn = |name, shape, role| Extra {
        name,
        shape,
        role,
        differentiable: false,
        optional: false,
        init: Init::Normal(1.0),
    };
    let (rounds, half) = (s.int(&ROUNDS), s.int(&BUCKETS) / 2);
    if s.choice(&HASH) == "angles" {
        vec![drawn("rotations", vec![rounds, s.dim, half], "random directions of each round, the same for all heads")]
    } else {
        vec![drawn("lots", vec![rounds, s.length, half], "each token's lots, in place of what the directions would give")]
    }
}

fn chunks(s: &Setup) -> usize {
    s.length.div_ceil(s.int(&CHUNK))
}

/// The sorted order of each round, T = B·H.
struct Order {
    /// Token at each place, u32 `[T, rounds, N']`; what fills up the last chunk stands at the end, from N on.
    tokens: Node,
    /// Place of each token, u32 `[T, rounds, N']`.
    places: Node,
    /// Bucket of each token as a number, f32 `[T, rounds, N']`; padding has one of its own.
    buckets: Node,
}

/// `x` `[.., N]` filled up along the last axis.
fn fill(g: &mut Graph, x: Node, s: &Setup, value: f64) -> Node {
    let axis = g.shape(x).len() - 1;
    g.pad(x, axis, 0, chunks(s) * s.int(&CHUNK) - s.length, value)
}

fn order(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Order {
    let (rounds, count, total, n) = (s.int(&ROUNDS), s.int(&BUCKETS), s.instances(), s.length);
    let buckets = g.stage("hash", |g| {
        let products = match x.extras.get("lots") {
            Some(&lots) => g.broadcast_to(lots, &[s.batch, s.heads, rounds, n, count / 2]),
            None => {
                let q = g.unsqueeze(x.q, 2);
                g.matmul(q, x.extras["rotations"])
            }
        };
        let opposite = g.neg(products);
        let both = g.concat(&[products, opposite], 4);
        // The first of the largest: counted from the end, the largest number wins.
        let top = g.max(both, &[4], true);
        let wins = g.binary(BinaryKind::Equal, both, top);
        let from_end = g.constant(&[count], Data::Real((0..count).map(|c| (count - c) as f32).collect()));
        let numbered = g.mul(wins, from_end);
        let first = g.max(numbered, &[4], false);
        let first = g.neg(first);
        let mut buckets = g.add_scalar(first, count as f64);
        if let Some(padding) = x.key_padding {
            let real = g.reshape(padding, &[s.batch, 1, 1, n]);
            let last = g.constant(&[], Data::Real(vec![count as f32]));
            buckets = g.select(real, buckets, last);
        }
        let buckets = g.reshape(buckets, &[total, rounds, n]);
        fill(g, buckets, s, (count + 1) as f64)
    });
    g.stage("sort", |g| {
        let tokens = g.argsort(buckets, false);
        let places = g.argsort(tokens, false);
        Order { tokens, places, buckets }
    })
}

/// Rows of `table` `[T, rounds, N', C]` in sorted order, by chunks: `[T, rounds, chunks, m, C]`.
fn in_order(g: &mut Graph, table: Node, order: &Order, s: &Setup) -> Node {
    let columns = g.shape(table)[3];
    let rows = g.gather_rows(table, order.tokens);
    g.reshape(rows, &[s.instances(), s.int(&ROUNDS), chunks(s), s.int(&CHUNK), columns])
}

/// `x` `[T, rounds, chunks, m, C]` with the chunk before in front, `[.., 2 m, C]`; a single chunk has none before.
fn with_previous(g: &mut Graph, x: Node, s: &Setup) -> Node {
    let count = chunks(s);
    if count == 1 {
        return x;
    }
    let (last, rest) = (g.slice(x, 2, count - 1..count), g.slice(x, 2, 0..count - 1));
    let previous = g.concat(&[last, rest], 2);
    g.concat(&[previous, x], 3)
}

/// What the chunks attend by.
struct Attended {
    /// Shares of the keys, `[T, rounds, chunks, m, 2 m]`; over all rounds together they sum to 1.
    weights: Node,
    order: Order,
}

/// For pairs of a chunk's rows and its keys: `left` `[.., m, 1]` against `right` `[.., 1, 2 m]`.
fn pairs(g: &mut Graph, kind: BinaryKind, own: Node, keys: Node) -> Node {
    let across = g.swap_axes(keys, 3, 4);
    g.binary(kind, own, across)
}

fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Attended {
    let (rounds, total, n) = (s.int(&ROUNDS), s.instances(), s.length);
    let (count, filled) = (chunks(s), chunks(s) * s.int(&CHUNK));
    let order = order(g, x, s);
    // What is seen, by what a token is: real, its position, and its chunk and bucket in every round.
    let (seen, itself, times) = g.stage("compare", |g| {
        let column = |g: &mut Graph, values: Node| {
            let rows = g.reshape(values, &[total, rounds, filled, 1]);
            let own = in_order(g, rows, &order, s);
            (own, with_previous(g, own, s))
        };
        let positions = g.constant(&[filled], Data::Real((0..filled).map(|i| i as f32).collect()));
        let positions = g.broadcast_to(positions, &[total, rounds, filled]);
        let (own, keys) = column(g, positions);
        let itself = pairs(g, BinaryKind::Equal, own, keys);
        let past = s.causal.then(|| pairs(g, BinaryKind::GreaterEqual, own, keys));
        // Padding and what fills up have the last buckets.
        let (own_bucket, key_buckets) = column(g, order.buckets);
        let bound = g.constant(&[], Data::Real(vec![s.int(&BUCKETS) as f32]));
        let across = g.swap_axes(key_buckets, 3, 4);
        let mut seen = g.binary(BinaryKind::Greater, bound, across);
        if let Some(past) = past {
            seen = g.mul(seen, past);
        }
        if !s.bool(&ACROSS) {
            let same = pairs(g, BinaryKind::Equal, own_bucket, key_buckets);
            seen = g.mul(seen, same);
        }
        // In how many rounds a pair is in reach of each other: its chunks are the same, or neighbours, and its buckets agree.
        let mut times: Option<Node> = None;
        let places = g.cast(order.places, Dtype::F32);
        for round in 0..rounds {
            let of_round = |g: &mut Graph, values: Node| {
                let values = g.slice(values, 1, round..round + 1);
                let values = g.broadcast_to(values, &[total, rounds, filled]);
                column(g, values)
            };
            let (own, keys) = of_round(g, places);
            let (own, keys) = (chunk_of(g, own, s), chunk_of(g, keys, s));
            let same = pairs(g, BinaryKind::Equal, own, keys);
            let mut met = same;
            if count > 1 {
                let previous = previous_chunk(g, own, s);
                let before = pairs(g, BinaryKind::Equal, previous, keys);
                met = g.maximum(same, before);
            }
            if !s.bool(&ACROSS) {
                let (own, keys) = of_round(g, order.buckets);
                let agree = pairs(g, BinaryKind::Equal, own, keys);
                met = g.mul(met, agree);
            }
            times = Some(times.map_or(met, |times| g.add(times, met)));
        }
        let one = g.constant(&[], Data::Real(vec![1.0]));
        let times = times.map_or(one, |times| g.maximum(times, one));
        (seen, itself, times)
    });
    let weights = g.stage("score", |g| {
        let q = g.reshape(x.q, &[total, 1, n, s.dim]);
        let q = g.pad(q, 2, 0, filled - n, 0.0);
        let q = g.broadcast_to(q, &[total, rounds, filled, s.dim]);
        let q = in_order(g, q, &order, s);
        let square = g.square(q);
        let square = g.sum(square, &[4], true);
        let square = g.add_scalar(square, EPSILON);
        let length = g.sqrt(square);
        let k = g.div(q, length);
        let k = with_previous(g, k, s);
        let scores = g.matmul_nt(q, k, s.scale());
        let lonely = g.constant(&[], Data::Real(vec![SELF as f32]));
        let scores = g.select(itself, lonely, scores);
        let times = g.detach(times);
        let less = g.ln(times);
        let scores = g.sub(scores, less);
        let hidden = g.constant(&[], Data::Real(vec![HIDDEN as f32]));
        g.select(seen, scores, hidden)
    });
    let weights = g.stage("normalise", |g| {
        // Each round's share of the whole, by token.
        let sums = g.log_sum_exp(weights);
        let sums = g.reshape(sums, &[total, rounds, filled, 1]);
        let by_token = g.gather_rows(sums, order.places);
        let by_token = g.reshape(by_token, &[total, rounds, filled]);
        let turned = g.swap_axes(by_token, 1, 2);
        let all = g.log_sum_exp(turned);
        let all = g.reshape(all, &[total, 1, filled]);
        let all = g.broadcast_to(all, &[total, rounds, filled]);
        let all = g.reshape(all, &[total, rounds, filled, 1]);
        let all = in_order(g, all, &order, s);
        let less = g.sub(weights, all);
        let weights = g.exp(less);
        // Padding sees nothing, and exp of nothing less nothing is 1.
        let zero = g.constant(&[], Data::Real(vec![0.0]));
        g.select(seen, weights, zero)
    });
    Attended { weights, order }
}

/// The number of the chunk that each place lies in.
fn chunk_of(g: &mut Graph, places: Node, s: &Setup) -> Node {
    let numbers = g.scale(places, 1.0 / s.int(&CHUNK) as f64);
    // Half a place further in, so that rounding cannot cross an edge.
    let inside = g.add_scalar(numbers, 0.5 / s.int(&CHUNK) as f64);
    let whole = g.cast(inside, Dtype::U32);
    g.cast(whole, Dtype::F32)
}

/// The chunk before each one; before the first comes the last.
fn previous_chunk(g: &mut Graph, chunk: Node, s: &Setup) -> Node {
    let before = g.add_scalar(chunk, -1.0);
    let last = g.constant(&[], Data::Real(vec![chunks(s) as f32 - 1.0]));
    g.select(chunk, before, last)
}

/// q and v `[B, H, N, D]`; k is not read. Returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    g.reusing(|g| forward(g, x, s))
}

fn forward(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (out, _) = attention(g, x, s);
    x.without_padded_queries(g, out, s)
}

/// The output and the log-sum-exp of each row over all rounds.
fn attention(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let order = chunk_order(g, x, s);
    let keys = g.stage("normalise keys", |g| {
        let square = g.square(x.q);
        let square = g.sum(square, &[3], true);
        let square = g.add_scalar(square, EPSILON);
        let length = g.sqrt(square);
        g.div(x.q, length)
    });
    g.stage("attend", |g| g.sorted_attention([x.q, keys, x.v], order, chunking(s), s.causal, SELF))
}

fn chunking(s: &Setup) -> Chunks {
    Chunks { size: s.int(&CHUNK), rounds: s.int(&ROUNDS), across: s.bool(&ACROSS) }
}

/// Tokens sorted by their hashes, and where each of them is in every round.
fn chunk_order(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (rounds, count, n) = (s.int(&ROUNDS), s.int(&BUCKETS), s.length);
    let buckets = g.stage("hash", |g| {
        let products = match x.extras.get("lots") {
            Some(&lots) => g.broadcast_to(lots, &[s.batch, s.heads, rounds, n, count / 2]),
            None => {
                let q = g.unsqueeze(x.q, 2);
                g.matmul(q, x.extras["rotations"])
            }
        };
        g.signed_argmax(products, x.key_padding)
    });
    g.stage("sort", |g| {
        let buckets = g.reshape(buckets, &[s.instances(), rounds, n]);
        g.chunk_order(buckets, chunking(s), count)
    })
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (rounds, total, filled) = (s.int(&ROUNDS), s.instances(), chunks(s) * s.int(&CHUNK));
    let Attended { weights, order } = attend(g, x, s);
    let wide = g.shape(weights)[4];
    let tokens = g.reshape(order.tokens, &[total, rounds, chunks(s), s.int(&CHUNK), 1]);
    let keys = with_previous(g, tokens, s);
    let keys = g.swap_axes(keys, 3, 4);
    let keys = g.broadcast_to(keys, &[total, rounds, chunks(s), s.int(&CHUNK), wide]);
    let rows = total * rounds * filled;
    let keys = g.reshape(keys, &[rows, wide]);
    let weights = g.reshape(weights, &[rows, wide, 1]);
    let cells = g.scatter_add_rows(weights, keys, s.length);
    let cells = g.reshape(cells, &[total, rounds, filled, s.length]);
    let cells = g.gather_rows(cells, order.places);
    let cells = g.sum(cells, &[1], false);
    let cells = g.slice(cells, 1, 0..s.length);
    let left = g.reshape(cells, &[s.batch, s.heads, s.length, s.length]);
    let rule = Rule::All { causal: s.causal };
    Effective { left, right: left, row: None, bias: None, kind: EffectiveKind::Cells, rule }
}

/// Buckets `[B, H, rounds, N]` and the order in which they were sorted.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let order = order(g, x, s);
    // What fills up the last chunk stands at the end.
    let [buckets, tokens] = [order.buckets, order.tokens].map(|of| {
        let own = g.slice(of, 2, 0..s.length);
        g.reshape(own, &[s.batch, s.heads, s.int(&ROUNDS), s.length])
    });
    let labels = Form::Labels { count: s.int(&BUCKETS), of: Of::Tokens };
    vec![
        Decision::new(g, "buckets", labels, buckets),
        Decision::new(g, "order", Form::Order { chunk: s.int(&CHUNK) }, tokens),
    ]
}

/// The softmax over the union of what each token sees in any round: eq. 3 with the sets of section 2.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let (n, dim, size, half) = (s.length, s.dim, s.int(&CHUNK), s.int(&BUCKETS) / 2);
    let at = At { heads: s.heads, rows: n, cols: dim };
    let scale = R::one() / R::from_f64(dim as f64).sqrt();
    let mut out = vec![R::zero(); s.instances() * n * dim];
    for b in 0..s.batch {
        let is_real = |i: usize| is_real_key(x, s, b, i);
        for h in 0..s.heads {
            let q = |i: usize| &x.q[at.index(b, h, i, 0)..][..dim];
            let mut sees = vec![vec![false; n]; n];
            for round in 0..s.int(&ROUNDS) {
                let product = |i: usize, c: usize| match x.extras.get("lots") {
                    Some(lots) => lots[(round * n + i) * half + c].to_f64(),
                    None => (0..dim)
                        .map(|d| q(i)[d].to_f64() * x.extras["rotations"][(round * dim + d) * half + c].to_f64())
                        .sum(),
                };
                let hash = |i: usize| {
                    let mut best = (0, f64::NEG_INFINITY);
                    for c in 0..2 * half {
                        let value = if c < half { product(i, c) } else { -product(i, c - half) };
                        if value > best.1 {
                            best = (c, value);
                        }
                    }
                    if is_real(i) { best.0 } else { 2 * half }
                };
                let hashes: Vec<usize> = (0..n).map(hash).collect();
                let mut sorted: Vec<usize> = (0..n).collect();
                sorted.sort_by_key(|&i| (hashes[i], i));
                let chunks: Vec<&[usize]> = sorted.chunks(size).collect();
                for (c, chunk) in chunks.iter().enumerate() {
                    let before = chunks[(c + chunks.len() - 1) % chunks.len()];
                    for &i in chunk.iter() {
                        for &j in before.iter().chain(chunk.iter()) {
                            let agree = s.bool(&ACROSS) || hashes[i] == hashes[j];
                            sees[i][j] |= agree && is_real(i) && is_real(j) && (!s.causal || j <= i);
                        }
                    }
                }
            }
            for i in (0..n).filter(|&i| is_real(i)) {
                let visible: Vec<usize> = (0..n).filter(|&j| sees[i][j]).collect();
                let score = |&j: &usize| {
                    if j == i {
                        return R::from_f64(SELF);
                    }
                    let square = q(j).iter().fold(R::from_f64(EPSILON), |sum, &x| sum + x * x);
                    let dot = q(i).iter().zip(q(j)).fold(R::zero(), |dot, (&a, &b)| dot + a * b);
                    dot / square.sqrt() * scale
                };
                let scores: Vec<R> = visible.iter().map(score).collect();
                let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
                let weights: Vec<R> = scores.into_iter().map(|score| (score - largest).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                for d in 0..dim {
                    let terms = visible.iter().zip(&weights);
                    let mixed = terms.fold(R::zero(), |o, (&j, &w)| o + w * x.v[at.index(b, h, j, d)]);
                    out[at.index(b, h, i, d)] = mixed / sum;
                }
            }
        }
    }
    out
}
