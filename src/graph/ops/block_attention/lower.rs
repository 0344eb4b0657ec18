//! Which kernel serves a call, and with which parameters.

use super::backward::BlockAttentionBackward;
use super::wgsl::{self, Kernel, Masking, Part, Spec, Staging};
use super::{BlockAttention, bias_strides};
use crate::gpu::{self, Source};
use crate::graph::ops::kernel::uniform;
use crate::graph::{Dispatch, Dtype, LowerContext, Lowered, Slot, TensorType, Tunable};
use crate::pattern::{BlockList, Rule};

/// Key under which [`LowerContext::choices`] may hold a kernel for all calls whose class has none of its own: `direct`, `quad`
/// or `tiled`, and after a space the rows of an invocation, e.g. `quad 4`.
pub const CHOICE: &str = "block_attention";

/// The kernels to race for a call of the forward or backward pass. On software adapters there is no race: their order is known
/// (quads, then direct), and each of these texts takes them seconds to compile.
pub fn tunable(name: &str, op: &BlockAttention, context: &LowerContext, inputs: &[&TensorType]) -> Option<Tunable> {
    if context.software || op.gathers() {
        return None;
    }
    let quads: &[&str] = if has_quads(context) { &["quad 1", "quad 2"] } else { &[] };
    let candidates = ["tiled", "direct 1", "direct 2"].iter().chain(quads).map(|c| c.to_string()).collect();
    Some(Tunable { class: class(name, op, inputs), candidates })
}

/// Calls that are likely to want the same kernel.
fn class(name: &str, op: &BlockAttention, inputs: &[&TensorType]) -> String {
    let q = &inputs[0].shape;
    let log = |x: u64| x.max(1).next_power_of_two().ilog2();
    let (heads, rows) = ((q[0] * q[1]) as u64, q[2] as u64);
    let keys = op.pairs(inputs[0]) / (heads * rows);
    format!("{name}/{}/{}.{}.{}", q[3], log(heads), log(rows), log(keys))
}

/// Whether quads of invocations can hand values round: the subgroup is made of whole quads.
pub(in crate::graph::ops) fn has_quads(context: &LowerContext) -> bool {
    context.subgroup.is_some_and(|width| width.is_multiple_of(4))
}

pub fn forward(op: &BlockAttention, context: &LowerContext, inputs: &[&TensorType]) -> Lowered {
    let call = Call::new("block_attention", op, inputs, 4);
    let spec = call.spec(context, op.list.block_q, 2);
    let slot = |name: &str| match name {
        "q" => Slot::In(0),
        "k" => Slot::In(1),
        "v" => Slot::In(2),
        "list" => Slot::In(3),
        "padding" => Slot::In(4),
        "bias" => Slot::In(4 + usize::from(op.padding)),
        "distances" => Slot::In(op.distances_at(4)),
        "o" => Slot::Out(0),
        "lse" => Slot::Out(1),
        _ => unreachable!("{name} is no tensor of the forward pass"),
    };
    let groups = call.groups(&spec, &op.list);
    let dispatch = call.dispatch(&spec, wgsl::forward(&spec), slot, groups, &op.list, 4);
    Lowered { dispatches: vec![dispatch], scratch: vec![] }
}

pub fn backward(op: &BlockAttentionBackward, context: &LowerContext, inputs: &[&TensorType]) -> Lowered {
    let attention = &op.attention;
    let list = &attention.list;
    let transposed = list.transposed();
    let call = Call::new("block_attention_backward", attention, inputs, op.rest());
    let slot = |name: &str, by_key| slot_of(op, name, by_key);
    let by_query = call.spec(context, list.block_q, 3);
    let by_key = call.spec(context, list.block_k, 4);
    let (pre, stats) = statistics(op, &call, &by_query, inputs);
    let mut dispatches = vec![pre];
    let groups = call.groups(&by_query, list);
    dispatches.push(call.dispatch(&by_query, wgsl::backward_dq(&by_query), |name| slot(name, false), groups, list, 6));
    // With a bias or distances there would be nine storage buffers, one more than WebGPU promises.
    let parts = if attention.bias || attention.distances {
        vec![(Part::Keys, 6), (Part::Values, 4)]
    } else {
        vec![(Part::Both, 8)]
    };
    for (part, products) in parts {
        let groups = call.groups(&by_key, &transposed);
        let kernel = wgsl::backward_dkv(&by_key, part);
        dispatches.push(call.dispatch(&by_key, kernel, |name| slot(name, true), groups, &transposed, products));
    }
    Lowered { dispatches, scratch: vec![stats] }
}

/// The gradient of the bias: zeros, and over them what the list visits.
pub fn bias_backward(op: &BlockAttentionBackward, context: &LowerContext, inputs: &[&TensorType]) -> Lowered {
    let list = &op.attention.list;
    let call = Call::new("block_attention_backward", &op.attention, inputs, op.rest());
    let spec = call.spec(context, list.block_q, 3);
    let (pre, stats) = statistics(op, &call, &spec, inputs);
    let cells = call.total as usize * list.n * list.m;
    let fill = Dispatch {
        source: Source::Table("ops/fill"),
        entry: "forward",
        consts: vec![],
        uniform: uniform(&[cells as u32, 0f32.to_bits()]),
        bindings: vec![("out", Slot::Out(0))],
        groups: gpu::fold_1d(cells.div_ceil(256) as u32),
        flops: cells as u64,
    };
    let groups = call.groups(&spec, list);
    let kernel = wgsl::backward_bias(&spec);
    let dbias = call.dispatch(&spec, kernel, |name| slot_of(op, name, false), groups, list, 4);
    Lowered { dispatches: vec![fill, pre, dbias], scratch: vec![stats] }
}

/// The gradient of the factors of distances: an invocation for each distance of each head, and one for its reach, which has none.
pub fn distances_backward(op: &BlockAttentionBackward, context: &LowerContext, inputs: &[&TensorType]) -> Lowered {
    let list = &op.attention.list;
    let call = Call::new("block_attention_backward", &op.attention, inputs, op.rest());
    let spec = call.spec(context, list.block_q, 3);
    let (pre, stats) = statistics(op, &call, &spec, inputs);
    let lanes = wgsl::DISTANCE_LANES;
    let groups = [call.distances.div_ceil(lanes) as u32, call.heads, 1];
    let kernel = wgsl::backward_distances(&spec, op.attention.rule.function());
    let ddistances = call.dispatch(&spec, kernel, |name| slot_of(op, name, false), groups, list, 4);
    Lowered { dispatches: vec![pre, ddistances], scratch: vec![stats] }
}

/// The first backward pass, and the bytes that it writes.
fn statistics(op: &BlockAttentionBackward, call: &Call, spec: &Spec, inputs: &[&TensorType]) -> (Dispatch, u64) {
    let rows = inputs[0].shape[..3].iter().product::<usize>();
    let keys = if op.attention.padding { inputs[1].shape[0] * inputs[1].shape[2] } else { 0 };
    let groups = [(rows + keys).div_ceil(64) as u32, 1, 1];
    let kernel = wgsl::backward_pre(spec, op.dlse);
    let mut pre = call.dispatch(spec, kernel, |name| slot_of(op, name, false), groups, &op.attention.list, 0);
    pre.flops = 2 * (rows * inputs[0].shape[3]) as u64;
    (pre, 4 * (2 * rows + keys) as u64)
}

/// Where a tensor of the backward kernels is found.
fn slot_of(op: &BlockAttentionBackward, name: &str, by_key: bool) -> Slot {
    match name {
        "q" => Slot::In(0),
        "k" => Slot::In(1),
        "v" => Slot::In(2),
        "o" => Slot::In(3),
        "lse" => Slot::In(4),
        "dout" => Slot::In(5),
        "list" => Slot::In(if by_key { 7 } else { 6 }),
        "dlse" => Slot::In(8),
        "padding" => Slot::In(op.rest()),
        "bias" => Slot::In(op.rest() + usize::from(op.attention.padding)),
        "distances" => Slot::In(op.attention.distances_at(op.rest())),
        "stats" => Slot::Scratch(0),
        "dq" | "dbias" | "ddistances" => Slot::Out(0),
        "dk" => Slot::Out(1),
        "dv" => Slot::Out(2),
        _ => unreachable!("{name} is no tensor of the backward pass"),
    }
}

struct Call<'a> {
    class: String,
    op: &'a BlockAttention,
    dim: usize,
    heads: u32,
    total: u32,
    pairs: u64,
    bias: (usize, usize),
    /// Numbers of a head in the tensor of distances; 0 where there is none.
    distances: usize,
    half: bool,
}

impl<'a> Call<'a> {
    fn new(name: &str, op: &'a BlockAttention, inputs: &[&TensorType], rest: usize) -> Self {
        let q = &inputs[0].shape;
        let bias = if op.bias { bias_strides(inputs[rest + usize::from(op.padding)]) } else { (0, 0) };
        let total = (q[0] * q[1]) as u32;
        let distances = if op.distances { inputs[op.distances_at(rest)].shape[1] } else { 0 };
        let class = class(name, op, inputs);
        let half = inputs[0].dtype == Dtype::F16;
        Self { class, op, dim: q[3], heads: q[1] as u32, total, pairs: op.pairs(inputs[0]), bias, distances, half }
    }

    fn groups(&self, spec: &Spec, list: &BlockList) -> [u32; 3] {
        let along = match spec.staging {
            Staging::Gather => list.n.div_ceil(spec.lanes),
            _ => list.query_blocks() * parts(spec, list),
        };
        [along as u32, self.total, 1]
    }

    /// The kernel for blocks of `block` owned rows of which an invocation keeps `tensors` in registers.
    fn spec(&self, context: &LowerContext, block: usize, tensors: usize) -> Spec {
        let masking = match &self.op.rule {
            Rule::All { .. } | Rule::Listed { .. } => Masking::Diagonal,
            Rule::Window { dilation: 0 | 1, global: 0, .. } => Masking::Band,
            Rule::Window { dilation: 0 | 1, .. } => Masking::BandAndGlobal,
            Rule::Bits { .. } => Masking::Bits,
            rule => Masking::Rule { function: rule.function(), by_head: rule.by_head() },
        };
        let (dim, padding, bias, distances, half) =
            (self.dim, self.op.padding, self.op.bias, self.op.distances, self.half);
        if self.op.gathers() {
            let lanes = if context.software { 8 } else { 64 };
            return Spec { dim, rows: 1, lanes, staging: Staging::Gather, masking, padding, bias, distances, half };
        }
        let quads = has_quads(context);
        let chosen = context.choices.get(&self.class).or_else(|| context.choices.get(CHOICE));
        let chosen = chosen.map_or("", String::as_str);
        let mut words = chosen.split(' ');
        let family = match words.next() {
            Some(word @ ("direct" | "tiled")) => word,
            Some("quad") if quads => "quad",
            _ if !context.software => "tiled",
            _ if quads => "quad",
            _ => "direct",
        };
        // Unrolled text grows with the rows, and so does the time to compile it.
        let budget = if family == "tiled" { 1 } else { (512 / self.dim.next_multiple_of(4) / tensors).clamp(1, 8) };
        let rows = words.next().and_then(|word| word.parse().ok()).unwrap_or(budget).min(8);
        let lanes = match family {
            // As wide as the adapter's vectors, so that none waits for keys that only another one's rows see.
            _ if context.software => context.subgroup.unwrap_or(4).clamp(4, 8) as usize,
            _ => 64.min(context.max_invocations.max(1) as usize),
        };
        let (rows, lanes) = workgroup(block, rows, lanes, if family == "quad" { 4 } else { 1 });
        let staging = match family {
            "quad" if lanes.is_multiple_of(4) => Staging::Quad,
            "tiled" => {
                let storage = (context.max_workgroup_storage as usize).max(16_384);
                Staging::Tiled((storage.min(16_384) / 2 / (self.dim.next_multiple_of(4) * 4) / 4 * 4).clamp(4, 32))
            }
            _ => Staging::Direct,
        };
        Spec { dim, rows, lanes, staging, masking, padding, bias, distances, half }
    }

    /// A dispatch over `list`; `products` is the number of floating-point operations for each pair and component.
    fn dispatch(
        &self,
        spec: &Spec,
        kernel: Kernel,
        slot: impl Fn(&str) -> Slot,
        groups: [u32; 3],
        list: &BlockList,
        products: u64,
    ) -> Dispatch {
        let (n, m) = (self.op.list.n, self.op.list.m);
        let mut words = self.op.rule.encode(n, m).to_vec();
        if let Rule::Bits { .. } = self.op.rule {
            // Where the bits begin: behind offsets and runs, of which an empty list has one.
            words[4] = (list.offsets.len() + 2 * list.runs.len().max(1)) as u32;
        }
        words.extend([n as u32, m as u32, self.heads, self.total]);
        words.extend([list.heads, list.query_blocks(), list.block_k, list.offsets.len()].map(|x| x as u32));
        words.extend([(self.op.scale as f32).to_bits(), self.bias.0 as u32, self.bias.1 as u32]);
        words.extend([list.block_q as u32, parts(spec, list) as u32, self.distances as u32, 0, 0]);
        let family = match spec.staging {
            Staging::Direct => "direct",
            Staging::Quad => "quad",
            Staging::Tiled(_) => "tiled",
            Staging::Gather => "gather",
            Staging::Chosen | Staging::Readers => unreachable!("block lists are not made on the device"),
        };
        Dispatch {
            source: Source::Generated {
                name: format!(
                    "block_attention.{}_{family}_{}_d{}_r{}",
                    kernel.entry,
                    spec.scalar(),
                    spec.dim,
                    spec.rows
                ),
                wgsl: kernel.wgsl.into(),
            },
            entry: kernel.entry,
            consts: vec![],
            uniform: bytemuck::cast_slice(&words).to_vec(),
            bindings: kernel.bindings.iter().map(|&name| (name, slot(name))).collect(),
            groups,
            flops: products * self.pairs * self.dim as u64,
        }
    }
}

/// Workgroups that share one owned block of a list.
fn parts(spec: &Spec, list: &BlockList) -> usize {
    list.block_q.div_ceil(spec.rows * spec.lanes)
}

/// Rows of an invocation and invocations of a workgroup, of at most so many each, for owned blocks of `block` rows. Sizes that
/// divide the block leave no invocation without a row; where only small ones do, full ones over the block's end are faster.
/// `quad`: invocations must come in multiples of it.
pub(in crate::graph::ops) fn workgroup(block: usize, rows: usize, lanes: usize, quad: usize) -> (usize, usize) {
    let fitting_rows = (1..=rows).rev().find(|r| block.is_multiple_of(r * quad)).unwrap_or(1);
    let fitting_lanes = (1..=lanes).rev().find(|l| block.is_multiple_of(fitting_rows * l)).unwrap_or(1);
    let wanted = (rows * lanes).min(block);
    if fitting_rows * fitting_lanes * 2 >= wanted && fitting_lanes.is_multiple_of(quad) {
        return (fitting_rows, fitting_lanes);
    }
    let rows = rows.min(block.div_ceil(lanes));
    (rows, lanes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Op;
    use std::rc::Rc;

    #[test]
    fn every_candidate_is_a_kernel_of_its_own() {
        let rule = Rule::All { causal: true };
        let list = Rc::new(BlockList::new(&rule, 300, 300, 64, 64));
        let op = BlockAttention { list, rule, scale: 1.0, padding: false, bias: false, distances: false };
        let (q, list) = (TensorType::f32(&[1, 2, 300, 64]), TensorType::u32(&[11]));
        let inputs = [&q, &q, &q, &list];
        let gpu = LowerContext { subgroup: Some(32), max_invocations: 256, ..LowerContext::default() };
        let tunable = op.tunable(&gpu, &inputs).expect("a GPU has several kernels");
        assert_eq!(tunable.class, "block_attention/64/1.9.8");
        let mut names: Vec<String> = Vec::new();
        for candidate in &tunable.candidates {
            let mut context = gpu.clone();
            context.choices.insert(tunable.class.clone(), candidate.clone());
            let lowered = op.lower(&context, &inputs, &[]);
            let Source::Generated { name, .. } = &lowered.dispatches[0].source else { panic!("its text is generated") };
            assert!(name.contains(candidate.split(' ').next().unwrap_or_default()), "{candidate} gives {name}");
            names.push(name.clone());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), tunable.candidates.len());
        assert_eq!(op.tunable(&LowerContext { software: true, ..gpu }, &inputs), None);
    }
}
