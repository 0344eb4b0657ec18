//! The weights of attention by strips as a whole matrix, for pictures.

use super::{StripAttention, cpu, lower};
use crate::graph::{Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, TensorType};

/// Inputs as for the attention; output `[B, H, N, R]`.
#[derive(Clone, Debug, PartialEq)]
pub struct StripWeights {
    pub attention: StripAttention,
}

impl StripWeights {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        vec![Data::Real(cpu::Call::new(&self.attention, inputs).matrix())]
    }
}

impl Op for StripWeights {
    fn name(&self) -> &'static str {
        "strip_weights"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.attention.check(inputs)?;
        let s = self.attention.sizes(inputs);
        Ok(vec![TensorType::f32(&[s.batch, s.heads, s.n, s.rows])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let s = self.attention.sizes(inputs);
        let of_pair = self.attention.score_flops(&s) + self.attention.normaliser_flops();
        Cost::streaming(self.attention.pairs(&s) * of_pair, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("{} has no gradient", self.name())
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        lower::matrix(&self.attention, inputs, outputs[0].len())
    }
}
