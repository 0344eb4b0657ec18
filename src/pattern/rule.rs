//! Rules `may(i, j)`, in Rust. `shaders/lib/mask.wesl` has the same function; a test holds them equal.

use super::{Bits, BlockList};
use std::sync::Arc;

/// Which keys j a query i may attend to.
///
/// With N queries and M keys, query i stands at key position `p = i + M - N`, so that both sequences end together (memory
/// lies in front of the segment). A causal rule never allows `j > p`. `d` is the distance `|p - j|`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Every key (up to the diagonal when causal).
    All { causal: bool },
    /// Bidirectional: `d <= radius * dilation` at multiples of `dilation`. Causal: the `radius + 1` keys
    /// `p, p - dilation, ...`. The first `global` tokens attend to everything and are attended to by everything (still
    /// never ahead when causal).
    Window { radius: u32, dilation: u32, global: u32, causal: bool },
    /// What a window leaves over: `d > radius`.
    Beyond { radius: u32, causal: bool },
    /// Local: `d <= reach`. Far: `d` is a multiple of `stride`.
    Strided { stride: u32, reach: u32, part: Part, causal: bool },
    /// Local: keys of the query's own block of `block` tokens. Far: `columns` summary keys of every block, the last ones or,
    /// with `place` t > 0, those t·columns before the last. With `places` > 1, head h has place `(place + h) mod places`.
    Fixed { block: u32, columns: u32, place: u32, places: u32, part: Part, causal: bool },
    /// The nearest `local` keys, the query's own among them, and behind them the distances `t base^e` for `0 < t < kernel` and
    /// `e < levels`, counted from the last local key. With `period` > 0 all of it again from every `period`-th key.
    Log { local: u32, kernel: u32, base: u32, levels: u32, period: u32, causal: bool },
    /// Causal: keys of the query's own segment of `length` tokens, where `own` says so, and of the `memory` tokens in front of
    /// that.
    Segments { length: u32, memory: u32, own: bool },
    /// Keys that stand for blocks of `length` tokens, one every `stride` tokens: those whose last token is not ahead of the
    /// query. Queries are counted from the first token, however many keys there are.
    Pooled { length: u32, stride: u32 },
    /// The pairs of listed blocks, all of them or, when causal, up to the diagonal; for patterns that are drawn or given. N and
    /// M are the list's.
    Listed { list: Arc<BlockList>, causal: bool },
    /// The pairs whose bit is set; for patterns that a reader writes or gives. N and M are those of the bits.
    Bits { bits: Arc<Bits> },
}

/// Which half of a two-part pattern a head takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The union of both.
    Merged,
    Local,
    Far,
    /// Local and far in turn; the first head takes the local one, or the far one where `odd`.
    ByHead {
        odd: bool,
    },
}

impl Part {
    /// The part of one head.
    pub fn of_head(self, head: usize) -> Self {
        match self {
            Self::ByHead { odd } if head.is_multiple_of(2) == odd => Self::Far,
            Self::ByHead { .. } => Self::Local,
            same => same,
        }
    }

    pub fn is_local(self) -> bool {
        matches!(self, Self::Merged | Self::Local)
    }

    pub fn is_far(self) -> bool {
        matches!(self, Self::Merged | Self::Far)
    }
}

impl Rule {
    pub fn causal(&self) -> bool {
        match *self {
            Rule::All { causal }
            | Rule::Window { causal, .. }
            | Rule::Beyond { causal, .. }
            | Rule::Strided { causal, .. }
            | Rule::Fixed { causal, .. }
            | Rule::Log { causal, .. }
            | Rule::Listed { causal, .. } => causal,
            Rule::Segments { .. } => true,
            Rule::Pooled { .. } | Rule::Bits { .. } => false,
        }
    }

    /// Whether heads have patterns of their own.
    pub fn by_head(&self) -> bool {
        match self {
            Rule::Strided { part, .. } => matches!(part, Part::ByHead { .. }),
            Rule::Fixed { part, places, .. } => matches!(part, Part::ByHead { .. }) || *places > 1,
            Rule::Listed { list, .. } => list.heads > 1,
            Rule::Bits { bits } => bits.heads > 1,
            _ => false,
        }
    }

    /// The head to ask for where `instance` is batch entry · heads + head: only bits may tell batch entries apart.
    pub fn head_of(&self, instance: usize, heads: usize) -> usize {
        if matches!(self, Rule::Bits { .. }) { instance } else { instance % heads }
    }

    /// The rule of one head.
    pub fn of_head(&self, head: usize) -> Self {
        match *self {
            Rule::Strided { stride, reach, part, causal } => {
                Rule::Strided { stride, reach, part: part.of_head(head), causal }
            }
            Rule::Fixed { block, columns, place, places, part, causal } => {
                let place = place_of(place, places, head);
                Rule::Fixed { block, columns, place, places: 1, part: part.of_head(head), causal }
            }
            Rule::Listed { ref list, causal } if list.heads > 1 => {
                Rule::Listed { list: Arc::new(list.of_head(head)), causal }
            }
            Rule::Bits { ref bits } if bits.heads > 1 => {
                let (n, m, words) = (bits.n, bits.m, bits.plane(head).to_vec());
                Rule::Bits { bits: Arc::new(Bits { heads: 1, n, m, words }) }
            }
            ref same => same.clone(),
        }
    }

    /// Whether query `i < n` may attend to key `j < m`, in the first head.
    pub fn may(&self, i: usize, j: usize, n: usize, m: usize) -> bool {
        self.may_in(0, i, j, n, m)
    }

    /// Whether query `i < n` may attend to key `j < m` in a head.
    pub fn may_in(&self, head: usize, i: usize, j: usize, n: usize, m: usize) -> bool {
        let position = i as i64 + m as i64 - n as i64;
        let behind = position - j as i64;
        if self.causal() && behind < 0 {
            return false;
        }
        let distance = behind.unsigned_abs();
        match *self {
            Rule::All { .. } => true,
            Rule::Window { radius, dilation, global, .. } => {
                let is_global = j < global as usize || (position >= 0 && position < i64::from(global));
                let dilation = u64::from(dilation.max(1));
                is_global || (distance.is_multiple_of(dilation) && distance / dilation <= u64::from(radius))
            }
            Rule::Beyond { radius, .. } => distance > u64::from(radius),
            Rule::Strided { stride, reach, part, .. } => {
                let part = part.of_head(head);
                (part.is_local() && distance <= u64::from(reach))
                    || (part.is_far() && distance.is_multiple_of(u64::from(stride.max(1))))
            }
            Rule::Fixed { block, columns, place, places, part, .. } => {
                let part = part.of_head(head);
                let block = i64::from(block.max(1));
                let place = i64::from(place_of(place, places, head));
                let end = block - place * i64::from(columns);
                let column = j as i64 % block;
                (part.is_local() && position.div_euclid(block) == j as i64 / block)
                    || (part.is_far() && column < end && column >= end - i64::from(columns))
            }
            Rule::Log { local, kernel, base, levels, period, .. } => {
                let distance = if period > 0 { distance % u64::from(period) } else { distance };
                let local = u64::from(local.max(1));
                distance < local || is_level(distance - (local - 1), kernel, base, levels)
            }
            Rule::Segments { length, memory, own } => {
                let start = position.div_euclid(i64::from(length.max(1))) * i64::from(length.max(1));
                j as i64 >= start - i64::from(memory) && (own || (j as i64) < start)
            }
            Rule::Pooled { length, stride } => j as u64 * u64::from(stride.max(1)) + u64::from(length) <= i as u64 + 1,
            Rule::Listed { ref list, .. } => list.lists(head, i, j),
            Rule::Bits { ref bits } => bits.test(head, i, j),
        }
    }
}

/// The place of a head's summary columns.
pub(super) fn place_of(place: u32, places: u32, head: usize) -> u32 {
    if places > 1 { (place + head as u32) % places } else { place }
}

/// Whether `rest` > 0 is `t base^e` for some `0 < t < kernel` and `e < levels`.
fn is_level(rest: u64, kernel: u32, base: u32, levels: u32) -> bool {
    let mut step = 1;
    for _ in 0..levels {
        if rest.is_multiple_of(step) && rest / step < u64::from(kernel) {
            return true;
        }
        if step > rest / u64::from(base.max(1)) {
            return false;
        }
        step *= u64::from(base.max(1));
    }
    false
}
