//! `select(mask, a, b)`: `a` where the mask is not 0, else `b`.

use crate::graph::fuse::Chain;
use crate::graph::layout::{Walk, broadcast};
use crate::graph::op::Elementwise;
use crate::graph::{
    Cost, Data, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

#[derive(Clone, Debug, PartialEq)]
struct Select {
    /// Whether the mask is of indices.
    index_mask: bool,
}

impl Select {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|(t, _)| &t.shape[..]).collect();
        let walk = Walk::broadcast(&outputs[0].shape, &shapes);
        let (a, b) = (inputs[1].1.real(), inputs[2].1.real());
        let mut out = Vec::with_capacity(outputs[0].len());
        walk.each_row(|offset| {
            for i in 0..walk.inner() {
                let at = |operand: usize| offset[operand] + i * walk.inner_stride(operand);
                let set = match inputs[0].1 {
                    Data::Index(mask) => mask[at(0)] != 0,
                    Data::Real(mask) => mask[at(0)] != R::zero(),
                };
                out.push(if set { a[at(1)] } else { b[at(2)] });
            }
        });
        vec![Data::Real(out)]
    }

    fn wgsl(&self) -> String {
        format!("select({{2}}, {{1}}, {{0}} != {})", if self.index_mask { "0u" } else { "0.0" })
    }
}

impl Op for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        if inputs[1].dtype == Dtype::U32 || inputs[1].dtype != inputs[2].dtype {
            return Err(ShapeError("selects between real numbers of one dtype".into()));
        }
        let values = broadcast(&inputs[1].shape, &inputs[2].shape)?;
        Ok(vec![TensorType { dtype: inputs[1].dtype, shape: broadcast(&inputs[0].shape, &values)? }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let (mask, d) = (c.inputs[0], c.douts[0].expect("the only output"));
        let zero = g.constant(&[], Data::Real(vec![0.0]));
        let da = g.select(mask, d, zero);
        let db = g.select(mask, zero, d);
        let (a_shape, b_shape) = (g.shape(c.inputs[1]).to_vec(), g.shape(c.inputs[2]).to_vec());
        vec![None, Some(g.sum_to(da, &a_shape)), Some(g.sum_to(db, &b_shape))]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        Chain::single(self.name(), self.wgsl(), inputs, &outputs[0]).lower(&[Slot::In(0), Slot::In(1), Slot::In(2)])
    }

    fn elementwise(&self) -> Option<Elementwise> {
        Some(Elementwise { wgsl: self.wgsl() })
    }
}

impl Graph {
    /// `a` where `mask` (u32 or f32) is not 0, else `b`; all three broadcast.
    pub fn select(&mut self, mask: Node, a: Node, b: Node) -> Node {
        let index_mask = self.ty(mask).dtype == Dtype::U32;
        self.apply1(Select { index_mask }, &[mask, a, b])
    }
}
