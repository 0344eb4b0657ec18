//! Links by lot: what a pattern sees replaced by as many places drawn from the seed, so that one can see whether it matters
//! which places a method chooses.
//!
//! Each head and block of queries gets as many blocks of keys as hold the pairs of its own pattern, one of them the block in
//! which it stands itself. Blocks are so small that there are some to draw. A causal one draws from what lies behind it.

use super::draw::Stream;
use super::restricted::{BLOCK, Pattern};
use super::{Extra, Init, Inputs, NONE, Param, ParamKind, Setup};
use crate::graph::Real;
use crate::pattern::{BlockList, Rule};
use crate::reference::softmax_attention_by_head;
use std::sync::Arc;

pub(super) const LINKS: Param = Param {
    name: "links",
    kind: ParamKind::Choice { options: &["own", "random"], default: "own" },
    meaning: "Where a token looks: own as the method says, random at as many places drawn by lot, to see whether it matters which.",
};

/// Queries whose keys are counted.
const SAMPLE: usize = 64;

/// How many blocks a query is to see at least, on average.
const LEAST: u64 = 4;

const TENSOR: &str = "links";

/// The draw of one call.
struct Lots {
    /// Tokens of a block of queries or of keys.
    block: usize,
    heads: usize,
    query_blocks: usize,
    /// Most blocks that a block of queries sees.
    most: usize,
    /// `[H, query blocks, most]`, [`NONE`] where there are fewer.
    drawn: Vec<u32>,
}

impl Lots {
    /// The draw in place of `rule`; none where the pattern is the method's own.
    fn of(s: &Setup, rule: &Rule) -> Option<Self> {
        if s.choice(&LINKS) != "random" {
            return None;
        }
        let keys_of_a_query = usual_keys(rule, s);
        let block = 1 << (keys_of_a_query / LEAST).clamp(1, BLOCK as u64).ilog2();
        let (query_blocks, key_blocks) = (s.length.div_ceil(block), s.keys.div_ceil(block));
        let mut rows = Vec::with_capacity(s.heads * query_blocks);
        let mut spans = Vec::new();
        for head in 0..s.heads {
            for u in 0..query_blocks {
                let queries = u * block..((u + 1) * block).min(s.length);
                let mut pairs = 0;
                for i in queries.clone() {
                    rule.spans(head, i, s.length, s.keys, &mut spans);
                    pairs += spans.iter().map(|span| span.count).sum::<usize>();
                }
                let key_of = |i: usize| (i + s.keys).saturating_sub(s.length).min(s.keys - 1) / block;
                let choices = if s.causal { key_of(queries.end - 1) + 1 } else { key_blocks };
                let count = pairs.div_ceil(queries.len() * block).clamp(1, choices);
                let mut stream = Stream::new(s.seed, TENSOR, &[s.structure.first_head + head, u]);
                rows.push(draw(&mut stream, key_of(queries.start), choices, count));
            }
        }
        let most = rows.iter().map(Vec::len).max().unwrap_or(1);
        let drawn = rows.into_iter().flat_map(|mut row| {
            row.resize(most, NONE);
            row
        });
        let mut lots = Self { block, heads: s.heads, query_blocks, most, drawn: drawn.collect() };
        if let Some(given) = s.structure.given.get(TENSOR).filter(|given| given.len() == lots.drawn.len()) {
            lots.drawn = given.to_vec();
        }
        Some(lots)
    }

    fn row(&self, head: usize, query_block: usize) -> &[u32] {
        &self.drawn[(head * self.query_blocks + query_block) * self.most..][..self.most]
    }
}

/// Keys of a query on average, over some queries and all kinds of heads, so that one head draws alone what it draws among
/// others.
fn usual_keys(rule: &Rule, s: &Setup) -> u64 {
    let kinds = match rule {
        Rule::Fixed { places, .. } => 2 * (*places).max(1) as usize,
        Rule::Strided { .. } => 2,
        _ => 1,
    };
    let (mut keys, mut queries) = (0, 0);
    for head in 0..kinds {
        for i in (0..s.length).step_by(s.length.div_ceil(SAMPLE)) {
            keys += rule.keys(head, i, s.length, s.keys);
            queries += 1;
        }
    }
    keys / queries
}

/// `own` and other numbers below `choices`, `count` in all, each once.
fn draw(stream: &mut Stream, own: usize, choices: usize, count: usize) -> Vec<u32> {
    let mut drawn = vec![own as u32];
    if choices <= 4 * count {
        let mut rest: Vec<u32> = (0..choices as u32).filter(|&v| v != own as u32).collect();
        while drawn.len() < count {
            drawn.push(rest.swap_remove(stream.below(rest.len())));
        }
    }
    // Most draws hit one that is left.
    while drawn.len() < count {
        let v = stream.below(choices) as u32;
        if !drawn.contains(&v) {
            drawn.push(v);
        }
    }
    drawn
}

/// The drawn pattern in place of `rule`; none where the pattern is the method's own.
pub(super) fn pattern(s: &Setup, rule: &Rule) -> Option<Pattern> {
    let lots = Lots::of(s, rule)?;
    let visited: Vec<Vec<u32>> = lots.drawn.chunks(lots.most).map(<[u32]>::to_vec).collect();
    let list = Arc::new(BlockList::of_blocks(&visited, s.length, s.keys, lots.block, lots.block));
    Some(Pattern::tiled(s, Rule::Listed { list, causal: s.causal }))
}

/// The drawn blocks as a tensor that may be given; nothing where the pattern is the method's own.
pub(super) fn extras(s: &Setup, rule: &Rule) -> Vec<Extra> {
    let extra = |lots: Lots| Extra {
        name: TENSOR,
        shape: vec![lots.heads, lots.query_blocks, lots.most],
        role: "the key blocks that each block of queries of a head sees by lot",
        differentiable: false,
        optional: false,
        init: Init::Structure { below: s.keys.div_ceil(lots.block) as u32 },
    };
    Lots::of(s, rule).map(extra).into_iter().collect()
}

/// Softmax attention over the drawn pairs; none where the pattern is the method's own.
pub(super) fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup, rule: &Rule) -> Option<Vec<R>> {
    let lots = Lots::of(s, rule)?;
    Some(softmax_attention_by_head(x, s, |h, i, j| {
        let listed = lots.row(h, i / lots.block).contains(&((j / lots.block) as u32));
        listed && (!s.causal || j + s.length <= i + s.keys)
    }))
}
