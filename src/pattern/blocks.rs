//! Block lists: what is left of a rule once queries and keys are cut into blocks.

use super::build::push_block;

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

impl BlockList {
    /// The list of single pairs: `keys` holds the ascending keys of each query, for one head or for several in turn.
    ///
    /// # Panics
    /// When there isn't one list for each query of each head, or a key is out of order or of range.
    pub fn of_keys(keys: &[Vec<u32>], n: usize, m: usize) -> Self {
        assert!(n > 0 && keys.len().is_multiple_of(n), "one list of keys for each query of each head");
        let (mut offsets, mut all) = (vec![0], Vec::new());
        for keys in keys {
            let mut runs = Vec::new();
            for (at, &key) in keys.iter().enumerate() {
                assert!((key as usize) < m && (at == 0 || keys[at - 1] < key), "keys ascend and are fewer than {m}");
                push_block(&mut runs, key, true);
            }
            all.extend(runs);
            offsets.push(all.len() as u32);
        }
        Self { block_q: 1, block_k: 1, n, m, heads: keys.len() / n, offsets, runs: all }
    }

    /// The list of full blocks: `blocks` holds the key blocks of each query block, in any order, for one head or for several
    /// in turn. Those that do not exist, and repetitions, are passed over.
    pub fn of_blocks(blocks: &[Vec<u32>], n: usize, m: usize, block_q: usize, block_k: usize) -> Self {
        let (query_blocks, key_blocks) = (n.div_ceil(block_q), m.div_ceil(block_k));
        assert!(blocks.len().is_multiple_of(query_blocks), "one list of blocks for each query block of each head");
        let (mut offsets, mut all) = (vec![0], Vec::new());
        for blocks in blocks {
            let mut blocks: Vec<u32> = blocks.iter().copied().filter(|&b| (b as usize) < key_blocks).collect();
            blocks.sort_unstable();
            blocks.dedup();
            let mut runs = Vec::new();
            blocks.into_iter().for_each(|block| push_block(&mut runs, block, true));
            all.extend(runs);
            offsets.push(all.len() as u32);
        }
        Self { block_q, block_k, n, m, heads: blocks.len() / query_blocks, offsets, runs: all }
    }

    pub fn query_blocks(&self) -> usize {
        self.n.div_ceil(self.block_q)
    }

    pub fn key_blocks(&self) -> usize {
        self.m.div_ceil(self.block_k)
    }

    /// The runs of one query block of one head.
    pub fn runs_of(&self, head: usize, query_block: usize) -> &[Run] {
        let row = head % self.heads * self.query_blocks() + query_block;
        &self.runs[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// The list of one head alone.
    pub fn of_head(&self, head: usize) -> Self {
        let (mut offsets, mut runs) = (vec![0], Vec::new());
        for block in 0..self.query_blocks() {
            runs.extend_from_slice(self.runs_of(head, block));
            offsets.push(runs.len() as u32);
        }
        Self { heads: 1, offsets, runs, ..*self }
    }

    /// A list for each head: this one's first where `heads` says so, an empty one elsewhere.
    pub fn only_in(&self, heads: &[bool]) -> Self {
        let (mut offsets, mut runs) = (vec![0], Vec::new());
        for &takes_part in heads {
            for block in 0..self.query_blocks() {
                if takes_part {
                    runs.extend_from_slice(self.runs_of(0, block));
                }
                offsets.push(runs.len() as u32);
            }
        }
        Self { heads: heads.len(), offsets, runs, ..*self }
    }

    /// Whether a head visits the block of query `i` and key `j`.
    pub fn lists(&self, head: usize, i: usize, j: usize) -> bool {
        let (runs, block) = (self.runs_of(head, i / self.block_q), (j / self.block_k) as u32);
        let at = runs.partition_point(|r| r.first + r.count <= block);
        runs.get(at).is_some_and(|r| r.first <= block)
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
