//! Tensors one behind the other along an axis.

use super::strided;
use crate::graph::layout::{Walk, split};
use crate::graph::{
    Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

#[derive(Clone, Debug, PartialEq)]
struct Concat {
    axis: usize,
}

impl Concat {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let outer = split(&outputs[0].shape, self.axis, self.axis + 1)[0];
        fn join<T: Copy>(parts: &[&[T]], outer: usize) -> Vec<T> {
            (0..outer)
                .flat_map(|o| parts.iter().flat_map(move |x| &x[o * (x.len() / outer)..(o + 1) * (x.len() / outer)]))
                .copied()
                .collect()
        }
        vec![match inputs[0].1 {
            Data::Real(_) => Data::Real(join(&inputs.iter().map(|(_, x)| x.real()).collect::<Vec<_>>(), outer)),
            Data::Index(_) => Data::Index(join(&inputs.iter().map(|(_, x)| x.index()).collect::<Vec<_>>(), outer)),
        }]
    }
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let first = inputs.first().ok_or_else(|| ShapeError("nothing to put together".into()))?;
        let fits = |t: &&TensorType| {
            t.dtype == first.dtype
                && t.shape.len() == first.shape.len()
                && t.shape.iter().zip(&first.shape).enumerate().all(|(axis, (a, b))| axis == self.axis || a == b)
        };
        if self.axis >= first.shape.len() || !inputs.iter().all(fits) {
            return Err(ShapeError(format!("{inputs:?} do not fit together along axis {}", self.axis)));
        }
        let mut shape = first.shape.clone();
        shape[self.axis] = inputs.iter().map(|t| t.shape[self.axis]).sum();
        Ok(vec![TensorType { dtype: first.dtype, shape }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let d = c.douts[0].expect("the only output");
        let mut start = 0;
        c.inputs
            .iter()
            .map(|&x| {
                let end = start + g.shape(x)[self.axis];
                Some(g.slice(d, self.axis, std::mem::replace(&mut start, end)..end))
            })
            .collect()
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let mut start = 0;
        let dispatches = (inputs.iter().enumerate())
            .map(|(i, x)| {
                let [outer, len, inner] = split(&x.shape, self.axis, self.axis + 1);
                let total = outputs[0].shape[self.axis];
                let strides = [vec![len * inner, inner, 1], vec![total * inner, inner, 1]];
                let walk = Walk::new(&[outer, len, inner], &strides);
                let to = start * inner;
                start += len;
                strided::copy(&walk, 0, to, [Slot::In(i), Slot::Out(0)], outputs[0].dtype)
            })
            .collect();
        Lowered { dispatches, scratch: vec![] }
    }
}

impl Graph {
    /// `parts` one behind the other along `axis`; one part is itself.
    pub fn concat(&mut self, parts: &[Node], axis: usize) -> Node {
        if let [one] = parts { *one } else { self.apply1(Concat { axis }, parts) }
    }
}
