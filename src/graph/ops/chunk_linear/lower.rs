//! From a sum in chunks to its dispatches.

use super::{ChunkLinear, Extra, Sizes};
use crate::gpu::{self, Source};
use crate::graph::ops::kernel::{can_broadcast, uniform, vec4};
use crate::graph::{Dispatch, LowerContext, Lowered, Slot};

/// Rows of eight invocations in a workgroup: as many as workgroup memory has weights for on a GPU. One on software adapters,
/// where a barrier among few is cheap and all share their rows.
const LY_GPU: usize = 8;
const LY_SOFTWARE: usize = 1;

pub(super) fn lower(op: &ChunkLinear, sizes: &Sizes, context: &LowerContext) -> Lowered {
    let Sizes { heads, length, features, dim, chunk, .. } = *sizes;
    let slots = sizes.slots();
    let ly = if context.software { LY_SOFTWARE } else { LY_GPU };
    let source = match (context.software && can_broadcast(context), vec4(features) && vec4(dim)) {
        (true, true) => "ops/chunk_linear+subgroups",
        (true, false) => "ops/chunk_linear+subgroups+scalar",
        (false, true) => "ops/chunk_linear",
        (false, false) => "ops/chunk_linear+scalar",
    };
    let wide = dim > 32;
    let cols = dim.div_ceil(if wide { 64 } else { 32 });
    // A software adapter has few cores, which one walk for each tile of a state keeps busy. A GPU wants all chunks at once.
    let walk = if context.software { slots.max(1) } else { 1 };
    let walks = slots.div_ceil(walk);
    let extra = match op.extra {
        Extra::Nothing => 0,
        Extra::Own => 1,
        Extra::Other => 2,
    };
    let consts = vec![("LY", ly as f64), ("WIDE", f64::from(u8::from(wide)))];
    // Flags are not constants of the kernel, so that forward and backward share its pipelines.
    let (reverse, wanted) = (usize::from(op.reverse), usize::from(op.sums));
    let words = [length, features, dim, chunk, slots, walk, reverse, heads, extra, wanted];
    let dispatch = |entry, bindings: &[(&'static str, Slot)], groups: [usize; 3], flops| Dispatch {
        source: Source::Table(source),
        entry,
        consts: consts.clone(),
        uniform: uniform(&words.map(|w| w as u32)),
        bindings: bindings.to_vec(),
        groups: groups.map(|g| g as u32),
        flops,
    };
    let (states_flops, rows_flops) = sizes.flops();
    let beside = match (op.sums, op.extra) {
        (true, _) => features,
        (false, Extra::Nothing) => 0,
        (false, _) => dim,
    };
    let (a, b, c) = (Slot::In(0), Slot::In(1), Slot::In(2));
    let e = if op.extra == Extra::Nothing { a } else { Slot::In(3) };
    let (state, sums) = (Slot::Scratch(0), Slot::Scratch(1));
    let rows = 8 * ly;
    let mut dispatches = Vec::new();
    if slots > 0 {
        let bindings = [("b", b), ("c", c), ("e", e), ("state", state), ("sums", sums)];
        let groups = [features.div_ceil(rows), cols, heads * walks];
        dispatches.push(dispatch("states", &bindings, groups, states_flops));
    }
    if walks > 1 {
        let width = if vec4(features) && vec4(dim) { 4 } else { 1 };
        let elements = heads * (features * dim + beside) / width;
        let [x, y, z] = gpu::fold_1d(elements.div_ceil(64) as u32).map(|g| g as usize);
        let flops = elements * width * slots;
        dispatches.push(dispatch("scan", &[("state", state), ("sums", sums)], [x, y, z], flops as u64));
    }
    // A kernel binds all that it may use: what there is not of it here is never read or written.
    let z = if op.sums { Slot::Out(1) } else { Slot::Scratch(2) };
    let (before, sums_before) = if slots > 0 { (state, sums) } else { (a, a) };
    let bindings = [
        ("a", a),
        ("b", b),
        ("c", c),
        ("e", e),
        ("before", before),
        ("sums_before", sums_before),
        ("y", Slot::Out(0)),
        ("z", z),
    ];
    dispatches.push(dispatch("mix", &bindings, [length.div_ceil(rows), cols, heads], rows_flops));
    let states = 4 * heads * slots * features * dim;
    let scratch = [states, 4 * heads * slots * beside, 0].map(|bytes| bytes.max(16) as u64);
    Lowered { dispatches, scratch: scratch.to_vec() }
}
