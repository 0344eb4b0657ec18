//! Depthwise convolution along the sequence: every channel has a filter of its own.

use super::kernel::{invocations, uniform, vec4};
use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// Elements of a sequence that one invocation computes, `ROWS` of the shader.
const ROWS: usize = 8;

/// Elements of a sequence in one part of the filters' gradient.
const CHUNK: usize = 256;

/// `y[n] = sum over k of w[k] x[n + k - before]`; x `[batch, heads, N, C]`, w `[heads, K, C]`. Elements outside the sequence
/// are 0.
#[derive(Clone, Debug, PartialEq)]
struct DepthwiseConv {
    before: usize,
    flipped: bool,
}

/// x and dy to the gradient of the filters, `[batch, parts, heads, K, C]`, yet to be summed.
#[derive(Clone, Debug, PartialEq)]
struct FilterGradient {
    taps: usize,
    before: usize,
    flipped: bool,
}

fn place(k: usize, taps: usize, flipped: bool) -> usize {
    if flipped { taps - 1 - k } else { k }
}

fn dispatch(
    entry: &'static str,
    x: &TensorType,
    [taps, before, flipped]: [usize; 3],
    bindings: Vec<(&'static str, Slot)>,
    count: usize,
) -> Lowered {
    let [batch, heads, len, channels] = x.shape[..] else { unreachable!("checked by the shape rule") };
    let parts = len.div_ceil(CHUNK);
    let words = [batch * heads, heads, len, channels, taps, before, flipped, CHUNK, parts];
    Lowered {
        dispatches: vec![Dispatch {
            source: Source::Table("ops/depthwise_conv"),
            entry,
            consts: vec![],
            uniform: uniform(&words.map(|w| w as u32)),
            bindings,
            groups: invocations(count),
            flops: (2 * x.len() * taps) as u64,
        }],
        scratch: vec![],
    }
}

impl DepthwiseConv {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let [batch, heads, len, channels] = inputs[0].0.shape[..] else { unreachable!("checked by the shape rule") };
        let taps = inputs[1].0.shape[1];
        let (x, w) = (inputs[0].1.real(), inputs[1].1.real());
        let mut y = vec![R::zero(); x.len()];
        for sequence in 0..batch * heads {
            for n in 0..len {
                for k in 0..taps {
                    let Some(m) = (n + k).checked_sub(self.before).filter(|&m| m < len) else { continue };
                    let filter = (sequence % heads * taps + place(k, taps, self.flipped)) * channels;
                    let (from, to) = ((sequence * len + m) * channels, (sequence * len + n) * channels);
                    for c in 0..channels {
                        y[to + c] += w[filter + c] * x[from + c];
                    }
                }
            }
        }
        vec![Data::Real(y)]
    }
}

impl Op for DepthwiseConv {
    fn name(&self) -> &'static str {
        "depthwise_conv"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match (&inputs[0].shape[..], &inputs[1].shape[..]) {
            (&[_, heads, _, channels], &[same_heads, _, same_channels])
                if (heads, channels) == (same_heads, same_channels)
                    && inputs.iter().all(|t| **t == TensorType::f32(&t.shape)) =>
            {
                Ok(vec![inputs[0].clone()])
            }
            _ => Err(ShapeError(format!("{inputs:?} are not x [.., H, N, C] and filters [H, K, C] in f32"))),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming((2 * inputs[0].len() * inputs[1].shape[1]) as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let [x, w] = c.inputs else { unreachable!("two inputs") };
        let d = c.douts[0].expect("the only output");
        let taps = g.shape(*w)[1];
        let back = Self { before: taps - 1 - self.before, flipped: !self.flipped };
        let dx = g.apply1(back, &[d, *w]);
        let parts = g.apply1(FilterGradient { taps, before: self.before, flipped: self.flipped }, &[*x, d]);
        vec![Some(dx), Some(g.sum(parts, &[0, 1], false))]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let [batch, heads, len, channels] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        let (entry, names, count) = if vec4(channels) {
            ("forward4", ["x4", "w4", "y4"], batch * heads * len.div_ceil(ROWS) * channels / 4)
        } else {
            ("forward", ["x", "w", "y"], outputs[0].len())
        };
        let bindings = vec![(names[0], Slot::In(0)), (names[1], Slot::In(1)), (names[2], Slot::Out(0))];
        let filter = [inputs[1].shape[1], self.before, self.flipped as usize];
        dispatch(entry, inputs[0], filter, bindings, count)
    }
}

impl FilterGradient {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let [batch, heads, len, channels] = inputs[0].0.shape[..] else { unreachable!("checked by the shape rule") };
        let parts = len.div_ceil(CHUNK);
        let (x, dy) = (inputs[0].1.real(), inputs[1].1.real());
        let mut dw = vec![R::zero(); outputs[0].len()];
        for sequence in 0..batch * heads {
            for n in 0..len {
                for k in 0..self.taps {
                    let tap = place(k, self.taps, self.flipped);
                    let Some(m) = (n + tap).checked_sub(self.before).filter(|&m| m < len) else { continue };
                    let part = (sequence / heads * parts + n / CHUNK) * heads + sequence % heads;
                    let to = (part * self.taps + k) * channels;
                    let (from, at) = ((sequence * len + m) * channels, (sequence * len + n) * channels);
                    for c in 0..channels {
                        dw[to + c] += dy[at + c] * x[from + c];
                    }
                }
            }
        }
        vec![Data::Real(dw)]
    }
}

impl Op for FilterGradient {
    fn name(&self) -> &'static str {
        "depthwise_conv_filter_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let [batch, heads, len, channels] = inputs[0].shape[..] else {
            return Err(ShapeError(format!("{:?} is not [.., H, N, C]", inputs[0])));
        };
        Ok(vec![TensorType::f32(&[batch, len.div_ceil(CHUNK), heads, self.taps, channels])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming((2 * inputs[0].len() * self.taps) as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("{} has no gradient", self.name())
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let [batch, parts, heads, taps, channels] = outputs[0].shape[..] else {
            unreachable!("made by the shape rule")
        };
        let (entry, names, count) = if vec4(channels) {
            ("backward_filter4", ["x4", "dy4", "dw4"], batch * parts * heads * taps.div_ceil(4) * channels / 4)
        } else {
            ("backward_filter", ["x", "dy", "dw"], outputs[0].len())
        };
        let bindings = vec![(names[0], Slot::In(0)), (names[1], Slot::In(1)), (names[2], Slot::Out(0))];
        dispatch(entry, inputs[0], [taps, self.before, self.flipped as usize], bindings, count)
    }
}

impl Graph {
    /// Convolves `x` `[.., H, N, C]` (or `[N, C]`) along N with filters `w` `[H or 1, K, C or 1]`, 0 outside the sequence.
    /// Causal filters end at the element itself, others are centred on it (K odd).
    pub fn depthwise_conv(&mut self, x: Node, w: Node, causal: bool) -> Node {
        let shape = self.shape(x).to_vec();
        let [.., len, channels] = shape[..] else { panic!("depthwise_conv: {shape:?} is not [.., N, C]") };
        let [filter_heads, taps, _] = self.shape(w)[..] else { panic!("depthwise_conv: filters are [H, K, C]") };
        // One filter bank for all leaves the heads with the batch.
        let heads = if filter_heads == 1 { 1 } else { shape[shape.len() - 3] };
        assert!(causal || taps % 2 == 1, "depthwise_conv: a centred filter has an odd number of taps");
        let batch = shape.iter().product::<usize>() / (heads * len * channels);
        let x = self.reshape(x, &[batch, heads, len, channels]);
        let w = self.broadcast_to(w, &[heads, taps, channels]);
        let before = if causal { taps - 1 } else { taps / 2 };
        let y = self.apply1(DepthwiseConv { before, flipped: false }, &[x, w]);
        self.reshape(y, &shape)
    }
}
