//! Nyströmformer: the softmax matrix rebuilt from its rows and columns at a few landmarks.
//!
//! Landmarks q̃, k̃ are the means of m segments. With `F = softmax(Q K̃ᵀ / √D)`, `A = softmax(Q̃ K̃ᵀ / √D)` and
//! `B = softmax(Q̃ Kᵀ / √D)`: `O = F Z (B V) + conv(V)`, where Z approaches the pseudo-inverse of A by
//! `Z ← ¼ Z (13 I - A Z (15 I - A Z (7 I - A Z)))` from `Z = Aᵀ / (|A|₁ |A|∞)`. The effective matrix is `F Z B` plus the filter along
//! the diagonals; cells may be negative, and rows of `F Z B` sum to 1 where Z has converged.
//!
//! Xiong et al., 2021, "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention", arXiv:2102.03902, eq. 13 and
//! algorithm 1. Time O(N m D + m³), memory O(m D + m²): no m×N buffer, because B V and F Y are fused attention. Differs from the
//! paper: segments have ⌈N/m⌉ tokens and the last one what is left, where the paper pads; means are over real tokens, and
//! segments without any are dropped; Z starts from norms of each head's own A, without gradient. A choice takes random tokens
//! for landmarks in place of the means.

use super::setup::product;
use super::{
    Causal, Decision, Effective, EffectiveKind, Extra, Family, Form, Init, Inputs, Of, Paper, Param, ParamKind,
    Reference, Refusal, Setup, Variant, full, lots, split,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Data, Dtype, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key};
use std::rc::Rc;

const LANDMARKS: Param = Param {
    name: "landmarks",
    kind: ParamKind::Int { min: 1, max: 256, default: |_| 64 },
    meaning: "How many landmarks stand for the sequence, at most one for each token; more is closer to full attention.",
};

const ITERATIONS: Param = Param {
    name: "iterations",
    kind: ParamKind::Int { min: 1, max: 30, default: |_| 6 },
    meaning: "How many steps the iteration takes towards the pseudo-inverse of the landmarks' own attention matrix.",
};

const CONV_KERNEL: Param = Param {
    name: "conv_kernel",
    kind: ParamKind::Int { min: 0, max: 255, default: |_| 33 },
    meaning: "Length of a learned filter over neighbouring values, an odd number, which is added to the output and gives \
              back the detail that landmarks blur; 0 leaves it out.",
};

const CHOOSE: Param = Param {
    name: "choose",
    kind: ParamKind::Choice { options: &["means", "random"], default: "means" },
    meaning: "What a landmark is: the mean of its segment as in the paper, or one token of it drawn by chance, to see \
              whether averaging matters.",
};

pub static VARIANT: Variant = Variant {
    id: "nystromformer",
    name: "Nyströmformer",
    family: Family::LowRank,
    paper: Paper {
        title: "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention",
        authors: "Xiong et al.",
        year: 2021,
        arxiv: "2102.03902",
    },
    summary: "The sequence is cut into m segments whose mean queries and keys serve as landmarks. From how all tokens \
              attend to the landmarks, how the landmarks attend to all tokens, and the inverse of how they attend to each \
              other, the whole softmax matrix is rebuilt without ever being written: cost grows with the length only. \
              Since a mean mixes positions it cannot be used to generate text, and the small inverse makes it less exact \
              where attention is sharp. Use it to encode long texts with weights of a softmax model.",
    complexity: "O(N m D + m^3) time, O(N D + m^2) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Never("each landmark averages a whole segment, so future tokens would leak into every output"),
    params: &[LANDMARKS, ITERATIONS, CONV_KERNEL, CHOOSE],
    extras,
    check,
    largest: |s| product(&[s.batch, s.heads, segments(s).1, segments(s).1]),
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
        let reason = format!(
            "Nyströmformer pairs the landmarks of queries and of keys; there are {} queries and {} keys",
            s.length, s.keys
        );
        return Err(Refusal::new(reason, format!("{} keys", s.length)));
    }
    let taps = s.int(&CONV_KERNEL);
    if taps > 0 && taps.is_multiple_of(2) {
        let reason = format!("conv_kernel: the filter is centred on its token, so its length is odd, not {taps}");
        return Err(Refusal::new(reason, format!("conv_kernel {}", taps - 1)));
    }
    Ok(())
}

fn extras(s: &Setup) -> Vec<Extra> {
    let mut extras = Vec::new();
    let extra = |name, shape, role, differentiable, init| Extra { name, shape, role, differentiable, optional: false, init };
    let taps = s.int(&CONV_KERNEL);
    if taps > 0 {
        let init = Init::Uniform(1.0 / (taps as f32).sqrt());
        extras.push(extra("conv", vec![s.heads, taps], "filter over neighbouring values, one for each head", true, init));
    }
    if s.choice(&CHOOSE) == "random" {
        extras.push(lots::extra(s));
    }
    extras
}

/// Tokens of a segment, and how many segments there are; the last one may be shorter.
fn segments(s: &Setup) -> (usize, usize) {
    let size = s.length.div_ceil(s.int(&LANDMARKS).min(s.length));
    (size, s.length.div_ceil(size))
}

/// Landmarks and what belongs to them.
struct Landmarks {
    /// `[B, H, m, D]`.
    q: Node,
    k: Node,
    /// u32 `[B, m]` and f32 `[B, 1, m, 1]`: 1 where a segment has a real token. None where all have.
    real: Option<(Node, Node)>,
}

/// `x` `[batch, heads, N, C]` filled up with zeros, `[batch, heads, m, tokens of a segment, C]`.
fn cut(g: &mut Graph, x: Node, s: &Setup) -> Node {
    let (size, count) = segments(s);
    let [batch, heads, _, columns] = g.shape(x)[..] else { panic!("rows are [B, H, N, C]") };
    let filled = g.pad(x, 2, 0, size * count - s.length, 0.0);
    g.reshape(filled, &[batch, heads, count, size, columns])
}

/// 1 for a token that its landmark is made of, 0 for others and for what fills up the last segment:
/// `[B or 1, 1, m, tokens of a segment, 1]`.
fn shares(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let ones = g.constant(&[1, 1, s.length, 1], Data::Real(vec![1.0; s.length]));
    let present = x.real_keys(g, s).unwrap_or(ones);
    let share = cut(g, present, s);
    if s.choice(&CHOOSE) != "random" {
        return share;
    }
    let lots = g.reshape(x.extras[lots::LOTS], &[1, 1, s.length, 1]);
    let lots = cut(g, lots, s);
    lots::winners(g, lots, share, 3)
}

fn landmarks(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Landmarks {
    let (_, count) = segments(s);
    let share = shares(g, x, s);
    let total = g.sum(share, &[3], true);
    let real = x.key_padding.map(|_| {
        let zero = g.constant(&[], Data::Real(vec![0.0]));
        let real = g.binary(crate::graph::BinaryKind::Greater, total, zero);
        let column = g.reshape(real, &[s.batch, 1, count, 1]);
        let flat = g.reshape(real, &[s.batch, count]);
        (g.cast(flat, Dtype::U32), column)
    });
    let one = g.constant(&[], Data::Real(vec![1.0]));
    let total = g.maximum(total, one);
    let weights = g.div(share, total);
    let [q, k] = [x.q, x.k].map(|rows| {
        let rows = cut(g, rows, s);
        let weighted = g.mul(rows, weights);
        g.sum(weighted, &[3], false)
    });
    Landmarks { q, k, real }
}

/// `factor` times the identity, `[m, m]`.
fn identity(g: &mut Graph, m: usize, factor: f32) -> Node {
    g.constant(&[m, m], Data::Real((0..m * m).map(|i| if i / m == i % m { factor } else { 0.0 }).collect()))
}

/// A, `[B, H, m, m]`: the identity at dropped segments.
fn kernel(g: &mut Graph, marks: &Landmarks, s: &Setup) -> Node {
    let scores = g.matmul_nt(marks.q, marks.k, s.scale());
    let weights = g.masked_softmax(scores, marks.real.map(|(flat, _)| flat), Rule::All { causal: false });
    let Some((_, real)) = marks.real else { return weights };
    let identity = identity(g, segments(s).1, 1.0);
    g.select(real, weights, identity)
}

/// Z for A `[B, H, m, m]`.
fn pseudo_inverse(g: &mut Graph, a: Node, s: &Setup) -> Node {
    let m = segments(s).1;
    let columns = g.sum(a, &[2], true);
    let largest = g.max(columns, &[3], true);
    let rows = g.sum(a, &[3], true);
    let widest = g.max(rows, &[2], true);
    let norms = g.mul(largest, widest);
    let norms = g.detach(norms);
    let transposed = g.swap_axes(a, 2, 3);
    let mut z = g.div(transposed, norms);
    let [seven, fifteen, thirteen] = [7.0, 15.0, 13.0].map(|factor| identity(g, m, factor));
    for _ in 0..s.int(&ITERATIONS) {
        let az = g.matmul(a, z);
        let mut inner = az;
        for diagonal in [seven, fifteen] {
            let difference = g.sub(diagonal, inner);
            inner = g.matmul(az, difference);
        }
        let difference = g.sub(thirteen, inner);
        let product = g.matmul(z, difference);
        z = g.scale(product, 0.25);
    }
    z
}

/// Fused attention of `q` to all of `k`.
fn attend(g: &mut Graph, q: Node, k: Node, v: Node, padding: Option<Node>) -> Node {
    let rule = Rule::All { causal: false };
    let (length, keys) = (g.shape(q)[2], g.shape(k)[2]);
    let options = BlockAttentionOptions {
        padding,
        ..BlockAttentionOptions::new(Rc::new(full::blocks_of(length, keys, &rule)), rule)
    };
    g.block_attention(q, k, v, &options).0
}

/// q, k and v `[B, H, N, D]`, conv `[H, taps]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let marks = g.stage("landmarks", |g| landmarks(g, x, s));
    let z = g.stage("invert", |g| {
        let a = kernel(g, &marks, s);
        pseudo_inverse(g, a, s)
    });
    let gathered = g.stage("gather", |g| split::attend(g, marks.q, x.k, x.v, x.key_padding).0);
    let mixed = g.stage("invert", |g| g.matmul(z, gathered));
    let mut out = g.stage("attend", |g| attend(g, x.q, marks.k, mixed, marks.real.map(|(flat, _)| flat)));
    if let Some(&filter) = x.extras.get("conv") {
        out = g.stage("convolve", |g| {
            let values = match x.real_keys(g, s) {
                Some(real) => g.mul(x.v, real),
                None => x.v,
            };
            let filter = g.unsqueeze(filter, 2);
            let convolved = g.depthwise_conv(values, filter, false);
            g.add(out, convolved)
        });
    }
    x.without_padded_queries(g, out, s)
}

/// `F` against the columns of `Z B`, and the filter.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let marks = landmarks(g, x, s);
    let rule = Rule::All { causal: false };
    let softmax = |g: &mut Graph, q: Node, k: Node, padding: Option<Node>| {
        let scores = g.matmul_nt(q, k, s.scale());
        g.masked_softmax(scores, padding, Rule::All { causal: false })
    };
    let a = kernel(g, &marks, s);
    let z = pseudo_inverse(g, a, s);
    let left = softmax(g, x.q, marks.k, marks.real.map(|(flat, _)| flat));
    let b = softmax(g, marks.q, x.k, x.key_padding);
    let product = g.matmul(z, b);
    let right = g.swap_axes(product, 2, 3);
    let taps = s.int(&CONV_KERNEL);
    let row = x.extras.get("conv").map(|&filter| g.broadcast_to(filter, &[s.batch, s.heads, taps]));
    let kind = if row.is_some() { EffectiveKind::Filtered { taps } } else { EffectiveKind::Plain };
    Effective { left, right, row, bias: None, kind, rule }
}

/// The landmark that each token is part of, `[B, 1, 1, N]`.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let share = shares(g, x, s);
    let count = segments(s).1;
    let marks = lots::numbered(g, share, count, 0..s.length);
    vec![Decision::new(g, "landmarks", Form::Labels { count, of: Of::Tokens }, marks)]
}

/// Eq. 13 with whole matrices.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let (n, dim) = (s.length, s.dim);
    let size = n.div_ceil(s.int(&LANDMARKS).min(n));
    let at = At { heads: s.heads, rows: n, cols: dim };
    let scale = R::one() / R::from_f64(dim as f64).sqrt();
    let mut out = vec![R::zero(); s.instances() * n * dim];
    for b in 0..s.batch {
        let real: Vec<usize> = (0..n).filter(|&i| is_real_key(x, s, b, i)).collect();
        // The real tokens of each segment that has any.
        let members: Vec<Vec<usize>> = (0..n.div_ceil(size))
            .map(|c| real.iter().copied().filter(|i| i / size == c).collect::<Vec<usize>>())
            .filter(|members| !members.is_empty())
            .map(|members| match x.extras.get(lots::LOTS) {
                None => members,
                Some(lots) => lots::winner(members, lots).into_iter().collect(),
            })
            .collect();
        let m = members.len();
        for h in 0..s.heads {
            let token = |tensor: &[R], i: usize| -> Vec<R> { (0..dim).map(|d| tensor[at.index(b, h, i, d)]).collect() };
            let mean = |tensor: &[R]| -> Vec<Vec<R>> {
                members
                    .iter()
                    .map(|tokens| {
                        (0..dim)
                            .map(|d| {
                                let sum = tokens.iter().fold(R::zero(), |sum, &i| sum + tensor[at.index(b, h, i, d)]);
                                sum / R::from_f64(tokens.len() as f64)
                            })
                            .collect()
                    })
                    .collect()
            };
            let all = |tensor: &[R]| -> Vec<Vec<R>> { real.iter().map(|&i| token(tensor, i)).collect() };
            let (queries, keys) = (all(&x.q), all(&x.k));
            let (query_marks, key_marks) = (mean(&x.q), mean(&x.k));
            let f = softmax_rows(&queries, &key_marks, scale);
            let a = softmax_rows(&query_marks, &key_marks, scale);
            let bv = multiply(&softmax_rows(&query_marks, &keys, scale), &all(&x.v));
            // The first estimate's norms: largest sums of columns and of rows.
            let column = (0..m).map(|c| a.iter().map(|row| row[c].to_f64()).sum::<f64>()).fold(0.0, f64::max);
            let row = a.iter().map(|row| row.iter().map(|x| x.to_f64()).sum::<f64>()).fold(0.0, f64::max);
            let norms = R::from_f64(column * row);
            let mut z: Vec<Vec<R>> = (0..m).map(|i| (0..m).map(|j| a[j][i] / norms).collect()).collect();
            let minus = |factor: f64, y: &[Vec<R>]| -> Vec<Vec<R>> {
                let cell = |i: usize, j: usize| R::from_f64(if i == j { factor } else { 0.0 }) - y[i][j];
                (0..m).map(|i| (0..m).map(|j| cell(i, j)).collect()).collect()
            };
            for _ in 0..s.int(&ITERATIONS) {
                let az = multiply(&a, &z);
                let inner = multiply(&az, &minus(7.0, &az));
                let inner = multiply(&az, &minus(15.0, &inner));
                z = multiply(&z, &minus(13.0, &inner));
                z.iter_mut().flatten().for_each(|x| *x = *x * R::from_f64(0.25));
            }
            let mixed = multiply(&f, &multiply(&z, &bv));
            for (&i, row) in real.iter().zip(&mixed) {
                for d in 0..dim {
                    let mut sum = row[d];
                    if let Some(filter) = x.extras.get("conv") {
                        let taps = filter.len() / s.heads;
                        for &j in &real {
                            if let Some(tap) = (j + taps / 2).checked_sub(i).filter(|&tap| tap < taps) {
                                sum += filter[h * taps + tap] * x.v[at.index(b, h, j, d)];
                            }
                        }
                    }
                    out[at.index(b, h, i, d)] = sum;
                }
            }
        }
    }
    out
}

/// The softmax over each row of `q kᵀ scale`.
fn softmax_rows<R: Real>(q: &[Vec<R>], k: &[Vec<R>], scale: R) -> Vec<Vec<R>> {
    let row = |q: &Vec<R>| {
        let dot = |k: &Vec<R>| q.iter().zip(k).fold(R::zero(), |dot, (&a, &b)| dot + a * b) * scale;
        let scores: Vec<R> = k.iter().map(dot).collect();
        let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
        let weights: Vec<R> = scores.into_iter().map(|score| (score - largest).exp()).collect();
        let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
        weights.into_iter().map(|w| w / sum).collect()
    };
    q.iter().map(row).collect()
}

fn multiply<R: Real>(a: &[Vec<R>], b: &[Vec<R>]) -> Vec<Vec<R>> {
    let columns = b.first().map_or(0, Vec::len);
    let cell = |row: &[R], j: usize| row.iter().zip(b).fold(R::zero(), |sum, (&x, y)| sum + x * y[j]);
    a.iter().map(|row| (0..columns).map(|j| cell(row, j)).collect()).collect()
}
