//! Helpers of the naive references: the recording scalar.

/// A scalar that records its own computation, for reverse-mode gradients in f64. See `tape`.
#[derive(Clone, Copy, Debug)]
pub struct Tape;
