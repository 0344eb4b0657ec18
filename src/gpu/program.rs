//! What the device is asked to do: buffers and dispatches as plain data, made by `graph::plan`, replayed by `gpu::replay`.

use super::kernel::{kernel, specialise};
use std::rc::Rc;

/// What a buffer is for; the memory ledger counts by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Learned tensors.
    Parameters,
    /// Gradients of parameters and inputs.
    Gradients,
    /// Optimiser state.
    Optimiser,
    /// Inputs and everything computed from them.
    Activations,
    /// Scratch space of a single op, block lists.
    Workspace,
    /// Buffers that carry data to and from the device: uniforms, read-back, timestamps.
    Staging,
}

/// One device buffer of a program.
#[derive(Clone, Debug)]
pub struct BufferSpec {
    pub label: String,
    pub category: Category,
    pub bytes: u64,
    /// Written once when the program is prepared (block lists and other constants).
    pub initial: Option<Rc<[u8]>>,
}

/// Index into [`Program::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub usize);

/// Where a dispatch's shader comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A kernel of the build-time table, by its path under `shaders/` without the suffix, e.g. `ops/matmul`; linked with
    /// features, `ops/matmul+f16`, `ops/matmul+subgroups` or `ops/matmul+f16+subgroups`.
    Table(&'static str),
    /// WGSL made at run time from a fused elementwise chain. Bindings are `@group(0) @binding(i)` in the order of
    /// [`Step::bindings`], uniforms `@group(1) @binding(0)`.
    Generated { name: String, wgsl: Rc<str> },
}

impl Source {
    /// The kernel file, or what a generated kernel is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Table(name) => name,
            Self::Generated { name, .. } => name,
        }
    }
}

impl Step {
    /// The shader as the device compiles it, with the constants of this dispatch that are written into it; empty where there
    /// is no such kernel.
    pub fn wgsl(&self) -> String {
        let text = match &self.source {
            Source::Table(name) => kernel(name).map_or("", |kernel| kernel.wgsl),
            Source::Generated { wgsl, .. } => wgsl,
        };
        specialise(text, &self.consts)
    }
}

/// One dispatch.
///
/// Every kernel's uniform struct (`@group(1) @binding(0)`) begins with `origin: vec4<u32>`: the workgroup at which this
/// dispatch starts on each axis, to be added to `workgroup_id`. The replay fills it in, so that it may split any dispatch
/// that is too large on an axis or would hold the device too long.
#[derive(Clone, Debug)]
pub struct Step {
    pub source: Source,
    /// Entry point, e.g. `forward`.
    pub entry: &'static str,
    /// Override constants, and `const`s of the kernel file that are rewritten by name.
    pub consts: Vec<(&'static str, f64)>,
    /// Bytes of the uniform struct behind `origin` (so without its first 16 bytes).
    pub uniform: Vec<u8>,
    /// Storage bindings: the variable's name in the shader, and the buffer.
    pub bindings: Vec<(&'static str, BufferId)>,
    /// Workgroups on each axis; may exceed 65,535, the replay splits.
    pub groups: [u32; 3],
    /// `op.entry`, shown in profilers and errors.
    pub label: String,
    /// Index into [`Program::stages`].
    pub stage: usize,
    /// Floating-point operations, an estimate for splitting long dispatches.
    pub flops: u64,
}

/// A program: buffers, and dispatches in order.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub buffers: Vec<BufferSpec>,
    pub steps: Vec<Step>,
    /// Stage labels (`project`, `score`, `mix`...), timed apart.
    pub stages: Vec<String>,
}

impl Program {
    /// Bytes of all buffers: what the ledger will show for this program, without staging and uniforms.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.bytes).sum()
    }
}
