//! Which cells lie under which pixel.

use crate::lab::protocol::Viewport;
use std::ops::Range;

/// A rectangle of an n×m matrix on so many pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    pub viewport: Viewport,
    pub width: usize,
    pub height: usize,
    pub n: usize,
    pub m: usize,
}

impl Area {
    /// The cells under each pixel row.
    pub fn rows(&self) -> Vec<Range<usize>> {
        let v = self.clamped();
        (0..self.height).map(|y| cells(v.row, v.rows, self.height, y, self.n)).collect()
    }

    /// The cells under each pixel column.
    pub fn columns(&self) -> Vec<Range<usize>> {
        let v = self.clamped();
        (0..self.width).map(|x| cells(v.col, v.cols, self.width, x, self.m)).collect()
    }

    /// The rectangle, kept inside the matrix and not smaller than a cell.
    pub fn clamped(&self) -> Viewport {
        let (n, m) = (self.n as f64, self.m as f64);
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

/// The cells under pixel `x` of `pixels`: at least one, and every cell under exactly one pixel when zoomed out.
fn cells(start: f64, extent: f64, pixels: usize, x: usize, count: usize) -> Range<usize> {
    let edge = |x: usize| start + extent * x as f64 / pixels as f64;
    let last = count.saturating_sub(1);
    let first = (edge(x).floor().max(0.0) as usize).min(last);
    let end = (edge(x + 1).floor().max(0.0) as usize).clamp(first + 1, last + 1);
    first..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_under_one_pixel() {
        for (count, pixels) in [(100, 7), (64, 64), (16384, 700)] {
            let viewport = Viewport { row: 0.0, col: 0.0, rows: count as f64, cols: count as f64 };
            let area = Area { viewport, width: pixels, height: pixels, n: count, m: count };
            for ranges in [area.rows(), area.columns()] {
                let end = ranges.iter().fold(0, |next, range| {
                    assert_eq!(range.start, next);
                    range.end
                });
                assert_eq!(end, count);
            }
        }
    }

    #[test]
    fn a_mad_viewport_is_brought_inside() {
        let viewport = Viewport { row: f64::NAN, col: 1e9, rows: 0.0, cols: f64::INFINITY };
        let area = Area { viewport, width: 3, height: 4, n: 5, m: 6 };
        assert_eq!(area.rows(), vec![0..1; 4]);
        assert!(area.columns().iter().all(|range| range.end <= 6 && !range.is_empty()));
    }
}
