//! Attention among tokens of like hash, in several rounds: in each, tokens are sorted by bucket and position and cut into chunks of
//! m, and a query sees the tokens of its bucket in its own chunk and in the one before (before the first comes the last). The
//! output is the softmax over all that a query sees in any round: a pair that meets in N_ij rounds weighs `exp(s_ij) / N_ij` in each.
//! Kitaev et al., 2020, "Reformer", arXiv:2001.04451, section 2, eq. 3-4.
//!
//! Rows are read through the order where they lie and nothing of a round is kept: a dispatch for each round adds to the output and
//! the log-sum-exp of those before it, at the token's own place. The gradients walk the same way, dk and dv from a key to the
//! queries of its chunk and the next: nothing is added atomically, and memory is that of the operands.

mod backward;
mod cpu;
mod lower;
mod order;

use crate::graph::{
    Cost, Data, Dtype, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, TensorType,
};
pub(super) use order::CountingSort;
pub use order::slots_at;

/// Floating-point operations of the softmax for each scored pair.
const SOFTMAX_FLOPS: u64 = 5;

/// How tokens are sorted, and who meets whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Tokens of a chunk.
    pub size: usize,
    /// Orders, at most eight.
    pub rounds: usize,
    /// A query sees all of its two chunks, not only its bucket.
    pub across: bool,
}

impl Chunks {
    /// Words of four slots for each token.
    fn words(&self) -> usize {
        self.rounds.div_ceil(4)
    }
}

/// Inputs: q, k and v `[B, H, N, D]`, and the order. Outputs: o like q, and the log-sum-exp of each row `[B, H, N]` (-1e30 for an
/// empty row).
#[derive(Clone, Debug, PartialEq)]
struct SortedAttention {
    chunks: Chunks,
    causal: bool,
    scale: f64,
    /// The score of a token with itself.
    itself: f64,
}

impl SortedAttention {
    /// Checks q, k and v, and the order at another place.
    fn check(&self, inputs: &[&TensorType], order: usize) -> Result<(), ShapeError> {
        let [q, k, v] = [0, 1, 2].map(|at| inputs[at]);
        let &[b, h, n, _] = &q.shape[..] else {
            return Err(ShapeError(format!("takes q [B, H, N, D], not {:?}", q.shape)));
        };
        if q.dtype != Dtype::F32 || k != q || v != q || q.is_empty() {
            return Err(ShapeError(format!("q {q:?}, k {k:?} and v {v:?} do not fit, or are empty")));
        }
        let wanted = TensorType::u32(&[order::len(&self.chunks, b * h, n)]);
        if *inputs[order] != wanted {
            return Err(ShapeError(format!("the order {:?} is not {wanted:?}", inputs[order])));
        }
        Ok(())
    }

    /// Pairs that are scored over all heads and rounds if every bucket fills its two chunks.
    fn pairs(&self, q: &TensorType) -> u64 {
        let n = q.shape[2];
        (q.shape[0] * q.shape[1] * n * self.chunks.rounds * n.min(2 * self.chunks.size)) as u64
    }

    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (o, lse) = cpu::Call::new(self, inputs, 3).forward();
        vec![Data::Real(o), Data::Real(lse)]
    }
}

impl Op for SortedAttention {
    fn name(&self) -> &'static str {
        "sorted_attention"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.check(inputs, 3)?;
        Ok(vec![inputs[0].clone(), TensorType::f32(&inputs[0].shape[..3])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let pair = 4 * inputs[0].shape[3] as u64 + SOFTMAX_FLOPS;
        Cost::streaming(self.pairs(inputs[0]) * pair, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        backward::gradients(self, g, c)
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::forward(self, context, inputs)
    }
}

impl Graph {
    /// Attention of q to k and v, all `[B, H, N, D]`, within the chunks of an order of [`Graph::chunk_order`]. Returns o
    /// `[B, H, N, D]` and the log-sum-exp of each row's scores `[B, H, N]`, -1e30 where a row is empty. Both can be
    /// differentiated with respect to q, k and v. Scores are divided by √D, but that of a token with itself is `itself`.
    pub fn sorted_attention(
        &mut self,
        [q, k, v]: [Node; 3],
        order: Node,
        chunks: Chunks,
        causal: bool,
        itself: f64,
    ) -> (Node, Node) {
        let dim = *self.shape(q).last().expect("q has dimensions");
        let op = SortedAttention { chunks, causal, scale: 1.0 / (dim as f64).sqrt(), itself };
        let out = self.apply(op, &[q, k, v, order]);
        (out[0], out[1])
    }
}
