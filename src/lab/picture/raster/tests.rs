use super::super::super::experiment::Scale;
use super::super::super::matrix::tests::softmax;
use super::super::super::protocol::Viewport;
use super::*;
use crate::pattern::{BlockList, Rule};

const RULE: Rule = Rule::Window { radius: 9, dilation: 1, global: 2, causal: false };

fn scene(matrix: &Matrix, view: View, pool: Pool, width: usize, height: usize) -> Scene<'_> {
    let viewport = Viewport { row: 0.0, col: 0.0, rows: matrix.n as f64, cols: matrix.m as f64 };
    let (full, blocks, scale) = (None, None, Scale::Linear);
    Scene { view, matrix, full, blocks, head: 1, pool, scale, viewport, width, height, dark: false }
}

fn run(mut raster: Raster) -> Values {
    while raster.step() {}
    raster.finish()
}

/// The values of a whole matrix one cell a pixel.
fn dense(matrix: &Matrix, head: usize) -> Vec<f32> {
    (0..matrix.n).flat_map(|i| matrix.row(head, i).weights).collect()
}

/// A pixel's value by brute force over its cells.
fn expected(matrix: &Matrix, s: &Scene, x: usize, y: usize) -> f32 {
    let all = dense(matrix, s.head);
    let (rows, columns) = (s.area().rows(), s.area().columns());
    let mut cells = Vec::new();
    for i in rows[y].clone() {
        for j in columns[x].clone() {
            if matrix.may(0, i, j) {
                cells.push(all[i * matrix.m + j]);
            }
        }
    }
    match s.pool {
        _ if cells.is_empty() => ABSENT,
        Pool::Max => cells.iter().fold(0.0, |a: f32, &b| a.max(b)),
        Pool::Mean => cells.iter().sum::<f32>() / cells.len() as f32,
    }
}

#[test]
fn pixels_pool_the_cells_under_them() {
    let matrix = softmax(61, 2, 5, RULE, 3);
    for pool in [Pool::Max, Pool::Mean] {
        for (width, height) in [(61, 61), (20, 7), (150, 90)] {
            let mut s = scene(&matrix, View::Weights, pool, width, height);
            for viewport in [s.viewport, Viewport { row: 10.5, col: 3.25, rows: 17.0, cols: 40.0 }] {
                s.viewport = viewport;
                let got = run(Raster::exact(s));
                assert_eq!((got.domain, got.non_finite), ([0.0, 1.0], 0));
                for y in 0..height {
                    for x in 0..width {
                        let (got, want) = (got.cells[y * width + x], expected(&matrix, &s, x, y));
                        let close = got == want || (got - want).abs() < 1e-5;
                        assert!(close, "{pool:?} {width}x{height} {viewport:?} ({x}, {y}): {got}, not {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn masks_and_blocks_show_the_pattern() {
    let matrix = softmax(64, 2, 3, RULE, 3);
    let mask = run(Raster::exact(scene(&matrix, View::Mask, Pool::Max, 64, 64)));
    let blocks = BlockList::new(&RULE, 64, 64, 16, 16);
    let mut s = scene(&matrix, View::Blocks, Pool::Max, 64, 64);
    s.blocks = Some(&blocks);
    let visited = run(Raster::exact(s));
    for (at, &set) in mask.cells.iter().enumerate() {
        assert_eq!(set == 1.0, matrix.may(0, at / 64, at % 64));
        assert!(visited.cells[at] >= 0.5 || set == 0.0, "an allowed cell lies outside every visited block");
    }
    assert!(visited.cells.contains(&0.0) && visited.cells.contains(&0.5));
}

#[test]
fn a_difference_to_itself_is_nothing_and_to_full_is_signed() {
    let matrix = softmax(40, 2, 4, RULE, 9);
    let mut s = scene(&matrix, View::Difference, Pool::Max, 40, 40);
    s.full = Some(&matrix);
    let none = run(Raster::exact(s));
    assert!(none.cells.iter().all(|&x| x == 0.0));
    let mut all = matrix.clone();
    all.rule = Rule::All { causal: false };
    for h in 0..2 {
        for i in 0..40 {
            let row = all.row(h, i);
            all.row[h * 40 + i] += row.weights.iter().sum::<f32>().ln();
        }
    }
    s.full = Some(&all);
    let some = run(Raster::exact(s));
    // Forbidden cells lost weight, allowed ones gained it.
    let at = |i: usize, j: usize| some.cells[i * 40 + j];
    assert!(at(20, 39) < 0.0 && at(20, 20) > 0.0);
    assert_eq!(some.domain[0], -some.domain[1]);
    let sum: f32 = some.cells[20 * 40..21 * 40].iter().sum();
    assert!(sum.abs() < 1e-5, "a row of differences sums to {sum}");
}

#[test]
fn what_is_not_finite_is_counted() {
    let mut matrix = softmax(16, 2, 3, Rule::All { causal: false }, 1);
    matrix.row[16 + 5] = f32::NAN;
    let got = run(Raster::exact(scene(&matrix, View::Weights, Pool::Max, 16, 16)));
    assert_eq!(got.non_finite, 16);
}

#[test]
fn any_viewport_is_drawn() {
    let matrix = softmax(16, 2, 3, RULE, 1);
    for bad in [f64::NAN, f64::INFINITY, -1e30, 1e30, 0.0] {
        let mut s = scene(&matrix, View::Weights, Pool::Max, 9, 5);
        s.viewport = Viewport { row: bad, col: bad, rows: bad, cols: bad };
        assert_eq!(run(Raster::coarse(s)).cells.len(), 45);
        assert_eq!(run(Raster::exact(s)).cells.len(), 45);
    }
}
