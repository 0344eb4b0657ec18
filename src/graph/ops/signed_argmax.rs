//! Which of a row's numbers and their opposites is the largest: `argmax [x; -x]`, the hash of Andoni et al., 2015, "Practical and
//! Optimal LSH for Angular Distance", arXiv:1509.02897, of products with random directions.

use super::kernel::{invocations, uniform};
use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};

/// Inputs: x f32 `[B, H, N, R, c]`, and u32 `[B, N]` with 0 for rows that have no number, where there is such. Output: u32
/// `[B, H, R, N]` below 2 c, 2 c for those rows; of equal numbers the first.
#[derive(Clone, Debug, PartialEq)]
struct SignedArgmax;

impl SignedArgmax {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let [_, heads, n, rounds, half] = inputs[0].0.shape[..] else { unreachable!("checked by the shape rule") };
        let real = inputs.get(1).map(|(_, real)| real.index());
        let x = inputs[0].1.real();
        let of_row = |row: usize| {
            let (head, round, i) = (row / (rounds * n), row / n % rounds, row % n);
            if real.is_some_and(|real| real[head / heads * n + i] == 0) {
                return 2 * half as u32;
            }
            let x = &x[((head * n + i) * rounds + round) * half..][..half];
            let mut best = (0, x[0]);
            for (c, value) in x.iter().copied().chain(x.iter().map(|&x| R::zero() - x)).enumerate() {
                if value > best.1 {
                    best = (c, value);
                }
            }
            best.0 as u32
        };
        vec![Data::Index((0..x.len() / half).map(of_row).collect())]
    }
}

impl Op for SignedArgmax {
    fn name(&self) -> &'static str {
        "signed_argmax"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match inputs[0].shape[..] {
            [batch, heads, n, rounds, half]
                if half > 0
                    && inputs[0].dtype == Dtype::F32
                    && inputs[1..].iter().all(|t| **t == TensorType::u32(&[batch, n])) =>
            {
                Ok(vec![TensorType::u32(&[batch, heads, rounds, n])])
            }
            _ => Err(ShapeError(format!("{inputs:?} are not f32 [B, H, N, R, c] and u32 [B, N]"))),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(2 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        vec![None; c.inputs.len()]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let [_, heads, n, rounds, half] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        let words = [outputs[0].len(), heads, rounds, n, half, inputs.len() - 1].map(|x| x as u32);
        // A binding that is not read has to be something.
        let padding = if inputs.len() > 1 { Slot::In(1) } else { Slot::In(0) };
        let dispatch = Dispatch {
            source: Source::Table("ops/signed_argmax"),
            entry: "forward",
            consts: vec![],
            uniform: uniform(&words),
            bindings: vec![("x", Slot::In(0)), ("padding", padding), ("found", Slot::Out(0))],
            groups: invocations(outputs[0].len()),
            flops: 2 * inputs[0].len() as u64,
        };
        Lowered { dispatches: vec![dispatch], scratch: vec![] }
    }
}

impl Graph {
    /// Positions of the largest number of `[x; -x]` along the last axis: x `[B, H, N, R, c]` gives u32 `[B, H, R, N]`, and 2 c where
    /// `real` (u32 `[B, N]`) is 0. No gradient.
    pub fn signed_argmax(&mut self, x: Node, real: Option<Node>) -> Node {
        let inputs: Vec<Node> = [x].into_iter().chain(real).collect();
        self.apply1(SignedArgmax, &inputs)
    }
}
