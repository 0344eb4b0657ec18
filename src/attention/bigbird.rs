//! BigBird: in blocks of b tokens, each query block attends to its neighbours, to global blocks, and to r random blocks.
//!
//! ITC makes existing blocks global, the first and the last; ETC the first ones, which stand for tokens that were put in front
//! of the text. Global blocks attend to everything and are attended to by everything. Random blocks are drawn without
//! replacement from those that are neither, for each head and query block.
//!
//! Zaheer et al., 2020, "Big Bird: Transformers for Longer Sequences", arXiv:2007.14062, section 2 and appendix D. Time
//! O(N b (w + g + r) D), memory O(N). The kernel's blocks are the method's own: all of them are full.
//! Differs from the paper: windows end at the ends of the text and do not wrap around; its code draws random blocks near the end
//! that may repeat global ones, ours never. Other than a library's default, short texts are not switched to full attention.

use super::draw::Stream;
use super::restricted::Pattern;
use super::{
    Causal, Decision, Extra, Family, Form, Init, Inputs, NONE, Of, Paper, Param, ParamKind, Reference, Refusal, Setup,
    Variant,
};
use crate::graph::{Graph, Node, Real};
use crate::pattern::{BlockList, Rule};
use crate::reference::softmax_attention_by_head;
use std::sync::Arc;

const BLOCK: Param = Param {
    name: "block",
    kind: ParamKind::Int {
        min: 1,
        max: 1024,
        default: |n| match n {
            // Short texts have small blocks, or the pattern would leave nothing out.
            ..=255 => (n / 16).max(1).next_power_of_two() as u32,
            256 => 16,
            257..=1024 => 32,
            _ => 64,
        },
    },
    meaning: "How many tokens a block has; everything else is counted in blocks.",
};

const WINDOW: Param = Param {
    name: "window",
    kind: ParamKind::Int { min: 1, max: 255, default: |_| 3 },
    meaning: "How many neighbouring blocks a block sees, itself among them: an odd number, half of the others to each side.",
};

const RANDOM: Param = Param {
    name: "random",
    kind: ParamKind::Int { min: 0, max: 64, default: |_| 3 },
    meaning: "How many blocks drawn at random each block sees besides; 0 leaves the idea out, to see whether it matters.",
};

const GLOBALS: Param = Param {
    name: "globals",
    kind: ParamKind::Choice { options: &["itc", "etc"], default: "itc" },
    meaning: "Which blocks are global: itc takes them from both ends of the text, etc from its beginning, where extra tokens \
              would stand.",
};

const GLOBAL_BLOCKS: Param = Param {
    name: "global_blocks",
    kind: ParamKind::Int { min: 0, max: 64, default: |_| 2 },
    meaning: "How many blocks see everything and are seen by every block.",
};

pub static VARIANT: Variant = Variant {
    id: "bigbird",
    name: "BigBird",
    family: Family::FixedPattern,
    paper: Paper {
        title: "Big Bird: Transformers for Longer Sequences",
        authors: "Zaheer et al.",
        year: 2020,
        arxiv: "2007.14062",
    },
    summary: "Each block of tokens looks at its neighbours, at a few global blocks that see and are seen by everything, and at a \
              few blocks drawn at random. The global blocks bring any two tokens within two steps of each other, and with them \
              the method can in principle compute whatever full attention can; the random links shorten paths as in a small \
              world. Time grows with the length only, and whole blocks suit the hardware. Use it to encode long documents; \
              it cannot generate text.",
    complexity: "O(N b (w + g + r) D) time, O(N) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Never("global and random blocks lie ahead of the blocks that see them, so future tokens would leak"),
    params: &[BLOCK, WINDOW, RANDOM, GLOBALS, GLOBAL_BLOCKS],
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

const RANDOM_BLOCKS: &str = "random_blocks";

fn extras(s: &Setup) -> Vec<Extra> {
    let blocks = s.length.div_ceil(s.int(&BLOCK));
    if s.int(&RANDOM) == 0 {
        return vec![];
    }
    vec![Extra {
        name: RANDOM_BLOCKS,
        shape: vec![s.heads, blocks, s.int(&RANDOM)],
        role: "the random key blocks of each query block of a head",
        differentiable: false,
        optional: false,
        init: Init::Structure { below: blocks as u32 },
    }]
}

fn check(s: &Setup) -> Result<(), Refusal> {
    if s.length != s.keys {
        let reason = "BigBird pairs blocks of one sequence, so it takes one key for each query";
        return Err(Refusal::new(reason, format!("{} keys", s.length)));
    }
    if s.int(&WINDOW).is_multiple_of(2) {
        let nearest = format!("window {}", s.int(&WINDOW) - 1);
        return Err(Refusal::new("a window of blocks has as many to each side of its own, so it is odd", nearest));
    }
    Ok(())
}

/// The blocks of one call.
struct Blocks {
    count: usize,
    side: usize,
    /// Global blocks at the front and at the end.
    front: usize,
    back: usize,
    random: usize,
}

impl Blocks {
    fn of(s: &Setup) -> Self {
        let count = s.length.div_ceil(s.int(&BLOCK));
        let globals = s.int(&GLOBAL_BLOCKS).min(count);
        let back = if s.choice(&GLOBALS) == "itc" { globals / 2 } else { 0 };
        Self { count, side: s.int(&WINDOW) / 2, front: globals - back, back, random: s.int(&RANDOM) }
    }

    fn is_global(&self, block: usize) -> bool {
        block < self.front || block >= self.count - self.back
    }

    /// What a block sees without chance.
    fn sees(&self, u: usize, v: usize) -> bool {
        self.is_global(u) || self.is_global(v) || u.abs_diff(v) <= self.side
    }

    /// The random blocks of block u in a head of the model; fewer where there are not so many left.
    fn draw(&self, seed: u64, head: usize, u: usize) -> Vec<u32> {
        let mut stream = Stream::new(seed, RANDOM_BLOCKS, &[head, u]);
        if self.is_global(u) {
            return vec![];
        }
        let neighbours = (u.saturating_sub(self.side)..(u + self.side + 1).min(self.count)).filter(|&v| !self.is_global(v));
        let left = self.count - self.front - self.back - neighbours.count();
        let mut drawn: Vec<u32> = Vec::new();
        if left <= 4 * self.random {
            let mut rest: Vec<u32> = (0..self.count).filter(|&v| !self.sees(u, v)).map(|v| v as u32).collect();
            for _ in 0..self.random.min(left) {
                drawn.push(rest.swap_remove(stream.below(rest.len())));
            }
        }
        // Most draws hit a block that is left.
        while drawn.len() < self.random.min(left) {
            let v = stream.below(self.count);
            if !self.sees(u, v) && !drawn.contains(&(v as u32)) {
                drawn.push(v as u32);
            }
        }
        drawn
    }
}

/// `[H, blocks, r]`: given, or drawn from the seed.
fn random_blocks(s: &Setup, blocks: &Blocks) -> Vec<u32> {
    let size = s.heads * blocks.count * blocks.random;
    if let Some(given) = s.structure.given.get(RANDOM_BLOCKS).filter(|given| given.len() == size) {
        return given.to_vec();
    }
    let mut all = Vec::with_capacity(size);
    for head in s.structure.first_head..s.structure.first_head + s.heads {
        for u in 0..blocks.count {
            let mut drawn = blocks.draw(s.seed, head, u);
            drawn.resize(blocks.random, NONE);
            all.extend(drawn);
        }
    }
    all
}

fn pattern(s: &Setup) -> Pattern {
    let blocks = Blocks::of(s);
    let random = random_blocks(s, &blocks);
    // Without random blocks all heads are alike.
    let heads = if blocks.random == 0 { 1 } else { s.heads };
    let mut visited = Vec::with_capacity(heads * blocks.count);
    for head in 0..heads {
        for u in 0..blocks.count {
            let mut row: Vec<u32> = if blocks.is_global(u) {
                (0..blocks.count as u32).collect()
            } else {
                let near = u.saturating_sub(blocks.side)..(u + blocks.side + 1).min(blocks.count);
                (0..blocks.front).chain(near).chain(blocks.count - blocks.back..blocks.count).map(|v| v as u32).collect()
            };
            row.extend(&random[(head * blocks.count + u) * blocks.random..][..blocks.random]);
            visited.push(row);
        }
    }
    let block = s.int(&BLOCK);
    let list = BlockList::of_blocks(&visited, s.length, s.keys, block, block);
    Pattern::tiled(s, Rule::Listed { list: Arc::new(list), causal: false })
}

/// The random blocks of each block; nothing where there are none.
fn decide(g: &mut Graph, _: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let blocks = Blocks::of(s);
    if blocks.random == 0 {
        return vec![];
    }
    let (count, tokens) = (blocks.count, s.int(&BLOCK));
    let drawn = random_blocks(s, &blocks).into_iter().map(|block| (block as usize).min(count));
    let form = Form::Members { count, tokens, row_tokens: tokens, of: Of::Keys };
    vec![Decision::known(g, "random", form, [s.heads, count, blocks.random], drawn)]
}

/// The union of section 2, pair by pair.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let (b, r) = (s.int(&BLOCK), s.int(&RANDOM));
    let blocks = Blocks::of(s);
    let random = random_blocks(s, &blocks);
    let count = s.length.div_ceil(b);
    let globals = s.int(&GLOBAL_BLOCKS).min(count);
    let last = if s.choice(&GLOBALS) == "itc" { globals / 2 } else { 0 };
    let is_global = |block: usize| block < globals - last || block >= count - last;
    let side = (s.int(&WINDOW) - 1) / 2;
    softmax_attention_by_head(x, s, |h, i, j| {
        let (u, v) = (i / b, j / b);
        let is_random = random[(h * count + u) * r..][..r].contains(&(v as u32));
        is_global(u) || is_global(v) || u.abs_diff(v) <= side || is_random
    })
}
