//! K-means on bit strings: rows are grouped by the codes that differ from theirs in the fewest bits.
//!
//! A round assigns every row to the nearest code (of equally near ones the first) and then makes each code the majority of its
//! rows, bit by bit (a tie is 0); a code without rows is what it was at first. After the last round rows are assigned again.
//! There is no gradient. Vyas et al., 2020, "Fast Transformers with Clustered Attention", arXiv:2007.04825, section 3.2.

use super::kernel::{invocations, uniform};
use super::sorted_attention::CountingSort;
use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};

/// Inputs: values f32 `[B, H, N, bits]` and codes f32 `[C, bits]`, a bit being 1 where they are above 0, and u32 `[B, N]` with 0
/// for rows that belong nowhere, where there is such. Output: u32 `[B, H, N]`, C for those rows.
#[derive(Clone, Debug, PartialEq)]
struct HammingClusters {
    rounds: usize,
}

fn bits<R: Real>(row: &[R]) -> Vec<bool> {
    row.iter().map(|x| x.to_f64() > 0.0).collect()
}

impl HammingClusters {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let [_, heads, rows, width] = inputs[0].0.shape[..] else { unreachable!("checked by the shape rule") };
        let (values, real) = (inputs[0].1.real(), inputs.get(2).map(|(_, real)| real.index()));
        let first: Vec<Vec<bool>> = inputs[1].1.real().chunks_exact(width).map(bits).collect();
        let mut groups = Vec::new();
        for (head, values) in values.chunks_exact(rows * width).enumerate() {
            let words: Vec<Vec<bool>> = values.chunks_exact(width).map(bits).collect();
            let belongs = |row: usize| real.is_none_or(|real| real[head / heads * rows + row] != 0);
            let assign = |codes: &[Vec<bool>]| -> Vec<usize> {
                let far = |code: &[bool], row: usize| code.iter().zip(&words[row]).filter(|(a, b)| a != b).count();
                let nearest = |row| (0..codes.len()).min_by_key(|&c| far(&codes[c], row)).unwrap_or(0);
                (0..rows).map(|row| if belongs(row) { nearest(row) } else { codes.len() }).collect()
            };
            let mut codes = first.clone();
            for _ in 0..self.rounds {
                let groups = assign(&codes);
                for (c, code) in codes.iter_mut().enumerate() {
                    let members: Vec<usize> = (0..rows).filter(|&row| groups[row] == c).collect();
                    let majority =
                        |bit: usize| 2 * members.iter().filter(|&&row| words[row][bit]).count() > members.len();
                    *code = if members.is_empty() { first[c].clone() } else { (0..width).map(majority).collect() };
                }
            }
            groups.extend(assign(&codes).into_iter().map(|c| c as u32));
        }
        vec![Data::Index(groups)]
    }
}

impl Op for HammingClusters {
    fn name(&self) -> &'static str {
        "hamming_clusters"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match (&inputs[0].shape[..], &inputs[1].shape[..]) {
            (&[batch, heads, rows, bits], &[_, same])
                if bits == same
                    && [inputs[0].dtype, inputs[1].dtype] == [Dtype::F32; 2]
                    && inputs[2..].iter().all(|t| **t == TensorType::u32(&[batch, rows])) =>
            {
                Ok(vec![TensorType::u32(&[batch, heads, rows])])
            }
            _ => Err(ShapeError(format!("{inputs:?} are not values [B, H, N, bits], codes [C, bits] and u32 [B, N]"))),
        }
    }

    /// An exclusive or and a count of bits for each word of a row and a code.
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let words = inputs[0].shape[3].div_ceil(32);
        let pairs = outputs[0].len() * inputs[1].shape[0];
        Cost::streaming(((self.rounds + 1) * pairs * words * 3) as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        vec![None; c.inputs.len()]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let [batch, heads, rows, width] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        let (count, total, words) = (inputs[1].shape[0], batch * heads, width.div_ceil(32));
        // The rows' words, the first codes, each head's codes, the rows by group, and what it takes to sort them.
        let [row_words, first, codes, order, counts] = [0, 1, 2, 3, 4].map(Slot::Scratch);
        let sort = CountingSort::of_rows(total, rows, count + 1);
        let padding = if inputs.len() > 2 { Slot::In(2) } else { row_words };
        let dispatch = |entry, shared: bool, items: [usize; 2], bindings: Vec<(&'static str, Slot)>, invoked, flops| {
            let [item_rows, item_total] = items;
            let flags = [shared, inputs.len() > 2].map(usize::from);
            let numbers = [item_rows, item_total, count, words, width, heads, flags[0], flags[1], sort.segments()];
            Dispatch {
                source: Source::Table("ops/hamming_clusters"),
                entry,
                consts: vec![],
                uniform: uniform(&numbers.map(|x| x as u32)),
                bindings,
                groups: invocations(invoked),
                flops: flops as u64,
            }
        };
        let pack = |from, to, rows: usize| {
            dispatch("pack", false, [rows, 1], vec![("values", from), ("packed", to)], rows * words, rows * width)
        };
        let mut dispatches = vec![pack(Slot::In(0), row_words, rows * total), pack(Slot::In(1), first, count)];
        for round in 0..=self.rounds {
            let from = if round == 0 { first } else { codes };
            let bindings = vec![("words", row_words), ("codes", from), ("padding", padding), ("groups", Slot::Out(0))];
            let work = rows * total * count * words * 3;
            dispatches.push(dispatch("assign", round == 0, [rows, total], bindings, rows.div_ceil(4) * total, work));
            if round < self.rounds {
                dispatches.extend(sort.dispatches(context, [Slot::Out(0), counts, order]));
                let bindings = vec![
                    ("words", row_words),
                    ("order", order),
                    ("counts", counts),
                    ("first", first),
                    ("packed", codes),
                ];
                let work = total * words * (count + 16 * rows);
                dispatches.push(dispatch("majority", false, [rows, total], bindings, total * count * words, work));
            }
        }
        let bytes = |words: usize| (words * 4) as u64;
        Lowered {
            dispatches,
            scratch: vec![
                bytes(total * rows * words),
                bytes(count * words),
                bytes(total * count * words),
                bytes(total * rows),
                bytes(sort.counters()),
            ],
        }
    }
}

impl Graph {
    /// Group numbers u32 `[B, H, N]` below C by `rounds` rounds of K-means on bits: of `values` `[B, H, N, bits]`, from `codes`
    /// `[C, bits]`; a bit is 1 where an element is above 0. Rows for which `real` (u32 `[B, N]`) is 0 belong to no group: C.
    pub fn hamming_clusters(&mut self, values: Node, codes: Node, real: Option<Node>, rounds: usize) -> Node {
        let inputs: Vec<Node> = [values, codes].into_iter().chain(real).collect();
        self.apply1(HammingClusters { rounds }, &inputs)
    }
}
