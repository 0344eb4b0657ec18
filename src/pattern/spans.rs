//! The keys of a query as a few arithmetic progressions: what block lists, counts and reach are made of.

use super::Rule;
use super::rule::place_of;

/// Keys `first, first + step, ...`, `count` of them. Not empty; `step` is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: usize,
    pub count: usize,
    pub step: usize,
}

impl Span {
    /// The keys, ascending.
    pub fn keys(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |t| self.first + t * self.step)
    }

    /// The last key.
    pub fn last(self) -> usize {
        self.first + (self.count - 1) * self.step
    }
}

/// Collects progressions, clipped to the keys that causality and M leave.
struct Clipped<'a> {
    spans: &'a mut Vec<Span>,
    end: i64,
}

impl Clipped<'_> {
    /// Keys of `low..=high` that differ from `anchor` by a multiple of `step`.
    fn push(&mut self, anchor: i64, low: i64, high: i64, step: i64) {
        let low = low.max(0);
        let first = low + (anchor - low).rem_euclid(step);
        let high = high.min(self.end - 1);
        if first <= high {
            let count = ((high - first) / step + 1) as usize;
            self.spans.push(Span { first: first as usize, count, step: step as usize });
        }
    }

    fn interval(&mut self, low: i64, high: i64) {
        self.push(0, low, high, 1);
    }
}

impl Rule {
    /// Replaces `spans` by the keys of query `i < n` of a head, as disjoint progressions in any order. Takes time in the
    /// number of progressions.
    pub fn spans(&self, head: usize, i: usize, n: usize, m: usize, spans: &mut Vec<Span>) {
        spans.clear();
        let position = i as i64 + m as i64 - n as i64;
        // Keys in front of it are not ruled out by causality.
        let end = if self.causal() { (position + 1).clamp(0, m as i64) } else { m as i64 };
        let mut keys = Clipped { spans, end };
        match *self {
            Rule::All { .. } => keys.interval(0, end - 1),
            Rule::Window { radius, dilation, global, .. } => {
                let global = i64::from(global);
                if (0..global).contains(&position) {
                    return keys.interval(0, end - 1);
                }
                let step = i64::from(dilation.max(1));
                // Farther than any sequence is far enough.
                let reach = i64::from(radius).saturating_mul(step).min(1 << 40);
                keys.interval(0, global - 1);
                keys.push(position, global.max(position - reach), position + reach, step);
            }
            Rule::Segments { length, memory, own } => {
                let start = position.div_euclid(i64::from(length.max(1))) * i64::from(length.max(1));
                keys.interval(start - i64::from(memory), if own { end } else { start - 1 });
            }
            Rule::Beyond { radius, .. } => {
                let radius = i64::from(radius);
                keys.interval(0, position - radius - 1);
                keys.interval(position + radius + 1, end);
            }
            Rule::Strided { stride, reach, part, .. } => {
                let (part, stride, reach) = (part.of_head(head), i64::from(stride.max(1)), i64::from(reach));
                if !part.is_local() {
                    return keys.push(position, 0, end, stride);
                }
                keys.interval(position - reach, position + reach);
                if part.is_far() {
                    keys.push(position, 0, position - reach - 1, stride);
                    keys.push(position, position + reach + 1, end, stride);
                }
            }
            Rule::Fixed { block, columns, place, places, part, .. } => {
                let (part, block) = (part.of_head(head), i64::from(block.max(1)));
                let place = i64::from(place_of(place, places, head));
                let own = position.div_euclid(block);
                let last = block - place * i64::from(columns) - 1;
                let first = (last + 1 - i64::from(columns)).max(0);
                if part.is_local() {
                    keys.interval(own * block, (own + 1) * block - 1);
                }
                if part.is_far() {
                    for other in (0..=(end - 1).div_euclid(block)).filter(|&b| b != own || !part.is_local()) {
                        keys.interval(other * block + first, other * block + last);
                    }
                }
            }
            Rule::Log { local, kernel, base, levels, period, causal } => {
                let far = position.abs().max((m as i64 - 1 - position).abs());
                let period = if period > 0 { i64::from(period) } else { far + 1 };
                let local = i64::from(local.max(1)).min(period);
                let levels = level_distances(local - 1, period.min(far + 1), kernel, base, levels);
                for origin in (0..=far).step_by(period as usize) {
                    if origin == 0 {
                        keys.interval(position - (local - 1), position + (local - 1));
                    } else {
                        keys.interval(position - origin - (local - 1), position - origin);
                        keys.interval(position + origin, position + origin + (local - 1));
                    }
                    for distance in &levels {
                        keys.interval(position - origin - distance, position - origin - distance);
                        if !causal {
                            keys.interval(position + origin + distance, position + origin + distance);
                        }
                    }
                }
            }
            Rule::Pooled { length, stride } => {
                let before = i as i64 + 1 - i64::from(length);
                if before >= 0 {
                    keys.interval(0, before / i64::from(stride.max(1)));
                }
            }
            Rule::Bits { ref bits } => bits.spans(head, i, spans),
            Rule::Listed { ref list, .. } => {
                for run in list.runs_of(head, i / list.block_q) {
                    let first = run.first as i64 * list.block_k as i64;
                    keys.interval(first, first + run.count as i64 * list.block_k as i64 - 1);
                }
            }
        }
    }
}

/// Distances `local + t base^e` below `end`, each once, ascending.
fn level_distances(local: i64, end: i64, kernel: u32, base: u32, levels: u32) -> Vec<i64> {
    let mut distances = Vec::new();
    let mut step = 1i64;
    for _ in 0..levels {
        if local + step >= end {
            break;
        }
        distances.extend((1..i64::from(kernel)).map(|t| local + t * step).take_while(|&d| d < end));
        step *= i64::from(base.max(1));
    }
    distances.sort_unstable();
    distances.dedup();
    distances
}
