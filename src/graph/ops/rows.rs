//! What ops over rows of a last axis share: three families of kernels, and the uniforms that begin with the row count and length.

use super::kernel::{invocations, shares_rows, uniform, vec4};
use crate::gpu::Source;
use crate::graph::layout::rows;
use crate::graph::{Dispatch, Dtype, LowerContext, Lowered, Slot, TensorType};

/// A kernel file over rows `[rows, len]`.
pub(super) struct RowKernel {
    /// For rows of f32, and of f16.
    pub source: [&'static str; 2],
    /// Words of the uniform struct behind `rows` and `len`.
    pub words: [u32; 2],
    /// Floating-point operations for each element of x.
    pub flops: u64,
}

impl RowKernel {
    /// One dispatch of `groups`.
    pub fn dispatch(
        &self,
        entry: &'static str,
        x: &TensorType,
        bindings: Vec<(&'static str, Slot)>,
        groups: [u32; 3],
    ) -> Lowered {
        let (rows, len) = rows(x);
        let dispatch = Dispatch {
            source: Source::Table(self.source[usize::from(x.dtype == Dtype::F16)]),
            entry,
            consts: vec![],
            uniform: uniform(&[rows as u32, len as u32, self.words[0], self.words[1]]),
            bindings,
            groups,
            flops: self.flops * x.len() as u64,
        };
        Lowered { dispatches: vec![dispatch], scratch: vec![] }
    }

    /// The entry that suits the rows of x: one invocation for each row, the same in steps of four elements, or a workgroup for
    /// each row. A binding has two names, the second for steps of four.
    pub fn over_rows(
        &self,
        context: &LowerContext,
        [alone, fours, group]: [&'static str; 3],
        x: &TensorType,
        bindings: &[(&'static str, &'static str, Slot)],
    ) -> Lowered {
        let (rows, len) = rows(x);
        let names =
            |four: bool| bindings.iter().map(|&(name, name4, slot)| (if four { name4 } else { name }, slot)).collect();
        if shares_rows(context, len) {
            self.dispatch(group, x, names(false), [rows as u32, 1, 1])
        } else if vec4(len) {
            self.dispatch(fours, x, names(true), invocations(rows))
        } else {
            self.dispatch(alone, x, names(false), invocations(rows))
        }
    }
}
