//! Attention within sorted chunks on the CPU, row by row. Memory is linear in the length.

use super::{SortedAttention, slots_at};
use crate::graph::ops::block_attention::{add, dot};
use crate::graph::{Data, Float, TensorType};
use std::ops::Range;

/// The log-sum-exp of a row with nothing to attend to.
const EMPTY: f64 = -1e30;

/// The tensors of one call.
pub struct Call<'a, R> {
    op: &'a SortedAttention,
    n: usize,
    dim: usize,
    q: &'a [R],
    k: &'a [R],
    v: &'a [R],
    /// `[T, rounds, N]`
    tokens: &'a [u32],
    /// `[T, N, 4 words]`
    slots: &'a [u32],
    /// Place of each token, `[T, rounds, N]`.
    places: Vec<usize>,
}

/// A key that a query sees, how its score counts, and the score.
struct Seen<R> {
    key: usize,
    /// One over the number of rounds that the two meet in, for each of them.
    share: R,
    score: R,
    is_itself: bool,
}

impl<'a, R: Float> Call<'a, R> {
    /// With the order at this place among the inputs.
    pub fn new(op: &'a SortedAttention, inputs: &[(&TensorType, &'a Data<R>)], order: usize) -> Self {
        let [b, h, n, dim] = inputs[0].0.shape[..] else { unreachable!("checked by the shape rule") };
        let (tokens, slots) = inputs[order].1.index().split_at(slots_at(&op.chunks, b * h, n));
        let tokens = &tokens[..b * h * op.chunks.rounds * n];
        let mut places = vec![0; tokens.len()];
        for (at, &token) in tokens.iter().enumerate() {
            places[at / n * n + token as usize] = at % n;
        }
        let [q, k, v] = [0, 1, 2].map(|at| inputs[at].1.real());
        Self { op, n, dim, q, k, v, tokens, slots, places }
    }

    /// `(o, lse)`.
    pub fn forward(&self) -> (Vec<R>, Vec<R>) {
        let rows = self.q.len() / self.dim;
        let mut o = vec![R::zero(); self.q.len()];
        let mut lse = vec![R::from_f64(EMPTY); rows];
        for row in 0..rows {
            let seen = self.seen(row);
            if seen.is_empty() {
                continue;
            }
            let top = seen.iter().fold(R::from_f64(EMPTY), |top, seen| top.maximum(seen.score));
            let weight = |seen: &Seen<R>| seen.share * (seen.score - top).exp();
            let sum = seen.iter().fold(R::zero(), |sum, seen| sum + weight(seen));
            for seen in &seen {
                add(&mut o[self.at(row, row % self.n)], weight(seen) / sum, &self.v[self.at(row, seen.key)]);
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
        for row in 0..lse.len() {
            let own = self.at(row, row % self.n);
            let dout = &dout[own.clone()];
            let delta = dot(dout, &o[own.clone()]) - dlse.map_or(R::zero(), |d| d[row]);
            for seen in self.seen(row) {
                let (p, other) = (seen.share * (seen.score - lse[row]).exp(), self.at(row, seen.key));
                add(&mut dv[other.clone()], p, dout);
                if !seen.is_itself {
                    let ds = scale * p * (dot(dout, &self.v[other.clone()]) - delta);
                    add(&mut dq[own.clone()], ds, &self.k[other.clone()]);
                    add(&mut dk[other], ds, &self.q[own.clone()]);
                }
            }
        }
        (dq, dk, dv)
    }

    /// Where a token of the row's head lies.
    fn at(&self, row: usize, token: usize) -> Range<usize> {
        let start = (row / self.n * self.n + token) * self.dim;
        start..start + self.dim
    }

    /// What a row (counted over all heads) sees in each round.
    fn seen(&self, row: usize) -> Vec<Seen<R>> {
        let (head, i, n) = (row / self.n, row % self.n, self.n);
        let chunks = &self.op.chunks;
        let (count, wide) = (n.div_ceil(chunks.size), 4 * chunks.words());
        let slots = |token: usize| &self.slots[(head * n + token) * wide..][..chunks.rounds];
        let chunk = |round: usize, token: usize| self.places[(head * chunks.rounds + round) * n + token] / chunks.size;
        let is_near = |round: usize, key: usize| {
            let (own, other) = (chunk(round, i), chunk(round, key));
            let (mine, theirs) = (slots(i)[round], slots(key)[round]);
            let agree = mine / count as u32 == theirs / count as u32 && mine != u32::MAX && theirs != u32::MAX;
            (other == own || other == (own + count - 1) % count) && agree
        };
        let mut seen = Vec::new();
        for round in 0..chunks.rounds {
            let own = chunk(round, i);
            let mut near = vec![(own + count - 1) % count, own];
            near.dedup();
            let order = &self.tokens[(head * chunks.rounds + round) * n..][..n];
            let keys = near.iter().flat_map(|&chunk| &order[chunk * chunks.size..((chunk + 1) * chunks.size).min(n)]);
            for key in keys.map(|&key| key as usize) {
                if (self.op.causal && key > i) || !is_near(round, key) {
                    continue;
                }
                let times = (0..chunks.rounds).filter(|&round| is_near(round, key)).count();
                let product = dot(&self.q[self.at(row, i)], &self.k[self.at(row, key)]);
                let score = if key == i { R::from_f64(self.op.itself) } else { R::from_f64(self.op.scale) * product };
                seen.push(Seen { key, share: R::one() / R::from_f64(times as f64), score, is_itself: key == i });
            }
        }
        seen
    }
}
