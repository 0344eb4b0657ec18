//! The effective matrix: the N×M matrix A with output = A·V, whatever way a variant computes it.

use super::Setup;
use crate::graph::Node;
use crate::pattern::Rule;

/// The effective matrix in factored form: `A[i, j] = may(i, j) · f(left_i · right_j, row_i)`, so that any cell of it can be
/// had without an N×N buffer. Columns of padded keys and, in self-attention, rows of padded queries are zero beside that.
#[derive(Clone, Debug)]
pub struct Effective {
    /// `[B, H, N, R]`.
    pub left: Node,
    /// `[B, H, M, R]`.
    pub right: Node,
    /// `[B, H, N]`, as `kind` says; none for `Plain` and `Cells`.
    pub row: Option<Node>,
    /// `[B, H, N, M]`, added to the product, where one was given.
    pub bias: Option<Node>,
    pub kind: EffectiveKind,
    /// Cells outside the rule are zero.
    pub rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum EffectiveKind {
    /// `exp(x - row)`: softmax weights from scores and their log-sum-exp. `x` alone is the score.
    Softmax,
    /// `x / row`.
    Ratio,
    /// `x`.
    Plain,
    /// `x + row[j - i + ⌊taps / 2⌋]`: a filter along the diagonals beside the product; `row` is `[B, H, taps]`, taps odd.
    Filtered { taps: usize },
    /// The cells themselves, for patterns that depend on the data and have no factors: `left` is `[B, H, N, M]`, and `right` is
    /// not read. Only for as long a sequence as a device has a tensor for.
    Cells,
}

impl EffectiveKind {
    /// One allowed cell from the product `left_i · right_j` and the row's value.
    pub fn cell(self, product: f64, row: f64) -> f64 {
        match self {
            EffectiveKind::Softmax => (product - row).exp(),
            EffectiveKind::Ratio => product / row,
            EffectiveKind::Plain | EffectiveKind::Filtered { .. } | EffectiveKind::Cells => product,
        }
    }

    /// Whether every query has a value of its own in `row`.
    pub fn has_row_values(self) -> bool {
        matches!(self, EffectiveKind::Softmax | EffectiveKind::Ratio)
    }

    /// Where the filter of head `head` (batch · heads + head) has its tap for a cell; none where it has none there.
    pub fn tap(self, head: usize, i: usize, j: usize) -> Option<usize> {
        match self {
            EffectiveKind::Filtered { taps } => {
                (j + taps / 2).checked_sub(i).filter(|&tap| tap < taps).map(|tap| head * taps + tap)
            }
            _ => None,
        }
    }
}

/// Values of the factors, as read from a back end.
#[derive(Clone, Copy, Debug)]
pub struct EffectiveFactors<'a> {
    pub left: &'a [f32],
    pub right: &'a [f32],
    pub row: Option<&'a [f32]>,
    /// As given to the run.
    pub bias: Option<&'a [f32]>,
    pub kind: EffectiveKind,
    pub rule: &'a Rule,
}

impl EffectiveFactors<'_> {
    /// The whole matrix, `[B, H, N, M]`. `key_padding` is `[B, M]`, 1 = real.
    pub fn dense(&self, s: &Setup, key_padding: Option<&[u32]>) -> Vec<f32> {
        let (n, m) = (s.length, s.keys);
        let rank = self.left.len() / (s.instances() * n);
        let mut cells = vec![0.0; s.instances() * n * m];
        for (row, cells) in cells.chunks_exact_mut(m).enumerate() {
            let (instance, i) = (row / n, row % n);
            let is_real = |j: usize| key_padding.is_none_or(|real| real[instance / s.heads * m + j] != 0);
            if n == m && !is_real(i) {
                continue;
            }
            let left = &self.left[row * rank..][..rank];
            let row_value =
                self.row.filter(|_| self.kind.has_row_values()).map_or(0.0, |values| f64::from(values[row]));
            let may = |j: usize| self.rule.may_in(self.rule.head_of(instance, s.heads), i, j, n, m) && is_real(j);
            for (j, cell) in cells.iter_mut().enumerate().filter(|(j, _)| may(*j)) {
                let product: f64 = if self.kind == EffectiveKind::Cells {
                    left[j].into()
                } else {
                    let right = &self.right[(instance * m + j) * rank..][..rank];
                    left.iter().zip(right).map(|(&l, &r)| f64::from(l) * f64::from(r)).sum()
                };
                let tap = self.kind.tap(instance, i, j).and_then(|tap| Some(f64::from(self.row?[tap])));
                let product = product + tap.unwrap_or(0.0);
                let bias = self.bias.map_or(0.0, |bias| f64::from(bias[row * m + j]));
                *cell = self.kind.cell(product + bias, row_value) as f32;
            }
        }
        cells
    }
}
