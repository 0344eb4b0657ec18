//! A smallest op, for tests of the planner and interpreter that must not depend on a real one.

use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, Slot, TensorType,
};

/// `y = 2 x`.
#[derive(Debug, PartialEq)]
pub struct Double;

impl Double {
    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        vec![Data::Real(inputs[0].1.real().iter().map(|&x| x + x).collect())]
    }
}

impl Op for Double {
    fn name(&self) -> &'static str {
        "double"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        Ok(vec![inputs[0].clone()])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(outputs[0].len() as u64, inputs, outputs)
    }
    crate::eval_both!();
    fn grad(&self, g: &mut Graph, context: &GradContext) -> Vec<Option<Node>> {
        vec![context.douts[0].map(|d| g.apply1(Double, &[d]))]
    }
    fn lower(&self, _: &LowerContext, _: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let dispatch = Dispatch {
            source: Source::Table("ops/double"),
            entry: "forward",
            consts: vec![],
            uniform: vec![],
            bindings: vec![("x", Slot::In(0)), ("y", Slot::Out(0))],
            groups: [1, 1, 1],
            flops: outputs[0].len() as u64,
        };
        Lowered { dispatches: vec![dispatch], scratch: vec![] }
    }
}
