//! Cross-entropy of logits with integer targets; the gradient needs no softmax in memory.

use super::kernel::invocations;
use super::rows::RowKernel;
use crate::graph::layout::rows;
use crate::graph::{
    BinaryKind, Cost, Data, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// The target of a row that counts for nothing.
pub const IGNORED: u32 = u32::MAX;

/// logits `[rows, V]`, targets `[rows]` to the loss of each row and the log-sum-exp of its logits.
#[derive(Clone, Debug, PartialEq)]
struct CrossEntropy;

/// logits, targets, log-sum-exp and the gradient of each row's loss to that of the logits.
#[derive(Clone, Debug, PartialEq)]
struct CrossEntropyBackward;

const KERNEL: RowKernel =
    RowKernel { source: ["ops/cross_entropy"; 2], words: [IGNORED, f32::NAN.to_bits()], flops: 4 };

impl CrossEntropy {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (mut loss, mut lse) = (Vec::new(), Vec::new());
        for (row, &target) in inputs[0].1.real().chunks_exact(rows(inputs[0].0).1).zip(inputs[1].1.index()) {
            let top = row.iter().fold(row[0], |a, &b| a.maximum(b));
            let total = row.iter().fold(R::zero(), |total, &x| total + (x - top).exp());
            let row_lse = top + total.ln();
            lse.push(row_lse);
            loss.push(match row.get(target as usize) {
                Some(&x) => row_lse - x,
                None if target == IGNORED => R::zero(),
                None => R::from_f64(f64::NAN),
            });
        }
        vec![Data::Real(loss), Data::Real(lse)]
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match inputs[0].shape[..] {
            [rows, _] if *inputs[0] == TensorType::f32(&inputs[0].shape) && *inputs[1] == TensorType::u32(&[rows]) => {
                Ok(vec![TensorType::f32(&[rows]); 2])
            }
            _ => Err(ShapeError(format!("{inputs:?} are not logits [rows, V] and targets [rows]"))),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(4 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        // The log-sum-exp is for this gradient alone: nothing else reads it.
        let d = c.douts[0].expect("the loss is the output that others read");
        vec![Some(g.apply1(CrossEntropyBackward, &[c.inputs[0], c.inputs[1], c.outputs[1], d])), None]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let bindings = [
            ("x", "x", Slot::In(0)),
            ("targets", "targets", Slot::In(1)),
            ("loss", "loss", Slot::Out(0)),
            ("lse", "lse", Slot::Out(1)),
        ];
        KERNEL.over_rows(context, ["forward", "forward", "forward_group"], inputs[0], &bindings)
    }
}

impl CrossEntropyBackward {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (targets, lse, dloss) = (inputs[1].1.index(), inputs[2].1.real(), inputs[3].1.real());
        let mut dx = Vec::with_capacity(inputs[0].0.len());
        for (row, x) in inputs[0].1.real().chunks_exact(rows(inputs[0].0).1).enumerate() {
            if targets[row] == IGNORED {
                dx.resize(dx.len() + x.len(), R::zero());
                continue;
            }
            let hit = |j: usize| if j == targets[row] as usize { R::one() } else { R::zero() };
            dx.extend(x.iter().enumerate().map(|(j, &x)| ((x - lse[row]).exp() - hit(j)) * dloss[row]));
        }
        vec![Data::Real(dx)]
    }
}

impl Op for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        Ok(vec![inputs[0].clone()])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(4 * inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        panic!("{} has no gradient", self.name())
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let bindings = vec![
            ("x", Slot::In(0)),
            ("targets", Slot::In(1)),
            ("saved_lse", Slot::In(2)),
            ("dloss", Slot::In(3)),
            ("dx", Slot::Out(0)),
        ];
        KERNEL.dispatch("backward", inputs[0], bindings, invocations(outputs[0].len()))
    }
}

impl Graph {
    /// `-ln softmax(logits)[target]` of every row: logits `[.., V]`, targets u32 `[..]`, result `[..]`. 0 where the target is
    /// [`IGNORED`]; NaN where it is no class.
    pub fn cross_entropy_rows(&mut self, logits: Node, targets: Node) -> Node {
        let result = self.shape(targets).to_vec();
        let len = *self.shape(logits).last().expect("logits have a last axis");
        let rows = result.iter().product();
        let logits = self.reshape(logits, &[rows, len]);
        let targets = self.reshape(targets, &[rows]);
        let loss = self.apply(CrossEntropy, &[logits, targets])[0];
        self.reshape(loss, &result)
    }

    /// Mean of [`Graph::cross_entropy_rows`] over the rows that are not ignored, of shape `[]`; 0 where all are.
    pub fn cross_entropy(&mut self, logits: Node, targets: Node) -> Node {
        let loss = self.cross_entropy_rows(logits, targets);
        let total = self.sum_all(loss);
        let ignored = self.constant(&[], Data::Index(vec![IGNORED]));
        let one = self.constant(&[], Data::Real(vec![1.0]));
        let is_ignored = self.binary(BinaryKind::Equal, targets, ignored);
        let counts = self.sub(one, is_ignored);
        let count = self.sum_all(counts);
        let count = self.maximum(count, one);
        self.div(total, count)
    }
}
