//! Where things are on a plate: viewports, cells under a pointer, ticks, and the steps of the length slider.

use crate::lab::protocol::Viewport;

/// Shortest and longest sequence that the page offers.
pub const LENGTHS: std::ops::RangeInclusive<usize> = 16..=16_384;
/// Steps of the length slider per doubling.
const STEPS: usize = 4;
/// The closest zoom, in cells across.
const CLOSEST: f64 = 6.0;

/// The whole N×N matrix.
pub fn whole(n: usize) -> Viewport {
    Viewport { row: 0.0, col: 0.0, rows: n as f64, cols: n as f64 }
}

/// The viewport after zooming by `factor` (above 1: closer) around the point at (`x`, `y`), both 0 to 1 within the frame.
pub fn zoomed(view: Viewport, x: f64, y: f64, factor: f64, n: usize) -> Viewport {
    let n = n as f64;
    let rows = (view.rows / factor).clamp(CLOSEST.min(n), n);
    let cols = (view.cols / factor).clamp(CLOSEST.min(n), n);
    let moved = Viewport { row: view.row + y * (view.rows - rows), col: view.col + x * (view.cols - cols), rows, cols };
    panned(moved, 0.0, 0.0, n as usize)
}

/// The viewport moved by whole frames (`dx`, `dy`), kept inside the matrix.
pub fn panned(view: Viewport, dx: f64, dy: f64, n: usize) -> Viewport {
    let n = n as f64;
    Viewport {
        row: (view.row + dy * view.rows).clamp(0.0, (n - view.rows).max(0.0)),
        col: (view.col + dx * view.cols).clamp(0.0, (n - view.cols).max(0.0)),
        ..view
    }
}

/// The viewport moved as little as possible so that the cell lies inside it.
pub fn revealed(view: Viewport, row: usize, col: usize, n: usize) -> Viewport {
    let pull = |start: f64, span: f64, at: f64| {
        if at < start {
            at
        } else if at + 1.0 > start + span {
            at + 1.0 - span
        } else {
            start
        }
    };
    let moved =
        Viewport { row: pull(view.row, view.rows, row as f64), col: pull(view.col, view.cols, col as f64), ..view };
    panned(moved, 0.0, 0.0, n)
}

/// (query, key) under the point at (`x`, `y`), both 0 to 1 within the frame.
pub fn cell_at(view: Viewport, x: f64, y: f64, n: usize) -> (usize, usize) {
    let last = n.saturating_sub(1) as f64;
    let at = |start: f64, span: f64, t: f64| (start + t.clamp(0.0, 1.0) * span).floor().clamp(0.0, last) as usize;
    (at(view.row, view.rows, y), at(view.col, view.cols, x))
}

/// Whether the view shows less than the whole matrix.
pub fn is_close(view: Viewport, n: usize) -> bool {
    view.rows < n as f64 || view.cols < n as f64
}

/// Positions `start <= i < start + span` to be labelled, at a round distance, no more than `most`.
pub fn ticks(start: f64, span: f64, most: usize) -> Vec<usize> {
    let mut step = 1_usize;
    while span / step as f64 > most.max(1) as f64 {
        step *= 2;
    }
    let first = (start.max(0.0) / step as f64).ceil() as usize * step;
    (first..).step_by(step).take_while(|i| (*i as f64) < start + span - 0.5).collect()
}

/// Number of positions of the length slider.
pub fn length_positions() -> usize {
    (LENGTHS.end() / LENGTHS.start()).ilog2() as usize * STEPS + 1
}

/// The length at a position of the slider: powers of two and three steps between them.
pub fn length_at(position: usize) -> usize {
    let exact = *LENGTHS.start() as f64 * 2_f64.powf(position as f64 / STEPS as f64);
    (exact.round() as usize).clamp(*LENGTHS.start(), *LENGTHS.end())
}

/// The slider's position nearest to a length.
pub fn position_of(length: usize) -> usize {
    let octaves = (length.max(1) as f64 / *LENGTHS.start() as f64).log2();
    ((octaves * STEPS as f64).round().max(0.0) as usize).min(length_positions() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zooming_keeps_the_cell_under_the_pointer() {
        let n = 1000;
        let mut view = whole(n);
        let before = cell_at(view, 0.3, 0.7, n);
        for _ in 0..5 {
            view = zoomed(view, 0.3, 0.7, 1.5, n);
            assert_eq!(cell_at(view, 0.3, 0.7, n), before);
        }
        assert!(is_close(view, n));
        assert_eq!(zoomed(view, 0.3, 0.7, 1e-9, n), whole(n));
    }

    #[test]
    fn a_view_never_leaves_the_matrix() {
        let view = Viewport { row: 10.0, col: 10.0, rows: 20.0, cols: 20.0 };
        let far = panned(view, 99.0, -99.0, 64);
        assert_eq!((far.row, far.col), (0.0, 44.0));
        assert_eq!(revealed(view, 63, 0, 64), Viewport { row: 44.0, col: 0.0, ..view });
        assert_eq!(revealed(view, 15, 15, 64), view);
    }

    #[test]
    fn ticks_are_few_and_inside() {
        assert_eq!(ticks(0.0, 64.0, 8), [0, 8, 16, 24, 32, 40, 48, 56]);
        assert_eq!(ticks(10.5, 4.0, 10), [11, 12, 13]);
        assert!(ticks(0.0, 16_384.0, 8).len() <= 8);
    }

    #[test]
    fn the_length_slider_meets_every_power_of_two() {
        for power in 4..=14 {
            let length = 1 << power;
            assert_eq!(length_at(position_of(length)), length);
        }
        let all: Vec<usize> = (0..length_positions()).map(length_at).collect();
        assert!(all.is_sorted_by(|a, b| a < b));
    }
}
