//! The gradient of attention by strips.

use super::{StripAttention, cpu, lower};
use crate::graph::{Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, TensorType};

/// What the backward op gives, in the order of its outputs; those that a kind of score has not are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grad {
    Left,
    Right,
    Values,
    /// Of the second vectors, or of the weights of additive scores with a row for each query: `[B, H, N, A]`.
    Second,
    /// With a plane for each batch entry: `[B, H, P, A]`.
    Positions,
    /// With a number for each query: `[B, H, N]`.
    Alpha,
}

impl StripAttention {
    fn grads(&self) -> Vec<Grad> {
        let mut grads = vec![Grad::Left, Grad::Right, Grad::Values];
        if self.is_additive() || self.is_relative() {
            grads.push(Grad::Second);
        }
        if self.is_relative() {
            grads.push(Grad::Positions);
        }
        if self.is_entmax() {
            grads.push(Grad::Alpha);
        }
        grads
    }

    /// The output that holds a gradient.
    pub fn port(&self, grad: Grad) -> Option<usize> {
        self.grads().iter().position(|&g| g == grad)
    }
}

/// Inputs: those of the forward op, then what it kept of the rows and the gradient of its output.
#[derive(Clone, Debug, PartialEq)]
pub struct StripBackward {
    pub attention: StripAttention,
}

impl StripBackward {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        cpu::Call::new(&self.attention, inputs).backward().into_iter().map(Data::Real).collect()
    }
}

impl Op for StripBackward {
    fn name(&self) -> &'static str {
        "strip_attention_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.attention.check(inputs)?;
        let s = self.attention.sizes(inputs);
        let shape = |grad: &Grad| match grad {
            Grad::Left | Grad::Second => inputs[0].shape.clone(),
            Grad::Right => inputs[1].shape.clone(),
            Grad::Values => inputs[2].shape.clone(),
            Grad::Positions => vec![s.batch, s.heads, s.distances, s.width],
            Grad::Alpha => vec![s.batch, s.heads, s.n],
        };
        Ok(self.attention.grads().iter().map(|grad| TensorType::f32(&shape(grad))).collect())
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let s = self.attention.sizes(inputs);
        let score = self.attention.score_flops(&s);
        let of_pair = 3 * score + 4 * s.dim as u64 + 2 * self.attention.normaliser_flops();
        Cost::streaming(self.attention.pairs(&s) * of_pair, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("{} has no gradient", self.name())
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::backward(self, inputs)
    }
}

/// One gradient for each input of the forward op.
pub fn gradients(op: &StripAttention, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
    let mut grads = vec![None; c.inputs.len()];
    let Some(dout) = c.douts[0] else { return grads };
    let mut inputs = c.inputs.to_vec();
    inputs.extend([c.outputs[1], dout]);
    let outputs = g.apply(StripBackward { attention: op.clone() }, &inputs);
    let out = |grad| op.port(grad).map(|port| outputs[port]);
    for (at, grad) in [Grad::Left, Grad::Right, Grad::Values].into_iter().enumerate() {
        grads[at] = out(grad);
    }
    if let Some(dsecond) = out(Grad::Second) {
        grads[3] = Some(if op.is_additive() { g.sum(dsecond, &[0, 2], false) } else { dsecond });
    }
    if let Some(dpositions) = out(Grad::Positions) {
        grads[op.positions_at()] = Some(g.sum(dpositions, &[0], false));
    }
    if let Some(dalpha) = out(Grad::Alpha) {
        grads[op.alpha_at()] = Some(g.sum(dalpha, &[0, 2], false));
    }
    grads
}
