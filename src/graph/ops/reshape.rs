//! The same elements under another shape: no kernel, the same buffer.

use crate::graph::{Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, TensorType};

#[derive(Clone, Debug, PartialEq)]
struct Reshape {
    shape: Vec<usize>,
}

impl Reshape {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        vec![inputs[0].1.clone()]
    }
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let output = TensorType { dtype: inputs[0].dtype, shape: self.shape.clone() };
        if output.len() != inputs[0].len() {
            return Err(ShapeError(format!("{:?} has not as many elements as {:?}", self.shape, inputs[0].shape)));
        }
        Ok(vec![output])
    }

    fn cost(&self, _: &[&TensorType], _: &[TensorType]) -> Cost {
        Cost::default()
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let shape = g.shape(c.inputs[0]).to_vec();
        vec![c.douts[0].map(|d| g.reshape(d, &shape))]
    }

    fn lower(&self, _: &LowerContext, _: &[&TensorType], _: &[TensorType]) -> Lowered {
        Lowered::default()
    }

    fn is_view(&self) -> bool {
        true
    }
}

impl Graph {
    /// `x` under another shape of as many elements; adds nothing where it has the shape already.
    pub fn reshape(&mut self, x: Node, shape: &[usize]) -> Node {
        if self.shape(x) == shape { x } else { self.apply1(Reshape { shape: shape.into() }, &[x]) }
    }

    /// `x` with an axis of size 1 put in before `axis`.
    pub fn unsqueeze(&mut self, x: Node, axis: usize) -> Node {
        let mut shape = self.shape(x).to_vec();
        shape.insert(axis, 1);
        self.reshape(x, &shape)
    }
}
