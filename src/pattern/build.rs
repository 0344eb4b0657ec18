//! Block lists from rules.

use super::{BlockList, Rule, Run, Span};
use std::ops::Range;

/// What a rule allows of one block of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover {
    Absent,
    Partial,
    Full,
}

impl BlockList {
    /// The list of a known rule in its first head: a block is absent where no pair of it is allowed, full where all are.
    ///
    /// Takes time linear in the blocks visited (in the query blocks for [`Rule::All`]), times the rows of a block for rules
    /// that are neither dense nor a window, and never time in N·M.
    pub fn new(rule: &Rule, n: usize, m: usize, block_q: usize, block_k: usize) -> Self {
        Self::of_heads(rule, 1, n, m, block_q, block_k)
    }

    /// The same for `heads` heads: one list for each where the rule tells them apart, else one for all.
    pub fn of_heads(rule: &Rule, heads: usize, n: usize, m: usize, block_q: usize, block_k: usize) -> Self {
        assert!(block_q > 0 && block_k > 0, "blocks must have rows");
        let heads = if rule.by_head() { heads } else { 1 };
        let mut builder = Builder { offsets: vec![0], runs: Vec::new() };
        let mut tally = Tally::new(m.div_ceil(block_k), block_k, m);
        for head in 0..heads {
            for first_row in (0..n).step_by(block_q) {
                let last_row = (first_row + block_q).min(n);
                let position = |i: usize| i as i64 + m as i64 - n as i64;
                let rows = position(first_row)..position(last_row);
                match rule {
                    Rule::All { causal } => builder.dense(&rows, m, block_k, *causal),
                    Rule::Window { radius, dilation, global, causal } => {
                        let window = Window {
                            step: i64::from((*dilation).max(1)),
                            reach: i64::from(*radius).saturating_mul(i64::from((*dilation).max(1))).min(1 << 40),
                            global: i64::from(*global),
                            causal: *causal,
                        };
                        builder.window(&window, &rows, m, block_k);
                    }
                    _ => {
                        for i in first_row..last_row {
                            rule.spans(head, i, n, m, &mut tally.spans);
                            tally.add();
                        }
                        tally.finish(last_row - first_row, &mut builder.runs);
                    }
                }
                builder.offsets.push(builder.runs.len() as u32);
            }
        }
        Self { block_q, block_k, n, m, heads, offsets: builder.offsets, runs: builder.runs }
    }
}

/// Counts the allowed pairs of each key block over the rows of one query block.
struct Tally {
    /// The keys of the row that is added next.
    spans: Vec<Span>,
    /// Allowed pairs of each key block.
    counts: Vec<u32>,
    /// Key blocks with a count.
    touched: Vec<u32>,
    block_k: usize,
    m: usize,
}

impl Tally {
    fn new(key_blocks: usize, block_k: usize, m: usize) -> Self {
        Self { spans: Vec::new(), counts: vec![0; key_blocks], touched: Vec::new(), block_k, m }
    }

    fn add(&mut self) {
        for at in 0..self.spans.len() {
            let span = self.spans[at];
            if span.step > 1 {
                span.keys().for_each(|key| self.count(key / self.block_k, 1));
                continue;
            }
            let end = span.first + span.count;
            for block in span.first / self.block_k..(end - 1) / self.block_k + 1 {
                let keys = span.first.max(block * self.block_k)..end.min((block + 1) * self.block_k);
                self.count(block, keys.len() as u32);
            }
        }
    }

    fn count(&mut self, block: usize, pairs: u32) {
        if self.counts[block] == 0 {
            self.touched.push(block as u32);
        }
        self.counts[block] += pairs;
    }

    /// Appends the runs of a query block of `rows` rows, and forgets its counts.
    fn finish(&mut self, rows: usize, runs: &mut Vec<Run>) {
        self.touched.sort_unstable();
        let mut own = Vec::new();
        for block in self.touched.drain(..) {
            let keys = self.block_k.min(self.m - block as usize * self.block_k);
            push_block(&mut own, block, self.counts[block as usize] as usize == rows * keys);
            self.counts[block as usize] = 0;
        }
        runs.append(&mut own);
    }
}

/// Appends a block, growing the last run where it touches it and has the same cover.
pub(super) fn push_block(runs: &mut Vec<Run>, block: u32, full: bool) {
    match runs.last_mut() {
        Some(last) if last.full == full && last.first + last.count == block => last.count += 1,
        _ => runs.push(Run { first: block, count: 1, full }),
    }
}

struct Builder {
    offsets: Vec<u32>,
    runs: Vec<Run>,
}

impl Builder {
    /// Every key, or every key up to the diagonal.
    fn dense(&mut self, rows: &Range<i64>, m: usize, block_k: usize, causal: bool) {
        let blocks_below = |keys: i64| (keys.clamp(0, m as i64) as usize).div_ceil(block_k);
        let visited = if causal { blocks_below(rows.end) } else { blocks_below(m as i64) };
        // The first row sees keys 0..=rows.start; a block is full when all its keys are among them.
        let seen_by_all = if causal { (rows.start + 1).clamp(0, m as i64) as usize } else { m };
        let full = if seen_by_all == m { visited } else { seen_by_all / block_k };
        if full > 0 {
            self.runs.push(Run { first: 0, count: full as u32, full: true });
        }
        if visited > full {
            self.runs.push(Run { first: full as u32, count: (visited - full) as u32, full: false });
        }
    }

    fn window(&mut self, window: &Window, rows: &Range<i64>, m: usize, block_k: usize) {
        let start = self.runs.len();
        let mut runs = self.runs.split_off(start);
        let key_blocks = m.div_ceil(block_k) as i64;
        let mut block = 0;
        while block < key_blocks {
            let first = block * block_k as i64;
            let keys = first..(first + block_k as i64).min(m as i64);
            match window.cover(rows, &keys) {
                // Skip to the next block that a pair can lie in.
                Cover::Absent => match window.next_key(rows, keys.end) {
                    Some(key) if key < m as i64 => block = key / block_k as i64,
                    _ => break,
                },
                cover => {
                    push_block(&mut runs, block as u32, cover == Cover::Full);
                    block += 1;
                }
            }
        }
        self.runs.append(&mut runs);
    }
}

/// [`Rule::Window`] in signed numbers. Rows are key positions of queries.
struct Window {
    /// Tokens per step.
    step: i64,
    /// Farthest allowed distance.
    reach: i64,
    global: i64,
    causal: bool,
}

impl Window {
    /// Allowed differences "query position minus key" outside global tokens: multiples of `step` in this range.
    fn allowed(&self) -> (i64, i64) {
        (if self.causal { 0 } else { -self.reach }, self.reach)
    }

    /// Classifies the block `rows` × `keys`, neither empty.
    fn cover(&self, rows: &Range<i64>, keys: &Range<i64>) -> Cover {
        if self.is_full(rows, keys) {
            return Cover::Full;
        }
        let (low, high) = self.allowed();
        let highest = high.min(rows.end - 1 - keys.start);
        let lowest = low.max(rows.start - (keys.end - 1));
        let in_band = highest.div_euclid(self.step) * self.step >= lowest;
        let row_sees_key = |last_row: i64, first_key: i64| !self.causal || first_key <= last_row;
        let global_key = keys.start < self.global && row_sees_key(rows.end - 1, keys.start);
        let last_global_row = (rows.end - 1).min(self.global - 1);
        let global_row = last_global_row >= rows.start.max(0) && row_sees_key(last_global_row, keys.start);
        if in_band || global_key || global_row { Cover::Partial } else { Cover::Absent }
    }

    fn is_full(&self, rows: &Range<i64>, keys: &Range<i64>) -> bool {
        if self.causal && keys.end - 1 > rows.start {
            return false;
        }
        let plain_keys = keys.start.max(self.global)..keys.end;
        // Global rows are 0..global; those before and after must be covered by the band.
        let before = rows.start..rows.end.min(0);
        let after = rows.start.max(if self.global > 0 { self.global } else { 0 })..rows.end;
        [before, after].iter().all(|rows| rows.is_empty() || plain_keys.is_empty() || self.in_band(rows, &plain_keys))
    }

    /// Whether the band alone allows every pair.
    fn in_band(&self, rows: &Range<i64>, keys: &Range<i64>) -> bool {
        let (low, high) = self.allowed();
        let lowest = rows.start - (keys.end - 1);
        let highest = rows.end - 1 - keys.start;
        let on_step = self.step == 1 || (lowest == highest && lowest % self.step == 0);
        on_step && lowest >= low && highest <= high
    }

    /// The first key at or after `from` that the band allows to some row. Used behind an absent block: global keys lie at the
    /// front and global rows see everything up to the diagonal, so after an absent block only the band can follow.
    fn next_key(&self, rows: &Range<i64>, from: i64) -> Option<i64> {
        let (low, high) = self.allowed();
        // The largest allowed difference that some row has with a key at or after `from`.
        let difference = high.min(rows.end - 1 - from).div_euclid(self.step) * self.step;
        (difference >= low).then(|| from.max(rows.start - difference))
    }
}
