//! Pictures of matrices computed on the host: the cells under each pixel become one value, values become colours. Serves
//! where there is no GPU, and is what the GPU's pictures are compared with.

mod area;
pub mod colour;
mod raster;

pub use area::Area;
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
    pub fn area(&self) -> Area {
        let (n, m) = (self.matrix.n, self.matrix.m);
        Area { viewport: self.viewport, width: self.width, height: self.height, n, m }
    }
}
