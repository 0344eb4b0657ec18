//! A range of one axis, and its gradient: padding of one axis.

use super::kernel::{invocations, uniform, vec4};
use super::strided;
use crate::graph::layout::{Walk, split};
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};
use std::ops::Range;

#[derive(Clone, Debug, PartialEq)]
struct Slice {
    axis: usize,
    range: Range<usize>,
}

impl Slice {
    /// Loops of the slice over the input and the output, and where it begins in the input.
    fn walk(&self, x: &TensorType) -> (Walk, usize) {
        let [outer, middle, inner] = split(&x.shape, self.axis, self.axis + 1);
        let len = self.range.len();
        let strides = [vec![middle * inner, inner, 1], vec![len * inner, inner, 1]];
        (Walk::new(&[outer, len, inner], &strides), self.range.start * inner)
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (walk, from) = self.walk(inputs[0].0);
        vec![strided::gather(&walk, from, inputs[0].1)]
    }
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let mut shape = inputs[0].shape.clone();
        if self.axis >= shape.len() || self.range.is_empty() || self.range.end > shape[self.axis] {
            return Err(ShapeError(format!("{:?} of axis {} of {shape:?}", self.range, self.axis)));
        }
        shape[self.axis] = self.range.len();
        Ok(vec![TensorType { dtype: inputs[0].dtype, shape }])
    }

    fn cost(&self, _: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, &[&outputs[0]], outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let size = g.shape(c.inputs[0])[self.axis];
        vec![c.douts[0].map(|d| g.pad(d, self.axis, self.range.start, size - self.range.end, 0.0))]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let (walk, from) = self.walk(inputs[0]);
        Lowered {
            dispatches: vec![strided::copy(&walk, from, 0, [Slot::In(0), Slot::Out(0)], outputs[0].dtype)],
            scratch: vec![],
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Pad {
    axis: usize,
    before: usize,
    after: usize,
    value: f64,
}

impl Pad {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let [_, middle, inner] = split(&inputs[0].0.shape, self.axis, self.axis + 1);
        let (before, after, len) = (self.before * inner, self.after * inner, outputs[0].len());
        fn pad<T: Copy>(x: &[T], row: usize, before: usize, after: usize, value: T, len: usize) -> Vec<T> {
            let mut out = Vec::with_capacity(len);
            for row in x.chunks_exact(row) {
                out.resize(out.len() + before, value);
                out.extend_from_slice(row);
                out.resize(out.len() + after, value);
            }
            out
        }
        vec![match inputs[0].1 {
            Data::Real(x) => Data::Real(pad(x, middle * inner, before, after, R::from_f64(self.value), len)),
            Data::Index(x) => Data::Index(pad(x, middle * inner, before, after, self.value as u32, len)),
        }]
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let mut shape = inputs[0].shape.clone();
        if self.axis >= shape.len() {
            return Err(ShapeError(format!("axis {} of {shape:?}", self.axis)));
        }
        shape[self.axis] += self.before + self.after;
        Ok(vec![TensorType { dtype: inputs[0].dtype, shape }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let size = g.shape(c.inputs[0])[self.axis];
        vec![c.douts[0].map(|d| g.slice(d, self.axis, self.before..self.before + size))]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let [outer, middle, inner] = split(&inputs[0].shape, self.axis, self.axis + 1);
        let lanes = if vec4(inner) { 4 } else { 1 };
        let count = outputs[0].len() / lanes;
        let value = if inputs[0].dtype == Dtype::U32 { self.value as u32 } else { (self.value as f32).to_bits() };
        let size = outputs[0].shape[self.axis] as u32;
        let mut words = vec![count as u32, 3, 0, 0, value, 0, 0, 0];
        words.extend([outer as u32, 0, 0, 0]);
        words.extend([size, 0, middle as u32, self.before as u32]);
        words.extend([(inner / lanes) as u32, 0, 0, 0]);
        words.resize(8 + 8 * 4, 0);
        let (entry, names) = if lanes == 4 { ("pad4", ["x4", "y4"]) } else { ("pad", ["x", "y"]) };
        Lowered {
            dispatches: vec![Dispatch {
                source: strided::kernel(inputs[0].dtype),
                entry,
                consts: vec![],
                uniform: uniform(&words),
                bindings: vec![(names[0], Slot::In(0)), (names[1], Slot::Out(0))],
                groups: invocations(count),
                flops: 0,
            }],
            scratch: vec![],
        }
    }
}

impl Graph {
    /// The elements of `x` at `range` of `axis`.
    pub fn slice(&mut self, x: Node, axis: usize, range: Range<usize>) -> Node {
        if range == (0..self.shape(x)[axis]) { x } else { self.apply1(Slice { axis, range }, &[x]) }
    }

    /// `x` with `before` and `after` elements of `value` around `axis`.
    pub fn pad(&mut self, x: Node, axis: usize, before: usize, after: usize, value: f64) -> Node {
        if before + after == 0 { x } else { self.apply1(Pad { axis, before, after, value }, &[x]) }
    }
}
