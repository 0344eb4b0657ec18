//! What the naive definitions share: the recording scalar, and softmax attention in plain loops.
//!
//! A naive definition is written once, generic over [`crate::graph::Real`]: in f64 it gives values, in [`Tape`] gradients.
//! It is for tests and error figures, and written straight from the paper: no blocking, no shortcuts.

mod softmax;
mod tape;

pub use softmax::{At, is_real_key, is_real_query, softmax_attention, softmax_attention_by_head};
pub use tape::{Tape, gradients};
