//! The dispatches of attention within sorted chunks, one for each round. The kernels' text is that of fused attention, with the
//! rows reached through the order.

use super::backward::{ORDER, SortedBackward};
use super::{SortedAttention, slots_at};
use crate::gpu::Source;
use crate::graph::ops::block_attention::wgsl::{self, Kernel, Masking, Part, Spec, Staging};
use crate::graph::ops::block_attention::{has_quads, workgroup};
use crate::graph::{Dispatch, LowerContext, Lowered, Slot, TensorType};

/// What the dispatches of one call have in common.
struct Call<'a> {
    op: &'a SortedAttention,
    heads: usize,
    total: usize,
    n: usize,
    dim: usize,
    pairs: u64,
    context: &'a LowerContext,
}

impl<'a> Call<'a> {
    fn new(op: &'a SortedAttention, context: &'a LowerContext, q: &TensorType) -> Self {
        let [batch, heads, n, dim] = q.shape[..] else { unreachable!("checked by the shape rule") };
        Self { op, heads, total: batch * heads, n, dim, pairs: op.pairs(q), context }
    }

    /// The kernel for chunks of owned rows of which an invocation keeps `tensors` in registers.
    fn spec(&self, tensors: usize) -> Spec {
        let (context, dim) = (self.context, self.dim);
        let quads = context.software && has_quads(context);
        let (rows, lanes) = match context.software {
            // As wide as the adapter's vectors; unrolled text grows with the rows, and so does the time to compile it.
            true => {
                let rows = (512 / dim.next_multiple_of(4) / tensors).clamp(1, 8);
                (rows, context.subgroup.unwrap_or(4).clamp(4, 8) as usize)
            }
            false => (1, 64.min(context.max_invocations.max(1) as usize)),
        };
        let (rows, lanes) = workgroup(self.op.chunks.size, rows, lanes, if quads { 4 } else { 1 });
        let staging = match quads && lanes.is_multiple_of(4) {
            true => Staging::Quad,
            _ if context.software => Staging::Direct,
            _ => {
                let storage = (context.max_workgroup_storage as usize).clamp(1, 16_384);
                Staging::Tiled((storage / 2 / (dim.next_multiple_of(4) * 4) / 4 * 4).clamp(4, 32))
            }
        };
        let masking = Masking::Rounds { words: self.op.chunks.words() };
        Spec { dim, rows, lanes, staging, masking, padding: false, bias: false, distances: false, half: false }
    }

    /// The dispatches of all rounds; `products` is the number of floating-point operations for each pair and component.
    fn dispatches(&self, spec: &Spec, kernel: Kernel, slot: impl Fn(&str) -> Slot, products: u64) -> Vec<Dispatch> {
        let rounds = self.op.chunks.rounds;
        let kernel = Kernel { wgsl: kernel.wgsl, ..kernel };
        (0..rounds).map(|round| self.dispatch(spec, kernel.clone(), &slot, round, products)).collect()
    }

    fn dispatch(
        &self,
        spec: &Spec,
        kernel: Kernel,
        slot: impl Fn(&str) -> Slot,
        round: usize,
        products: u64,
    ) -> Dispatch {
        let chunks = &self.op.chunks;
        let (count, parts) = (self.n.div_ceil(chunks.size), chunks.size.div_ceil(spec.rows * spec.lanes));
        let flags = usize::from(self.op.causal) + 2 * usize::from(!chunks.across);
        // No rule is asked.
        let mut words = vec![0u32; 8];
        words.extend([self.n, self.n, self.heads, self.total].map(|x| x as u32));
        words.extend([1, count, chunks.size, slots_at(chunks, self.total, self.n) / 4].map(|x| x as u32));
        words.extend([(self.op.scale as f32).to_bits(), (self.op.itself as f32).to_bits(), 0]);
        words.extend([chunks.size, parts, flags, round, chunks.rounds].map(|x| x as u32));
        Dispatch {
            source: Source::Generated {
                name: format!("sorted_attention.{}_d{}_r{}", kernel.entry, spec.dim, spec.rows),
                wgsl: kernel.wgsl.into(),
            },
            entry: kernel.entry,
            consts: vec![],
            uniform: bytemuck::cast_slice(&words).to_vec(),
            bindings: kernel.bindings.iter().map(|&name| (name, slot(name))).collect(),
            groups: [(count * parts) as u32, self.total as u32, 1],
            flops: products * self.pairs / chunks.rounds as u64 * self.dim as u64,
        }
    }
}

pub fn forward(op: &SortedAttention, context: &LowerContext, inputs: &[&TensorType]) -> Lowered {
    let call = Call::new(op, context, inputs[0]);
    let spec = call.spec(2);
    let slot = |name: &str| match name {
        "q" => Slot::In(0),
        "k" => Slot::In(1),
        "v" => Slot::In(2),
        "list" => Slot::In(3),
        "o" => Slot::Out(0),
        "lse" => Slot::Out(1),
        _ => unreachable!("{name} is no tensor of the forward pass"),
    };
    Lowered { dispatches: call.dispatches(&spec, wgsl::forward(&spec), slot, 4), scratch: vec![] }
}

pub fn backward(op: &SortedBackward, context: &LowerContext, inputs: &[&TensorType]) -> Lowered {
    let call = Call::new(&op.attention, context, inputs[0]);
    let slot = |name: &str| match name {
        "q" => Slot::In(0),
        "k" => Slot::In(1),
        "v" => Slot::In(2),
        "o" => Slot::In(3),
        "lse" => Slot::In(4),
        "dout" => Slot::In(5),
        "list" => Slot::In(ORDER),
        "dlse" => Slot::In(7),
        "stats" => Slot::Scratch(0),
        "dq" => Slot::Out(0),
        "dk" => Slot::Out(1),
        "dv" => Slot::Out(2),
        _ => unreachable!("{name} is no tensor of the backward pass"),
    };
    let (by_query, by_key) = (call.spec(3), call.spec(4));
    let rows = call.total * call.n;
    let mut pre = call.dispatch(&by_query, wgsl::backward_pre(&by_query, op.dlse), slot, 0, 0);
    pre.groups = [rows.div_ceil(64) as u32, 1, 1];
    pre.flops = 2 * (rows * call.dim) as u64;
    let mut dispatches = vec![pre];
    dispatches.extend(call.dispatches(&by_query, wgsl::backward_dq(&by_query), slot, 6));
    dispatches.extend(call.dispatches(&by_key, wgsl::backward_dkv(&by_key, Part::Both), slot, 8));
    Lowered { dispatches, scratch: vec![8 * rows as u64] }
}
