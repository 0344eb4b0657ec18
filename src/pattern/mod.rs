//! Patterns: which (query, key) pairs a method may score.
//!
//! A [`Rule`] says `may(i, j)`. For counting and listing it also gives the keys of a query as a few arithmetic progressions
//! ([`Span`]s), so that nothing is ever tried pair by pair. From these comes a [`BlockList`]: which key blocks each query block
//! visits. One fused kernel serves every block list; the rule is evaluated only inside partial blocks. A new pattern is a
//! [`Rule`], its spans, and its branch in `shaders/lib/mask.wesl`.

mod bits;
mod blocks;
mod build;
mod count;
mod encode;
pub mod expression;
mod rule;
mod spans;

pub use bits::Bits;
pub use blocks::{BlockList, Run};
pub use encode::LISTED;
pub use rule::{Part, Rule};
pub use spans::Span;
