//! The same tensor with no way back: a constant to whoever takes gradients.

use crate::graph::{Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, TensorType};

#[derive(Clone, Debug, PartialEq)]
struct Detach;

impl Detach {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        vec![inputs[0].1.clone()]
    }
}

impl Op for Detach {
    fn name(&self) -> &'static str {
        "detach"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        Ok(vec![inputs[0].clone()])
    }

    fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
        Cost::default()
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        vec![None]
    }

    fn lower(&self, _: &LowerContext, _: &[&TensorType], _: &[TensorType]) -> Lowered {
        Lowered::default()
    }

    fn is_view(&self) -> bool {
        true
    }
}

impl Graph {
    /// `x` as a constant: no gradient flows through it. For stabilisers that cancel, choices, and straight-through estimates.
    pub fn detach(&mut self, x: Node) -> Node {
        self.apply1(Detach, &[x])
    }
}
