//! Softmax attention over any set of pairs, in loops.

use crate::attention::{Inputs, Setup};
use crate::graph::Real;

/// Row-major index into `[B, heads, rows, cols]`.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub heads: usize,
    pub rows: usize,
    pub cols: usize,
}

impl At {
    pub fn index(&self, b: usize, h: usize, row: usize, col: usize) -> usize {
        ((b * self.heads + h) * self.rows + row) * self.cols + col
    }
}

/// Whether key `j` of batch `b` is a real token, not padding.
pub fn is_real_key<R: Real>(x: &Inputs<Vec<R>>, s: &Setup, b: usize, j: usize) -> bool {
    x.key_padding.as_ref().is_none_or(|real| real[b * s.keys + j].to_f64() != 0.0)
}

/// Whether query `i` of batch `b` is a real token. In self-attention key padding says it of queries too; of queries of
/// another text nothing is said, and all are real.
pub fn is_real_query<R: Real>(x: &Inputs<Vec<R>>, s: &Setup, b: usize, i: usize) -> bool {
    !s.is_of_itself() || is_real_key(x, s, b, i)
}

/// `o_i = sum_j softmax_j(q_i . k_j / sqrt(D) + bias_ij) v_j` over the real keys `j` for which `allowed(i, j)`; zeros where
/// there are none; the bias is the extra tensor of that name, if given. `[B, H, N, D]`.
///
/// Vaswani et al., 2017, arXiv:1706.03762, eq. 1.
pub fn softmax_attention<R: Real>(x: &Inputs<Vec<R>>, s: &Setup, allowed: impl Fn(usize, usize) -> bool) -> Vec<R> {
    softmax_attention_by_head(x, s, |_, i, j| allowed(i, j))
}

/// [`softmax_attention`] where heads have patterns of their own: `allowed(h, i, j)`.
pub fn softmax_attention_by_head<R: Real>(
    x: &Inputs<Vec<R>>,
    s: &Setup,
    allowed: impl Fn(usize, usize, usize) -> bool,
) -> Vec<R> {
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: s.dim };
    let pairs = At { heads: s.heads, rows: s.length, cols: s.keys };
    let bias = x.extras.get("bias");
    let scale = R::one() / R::from_f64(s.dim as f64).sqrt();
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let visible: Vec<usize> =
                    (0..s.keys).filter(|&j| allowed(h, i, j) && is_real_key(x, s, b, j)).collect();
                let scores: Vec<R> = visible
                    .iter()
                    .map(|&j| {
                        let mut dot = R::zero();
                        for d in 0..s.dim {
                            dot += x.q[queries.index(b, h, i, d)] * x.k[keys.index(b, h, j, d)];
                        }
                        let score = dot * scale;
                        match bias {
                            Some(bias) => score + bias[pairs.index(b, h, i, j)],
                            None => score,
                        }
                    })
                    .collect();
                // Any constant may be subtracted before exp; the maximum keeps it from overflowing.
                let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
                let mut weights: Vec<R> = scores.iter().map(|&s| (s - largest).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                weights.iter_mut().for_each(|w| *w = *w / sum);
                for d in 0..s.dim {
                    let mut mixed = R::zero();
                    for (&j, &w) in visible.iter().zip(&weights) {
                        mixed += w * x.v[keys.index(b, h, j, d)];
                    }
                    out[queries.index(b, h, i, d)] = mixed;
                }
            }
        }
    }
    out
}
