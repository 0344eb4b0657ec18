//! Positions of the largest elements of the last axis, without sorting them.

use super::argsort::compare;
use super::kernel::uniform;
use crate::gpu::Source;
use crate::graph::layout::rows;
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};
use crate::sort::Arrange;

/// x `[.., len]` to u32 `[.., count]`.
#[derive(Clone, Debug, PartialEq)]
struct Largest {
    count: usize,
}

impl Largest {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let (rows, len) = rows(inputs[0].0);
        let mut found = Vec::with_capacity(outputs[0].len());
        for row in 0..rows {
            let at = |i: u32| row * len + i as usize;
            let mut order: Vec<u32> = (0..len as u32).collect();
            order.arrange_by(|&a, &b| match inputs[0].1 {
                Data::Real(x) => compare(x[at(b)], x[at(a)]),
                Data::Index(x) => x[at(b)].cmp(&x[at(a)]),
            });
            order.truncate(self.count);
            order.sort_unstable();
            found.extend(order);
        }
        vec![Data::Index(found)]
    }
}

impl Op for Largest {
    fn name(&self) -> &'static str {
        "largest"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match (inputs[0].shape.split_last(), inputs[0].dtype) {
            (Some((&len, rest)), Dtype::F32 | Dtype::U32) if (1..=len).contains(&self.count) => {
                Ok(vec![TensorType::u32(&[rest, &[self.count]].concat())])
            }
            _ => Err(ShapeError(format!("the {} largest of {:?} cannot be found", self.count, inputs[0]))),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        vec![None]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let (rows, len) = rows(inputs[0]);
        let is_real = usize::from(inputs[0].dtype == Dtype::F32);
        // As wide as a vector on a software adapter, where a barrier among more is dear.
        let lanes = if context.software { 8 } else { 256.min(context.max_invocations) };
        Lowered {
            dispatches: vec![Dispatch {
                source: Source::Table("ops/largest"),
                entry: "largest",
                consts: vec![("LANES", f64::from(lanes))],
                uniform: uniform(&[rows, len, self.count, is_real].map(|n| n as u32)),
                bindings: vec![("x", Slot::In(0)), ("found", Slot::Out(0))],
                groups: [rows as u32, 1, 1],
                // Elements looked at, so that long rows are split.
                flops: (6 * rows * len) as u64,
            }],
            scratch: vec![],
        }
    }
}

impl Graph {
    /// Positions of the `count` largest elements of the last axis of `x` (f32 or u32) `[.., len]`, ascending: u32
    /// `[.., count]`. Of equal elements the first are taken, and NaN counts as the largest, as in [`Graph::top_k`], which
    /// sorts.
    pub fn largest(&mut self, x: Node, count: usize) -> Node {
        self.apply1(Largest { count }, &[x])
    }
}
