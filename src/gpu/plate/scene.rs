//! What a plate can show, and how far it is.

use crate::gpu::ledger::Buffer;
use std::ops::Range;
use std::rc::Rc;

/// How a cell's weight comes from its product and the row's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `exp(x - row)`.
    Softmax,
    /// `x / row`.
    Ratio,
    /// `x`.
    Plain,
    /// `x + row[j - i + ⌊taps / 2⌋]`.
    Filtered { taps: u32 },
    /// `left[i, j]`.
    Cells,
    /// `c [ε (x - t) - τ]_+ ^ (1/ε)`, `c exp(x - t)` where ε is 0: `row` has t, τ, c and a fourth number of each row, and then ε.
    Entmax,
    /// `f exp(x - row)` with a factor f by distance: `row` has N numbers, and then the factors.
    Spanned { distances: u32 },
    /// `exp(x - row)` for what meets: `row` has N numbers, N slots of each round, and what x is of a token with itself. A query
    /// meets the keys of its slot and of the one before, of which `chunks` go round.
    Chunked { rounds: u32, chunks: u32 },
}

impl Kind {
    /// As the kernels read it: the kind, and behind its first byte what else it has.
    pub(super) fn encode(self) -> u32 {
        match self {
            Kind::Softmax => 0,
            Kind::Ratio => 1,
            Kind::Plain => 2,
            Kind::Filtered { taps } => 3 | taps << 8,
            Kind::Cells => 4,
            Kind::Entmax => 5,
            Kind::Spanned { distances } => 6 | distances << 8,
            Kind::Chunked { rounds, chunks } => 7 | rounds << 8 | chunks << 12,
        }
    }
}

/// An effective matrix in factors, on the device.
#[derive(Clone, Debug)]
pub struct Factors {
    /// `[B, H, N, R]`.
    pub left: Rc<Buffer>,
    /// `[B, H, M, R]`.
    pub right: Rc<Buffer>,
    /// `[B, H, N]`, or as the kind says; none for [`Kind::Plain`] and [`Kind::Cells`].
    pub row: Option<Rc<Buffer>>,
    /// R.
    pub rank: usize,
    pub kind: Kind,
    /// The rule as `shaders/lib/mask.wesl` reads it.
    pub mask: [u32; 8],
}

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Share of allowed cells.
    Pattern([u32; 8]),
    /// Blocks visited: of each query block and key block 0 absent, 1 partial, 2 full.
    Visited {
        kinds: &'a [u32],
        block_q: usize,
        block_k: usize,
    },
    Scores(&'a Factors),
    Weights(&'a Factors),
    /// Weights of the first less weights of the second.
    Difference(&'a Factors, &'a Factors),
}

/// One picture.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    pub content: Content<'a>,
    /// Queries and keys.
    pub n: usize,
    pub m: usize,
    /// batch · heads + head.
    pub head: usize,
    /// The mean over a pixel's allowed cells, or the largest by size.
    pub mean: bool,
    /// Where the pattern is only listed ([`crate::pattern::LISTED`]; the first of two compared ones), a bit for each of its
    /// blocks.
    pub listed: &'a [u32],
    /// The cells under each pixel row and pixel column; none is empty.
    pub rows: &'a [Range<usize>],
    pub columns: &'a [Range<usize>],
}

/// How far a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// False while single cells stand for many.
    pub exact: bool,
    pub done: usize,
    pub total: usize,
}

/// What a picture holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The largest size of a finite value.
    pub largest: f32,
    /// Values that are NaN or infinite.
    pub non_finite: u32,
}
