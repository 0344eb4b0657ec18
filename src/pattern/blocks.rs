//! Block lists: what is left of a rule once queries and keys are cut into blocks.

use super::Rule;
use std::ops::Range;

/// A maximal run of neighbouring key blocks that one query block visits, all full or all partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First key block.
    pub first: u32,
    /// Number of key blocks, at least 1.
    pub count: u32,
    /// Every pair in the run is allowed, so the rule need not be evaluated. Pairs beyond N or M do not count: a kernel
    /// guards the ragged last block either way.
    pub full: bool,
}

/// For each query block, the runs of key blocks it visits, ascending and without overlap. Runs keep a dense list linear in
/// the number of query blocks. All heads share one list when `heads` is 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockList {
    /// Rows of a query block and of a key block.
    pub block_q: usize,
    pub block_k: usize,
    /// Number of queries N and keys M.
    pub n: usize,
    pub m: usize,
    pub heads: usize,
    /// `[heads * query_blocks + 1]`: where each query block's runs begin.
    pub offsets: Vec<u32>,
    pub runs: Vec<Run>,
}

/// What a rule allows of one block of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover {
    Absent,
    Partial,
    Full,
}

impl BlockList {
    /// The list of a known rule, shared by all heads: a block is absent where no pair of it is allowed, full where all are.
    ///
    /// Takes time linear in the blocks visited (in the query blocks for [`Rule::All`]), never in N·M.
    pub fn new(rule: &Rule, n: usize, m: usize, block_q: usize, block_k: usize) -> Self {
        assert!(block_q > 0 && block_k > 0, "blocks must have rows");
        let mut builder = Builder { offsets: vec![0], runs: Vec::new() };
        for first_row in (0..n).step_by(block_q) {
            let position = |i: usize| i as i64 + m as i64 - n as i64;
            let rows = position(first_row)..position((first_row + block_q).min(n));
            match rule {
                Rule::All { causal } => builder.dense(&rows, m, block_k, *causal),
                Rule::Window { radius, dilation, global, causal } => {
                    let window = Window {
                        step: i64::from((*dilation).max(1)),
                        reach: i64::from(*radius) * i64::from((*dilation).max(1)),
                        global: i64::from(*global),
                        causal: *causal,
                    };
                    builder.window(&window, &rows, m, block_k);
                }
            }
            builder.offsets.push(builder.runs.len() as u32);
        }
        Self { block_q, block_k, n, m, heads: 1, offsets: builder.offsets, runs: builder.runs }
    }

    /// The list of single pairs: `keys` holds the ascending keys of each query, for one head or for several in turn.
    ///
    /// # Panics
    /// When there isn't one list for each query of each head, or a key is out of order or of range.
    pub fn of_keys(keys: &[Vec<u32>], n: usize, m: usize) -> Self {
        assert!(n > 0 && keys.len().is_multiple_of(n), "one list of keys for each query of each head");
        let mut builder = Builder { offsets: vec![0], runs: Vec::new() };
        for keys in keys {
            let mut runs = Vec::new();
            for (at, &key) in keys.iter().enumerate() {
                assert!((key as usize) < m && (at == 0 || keys[at - 1] < key), "keys ascend and are fewer than {m}");
                push_block(&mut runs, key, true);
            }
            builder.runs.extend(runs);
            builder.offsets.push(builder.runs.len() as u32);
        }
        let heads = keys.len() / n;
        Self { block_q: 1, block_k: 1, n, m, heads, offsets: builder.offsets, runs: builder.runs }
    }

    pub fn query_blocks(&self) -> usize {
        self.n.div_ceil(self.block_q)
    }

    pub fn key_blocks(&self) -> usize {
        self.m.div_ceil(self.block_k)
    }

    /// The runs of one query block of one head.
    pub fn runs_of(&self, head: usize, query_block: usize) -> &[Run] {
        let row = if self.heads == 1 { 0 } else { head } * self.query_blocks() + query_block;
        &self.runs[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// Blocks visited by one head, or by all listed heads together where each has a list of its own.
    pub fn visited(&self) -> u64 {
        self.runs.iter().map(|r| u64::from(r.count)).sum()
    }

    /// Blocks that there are, counted like [`BlockList::visited`].
    pub fn total(&self) -> u64 {
        self.heads as u64 * self.query_blocks() as u64 * self.key_blocks() as u64
    }

    /// Pairs that the kernel scores, counted like [`BlockList::visited`]: those inside visited blocks, allowed or not,
    /// without the padding of ragged blocks.
    pub fn pairs(&self) -> u64 {
        let mut pairs = 0;
        for (row, bounds) in self.offsets.windows(2).enumerate() {
            let first_row = row % self.query_blocks() * self.block_q;
            let rows = self.block_q.min(self.n - first_row) as u64;
            for run in &self.runs[bounds[0] as usize..bounds[1] as usize] {
                let first = run.first as usize * self.block_k;
                let end = ((run.first + run.count) as usize * self.block_k).min(self.m);
                pairs += rows * (end - first) as u64;
            }
        }
        pairs
    }

    /// The same blocks listed by key block: for each key block the runs of query blocks that visit it. In the result "query"
    /// means key and the other way round. The backward pass walks it for dk and dv.
    pub fn transposed(&self) -> Self {
        let (query_blocks, key_blocks) = (self.query_blocks(), self.key_blocks());
        let mut columns: Vec<Vec<Run>> = vec![Vec::new(); self.heads * key_blocks];
        for head in 0..self.heads {
            for query_block in 0..query_blocks {
                for run in self.runs_of(head, query_block) {
                    for key_block in run.first..run.first + run.count {
                        push_block(&mut columns[head * key_blocks + key_block as usize], query_block as u32, run.full);
                    }
                }
            }
        }
        let mut offsets = vec![0];
        let mut runs = Vec::new();
        for column in columns {
            runs.extend(column);
            offsets.push(runs.len() as u32);
        }
        Self { block_q: self.block_k, block_k: self.block_q, n: self.m, m: self.n, heads: self.heads, offsets, runs }
    }

    /// Two constants for a kernel: `offsets` as they are, and the runs as pairs of words: the first key block, then
    /// `count * 2 + full`. Where there are no runs at all, one pair of zeros stands in, since a binding cannot be empty.
    pub fn pack(&self) -> (Vec<u32>, Vec<u32>) {
        let mut words: Vec<u32> = self.runs.iter().flat_map(|r| [r.first, r.count * 2 + u32::from(r.full)]).collect();
        if words.is_empty() {
            words = vec![0, 0];
        }
        (self.offsets.clone(), words)
    }
}

/// Appends a block, growing the last run where it touches it and has the same cover.
fn push_block(runs: &mut Vec<Run>, block: u32, full: bool) {
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
