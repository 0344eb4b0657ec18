//! Conversion between dtypes.

use crate::graph::fuse::Chain;
use crate::graph::op::Elementwise;
use crate::graph::{
    Cost, Data, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// Another dtype. Real numbers to indices are cut towards 0.
#[derive(Clone, Debug, PartialEq)]
struct Cast {
    to: Dtype,
}

impl Cast {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        vec![match (inputs[0].1, self.to) {
            (Data::Index(x), Dtype::U32) => Data::Index(x.clone()),
            (Data::Index(x), _) => Data::Real(x.iter().map(|&x| R::from_f64(x as f64)).collect()),
            (Data::Real(x), Dtype::U32) => Data::Index(x.iter().map(|x| x.to_f64() as u32).collect()),
            (Data::Real(x), Dtype::F32) => Data::Real(x.clone()),
            (Data::Real(x), Dtype::F16) => Data::Real(x.iter().map(|x| R::from_f64(round_f16(x.to_f64()))).collect()),
        }]
    }

    fn wgsl(&self) -> &'static str {
        match self.to {
            Dtype::U32 => "u32({0})",
            Dtype::F32 | Dtype::F16 => "f32({0})",
        }
    }
}

/// The nearest number that half precision holds, ties to even; overflow to infinity.
fn round_f16(x: f64) -> f64 {
    if !x.is_finite() || x == 0.0 {
        return x;
    }
    // Eleven significant bits; below 2^-14 the spacing stays 2^-24.
    let exponent = x.abs().log2().floor().max(-14.0);
    let quantum = (exponent - 10.0).exp2();
    let rounded = (x / quantum).round_ties_even() * quantum;
    if rounded.abs() > 65504.0 { f64::INFINITY.copysign(x) } else { rounded }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        Ok(vec![TensorType { dtype: self.to, shape: inputs[0].shape.clone() }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let from = g.ty(c.inputs[0]).dtype;
        match (from, self.to) {
            (Dtype::U32, _) | (_, Dtype::U32) => vec![None],
            _ => vec![c.douts[0].map(|d| g.cast(d, from))],
        }
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        Chain::single(self.name(), self.wgsl().into(), inputs, &outputs[0]).lower(&[Slot::In(0)])
    }

    fn elementwise(&self) -> Option<Elementwise> {
        Some(Elementwise { wgsl: self.wgsl().into() })
    }
}

impl Graph {
    /// `x` in another dtype; adds nothing where it has it already.
    pub fn cast(&mut self, x: Node, to: Dtype) -> Node {
        if self.ty(x).dtype == to { x } else { self.apply1(Cast { to }, &[x]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_rounded_to() {
        assert_eq!(round_f16(1.0 + 1.0 / 2048.0), 1.0);
        assert_eq!(round_f16(1.0 + 3.0 / 2048.0), 1.0 + 1.0 / 512.0);
        assert_eq!(round_f16(0.1), 0.099_975_585_937_5);
        assert_eq!(round_f16(65520.0), f64::INFINITY);
        assert_eq!(round_f16(2f64.powi(-25)), 0.0);
        assert_eq!(round_f16(-3.0 * 2f64.powi(-25)), -(2f64.powi(-23)));
    }
}
