//! Softmax over the last axis, its logarithm, and the log-sum-exp.
//!
//! An element of -infinity has weight 0; a row of nothing else is all zeros (its logarithm is NaN, its log-sum-exp
//! -infinity).

use super::rows::RowKernel;
use crate::graph::layout::rows;
use crate::graph::{
    Cost, Data, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// Where maxima start: below every score, and finite.
const LOWEST: f64 = -3.0e38;

#[derive(Clone, Debug, PartialEq)]
struct Softmax {
    is_log: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct SoftmaxBackward {
    pub(super) is_log: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct LogSumExp;

/// Largest element of a row, at least [`LOWEST`], and the sum of exponentials less it.
fn stats<R: Real>(row: &[R]) -> (R, R) {
    let top = row.iter().fold(R::from_f64(LOWEST), |a, &b| a.maximum(b));
    (top, row.iter().fold(R::zero(), |total, &x| total + (x - top).exp()))
}

fn kernel(is_log: bool) -> RowKernel {
    RowKernel { source: ["ops/softmax", "ops/softmax+f16"], words: [is_log.into(), 0], flops: 5 }
}

fn check(inputs: &[&TensorType]) -> Result<(), ShapeError> {
    match inputs {
        [x, rest @ ..] if x.dtype != Dtype::U32 && !x.shape.is_empty() && rest.iter().all(|t| t == x) => Ok(()),
        _ => Err(ShapeError(format!("takes real numbers with a last axis, not {inputs:?}"))),
    }
}

impl Softmax {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let mut y = Vec::with_capacity(inputs[0].0.len());
        for row in inputs[0].1.real().chunks_exact(rows(inputs[0].0).1) {
            let (top, total) = stats(row);
            if self.is_log {
                let log_total = total.ln();
                y.extend(row.iter().map(|&x| x - top - log_total));
            } else {
                let share = if total == R::zero() { total } else { R::one() / total };
                y.extend(row.iter().map(|&x| (x - top).exp() * share));
            }
        }
        vec![Data::Real(y)]
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.is_log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        check(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(5 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let d = c.douts[0].expect("the only output");
        vec![Some(g.apply1(SoftmaxBackward { is_log: self.is_log }, &[c.outputs[0], d]))]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let bindings = [("x", "x4", Slot::In(0)), ("y", "y4", Slot::Out(0))];
        kernel(self.is_log).over_rows(context, ["forward", "forward4", "forward_group"], inputs[0], &bindings)
    }
}

impl SoftmaxBackward {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let len = rows(inputs[0].0).1;
        let mut dx = Vec::with_capacity(inputs[0].0.len());
        for (y, d) in inputs[0].1.real().chunks_exact(len).zip(inputs[1].1.real().chunks_exact(len)) {
            if self.is_log {
                let total = d.iter().fold(R::zero(), |total, &d| total + d);
                dx.extend(y.iter().zip(d).map(|(&y, &d)| d - y.exp() * total));
            } else {
                let total = y.iter().zip(d).fold(R::zero(), |total, (&y, &d)| total + y * d);
                dx.extend(y.iter().zip(d).map(|(&y, &d)| y * (d - total)));
            }
        }
        vec![Data::Real(dx)]
    }
}

impl Op for SoftmaxBackward {
    fn name(&self) -> &'static str {
        if self.is_log { "log_softmax_backward" } else { "softmax_backward" }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        check(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(4 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("{} has no gradient", self.name())
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let bindings = [("x", "x4", Slot::In(0)), ("dy", "dy4", Slot::In(1)), ("y", "y4", Slot::Out(0))];
        kernel(self.is_log).over_rows(context, ["backward", "backward4", "backward_group"], inputs[0], &bindings)
    }
}

impl LogSumExp {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let each = inputs[0].1.real().chunks_exact(rows(inputs[0].0).1);
        vec![Data::Real(
            each.map(|row| {
                let (top, total) = stats(row);
                top + total.ln()
            })
            .collect(),
        )]
    }
}

impl Op for LogSumExp {
    fn name(&self) -> &'static str {
        "log_sum_exp"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        check(inputs)?;
        if inputs[0].dtype != Dtype::F32 {
            return Err(ShapeError("the log-sum-exp is of f32".into()));
        }
        Ok(vec![TensorType::f32(&inputs[0].shape[..inputs[0].shape.len() - 1])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(4 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let last = g.shape(c.inputs[0]).len() - 1;
        let lse = g.unsqueeze(c.outputs[0], last);
        let d = g.unsqueeze(c.douts[0].expect("the only output"), last);
        let shifted = g.sub(c.inputs[0], lse);
        let weights = g.exp(shifted);
        vec![Some(g.mul(weights, d))]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let bindings = [("x", "x4", Slot::In(0)), ("y", "y", Slot::Out(0))];
        kernel(false).over_rows(context, ["lse", "lse4", "lse_group"], inputs[0], &bindings)
    }
}

impl Graph {
    /// Softmax over the last axis.
    pub fn softmax(&mut self, x: Node) -> Node {
        self.apply1(Softmax { is_log: false }, &[x])
    }

    /// Logarithm of softmax over the last axis.
    pub fn log_softmax(&mut self, x: Node) -> Node {
        self.apply1(Softmax { is_log: true }, &[x])
    }

    /// Logarithm of the sum of exponentials over the last axis, which is dropped.
    pub fn log_sum_exp(&mut self, x: Node) -> Node {
        self.apply1(LogSumExp, &[x])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_nothing_to_attend_to_is_zero() {
        let ty = TensorType::f32(&[2, 2]);
        let x = Data::Real(vec![f64::NEG_INFINITY, f64::NEG_INFINITY, 1.0, f64::NEG_INFINITY]);
        let y = Softmax { is_log: false }.eval(&[(&ty, &x)], std::slice::from_ref(&ty));
        assert_eq!(y[0].real(), [0.0, 0.0, 1.0, 0.0]);
    }
}
