//! Who reads a block: lists of blocks turned round, by counting.
//!
//! Lists are ascending, so that whether a query chose a block is found by halving; each block asks all queries, once to count and
//! once to write. That is N² / l' questions, a hundredth of the products of as many scores, and no sort.

use crate::gpu::Source;
use crate::graph::ops::kernel::{invocations, uniform};
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};

/// Input: blocks u32 `[B, lists, N, n]`, ascending, and behind them numbers from `count` on. Output: u32, for each list of each
/// batch entry in turn where the queries of each of the `count` blocks begin and where those of the last one end, as places in
/// this tensor; then the queries, ascending, block by block. What is behind the last one of a list says nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BlockReaders {
    /// Blocks that there are.
    pub count: usize,
    /// Queries before `ahead` times a block's number, counted from the end of `keys`, never chose it; 0 where nothing is known.
    pub ahead: usize,
    pub keys: usize,
}

impl BlockReaders {
    /// Lists, N, n.
    fn sizes(&self, blocks: &TensorType) -> [usize; 3] {
        let [batch, lists, n, chosen] = blocks.shape[..] else { unreachable!("checked by the shape rule") };
        [batch * lists, n, chosen]
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let ([total, n, chosen], blocks) = (self.sizes(inputs[0].0), inputs[0].1.index());
        let head = total * (self.count + 1);
        let mut out = vec![u32::MAX; outputs[0].len()];
        for list in 0..total {
            let mut at = head + list * n * chosen;
            for block in 0..self.count {
                out[list * (self.count + 1) + block] = at as u32;
                for i in 0..n {
                    if blocks[(list * n + i) * chosen..][..chosen].contains(&(block as u32)) {
                        out[at] = i as u32;
                        at += 1;
                    }
                }
            }
            out[list * (self.count + 1) + self.count] = at as u32;
        }
        vec![Data::Index(out)]
    }
}

impl Op for BlockReaders {
    fn name(&self) -> &'static str {
        "block_readers"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        if inputs[0].dtype != Dtype::U32 || inputs[0].shape.len() != 4 {
            return Err(ShapeError(format!("takes u32 [B, lists, N, n], not {:?}", inputs[0])));
        }
        let [total, n, chosen] = self.sizes(inputs[0]);
        Ok(vec![TensorType::u32(&[total * (self.count + 1 + n * chosen)])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        vec![None]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let [total, n, chosen] = self.sizes(inputs[0]);
        let words = [total, n, chosen, self.count, self.ahead, self.keys].map(|x| x as u32);
        // Halvings of a list, so that long ones are split.
        let questions = (total * self.count * n) as u64 * u64::from(chosen.max(2).ilog2());
        let dispatch = |entry, count, flops| Dispatch {
            source: Source::Table("attention/block_readers"),
            entry,
            consts: vec![],
            uniform: uniform(&words),
            bindings: match entry {
                "place" => vec![("readers", Slot::Out(0))],
                _ => vec![("blocks", Slot::In(0)), ("readers", Slot::Out(0))],
            },
            groups: invocations(count),
            flops,
        };
        let blocks = total * self.count;
        let dispatches = vec![
            dispatch("count", blocks, questions),
            dispatch("place", total, blocks as u64),
            dispatch("fill", blocks, questions),
        ];
        Lowered { dispatches, scratch: vec![] }
    }
}
