//! The ways to compute one pattern: what is sparse on paper is fast only where blocks are empty, or where so little is left that
//! it pays to fetch it pair by pair. Every variant that is softmax attention over a [`Rule`] can be built in each of them.

use super::restricted::Pattern;
use super::{Family, Inputs, Refusal, Setup, Variant};
use crate::gpu::Category;
use crate::graph::{Graph, TensorType};
use crate::ids::ids;
use crate::pattern::{Bits, BlockList, Rule, Run};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

ids! {
    /// How the pairs of a pattern are visited.
    PatternForm {
        /// Blocks that hold any of them; what a block holds besides is scored and thrown away.
        #[default]
        Blocks = "blocks",
        /// Each pair alone, by a list of keys for each query.
        Gather = "gather",
        /// Everything, under a mask.
        Masked = "masked",
    }
}

/// A pattern in one form.
pub struct Formed {
    /// Inputs `q`, `k`, `v`, output `out`, as of [`Variant::build`].
    pub graph: Graph,
    /// The blocks that are visited; single pairs where each is fetched alone.
    pub list: Rc<BlockList>,
}

/// Most bits that a pattern without a formula is written out in: 64 MiB.
const MOST_BITS: usize = 1 << 29;

impl Variant {
    /// The rule whose softmax attention this variant computes at this setup and nothing else; none where it does more, or has
    /// no pattern.
    pub fn pattern(&self, s: &Setup) -> Option<Rule> {
        matches!(self.family, Family::FixedPattern | Family::LearnedPattern).then(|| (self.rule)(s))?
    }

    /// Softmax attention over the variant's pattern in one form, in blocks of `block` × `block` tokens where it has blocks.
    ///
    /// # Errors
    /// Where there is no pattern, or it has no formula and too many pairs to be written out.
    ///
    /// # Panics
    /// Where [`Variant::refusal`] says no: ask it first.
    pub fn in_form(&self, s: &Setup, form: PatternForm, block: usize) -> Result<Formed, Refusal> {
        let Some(rule) = self.pattern(s) else {
            return Err(Refusal::new(format!("{} is not attention over a fixed pattern", self.name), None));
        };
        let pattern = Pattern::in_form(s, rule, form, block)?;
        let mut g = Graph::new();
        let mut rows = |name, n| g.input(name, TensorType::f32(&[s.batch, s.heads, n, s.dim]), Category::Activations);
        let (q, k, v) = (rows("q", s.length), rows("k", s.keys), rows("v", s.keys));
        let x = Inputs { q, k, v, key_padding: None, extras: BTreeMap::new() };
        let out = pattern.graph(&mut g, &x, s);
        g.output("out", out);
        Ok(Formed { graph: g, list: pattern.list })
    }
}

/// Share of all pairs that a rule of this setup allows.
pub fn density_of(rule: &Rule, s: &Setup) -> f64 {
    rule.density(planes(rule, s), s.length, s.keys)
}

/// Heads that may have patterns of their own; only bits tell batch entries apart.
fn planes(rule: &Rule, s: &Setup) -> usize {
    match rule {
        Rule::Bits { bits } => bits.heads,
        Rule::Listed { list, .. } => list.heads,
        _ => s.heads,
    }
}

impl Pattern {
    /// A rule's pairs visited in one form, in blocks of `block` × `block` tokens where it has blocks.
    pub(super) fn in_form(s: &Setup, rule: Rule, form: PatternForm, block: usize) -> Result<Self, Refusal> {
        let (n, m) = (s.length, s.keys);
        let size = if form == PatternForm::Gather { 1 } else { block };
        let mut list = BlockList::of_heads(&rule, planes(&rule, s), n, m, size, size);
        if form == PatternForm::Masked {
            let everything = Run { first: 0, count: list.key_blocks() as u32, full: false };
            let rows = list.heads * list.query_blocks();
            list.offsets = (0..=rows as u32).collect();
            list.runs = vec![everything; rows];
        }
        // Listed pairs have no formula that a kernel could ask inside a block.
        let rule = match rule {
            Rule::Listed { .. } if list.runs.iter().any(|run| !run.full) => {
                let bits = list.heads.saturating_mul(n).saturating_mul(m);
                if bits > MOST_BITS {
                    let reason = format!("this pattern would be written out as {bits} bits; at most {MOST_BITS} are");
                    let longest = (1..n).rev().find(|&n| list.heads * n * n <= MOST_BITS);
                    return Err(Refusal::new(reason, longest.map(|n| format!("length {n}"))));
                }
                Rule::Bits { bits: Arc::new(Bits::of_rule(&rule, list.heads, n, m)) }
            }
            rule => rule,
        };
        Ok(Self { rule, list: Rc::new(list) })
    }
}
