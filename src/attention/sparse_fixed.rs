//! Sparse Transformer, fixed: attention within a block of ℓ tokens, and to the last c tokens of every block, which sum it up.
//!
//! Local: `{ j : ⌊j/ℓ⌋ = ⌊i/ℓ⌋ }`. Summary: `{ j : j mod ℓ >= ℓ - c }`; with sub-blocks, head h takes the (h mod ⌊ℓ/c⌋)-th c
//! tokens from the end of each block instead. Causal: only `j <= i`. Merged, a head attends to the union; by head, heads take
//! the two sets in turn; local and summary alone are the layers of an alternating stack.
//!
//! Child et al., 2019, "Generating Long Sequences with Sparse Transformers", arXiv:1904.10509, section 4.3. Time O(N √N c D) at
//! ℓ = √N and memory O(N) beside a block list of N²/(64 ℓ) runs. Query blocks of 64 rows meet key blocks as narrow as the
//! summaries, so that nothing but them is visited outside a token's own block.
//! Differs from the paper: a bidirectional form; the last block may be short. The paper's set ends at `ℓ - c, ..., ℓ`, where ℓ
//! can't occur as a remainder.

use super::restricted::{BLOCK, Pattern, near_root};
use super::links::{self, LINKS};
use super::{Causal, Family, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant};
use crate::graph::Real;
use crate::pattern::{Part, Rule};
use crate::reference::softmax_attention_by_head;

const BLOCK_LENGTH: Param = Param {
    name: "block",
    kind: ParamKind::Int { min: 0, max: 4096, default: |_| 0 },
    meaning: "How many tokens a block has; 0 takes the power of two nearest to the square root of the length, where the cost is \
              lowest.",
};

const COLUMNS: Param = Param {
    name: "columns",
    kind: ParamKind::Int { min: 1, max: 4096, default: |n| near_root(n).div_ceil(4).min(8) },
    meaning: "How many tokens at the end of each block sum it up and are seen by every token; at most the whole block.",
};

const PART: Param = Param {
    name: "part",
    kind: ParamKind::Choice { options: &["merged", "by_head", "local", "summary"], default: "merged" },
    meaning: "What a head sees: merged the block and the summaries, by_head one of them in turn, local or summary only that, as \
              layers in turn do.",
};

const SUB_BLOCKS: Param = Param {
    name: "sub_blocks",
    kind: ParamKind::Bool { default: true },
    meaning: "Whether each head takes its summary columns from another place of the block, counted from the end.",
};

pub static VARIANT: Variant = Variant {
    id: "sparse_fixed",
    name: "Sparse Transformer, fixed",
    family: Family::FixedPattern,
    paper: Paper {
        title: "Generating Long Sequences with Sparse Transformers",
        authors: "Child et al.",
        year: 2019,
        arxiv: "1904.10509",
    },
    summary: "The text is cut into blocks; a token looks at its own block and at a few fixed columns in every other block, which \
              learn to sum their block up for all that come later. With blocks about as long as the square root of the text, \
              time grows with N√N. Two such layers connect any two tokens. It suits text, where no period is known, better than \
              the strided form. Leave it where blocks cut through what belongs together.",
    complexity: "O(N sqrt(N) c D) time, O(N) memory",
    exponent: 1.5,
    exact: false,
    causal: Causal::Both,
    params: &[BLOCK_LENGTH, COLUMNS, PART, SUB_BLOCKS, LINKS],
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

/// ℓ and c.
fn sizes(s: &Setup) -> (usize, usize) {
    let block = match s.int(&BLOCK_LENGTH) {
        0 => near_root(s.length) as usize,
        given => given,
    };
    (block, s.int(&COLUMNS).min(block))
}

fn rule(s: &Setup) -> Rule {
    let (block, columns) = sizes(s);
    let places = if s.bool(&SUB_BLOCKS) { block / columns } else { 1 };
    let place = s.structure.first_head % places;
    let part = match s.choice(&PART).as_str() {
        "by_head" => Part::ByHead { odd: s.structure.first_head % 2 == 1 },
        "local" => Part::Local,
        "summary" => Part::Far,
        _ => Part::Merged,
    };
    let [block, columns, place, places] = [block, columns, place, places].map(|x| x as u32);
    Rule::Fixed { block, columns, place, places, part, causal: s.causal }
}

fn pattern(s: &Setup) -> Pattern {
    if let Some(drawn) = links::pattern(s, &rule(s)) {
        return drawn;
    }
    let (block, columns) = sizes(s);
    // Summary columns begin and end at multiples of this.
    let (mut narrow, mut rest) = (block, columns);
    while rest > 0 {
        (narrow, rest) = (rest, narrow % rest);
    }
    let part = s.choice(&PART);
    let width = if part == "local" { block } else { narrow };
    Pattern::blocked(s, rule(s), BLOCK, width.min(BLOCK))
}

/// The sets of the paper, A(1) and A(2) of section 4.3.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    if let Some(out) = links::naive(x, s, &rule(s)) {
        return out;
    }
    let (block, columns) = sizes(s);
    let (l, c) = (block as i64, columns as i64);
    let (part, sub_blocks) = (s.choice(&PART), s.bool(&SUB_BLOCKS));
    softmax_attention_by_head(x, s, |h, i, j| {
        let (i, j) = (i as i64 + s.keys as i64 - s.length as i64, j as i64);
        let head = (s.structure.first_head + h) as i64;
        let place = if sub_blocks { head % (l / c) } else { 0 };
        let same_block = j.div_euclid(l) == i.div_euclid(l);
        let summary = (l - (place + 1) * c..l - place * c).contains(&(j % l));
        let listed = match part.as_str() {
            "by_head" if head % 2 == 0 => same_block,
            "by_head" | "summary" => summary,
            "local" => same_block,
            _ => same_block || summary,
        };
        listed && (j <= i || !s.causal)
    })
}
