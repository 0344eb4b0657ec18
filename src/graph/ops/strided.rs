//! The dispatch that transpose, slice and concat share: elements moved between strided tensors.

use super::kernel::{invocations, uniform, vec4};
use crate::gpu::Source;
use crate::graph::layout::Walk;
use crate::graph::{Data, Dispatch, Dtype, Slot};

/// Axes that the kernel takes.
const MAX_RANK: usize = 8;

/// The kernel for elements of a dtype.
pub fn kernel(dtype: Dtype) -> Source {
    Source::Table(if dtype == Dtype::F16 { "ops/strided+f16" } else { "ops/strided" })
}

/// Copies over a walk of two operands: source and destination, each from its offset on.
///
/// # Panics
/// When more than eight axes remain after merging.
pub fn copy(walk: &Walk, from: usize, to: usize, slots: [Slot; 2], dtype: Dtype) -> Dispatch {
    let rank = walk.dims.len();
    assert!(rank <= MAX_RANK, "{rank} axes that cannot be merged; the kernel takes {MAX_RANK}");
    let last = rank - 1;
    let in_fours = |operand: usize, offset: usize| {
        let strides = &walk.strides[operand];
        vec4(offset) && strides[last] == 1 && strides[..last].iter().all(|&s| vec4(s))
    };
    let lanes = if vec4(walk.dims[last]) && in_fours(0, from) && in_fours(1, to) { 4 } else { 1 };
    let count = walk.dims.iter().product::<usize>() / lanes;
    let mut words = vec![count, rank, from / lanes, to / lanes, 0, 0, 0, 0];
    for axis in 0..MAX_RANK {
        words.extend(match axis {
            a if a < last => [walk.dims[a], walk.strides[0][a] / lanes, walk.strides[1][a] / lanes, 0],
            a if a == last && lanes == 4 => [walk.dims[a] / 4, 1, 1, 0],
            a if a == last => [walk.dims[a], walk.strides[0][a], walk.strides[1][a], 0],
            _ => [1, 0, 0, 0],
        });
    }
    let words: Vec<u32> = words.into_iter().map(|w| w as u32).collect();
    let (entry, names) = if lanes == 4 { ("forward4", ["x4", "y4"]) } else { ("forward", ["x", "y"]) };
    Dispatch {
        source: kernel(dtype),
        entry,
        consts: vec![],
        uniform: uniform(&words),
        bindings: vec![(names[0], slots[0]), (names[1], slots[1])],
        groups: invocations(count),
        flops: 0,
    }
}

/// On the CPU: the elements of `x` along a walk of one operand, from an offset on.
pub fn gather<R: Copy>(walk: &Walk, from: usize, x: &Data<R>) -> Data<R> {
    fn pick<T: Copy>(walk: &Walk, from: usize, x: &[T]) -> Vec<T> {
        let (n, stride) = (walk.inner(), walk.inner_stride(0));
        let mut out = Vec::with_capacity(walk.dims.iter().product());
        walk.each_row(|o| {
            let row = &x[from + o[0]..];
            if stride == 1 { out.extend_from_slice(&row[..n]) } else { out.extend((0..n).map(|i| row[i * stride])) }
        });
        out
    }
    match x {
        Data::Real(x) => Data::Real(pick(walk, from, x)),
        Data::Index(x) => Data::Index(pick(walk, from, x)),
    }
}
