//! Pictures of matrices computed on the host: the cells under each pixel become one value, values become colours. Serves
//! where there is no GPU, and is what the GPU's pictures are compared with.

pub mod colour;
mod raster;

pub use raster::{Raster, Values};

use super::experiment::{Pool, Scale, View};
use super::matrix::Matrix;
use super::protocol::Viewport;
use crate::pattern::BlockList;

/// What is to be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub view: View,
    pub matrix: &'a Matrix,
    /// The matrix that a difference is taken to.
    pub full: Option<&'a Matrix>,
    /// The blocks that the kernel visits.
    pub blocks: Option<&'a BlockList>,
    /// batch · heads + head.
    pub head: usize,
    pub pool: Pool,
    pub scale: Scale,
    pub viewport: Viewport,
    pub width: usize,
    pub height: usize,
    pub dark: bool,
}

/// What a pixel shows where there is no value: the pattern forbids all of its cells.
pub const ABSENT: f32 = f32::NEG_INFINITY;

impl Scene<'_> {
    /// The cells under pixel `x` of `pixels`: at least one, and every cell under exactly one pixel when zoomed out.
    pub fn cells(start: f64, extent: f64, pixels: usize, x: usize, count: usize) -> std::ops::Range<usize> {
        let edge = |x: usize| start + extent * x as f64 / pixels as f64;
        let last = count.saturating_sub(1);
        let first = (edge(x).floor().max(0.0) as usize).min(last);
        let end = (edge(x + 1).floor().max(0.0) as usize).clamp(first + 1, last + 1);
        first..end
    }

    /// The rectangle, kept inside the matrix and not smaller than a cell.
    pub fn clamped(&self) -> Viewport {
        let (n, m) = (self.matrix.n as f64, self.matrix.m as f64);
        let sane = |x: f64, low: f64, high: f64| if x.is_finite() { x.clamp(low, high) } else { low };
        let (rows, cols) = (sane(self.viewport.rows, 1.0, n), sane(self.viewport.cols, 1.0, m));
        Viewport {
            row: sane(self.viewport.row, 0.0, n - rows),
            col: sane(self.viewport.col, 0.0, m - cols),
            rows,
            cols,
        }
    }
}
