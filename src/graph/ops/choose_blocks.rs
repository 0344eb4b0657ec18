//! The choice of Native Sparse Attention: which blocks of keys a query reads, by what the pooled keys in front of it weigh.
//!
//! Pooled key b stands for the `length` tokens from `b stride` on. With its softmax weight p in each head, a block u of `block`
//! tokens scores `Σ over the heads of a group, Σ_b p_b overlap(b, u) / stride`. The first block, the query's own and the one before
//! are always taken, then those of the largest scores, of equal ones the first. Yuan et al., 2025, "Native Sparse Attention",
//! arXiv:2502.11089, eq. 8-12. The weights are made again from the log-sum-exp for a strip of queries at a time, whose memory the
//! next one uses again: O(N) in all, and O(N² D / stride) time. The choice has no gradient.

use super::block_attention::has_quads;
use super::block_attention::wgsl::{self, Masking, Spec, Staging};
use super::kernel::{invocations, uniform};
use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};
use crate::sort::Arrange;

/// Queries of a strip, of all its lists.
const ROWS: usize = 2048;
/// What stands behind the last chosen block of a list.
pub const NONE: u32 = u32::MAX;

/// Sizes of a choice. `stride` divides `length`, and `length` divides `block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Tokens that a pooled key stands for, and tokens from one to the next.
    pub length: usize,
    pub stride: usize,
    /// Tokens of a block to choose.
    pub block: usize,
    /// Blocks of a query, at least 3.
    pub count: usize,
    /// Heads that share a choice; the last ones may be fewer.
    pub group: usize,
}

/// Inputs: q `[B, H, N, D]`, pooled keys `[B, H, C, D]` and the log-sum-exp `[B, H, N]` of their scores,
/// then u32 `[B, C]` with 0 for pooled keys of padding where there is such. With `lots` instead of all that f32 `[lists, N, U]`,
/// the scores themselves. Output: u32 `[B, lists, N, count]`, ascending, filled up with [`NONE`].
#[derive(Clone, Debug, PartialEq)]
struct ChooseBlocks {
    choice: Choice,
    scale: f64,
    padded: bool,
    lots: bool,
    batch: usize,
}

#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    n: usize,
    pooled: usize,
    dim: usize,
    /// Lists of a batch entry.
    lists: usize,
}

/// Queries whose scores are in memory at the same time.
struct Strip {
    first: usize,
    count: usize,
    /// Pooled keys that the last one sees, at least 1, and a multiple of four.
    width: usize,
}

/// How many strides pooled key `b` and block `u` have in common.
fn overlap(choice: &Choice, b: usize, u: usize) -> usize {
    let (pooled, block) = (choice.length / choice.stride, choice.block / choice.stride);
    (b + pooled).min((u + 1) * block).saturating_sub(b.max(u * block))
}

/// The pooled keys that have something in common with block `u`.
fn overlapping(choice: &Choice, u: usize) -> std::ops::Range<usize> {
    let (pooled, block) = (choice.length / choice.stride, choice.block / choice.stride);
    (u * block + 1).saturating_sub(pooled)..(u + 1) * block
}

impl ChooseBlocks {
    fn sizes(&self, inputs: &[&TensorType]) -> Sizes {
        if self.lots {
            let [lists, n, _] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
            return Sizes { heads: lists, n, pooled: 1, dim: 0, lists };
        }
        let [_, heads, n, dim] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        Sizes { heads, n, pooled: inputs[1].shape[2], dim, lists: heads.div_ceil(self.choice.group) }
    }

    fn strips(&self, s: &Sizes) -> Vec<Strip> {
        let rows = (ROWS / (self.batch * s.lists)).next_multiple_of(4).max(64);
        let Choice { length, stride, .. } = self.choice;
        let strip = |first: usize| {
            let count = rows.min(s.n - first);
            let width = ((first + count).saturating_sub(length) / stride + 1).min(s.pooled);
            Strip { first, count, width: width.next_multiple_of(4) }
        };
        (0..s.n).step_by(rows).map(strip).collect()
    }

    /// Pairs of queries and pooled keys, of all heads.
    fn pairs(&self, s: &Sizes) -> u64 {
        if self.lots {
            return 0;
        }
        self.strips(s).iter().map(|strip| (self.batch * s.heads * strip.count * strip.width) as u64).sum()
    }

    /// The blocks of a query, from the scores of those that it may choose among.
    fn pick<R: Real>(&self, i: usize, score: impl Fn(usize) -> R, out: &mut Vec<u32>) {
        let (own, end) = (i / self.choice.block, out.len() + self.choice.count);
        if own < self.choice.count {
            out.extend(0..=own as u32);
        } else {
            // A stable sort keeps the first of equal ones in front. What is not a number is never chosen.
            let mut others: Vec<(usize, R)> =
                (1..own - 1).map(|u| (u, score(u))).filter(|(_, s)| !s.to_f64().is_nan()).collect();
            others.arrange_by(|a, b| b.1.partial_cmp(&a.1).expect("no NaN is left"));
            let mut chosen: Vec<u32> = others.iter().take(self.choice.count - 3).map(|(u, _)| *u as u32).collect();
            chosen.extend([0, own as u32 - 1, own as u32]);
            chosen.sort_unstable();
            out.extend(chosen);
        }
        out.resize(end, NONE);
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let types: Vec<&TensorType> = inputs.iter().map(|(ty, _)| *ty).collect();
        let s = self.sizes(&types);
        let mut out = Vec::with_capacity(outputs[0].len());
        let blocks = s.n.div_ceil(self.choice.block);
        for (b, list) in (0..self.batch).flat_map(|b| (0..s.lists).map(move |list| (b, list))) {
            for i in 0..s.n {
                if self.lots {
                    let lots = &inputs[0].1.real()[(list * s.n + i) * blocks..][..blocks];
                    self.pick(i, |u| lots[u], &mut out);
                    continue;
                }
                // Nobody asks where all blocks are taken.
                let scored = if i / self.choice.block < self.choice.count { 0 } else { i / self.choice.block };
                let weights = self.weights(inputs, &s, [b, list, i], scored * self.choice.block / self.choice.stride);
                let score = |u: usize| {
                    overlapping(&self.choice, u)
                        .filter(|&b| b < weights.len())
                        .fold(R::zero(), |sum, b| sum + weights[b] * R::from_f64(overlap(&self.choice, b, u) as f64))
                };
                self.pick(i, score, &mut out);
            }
        }
        vec![Data::Index(out)]
    }

    /// Weights of the first `count` pooled keys, of all heads of a list.
    fn weights<R: Real>(
        &self,
        inputs: &[(&TensorType, &Data<R>)],
        s: &Sizes,
        [b, list, i]: [usize; 3],
        count: usize,
    ) -> Vec<R> {
        let (q, k, lse) = (inputs[0].1.real(), inputs[1].1.real(), inputs[2].1.real());
        let real = self.padded.then(|| inputs[3].1.index());
        let mut weights = vec![R::zero(); count.min(s.pooled)];
        for h in list * self.choice.group..((list + 1) * self.choice.group).min(s.heads) {
            let row = (b * s.heads + h) * s.n + i;
            let q = &q[row * s.dim..][..s.dim];
            for (c, weight) in weights.iter_mut().enumerate() {
                if real.is_none_or(|real| real[b * s.pooled + c] != 0) {
                    let k = &k[((b * s.heads + h) * s.pooled + c) * s.dim..][..s.dim];
                    let dot = q.iter().zip(k).fold(R::zero(), |dot, (&a, &b)| dot + a * b);
                    *weight += (dot * R::from_f64(self.scale) - lse[row]).exp();
                }
            }
        }
        weights
    }
}

impl Op for ChooseBlocks {
    fn name(&self) -> &'static str {
        "choose_blocks"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let fail = || Err(ShapeError(format!("{inputs:?} do not fit {:?}", self.choice)));
        if inputs[0].shape.len() != if self.lots { 3 } else { 4 } || inputs[0].is_empty() {
            return fail();
        }
        let s = self.sizes(inputs);
        let blocks = s.n.div_ceil(self.choice.block);
        let fits = if self.lots {
            *inputs[0] == TensorType::f32(&[s.lists, s.n, blocks])
        } else {
            let (b, d) = (self.batch, s.dim);
            *inputs[0] == TensorType::f32(&[b, s.heads, s.n, d])
                && *inputs[1] == TensorType::f32(&[b, s.heads, s.pooled, d])
                && *inputs[2] == TensorType::f32(&[b, s.heads, s.n])
                && (!self.padded || *inputs[3] == TensorType::u32(&[b, s.pooled]))
        };
        if fits { Ok(vec![TensorType::u32(&[self.batch, s.lists, s.n, self.choice.count])]) } else { fail() }
    }

    /// Products, exponentials and their sum; the ranking compares only.
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let s = self.sizes(inputs);
        Cost::streaming(self.pairs(&s) * (2 * s.dim as u64 + 4), inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        vec![None; c.inputs.len()]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let (s, c) = (self.sizes(inputs), &self.choice);
        let strips = self.strips(&s);
        let (total, blocks) = (self.batch * s.lists, s.n.div_ceil(c.block));
        let (weights, scores) = (Slot::Scratch(0), Slot::Scratch(1));
        let mut dispatches = Vec::new();
        for strip in &strips {
            if !self.lots {
                dispatches.push(self.weigh(context, &s, strip, weights));
            }
            let words = [
                [s.n, s.lists, strip.first, strip.count],
                [strip.width, blocks, total, c.block / c.stride],
                [c.length / c.stride, c.block, c.count, 0],
            ];
            let words: Vec<u32> = words.as_flattened().iter().map(|&x| x as u32).collect();
            let last = (strip.first + strip.count) / c.block + 1;
            let strip_slot = if self.lots { Slot::In(0) } else { weights };
            dispatches.push(Dispatch {
                source: Source::Table("attention/choose_blocks"),
                entry: if self.lots { "choose_by_lot" } else { "choose" },
                consts: vec![],
                uniform: uniform(&words),
                bindings: vec![("strip", strip_slot), ("scores", scores), ("chosen", Slot::Out(0))],
                groups: invocations(total * strip.count),
                flops: (total * strip.count * last * c.count) as u64,
            });
        }
        let most = |size: fn(&Strip) -> usize| strips.iter().map(size).max().unwrap_or(0) as u64;
        let weights = if self.lots { 0 } else { 4 * total as u64 * most(|s| s.count * s.width) };
        let scores = 4 * (total * blocks) as u64 * most(|s| s.count);
        Lowered { dispatches, scratch: vec![weights, scores] }
    }
}

impl ChooseBlocks {
    /// The weights of a strip's pooled keys, summed over the heads of each list: `[lists, queries, keys]`.
    fn weigh(&self, context: &LowerContext, s: &Sizes, strip: &Strip, to: Slot) -> Dispatch {
        let (staging, rows, lanes) = if !context.software {
            // Two tiles would fit into what workgroups have everywhere; this kernel fills one.
            let tile = (16_384 / 2 / (s.dim.next_multiple_of(4) * 4) / 4 * 4).clamp(4, 32);
            (Staging::Tiled(tile), 1, 64.min(context.max_invocations.max(1) as usize))
        } else {
            // Unrolled text grows with the rows.
            let rows = (256 / s.dim.next_multiple_of(4)).clamp(1, 8);
            let lanes = context.subgroup.unwrap_or(4).clamp(4, 8) as usize;
            (if has_quads(context) { Staging::Quad } else { Staging::Direct }, rows, lanes)
        };
        let (masking, padding) = (Masking::Diagonal, self.padded);
        let spec =
            Spec { dim: s.dim, rows, lanes, staging, masking, padding, bias: false, distances: false, half: false };
        let kernel = wgsl::weigh(&spec);
        let total = self.batch * s.lists;
        // No rule is asked.
        let mut words = vec![0u32; 8];
        words.extend([s.n, s.pooled, s.heads, self.batch * s.heads].map(|x| x as u32));
        words.extend([s.lists, strip.width, 0, 0].map(|x| x as u32));
        words.extend([(self.scale as f32).to_bits(), 0, 0]);
        words.extend([rows * lanes, 1, strip.first, strip.count, self.choice.group].map(|x| x as u32));
        let slot = |name| match name {
            "q" => Slot::In(0),
            "k" => Slot::In(1),
            "lse" => Slot::In(2),
            "padding" => Slot::In(3),
            "strip" => to,
            _ => unreachable!("{name} is no tensor of the weights"),
        };
        Dispatch {
            source: Source::Generated { name: format!("choose_blocks.weigh_d{}", s.dim), wgsl: kernel.wgsl.into() },
            entry: kernel.entry,
            consts: vec![],
            uniform: bytemuck::cast_slice(&words).to_vec(),
            bindings: kernel.bindings.iter().map(|&name| (name, slot(name))).collect(),
            groups: [strip.count.div_ceil(rows * lanes) as u32, total as u32, 1],
            flops: (self.batch * s.heads * strip.count * strip.width * (2 * s.dim + 4)) as u64,
        }
    }
}

impl Graph {
    /// The blocks that each query reads, u32 `[B, lists, N, count]`, ascending and filled up with [`NONE`], from q
    /// `[B, H, N, D]`, pooled keys `[B, H, C, D]` and the log-sum-exp `[B, H, N]` of their scores, divided by √D. `real`
    /// `[B, C]` is 0 where a pooled key is of padding only.
    pub fn choose_blocks(&mut self, q: Node, pooled: Node, lse: Node, real: Option<Node>, choice: Choice) -> Node {
        let [batch, _, _, dim] = self.shape(q)[..] else { panic!("q is [B, H, N, D]") };
        let scale = 1.0 / (dim as f64).sqrt();
        let op = ChooseBlocks { choice, scale, padded: real.is_some(), lots: false, batch };
        let inputs: Vec<Node> = [q, pooled, lse].into_iter().chain(real).collect();
        self.apply1(op, &inputs)
    }

    /// The same with the scores of blocks themselves, `[lists, N, U]`, the same for all `batch` entries.
    pub fn choose_blocks_by_lot(&mut self, lots: Node, batch: usize, choice: Choice) -> Node {
        self.apply1(ChooseBlocks { choice, scale: 0.0, padded: false, lots: true, batch }, &[lots])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(length: usize, stride: usize, block: usize) -> Choice {
        Choice { length, stride, block, count: 3, group: 1 }
    }

    #[test]
    fn overlaps_are_those_of_the_paper() {
        let usual = choice(32, 16, 64);
        assert_eq!(overlapping(&usual, 3), 11..16);
        assert_eq!(overlapping(&usual, 3).map(|b| overlap(&usual, b, 3)).collect::<Vec<_>>(), [1, 2, 2, 2, 1]);
        // Blocks of the same size are the pooled keys themselves.
        let same = choice(8, 8, 8);
        assert_eq!(overlapping(&same, 5).map(|b| (b, overlap(&same, b, 5))).collect::<Vec<_>>(), [(5, 1)]);
        for choice in [usual, same, choice(6, 2, 12), choice(4, 1, 4)] {
            for b in 0..50 {
                let shares: usize = (0..200).map(|u| overlap(&choice, b, u)).sum();
                assert_eq!(shares, choice.length / choice.stride, "{choice:?}: what pooled key {b} gives in all");
                let elsewhere = (0..200).filter(|&u| !overlapping(&choice, u).contains(&b));
                assert!(elsewhere.into_iter().all(|u| overlap(&choice, b, u) == 0), "{choice:?}, pooled key {b}");
            }
        }
    }
}
