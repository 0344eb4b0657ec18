//! SparseBERT's differentiable attention mask: which pairs attend is learned, then kept for good.
//!
//! *Search*: a logit A for each pair or, structured, for each distance |i - j| of a head. With Gumbel noise, whose difference is
//! logistic, `M = σ((A + g_1 - g_2) / t)`; forward `1[M > 1/2]`, backward as if it were M. Attention is
//! `softmax(q·k / √D - c (1 - M)) v`, c = 10⁴, or in the log form `softmax(q·k / √D + ln(M + ε)) v`, whose gradient is of a
//! common size. *Deployed*: the pairs with the largest logits, as many as a sparsity leaves, as lists of keys; no noise.
//!
//! Shi et al., 2021, "SparseBERT: Rethinking the Importance Analysis in Self-attention", arXiv:2102.12871, section 4. Search takes
//! O(N² D) time; structured O(N) memory, since a factor for each distance stands for the mask, unstructured H N² logits.
//! Deployed O((1 - sparsity) N² D). The penalty |M|₁, which makes a mask sparse, is a loss of its own.
//! Differs from the paper: a row that the mask leaves empty gives zeros; masks are those of one layer. Until kept pairs are given,
//! the deployed mask is of logits that fall with the distance, with noise from the seed: a stand-in for searched ones. A choice
//! draws it by lot.

mod naive;

use crate::sort::Arrange;
use super::adaptive_span::spanned;
use super::restricted::{BLOCK, Pattern};
use super::setup::product;
use super::{Causal, Effective, Extra, Family, Init, Inputs, NONE, OwnLoss, Paper, Param, ParamKind, Reference, Setup, Variant, strips};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{BinaryKind, Data, Graph, Node};
use crate::pattern::{BlockList, Rule};
use crate::random;
use std::rc::Rc;
use std::sync::Arc;

const PHASE: Param = Param {
    name: "phase",
    kind: ParamKind::Choice { options: &["search", "deployed"], default: "search" },
    meaning: "Whether the mask is being searched, with noise and gradients, or is fixed and what it leaves out is not computed.",
};

const STRUCTURE: Param = Param {
    name: "structure",
    kind: ParamKind::Choice { options: &["distance", "pair"], default: "distance" },
    meaning: "What has a logit of its own: each distance between tokens, or each pair of places, which costs a matrix of logits.",
};

const FORM: Param = Param {
    name: "form",
    kind: ParamKind::Choice { options: &["additive", "log"], default: "additive" },
    meaning: "How the mask enters while searching: additive takes 10⁴ from masked scores as published, log multiplies weights, \
              with gradients of a common size.",
};

const TEMPERATURE: Param = Param {
    name: "temperature",
    kind: ParamKind::Int { min: 1, max: 1000, default: |_| 100 },
    meaning: "Temperature of the soft mask that gradients see, in hundredths: low ones are nearly hard.",
};

const SPARSITY: Param = Param {
    name: "sparsity",
    kind: ParamKind::Int { min: 0, max: 99, default: |_| 90 },
    meaning: "How much the deployed mask leaves out, in per cent.",
};

const DIAGONAL: Param = Param {
    name: "diagonal",
    kind: ParamKind::Bool { default: true },
    meaning: "Whether a token may see itself; the paper finds that it can be spared.",
};

const MASK: Param = Param {
    name: "mask",
    kind: ParamKind::Choice { options: &["own", "random"], default: "own" },
    meaning: "Which pairs a deployed mask keeps: those with the largest logits, or as many by lot, to see whether it matters which.",
};

pub static VARIANT: Variant = Variant {
    id: "sparsebert",
    name: "SparseBERT",
    family: Family::LearnedPattern,
    paper: Paper {
        title: "SparseBERT: Rethinking the Importance Analysis in Self-attention",
        authors: "Shi et al.",
        year: 2021,
        arxiv: "2102.12871",
    },
    summary: "Which tokens may see which others is learned along with the weights: each pair, or each distance, has a logit, and \
              a coin is tossed with it at every step. In the end the best few are kept. Searching costs more than full \
              attention. The mask found costs as much less as it is sparse, but still grows with the square of the length, and \
              scattered pairs are fetched one by one, so it saves little time until nearly all are gone. Use it to find out \
              what a model needs; not to make it fast.",
    complexity: "O(N^2 D) time, O(N^2) logits or O(N) by distance",
    exponent: 2.0,
    exact: false,
    causal: Causal::Both,
    params: &[PHASE, STRUCTURE, FORM, TEMPERATURE, SPARSITY, DIAGONAL, MASK],
    extras,
    check: |_| Ok(()),
    largest,
    graph,
    effective,
    rule: |s| is_deployed(s).then(|| deployed(s).rule),
    blocks: |s| Some(if is_deployed(s) { deployed(s).list.as_ref().clone() } else { all_blocks(s) }),
    loss: Some(&KEPT_PAIRS),
    decide: None,
    reference: Reference::new(naive::sparsebert, naive::sparsebert),
};

static KEPT_PAIRS: OwnLoss = OwnLoss {
    meaning: "The sum |M|₁ of the mask that was tossed, a number for each logit: it makes the mask sparse.",
    weight: 5e-5,
    graph: kept_pairs,
    reference: Reference::new(naive::kept_pairs, naive::kept_pairs),
};

/// What a masked score loses, and what is added to the mask in the log form.
const PENALTY: f64 = 1e4;
const EPSILON: f64 = 1e-3;
/// Below every score; see the kernels of fused attention.
const LOWEST: f32 = -2e30;

/// What the deployed mask keeps.
const KEPT: &str = "kept";

fn is_deployed(s: &Setup) -> bool {
    s.choice(&PHASE) == "deployed"
}

fn by_pair(s: &Setup) -> bool {
    s.choice(&STRUCTURE) == "pair"
}

/// Distances that there are, from 0 on.
fn distances(s: &Setup) -> usize {
    s.length.max(s.keys)
}

/// Sizes of the logits.
fn logits_shape(s: &Setup) -> Vec<usize> {
    if by_pair(s) { vec![s.heads, s.length, s.keys] } else { vec![s.heads, distances(s)] }
}

/// Distances of a head, or keys of a query, that the deployed mask keeps.
fn kept_count(s: &Setup) -> usize {
    let of = if by_pair(s) { s.keys } else { distances(s) };
    (of * (100 - s.int(&SPARSITY))).div_ceil(100)
}

fn extras(s: &Setup) -> Vec<Extra> {
    if is_deployed(s) {
        let rows: &[usize] = if by_pair(s) { &[s.heads, s.length] } else { &[s.heads] };
        return vec![Extra {
            name: KEPT,
            shape: [rows, &[kept_count(s)]].concat(),
            role: "the keys of each query, or the distances of each head, that the mask keeps",
            differentiable: false,
            optional: false,
            init: Init::Structure { below: distances(s) as u32 },
        }];
    }
    let tensor = |name, role, differentiable, init| Extra {
        name,
        shape: logits_shape(s),
        role,
        differentiable,
        optional: false,
        init,
    };
    vec![
        tensor("logits", "learned logits A of the mask", true, Init::Normal(1e-3)),
        tensor("noise", "difference of two Gumbel numbers, of each logit", false, Init::Logistic),
    ]
}

fn largest(s: &Setup) -> u128 {
    match (is_deployed(s), by_pair(s)) {
        (false, true) => product(&[s.heads, s.length, s.keys]),
        (false, false) => 0,
        (true, true) => product(&[s.heads, s.length, kept_count(s)]),
        // Both ways where nothing is ahead.
        (true, false) => product(&[2, s.heads, s.length, kept_count(s)]),
    }
}

/// What is kept of each row: given, or the largest logits of the seed's.
fn kept(s: &Setup) -> Vec<Vec<u32>> {
    let count = kept_count(s);
    let rows = if by_pair(s) { s.heads * s.length } else { s.heads };
    if let Some(given) = s.structure.given.get(KEPT).filter(|given| given.len() == rows * count) {
        return given.chunks(count).map(<[u32]>::to_vec).collect();
    }
    let (stream, by_lot) = (random::stream(KEPT), s.choice(&MASK) == "random");
    let rows_of_head = rows / s.heads;
    (0..rows)
        .map(|row| {
            let number = (s.structure.first_head * rows_of_head + row) as u64;
            let choices = if by_pair(s) { s.keys } else { distances(s) };
            let own = row % rows_of_head + s.keys.max(s.length) - s.length;
            let distance = |at: usize| if by_pair(s) { own.abs_diff(at) } else { at };
            let logit = |at: usize| {
                let noise = random::normal(s.seed, stream ^ number, at as u64);
                let far = (1.0 + distance(at) as f64).ln();
                if by_lot { noise } else { noise - far }
            };
            let is_there = |at: &usize| s.bool(&DIAGONAL) || distance(*at) > 0;
            let mut all: Vec<(f64, u32)> = (0..choices).filter(is_there).map(|at| (logit(at), at as u32)).collect();
            all.arrange_by(|a, b| b.0.total_cmp(&a.0));
            all.truncate(count);
            all.into_iter().map(|(_, at)| at).collect()
        })
        .collect()
}

/// The keys of each query of each head, ascending.
fn keys(s: &Setup) -> Vec<Vec<u32>> {
    let kept = kept(s);
    let shift = s.keys as i64 - s.length as i64;
    let queries = (0..s.heads).flat_map(|h| (0..s.length).map(move |i| (h, i)));
    queries
        .map(|(h, i)| {
            let position = i as i64 + shift;
            let mut keys: Vec<i64> = if by_pair(s) {
                kept[h * s.length + i].iter().filter(|&&j| j != NONE).map(|&j| i64::from(j)).collect()
            } else {
                let distances = kept[h].iter().filter(|&&d| d != NONE).map(|&d| i64::from(d));
                distances.flat_map(|d| [position - d, position + d]).collect()
            };
            let end = if s.causal { (position + 1).min(s.keys as i64) } else { s.keys as i64 };
            keys.retain(|j| (0..end).contains(j) && (s.bool(&DIAGONAL) || *j != position));
            keys.sort_unstable();
            keys.dedup();
            keys.into_iter().map(|j| j as u32).collect()
        })
        .collect()
}

fn deployed(s: &Setup) -> Pattern {
    let list = Arc::new(BlockList::of_keys(&keys(s), s.length, s.keys));
    Pattern::gathered(s, Rule::Listed { list, causal: false })
}

/// The mask of a deployed phase, for a gallery.
pub(super) fn sketch(s: &Setup) -> Rule {
    deployed(s).rule
}

fn all_blocks(s: &Setup) -> BlockList {
    BlockList::new(&Rule::All { causal: s.causal }, s.length, s.keys, BLOCK, BLOCK)
}

/// The mask that was tossed, 0 or 1, with the gradient of the soft one; 0 where a token would see itself and may not.
fn toss(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let lots = g.add(x.extras["logits"], x.extras["noise"]);
    let lots = g.scale(lots, 100.0 / s.int(&TEMPERATURE) as f64);
    let soft = g.sigmoid(lots);
    let zero = g.constant(&[], Data::Real(vec![0.0]));
    let hard = g.binary(BinaryKind::Greater, lots, zero);
    let held = g.detach(soft);
    let through = g.sub(soft, held);
    g.add(hard, through)
}

/// |M|₁ while it is searched; nothing once it is fixed.
fn kept_pairs(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    if is_deployed(s) {
        return g.constant(&[1], Data::Real(vec![0.0]));
    }
    let mask = toss(g, x, s);
    let axes: Vec<usize> = (0..g.shape(mask).len()).collect();
    let sum = g.sum(mask, &axes, false);
    g.reshape(sum, &[1])
}

/// 1 but for a token and itself, in the shape of the logits without heads.
fn others(g: &mut Graph, s: &Setup) -> Option<Node> {
    if s.bool(&DIAGONAL) {
        return None;
    }
    let count = |n: usize, from: f32| Data::Real((0..n).map(|i| i as f32 + from).collect());
    if by_pair(s) {
        let own = g.constant(&[1, s.length, 1], count(s.length, s.keys as f32 - s.length as f32));
        let keys = g.constant(&[1, 1, s.keys], count(s.keys, 0.0));
        let itself = g.binary(BinaryKind::Equal, own, keys);
        let other = g.neg(itself);
        return Some(g.add_scalar(other, 1.0));
    }
    Some(g.constant(&[1, distances(s)], Data::Real((0..distances(s)).map(|d| f32::from(d > 0)).collect())))
}

/// Factors of the weights by distance `[H, P]`, or what is added to the scores `[1, H, N, M]`.
fn mask(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let mask = toss(g, x, s);
    let others = others(g, s);
    let is_log = s.choice(&FORM) == "log";
    if !by_pair(s) {
        let factors = if is_log {
            g.add_scalar(mask, EPSILON)
        } else {
            let left_out = g.add_scalar(mask, -1.0);
            let less = g.scale(left_out, PENALTY);
            g.exp(less)
        };
        return others.map_or(factors, |others| g.mul(factors, others));
    }
    let lowest = g.constant(&[], Data::Real(vec![LOWEST]));
    let added = if is_log {
        let mask = g.add_scalar(mask, EPSILON);
        g.ln(mask)
    } else {
        // Of value 0 where it is kept; what is left out must weigh nothing, also where all of a row is.
        let left_out = g.add_scalar(mask, -1.0);
        let less = g.scale(left_out, PENALTY);
        let kept = g.detach(mask);
        g.select(kept, less, lowest)
    };
    let added = others.map_or(added, |others| g.select(others, added, lowest));
    g.reshape(added, &[1, s.heads, s.length, s.keys])
}

fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup, mask: Node) -> (Node, Node) {
    let (bias, distances) = if by_pair(s) {
        (Some(mask), None)
    } else {
        // As far as there is anything.
        let reach = g.constant(&[s.heads, 1], Data::Real(vec![distances(s) as f32; s.heads]));
        (None, Some(g.concat(&[reach, mask], 1)))
    };
    let rule = Rule::All { causal: s.causal };
    let options = BlockAttentionOptions {
        padding: x.key_padding,
        bias,
        distances,
        ..BlockAttentionOptions::new(Rc::new(all_blocks(s)), rule)
    };
    g.block_attention(x.q, x.k, x.v, &options)
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    if is_deployed(s) {
        return deployed(s).graph(g, x, s);
    }
    let mask = g.stage("mask", |g| mask(g, x, s));
    let (out, _) = g.stage("attend", |g| attend(g, x, s, mask));
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    if is_deployed(s) {
        return deployed(s).effective(g, x, s);
    }
    let mask = mask(g, x, s);
    let (_, lse) = attend(g, x, s, mask);
    if !by_pair(s) {
        return spanned(g, x, s, lse, mask);
    }
    let scores = g.matmul_nt(x.q, x.k, 1.0);
    let scores = g.scale(scores, strips::scale(s));
    let scores = g.add(scores, mask);
    let lse = g.reshape(lse, &[s.batch, s.heads, s.length, 1]);
    let below = g.sub(scores, lse);
    // Beyond that only what has no weight can be.
    let most = g.constant(&[], Data::Real(vec![80.0]));
    let below = g.minimum(below, most);
    let cells = g.exp(below);
    strips::cells(x, s, cells)
}
