//! The gradient of fused attention. With `delta = rowsum(dout * o) - dlse`, `p` recomputed from the log-sum-exp, and
//! `ds = p (dout v^T - delta)`: `dq = scale ds k`, `dk = scale ds^T q`, `dv = p^T dout`. On the device dq walks the list by
//! query blocks, dk and dv the transposed one by key blocks, so that nothing is added atomically and runs repeat bit for bit.

use super::distances::BlockAttentionDistancesBackward;
use super::{BlockAttention, SOFTMAX_FLOPS, lower};
use crate::graph::{
    Cost, Data, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, TensorType, Tunable,
};

/// Inputs: q, k, v, o, lse, dout, the list, the transposed list, then dlse, padding, bias and
/// distances where there are. Outputs: dq, dk, dv.
#[derive(Debug, PartialEq)]
pub(super) struct BlockAttentionBackward {
    pub attention: BlockAttention,
    pub dlse: bool,
}

/// The gradient of the scores and so of the bias of each head, `[B, H, N, M]`, from the same inputs.
#[derive(Debug, PartialEq)]
struct BlockAttentionBiasBackward(BlockAttentionBackward);

/// Gradients of all inputs: of q, k and v, none of the lists and the padding, and of the bias where there is one, which costs
/// an N×M buffer for each head and is computed only where somebody reads it.
pub(super) fn gradients(op: &BlockAttention, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
    let dout = c.douts[0].unwrap_or_else(|| {
        let TensorType { dtype, shape } = g.ty(c.outputs[0]).clone();
        let zeros = g.constant(&shape, Data::Real(vec![0.0; shape.iter().product()]));
        g.cast(zeros, dtype)
    });
    let transposed = op.list_constant(g, true);
    let inputs: Vec<Node> =
        [c.inputs[0], c.inputs[1], c.inputs[2], c.outputs[0], c.outputs[1], dout, c.inputs[3], transposed]
            .into_iter()
            .chain(c.douts[1])
            .chain(c.inputs[4..].iter().copied())
            .collect();
    let backward = || BlockAttentionBackward { attention: op.clone(), dlse: c.douts[1].is_some() };
    let mut gradients: Vec<Option<Node>> = g.apply(backward(), &inputs).into_iter().map(Some).collect();
    gradients.resize(c.inputs.len(), None);
    if op.distances {
        let ddistances = g.apply1(BlockAttentionDistancesBackward(backward()), &inputs);
        gradients[op.distances_at(4)] = Some(ddistances);
    }
    if op.bias {
        let mut dbias = g.apply1(BlockAttentionBiasBackward(backward()), &inputs);
        let shape = g.shape(*c.inputs.last().expect("the bias")).to_vec();
        let repeated: Vec<usize> = (0..2).filter(|&axis| shape[axis] < g.shape(dbias)[axis]).collect();
        if !repeated.is_empty() {
            dbias = g.sum(dbias, &repeated, true);
        }
        gradients[c.inputs.len() - 1] = Some(dbias);
    }
    gradients
}

impl BlockAttentionBackward {
    /// Where padding and bias begin among the inputs.
    pub fn rest(&self) -> usize {
        8 + usize::from(self.dlse)
    }

    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let dlse = self.dlse.then(|| inputs[8].1.real());
        let call = self.attention.call(inputs, self.rest());
        let (dq, dk, dv) = call.backward(inputs[3].1.real(), inputs[4].1.real(), inputs[5].1.real(), dlse);
        vec![Data::Real(dq), Data::Real(dk), Data::Real(dv)]
    }
}

impl Op for BlockAttentionBackward {
    fn name(&self) -> &'static str {
        "block_attention_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.attention.check(inputs, self.rest())?;
        let (q, k) = (inputs[0], inputs[1]);
        if inputs[3] != q || inputs[5] != q || *inputs[4] != TensorType::f32(&q.shape[..3]) {
            return Err(ShapeError("o, dout and lse must have the shapes of the forward pass".into()));
        }
        Ok(vec![q.clone(), k.clone(), k.clone()])
    }

    /// The algorithm's own count, with the scores recomputed once.
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let dim = inputs[0].shape[3] as u64;
        Cost::streaming(self.attention.pairs(inputs[0]) * (10 * dim + SOFTMAX_FLOPS + 4), inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("attention has no second derivative here")
    }

    fn tunable(&self, context: &LowerContext, inputs: &[&TensorType]) -> Option<Tunable> {
        lower::tunable(self.name(), &self.attention, context, inputs)
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::backward(self, context, inputs)
    }
}

impl BlockAttentionBiasBackward {
    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let dlse = self.0.dlse.then(|| inputs[8].1.real());
        let call = self.0.attention.call(inputs, self.0.rest());
        vec![Data::Real(call.backward_bias(inputs[3].1.real(), inputs[4].1.real(), inputs[5].1.real(), dlse))]
    }
}

impl Op for BlockAttentionBiasBackward {
    fn name(&self) -> &'static str {
        "block_attention_bias_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.0.infer(inputs)?;
        let (q, k) = (&inputs[0].shape, &inputs[1].shape);
        Ok(vec![TensorType::f32(&[q[0], q[1], q[2], k[2]])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let dim = inputs[0].shape[3] as u64;
        Cost::streaming(self.0.attention.pairs(inputs[0]) * (4 * dim + SOFTMAX_FLOPS + 2), inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("attention has no second derivative here")
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::bias_backward(&self.0, context, inputs)
    }
}
