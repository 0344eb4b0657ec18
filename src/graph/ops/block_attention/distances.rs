//! Factors of the weights by distance: the gradient, and how the CPU reads them.

use super::backward::BlockAttentionBackward;
use super::cpu::Call;
use super::lower;
use crate::graph::{Cost, Data, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, TensorType};
use std::ops::Range;

/// The gradient of the factors, `[H, 1 + P]`, from the inputs of the backward pass; that of the reach is 0.
#[derive(Debug, PartialEq)]
pub(super) struct BlockAttentionDistancesBackward(pub BlockAttentionBackward);

impl<R: Float> Call<'_, R> {
    /// A head's reach and factors.
    pub(super) fn distances_of(&self, head: usize) -> Option<&[R]> {
        let (count, all) = self.distances?;
        Some(&all[head % self.heads * count..][..count])
    }

    /// How far apart a query and a key stand.
    pub(super) fn distance(&self, i: usize, j: usize) -> usize {
        (i + self.m).abs_diff(j + self.n)
    }

    /// Whether none of some queries of a head looks as far as any of some keys.
    pub(super) fn out_of_reach(&self, head: usize, rows: &Range<usize>, keys: &Range<usize>) -> bool {
        let Some(numbers) = self.distances_of(head) else { return false };
        let (first, last) = (rows.start + self.m, rows.end - 1 + self.m);
        let (nearest, farthest) = (keys.start + self.n, keys.end - 1 + self.n);
        let apart = nearest.saturating_sub(last).max(first.saturating_sub(farthest));
        apart as f64 > numbers[0].to_f64()
    }

    /// The gradient of the factors: that of the scores of each distance, with the factor taken out.
    fn backward_distances(&self, o: &[R], lse: &[R], dout: &[R], dlse: Option<&[R]>) -> Vec<R> {
        let (count, all) = self.distances.expect("there are distances");
        let delta = self.delta(o, dout, dlse);
        let mut gradient = vec![R::zero(); all.len()];
        self.each_gradient(lse, dout, &delta, |tile, _, ds| {
            let own = tile.head % self.heads * count;
            for (i, ds) in tile.rows.clone().zip(ds.chunks_exact(tile.keys.len())) {
                for (j, &ds) in tile.keys.clone().zip(ds) {
                    let at = own + (1 + self.distance(i, j)).min(count - 1);
                    if all[at] > R::zero() {
                        gradient[at] += ds / all[at];
                    }
                }
            }
        });
        gradient
    }
}

impl BlockAttentionDistancesBackward {
    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let dlse = self.0.dlse.then(|| inputs[8].1.real());
        let call = self.0.attention.call(inputs, self.0.rest());
        vec![Data::Real(call.backward_distances(inputs[3].1.real(), inputs[4].1.real(), inputs[5].1.real(), dlse))]
    }
}

impl Op for BlockAttentionDistancesBackward {
    fn name(&self) -> &'static str {
        "block_attention_distances_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.0.infer(inputs)?;
        Ok(vec![inputs[self.0.attention.distances_at(self.0.rest())].clone()])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let dim = inputs[0].shape[3] as u64;
        Cost::streaming(self.0.attention.pairs(inputs[0]) * (4 * dim + 4), inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("attention has no second derivative here")
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::distances_backward(&self.0, context, inputs)
    }
}
