//! From a product to its dispatches.

use super::{Axis, Family, Geometry, Matmul, Tile};
use crate::gpu::{self, Source};
use crate::graph::{Dispatch, LowerContext, Lowered, Slot};

/// The uniform struct of `shaders/lib/product.wesl`, behind its `origin`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Product {
    size: [u32; 4],
    ld: [u32; 4],
    batch: [u32; 4],
    batch_a: [u32; 4],
    batch_b: [u32; 4],
    inner: [u32; 4],
    inner_ab: [u32; 4],
    splits: [u32; 2],
    alpha: f32,
    reserved: u32,
}

/// The uniform struct of `shaders/ops/matmul_reduce.wesl`, behind its `origin`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Reduce {
    len: u32,
    splits: u32,
    reserved: [u32; 2],
}

const _: () = assert!(size_of::<Product>() as u32 == gpu::uniform_bytes("ops/matmul"));
const _: () = assert!(size_of::<Reduce>() as u32 == gpu::uniform_bytes("ops/matmul_reduce"));

/// Invocations of one workgroup of the reduction.
const REDUCE_LANES: usize = 64;

/// In which precision operands and result are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    Single,
    Half,
    /// Single, but for B.
    Packed,
}

pub(super) fn lower(op: &Matmul, geometry: &Geometry, storage: Storage, context: &LowerContext) -> Lowered {
    let mut tile = Tile::choose(geometry, context);
    if storage == Storage::Half {
        // Parts would be added up in half precision.
        tile.splits = 1;
    }
    let splits = Splits::new(geometry, tile.splits);
    let parts = splits.p * splits.k;
    let [wide, high, batch] = tile.groups(geometry, context);
    let (entry, mut consts) = kernel(&tile, tile.lanes(geometry, context));
    consts.push(("TRANS_A", f64::from(u8::from(op.trans_a))));
    consts.push(("TRANS_B", f64::from(u8::from(op.trans_b))));
    let c = if parts > 1 { Slot::Scratch(0) } else { Slot::Out(0) };
    let product = Dispatch {
        source: Source::Table(source(tile.family, storage, geometry.is_aligned())),
        entry,
        consts,
        uniform: bytemuck::bytes_of(&uniform(op, geometry, &splits)).to_vec(),
        bindings: vec![("a", Slot::In(0)), ("b", Slot::In(1)), ("c", c)],
        groups: [wide as u32, high as u32, (batch * parts) as u32],
        flops: geometry.flops(),
    };
    if parts == 1 {
        return Lowered { dispatches: vec![product], scratch: vec![] };
    }
    let len = geometry.batch() * geometry.m * geometry.n;
    let reduce = Dispatch {
        source: Source::Table("ops/matmul_reduce"),
        entry: "reduce",
        consts: vec![],
        uniform: bytemuck::bytes_of(&Reduce { len: len as u32, splits: parts as u32, reserved: [0; 2] }).to_vec(),
        bindings: vec![("parts", Slot::Scratch(0)), ("c", Slot::Out(0))],
        groups: gpu::fold_1d(len.div_ceil(REDUCE_LANES) as u32),
        flops: (len * parts) as u64,
    };
    Lowered { dispatches: vec![product, reduce], scratch: vec![(len * parts * 4) as u64] }
}

fn source(family: Family, storage: Storage, aligned: bool) -> &'static str {
    match (storage, family, aligned) {
        (Storage::Single, Family::Subgroup, true) => "ops/matmul+subgroups",
        (Storage::Single, Family::Subgroup, false) => "ops/matmul+subgroups+scalar",
        (Storage::Single, _, true) => "ops/matmul",
        (Storage::Single, _, false) => "ops/matmul+scalar",
        (Storage::Half, Family::Subgroup, true) => "ops/matmul+f16+subgroups",
        (Storage::Half, Family::Subgroup, false) => "ops/matmul+f16+subgroups+scalar",
        (Storage::Half, _, true) => "ops/matmul+f16",
        (Storage::Half, _, false) => "ops/matmul+f16+scalar",
        (Storage::Packed, Family::Subgroup, true) => "ops/matmul+packed+subgroups",
        (Storage::Packed, Family::Subgroup, false) => "ops/matmul+packed+subgroups+scalar",
        (Storage::Packed, _, true) => "ops/matmul+packed",
        (Storage::Packed, _, false) => "ops/matmul+packed+scalar",
    }
}

/// Entry point and tile constants.
fn kernel(tile: &Tile, lanes: usize) -> (&'static str, Vec<(&'static str, f64)>) {
    let lanes = vec![("LANES", lanes as f64)];
    match (tile.family, tile.rows, tile.cols) {
        (Family::Tiled, rows, cols) => {
            // 4x4 elements per invocation up to 64x64, 8 rows or columns from 128 on; 16 KiB staged at most.
            let (ry, rx) = (if rows >= 128 { 2 } else { 1 }, if cols >= 128 { 2 } else { 1 });
            let (ty, tx) = (rows / 4 / ry, cols / 4 / rx);
            let sizes = [("TX", tx), ("TY", ty), ("RM", ry), ("RN", rx), ("BK", 16)];
            ("tile_workgroup", sizes.iter().map(|&(name, size)| (name, size as f64)).collect())
        }
        (_, 16, 16) => ("tile_16x16", lanes),
        (_, 16, _) => ("tile_16x8", lanes),
        (_, 8, _) => ("tile_8x8", lanes),
        _ => ("tile_4x4", lanes),
    }
}

/// How the contracted work is cut: the contracted axes first, then K.
struct Splits {
    p: usize,
    p_each: usize,
    k: usize,
    k_each: usize,
}

impl Splits {
    fn new(geometry: &Geometry, wanted: usize) -> Self {
        let inner: usize = geometry.inner().map(|x| x.extent).product();
        let p_each = inner.div_ceil(wanted.min(inner));
        let p = inner.div_ceil(p_each);
        // Whole steps of the workgroup tile, so that only the last split can end inside one.
        let k_each = geometry.k.div_ceil((wanted / p).max(1)).next_multiple_of(16);
        Self { p, p_each, k: geometry.k.div_ceil(k_each), k_each }
    }
}

fn uniform(op: &Matmul, g: &Geometry, splits: &Splits) -> Product {
    let free: Vec<Axis> = g.free().copied().collect();
    let inner: Vec<Axis> = g.inner().copied().collect();
    Product {
        size: [g.m, g.n, g.k, g.batch()].map(|x| x as u32),
        ld: [if op.trans_a { g.m } else { g.k }, if op.trans_b { g.k } else { g.n }, g.n, 0].map(|x| x as u32),
        batch: axis(&free, |x| x.extent, 1),
        batch_a: axis(&free, |x| x.a, 0),
        batch_b: axis(&free, |x| x.b, 0),
        inner: {
            let [p0, p1] = axis(&inner, |x| x.extent, 1);
            [p0, p1, splits.p_each as u32, splits.k_each as u32]
        },
        inner_ab: {
            let ([a0, a1], [b0, b1]) = (axis(&inner, |x| x.a, 0), axis(&inner, |x| x.b, 0));
            [a0, a1, b0, b1]
        },
        splits: [splits.p as u32, splits.k as u32],
        alpha: op.alpha,
        reserved: 0,
    }
}

/// A field of the axes, the innermost last; `absent` where there are fewer.
fn axis<const N: usize>(axes: &[Axis], field: impl Fn(&Axis) -> usize, absent: u32) -> [u32; N] {
    let mut all = [absent; N];
    for (to, axis) in all[N - axes.len()..].iter_mut().zip(axes) {
        *to = field(axis) as u32;
    }
    all
}
