//! BlockBERT: queries and keys are cut into n blocks, and a query block attends to one key block, `π_h(u)` for block u in head
//! h. Heads with the identity look near, the others far.
//!
//! Qiu et al., 2020, "Blockwise Self-Attention for Long Document Understanding", arXiv:1911.02972, section 3. Time O(N²/n · D),
//! memory O(N): quadratic still, with 1/n of the work. The kernel's blocks are the method's own, so that nothing outside of them
//! is visited whatever their length.
//! Differs from the paper: it gives most heads the identity (10 of 12 for n = 2); here head h shifts by h blocks, all heads look
//! into their own block, or permutations are drawn or given. Where N does not divide, blocks have ⌈N/n⌉ rows and the last ones
//! are short or empty; a query block that is sent to an empty one has nothing to attend to and gives zeros.

use super::draw::Stream;
use super::restricted::Pattern;
use super::{
    Causal, Decision, Extra, Family, Form, Init, Inputs, Of, Paper, Param, ParamKind, Reference, Refusal, Setup,
    Variant,
};
use crate::graph::{Graph, Node, Real};
use crate::pattern::{BlockList, Rule};
use crate::reference::softmax_attention_by_head;
use std::sync::Arc;

const BLOCKS: Param = Param {
    name: "blocks",
    kind: ParamKind::Int { min: 1, max: 1024, default: |_| 2 },
    meaning: "Into how many blocks the text is cut; attention costs that many times less.",
};

const ORDER: Param = Param {
    name: "order",
    kind: ParamKind::Choice { options: &["shifted", "local", "random"], default: "shifted" },
    meaning: "Where a head looks: shifted as many blocks ahead as its number, around the end; local into its own block; random \
              into blocks drawn from the seed.",
};

pub static VARIANT: Variant = Variant {
    id: "blockbert",
    name: "BlockBERT",
    family: Family::FixedPattern,
    paper: Paper {
        title: "Blockwise Self-Attention for Long Document Understanding",
        authors: "Qiu et al.",
        year: 2020,
        arxiv: "1911.02972",
    },
    summary: "The text is cut into a few blocks, and each block looks at one block only: in some heads at itself, in others at \
              another one, so that the heads together pass information around. With n blocks attention takes one n-th of \
              the time, but it still grows with the square of the length. Use it to make an encoder for a known length a few \
              times cheaper without changing anything else; for very long texts take a method that grows more slowly.",
    complexity: "O(N^2 D / n) time, O(N) memory",
    exponent: 2.0,
    exact: false,
    causal: Causal::Never("a permutation always sends some block ahead, where every token lies in the future, so its rows would \
                           be empty"),
    params: &[BLOCKS, ORDER],
    extras,
    check,
    largest: |_| 0,
    graph: |g, x, s| pattern(s).graph(g, x, s),
    effective: |g, x, s| pattern(s).effective(g, x, s),
    rule: |s| Some(pattern(s).rule),
    blocks: |s| Some(pattern(s).list.as_ref().clone()),
    loss: None,
    decide: Some(decide),
    reference: Reference::new(naive, naive),
};

const PERMUTATIONS: &str = "permutations";

fn extras(s: &Setup) -> Vec<Extra> {
    let blocks = s.int(&BLOCKS);
    vec![Extra {
        name: PERMUTATIONS,
        shape: vec![s.heads, blocks],
        role: "the key block that each query block of a head attends to",
        differentiable: false,
        optional: false,
        init: Init::Structure { below: blocks as u32 },
    }]
}

fn check(s: &Setup) -> Result<(), Refusal> {
    let blocks = s.int(&BLOCKS);
    for (head, row) in permutations(s).chunks(blocks).enumerate() {
        let mut sorted = row.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..blocks as u32) {
            return Err(Refusal::new(format!("row {head} of {PERMUTATIONS} is no permutation of {blocks} blocks"), None));
        }
    }
    Ok(())
}

/// `[H, n]`: given, or by the order.
fn permutations(s: &Setup) -> Vec<u32> {
    let blocks = s.int(&BLOCKS);
    if let Some(given) = s.structure.given.get(PERMUTATIONS).filter(|given| given.len() == s.heads * blocks) {
        return given.to_vec();
    }
    let order = s.choice(&ORDER);
    let first = s.structure.first_head;
    let of_head = |head: usize| -> Vec<u32> {
        let shift = if order == "shifted" { head } else { 0 };
        let mut row: Vec<u32> = (0..blocks).map(|u| ((u + shift) % blocks) as u32).collect();
        if order == "random" {
            let mut stream = Stream::new(s.seed, PERMUTATIONS, &[head]);
            (1..blocks).rev().for_each(|last| row.swap(last, stream.below(last + 1)));
        }
        row
    };
    (first..first + s.heads).flat_map(of_head).collect()
}

fn pattern(s: &Setup) -> Pattern {
    let blocks = s.int(&BLOCKS);
    let (block_q, block_k) = (s.length.div_ceil(blocks), s.keys.div_ceil(blocks));
    let query_blocks = s.length.div_ceil(block_q);
    let visited: Vec<Vec<u32>> =
        permutations(s).chunks(blocks).flat_map(|row| row[..query_blocks].iter().map(|&block| vec![block])).collect();
    let list = BlockList::of_blocks(&visited, s.length, s.keys, block_q, block_k);
    Pattern::tiled(s, Rule::Listed { list: Arc::new(list), causal: false })
}

/// The block that each block of a head sees.
fn decide(g: &mut Graph, _: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let blocks = s.int(&BLOCKS);
    let [row_tokens, tokens] = [s.length, s.keys].map(|rows| rows.div_ceil(blocks));
    let (rows, count) = (s.length.div_ceil(row_tokens), s.keys.div_ceil(tokens));
    let permutations = permutations(s);
    // Blocks behind the end of the text are empty.
    let seen = permutations.chunks(blocks).flat_map(|row| &row[..rows]).map(|&block| (block as usize).min(count));
    let form = Form::Members { count, tokens, row_tokens, of: Of::Keys };
    vec![Decision::known(g, "blocks", form, [s.heads, rows, 1], seen)]
}

/// `⌊j / b⌋ = π_h(⌊i / b⌋)`.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let blocks = s.int(&BLOCKS);
    let (block_q, block_k) = (s.length.div_ceil(blocks), s.keys.div_ceil(blocks));
    let permutations = permutations(s);
    softmax_attention_by_head(x, s, |h, i, j| j / block_k == permutations[h * blocks + i / block_q] as usize)
}
