//! The reader's own rule: full attention restricted to the pairs for which an expression is true, or to those of a given mask.
//!
//! The expression ([`crate::pattern::expression`]) is tried on every pair once, when the graph is built; what it allows is kept
//! as a bit for each pair, and the blocks to visit follow from the bits. So its cost on the device is that of its blocks or of
//! its pairs, however it is written, and three forms of the same pattern can be raced: blocks, of which only those with an
//! allowed pair are visited; a list of keys for each query; and full attention under a mask, which visits everything.
//!
//! Time O(visited pairs · D) on the device and O(N²) on the host before; memory O(N) and N²/32 words of bits. There is no paper:
//! the idea of a rule and its block list is that of Dong et al., 2024, "Flex Attention", arXiv:2412.05496.

use super::restricted::Pattern;
use super::{Causal, Extra, Family, Init, Inputs, Paper, Param, ParamKind, PatternForm, Reference, Refusal, Setup, Variant};
use crate::graph::Real;
use crate::pattern::expression::{At, Expression};
use crate::pattern::{Bits, Rule};
use crate::reference::softmax_attention_by_head;
use std::cell::RefCell;
use std::sync::Arc;

const RULE: Param = Param {
    name: "rule",
    kind: ParamKind::Text {
        default: "abs(i - j) < 8 || j % 128 == 0",
        check: |text| Expression::parse(text).map(|_| ()).map_err(|error| error.to_string()),
    },
    meaning: "When query i may look at key j: comparisons of i, j, n, h and b with + - * / % abs min max, joined by && || !, and \
              rand(i, j) < 0.1 for chance.",
};

const FORM: Param = Param {
    name: "form",
    kind: ParamKind::Choice { options: PatternForm::IDS, default: PatternForm::IDS[0] },
    meaning: "How the pairs are visited: blocks that hold any of them, gather each pair alone, masked everything, with a mask.",
};

const BLOCK: Param = Param {
    name: "block",
    kind: ParamKind::Int { min: 4, max: 256, default: |_| 64 },
    meaning: "How many tokens a block has: small ones leave more out, large ones run faster.",
};

pub static VARIANT: Variant = Variant {
    id: "custom",
    name: "Your own rule",
    family: Family::FixedPattern,
    paper: Paper {
        title: "Flex Attention: A Programming Model for Generating Optimized Attention Kernels",
        authors: "Dong et al.",
        year: 2024,
        arxiv: "2412.05496",
    },
    summary: "Write when a token may look at another, and see the mask, the blocks that must be visited for it, and the time that \
              takes. A pattern that is thin on paper saves time only where whole blocks of it are empty, or where so few pairs \
              are left that fetching them one by one pays: race the three forms to see which. For patterns that you have in \
              mind and no paper has.",
    complexity: "O(visited pairs D) time, O(N^2 / 32) words",
    exponent: 2.0,
    exact: false,
    causal: Causal::Both,
    params: &[RULE, FORM, BLOCK],
    extras,
    check,
    largest: |s| (planes(s) * s.length) as u128 * s.keys.div_ceil(32) as u128,
    graph: |g, x, s| pattern(s).graph(g, x, s),
    effective: |g, x, s| pattern(s).effective(g, x, s),
    rule: |s| Some(Rule::Bits { bits: bits(s) }),
    blocks: |s| Some(pattern(s).list.as_ref().clone()),
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

const MASK: &str = "mask";

/// Most pairs that an expression is tried on: under a second.
const MOST_PAIRS: usize = 1 << 26;

fn extras(s: &Setup) -> Vec<Extra> {
    vec![Extra {
        name: MASK,
        shape: vec![s.batch, s.heads, s.length, s.keys],
        role: "1 where a query may look at a key, in place of the rule; heads and texts may share one",
        differentiable: false,
        optional: false,
        init: Init::Mask,
    }]
}

fn check(s: &Setup) -> Result<(), Refusal> {
    let pairs = planes(s).saturating_mul(s.length).saturating_mul(s.keys);
    if pairs > MOST_PAIRS {
        let reason = format!("your rule would be tried on {pairs} pairs; at most {MOST_PAIRS} are");
        let longest = (1..=s.length).rev().find(|&n| planes(s) * n * n <= MOST_PAIRS);
        return Err(Refusal::new(reason, longest.map(|n| format!("length {n}"))));
    }
    Ok(())
}

fn expression(s: &Setup) -> Expression {
    Expression::parse(&s.choice(&RULE)).expect("a parameter's text has been checked")
}

/// The given mask, and how many heads it tells apart.
fn given(s: &Setup) -> Option<(&Arc<[u32]>, usize)> {
    let mask = s.structure.given.get(MASK)?;
    let planes = mask.len() / (s.length * s.keys).max(1);
    [1, s.heads, s.batch * s.heads].contains(&planes).then_some((mask, planes))
}

/// Patterns that heads and texts need of their own.
fn planes(s: &Setup) -> usize {
    if let Some((_, planes)) = given(s) {
        return planes;
    }
    let rule = expression(s);
    match (rule.mentions_batch(), rule.mentions_head()) {
        (true, _) => s.batch * s.heads,
        (false, true) => s.heads,
        _ => 1,
    }
}

/// What the expression is asked for query `i` of a head of a batch entry.
fn at(s: &Setup, b: usize, h: usize, i: usize) -> At {
    At {
        i: (i + s.keys) as i32 - s.length as i32,
        n: s.keys as i32,
        b: b as i32,
        h: (s.structure.first_head + h) as i32,
        causal: s.causal,
        seed: s.seed,
    }
}

/// A setup's text and everything else that its bits depend on.
type Key = (Setup, String);

thread_local! {
    /// The bits that were made last: a graph, its matrix and its numbers all ask for them.
    static LAST: RefCell<Option<(Key, Arc<Bits>)>> = const { RefCell::new(None) };
}

fn bits(s: &Setup) -> Arc<Bits> {
    let text = s.choice(&RULE);
    let same = |(setup, rule): &Key| {
        (setup.batch, setup.heads, setup.length, setup.keys) == (s.batch, s.heads, s.length, s.keys)
            && (setup.causal, setup.seed, &setup.structure) == (s.causal, s.seed, &s.structure)
            && *rule == text
    };
    let last = LAST.with_borrow(|last| last.as_ref().filter(|(key, _)| same(key)).map(|(_, bits)| bits.clone()));
    last.unwrap_or_else(|| {
        let bits = Arc::new(make_bits(s));
        LAST.set(Some(((s.clone(), text), bits.clone())));
        bits
    })
}

fn make_bits(s: &Setup) -> Bits {
    let rule = expression(s);
    Bits::from_rows(planes(s), s.length, s.keys, |head, i| {
        let mut row = match given(s) {
            Some((mask, _)) => mask[(head * s.length + i) * s.keys..][..s.keys].iter().map(|&x| x != 0).collect(),
            None => rule.row(&at(s, head / s.heads, head % s.heads, i), s.keys),
        };
        if s.causal {
            let seen = (i + s.keys + 1).saturating_sub(s.length).min(s.keys);
            row[seen..].fill(false);
        }
        row
    })
}

fn pattern(s: &Setup) -> Pattern {
    let form = PatternForm::from_id(&s.choice(&FORM)).unwrap_or_default();
    Pattern::in_form(s, Rule::Bits { bits: bits(s) }, form, s.int(&BLOCK)).expect("bits are written out already")
}

/// Pair by pair; a mask that differs between texts is asked text by text.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let rule = expression(s);
    let size = s.heads * s.length * s.dim;
    let mut out = Vec::with_capacity(s.batch * size);
    for b in 0..s.batch {
        let allowed = |h: usize, i: usize, j: usize| {
            let listed = match given(s) {
                Some((mask, planes)) => mask[((b * s.heads + h) % planes * s.length + i) * s.keys + j] != 0,
                None => rule.allows(&at(s, b, h, i), j as i32),
            };
            listed && (!s.causal || j + s.length <= i + s.keys)
        };
        out.extend_from_slice(&softmax_attention_by_head(x, s, allowed)[b * size..][..size]);
    }
    out
}
