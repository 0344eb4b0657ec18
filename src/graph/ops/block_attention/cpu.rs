//! Fused attention on the CPU: a block of queries against a tile of keys at a time, as two matrix products with an online
//! softmax in between. Memory is linear in the length.

use super::BlockAttention;
use crate::graph::real::exp_f32;
use crate::graph::{Float, Matrix};
use std::any::TypeId;
use std::ops::Range;

/// Keys of a tile: enough for the matrix product to run well, few enough for the scores to stay in cache.
const TILE: usize = 256;
/// Most query rows of a tile.
const ROWS: usize = 64;
/// What a masked pair scores, and where maxima start; see the kernels' text.
const LOWEST: f64 = -2e30;
pub(super) const EMPTY: f64 = -1e30;

/// The tensors of one call, and how the bias is broadcast.
pub struct Call<'a, R> {
    pub op: &'a BlockAttention,
    pub batch: usize,
    pub heads: usize,
    pub n: usize,
    pub m: usize,
    pub dim: usize,
    pub q: &'a [R],
    pub k: &'a [R],
    pub v: &'a [R],
    pub padding: Option<&'a [u32]>,
    pub bias: Option<&'a [R]>,
    /// Planes of the bias to step for a batch entry and for a head.
    pub bias_strides: (usize, usize),
    /// Length of a head's row and the rows; see [`super::BlockAttentionOptions::distances`].
    pub distances: Option<(usize, &'a [R])>,
}

/// One visited tile: head, rows of queries and of keys, and whether the rule must be asked.
pub(super) struct Tile {
    pub head: usize,
    pub rows: Range<usize>,
    pub keys: Range<usize>,
    partial: bool,
}

impl<R: Float> Call<'_, R> {
    /// `(o, lse)`.
    pub fn forward(&self) -> (Vec<R>, Vec<R>) {
        if self.op.gathers() {
            return self.forward_rows();
        }
        let (n, dim, total) = (self.n, self.dim, self.batch * self.heads);
        let mut o = vec![R::zero(); total * n * dim];
        let mut lse = vec![R::from_f64(EMPTY); total * n];
        let mut scores = Vec::new();
        for head in 0..total {
            for (block, rows) in self.row_tiles() {
                let out = &mut o[(head * n + rows.start) * dim..][..rows.len() * dim];
                let mut top = vec![R::from_f64(EMPTY); rows.len()];
                let mut sum = vec![R::zero(); rows.len()];
                self.tiles(head, block, &rows, |tile| {
                    self.scores(&tile, &mut scores);
                    for (r, s) in scores.chunks_exact_mut(tile.keys.len()).enumerate() {
                        let new = maximum(s).maximum(top[r]);
                        let keep = (top[r] - new).exp();
                        top[r] = new;
                        exp_minus(s, new);
                        sum[r] = sum[r] * keep + total_of(s);
                        out[r * dim..(r + 1) * dim].iter_mut().for_each(|x| *x = *x * keep);
                    }
                    let p = Matrix::new(&scores, rows.len(), tile.keys.len());
                    R::gemm(p, self.tensor(self.v, self.m, head, &tile.keys), out, R::one(), true);
                });
                for (r, row) in out.chunks_exact_mut(dim).enumerate() {
                    if sum[r] == R::zero() {
                        row.fill(R::zero());
                        continue;
                    }
                    let share = R::one() / sum[r];
                    row.iter_mut().for_each(|x| *x = *x * share);
                    lse[head * n + rows.start + r] = top[r] + sum[r].ln();
                }
            }
        }
        (o, lse)
    }

    /// `(dq, dk, dv)` from the outputs of [`Call::forward`] and their gradients.
    pub fn backward(&self, o: &[R], lse: &[R], dout: &[R], dlse: Option<&[R]>) -> (Vec<R>, Vec<R>, Vec<R>) {
        let (n, m, dim, total) = (self.n, self.m, self.dim, self.batch * self.heads);
        let delta = self.delta(o, dout, dlse);
        if self.op.gathers() {
            return self.backward_rows(lse, dout, &delta);
        }
        let scale = R::from_f64(self.op.scale);
        let mut dq = vec![R::zero(); total * n * dim];
        let mut dk = vec![R::zero(); total * m * dim];
        let mut dv = vec![R::zero(); total * m * dim];
        self.each_gradient(lse, dout, &delta, |tile, p, ds| {
            let (head, rows) = (tile.head, &tile.rows);
            let key_at = (head * m + tile.keys.start) * dim;
            let (count, width) = (rows.len(), tile.keys.len());
            let (p, ds) = (Matrix::new(p, count, width), Matrix::new(ds, count, width));
            let keys = self.tensor(self.k, m, head, &tile.keys);
            let (queries, g) = (self.tensor(self.q, n, head, rows), self.tensor(dout, n, head, rows));
            R::gemm(ds, keys, &mut dq[(head * n + rows.start) * dim..][..count * dim], scale, true);
            R::gemm(ds.t(), queries, &mut dk[key_at..][..width * dim], scale, true);
            R::gemm(p.t(), g, &mut dv[key_at..][..width * dim], R::one(), true);
        });
        (dq, dk, dv)
    }

    /// The gradient of the bias of each head, `[B, H, N, M]`: that of the scores.
    pub fn backward_bias(&self, o: &[R], lse: &[R], dout: &[R], dlse: Option<&[R]>) -> Vec<R> {
        let (n, m) = (self.n, self.m);
        let delta = self.delta(o, dout, dlse);
        if self.op.gathers() {
            return self.backward_bias_rows(lse, dout, &delta);
        }
        let mut dbias = vec![R::zero(); self.batch * self.heads * n * m];
        self.each_gradient(lse, dout, &delta, |tile, _, ds| {
            for (row, ds) in tile.rows.clone().zip(ds.chunks_exact(tile.keys.len())) {
                dbias[(tile.head * n + row) * m + tile.keys.start..][..ds.len()].copy_from_slice(ds);
            }
        });
        dbias
    }

    /// `rowsum(dout * o) - dlse`.
    pub(super) fn delta(&self, o: &[R], dout: &[R], dlse: Option<&[R]>) -> Vec<R> {
        let rows = o.chunks_exact(self.dim).zip(dout.chunks_exact(self.dim));
        rows.enumerate()
            .map(|(i, (o, dout))| {
                let product = o.iter().zip(dout).fold(R::zero(), |sum, (&a, &b)| sum + a * b);
                product - dlse.map_or(R::zero(), |d| d[i])
            })
            .collect()
    }

    /// Visits the weights p of every tile, and the gradient ds of its scores.
    pub(super) fn each_gradient(&self, lse: &[R], dout: &[R], delta: &[R], mut visit: impl FnMut(&Tile, &[R], &[R])) {
        let (mut p, mut ds) = (Vec::new(), Vec::new());
        for head in 0..self.batch * self.heads {
            for (block, rows) in self.row_tiles() {
                self.tiles(head, block, &rows, |tile| {
                    let (count, width) = (tile.rows.len(), tile.keys.len());
                    self.scores(&tile, &mut p);
                    ds.resize(count * width, R::zero());
                    let g = self.tensor(dout, self.n, head, &tile.rows);
                    R::gemm(g, self.tensor(self.v, self.m, head, &tile.keys).t(), &mut ds, R::one(), false);
                    for r in 0..count {
                        let i = head * self.n + tile.rows.start + r;
                        let (p, ds) = (&mut p[r * width..][..width], &mut ds[r * width..][..width]);
                        exp_minus(p, lse[i]);
                        ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = *p * (*ds - delta[i]));
                    }
                    visit(&tile, &p, &ds);
                });
            }
        }
    }

    /// Query blocks, large ones in pieces, and their rows.
    fn row_tiles(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (size, n) = (self.op.list.block_q, self.n);
        (0..self.op.list.query_blocks()).flat_map(move |block| {
            let end = ((block + 1) * size).min(n);
            (block * size..end).step_by(ROWS).map(move |first| (block, first..(first + ROWS).min(end)))
        })
    }

    fn tensor<'x>(&self, x: &'x [R], length: usize, head: usize, rows: &Range<usize>) -> Matrix<'x, R> {
        let rows_at = (head * length + rows.start) * self.dim;
        Matrix::new(&x[rows_at..][..rows.len() * self.dim], rows.len(), self.dim)
    }

    /// Visits the tiles of some rows of one query block.
    fn tiles(&self, head: usize, block: usize, rows: &Range<usize>, mut visit: impl FnMut(Tile)) {
        let list = &self.op.list;
        for run in list.runs_of(head, block) {
            let stop = ((run.first + run.count) as usize * list.block_k).min(self.m);
            for start in (run.first as usize * list.block_k..stop).step_by(TILE) {
                let keys = start..(start + TILE).min(stop);
                if self.out_of_reach(head, rows, &keys) {
                    continue;
                }
                visit(Tile { head, rows: rows.clone(), keys, partial: !run.full });
            }
        }
    }

    /// Scores of a tile, those of disallowed pairs lowest of all.
    fn scores(&self, tile: &Tile, scores: &mut Vec<R>) {
        let (head, width) = (tile.head, tile.keys.len());
        scores.resize(tile.rows.len() * width, R::zero());
        let q = self.tensor(self.q, self.n, head, &tile.rows);
        let k = self.tensor(self.k, self.m, head, &tile.keys);
        R::gemm(q, k.t(), scores, R::from_f64(self.op.scale), false);
        let lowest = R::from_f64(LOWEST);
        let (b, h) = (head / self.heads, head % self.heads);
        let rule_head = self.op.rule.head_of(head, self.heads);
        for (s, i) in scores.chunks_exact_mut(width).zip(tile.rows.clone()) {
            if let Some(bias) = self.bias {
                let plane = b * self.bias_strides.0 + h * self.bias_strides.1;
                let bias = &bias[(plane * self.n + i) * self.m + tile.keys.start..][..width];
                s.iter_mut().zip(bias).for_each(|(s, &bias)| *s += bias);
            }
            if let Some(numbers) = self.distances_of(head) {
                for (s, j) in s.iter_mut().zip(tile.keys.clone()) {
                    let factor = numbers[(1 + self.distance(i, j)).min(numbers.len() - 1)];
                    *s = if factor > R::zero() { *s + factor.ln() } else { lowest };
                }
            }
            if tile.partial {
                for (s, j) in s.iter_mut().zip(tile.keys.clone()) {
                    if !self.op.rule.may_in(rule_head, i, j, self.n, self.m) {
                        *s = lowest;
                    }
                }
            }
            if let Some(padding) = self.padding {
                let real = &padding[b * self.m + tile.keys.start..][..width];
                s.iter_mut().zip(real).filter(|(_, real)| **real == 0).for_each(|(s, _)| *s = lowest);
            }
        }
    }
}

/// Accumulators of a reduction, so that it can run in vector registers.
pub(super) const LANES: usize = 8;

pub(super) fn maximum<R: Float>(x: &[R]) -> R {
    let mut lanes = [R::from_f64(LOWEST); LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(top, &x)| *top = x.maximum(*top));
    }
    rest.iter().chain(&lanes).fold(R::from_f64(LOWEST), |top, &x| x.maximum(top))
}

pub(super) fn total_of<R: Float>(x: &[R]) -> R {
    let mut lanes = [R::zero(); LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(R::zero(), |sum, &x| sum + x);
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += x);
    }
    lanes.iter().fold(rest, |sum, &x| sum + x)
}

/// `x = exp(x - shift)`; in f32 by a polynomial that runs in vector registers.
pub(super) fn exp_minus<R: Float>(x: &mut [R], shift: R) {
    if TypeId::of::<R>() == TypeId::of::<f32>() {
        let shift = shift.to_f64() as f32;
        bytemuck::cast_slice_mut::<R, f32>(x).iter_mut().for_each(|x| *x = exp_f32(*x - shift));
    } else {
        x.iter_mut().for_each(|x| *x = (*x - shift).exp());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_see_every_element_and_nan() {
        let mut x: Vec<f64> = (0..21).map(|i| ((i * 8) % 21) as f64).collect();
        assert_eq!((maximum(&x), total_of(&x)), (20.0, 210.0));
        for at in [0, 9, 20] {
            let kept = std::mem::replace(&mut x[at], f64::NAN);
            assert!(maximum(&x).is_nan() && total_of(&x).is_nan());
            x[at] = kept;
        }
    }
}
