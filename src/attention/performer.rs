//! Performer: linear attention whose random features estimate the softmax without bias (FAVOR+).
//!
//! With `x' = x D^(-1/4)` and random directions w_r, `φ(x)_r = m^(-1/2) (exp(w_r·x' - |x'|²/2 - c) + ε)`; `E[φ(q)·φ(k)]` is then
//! `exp(q·k / √D)` up to the constants, and `o_i = Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j)`, over all j or over j <= i. The
//! effective matrix is not negative, its rows sum to 1, its rank is m at most when bidirectional.
//!
//! Choromanski et al., 2020, "Rethinking Attention with Performers", arXiv:2009.14794, eq. 5-8 and section 2.4. Time O(N m D),
//! memory O(N m + m D). c keeps exp in range and cancels but for ε = 1e-4, both as in the published code: for a query the
//! largest w_r·x', for keys the largest of all real tokens of the head. Differs from the paper: causal keys have c = 0, because
//! a maximum over all tokens would look ahead; the directions are the same for all heads; the relu features are
//! `m^(-1/2) (relu(w_r·x') + 1e-3)`, the published code's kernel.

use super::{
    Causal, Decision, Effective, EffectiveKind, Extra, Family, Form, Init, Inputs, Paper, Param, ParamKind, Reference,
    Setup, Variant, linear,
};
use super::setup::product;
use crate::graph::{Data, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};

/// Added to exponential features.
const EPSILON: f64 = 1e-4;
/// Added to relu features.
const RELU_EPSILON: f64 = 1e-3;

pub(super) const FEATURES: Param = Param {
    name: "features",
    kind: ParamKind::Int { min: 1, max: 1024, default: |_| 256 },
    meaning: "How many random features stand for a query or a key; more is closer to softmax attention, and dearer.",
};

const FEATURE_MAP: Param = Param {
    name: "feature_map",
    kind: ParamKind::Choice { options: &["softmax", "relu"], default: "softmax" },
    meaning: "What the features estimate: softmax is the paper's FAVOR+, relu a kernel of its own that is cheaper and often \
              trains as well.",
};

const ORTHOGONAL: Param = Param {
    name: "orthogonal",
    kind: ParamKind::Bool { default: true },
    meaning: "Whether the random directions are made orthogonal to each other, which makes the estimate less noisy; off, \
              each is drawn by chance alone.",
};

pub static VARIANT: Variant = Variant {
    id: "performer",
    name: "Performer (FAVOR+)",
    family: Family::Kernel,
    paper: Paper {
        title: "Rethinking Attention with Performers",
        authors: "Choromanski et al.",
        year: 2020,
        arxiv: "2009.14794",
    },
    summary: "Each query and key is turned into m positive random features whose products are, on average, exactly the \
              weights of softmax attention; keys and values are then summed up once, as in linear attention, so cost grows \
              with the length only. It needs no training of its own and comes closer to softmax attention with more \
              features, but slowly: halving the error takes four times as many, and sharp attention needs most. Use it \
              for long sequences, also for generation, and where a softmax model is to be kept; below about 2 m tokens \
              full attention is cheaper.",
    complexity: "O(N m D) time, O(N m + m D) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Both,
    params: &[FEATURES, FEATURE_MAP, ORTHOGONAL],
    extras,
    check: linear::check,
    largest: |s| {
        let features = product(&[s.batch, s.heads, s.length.max(s.keys), s.int(&FEATURES)]);
        features.max(linear::largest_of_mix(s, s.int(&FEATURES)))
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
    vec![Extra {
        name: "projection",
        shape: vec![s.int(&FEATURES), s.dim],
        role: "random directions w_r of the features, one a row",
        differentiable: false,
        optional: false,
        init: if s.bool(&ORTHOGONAL) { Init::Orthogonal } else { Init::Normal(1.0) },
    }]
}

/// `w_r·x'` `[B, H, rows, m]` and `|x'|²/2` `[B, H, rows, 1]`.
fn project(g: &mut Graph, rows: Node, projection: Node, s: &Setup) -> (Node, Node) {
    let scaled = g.scale(rows, (s.dim as f64).powf(-0.25));
    let square = g.square(scaled);
    let norm = g.sum(square, &[3], true);
    (g.matmul_nt(scaled, projection, 1.0), g.scale(norm, 0.5))
}

/// φ of queries and of keys; padded keys are zero.
fn features(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let real = x.real_keys(g, s);
    let projection = x.extras["projection"];
    let share = (s.int(&FEATURES) as f64).powf(-0.5);
    let (q, q_norm) = project(g, x.q, projection, s);
    let (k, k_norm) = project(g, x.k, projection, s);
    let [q, mut k] = if s.choice(&FEATURE_MAP) == "relu" {
        [q, k].map(|projected| {
            let positive = g.relu(projected);
            let positive = g.add_scalar(positive, RELU_EPSILON);
            g.scale(positive, share)
        })
    } else {
        let q_top = g.max(q, &[3], true);
        let k_top = (!s.causal).then(|| {
            let top = g.max(k, &[3], true);
            let visible = match real {
                Some(real) => {
                    let lowest = g.constant(&[], Data::Real(vec![-1e30]));
                    g.select(real, top, lowest)
                }
                None => top,
            };
            g.max(visible, &[2], true)
        });
        [(q, q_norm, Some(q_top)), (k, k_norm, k_top)].map(|(projected, norm, top)| {
            let mut exponent = g.sub(projected, norm);
            if let Some(top) = top {
                let top = g.detach(top);
                exponent = g.sub(exponent, top);
            }
            let positive = g.exp(exponent);
            let positive = g.add_scalar(positive, EPSILON);
            g.scale(positive, share)
        })
    };
    if let Some(real) = real {
        // Chosen, not multiplied: far below the stabiliser of another token's head exp may have overflowed.
        let zero = g.constant(&[], Data::Real(vec![0.0]));
        k = g.select(real, k, zero);
    }
    (q, k)
}

/// Weighted sums of values and of ones; the sums of a row without keys are 1, so that it divides to zeros.
fn mix(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> [Node; 4] {
    let (q, k) = g.stage("feature map", |g| features(g, x, s));
    let (mixed, mut sums) = linear::mix(g, q, k, x.v, s.causal);
    if x.key_padding.is_some() {
        sums = g.stage("normalise", |g| {
            let one = g.constant(&[], Data::Real(vec![1.0]));
            g.select(sums, sums, one)
        });
    }
    [q, k, mixed, sums]
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`, projection `[m, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let [_, _, mixed, sums] = mix(g, x, s);
    let out = g.stage("normalise", |g| g.div(mixed, sums));
    x.without_padded_queries(g, out, s)
}

/// `φ(q)·φ(k)` over the row's sum.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let [left, right, _, sums] = mix(g, x, s);
    let row = g.reshape(sums, &[s.batch, s.heads, s.length]);
    Effective { left, right, row: Some(row), bias: None, kind: EffectiveKind::Ratio, rule: Rule::All { causal: s.causal } }
}

/// How many features there are, and how many would weigh as much if all that are used weighed the same: `1 / Σ p²` with p a
/// feature's part of what the keys sum up to.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let (_, k) = features(g, x, s);
    let mass = g.sum(k, &[2], true);
    let total = g.sum(mass, &[3], true);
    let part = g.div(mass, total);
    let square = g.square(part);
    let together = g.sum(square, &[3], true);
    let shape = [s.batch, s.heads, 1, 1];
    let one = g.constant(&[], Data::Real(vec![1.0]));
    let used = g.div(one, together);
    let all = g.constant(&shape, Data::Real(vec![s.int(&FEATURES) as f32; s.instances()]));
    let both = g.concat(&[all, used], 2);
    vec![Decision::new(g, "features", Form::Lengths, both)]
}

/// Eq. 5 with the features of section 2.4: a weighted mean of values with the weights φ(q_i)·φ(k_j).
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let count = s.int(&FEATURES);
    let relu = s.choice(&FEATURE_MAP) == "relu";
    let w = &x.extras["projection"];
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: s.dim };
    let shrink = R::from_f64((s.dim as f64).powf(-0.25));
    let share = R::from_f64((count as f64).powf(-0.5));
    // The features before their stabiliser: exponents, or products for relu; and the largest product.
    let raw = |row: Vec<R>| -> (Vec<R>, f64) {
        let row: Vec<R> = row.into_iter().map(|x| x * shrink).collect();
        let half = row.iter().fold(R::zero(), |sum, &x| sum + x * x) * R::from_f64(0.5);
        let products: Vec<R> = (0..count)
            .map(|r| (0..s.dim).fold(R::zero(), |dot, d| dot + w[r * s.dim + d] * row[d]))
            .collect();
        let top = products.iter().map(|p| p.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        let exponents = products.into_iter().map(|p| if relu { p } else { p - half }).collect();
        (exponents, top)
    };
    let finish = |raw: &[R], top: f64| -> Vec<R> {
        let phi = |&x: &R| {
            if relu {
                (x.maximum(R::zero()) + R::from_f64(RELU_EPSILON)) * share
            } else {
                ((x - R::from_f64(top)).exp() + R::from_f64(EPSILON)) * share
            }
        };
        raw.iter().map(phi).collect()
    };
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            let row = |tensor: &[R], at: &At, i: usize| (0..s.dim).map(|d| tensor[at.index(b, h, i, d)]).collect();
            let raw_keys: Vec<_> = (0..s.keys).map(|j| raw(row(&x.k, &keys, j))).collect();
            let tops = (0..s.keys).filter(|&j| is_real_key(x, s, b, j)).map(|j| raw_keys[j].1);
            let top = if s.causal { 0.0 } else { tops.fold(f64::NEG_INFINITY, f64::max) };
            let phi_k: Vec<Vec<R>> = raw_keys.iter().map(|(raw, _)| finish(raw, top)).collect();
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let (raw_query, top) = raw(row(&x.q, &queries, i));
                let phi_q = finish(&raw_query, top);
                let mut sum = R::zero();
                let mut mixed = vec![R::zero(); s.dim];
                for j in (0..s.keys).filter(|&j| is_real_key(x, s, b, j) && (!s.causal || j <= i)) {
                    let weight = (0..count).fold(R::zero(), |dot, r| dot + phi_q[r] * phi_k[j][r]);
                    sum += weight;
                    for (d, mixed) in mixed.iter_mut().enumerate() {
                        *mixed += weight * x.v[keys.index(b, h, j, d)];
                    }
                }
                if sum.to_f64() != 0.0 {
                    for (d, mixed) in mixed.into_iter().enumerate() {
                        out[queries.index(b, h, i, d)] = mixed / sum;
                    }
                }
            }
        }
    }
    out
}
