//! Patterns: which (query, key) pairs a method may score.
//!
//! A [`Rule`] says `may(i, j)`. From it comes a [`BlockList`]: which key blocks each query block visits. One fused kernel
//! serves every block list; the rule is evaluated only inside partial blocks.

pub mod rule;

pub use rule::Rule;

/// A maximal run of neighbouring key blocks that one query block visits, all full or all partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First key block.
    pub first: u32,
    /// Number of key blocks.
    pub count: u32,
    /// Every pair in the run is allowed, so the rule need not be evaluated.
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
