//! Random tensors and dropout, from a generator that needs no state.
//!
//! The seed is a u32 tensor of shape `[2]`, so that steps vary without a new plan; `stream` tells the uses within one step
//! apart. The backward of dropout draws the same mask again.

use super::kernel::{invocations, uniform, vec4};
use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType, rng,
};

/// What a random tensor is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// [0, 1)
    Uniform,
    /// Standard normal
    Normal,
}

#[derive(Clone, Debug, PartialEq)]
struct Random {
    shape: Vec<usize>,
    distribution: Distribution,
    stream: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Dropout {
    /// Words below it drop their element.
    threshold: u32,
    /// What kept elements are multiplied by.
    scale: f64,
    stream: u32,
}

fn check_seed(seed: &TensorType) -> Result<(), ShapeError> {
    if *seed == TensorType::u32(&[2]) { Ok(()) } else { Err(ShapeError(format!("a seed is u32 [2], not {seed:?}"))) }
}

/// Elements 0..len, four from each block's words.
fn draw<T: Copy>(len: usize, seed: &[u32], stream: u32, block: impl Fn([u32; 4]) -> [T; 4]) -> Vec<T> {
    let blocks = (0..len.div_ceil(4)).flat_map(|b| block(rng::words([seed[0], seed[1]], stream, b as u32)));
    blocks.take(len).collect()
}

impl Random {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let (len, seed) = (outputs[0].len(), inputs[0].1.index());
        vec![Data::Real(match self.distribution {
            Distribution::Uniform => draw(len, seed, self.stream, |words| words.map(|w| R::from_f64(rng::unit(w)))),
            Distribution::Normal => draw(len, seed, self.stream, |words| rng::normal(words).map(R::from_f64)),
        })]
    }
}

impl Op for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        check_seed(inputs[0])?;
        Ok(vec![TensorType::f32(&self.shape)])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        vec![None]
    }

    fn lower(&self, _: &LowerContext, _: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let is_normal = (self.distribution == Distribution::Normal) as u32;
        let len = outputs[0].len();
        Lowered {
            dispatches: vec![Dispatch {
                source: Source::Table("ops/random"),
                entry: "fill",
                consts: vec![],
                uniform: uniform(&[len as u32, self.stream, 0, 0, is_normal]),
                bindings: vec![("seed", Slot::In(0)), ("y", Slot::Out(0))],
                groups: invocations(len.div_ceil(4)),
                flops: len as u64,
            }],
            scratch: vec![],
        }
    }
}

impl Dropout {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let scale = R::from_f64(self.scale);
        let words = draw(outputs[0].len(), inputs[1].1.index(), self.stream, |words| words);
        let kept = |(&x, word): (&R, u32)| if word < self.threshold { R::zero() } else { x * scale };
        vec![Data::Real(inputs[0].1.real().iter().zip(words).map(kept).collect())]
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        check_seed(inputs[1])?;
        match inputs[0].dtype {
            Dtype::F32 => Ok(vec![inputs[0].clone()]),
            other => Err(ShapeError(format!("takes f32, not {other:?}"))),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(outputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        vec![c.douts[0].map(|d| g.apply1(self.clone(), &[d, c.inputs[1]])), None]
    }

    fn lower(&self, _: &LowerContext, _: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let len = outputs[0].len();
        let (entry, x, y) = if vec4(len) { ("dropout4", "x4", "y4") } else { ("dropout", "x", "y") };
        Lowered {
            dispatches: vec![Dispatch {
                source: Source::Table("ops/random"),
                entry,
                consts: vec![],
                uniform: uniform(&[len as u32, self.stream, self.threshold, (self.scale as f32).to_bits(), 0]),
                bindings: vec![(x, Slot::In(0)), ("seed", Slot::In(1)), (y, Slot::Out(0))],
                groups: invocations(len.div_ceil(4)),
                flops: len as u64,
            }],
            scratch: vec![],
        }
    }
}

impl Graph {
    /// A random tensor. `seed` is u32 `[2]`; the same seed and stream give the same numbers on every device (normals to the
    /// precision of its logarithm and cosine).
    pub fn random(&mut self, shape: &[usize], distribution: Distribution, seed: Node, stream: u32) -> Node {
        self.apply1(Random { shape: shape.into(), distribution, stream }, &[seed])
    }

    /// Sets each element to 0 with probability `p` (below 1) and multiplies the others by `1 / (1 - p)`. A `p` of 0 adds
    /// nothing to the graph.
    pub fn dropout(&mut self, x: Node, p: f64, seed: Node, stream: u32) -> Node {
        assert!((0.0..1.0).contains(&p), "dropout: the probability is {p}");
        let threshold = (p * 4_294_967_296.0) as u32;
        if threshold == 0 {
            return x;
        }
        self.apply1(Dropout { threshold, scale: 1.0 / (1.0 - p), stream }, &[x, seed])
    }
}
