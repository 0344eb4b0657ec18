//! The gradient of attention within sorted chunks, as in [`super::super::block_attention`]: with the weights p recomputed from the
//! log-sum-exp over all rounds, `delta = rowsum(dout * o) - dlse` and `ds = p (dout v^T - delta)`, `dq = scale ds k`,
//! `dk = scale ds^T q`, `dv = p^T dout`, each round adding to those before it. The score of a token with itself is given, and has no
//! gradient.

use super::{SOFTMAX_FLOPS, SortedAttention, cpu, lower};
use crate::graph::{Cost, Data, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, TensorType};

/// Inputs: q, k, v, o, lse, dout, the order, then dlse where there is one. Outputs: dq, dk, dv.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SortedBackward {
    pub attention: SortedAttention,
    pub dlse: bool,
}

/// Where the order stands among the inputs.
pub(super) const ORDER: usize = 6;

pub(super) fn gradients(op: &SortedAttention, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
    let dout = c.douts[0].unwrap_or_else(|| {
        let shape = g.shape(c.outputs[0]).to_vec();
        g.constant(&shape, Data::Real(vec![0.0; shape.iter().product()]))
    });
    let given = [c.inputs[0], c.inputs[1], c.inputs[2], c.outputs[0], c.outputs[1], dout, c.inputs[3]];
    let inputs: Vec<Node> = given.into_iter().chain(c.douts[1]).collect();
    let backward = SortedBackward { attention: op.clone(), dlse: c.douts[1].is_some() };
    let mut gradients: Vec<Option<Node>> = g.apply(backward, &inputs).into_iter().map(Some).collect();
    gradients.push(None);
    gradients
}

impl SortedBackward {
    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let dlse = self.dlse.then(|| inputs[7].1.real());
        let call = cpu::Call::new(&self.attention, inputs, ORDER);
        let (dq, dk, dv) = call.backward(inputs[3].1.real(), inputs[4].1.real(), inputs[5].1.real(), dlse);
        vec![Data::Real(dq), Data::Real(dk), Data::Real(dv)]
    }
}

impl Op for SortedBackward {
    fn name(&self) -> &'static str {
        "sorted_attention_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.attention.check(inputs, ORDER)?;
        let q = inputs[0];
        if inputs[3] != q || inputs[5] != q || *inputs[4] != TensorType::f32(&q.shape[..3]) {
            return Err(ShapeError("o, dout and lse must have the shapes of the forward pass".into()));
        }
        Ok(vec![q.clone(), q.clone(), q.clone()])
    }

    /// The algorithm's own count, with the scores recomputed once.
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let pair = 10 * inputs[0].shape[3] as u64 + SOFTMAX_FLOPS + 4;
        Cost::streaming(self.attention.pairs(inputs[0]) * pair, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("attention has no second derivative here")
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::backward(self, context, inputs)
    }
}
