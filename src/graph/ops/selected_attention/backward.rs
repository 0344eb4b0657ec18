//! The gradient of attention to chosen blocks, as in [`super::super::block_attention`]: with the weights p recomputed from the
//! log-sum-exp, `delta = rowsum(dout * o) - dlse` and `ds = p (dout v^T - delta)`, `dq = scale ds k`, `dk = scale ds^T q`,
//! `dv = p^T dout`. dq walks each query's list, dk and dv each block's readers: nothing is added atomically.

use super::readers::BlockReaders;
use super::{SOFTMAX_FLOPS, SelectedAttention, cpu, lower};
use crate::graph::{Cost, Data, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, TensorType};

/// Inputs: q, k, v, o, lse, dout, the blocks, their readers, then dlse and padding where there are. Outputs: dq, dk, dv.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SelectedBackward {
    pub attention: SelectedAttention,
    pub dlse: bool,
}

/// Where the blocks stand among the inputs.
pub(super) const BLOCKS: usize = 6;

pub(super) fn gradients(op: &SelectedAttention, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
    let dout = c.douts[0].unwrap_or_else(|| {
        let shape = g.shape(c.outputs[0]).to_vec();
        g.constant(&shape, Data::Real(vec![0.0; shape.iter().product()]))
    });
    let keys = g.shape(c.inputs[1])[2];
    let readers = BlockReaders { count: keys.div_ceil(op.block), ahead: if op.causal { op.block } else { 0 }, keys };
    let readers = g.apply1(readers, &[c.inputs[3]]);
    let inputs: Vec<Node> =
        [c.inputs[0], c.inputs[1], c.inputs[2], c.outputs[0], c.outputs[1], dout, c.inputs[3], readers]
            .into_iter()
            .chain(c.douts[1])
            .chain(c.inputs[4..].iter().copied())
            .collect();
    let backward = SelectedBackward { attention: op.clone(), dlse: c.douts[1].is_some() };
    let mut gradients: Vec<Option<Node>> = g.apply(backward, &inputs).into_iter().map(Some).collect();
    gradients.resize(c.inputs.len(), None);
    gradients
}

impl SelectedBackward {
    /// Where padding stands among the inputs.
    pub fn rest(&self) -> usize {
        8 + usize::from(self.dlse)
    }

    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let dlse = self.dlse.then(|| inputs[8].1.real());
        let call = cpu::Call::new(&self.attention, inputs, BLOCKS, self.rest());
        let (dq, dk, dv) = call.backward(inputs[3].1.real(), inputs[4].1.real(), inputs[5].1.real(), dlse);
        vec![Data::Real(dq), Data::Real(dk), Data::Real(dv)]
    }
}

impl Op for SelectedBackward {
    fn name(&self) -> &'static str {
        "selected_attention_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.attention.check(inputs, BLOCKS, self.rest())?;
        let (q, k) = (inputs[0], inputs[1]);
        if inputs[3] != q || inputs[5] != q || *inputs[4] != TensorType::f32(&q.shape[..3]) {
            return Err(ShapeError("o, dout and lse must have the shapes of the forward pass".into()));
        }
        Ok(vec![q.clone(), k.clone(), k.clone()])
    }

    /// The algorithm's own count, with the scores recomputed once.
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let s = self.attention.sizes(inputs, BLOCKS);
        Cost::streaming(self.attention.pairs(&s) * (10 * s.dim as u64 + SOFTMAX_FLOPS + 4), inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("attention has no second derivative here")
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::backward(self, context, inputs)
    }
}
