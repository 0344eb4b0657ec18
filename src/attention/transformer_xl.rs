//! Transformer-XL: attention inside a segment and to a memory of what stood in front of it, with relative positions.
//!
//! The sequence is cut into segments of L tokens. A query sees its own segment up to itself and the last M tokens in front of the
//! segment, which are remembered as constants: no gradient goes into them. With the distance δ = i - j,
//! `S_ij = ((q_i + u)·k_j + (q_i + v)·r_δ) / √D`, `r_δ = W_r R_δ`, R_δ the sinusoid `[sin δω, cos δω]`, `ω_f = 10000^(-2f / d)`; a
//! softmax over the keys with δ >= 0. u and v are each head's own.
//!
//! Dai et al., 2019, "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context", arXiv:1901.02860, section 3 and
//! appendix B. Time O(N (L + M) D), memory O(N). Differs from the paper: nothing is shifted and no N×N buffer made, since by the
//! addition theorems a score is one product of vectors twice as long, which fused attention takes; one layer is shown, so that
//! what is remembered are keys and values and not the layer's inputs; the sinusoid is as wide as a head, since heads here
//! belong to no model; a choice shuffles the tokens' places.

use super::draw::Stream;
use super::restricted::Pattern;
use super::setup::product;
use super::{
    Causal, Decision, Effective, EffectiveKind, Extra, Family, Form, Init, Inputs, Paper, Param, ParamKind, Reference,
    Refusal, Setup, Variant, strips,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::ops::strip_attention::StripInputs;
use crate::graph::{Data, Graph, Node, Real};
use crate::pattern::{BlockList, Rule};
use crate::reference::{At, is_real_key, is_real_query};

pub(super) const SEGMENT: Param = Param {
    name: "segment",
    kind: ParamKind::Int { min: 1, max: 4096, default: |n| (n / 4).clamp(16, 512) as u32 },
    meaning: "Tokens L of a segment, which is trained on as a whole; the paper takes 512 for bytes and 150 for words.",
};

const MEMORY: Param = Param {
    name: "memory",
    kind: ParamKind::Int { min: 0, max: 16_384, default: |n| (n / 4).clamp(16, 512) as u32 },
    meaning: "Tokens M in front of a segment that are remembered; 0 cuts the segments off from each other.",
};

const POSITIONS: Param = Param {
    name: "positions",
    kind: ParamKind::Choice { options: &["own", "random"], default: "own" },
    meaning: "Which place a token is taken to have when distances are scored: its own, or another token's by lot, to see               whether distances matter.",
};

/// Where each token is taken to stand.
const PLACES: &str = "places";

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
    params: &[SEGMENT, MEMORY, POSITIONS],
    extras: all_extras,
    check,
    largest: |s| product(&[s.batch, s.heads, s.length, s.dim + width(s)]),
    graph,
    effective,
    rule: |s| Some(rule(s)),
    blocks: |s| Some(blocks(s)),
    loss: None,
    decide: Some(decide),
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

fn all_extras(s: &Setup) -> Vec<Extra> {
    let mut all = extras(s);
    if s.choice(&POSITIONS) == "random" {
        all.push(Extra {
            name: PLACES,
            shape: vec![s.length],
            role: "where each token is taken to stand",
            differentiable: false,
            optional: false,
            init: Init::Structure { below: s.length as u32 },
        });
    }
    all
}

/// Where each token is taken to stand: at its own place, at a given one, or at one drawn from the seed.
fn places(s: &Setup) -> Vec<u32> {
    let mut places: Vec<u32> = (0..s.length as u32).collect();
    if s.choice(&POSITIONS) == "random" {
        if let Some(given) = s.structure.given.get(PLACES).filter(|given| given.len() == s.length) {
            return given.to_vec();
        }
        let mut stream = Stream::new(s.seed, PLACES, &[]);
        (1..s.length).rev().for_each(|last| places.swap(last, stream.below(last + 1)));
    }
    places
}

/// R_δ.
fn sinusoid(distance: i64, width: usize) -> impl Iterator<Item = f64> {
    let angle = move |f: usize| distance as f64 * 10_000f64.powf(-2.0 * f as f64 / width as f64);
    (0..width / 2).map(move |f| angle(f).sin()).chain((0..width / 2).map(move |f| angle(f).cos()))
}

/// The tensors of attention with relative positions, for queries of `x` and these keys and values.
pub(super) fn relative(
    g: &mut Graph,
    x: &Inputs<Node>,
    s: &Setup,
    [keys, values]: [Node; 2],
    distances: usize,
) -> StripInputs {
    g.stage("project", |g| {
        let width = width(s);
        let table = (0..distances as i64).flat_map(|distance| sinusoid(distance, width)).map(|x| x as f32);
        let table = g.constant(&[distances, width], Data::Real(table.collect()));
        let positions = g.matmul_nt(table, x.extras["W_r"], 1.0);
        let [left, second] = ["u", "v_r"].map(|name| {
            let bias = g.reshape(x.extras[name], &[s.heads, 1, s.dim]);
            g.add(x.q, bias)
        });
        StripInputs { second: Some(second), positions: Some(positions), ..StripInputs::new(left, keys, values) }
    })
}

/// Keys of the query's own segment where `own` says so, and of `memory` tokens in front of it.
fn segments(s: &Setup, memory: usize, own: bool) -> Rule {
    Rule::Segments { length: s.int(&SEGMENT) as u32, memory: memory as u32, own }
}

fn rule(s: &Setup) -> Rule {
    segments(s, s.int(&MEMORY), true)
}

fn blocks(s: &Setup) -> BlockList {
    Pattern::tiled(s, rule(s)).list.as_ref().clone()
}

/// Queries and keys whose product is the whole score. With `y = W_rᵀ (q_i + v)` in halves s and c, and `a = ω i`, `b = ω j`:
/// `y·R_δ = s·sin(a - b) + c·cos(a - b) = (s sin a + c cos a)·cos b + (c sin a - s cos a)·sin b`, so that a distance needs no
/// vector of its own.
fn factors(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let half = width(s) / 2;
    let places = places(s);
    let table = |g: &mut Graph, first: usize| {
        let rows = places.iter().flat_map(|&place| sinusoid(place.into(), 2 * half).skip(first).take(half)).map(|x| x as f32);
        g.constant(&[s.length, half], Data::Real(rows.collect()))
    };
    let (sin, cos) = (table(g, 0), table(g, half));
    let [with_u, with_v] = ["u", "v_r"].map(|name| {
        let bias = g.reshape(x.extras[name], &[s.heads, 1, s.dim]);
        g.add(x.q, bias)
    });
    let y = g.matmul(with_v, x.extras["W_r"]);
    let [y_sin, y_cos] = [0, half].map(|first| g.slice(y, 3, first..first + half));
    let mut product = |a: Node, b: Node| g.mul(a, b);
    let [a, b] = [product(y_sin, sin), product(y_cos, cos)];
    let [c, d] = [product(y_cos, sin), product(y_sin, cos)];
    let (of_cos, of_sin) = (g.add(a, b), g.sub(c, d));
    let left = g.concat(&[with_u, of_cos, of_sin], 3);
    let left = g.scale(left, strips::scale(s));
    let angles = g.concat(&[cos, sin], 1);
    let angles = g.broadcast_to(angles, &[s.batch, s.heads, s.length, 2 * half]);
    (left, g.concat(&[x.k, angles], 3))
}

/// o `[B, H, N, D]` and the log-sum-exp `[B, H, N]` over the segments, and over what they remember, which is constant.
fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup, left: Node, right: Node) -> (Node, Node) {
    let values = g.pad(x.v, 3, 0, width(s), 0.0);
    let over = |g: &mut Graph, right: Node, values: Node, rule: Rule| {
        let list = Pattern::tiled(s, rule.clone()).list;
        let options = BlockAttentionOptions {
            scale: Some(1.0),
            padding: x.key_padding,
            ..BlockAttentionOptions::new(list, rule)
        };
        g.block_attention(left, right, values, &options)
    };
    let (own, own_lse) = over(g, right, values, segments(s, 0, true));
    let memory = s.int(&MEMORY);
    if memory == 0 || s.length <= s.int(&SEGMENT) {
        return (g.slice(own, 3, 0..s.dim), own_lse);
    }
    let [right, values] = [right, values].map(|x| g.detach(x));
    let (old, old_lse) = over(g, right, values, segments(s, memory, false));
    // Two softmaxes over disjoint keys make one, whatever is subtracted from the exponents.
    let top = g.maximum(own_lse, old_lse);
    let top = g.detach(top);
    let [own_share, old_share] = [own_lse, old_lse].map(|lse| {
        let below = g.sub(lse, top);
        g.exp(below)
    });
    let total = g.add(own_share, old_share);
    let parts = [(own, own_share), (old, old_share)].map(|(out, share)| {
        let share = g.div(share, total);
        let share = g.unsqueeze(share, 3);
        let out = g.slice(out, 3, 0..s.dim);
        g.mul(out, share)
    });
    let log = g.ln(total);
    (g.add(parts[0], parts[1]), g.add(top, log))
}

/// q, k and v `[B, H, N, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (left, right) = g.stage("project", |g| factors(g, x, s));
    let (out, _) = g.stage("attend", |g| attend(g, x, s, left, right));
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (left, right) = factors(g, x, s);
    let (_, lse) = attend(g, x, s, left, right);
    Effective { left, right, row: Some(lse), bias: None, kind: EffectiveKind::Softmax, rule: rule(s) }
}

/// The same number without its history.
pub(super) fn constant<R: Real>(x: R) -> R {
    R::from_f64(x.to_f64())
}

/// `(q + u)·k + (q + v)·(W_r R_δ)` over √D, for query `i` and a key at distance `distance`.
pub(super) fn score<R: Real>(x: &Inputs<Vec<R>>, s: &Setup, at: [usize; 3], key: &[R], distance: i64) -> R {
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

/// Where the memory of each segment begins, where the segment does, and where it ends.
fn decide(g: &mut Graph, _: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let (segment, memory) = (s.int(&SEGMENT), s.int(&MEMORY));
    let starts = (0..s.length).step_by(segment);
    let edges = starts.clone().flat_map(|at| [at.saturating_sub(memory), at, (at + segment).min(s.length)]);
    vec![Decision::known(g, "memory", Form::Spans, [1, starts.len(), 3], edges)]
}

/// Each query by itself, straight from section 3.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let tokens = At { heads: s.heads, rows: s.length, cols: s.dim };
    let (length, memory) = (s.int(&SEGMENT), s.int(&MEMORY));
    let places = places(s);
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
                    let distance = i64::from(places[i]) - i64::from(places[j]);
                    scores.push(score(x, s, [b, h, i], &key, distance));
                    values.push(value);
                }
                softmax_mix(&scores, &values, &mut out[tokens.index(b, h, i, 0)..][..s.dim]);
            }
        }
    }
    out
}
