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
    /// `[B, H, N]` or what else `kind` says; none for `Plain` and `Cells`.
    pub row: Option<Node>,
    /// `[B, H, N, M]`, added to the product, where one was given.
    pub bias: Option<Node>,
    pub kind: EffectiveKind,
    /// Cells outside the rule are zero.
    pub rule: Rule,
}

/// Slots from here on are those of tokens that are never seen.
const NEVER_SEEN: u64 = 1 << 31;

/// Where a cell is: batch · heads + head, query and key, and how many of them there are.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub head: usize,
    pub i: usize,
    pub j: usize,
    pub n: usize,
    pub m: usize,
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
    /// α-entmax, `x` alone being the score. `row` is `[B, H, 4 N + 1]`: of each row its largest score t, τ, the share c of a weight
    /// and a number that says nothing, and behind them ε = α - 1. A weight is `c [ε (x - t) - τ]_+ ^ (1/ε)`, and
    /// `c exp(x - t)` where ε is 0.
    Entmax,
    /// `f exp(x - row)`, `x` alone being the score, with a factor by the distance of query and key: `row` is `[B, H, N + distances]`,
    /// the log-sum-exp of each row and then the factors from distance 0 on. Farther ones are 0.
    Spanned { distances: usize },
    /// `exp(x - row)` for what meets in any of several rounds, `x` alone being the score: `row` is `[B, H, N + rounds N + 1]`, the
    /// log-sum-exp of each row, in each round each token's slot, which is its bucket times `chunks` plus its chunk or beyond
    /// all where it is never seen, and the score of a token with itself. A query meets the keys of its own slot and of the
    /// one before, before the first chunk being the last.
    Chunked { rounds: usize, chunks: usize },
    /// The cells themselves, for patterns that depend on the data and have no factors: `left` is `[B, H, N, M]`, and `right` is
    /// not read. Only for as long a sequence as a device has a tensor for.
    Cells,
}

impl EffectiveKind {
    /// One allowed cell from the product `left_i · right_j` and all of `row`.
    pub fn weight(self, product: f64, row: &[f32], at: Cell) -> f64 {
        let Cell { head, i, j, n, m } = at;
        let own = |of_head: usize| row[head * of_head..][..of_head].iter().map(|&x| f64::from(x));
        let value = |of_head: usize, place: usize| f64::from(row[head * of_head + place]);
        match self {
            EffectiveKind::Softmax => (product - value(n, i)).exp(),
            EffectiveKind::Ratio => product / value(n, i),
            EffectiveKind::Plain | EffectiveKind::Filtered { .. } | EffectiveKind::Cells => product,
            EffectiveKind::Entmax => {
                let of_head = 4 * n + 1;
                let [top, tau, share] = [0, 1, 2].map(|at| value(of_head, 4 * i + at));
                let (epsilon, below) = (value(of_head, 4 * n), product - top);
                let above = epsilon * below - tau;
                match epsilon == 0.0 {
                    true => share * below.exp(),
                    false if above <= 0.0 => 0.0,
                    false => share * above.powf(1.0 / epsilon),
                }
            }
            EffectiveKind::Spanned { distances } => {
                let distance = (i + m).abs_diff(j + n);
                let factor = own(n + distances).nth(n + distance).unwrap_or(0.0);
                if factor == 0.0 { 0.0 } else { factor * (product - value(n + distances, i)).exp() }
            }
            EffectiveKind::Chunked { rounds, chunks } => {
                let of_head = n + rounds * n + 1;
                let slot = |round: usize, token: usize| value(of_head, (1 + round) * n + token) as u64;
                let before =
                    |slot: u64| if slot.is_multiple_of(chunks as u64) { slot + chunks as u64 - 1 } else { slot - 1 };
                let meets = |round: usize| {
                    let (own, other) = (slot(round, i), slot(round, j));
                    own < NEVER_SEEN && (other == own || other == before(own))
                };
                let score = if i == j { value(of_head, of_head - 1) } else { product };
                if (0..rounds).any(meets) { (score - value(of_head, i)).exp() } else { 0.0 }
            }
        }
    }

    /// Whether the product alone is what a softmax or one of its kin is taken of.
    pub fn has_scores(self) -> bool {
        !matches!(self, EffectiveKind::Plain | EffectiveKind::Filtered { .. } | EffectiveKind::Cells)
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
                let at = Cell { head: instance, i, j, n, m };
                *cell = self.kind.weight(product + bias, self.row.unwrap_or(&[]), at) as f32;
            }
        }
        cells
    }
}
