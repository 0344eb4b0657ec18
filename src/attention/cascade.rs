//! Cascade attention: a window that grows with the layer, `A(i) = { i - w + 1, ..., i }` with `w = w0 · m^layer`.
//!
//! And the two other light patterns of the same paper: *dilated*, `{ i - k b^layer : 0 <= k < kernel }`, and *dilated with
//! memory*, the union of the dilated sets of this layer and all below.
//!
//! Wang et al., 2020, "Transformer on a Diet", arXiv:2002.06170, section 2. Time O(N w D), memory O(N); the dilated forms
//! O(N · kernel · D) and O(N · kernel · layer · D), whose keys are too far apart for blocks and are listed for each query.
//! Differs from the paper: a bidirectional form sees as far ahead as back. A window is one attention here; the growth over a
//! stack of layers shows when `layer` is changed.

use super::restricted::Pattern;
use super::links::{self, LINKS};
use super::{Causal, Family, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant};
use crate::graph::Real;
use crate::pattern::Rule;
use crate::reference::softmax_attention;

const FORM: Param = Param {
    name: "form",
    kind: ParamKind::Choice { options: &["cascade", "dilated", "dilated_memory"], default: "cascade" },
    meaning: "Which light pattern: cascade widens a window from layer to layer, dilated spreads a few keys apart instead, \
              dilated_memory keeps the keys of the layers below too.",
};

const LAYER: Param = Param {
    name: "layer",
    kind: ParamKind::Int { min: 0, max: 15, default: |_| 2 },
    meaning: "Which layer of the stack this is, counted from 0: windows grow and keys spread with it.",
};

const WINDOW: Param = Param {
    name: "window",
    kind: ParamKind::Int { min: 1, max: 4096, default: |_| 4 },
    meaning: "How many keys the first layer's window has, the token itself included.",
};

const GROWTH: Param = Param {
    name: "growth",
    kind: ParamKind::Int { min: 1, max: 8, default: |_| 2 },
    meaning: "How many times wider the window gets, or the keys of a dilated form spread, with each layer.",
};

const KERNEL: Param = Param {
    name: "kernel",
    kind: ParamKind::Int { min: 1, max: 64, default: |_| 3 },
    meaning: "How many keys a dilated form has in each layer, the token itself included.",
};

pub static VARIANT: Variant = Variant {
    id: "cascade",
    name: "Cascade",
    family: Family::FixedPattern,
    paper: Paper { title: "Transformer on a Diet", authors: "Wang et al.", year: 2020, arxiv: "2002.06170" },
    summary: "The first layer looks only at the nearest few tokens, and each further layer at twice as many: low layers gather \
              what is near, high layers what is far. Nearly all of the cost is that of the widest layer, so a stack is about \
              as cheap as its last window. Two relatives spread a handful of keys farther apart in each layer instead. Use \
              it for language models on small devices; leave it where even the first layers must see far.",
    complexity: "O(N w D) time, O(N) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Both,
    params: &[FORM, LAYER, WINDOW, GROWTH, KERNEL, LINKS],
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

/// Farther than any sequence is far enough.
const FARTHEST: usize = 1 << 24;

fn rule(s: &Setup) -> Rule {
    let [layer, window, growth, kernel] = [&LAYER, &WINDOW, &GROWTH, &KERNEL].map(|p| s.int(p));
    let spread = growth.saturating_pow(layer as u32).min(FARTHEST);
    let causal = s.causal;
    match s.choice(&FORM).as_str() {
        "dilated" => Rule::Window { radius: kernel as u32 - 1, dilation: spread as u32, global: 0, causal },
        "dilated_memory" => {
            let (kernel, base, levels) = (kernel as u32, growth as u32, layer as u32 + 1);
            Rule::Log { local: 1, kernel, base, levels, period: 0, causal }
        }
        _ => {
            let radius = window.saturating_mul(spread).min(FARTHEST) as u32 - 1;
            Rule::Window { radius, dilation: 1, global: 0, causal }
        }
    }
}

fn pattern(s: &Setup) -> Pattern {
    if let Some(drawn) = links::pattern(s, &rule(s)) {
        return drawn;
    }
    match s.choice(&FORM).as_str() {
        "cascade" => Pattern::tiled(s, rule(s)),
        _ => Pattern::gathered(s, rule(s)),
    }
}

/// The sets of the paper; bidirectionally the same distances ahead.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    if let Some(out) = links::naive(x, s, &rule(s)) {
        return out;
    }
    let [layer, window, growth, kernel] = [&LAYER, &WINDOW, &GROWTH, &KERNEL].map(|p| s.int(p) as i64);
    let form = s.choice(&FORM);
    softmax_attention(x, s, |i, j| {
        let behind = i as i64 + s.keys as i64 - s.length as i64 - j as i64;
        let distance = behind.abs();
        let dilated = |layer: i64| (0..kernel).any(|k| distance == k * growth.pow(layer as u32));
        let listed = match form.as_str() {
            "dilated" => dilated(layer),
            "dilated_memory" => (0..=layer).any(dilated),
            _ => distance < window * growth.pow(layer as u32),
        };
        listed && (behind >= 0 || !s.causal)
    })
}
