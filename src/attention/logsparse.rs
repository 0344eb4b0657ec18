//! LogSparse attention: keys at distances that double, `A(i) = { i } ∪ { i - 2^e >= 0 : e = 0, 1, ... }`.
//!
//! With local attention the w nearest keys are dense and the steps begin behind them: `{ i-w+1, ..., i } ∪ { i-w+1-2^e }`. With
//! restart attention, period L, positions `i, i - L, i - 2L, ...` are origins of the same pattern, whose steps end before the
//! next origin.
//!
//! Li et al., 2019, "Enhancing the Locality and Breaking the Memory Bottleneck of Transformer on Time Series Forecasting",
//! arXiv:1907.00235, section 4.2. Time O(N log N · D), memory O(N log N): blocks of any size would be nearly empty, so each
//! query has a list of its keys and only those are scored. With a fixed restart period both grow with N²/L.
//! Differs from the paper: a bidirectional form mirrors the keys; the convolution in front of q and k belongs to the layer, not
//! to the pattern, and is left out.

use super::restricted::Pattern;
use super::links::{self, LINKS};
use super::{Causal, Family, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant};
use crate::graph::Real;
use crate::pattern::Rule;
use crate::reference::softmax_attention;

const LOCAL: Param = Param {
    name: "local",
    kind: ParamKind::Int { min: 1, max: 65_536, default: |n| n.max(2).next_power_of_two().ilog2() },
    meaning: "How many nearest keys a token sees without gaps, itself included; the doubling steps begin behind them.",
};

const RESTART: Param = Param {
    name: "restart",
    kind: ParamKind::Int { min: 0, max: 65_536, default: |_| 0 },
    meaning: "After so many tokens the whole pattern begins again from there; 0 never restarts, so that steps double to the end.",
};

pub static VARIANT: Variant = Variant {
    id: "logsparse",
    name: "LogSparse",
    family: Family::FixedPattern,
    paper: Paper {
        title: "Enhancing the Locality and Breaking the Memory Bottleneck of Transformer on Time Series Forecasting",
        authors: "Li et al.",
        year: 2019,
        arxiv: "1907.00235",
    },
    summary: "Each token looks at its nearest neighbours and then at single tokens twice as far away each time, about log N of \
              them in all. What one layer skips, log N layers together reach. It was made for long time series, where \
              the recent past matters in detail and the far past in outline. So few keys are scored that time goes into \
              fetching them one by one: it saves most where the text is long. Leave it where a single layer must find one \
              certain token far away.",
    complexity: "O(N log N D) time, O(N log N) memory",
    // N log N over the lengths at hand.
    exponent: 1.1,
    exact: false,
    causal: Causal::Both,
    params: &[LOCAL, RESTART, LINKS],
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
    let [local, period] = [&LOCAL, &RESTART].map(|p| s.int(p) as u32);
    Rule::Log { local, kernel: 2, base: 2, levels: 32, period, causal: s.causal }
}

fn pattern(s: &Setup) -> Pattern {
    if let Some(drawn) = links::pattern(s, &rule(s)) {
        return drawn;
    }
    Pattern::gathered(s, rule(s))
}

/// The sets of the paper, origin by origin, backwards and, bidirectionally, mirrored.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    if let Some(out) = links::naive(x, s, &rule(s)) {
        return out;
    }
    let [local, restart] = [&LOCAL, &RESTART].map(|p| s.int(p) as i64);
    softmax_attention(x, s, |i, j| {
        let position = i as i64 + s.keys as i64 - s.length as i64;
        let distance = position - j as i64;
        if distance < 0 && s.causal {
            return false;
        }
        let mut rest = distance.abs();
        while restart > 0 && rest >= restart {
            rest -= restart;
        }
        rest < local || (0..40).any(|e| rest == local - 1 + (1i64 << e))
    })
}
