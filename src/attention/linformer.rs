//! Linformer: keys and values are projected along the sequence to k rows before full attention over those.
//!
//! `K' = E K`, `V' = F V` with E, F `[k, M]`; `O = softmax(Q K'ᵀ / √D) V'`. The effective matrix is `softmax(Q K'ᵀ / √D) F`: of
//! rank k at most, its rows need not sum to 1, its cells may be negative.
//!
//! Wang et al., 2020, "Linformer: Self-Attention with Linear Complexity", arXiv:2006.04768, eq. 7. Time O(N k D), memory
//! O(k D). Differs from the paper: E and F are drawn uniformly on ±1/√k where they are not given, as in the published
//! package, or replaced by single tokens by lot; padded keys and values are set to zero before they are projected.

use super::draw::Stream;
use super::setup::product;
use super::{
    Causal, Effective, EffectiveKind, Extra, Family, Init, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant,
    full,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Data, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};
use std::rc::Rc;

const K: Param = Param {
    name: "k",
    kind: ParamKind::Int { min: 1, max: 2048, default: |n| (n / 8).clamp(16, 256) as u32 },
    meaning: "How many rows the keys and the values are projected to; fewer is cheaper and coarser.",
};

const SHARING: Param = Param {
    name: "sharing",
    kind: ParamKind::Choice { options: &["headwise", "key_value", "none"], default: "headwise" },
    meaning: "Who shares a projection: headwise has one E and one F for all heads, key_value one E for keys and values too, \
              none an E and an F for each head.",
};

const PROJECT: Param = Param {
    name: "project",
    kind: ParamKind::Choice { options: &["learned", "random"], default: "learned" },
    meaning: "What the rows are: learned mixtures of all tokens, or single tokens by lot, to see whether mixing matters.",
};

/// The tokens that are taken by lot.
const TOKENS: &str = "tokens";

pub static VARIANT: Variant = Variant {
    id: "linformer",
    name: "Linformer",
    family: Family::LowRank,
    paper: Paper {
        title: "Linformer: Self-Attention with Linear Complexity",
        authors: "Wang et al.",
        year: 2020,
        arxiv: "2006.04768",
    },
    summary: "The keys and values of the whole text are first mixed down to k summary rows by learned projections, and each \
              token then attends to those k rows instead of to N tokens: cost and memory grow with the length only. It \
              works because attention matrices are often close to low rank. The projections belong to positions, so the \
              length must be fixed in advance, and since each summary row mixes all positions it cannot be used to \
              generate text. Use it to classify or encode texts of a known length.",
    complexity: "O(N k D) time, O(k D) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Never("each projected key mixes all positions, so future tokens would leak into every output"),
    params: &[K, SHARING, PROJECT],
    extras,
    check: |_| Ok(()),
    largest: |s| product(&[s.int(&K), s.keys, if s.choice(&SHARING) == "none" { s.heads } else { 1 }]),
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

fn extras(s: &Setup) -> Vec<Extra> {
    let rows = s.int(&K);
    if s.choice(&PROJECT) == "random" {
        return vec![Extra {
            name: TOKENS,
            shape: vec![rows],
            role: "the tokens that stand for all",
            differentiable: false,
            optional: false,
            init: Init::Structure { below: s.keys as u32 },
        }];
    }
    let sharing = s.choice(&SHARING);
    let projection = |name, role| Extra {
        name,
        shape: if sharing == "none" { vec![s.heads, rows, s.keys] } else { vec![rows, s.keys] },
        role,
        differentiable: true,
        optional: false,
        init: Init::Uniform(1.0 / (rows as f32).sqrt()),
    };
    if sharing == "key_value" {
        vec![projection("E", "projects keys and values along the sequence")]
    } else {
        vec![projection("E", "projects keys along the sequence"), projection("F", "projects values along the sequence")]
    }
}

/// The tokens that stand for all: given, or drawn from the seed. A short text has some of them more than once.
fn tokens(s: &Setup) -> Option<Vec<u32>> {
    let rows = s.int(&K);
    (s.choice(&PROJECT) == "random").then(|| match s.structure.given.get(TOKENS) {
        Some(given) if given.len() == rows => given.to_vec(),
        _ => {
            let mut stream = Stream::new(s.seed, TOKENS, &[]);
            (0..rows).map(|_| stream.below(s.keys) as u32).collect()
        }
    })
}

/// K' and V', `[B, H, k, D]`.
fn project(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let (mut k, mut v) = (x.k, x.v);
    if let Some(real) = x.real_keys(g, s) {
        (k, v) = (g.mul(k, real), g.mul(v, real));
    }
    if let Some(tokens) = tokens(s) {
        let every_head = tokens.repeat(s.instances());
        let tokens = g.constant(&[s.batch, s.heads, tokens.len()], Data::Index(every_head));
        return (g.gather_rows(k, tokens), g.gather_rows(v, tokens));
    }
    let key_projection = x.extras["E"];
    let value_projection = x.extras.get("F").copied().unwrap_or(key_projection);
    (g.matmul(key_projection, k), g.matmul(value_projection, v))
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`, E and F `[k, M]` or `[H, k, M]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (k, v) = g.stage("project", |g| project(g, x, s));
    let projected = Setup { keys: s.int(&K), ..s.clone() };
    let rule = Rule::All { causal: false };
    let list = Rc::new(full::blocks(&projected, &rule));
    let (out, _) = g.stage("attend", |g| g.block_attention(x.q, k, v, &BlockAttentionOptions::new(list, rule)));
    x.without_padded_queries(g, out, s)
}

/// `softmax(Q K'ᵀ / √D)` against the columns of F.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (k, _) = project(g, x, s);
    let scores = g.matmul_nt(x.q, k, s.scale());
    let left = g.softmax(scores);
    let values = match tokens(s) {
        Some(tokens) => {
            let is_taken = |at: usize| if tokens[at / s.keys] as usize == at % s.keys { 1.0 } else { 0.0 };
            g.constant(&[tokens.len(), s.keys], Data::Real((0..tokens.len() * s.keys).map(is_taken).collect()))
        }
        None => *x.extras.get("F").unwrap_or_else(|| &x.extras["E"]),
    };
    let axes = g.shape(values).len();
    let columns = g.swap_axes(values, axes - 2, axes - 1);
    let right = g.broadcast_to(columns, &[s.batch, s.heads, s.keys, s.int(&K)]);
    Effective { left, right, row: None, bias: None, kind: EffectiveKind::Plain, rule: Rule::All { causal: false } }
}

/// Straight from eq. 7; with `key_value` sharing F is E.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let rows = s.int(&K);
    let drawn = tokens(s).map(|tokens| -> Vec<R> {
        let is_taken = |at: usize| if tokens[at / s.keys] as usize == at % s.keys { R::one() } else { R::zero() };
        (0..rows * s.keys).map(is_taken).collect()
    });
    let per_head = drawn.is_none() && s.choice(&SHARING) == "none";
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: s.dim };
    let scale = R::one() / R::from_f64(s.dim as f64).sqrt();
    let key_projection = drawn.as_ref().unwrap_or_else(|| &x.extras["E"]);
    let value_projection = x.extras.get("F").unwrap_or(key_projection);
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            // K' or V', [k, D].
            let project = |projection: &[R], tokens: &[R]| -> Vec<R> {
                let mut projected = vec![R::zero(); rows * s.dim];
                for c in 0..rows {
                    let head = if per_head { h } else { 0 };
                    for j in (0..s.keys).filter(|&j| is_real_key(x, s, b, j)) {
                        let weight = projection[(head * rows + c) * s.keys + j];
                        for d in 0..s.dim {
                            projected[c * s.dim + d] += weight * tokens[keys.index(b, h, j, d)];
                        }
                    }
                }
                projected
            };
            let projected_keys = project(key_projection, &x.k);
            let projected_values = project(value_projection, &x.v);
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let scores: Vec<R> = (0..rows)
                    .map(|c| {
                        let dot = (0..s.dim).fold(R::zero(), |dot, d| {
                            dot + x.q[queries.index(b, h, i, d)] * projected_keys[c * s.dim + d]
                        });
                        dot * scale
                    })
                    .collect();
                let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
                let weights: Vec<R> = scores.iter().map(|&score| (score - largest).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                for d in 0..s.dim {
                    let mixed = (0..rows).fold(R::zero(), |o, c| o + weights[c] * projected_values[c * s.dim + d]);
                    out[queries.index(b, h, i, d)] = mixed / sum;
                }
            }
        }
    }
    out
}
