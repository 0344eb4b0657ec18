//! Linear attention: softmax replaced by a feature map, `o_i = φ(q_i) S / (φ(q_i) z + ε)`.
//!
//! `S = Σ_j φ(k_j) v_jᵀ` and `z = Σ_j φ(k_j)`, over all j or over j <= i when causal; φ = elu + 1 or relu, ε = 1e-6. There is no
//! 1/√D. The effective matrix is `φ(q_i)·φ(k_j) / (Σ_j φ(q_i)·φ(k_j) + ε)`: not negative, of rank D at most when bidirectional.
//!
//! Katharopoulos et al., 2020, "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
//! arXiv:2006.16236, eq. 4-12. Time O(N D²), state O(D²) per head, causal or not. Differs from the paper: the causal form
//! works in chunks, quadratic inside a chunk and with a running state between them; relu is offered beside elu + 1; ε is
//! that of the published code.

use super::setup::product;
use super::{
    Causal, Effective, EffectiveKind, Family, Inputs, Paper, Param, ParamKind, Reference, Refusal, Setup, Variant,
};
use crate::graph::{Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};

/// Added to the denominator.
const EPSILON: f64 = 1e-6;

const FEATURE_MAP: Param = Param {
    name: "feature_map",
    kind: ParamKind::Choice { options: &["elu+1", "relu"], default: "elu+1" },
    meaning: "What makes queries and keys positive in place of the softmax: elu+1 as in the paper, or relu, which gives \
              exact zeros.",
};

pub static VARIANT: Variant = Variant {
    id: "linear",
    name: "Linear attention",
    family: Family::Kernel,
    paper: Paper {
        title: "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
        authors: "Katharopoulos et al.",
        year: 2020,
        arxiv: "2006.16236",
    },
    summary: "The softmax of a product is replaced by a product of features, so that keys and values can be summed up once \
              in a D×D table which every query then reads: cost grows with the length only, and while generating, the \
              table is all that must be remembered, as in a recurrent network. It pays for that with precision: the \
              weights are smooth, and it cannot single out one token as a softmax can. Use it for very long sequences \
              and fast generation; not where exact recall matters.",
    complexity: "O(N D^2) time, O(D^2) state",
    exponent: 1.0,
    exact: false,
    causal: Causal::Both,
    params: &[FEATURE_MAP],
    extras: |_| vec![],
    check,
    largest: |s| largest_of_mix(s, s.dim),
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

/// Refuses more keys than queries where it is causal.
pub(super) fn check(s: &Setup) -> Result<(), Refusal> {
    if s.causal && s.keys != s.length {
        let reason = format!("causal linear attention reads one key for each query; there are {} keys", s.keys);
        return Err(Refusal::new(reason, format!("{} keys", s.length)));
    }
    Ok(())
}

/// φ of queries and of keys; padded keys are zero.
fn features(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let relu = s.choice(&FEATURE_MAP) == "relu";
    let [q, mut k] = [x.q, x.k].map(|x| if relu { g.relu(x) } else { g.elu_plus_one(x) });
    if let Some(real) = x.real_keys(g, s) {
        k = g.mul(k, real);
    }
    (q, k)
}

/// Sums with weights `q_i·k_j` for features q `[B, H, N, R]` and k `[B, H, M, R]`: `Σ_j (q_i·k_j) v_j` `[B, H, N, D]` and
/// `Σ_j q_i·k_j` `[B, H, N, 1]`, over all keys or over those with j <= i. Also the machinery of other kernel methods.
pub(super) fn mix(g: &mut Graph, q: Node, k: Node, v: Node, causal: bool) -> (Node, Node) {
    if causal {
        return g.stage("mix", |g| g.causal_linear(q, k, v));
    }
    let (state, z) = g.stage("summarise", |g| (g.matmul_tn(k, v, 1.0), g.sum(k, &[2], true)));
    g.stage("mix", |g| (g.matmul(q, state), g.matmul_nt(q, z, 1.0)))
}

/// Elements of the largest tensor that [`mix`] makes with R features: the summary of everything. Those of chunks are together
/// no larger than the features or the values.
pub(super) fn largest_of_mix(s: &Setup, features: usize) -> u128 {
    let states = if s.causal { product(&[s.batch, s.heads, s.length, features.max(s.dim)]) } else { 0 };
    product(&[s.batch, s.heads, features, s.dim]).max(states)
}

/// [`mix`] of this variant's features, the denominator with its ε.
fn mix_with_epsilon(g: &mut Graph, q: Node, k: Node, v: Node, causal: bool) -> (Node, Node) {
    let (mixed, sums) = mix(g, q, k, v, causal);
    (mixed, g.stage("mix", |g| g.add_scalar(sums, EPSILON)))
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (q, k) = g.stage("feature map", |g| features(g, x, s));
    let (mixed, sums) = mix_with_epsilon(g, q, k, x.v, s.causal);
    let out = g.stage("normalise", |g| g.div(mixed, sums));
    x.without_padded_queries(g, out, s)
}

/// `φ(q)·φ(k)` over the row's sum.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (left, right) = features(g, x, s);
    let (_, sums) = mix_with_epsilon(g, left, right, x.v, s.causal);
    let row = g.reshape(sums, &[s.batch, s.heads, s.length]);
    Effective { left, right, row: Some(row), bias: None, kind: EffectiveKind::Ratio, rule: Rule::All { causal: s.causal } }
}

/// Eq. 4 (causal: eq. 8): a weighted mean of values with the weights φ(q_i)·φ(k_j).
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let relu = s.choice(&FEATURE_MAP) == "relu";
    let phi = |x: R| match x.to_f64() > 0.0 {
        true if relu => x,
        true => x + R::one(),
        false if relu => R::zero(),
        false => x.exp(),
    };
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: s.dim };
    let phi_q: Vec<R> = x.q.iter().map(|&x| phi(x)).collect();
    let phi_k: Vec<R> = x.k.iter().map(|&x| phi(x)).collect();
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let mut sum = R::from_f64(EPSILON);
                let mut mixed = vec![R::zero(); s.dim];
                for j in (0..s.keys).filter(|&j| is_real_key(x, s, b, j) && (!s.causal || j <= i)) {
                    let weight = (0..s.dim).fold(R::zero(), |dot, d| {
                        dot + phi_q[queries.index(b, h, i, d)] * phi_k[keys.index(b, h, j, d)]
                    });
                    sum += weight;
                    for (d, mixed) in mixed.iter_mut().enumerate() {
                        *mixed += weight * x.v[keys.index(b, h, j, d)];
                    }
                }
                for (d, mixed) in mixed.into_iter().enumerate() {
                    out[queries.index(b, h, i, d)] = mixed / sum;
                }
            }
        }
    }
    out
}
