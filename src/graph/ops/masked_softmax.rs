//! Softmax of whole score matrices over the keys that a rule allows: the middle step of naive attention.
//!
//! Keys outside the rule and padded keys have weight 0; a row that has nothing to attend to is all zeros. The scores are
//! O(N·M) in memory; `block_attention` is the way without them.

use super::kernel::{invocations, shares_rows, uniform};
use super::softmax::SoftmaxBackward;
use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};
use crate::pattern::Rule;

/// Inputs: scores `[B, H, N, M]`, and key padding `[B, M]` where there is one.
#[derive(Clone, Debug, PartialEq)]
struct MaskedSoftmax {
    rule: Rule,
}

impl MaskedSoftmax {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let [_, heads, n, m] = inputs[0].0.shape[..] else { unreachable!("checked by the shape rule") };
        let real = inputs.get(1).map(|(_, real)| real.index());
        let mut weights = inputs[0].1.real().to_vec();
        for (row, weights) in weights.chunks_exact_mut(m).enumerate() {
            let allowed = |j: usize| {
                self.rule.may(row % n, j, n, m) && real.is_none_or(|real| real[row / (heads * n) * m + j] != 0)
            };
            let scores = weights.iter().enumerate().filter(|(j, _)| allowed(*j));
            let top = scores.fold(R::from_f64(-3.0e38), |top, (_, &score)| top.maximum(score));
            let mut total = R::zero();
            for (j, weight) in weights.iter_mut().enumerate() {
                *weight = if allowed(j) { (*weight - top).exp() } else { R::zero() };
                total += *weight;
            }
            if total != R::zero() {
                weights.iter_mut().for_each(|weight| *weight = *weight / total);
            }
        }
        vec![Data::Real(weights)]
    }
}

impl Op for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked_softmax"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let fits = match inputs {
            [x, rest @ ..] if x.dtype == Dtype::F32 && x.shape.len() == 4 => {
                rest.iter().all(|real| **real == TensorType::u32(&[x.shape[0], x.shape[3]]))
            }
            _ => false,
        };
        if fits {
            Ok(vec![inputs[0].clone()])
        } else {
            Err(ShapeError(format!("takes f32 [B, H, N, M] and u32 [B, M], not {inputs:?}")))
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(5 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    /// Weights outside the rule are zero, so the gradient of an unmasked softmax is zero there too.
    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let d = c.douts[0].expect("the only output");
        let mut grads = vec![Some(g.apply1(SoftmaxBackward { is_log: false }, &[c.outputs[0], d]))];
        grads.resize(c.inputs.len(), None);
        grads
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let [batch, heads, n, m] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        let rows = batch * heads * n;
        let (entry, groups) = if shares_rows(context, m) {
            ("forward_group", [rows as u32, 1, 1])
        } else {
            ("forward", invocations(rows))
        };
        let padded = inputs.len() > 1;
        let mut words = self.rule.encode(n, m).to_vec();
        words.extend([rows as u32, (heads * n) as u32, n as u32, m as u32, padded.into()]);
        Lowered {
            dispatches: vec![Dispatch {
                source: Source::Table("attention/masked_softmax"),
                entry,
                consts: vec![],
                uniform: uniform(&words),
                // Without padding nothing reads `real`; the scores stand in, since a binding cannot be empty.
                bindings: vec![("x", Slot::In(0)), ("real", Slot::In(usize::from(padded))), ("y", Slot::Out(0))],
                groups,
                flops: 5 * inputs[0].len() as u64,
            }],
            scratch: vec![],
        }
    }
}

impl Graph {
    /// Softmax of `scores` `[B, H, N, M]` over the keys that `rule` allows and, where `key_padding` `[B, M]` is given, that
    /// are real (not 0); zeros elsewhere.
    pub fn masked_softmax(&mut self, scores: Node, key_padding: Option<Node>, rule: Rule) -> Node {
        match key_padding {
            None if rule == (Rule::All { causal: false }) => self.softmax(scores),
            None => self.apply1(MaskedSoftmax { rule }, &[scores]),
            Some(padding) => self.apply1(MaskedSoftmax { rule }, &[scores, padding]),
        }
    }
}
