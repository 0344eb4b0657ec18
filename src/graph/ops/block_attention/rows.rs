//! Fused attention on the CPU where every query has a list of keys of its own: row by row, without matrix products.

use super::cpu::{Call, EMPTY, LANES, exp_minus, maximum, total_of};
use crate::graph::Float;
use std::ops::Range;

impl<R: Float> Call<'_, R> {
    /// `(o, lse)`.
    pub(super) fn forward_rows(&self) -> (Vec<R>, Vec<R>) {
        let (dim, total) = (self.dim, self.batch * self.heads);
        let mut o = vec![R::zero(); total * self.n * dim];
        let mut lse = vec![R::from_f64(EMPTY); total * self.n];
        let (mut keys, mut p) = (Vec::new(), Vec::new());
        for row in 0..total * self.n {
            self.row_scores(row, &mut keys, &mut p);
            if keys.is_empty() {
                continue;
            }
            let top = maximum(&p).maximum(R::from_f64(EMPTY));
            exp_minus(&mut p, top);
            let sum = total_of(&p);
            let out = &mut o[row * dim..(row + 1) * dim];
            for (&key, &p) in keys.iter().zip(&p) {
                add(out, p / sum, &self.v[self.at(row, key)]);
            }
            lse[row] = top + sum.ln();
        }
        (o, lse)
    }

    /// `(dq, dk, dv)`, see [`Call::backward`].
    pub(super) fn backward_rows(&self, lse: &[R], dout: &[R], delta: &[R]) -> (Vec<R>, Vec<R>, Vec<R>) {
        let (dim, total) = (self.dim, self.batch * self.heads);
        let scale = R::from_f64(self.op.scale);
        let mut dq = vec![R::zero(); total * self.n * dim];
        let mut dk = vec![R::zero(); total * self.m * dim];
        let mut dv = dk.clone();
        let (mut keys, mut p) = (Vec::new(), Vec::new());
        for row in 0..total * self.n {
            let own = row * dim..(row + 1) * dim;
            self.row_scores(row, &mut keys, &mut p);
            exp_minus(&mut p, lse[row]);
            for (&key, &p) in keys.iter().zip(&p) {
                let other = self.at(row, key);
                let ds = scale * p * (dot(&dout[own.clone()], &self.v[other.clone()]) - delta[row]);
                add(&mut dq[own.clone()], ds, &self.k[other.clone()]);
                add(&mut dk[other.clone()], ds, &self.q[own.clone()]);
                add(&mut dv[other], p, &dout[own.clone()]);
            }
        }
        (dq, dk, dv)
    }

    /// The gradient of the scores, see [`Call::backward_bias`].
    pub(super) fn backward_bias_rows(&self, lse: &[R], dout: &[R], delta: &[R]) -> Vec<R> {
        let mut dbias = vec![R::zero(); self.batch * self.heads * self.n * self.m];
        let (mut keys, mut p) = (Vec::new(), Vec::new());
        for row in 0..self.batch * self.heads * self.n {
            self.row_scores(row, &mut keys, &mut p);
            exp_minus(&mut p, lse[row]);
            let dout = &dout[row * self.dim..(row + 1) * self.dim];
            for (&key, &p) in keys.iter().zip(&p) {
                dbias[row * self.m + key] = p * (dot(dout, &self.v[self.at(row, key)]) - delta[row]);
            }
        }
        dbias
    }

    /// Where a key of the row's head lies.
    fn at(&self, row: usize, key: usize) -> Range<usize> {
        let start = (row / self.n * self.m + key) * self.dim;
        start..start + self.dim
    }

    /// The allowed keys of a row (counted over all heads), and their scores.
    fn row_scores(&self, row: usize, keys: &mut Vec<usize>, scores: &mut Vec<R>) {
        let (head, i) = (row / self.n, row % self.n);
        let (b, h) = (head / self.heads, head % self.heads);
        let op = self.op;
        let rule_head = op.rule.head_of(head, self.heads);
        keys.clear();
        for run in op.list.runs_of(head, i) {
            let all = run.first as usize..(run.first + run.count) as usize;
            keys.extend(all.filter(|&j| {
                (run.full || op.rule.may_in(rule_head, i, j, self.n, self.m))
                    && self.padding.is_none_or(|p| p[b * self.m + j] != 0)
            }));
        }
        let (q, scale) = (&self.q[row * self.dim..(row + 1) * self.dim], R::from_f64(op.scale));
        scores.clear();
        scores.extend(keys.iter().map(|&key| scale * dot(q, &self.k[self.at(row, key)])));
        if let Some(bias) = self.bias {
            let plane = b * self.bias_strides.0 + h * self.bias_strides.1;
            let bias = &bias[(plane * self.n + i) * self.m..][..self.m];
            scores.iter_mut().zip(keys.iter()).for_each(|(s, &key)| *s += bias[key]);
        }
    }
}

pub(in crate::graph::ops) fn dot<R: Float>(a: &[R], b: &[R]) -> R {
    let mut lanes = [R::zero(); LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder()).fold(R::zero(), |sum, (&a, &b)| sum + a * b);
    for (a, b) in a.zip(b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (&a, &b))| *sum += a * b);
    }
    lanes.iter().fold(rest, |sum, &x| sum + x)
}

/// `to += factor * x`
pub(in crate::graph::ops) fn add<R: Float>(to: &mut [R], factor: R, x: &[R]) {
    to.iter_mut().zip(x).for_each(|(to, &x)| *to += factor * x);
}
