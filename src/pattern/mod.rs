//! Patterns: which (query, key) pairs a method may score.
//!
//! A [`Rule`] says `may(i, j)`. From it comes a [`BlockList`]: which key blocks each query block visits. One fused kernel
//! serves every block list; the rule is evaluated only inside partial blocks.

mod blocks;
mod count;
mod rule;

pub use blocks::{BlockList, Run};
pub use rule::Rule;
