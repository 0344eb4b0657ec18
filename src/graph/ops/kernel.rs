//! What the ops' lowerings share: uniforms, group counts, kernel families.

use crate::graph::LowerContext;

/// Invocations of a workgroup in kernels where each works alone.
const WORKGROUP: usize = 64;

/// Uniform words behind `origin`, padded to 16 bytes.
pub fn uniform(words: &[u32]) -> Vec<u8> {
    let mut words = words.to_vec();
    words.resize(words.len().next_multiple_of(4), 0);
    bytemuck::cast_slice(&words).to_vec()
}

/// Workgroups for `count` invocations that work alone.
pub fn invocations(count: usize) -> [u32; 3] {
    [count.div_ceil(WORKGROUP) as u32, 1, 1]
}

/// Whether a size can be walked in steps of four.
pub fn vec4(size: usize) -> bool {
    size.is_multiple_of(4)
}

/// Whether a workgroup shares a row of `len`, or one invocation walks it alone. Barriers are dear on software adapters, and
/// short rows do not fill a workgroup anywhere. `choices["rows"]` (`group` or `alone`) decides where it is set.
pub fn shares_rows(context: &LowerContext, len: usize) -> bool {
    match context.choices.get("rows").map(String::as_str) {
        Some("group") => true,
        Some("alone") => false,
        _ => !context.software && len >= 64,
    }
}

/// Whether subgroups are wide enough to hold four lanes that load what all of them read, one row each.
pub fn can_broadcast(context: &LowerContext) -> bool {
    context.subgroup.is_some_and(|width| width >= 4 && width <= context.max_invocations)
}
