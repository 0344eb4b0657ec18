//! The dispatches of attention to chosen blocks. The kernels' text is that of fused attention, with other ways to the rows.

use super::backward::{BLOCKS, SelectedBackward};
use super::{SelectedAttention, Sizes};
use crate::gpu::Source;
use crate::graph::ops::block_attention::wgsl::{self, Kernel, Masking, Part, Spec, Staging};
use crate::graph::ops::block_attention::workgroup;
use crate::graph::{Dispatch, LowerContext, Lowered, Slot, TensorType};

/// What the dispatches of one call have in common.
struct Call<'a> {
    op: &'a SelectedAttention,
    s: Sizes,
    context: &'a LowerContext,
}

/// Rows that the workgroups own: how many a block has, and how many workgroups share one.
struct Owned {
    block: usize,
    parts: usize,
    groups: usize,
}

impl Call<'_> {
    fn spec(&self, staging: Staging, (rows, lanes): (usize, usize)) -> Spec {
        let Self { op, s, .. } = self;
        let padding = op.padding;
        Spec {
            dim: s.dim,
            rows,
            lanes,
            staging,
            masking: Masking::Diagonal,
            padding,
            bias: false,
            distances: false,
            half: false,
        }
    }

    /// Rows of an invocation that keeps `tensors` of them in `registers` of four numbers, and invocations of a workgroup.
    fn shape(&self, registers: usize, tensors: usize) -> (usize, usize) {
        if self.context.software {
            // As wide as the adapter's vectors; unrolled text grows with the rows, and so does the time to compile it.
            let rows = (registers / self.s.dim.div_ceil(4) / tensors).clamp(1, 8);
            (rows, self.context.subgroup.unwrap_or(4).clamp(4, 8) as usize)
        } else {
            (1, 64.min(self.context.max_invocations.max(1) as usize))
        }
    }

    /// The kernel over the queries' lists. Loads cost more than what is computed for a neighbour in vain, so that it pays to
    /// have many of them.
    fn by_query(&self, tensors: usize) -> (Spec, Owned) {
        let (rows, lanes) = self.shape(256, tensors);
        let block = rows * lanes;
        (self.spec(Staging::Chosen, (rows, lanes)), Owned { block, parts: 1, groups: self.s.n.div_ceil(block) })
    }

    /// The kernel over the blocks' readers.
    fn by_key(&self, tensors: usize) -> (Spec, Owned) {
        let (rows, lanes) = self.shape(128, tensors);
        let block = self.op.block;
        let (rows, lanes) = workgroup(block, rows, lanes, 1);
        let parts = block.div_ceil(rows * lanes);
        let groups = self.s.m.div_ceil(block) * parts;
        (self.spec(Staging::Readers, (rows, lanes)), Owned { block, parts, groups })
    }

    /// A dispatch; `products` is the number of floating-point operations for each pair and component.
    fn dispatch(
        &self,
        spec: &Spec,
        owned: &Owned,
        kernel: Kernel,
        slot: impl Fn(&str) -> Slot,
        products: u64,
    ) -> Dispatch {
        let (op, s) = (self.op, &self.s);
        let key_blocks = s.m.div_ceil(op.block);
        let listed = if spec.staging == Staging::Readers { key_blocks } else { s.chosen };
        // No rule is asked.
        let mut words = vec![0u32; 8];
        words.extend([s.n, s.m, s.heads, s.batch * s.heads].map(|x| x as u32));
        words.extend([s.lists, listed, op.block, 0].map(|x| x as u32));
        words.extend([(op.scale as f32).to_bits(), 0, 0]);
        words.extend([owned.block, owned.parts, usize::from(op.causal), op.group, key_blocks].map(|x| x as u32));
        Dispatch {
            source: Source::Generated {
                name: format!("selected_attention.{}_d{}_r{}", kernel.entry, spec.dim, spec.rows),
                wgsl: kernel.wgsl.into(),
            },
            entry: kernel.entry,
            consts: vec![],
            uniform: bytemuck::cast_slice(&words).to_vec(),
            bindings: kernel.bindings.iter().map(|&name| (name, slot(name))).collect(),
            groups: [owned.groups as u32, (s.batch * s.heads) as u32, 1],
            flops: products * op.pairs(s) * s.dim as u64,
        }
    }
}

pub fn forward(op: &SelectedAttention, context: &LowerContext, inputs: &[&TensorType]) -> Lowered {
    let call = Call { op, s: op.sizes(inputs, 3), context };
    let (spec, owned) = call.by_query(2);
    let slot = |name: &str| match name {
        "q" => Slot::In(0),
        "k" => Slot::In(1),
        "v" => Slot::In(2),
        "list" => Slot::In(3),
        "padding" => Slot::In(4),
        "o" => Slot::Out(0),
        "lse" => Slot::Out(1),
        _ => unreachable!("{name} is no tensor of the forward pass"),
    };
    let dispatch = call.dispatch(&spec, &owned, wgsl::forward(&spec), slot, 4);
    Lowered { dispatches: vec![dispatch], scratch: vec![] }
}

pub fn backward(op: &SelectedBackward, context: &LowerContext, inputs: &[&TensorType]) -> Lowered {
    let call = Call { op: &op.attention, s: op.attention.sizes(inputs, BLOCKS), context };
    let slot = |name: &str, by_key: bool| match name {
        "q" => Slot::In(0),
        "k" => Slot::In(1),
        "v" => Slot::In(2),
        "o" => Slot::In(3),
        "lse" => Slot::In(4),
        "dout" => Slot::In(5),
        "list" => Slot::In(if by_key { 7 } else { BLOCKS }),
        "dlse" => Slot::In(8),
        "padding" => Slot::In(op.rest()),
        "stats" => Slot::Scratch(0),
        "dq" => Slot::Out(0),
        "dk" => Slot::Out(1),
        "dv" => Slot::Out(2),
        _ => unreachable!("{name} is no tensor of the backward pass"),
    };
    let ((by_query, queries), (by_key, keys)) = (call.by_query(3), call.by_key(4));
    let rows = call.s.batch * call.s.heads * call.s.n;
    let padded = if op.attention.padding { call.s.batch * call.s.m } else { 0 };
    let mut pre = call.dispatch(&by_query, &queries, wgsl::backward_pre(&by_query, op.dlse), |x| slot(x, false), 0);
    pre.groups = [(rows + padded).div_ceil(64) as u32, 1, 1];
    pre.flops = 2 * (rows * call.s.dim) as u64;
    let dq = call.dispatch(&by_query, &queries, wgsl::backward_dq(&by_query), |x| slot(x, false), 6);
    let dkv = call.dispatch(&by_key, &keys, wgsl::backward_dkv(&by_key, Part::Both), |x| slot(x, true), 8);
    Lowered { dispatches: vec![pre, dq, dkv], scratch: vec![4 * (2 * rows + padded) as u64] }
}
