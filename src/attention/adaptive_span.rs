//! Adaptive attention span: each head learns how far back it looks.
//!
//! A head h has a span z_h in [0, S]. A token at distance x is weighted by `m_z(x) = clamp((R + z - x) / R, 0, 1)`: fully up to z,
//! then less and less over a ramp of R tokens, which is what gives z a gradient. `a_ij = m_z(i-j) e^(s_ij) / Σ_q m_z(i-q)
//! e^(s_iq)`, `dz = Σ_ij (dA_ij - D_i) e^(s_ij) / Σ_i · 1[0 < m < 1] / R` and the loss's own `λ / H`.
//!
//! Sukhbaatar et al., 2019, "Adaptive Attention Span in Transformers", arXiv:1905.07799, eq. 1-6. Time O(N z D) with the spans
//! that there are, memory O(N): the kernel reads the head's span and visits no block beyond `z + R`, though the list of blocks
//! reaches to S. Always causal. The penalty Σ z / H, without which nothing shortens a span, is a loss of its own; keeping z in
//! its range after a step is the optimiser's part: here it is cut to [0, S], beyond which it has no gradient.
//! Differs from the paper: a token sees itself, unless `itself` is off as there; relative positions belong to a model, and the
//! span that follows the input is left out; a choice draws the spans by lot and freezes them.

use super::restricted::BLOCK;
use super::{
    Causal, Decision, Effective, EffectiveKind, Extra, Family, Form, Init, Inputs, OwnLoss, Paper, Param, ParamKind, Reference, Setup,
    Variant, strips,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Data, Graph, Node, Real};
use crate::pattern::{BlockList, Rule};
use crate::reference::{At, is_real_key, is_real_query};
use std::rc::Rc;

const MAX_SPAN: Param = Param {
    name: "max_span",
    kind: ParamKind::Int { min: 0, max: 65_536, default: |n| (n / 4).clamp(16, 8192) as u32 },
    meaning: "The longest span S that a head may learn, in tokens; cost follows the spans and not this limit.",
};

const RAMP: Param = Param {
    name: "ramp",
    kind: ParamKind::Int { min: 1, max: 4096, default: |_| 32 },
    meaning: "Over how many tokens R behind its span a head fades out; they are computed too, and a span learns by them.",
};

const SPANS: Param = Param {
    name: "spans",
    kind: ParamKind::Choice { options: &["learned", "random"], default: "learned" },
    meaning: "Whether heads have spans that are learned, or some between nothing and the longest by lot, to see whether it \
              matters which head looks far.",
};

const ITSELF: Param = Param {
    name: "itself",
    kind: ParamKind::Bool { default: true },
    meaning: "Whether a token sees itself; in the paper it does not, so that the first one sees nothing.",
};

pub static VARIANT: Variant = Variant {
    id: "adaptive_span",
    name: "Adaptive span",
    family: Family::LearnedPattern,
    paper: Paper {
        title: "Adaptive Attention Span in Transformers",
        authors: "Sukhbaatar et al.",
        year: 2019,
        arxiv: "1905.07799",
    },
    summary: "Each head learns how far back it has to look, and is charged for it while training. Most heads, those in low layers \
              above all, then content themselves with a few tokens, and only a few look thousands back, so that a model may \
              have a very long context and pay for it where it is used. Cost follows the learned spans. Use it for language \
              models over characters or long texts; it looks only backwards, and a span is the same for every text.",
    complexity: "O(N z D) time for spans of z tokens, O(N) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Always,
    params: &[MAX_SPAN, RAMP, SPANS, ITSELF],
    extras,
    check: |_| Ok(()),
    largest: |_| 0,
    graph,
    effective,
    // Which pairs count is known by the learned spans alone.
    rule: |_| None,
    blocks: |s| Some(blocks(s)),
    loss: Some(&PENALTY),
    decide: Some(decide),
    reference: Reference::new(naive, naive),
};

static PENALTY: OwnLoss = OwnLoss {
    meaning: "The mean span of the heads in tokens: it shortens spans that do not pay.",
    weight: 5e-7,
    graph: penalty,
    reference: Reference::new(naive_penalty, naive_penalty),
};

fn extras(s: &Setup) -> Vec<Extra> {
    let longest = s.int(&MAX_SPAN) as f32;
    let tensor = |name, role, differentiable, init| Extra {
        name,
        shape: vec![s.heads],
        role,
        differentiable,
        optional: false,
        init,
    };
    vec![match s.choice(&SPANS).as_str() {
        "random" => tensor("lot", "makes a head's span: its size times the longest one", false, Init::Uniform(1.0)),
        // Drawn as they come out of training: none for many heads, and long for few.
        _ => tensor("span", "learned span z of each head, in tokens", true, Init::Normal(longest / 4.0)),
    }]
}

/// The longest span as a window.
fn longest(s: &Setup) -> Rule {
    Rule::Window { radius: s.int(&MAX_SPAN) as u32, dilation: 1, global: 0, causal: true }
}

fn blocks(s: &Setup) -> BlockList {
    BlockList::new(&longest(s), s.length, s.keys, BLOCK, BLOCK)
}

/// A picture of it for a gallery: a span in the middle of what may be.
pub(super) fn sketch(s: &Setup) -> Rule {
    Rule::Window { radius: s.int(&MAX_SPAN) as u32 / 2, dilation: 1, global: 0, causal: true }
}

/// Distances that can be, from 0 on.
fn distances(s: &Setup) -> usize {
    s.int(&MAX_SPAN).min(s.keys - 1) + 1
}

/// Of each head how far it looks, and its factors m by distance: `[H, 1 + P]`.
fn factors(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (longest, ramp, count) = (s.int(&MAX_SPAN), s.int(&RAMP) as f64, distances(s));
    let number = |g: &mut Graph, x: f32| g.constant(&[], Data::Real(vec![x]));
    let (zero, one, most) = (number(g, 0.0), number(g, 1.0), number(g, longest as f32));
    let span = match x.extras.get("span") {
        Some(&span) => span,
        None => {
            let share = g.abs(x.extras["lot"]);
            g.scale(share, longest as f64)
        }
    };
    let span = g.maximum(zero, span);
    let span = g.minimum(most, span);
    let span = g.reshape(span, &[s.heads, 1]);
    let distance = g.constant(&[1, count], Data::Real((0..count).map(|d| d as f32).collect()));
    let end = g.add_scalar(span, ramp);
    let rest = g.sub(end, distance);
    let rest = g.scale(rest, 1.0 / ramp);
    let factors = g.maximum(zero, rest);
    let mut factors = g.minimum(one, factors);
    if !s.bool(&ITSELF) {
        let others = g.constant(&[1, count], Data::Real((0..count).map(|d| f32::from(d > 0)).collect()));
        factors = g.mul(factors, others);
    }
    let reach = g.detach(end);
    g.concat(&[reach, factors], 1)
}

fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup, factors: Node) -> (Node, Node) {
    let options = BlockAttentionOptions {
        padding: x.key_padding,
        distances: Some(factors),
        ..BlockAttentionOptions::new(Rc::new(blocks(s)), longest(s))
    };
    g.block_attention(x.q, x.k, x.v, &options)
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`, span `[H]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let factors = g.stage("spans", |g| factors(g, x, s));
    let (out, _) = g.stage("attend", |g| attend(g, x, s, factors));
    x.without_padded_queries(g, out, s)
}

/// `m(i - j) exp(s_ij - lse_i)`.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let factors = factors(g, x, s);
    let (_, lse) = attend(g, x, s, factors);
    let factors = g.slice(factors, 1, 1..distances(s) + 1);
    spanned(g, x, s, lse, factors)
}

/// Softmax weights from their log-sum-exp `[B, H, N]` and factors by distance `[H, P]`.
pub(super) fn spanned(g: &mut Graph, x: &Inputs<Node>, s: &Setup, lse: Node, factors: Node) -> Effective {
    let distances = g.shape(factors)[1];
    let factors = g.reshape(factors, &[1, s.heads, distances]);
    let factors = g.broadcast_to(factors, &[s.batch, s.heads, distances]);
    Effective {
        left: g.scale(x.q, strips::scale(s)),
        right: x.k,
        row: Some(g.concat(&[lse, factors], 2)),
        bias: None,
        kind: EffectiveKind::Spanned { distances },
        rule: Rule::All { causal: s.causal },
    }
}

/// Σ z / H of section 2.1; nothing where spans are not learned. A span below nothing is none.
fn penalty(g: &mut Graph, x: &Inputs<Node>, _: &Setup) -> Node {
    let zero = g.constant(&[1], Data::Real(vec![0.0]));
    let Some(&span) = x.extras.get("span") else { return zero };
    let span = g.maximum(zero, span);
    g.mean(span, &[0], true)
}

fn naive_penalty<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> R {
    let spans = x.extras.get("span").into_iter().flatten().filter(|z| z.to_f64() > 0.0);
    spans.fold(R::zero(), |sum, &z| sum + z) / R::from_f64(s.heads as f64)
}

/// Each head's span and its ramp, `[1, 1, H, 2]`.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let ramp = s.int(&RAMP);
    let factors = factors(g, x, s);
    let end = g.slice(factors, 1, 0..1);
    let span = g.add_scalar(end, -(ramp as f64));
    let ramps = g.constant(&[s.heads, 1], Data::Real(vec![ramp as f32; s.heads]));
    let both = g.concat(&[span, ramps], 1);
    let both = g.reshape(both, &[1, 1, s.heads, 2]);
    vec![Decision::new(g, "spans", Form::Lengths, both)]
}

/// Eq. 3-5, with the distances from the token itself or from the one before it to S.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: s.dim };
    let scale = R::one() / R::from_f64(s.dim as f64).sqrt();
    let (longest, ramp) = (s.int(&MAX_SPAN), R::from_f64(s.int(&RAMP) as f64));
    let nearest = usize::from(!s.bool(&ITSELF));
    let between = |x: R, low: f64, high: f64| match x.to_f64() {
        value if value <= low => R::from_f64(low),
        value if value >= high => R::from_f64(high),
        _ => x,
    };
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            let span = match x.extras.get("span") {
                Some(span) => span[h],
                None => R::from_f64(x.extras["lot"][h].to_f64().abs() * longest as f64),
            };
            let span = between(span, 0.0, longest as f64);
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let position = i + s.keys - s.length;
                let mut terms = Vec::new();
                for distance in nearest..=longest.min(position) {
                    let j = position - distance;
                    let mask = between((ramp + span - R::from_f64(distance as f64)) / ramp, 0.0, 1.0);
                    if mask.to_f64() > 0.0 && is_real_key(x, s, b, j) {
                        let dot = (0..s.dim).fold(R::zero(), |dot, d| {
                            dot + x.q[queries.index(b, h, i, d)] * x.k[keys.index(b, h, j, d)]
                        });
                        terms.push((j, mask, dot * scale));
                    }
                }
                let largest = terms.iter().map(|t| t.2.to_f64()).fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<R> =
                    terms.iter().map(|&(_, mask, score)| mask * (score - R::from_f64(largest)).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                for (&(j, ..), &w) in terms.iter().zip(&weights) {
                    for d in 0..s.dim {
                        out[queries.index(b, h, i, d)] += w / sum * x.v[keys.index(b, h, j, d)];
                    }
                }
            }
        }
    }
    out
}
