//! A variant's effective matrix on the host, in the factored form of [`crate::attention::Effective`]: any cell or row of it
//! without ever holding all of it.

use crate::attention::{Cell, EffectiveKind};
use crate::graph::{Float, Matrix as View};
use crate::pattern::Rule;

/// The factors of one variant's matrices, one matrix for each (batch, head).
#[derive(Clone, Debug)]
pub struct Matrix {
    /// `[B, H, N, R]`.
    pub left: Vec<f32>,
    /// `[B, H, M, R]`.
    pub right: Vec<f32>,
    /// As [`EffectiveKind`] says; empty where there are none.
    pub row: Vec<f32>,
    pub kind: EffectiveKind,
    pub rule: Rule,
    pub n: usize,
    pub m: usize,
    /// R, the length of the factors' rows.
    pub rank: usize,
}

/// One row of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `left_i · right_j` for every key, allowed or not: the scores of a softmax method.
    pub products: Vec<f32>,
    /// Weights; 0 where the pattern forbids.
    pub weights: Vec<f32>,
}

impl Matrix {
    /// The value of an allowed cell of head `h` (batch · heads + head) from its product.
    pub fn weight(&self, h: usize, i: usize, j: usize, product: f32) -> f32 {
        match self.kind {
            EffectiveKind::Softmax => (product - self.row[h * self.n + i]).exp(),
            kind => kind.weight(product.into(), &self.row, Cell { head: h, i, j, n: self.n, m: self.m }) as f32,
        }
    }

    /// Whether query `i` of head `h` may attend to key `j`.
    pub fn may(&self, h: usize, i: usize, j: usize) -> bool {
        self.rule.may_in(h, i, j, self.n, self.m)
    }

    /// Row `i` of head `h`.
    pub fn row(&self, h: usize, i: usize) -> Row {
        let mut products = vec![0.0; self.m];
        self.products(h, i..i + 1, Columns { first: 0, count: self.m, step: 1 }, &mut products);
        let weights = products
            .iter()
            .enumerate()
            .map(|(j, &p)| if self.may(h, i, j) { self.weight(h, i, j, p) } else { 0.0 })
            .collect();
        Row { products, weights }
    }

    /// Products of some neighbouring rows with some columns, row-major into `out`; a filter's taps are added to them.
    pub fn products(&self, h: usize, rows: std::ops::Range<usize>, columns: Columns, out: &mut [f32]) {
        let column = |c: usize| columns.first + c * columns.step;
        if self.kind == EffectiveKind::Cells {
            for (out, i) in out.chunks_exact_mut(columns.count).zip(rows) {
                let cells = &self.left[(h * self.n + i) * self.m..][..self.m];
                out.iter_mut().enumerate().for_each(|(c, x)| *x = cells[column(c)]);
            }
            return;
        }
        let first = rows.start;
        let left = &self.left[(h * self.n + rows.start) * self.rank..(h * self.n + rows.end) * self.rank];
        let right = &self.right[(h * self.m + columns.first) * self.rank..(h + 1) * self.m * self.rank];
        let right = View {
            data: right,
            rows: self.rank,
            cols: columns.count,
            row_stride: 1,
            col_stride: self.rank * columns.step,
        };
        f32::gemm(View::new(left, rows.len(), self.rank), right, out, 1.0, false);
        if matches!(self.kind, EffectiveKind::Filtered { .. }) {
            for (index, x) in out[..rows.len() * columns.count].iter_mut().enumerate() {
                let (i, j) = (first + index / columns.count, column(index % columns.count));
                *x += self.kind.tap(h, i, j).map_or(0.0, |tap| self.row[tap]);
            }
        }
    }
}

/// Columns `first`, `first + step`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    pub first: usize,
    pub count: usize,
    pub step: usize,
}

/// 1 for the largest, counting those that are strictly larger.
pub fn rank_of(values: &[f32], j: usize) -> usize {
    1 + values.iter().filter(|&&x| x > values[j]).count()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::random::normal;

    /// Softmax attention of random q and k, its log-sum-exp computed here.
    pub fn softmax(n: usize, heads: usize, rank: usize, rule: Rule, seed: u64) -> Matrix {
        let draw = |stream, count| (0..count as u64).map(|i| normal(seed, stream, i) as f32).collect::<Vec<f32>>();
        let mut x = Matrix {
            left: draw(0, heads * n * rank),
            right: draw(1, heads * n * rank),
            row: vec![0.0; heads * n],
            kind: EffectiveKind::Softmax,
            rule,
            n,
            m: n,
            rank,
        };
        for h in 0..heads {
            for i in 0..n {
                let row = x.row(h, i);
                x.row[h * n + i] = row.weights.iter().sum::<f32>().ln();
            }
        }
        x
    }

    #[test]
    fn rows_are_those_of_the_definition() {
        let rule = Rule::Window { radius: 5, dilation: 1, global: 1, causal: true };
        let x = softmax(37, 2, 7, rule, 4);
        for h in 0..2 {
            for i in 0..37 {
                let row = x.row(h, i);
                let sum: f32 = row.weights.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5, "row {i} sums to {sum}");
                for j in 0..37 {
                    let at = |t: &[f32], r: usize| t[(h * 37 + r) * 7..(h * 37 + r + 1) * 7].to_vec();
                    let dot: f32 = at(&x.left, i).iter().zip(at(&x.right, j)).map(|(a, b)| a * b).sum();
                    assert!((row.products[j] - dot).abs() < 1e-5);
                    assert_eq!(row.weights[j] == 0.0, j > i || (i - j > 5 && j > 0), "({i}, {j})");
                }
            }
        }
    }

    #[test]
    fn ranks_count_what_is_larger() {
        let values = [0.25, 0.5, 0.25, 0.0];
        assert_eq!([0, 1, 2, 3].map(|j| rank_of(&values, j)), [2, 1, 2, 4]);
    }
}
