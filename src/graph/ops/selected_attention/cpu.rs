//! Attention to chosen blocks on the CPU, row by row. Memory is linear in the length.

use super::{SelectedAttention, Sizes};
use crate::graph::ops::block_attention::{add, dot};
use crate::graph::{Data, Float, TensorType};
use std::ops::Range;

/// The log-sum-exp of a row with nothing to attend to.
const EMPTY: f64 = -1e30;

/// The tensors of one call.
pub struct Call<'a, R> {
    op: &'a SelectedAttention,
    s: Sizes,
    q: &'a [R],
    k: &'a [R],
    v: &'a [R],
    blocks: &'a [u32],
    padding: Option<&'a [u32]>,
}

impl<'a, R: Float> Call<'a, R> {
    /// With the blocks and the padding at these places among the inputs.
    pub fn new(
        op: &'a SelectedAttention,
        inputs: &[(&TensorType, &'a Data<R>)],
        blocks: usize,
        padding: usize,
    ) -> Self {
        let types: Vec<&TensorType> = inputs.iter().map(|(ty, _)| *ty).collect();
        Self {
            op,
            s: op.sizes(&types, blocks),
            q: inputs[0].1.real(),
            k: inputs[1].1.real(),
            v: inputs[2].1.real(),
            blocks: inputs[blocks].1.index(),
            padding: op.padding.then(|| inputs[padding].1.index()),
        }
    }

    /// `(o, lse)`.
    pub fn forward(&self) -> (Vec<R>, Vec<R>) {
        let rows = self.s.batch * self.s.heads * self.s.n;
        let mut o = vec![R::zero(); rows * self.s.dim];
        let mut lse = vec![R::from_f64(EMPTY); rows];
        let (mut keys, mut p) = (Vec::new(), Vec::new());
        for (row, out) in o.chunks_exact_mut(self.s.dim).enumerate() {
            self.scores(row, &mut keys, &mut p);
            if keys.is_empty() {
                continue;
            }
            let top = p.iter().fold(R::from_f64(EMPTY), |top, &s| top.maximum(s));
            p.iter_mut().for_each(|p| *p = (*p - top).exp());
            let sum = p.iter().fold(R::zero(), |sum, &p| sum + p);
            for (&key, &p) in keys.iter().zip(&p) {
                add(out, p / sum, &self.v[self.at(row, key)]);
            }
            lse[row] = top + sum.ln();
        }
        (o, lse)
    }

    /// `(dq, dk, dv)` from the outputs of [`Call::forward`] and their gradients.
    pub fn backward(&self, o: &[R], lse: &[R], dout: &[R], dlse: Option<&[R]>) -> (Vec<R>, Vec<R>, Vec<R>) {
        let scale = R::from_f64(self.op.scale);
        let (mut dq, mut dk) = (vec![R::zero(); self.q.len()], vec![R::zero(); self.k.len()]);
        let mut dv = dk.clone();
        let (mut keys, mut p) = (Vec::new(), Vec::new());
        for row in 0..lse.len() {
            let own = row * self.s.dim..(row + 1) * self.s.dim;
            let dout = &dout[own.clone()];
            let delta = dot(dout, &o[own.clone()]) - dlse.map_or(R::zero(), |d| d[row]);
            self.scores(row, &mut keys, &mut p);
            for (&key, &score) in keys.iter().zip(&p) {
                let (p, other) = ((score - lse[row]).exp(), self.at(row, key));
                let ds = scale * p * (dot(dout, &self.v[other.clone()]) - delta);
                add(&mut dq[own.clone()], ds, &self.k[other.clone()]);
                add(&mut dk[other.clone()], ds, &self.q[own.clone()]);
                add(&mut dv[other], p, dout);
            }
        }
        (dq, dk, dv)
    }

    /// Where a key of the row's head lies.
    fn at(&self, row: usize, key: usize) -> Range<usize> {
        let start = (row / self.s.n * self.s.m + key) * self.s.dim;
        start..start + self.s.dim
    }

    /// The keys of a row (counted over all heads), and their scores.
    fn scores(&self, row: usize, keys: &mut Vec<usize>, scores: &mut Vec<R>) {
        let s = &self.s;
        let (head, i) = (row / s.n, row % s.n);
        let list = head / s.heads * s.lists + head % s.heads / self.op.group;
        let end = if self.op.causal { i + 1 + s.m - s.n } else { s.m };
        keys.clear();
        for &block in &self.blocks[(list * s.n + i) * s.chosen..][..s.chosen] {
            let first = (block as usize).saturating_mul(self.op.block);
            keys.extend(first..first.saturating_add(self.op.block).min(end).max(first));
        }
        if let Some(padding) = self.padding {
            let real = &padding[head / s.heads * s.m..][..s.m];
            keys.retain(|&key| real[key] != 0);
        }
        let (q, scale) = (&self.q[row * s.dim..(row + 1) * s.dim], R::from_f64(self.op.scale));
        scores.clear();
        scores.extend(keys.iter().map(|&key| scale * dot(q, &self.k[self.at(row, key)])));
    }
}
