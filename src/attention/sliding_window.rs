//! Sliding-window attention: full attention inside a band around the diagonal, `o_i = softmax over A(i) of q_i·k_j / √D`.
//!
//! With window w, radius r = ⌊w/2⌋ and dilation δ: `A(i) = { i + kδ : -r <= k <= r }`, clipped at the ends, so w + 1 keys for
//! an even w; causal: the w keys `{ i - kδ : 0 <= k < w }`. The first g tokens are global: they see every token and every
//! token sees them (never ahead when causal).
//!
//! Beltagy et al., 2020, "Longformer", arXiv:2004.05150, section 3.1. Time O(N w D), memory O(N).
//! Differs from the paper: global tokens share the projections of the others (the variant `longformer` has its own), and
//! they may be used causally.

use super::restricted::Pattern;
use super::links::{self, LINKS};
use super::{Causal, Family, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant};
use crate::graph::Real;
use crate::pattern::Rule;
use crate::reference::softmax_attention;

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
    kind: ParamKind::Int { min: 0, max: 4096, default: |_| 0 },
    meaning: "How many tokens at the start see everything and are seen by every token.",
};

pub static VARIANT: Variant = Variant {
    id: "sliding_window",
    name: "Sliding window",
    family: Family::FixedPattern,
    paper: Paper {
        title: "Longformer: The Long-Document Transformer",
        authors: "Beltagy et al.",
        year: 2020,
        arxiv: "2004.05150",
    },
    summary: "Each token looks only at its neighbours, within a window of fixed width, so the cost grows with the length of \
              the text and not with its square. What lies farther away is reached through several layers, each of which \
              passes information on by one window; a dilation lets the window reach farther with gaps, and a few global \
              tokens give everything a short path to everything. Use it for long texts where nearby words matter most; \
              leave it where one layer must find something far away.",
    complexity: "O(N w D) time, O(N) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Both,
    params: &[WINDOW, DILATION, GLOBAL_TOKENS, LINKS],
    extras: |s| links::extras(s, &rule(s)),
    check: |_| Ok(()),
    largest: |_| 0,
    graph: |g, x, s| pattern(s).graph(g, x, s),
    effective: |g, x, s| pattern(s).effective(g, x, s),
    rule: |s| Some(pattern(s).rule),
    blocks: |s| Some(pattern(s).list.as_ref().clone()),
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

fn rule(s: &Setup) -> Rule {
    let window = s.int(&WINDOW) as u32;
    Rule::Window {
        radius: if s.causal { window - 1 } else { window / 2 },
        dilation: s.int(&DILATION) as u32,
        global: s.int(&GLOBAL_TOKENS) as u32,
        causal: s.causal,
    }
}

fn pattern(s: &Setup) -> Pattern {
    links::pattern(s, &rule(s)).unwrap_or_else(|| Pattern::tiled(s, rule(s)))
}

/// The sets of the paper; with more keys than queries, query i stands at key position `i + M - N`.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    if let Some(out) = links::naive(x, s, &rule(s)) {
        return out;
    }
    let [window, dilation, globals] = [&WINDOW, &DILATION, &GLOBAL_TOKENS].map(|p| s.int(p) as i64);
    softmax_attention(x, s, |i, j| {
        let position = i as i64 + s.keys as i64 - s.length as i64;
        let key = j as i64;
        let in_window = if s.causal {
            (0..window).any(|k| key == position - k * dilation)
        } else {
            (-(window / 2)..=window / 2).any(|k| key == position + k * dilation)
        };
        let is_global = key < globals || (0..globals).contains(&position);
        (in_window || is_global) && (!s.causal || key <= position)
    })
}
