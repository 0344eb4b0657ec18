//! Repetition along axes.

use crate::graph::fuse::Chain;
use crate::graph::layout::{Walk, broadcast, broadcast_strides};
use crate::graph::op::Elementwise;
use crate::graph::{
    Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// A tensor repeated along axes of size 1 and new leading axes.
#[derive(Clone, Debug, PartialEq)]
struct BroadcastTo {
    shape: Vec<usize>,
}

impl BroadcastTo {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let walk = Walk::new(&self.shape, &[broadcast_strides(&inputs[0].0.shape, &self.shape)]);
        fn repeat<T: Copy>(walk: &Walk, x: &[T]) -> Vec<T> {
            let mut out = Vec::with_capacity(walk.dims.iter().product());
            walk.each_row(|o| out.extend((0..walk.inner()).map(|i| x[o[0] + i * walk.inner_stride(0)])));
            out
        }
        vec![match inputs[0].1 {
            Data::Real(x) => Data::Real(repeat(&walk, x)),
            Data::Index(x) => Data::Index(repeat(&walk, x)),
        }]
    }
}

impl Op for BroadcastTo {
    fn name(&self) -> &'static str {
        "broadcast_to"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        if broadcast(&inputs[0].shape, &self.shape)? != self.shape {
            return Err(ShapeError(format!("{:?} does not broadcast to {:?}", inputs[0].shape, self.shape)));
        }
        Ok(vec![TensorType { dtype: inputs[0].dtype, shape: self.shape.clone() }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let shape = g.shape(c.inputs[0]).to_vec();
        vec![c.douts[0].map(|d| g.sum_to(d, &shape))]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        Chain::single(self.name(), "{0}".into(), inputs, &outputs[0]).lower(&[Slot::In(0)])
    }

    fn elementwise(&self) -> Option<Elementwise> {
        Some(Elementwise { wgsl: "{0}".into() })
    }
}

impl Graph {
    /// `x` repeated along axes of size 1 and new leading axes; adds nothing where it has the shape already.
    pub fn broadcast_to(&mut self, x: Node, shape: &[usize]) -> Node {
        if self.shape(x) == shape { x } else { self.apply1(BroadcastTo { shape: shape.into() }, &[x]) }
    }
}
