//! Stable argsort over the last axis, and top-k on it.

use super::kernel::{invocations, uniform};
use crate::gpu::Source;
use crate::graph::layout::rows;
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};
use crate::sort::Arrange;
use std::cmp::Ordering;

/// Elements of a run that is sorted by counting; longer rows are merged from such runs.
const RUN: usize = 256;
/// Rows up to this length are one run.
const ONE_RUN: usize = 512;

#[derive(Clone, Debug, PartialEq)]
struct Argsort {
    descending: bool,
}

/// NaN is the largest, and -0 equals 0: the order of the kernel's keys.
pub(super) fn compare<R: Real>(a: R, b: R) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.to_f64().is_nan().cmp(&b.to_f64().is_nan()))
}

impl Argsort {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (rows, len) = rows(inputs[0].0);
        let mut order = Vec::with_capacity(rows * len);
        for row in 0..rows {
            let first = order.len();
            order.extend(0..len as u32);
            let at = |i: u32| row * len + i as usize;
            order[first..].arrange_by(|&a, &b| {
                let ordering = match inputs[0].1 {
                    Data::Real(x) => compare(x[at(a)], x[at(b)]),
                    Data::Index(x) => x[at(a)].cmp(&x[at(b)]),
                };
                if self.descending { ordering.reverse() } else { ordering }
            });
        }
        vec![Data::Index(order)]
    }
}

impl Op for Argsort {
    fn name(&self) -> &'static str {
        "argsort"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        if inputs[0].shape.is_empty() || inputs[0].dtype == Dtype::F16 {
            return Err(ShapeError(format!("takes f32 or u32 with a last axis, not {:?}", inputs[0])));
        }
        Ok(vec![TensorType::u32(&inputs[0].shape)])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        vec![None]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let (rows, len) = rows(inputs[0]);
        let is_real = (inputs[0].dtype == Dtype::F32) as u32;
        let mut run = if len <= ONE_RUN { len } else { RUN };
        let merges = len.div_ceil(run).next_power_of_two().ilog2();
        // The result and one scratch buffer in turn, so that the last merge writes the result.
        let buffer = |pass: u32| if (merges - pass).is_multiple_of(2) { Slot::Out(0) } else { Slot::Scratch(0) };
        let mut dispatches = Vec::new();
        for pass in 0..=merges {
            let mut bindings = vec![("x", Slot::In(0)), ("order", buffer(pass))];
            if pass > 0 {
                bindings.push(("runs", buffer(pass - 1)));
            }
            dispatches.push(Dispatch {
                source: Source::Table("ops/argsort"),
                entry: if pass == 0 { "rank" } else { "merge" },
                consts: vec![],
                uniform: uniform(&[rows as u32, len as u32, run as u32, self.descending as u32, is_real]),
                bindings,
                groups: invocations(rows * len),
                // Comparisons, so that long sorts are split.
                flops: (rows * len * if pass == 0 { run } else { run.ilog2() as usize + 1 }) as u64,
            });
            run *= if pass == 0 { 1 } else { 2 };
        }
        Lowered { dispatches, scratch: if merges > 0 { vec![(rows * len * 4) as u64] } else { vec![] } }
    }
}

impl Graph {
    /// Positions along the last axis in the order of the elements (f32 or u32); equal ones keep their order. NaN counts as
    /// the largest.
    pub fn argsort(&mut self, x: Node, descending: bool) -> Node {
        self.apply1(Argsort { descending }, &[x])
    }

    /// The `k` largest elements of the last axis, largest first, and their positions; of equal ones the first.
    pub fn top_k(&mut self, x: Node, k: usize) -> (Node, Node) {
        let shape = self.shape(x).to_vec();
        let last = shape.len() - 1;
        let order = self.argsort(x, true);
        let index = self.slice(order, last, 0..k);
        let table = self.unsqueeze(x, shape.len());
        let values = self.gather_rows(table, index);
        let result = self.shape(index).to_vec();
        (self.reshape(values, &result), index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_elements_keep_their_order_and_nan_is_largest() {
        let ty = TensorType::f32(&[6]);
        let x = Data::Real(vec![1.0, f64::NAN, 0.0, 1.0, -0.0, f64::INFINITY]);
        let sort = |descending| Argsort { descending }.eval(&[(&ty, &x)], &[])[0].index().to_vec();
        assert_eq!(sort(false), [2, 4, 0, 3, 5, 1]);
        assert_eq!(sort(true), [1, 5, 0, 3, 2, 4]);
    }
}
