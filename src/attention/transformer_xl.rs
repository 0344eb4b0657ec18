//! Transformer-XL: attention inside a segment and to a memory of what stood in front of it, with relative positions.
//!
//! The sequence is cut into segments of L tokens. A query sees its own segment up to itself and the last M tokens in front of the
//! segment, which are remembered as constants: no gradient goes into them. With the distance δ = i - j,
//! `S_ij = ((q_i + u)·k_j + (q_i + v)·r_δ) / √D`, `r_δ = W_r R_δ`, R_δ the sinusoid `[sin δω, cos δω]`, `ω_f = 10000^(-2f / d)`; a
//! softmax over the keys with δ >= 0. u and v are each head's own.
//!
//! Dai et al., 2019, "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context", arXiv:1901.02860, section 3 and
//! appendix B. Time O(N (L + M) D), memory O(N). The rows r are found by their distance where they are read, so that nothing is
//! shifted in memory. Differs from the paper: one layer is shown, so that what is remembered are keys and values and not the
//! layer's inputs; the sinusoid is as wide as a head, since heads here belong to no model; distances may be limited for R, as
//! the public code does in evaluation.

use super::{
    Causal, Effective, Extra, Family, Init, Inputs, Paper, Param, ParamKind, Reference, Refusal, Setup, Variant, strips,
};
use crate::graph::ops::strip_attention::{Keys, Normaliser, Score, Slots, StripInputs};
use crate::graph::{Data, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};

const SEGMENT: Param = Param {
    name: "segment",
    kind: ParamKind::Int { min: 1, max: 4096, default: |n| (n / 4).clamp(16, 512) as u32 },
    meaning: "Tokens L of a segment, which is trained on as a whole; the paper takes 512 for bytes and 150 for words.",
};

const MEMORY: Param = Param {
    name: "memory",
    kind: ParamKind::Int { min: 0, max: 16_384, default: |n| (n / 4).clamp(16, 512) as u32 },
    meaning: "Tokens M in front of a segment that are remembered; 0 cuts the segments off from each other.",
};

const CLAMP: Param = Param {
    name: "clamp_len",
    kind: ParamKind::Int { min: 0, max: 65_535, default: |_| 0 },
    meaning: "Larger distances count as this one; 0 is no limit.",
};

pub static VARIANT: Variant = Variant {
    id: "transformer_xl",
    name: "Transformer-XL",
    family: Family::Recurrent,
    paper: Paper {
        title: "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context",
        authors: "Dai et al.",
        year: 2019,
        arxiv: "1901.02860",
    },
    summary: "The text is read in segments, and each segment looks back at what was computed for the one before, as a \
              recurrent network looks at its state. So no token is without context at the beginning of a segment, reach \
              grows with each layer, and while generating nothing is computed twice. Positions must be relative for that to \
              work. Cost grows with the length times segment and memory. Use it for language modelling of long texts; it \
              only looks backwards, and what lies beyond the memory is gone.",
    complexity: "O(N (L + M) D) time, O(M) state",
    exponent: 1.0,
    exact: false,
    causal: Causal::Always,
    params: &[SEGMENT, MEMORY, CLAMP],
    extras,
    check,
    largest: |s| strips::largest(s, reach(s)),
    graph,
    effective,
    rule: |s| Some(rule(s)),
    blocks: |_| None,
    reference: Reference::new(naive, naive),
};

/// Refuses keys that are not the queries' own tokens.
pub(super) fn check(s: &Setup) -> Result<(), Refusal> {
    if s.keys == s.length {
        return Ok(());
    }
    let reason = format!(
        "a segment's keys are its own tokens and what it remembers of them; there are {} queries and {} keys",
        s.length, s.keys
    );
    Err(Refusal::new(reason, format!("{} keys", s.length)))
}

/// Most keys that a query sees, which is also the number of distances.
fn reach(s: &Setup) -> usize {
    (s.int(&SEGMENT) + s.int(&MEMORY)).min(s.length)
}

/// Width of the sinusoid: even, since sines and cosines come in pairs.
fn width(s: &Setup) -> usize {
    s.dim.next_multiple_of(2)
}

pub(super) fn extras(s: &Setup) -> Vec<Extra> {
    let learned = |name, shape, role, deviation: f32| {
        let init = Init::Normal(deviation);
        Extra { name, shape, role, differentiable: true, optional: false, init }
    };
    let (h, d, width) = (s.heads, s.dim, width(s));
    vec![
        learned("u", vec![h, d], "added to queries that meet a key's content", 0.02),
        learned("v_r", vec![h, d], "added to queries that meet a key's distance: v of the paper", 0.02),
        learned("W_r", vec![h, d, width], "makes a key of a distance's sinusoid", 1.0 / (width as f32).sqrt()),
    ]
}

/// R_δ.
fn sinusoid(distance: usize, width: usize) -> impl Iterator<Item = f64> {
    let angle = move |f: usize| distance as f64 * 10_000f64.powf(-2.0 * f as f64 / width as f64);
    (0..width / 2).map(move |f| angle(f).sin()).chain((0..width / 2).map(move |f| angle(f).cos()))
}

fn rule(s: &Setup) -> Rule {
    Rule::Segments { length: s.int(&SEGMENT) as u32, memory: s.int(&MEMORY) as u32 }
}

/// The tensors of attention with relative positions, for queries of `x` and these keys and values. Distances beyond `limit`
/// count as that one.
pub(super) fn relative(
    g: &mut Graph,
    x: &Inputs<Node>,
    s: &Setup,
    [keys, values]: [Node; 2],
    distances: usize,
    limit: usize,
) -> StripInputs {
    g.stage("project", |g| {
        let width = width(s);
        let table = (0..distances).flat_map(|distance| sinusoid(distance.min(limit), width)).map(|x| x as f32);
        let table = g.constant(&[distances, width], Data::Real(table.collect()));
        let positions = g.matmul_nt(table, x.extras["W_r"], 1.0);
        let [left, second] = ["u", "v_r"].map(|name| {
            let bias = g.reshape(x.extras[name], &[s.heads, 1, s.dim]);
            g.add(x.q, bias)
        });
        StripInputs { second: Some(second), positions: Some(positions), ..StripInputs::new(left, keys, values) }
    })
}

/// No limit where the parameter is 0.
fn limit(s: &Setup) -> usize {
    match s.int(&CLAMP) {
        0 => usize::MAX,
        limit => limit,
    }
}

fn call(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (StripInputs, Score, Keys) {
    let real = strips::real(g, x, s);
    let inputs = StripInputs { real, ..relative(g, x, s, [x.k, x.v], reach(s), limit(s)) };
    let (length, memory) = (s.int(&SEGMENT), s.int(&MEMORY));
    let keys = Keys::Segments { length, memory, slots: Slots::default() };
    (inputs, Score::Relative { scale: strips::scale(s) }, keys)
}

/// q, k and v `[B, H, N, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (inputs, score, keys) = call(g, x, s);
    let out = g.stage("attend", |g| g.strip_attention(inputs, score, Normaliser::Softmax, keys));
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (inputs, score, keys) = call(g, x, s);
    let weights = g.strip_weights(inputs, score, Normaliser::Softmax, keys);
    Effective { rule: rule(s), ..strips::cells(x, s, weights) }
}

/// The same number without its history.
pub(super) fn constant<R: Real>(x: R) -> R {
    R::from_f64(x.to_f64())
}

/// `(q + u)·k + (q + v)·(W_r R_δ)` over √D, for query `i` and a key at distance `distance`.
pub(super) fn score<R: Real>(x: &Inputs<Vec<R>>, s: &Setup, at: [usize; 3], key: &[R], distance: usize) -> R {
    let [b, h, i] = at;
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let width = width(s);
    let sinusoid: Vec<R> = sinusoid(distance, width).map(R::from_f64).collect();
    let scale = R::one() / R::from_f64(s.dim as f64).sqrt();
    let sum = (0..s.dim).fold(R::zero(), |sum, d| {
        let query = x.q[queries.index(b, h, i, d)];
        let row = &x.extras["W_r"][(h * s.dim + d) * width..][..width];
        let position = row.iter().zip(&sinusoid).fold(R::zero(), |sum, (&w, &r)| sum + w * r);
        sum + (query + x.extras["u"][h * s.dim + d]) * key[d] + (query + x.extras["v_r"][h * s.dim + d]) * position
    });
    sum * scale
}

/// `Σ softmax(scores) values`.
pub(super) fn softmax_mix<R: Real>(scores: &[R], values: &[Vec<R>], out: &mut [R]) {
    let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
    let weights: Vec<R> = scores.iter().map(|&s| (s - largest).exp()).collect();
    let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
    for (&weight, value) in weights.iter().zip(values) {
        out.iter_mut().zip(value).for_each(|(o, &v)| *o += weight / sum * v);
    }
}

/// Each query by itself, straight from section 3.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let tokens = At { heads: s.heads, rows: s.length, cols: s.dim };
    let (length, memory) = (s.int(&SEGMENT), s.int(&MEMORY));
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let start = i / length * length;
                let (mut scores, mut values) = (Vec::new(), Vec::new());
                for j in (start.saturating_sub(memory)..=i).filter(|&j| is_real_key(x, s, b, j)) {
                    let row = tokens.index(b, h, j, 0)..tokens.index(b, h, j, 0) + s.dim;
                    let (mut key, mut value) = (x.k[row.clone()].to_vec(), x.v[row].to_vec());
                    if j < start {
                        key.iter_mut().chain(&mut value).for_each(|x| *x = constant(*x));
                    }
                    scores.push(score(x, s, [b, h, i], &key, (i - j).min(limit(s))));
                    values.push(value);
                }
                softmax_mix(&scores, &values, &mut out[tokens.index(b, h, i, 0)..][..s.dim]);
            }
        }
    }
    out
}
