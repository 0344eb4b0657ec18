//! Adaptively sparse attention: softmax replaced by α-entmax, with an α for each head that is learned.
//!
//! Of a row z of scores, `p = argmax over the simplex of pᵀz + H_α(p)`, which is `p_j = [(α - 1) z_j - τ]_+^(1 / (α - 1))` with
//! the one τ for which they sum to 1. α = 1 is softmax, α = 2 sparsemax; between them weights of exactly zero come in. A head
//! learns a, and α = 1 + σ(a).
//!
//! Correia, Niculae and Martins, 2019, "Adaptively Sparse Transformers", arXiv:1909.00015, eq. 4-8; τ and the gradient of α as
//! in its section 3.3. Time O(N² D) and some six passes over the scores to find τ; memory O(N): scores are made for a strip of
//! queries at a time, and again in the backward pass. τ needs the whole row, so there is no single pass as for softmax. Differs
//! from the paper: τ by Newton's method in place of bisection, to the same precision; an α below 1.01 counts as 1.

use super::{Causal, Effective, EffectiveKind, Extra, Family, Init, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant, strips};
use crate::graph::ops::strip_attention::{Keys, Normaliser, SMALLEST, Score, StripInputs};
use crate::graph::{BinaryKind, Data, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};

const ALPHA: Param = Param {
    name: "alpha",
    kind: ParamKind::Choice { options: &["learned", "1", "1.5", "2"], default: "learned" },
    meaning: "How sparse: learned gives each head an α of its own, 1 is softmax, 1.5 in between, and 2 sparsemax, the sparsest.",
};

pub static VARIANT: Variant = Variant {
    id: "entmax",
    name: "Adaptively sparse attention",
    family: Family::LearnedPattern,
    paper: Paper {
        title: "Adaptively Sparse Transformers",
        authors: "Correia et al.",
        year: 2019,
        arxiv: "1909.00015",
    },
    summary: "Softmax gives every token some weight. α-entmax gives most of them exactly none, and each head learns how many: \
              heads with α near 1 look everywhere, heads with α near 2 at a few tokens. That makes heads easier to read and \
              often a little better. It is not faster: every score is computed before it can be dropped, and finding the \
              threshold costs passes over the row that softmax does not need. Use it to see what heads attend to; not to \
              save time or memory.",
    complexity: "O(N^2 D) time, O(N) memory",
    exponent: 2.0,
    exact: false,
    causal: Causal::Both,
    params: &[ALPHA],
    extras,
    check: |_| Ok(()),
    largest: |s| strips::largest(s, s.keys),
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

/// The α that was chosen for all heads, if any.
fn fixed(s: &Setup) -> Option<f32> {
    s.choice(&ALPHA).parse().ok()
}

fn extras(s: &Setup) -> Vec<Extra> {
    let a = Extra {
        name: "a",
        shape: vec![s.heads],
        role: "makes each head's α = 1 + sigmoid(a)",
        differentiable: true,
        optional: false,
        init: Init::Normal(0.5),
    };
    if fixed(s).is_some() { vec![] } else { vec![a] }
}

fn inputs(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> StripInputs {
    let alpha = match fixed(s) {
        Some(alpha) => g.constant(&[s.heads], Data::Real(vec![alpha; s.heads])),
        None => {
            let share = g.sigmoid(x.extras["a"]);
            g.add_scalar(share, 1.0)
        }
    };
    let real = strips::real(g, x, s);
    StripInputs { alpha: Some(alpha), real, ..StripInputs::new(x.q, x.k, x.v) }
}

fn settings(s: &Setup) -> (Score, Normaliser, Keys) {
    (Score::Dot { scale: strips::scale(s) }, Normaliser::Entmax, Keys::All { causal: s.causal })
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`, a `[H]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let inputs = inputs(g, x, s);
    let (score, normaliser, keys) = settings(s);
    let out = g.stage("attend", |g| g.strip_attention(inputs, score, normaliser, keys));
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let inputs = inputs(g, x, s);
    let (score, normaliser, keys) = settings(s);
    let statistics = g.strip_statistics(inputs, score, normaliser, keys);
    let statistics = g.reshape(statistics, &[s.batch, s.heads, 4 * s.length]);
    let epsilon = g.add_scalar(inputs.alpha.expect("entmax has one"), -1.0);
    let least = g.constant(&[], Data::Real(vec![SMALLEST as f32]));
    let is_sparse = g.binary(BinaryKind::GreaterEqual, epsilon, least);
    let epsilon = g.mul(is_sparse, epsilon);
    let epsilon = g.reshape(epsilon, &[1, s.heads, 1]);
    let epsilon = g.broadcast_to(epsilon, &[s.batch, s.heads, 1]);
    Effective {
        left: g.scale(x.q, strips::scale(s)),
        right: x.k,
        row: Some(g.concat(&[statistics, epsilon], 2)),
        bias: None,
        kind: EffectiveKind::Entmax,
        rule: Rule::All { causal: s.causal },
    }
}

/// α-entmax of a row by bisection on τ (Peters et al., 2019, arXiv:1905.05702, algorithm 1). The bisection is done on plain
/// numbers; a Newton step from its end, with the slope held constant, carries the derivative of τ by the implicit function
/// theorem, since there `f(τ) = 0`.
fn entmax<R: Real>(z: &[R], alpha: R) -> Vec<R> {
    let largest = z.iter().map(|z| z.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let power = |x: R, exponent: R| if x.to_f64() > 0.0 { (x.ln() * exponent).exp() } else { R::zero() };
    if alpha.to_f64() == 1.0 {
        let weights: Vec<R> = z.iter().map(|&z| (z - R::from_f64(largest)).exp()).collect();
        let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
        return weights.into_iter().map(|w| w / sum).collect();
    }
    let epsilon = alpha - R::one();
    let exponent = R::one() / epsilon;
    let x: Vec<R> = z.iter().map(|&z| epsilon * (z - R::from_f64(largest))).collect();
    let excess = |tau: f64, exponent: f64| {
        x.iter().map(|x| (x.to_f64() - tau).max(0.0).powf(exponent) * f64::from(u8::from(x.to_f64() > tau))).sum::<f64>()
    };
    let (mut low, mut high) = (-1.0, 0.0);
    for _ in 0..45 {
        let middle = (low + high) / 2.0;
        *(if excess(middle, exponent.to_f64()) >= 1.0 { &mut low } else { &mut high }) = middle;
    }
    let slope = -exponent.to_f64() * excess(low, exponent.to_f64() - 1.0);
    let at_low = x.iter().fold(R::zero(), |sum, &x| sum + power(x - R::from_f64(low), exponent));
    let tau = R::from_f64(low) - (at_low - R::one()) / R::from_f64(slope);
    x.iter().map(|&x| power(x - tau, exponent)).collect()
}

/// Straight from eq. 4 and 8.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: s.dim };
    let scale = R::one() / R::from_f64(s.dim as f64).sqrt();
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            let alpha = match s.choice(&ALPHA).parse() {
                Ok(alpha) => R::from_f64(alpha),
                Err(_) => R::one() + R::one() / (R::one() + (-x.extras["a"][h]).exp()),
            };
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let allowed = |j: usize| !s.causal || j + s.length <= i + s.keys;
                let visible: Vec<usize> = (0..s.keys).filter(|&j| allowed(j) && is_real_key(x, s, b, j)).collect();
                let scores: Vec<R> = visible
                    .iter()
                    .map(|&j| {
                        let dot = (0..s.dim).fold(R::zero(), |dot, d| {
                            dot + x.q[queries.index(b, h, i, d)] * x.k[keys.index(b, h, j, d)]
                        });
                        dot * scale
                    })
                    .collect();
                for (&j, p) in visible.iter().zip(entmax(&scores, alpha)) {
                    for d in 0..s.dim {
                        out[queries.index(b, h, i, d)] += p * x.v[keys.index(b, h, j, d)];
                    }
                }
            }
        }
    }
    out
}
