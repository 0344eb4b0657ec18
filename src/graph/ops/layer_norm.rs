//! Layer norm over the last axis, with gain and bias (Ba et al., 2016, arXiv:1607.06450).

use super::kernel::invocations;
use super::rows::RowKernel;
use crate::graph::layout::rows;
use crate::graph::{
    Cost, Data, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// Rows whose gradients of gain and bias are summed by one invocation.
const CHUNK: usize = 64;

/// x, gain, bias to y, and each row's mean and `1 / sqrt(variance + epsilon)` for the backward.
#[derive(Clone, Debug, PartialEq)]
struct LayerNorm {
    epsilon: f64,
}

/// x, gain, mean, scale, dy to dx.
#[derive(Clone, Debug, PartialEq)]
struct LayerNormBackward;

/// x, mean, scale, dy to the gradients of gain and bias, in parts that are yet to be summed.
#[derive(Clone, Debug, PartialEq)]
struct LayerNormGainBackward;

fn kernel(epsilon: f64) -> RowKernel {
    RowKernel {
        source: ["ops/layer_norm", "ops/layer_norm+f16"],
        words: [(epsilon as f32).to_bits(), CHUNK as u32],
        flops: 8,
    }
}

fn mean<R: Real>(row: impl ExactSizeIterator<Item = R>) -> R {
    let len = R::from_f64(row.len() as f64);
    row.fold(R::zero(), |total, x| total + x) / len
}

impl LayerNorm {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (gain, bias) = (inputs[1].1.real(), inputs[2].1.real());
        let (mut y, mut means, mut scales) = (Vec::with_capacity(inputs[0].0.len()), Vec::new(), Vec::new());
        for row in inputs[0].1.real().chunks_exact(rows(inputs[0].0).1) {
            let m = mean(row.iter().copied());
            let variance = mean(row.iter().map(|&x| (x - m) * (x - m)));
            let s = R::one() / (variance + R::from_f64(self.epsilon)).sqrt();
            y.extend(row.iter().zip(gain).zip(bias).map(|((&x, &g), &b)| (x - m) * s * g + b));
            means.push(m);
            scales.push(s);
        }
        vec![Data::Real(y), Data::Real(means), Data::Real(scales)]
    }
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let x = inputs[0];
        let Some((&len, rows)) = x.shape.split_last() else { return Err(ShapeError("takes a last axis".into())) };
        let row = TensorType::f32(&[len]);
        if x.dtype == Dtype::U32 || *inputs[1] != row || *inputs[2] != row {
            return Err(ShapeError(format!(
                "{inputs:?} are not x [.., n] in f32 or f16, gain [n] and bias [n] in f32"
            )));
        }
        Ok(vec![x.clone(), TensorType::f32(rows), TensorType::f32(rows)])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(8 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let [x, gain, _] = c.inputs else { unreachable!("three inputs") };
        let [_, mean, scale] = c.outputs else { unreachable!("three outputs") };
        // Mean and scale are for this gradient alone: nothing else reads them.
        let d = c.douts[0].expect("y is the output that others read");
        let dx = g.apply1(LayerNormBackward, &[*x, *gain, *mean, *scale, d]);
        let parts = g.apply(LayerNormGainBackward, &[*x, *mean, *scale, d]);
        vec![Some(dx), Some(g.sum(parts[0], &[0], false)), Some(g.sum(parts[1], &[0], false))]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let bindings = [
            ("x", "x4", Slot::In(0)),
            ("gain", "gain4", Slot::In(1)),
            ("bias", "bias4", Slot::In(2)),
            ("y", "y4", Slot::Out(0)),
            ("mean", "mean", Slot::Out(1)),
            ("scale", "scale", Slot::Out(2)),
        ];
        kernel(self.epsilon).over_rows(context, ["forward", "forward4", "forward_group"], inputs[0], &bindings)
    }
}

impl LayerNormBackward {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let len = rows(inputs[0].0).1;
        let [x, gain, means, scales, dy] = [0, 1, 2, 3, 4].map(|i| inputs[i].1.real());
        let mut dx = Vec::with_capacity(x.len());
        for (row, (x, dy)) in x.chunks_exact(len).zip(dy.chunks_exact(len)).enumerate() {
            let (m, s) = (means[row], scales[row]);
            let n = |j: usize| (x[j] - m) * s;
            let mean_e = mean((0..len).map(|j| dy[j] * gain[j]));
            let mean_en = mean((0..len).map(|j| dy[j] * gain[j] * n(j)));
            dx.extend((0..len).map(|j| s * (dy[j] * gain[j] - mean_e - n(j) * mean_en)));
        }
        vec![Data::Real(dx)]
    }
}

impl Op for LayerNormBackward {
    fn name(&self) -> &'static str {
        "layer_norm_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        Ok(vec![inputs[0].clone()])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(12 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("{} has no gradient", self.name())
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let bindings = [
            ("x", "x4", Slot::In(0)),
            ("gain", "gain4", Slot::In(1)),
            ("saved_mean", "saved_mean", Slot::In(2)),
            ("saved_scale", "saved_scale", Slot::In(3)),
            ("dy", "dy4", Slot::In(4)),
            ("y", "y4", Slot::Out(0)),
        ];
        kernel(0.0).over_rows(context, ["backward", "backward4", "backward_group"], inputs[0], &bindings)
    }
}

impl LayerNormGainBackward {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let len = rows(inputs[0].0).1;
        let [x, means, scales, dy] = [0, 1, 2, 3].map(|i| inputs[i].1.real());
        let mut gains = vec![R::zero(); outputs[0].len()];
        let mut biases = gains.clone();
        for (at, (&x, &dy)) in x.iter().zip(dy).enumerate() {
            let (row, column) = (at / len, at % len);
            gains[row / CHUNK * len + column] += dy * (x - means[row]) * scales[row];
            biases[row / CHUNK * len + column] += dy;
        }
        vec![Data::Real(gains), Data::Real(biases)]
    }
}

impl Op for LayerNormGainBackward {
    fn name(&self) -> &'static str {
        "layer_norm_gain_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let (rows, len) = rows(inputs[0]);
        let parts = TensorType::f32(&[rows.div_ceil(CHUNK), len]);
        Ok(vec![parts.clone(), parts])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(5 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("{} has no gradient", self.name())
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let bindings = vec![
            ("x", Slot::In(0)),
            ("saved_mean", Slot::In(1)),
            ("saved_scale", Slot::In(2)),
            ("dy", Slot::In(3)),
            ("dgain", Slot::Out(0)),
            ("dbias", Slot::Out(1)),
        ];
        kernel(0.0).dispatch("backward_gain", inputs[0], bindings, invocations(outputs[0].len()))
    }
}

impl Graph {
    /// `(x - mean) / sqrt(variance + epsilon) * gain + bias` over the last axis; gain and bias are `[n]`.
    pub fn layer_norm(&mut self, x: Node, gain: Node, bias: Node, epsilon: f64) -> Node {
        self.apply(LayerNorm { epsilon }, &[x, gain, bias])[0]
    }
}
