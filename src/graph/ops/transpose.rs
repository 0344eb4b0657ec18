//! Axes in another order.

use super::strided;
use crate::graph::layout::{Walk, strides};
use crate::graph::{
    Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// Axis i of the output is axis `order[i]` of the input.
#[derive(Clone, Debug, PartialEq)]
struct Transpose {
    order: Vec<usize>,
}

impl Transpose {
    fn strides(&self, x: &TensorType) -> Vec<usize> {
        let own = strides(&x.shape);
        self.order.iter().map(|&axis| own[axis]).collect()
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let walk = Walk::new(&outputs[0].shape, &[self.strides(inputs[0].0)]);
        vec![strided::gather(&walk, 0, inputs[0].1)]
    }
}

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let shape = &inputs[0].shape;
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..shape.len()) {
            return Err(ShapeError(format!("{:?} is no order of the axes of {shape:?}", self.order)));
        }
        let shape = self.order.iter().map(|&axis| shape[axis]).collect();
        Ok(vec![TensorType { dtype: inputs[0].dtype, shape }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let mut inverse = vec![0; self.order.len()];
        for (to, &from) in self.order.iter().enumerate() {
            inverse[from] = to;
        }
        vec![c.douts[0].map(|d| g.transpose(d, &inverse))]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let walk = Walk::new(&outputs[0].shape, &[self.strides(inputs[0]), strides(&outputs[0].shape)]);
        Lowered {
            dispatches: vec![strided::copy(&walk, 0, 0, [Slot::In(0), Slot::Out(0)], outputs[0].dtype)],
            scratch: vec![],
        }
    }
}

impl Graph {
    /// `x` with its axes in another order: axis i of the result is axis `order[i]` of `x`. Moving only axes of size 1 is a
    /// reshape.
    pub fn transpose(&mut self, x: Node, order: &[usize]) -> Node {
        let shape = self.shape(x);
        let long: Vec<usize> = order.iter().copied().filter(|&a| shape[a] != 1).collect();
        if order.len() == shape.len() && long.is_sorted() {
            let shape: Vec<usize> = order.iter().map(|&a| shape[a]).collect();
            return self.reshape(x, &shape);
        }
        self.apply1(Transpose { order: order.into() }, &[x])
    }

    /// `x` with two axes exchanged.
    pub fn swap_axes(&mut self, x: Node, a: usize, b: usize) -> Node {
        let mut order: Vec<usize> = (0..self.shape(x).len()).collect();
        order.swap(a, b);
        self.transpose(x, &order)
    }
}
