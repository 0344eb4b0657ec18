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
    Reference, Refusal, Setup, Variant, strips,
};
use crate::graph::ops::sorted_attention::{Chunks, slots_at};
use crate::graph::{Data, Dtype, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key};

/// What a token's logit with itself is.
const SELF: f64 = -64.0;
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
    largest: |s| product(&[s.batch, s.heads, s.length, s.int(&ROUNDS), (s.int(&BUCKETS) / 2).max(8)]),
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

/// q and v `[B, H, N, D]`; k is not read. Returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    g.reusing(|g| forward(g, x, s))
}

fn forward(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let out = attend(g, x, s).out;
    x.without_padded_queries(g, out, s)
}

/// What the attention is made of.
struct Attended {
    /// `[B, H, N, D]`.
    keys: Node,
    /// As [`Graph::chunk_order`] says.
    order: Node,
    out: Node,
    /// The log-sum-exp of each row over all rounds, `[B, H, N]`.
    lse: Node,
}

fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Attended {
    let order = chunk_order(g, x, s);
    let keys = g.stage("normalise keys", |g| {
        let square = g.square(x.q);
        let square = g.sum(square, &[3], true);
        let square = g.add_scalar(square, EPSILON);
        let length = g.sqrt(square);
        g.div(x.q, length)
    });
    let (out, lse) =
        g.stage("attend", |g| g.sorted_attention([x.q, keys, x.v], order, chunking(s), s.causal, SELF));
    Attended { keys, order, out, lse }
}

fn chunking(s: &Setup) -> Chunks {
    Chunks { size: s.int(&CHUNK), rounds: s.int(&ROUNDS), across: s.bool(&ACROSS) }
}

/// Each token's hash in every round, u32 `[B, H, rounds, N]`.
fn buckets(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (rounds, count, n) = (s.int(&ROUNDS), s.int(&BUCKETS), s.length);
    let products = [s.batch, s.heads, n, rounds, count / 2];
    g.stage("hash", |g| {
        let products = match x.extras.get("lots") {
            Some(&lots) => {
                let of_token = g.swap_axes(lots, 0, 1);
                g.broadcast_to(of_token, &products)
            }
            None => {
                // The directions of all rounds side by side.
                let directions = g.swap_axes(x.extras["rotations"], 0, 1);
                let directions = g.reshape(directions, &[s.dim, rounds * count / 2]);
                let of_all = g.matmul(x.q, directions);
                g.reshape(of_all, &products)
            }
        };
        g.signed_argmax(products, x.key_padding)
    })
}

/// Tokens sorted by their hashes, and where each of them is in every round.
fn chunk_order(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let buckets = buckets(g, x, s);
    g.stage("sort", |g| {
        let buckets = g.reshape(buckets, &[s.instances(), s.int(&ROUNDS), s.length]);
        g.chunk_order(buckets, chunking(s), s.int(&BUCKETS))
    })
}

/// `exp(q_i·k_j / √D - lse_i)` for pairs that meet in any round: of those their shares of the rounds sum to 1.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (rounds, total, n) = (s.int(&ROUNDS), s.instances(), s.length);
    let Attended { keys, order, lse, .. } = attend(g, x, s);
    let (all, first) = (g.shape(order)[0], slots_at(&chunking(s), total, n));
    let slots = g.slice(order, 0, first..all);
    let slots = g.cast(slots, Dtype::F32);
    let slots = g.reshape(slots, &[total, n, (all - first) / (total * n)]);
    let slots = g.slice(slots, 2, 0..rounds);
    let slots = g.swap_axes(slots, 1, 2);
    let slots = g.reshape(slots, &[total, rounds * n]);
    let lse = g.reshape(lse, &[total, n]);
    let itself = g.constant(&[total, 1], Data::Real(vec![SELF as f32; total]));
    let row = g.concat(&[lse, slots, itself], 1);
    let row = g.reshape(row, &[s.batch, s.heads, n + rounds * n + 1]);
    Effective {
        left: g.scale(x.q, strips::scale(s)),
        right: keys,
        row: Some(row),
        bias: None,
        kind: EffectiveKind::Chunked { rounds, chunks: chunks(s) },
        rule: Rule::All { causal: s.causal },
    }
}

/// Buckets and the order in which they were sorted, both `[B, H, rounds, N]`.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let buckets = buckets(g, x, s);
    let order = chunk_order(g, x, s);
    let shape = g.shape(buckets).to_vec();
    let tokens = g.slice(order, 0, 0..shape.iter().product());
    let tokens = g.reshape(tokens, &shape);
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
