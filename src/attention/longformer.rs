//! Longformer: a window for every token, and a few global tokens that see everything and are seen by everything, with
//! projections of their own.
//!
//! A local query i has one softmax over its window and the global keys, `q_i·k_j / √D`. A global query has one over all keys,
//! `q'_i·k'_j / √D`, and mixes `v'`: `q'`, `k'`, `v'` come from a second set of projections, which the paper initialises like
//! the first. They are the extra tensors `q_global`, `k_global`, `v_global`; where they are not given, q, k, v serve for both.
//!
//! Beltagy et al., 2020, "Longformer: The Long-Document Transformer", arXiv:2004.05150, section 3.1. Time O(N (w + g) D), memory
//! O(N). Local and global queries are two attentions over the same keys, so that no row is computed twice. The list of blocks
//! counts both as one, aligned to the first token.
//! Differs from the paper: its causal models have no global tokens; here they may be used, and never look ahead. The first
//! tokens are the global ones.

use super::restricted::{BLOCK, Pattern};
use super::links::{self, LINKS};
use super::{
    Causal, Effective, EffectiveKind, Extra, Family, Init, Inputs, Paper, Param, ParamKind, Reference, Refusal, Setup, Variant, split,
};
use crate::graph::{Graph, Node, Real};
use crate::pattern::{BlockList, Rule};
use crate::reference::softmax_attention;
use std::rc::Rc;

const WINDOW: Param = Param {
    name: "window",
    kind: ParamKind::Int { min: 1, max: 65_536, default: |n| (n / 8).clamp(16, 512) as u32 },
    meaning: "How many neighbours a token sees: half of them to each side, or all of them behind it when causal.",
};

const DILATION: Param = Param {
    name: "dilation",
    kind: ParamKind::Int { min: 1, max: 4096, default: |_| 1 },
    meaning: "Distance between neighbouring keys of the window: 2 skips every other token, so the window reaches twice as far.",
};

const GLOBAL_TOKENS: Param = Param {
    name: "global_tokens",
    kind: ParamKind::Int { min: 0, max: 4096, default: |_| 1 },
    meaning: "How many tokens at the start see everything and are seen by every token, as a class token or a question does.",
};

pub static VARIANT: Variant = Variant {
    id: "longformer",
    name: "Longformer",
    family: Family::FixedPattern,
    paper: Paper {
        title: "Longformer: The Long-Document Transformer",
        authors: "Beltagy et al.",
        year: 2020,
        arxiv: "2004.05150",
    },
    summary: "Most tokens look at their neighbours only; a few chosen ones, such as a class token or the words of a question, \
              look at everything and are seen by everything, through projections of their own. Any two tokens are then two \
              steps apart, and the cost still grows with the length only. Use it for long documents about which something \
              is asked; without such tokens it is a sliding window.",
    complexity: "O(N (w + g) D) time, O(N) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Both,
    params: &[WINDOW, DILATION, GLOBAL_TOKENS, LINKS],
    extras,
    check,
    largest: |_| 0,
    graph,
    effective,
    rule: |s| Some(pattern(s).rule),
    blocks: |s| Some(pattern(s).list.as_ref().clone()),
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

fn extras(s: &Setup) -> Vec<Extra> {
    let drawn = links::extras(s, &rule(s));
    if !drawn.is_empty() {
        return drawn;
    }
    let tensor = |name, rows, role| Extra {
        name,
        shape: vec![s.batch, s.heads, rows, s.dim],
        role,
        differentiable: true,
        optional: true,
        init: Init::Normal(1.0),
    };
    vec![
        tensor("q_global", s.length, "queries of global tokens; the rows of others are not read"),
        tensor("k_global", s.keys, "keys that global tokens attend to"),
        tensor("v_global", s.keys, "values that global tokens mix"),
    ]
}

fn check(s: &Setup) -> Result<(), Refusal> {
    if s.keys < s.length {
        let reason = "global tokens are the first ones of the keys, so there must be a key for each query";
        return Err(Refusal::new(reason, format!("{} keys", s.length)));
    }
    Ok(())
}

fn rule(s: &Setup) -> Rule {
    let window = s.int(&WINDOW) as u32;
    Rule::Window {
        radius: if s.causal { window - 1 } else { window / 2 },
        dilation: s.int(&DILATION) as u32,
        global: s.int(&GLOBAL_TOKENS) as u32,
        causal: s.causal,
    }
}

/// Local and global links as one, or as many by lot.
fn pattern(s: &Setup) -> Pattern {
    links::pattern(s, &rule(s)).unwrap_or_else(|| Pattern::tiled(s, rule(s)))
}

/// How many queries, the first ones, are global.
fn global_rows(s: &Setup) -> usize {
    s.int(&GLOBAL_TOKENS).saturating_sub(s.keys - s.length).min(s.length)
}

/// What global queries work with: their own projections, or the others'.
fn second(x: &Inputs<Node>) -> [Node; 3] {
    let or = |name: &str, first| x.extras.get(name).copied().unwrap_or(first);
    [or("q_global", x.q), or("k_global", x.k), or("v_global", x.v)]
}

/// Attention of local and of global queries, each where there are any: o and the log-sum-exp.
fn attend(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let globals = global_rows(s);
    let mut parts = Vec::new();
    if globals > 0 {
        // Causally they see no key behind their own position.
        let keys = if s.causal { globals + s.keys - s.length } else { s.keys };
        let rule = Rule::All { causal: s.causal };
        let list = Rc::new(BlockList::new(&rule, globals, keys, BLOCK, BLOCK));
        parts.push(g.stage("attend globally", |g| {
            let [q, k, v] = second(x);
            let q = g.slice(q, 2, 0..globals);
            let cut = |g: &mut Graph, x, axis| if keys < s.keys { g.slice(x, axis, 0..keys) } else { x };
            let (k, v) = (cut(g, k, 2), cut(g, v, 2));
            let key_padding = x.key_padding.map(|real| cut(g, real, 1));
            if !s.causal {
                return split::attend(g, q, k, v, key_padding);
            }
            Pattern { rule, list }.attend(g, &Inputs { q, k, v, key_padding, extras: Default::default() })
        }));
    }
    if globals < s.length {
        let (rule, rows) = (rule(s), s.length - globals);
        let list = Rc::new(BlockList::new(&rule, rows, s.keys, BLOCK, BLOCK));
        parts.push(g.stage("attend locally", |g| {
            let q = g.slice(x.q, 2, globals..s.length);
            let local = Inputs { q, k: x.k, v: x.v, key_padding: x.key_padding, extras: Default::default() };
            Pattern { rule, list }.attend(g, &local)
        }));
    }
    let join = |g: &mut Graph, parts: Vec<Node>| if parts.len() == 1 { parts[0] } else { g.concat(&parts, 2) };
    let (o, lse): (Vec<Node>, Vec<Node>) = parts.into_iter().unzip();
    (join(g, o), join(g, lse))
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    if let Some(drawn) = links::pattern(s, &rule(s)) {
        return drawn.graph(g, x, s);
    }
    let (out, _) = attend(g, x, s);
    x.without_padded_queries(g, out, s)
}

/// With projections of their own, global rows have other factors: rows are then as wide as both, `[0, q']` or `[q, 0]` on the
/// left and `[k', k]` on the right. Values differ too, so the matrix mixes `v'` in those rows.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    if let Some(drawn) = links::pattern(s, &rule(s)) {
        return drawn.effective(g, x, s);
    }
    let (_, lse) = attend(g, x, s);
    let globals = global_rows(s);
    let (left, right) = if x.extras.contains_key("q_global") && globals > 0 {
        let [q, k, _] = second(x);
        let global = g.slice(q, 2, 0..globals);
        let global = g.pad(global, 2, 0, s.length - globals, 0.0);
        let local = g.slice(x.q, 2, globals..s.length);
        let local = g.pad(local, 2, globals, 0, 0.0);
        (g.concat(&[global, local], 3), g.concat(&[k, x.k], 3))
    } else {
        (x.q, x.k)
    };
    let left = g.scale(left, s.scale().into());
    Effective { left, right, row: Some(lse), bias: None, kind: EffectiveKind::Softmax, rule: rule(s) }
}

/// Local rows and global rows as the paper has them, each computed for all queries and then chosen from.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    if let Some(out) = links::naive(x, s, &rule(s)) {
        return out;
    }
    let [window, dilation, globals] = [&WINDOW, &DILATION, &GLOBAL_TOKENS].map(|p| s.int(p) as i64);
    let position = |i: usize| i as i64 + s.keys as i64 - s.length as i64;
    let local = softmax_attention(x, s, |i, j| {
        let (position, key) = (position(i), j as i64);
        let in_window = if s.causal {
            (0..window).any(|k| key == position - k * dilation)
        } else {
            (-(window / 2)..=window / 2).any(|k| key == position + k * dilation)
        };
        (in_window || key < globals) && (!s.causal || key <= position)
    });
    let or = |name: &str, first: &Vec<R>| x.extras.get(name).unwrap_or(first).clone();
    let own = Inputs {
        q: or("q_global", &x.q),
        k: or("k_global", &x.k),
        v: or("v_global", &x.v),
        key_padding: x.key_padding.clone(),
        extras: Default::default(),
    };
    let global = softmax_attention(&own, s, |i, j| !s.causal || j as i64 <= position(i));
    let is_global = |index: usize| position(index / s.dim % s.length) < globals;
    (0..local.len()).map(|index| if is_global(index) { global[index] } else { local[index] }).collect()
}
