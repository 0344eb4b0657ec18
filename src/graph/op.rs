//! The one interface of an op: shape rule, cost, CPU evaluation, gradient rule, GPU kernels.

use super::{Data, Graph, Node, ShapeError, TensorType};
use crate::gpu::{Caps, Gpu, Source};
use std::any::Any;
use std::fmt::Debug;

/// Computed cost of an op or graph. FLOPs count a multiply-add as two; bytes are those of each operand read once and each
/// result written once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cost {
    pub flops: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

impl std::ops::Add for Cost {
    type Output = Cost;
    fn add(self, b: Cost) -> Cost {
        Cost {
            flops: self.flops + b.flops,
            bytes_read: self.bytes_read + b.bytes_read,
            bytes_written: self.bytes_written + b.bytes_written,
        }
    }
}

impl Cost {
    /// `flops`, and the bytes of the operands read and written once.
    pub fn streaming(flops: u64, inputs: &[&TensorType], outputs: &[TensorType]) -> Self {
        Self {
            flops,
            bytes_read: inputs.iter().map(|t| t.bytes()).sum(),
            bytes_written: outputs.iter().map(TensorType::bytes).sum(),
        }
    }
}

/// What a gradient rule sees: the entry's inputs and outputs, and the gradient that reached each output (none where
/// nothing depends on it).
pub struct GradContext<'a> {
    pub inputs: &'a [Node],
    pub outputs: &'a [Node],
    pub douts: &'a [Option<Node>],
}

/// Adapter facts and settings that kernel choice may depend on.
#[derive(Clone, Debug, Default)]
pub struct LowerContext {
    /// Software adapters (lavapipe, SwiftShader) want register tiles that read storage directly; GPUs want workgroup tiles.
    pub software: bool,
    pub f16: bool,
    /// Subgroup width where it is fixed and known.
    pub subgroup: Option<u32>,
    pub max_workgroup_storage: u32,
    pub max_invocations: u32,
    /// Chosen tiles by op and shape class, made by measuring (`measure::tune`); empty means the built-in choice.
    pub choices: std::collections::BTreeMap<String, String>,
}

impl LowerContext {
    /// What lowering needs of a device, with the kernels that were chosen on it by measuring.
    pub fn on(gpu: &Gpu) -> Self {
        Self { choices: gpu.chosen_kernels(), ..Self::from_caps(gpu.caps()) }
    }

    /// What lowering needs of an adapter; without measured choices.
    pub fn from_caps(caps: &Caps) -> Self {
        Self {
            software: caps.software,
            f16: caps.f16,
            subgroup: caps.subgroups.and_then(|(min, max)| (min == max).then_some(min)),
            max_workgroup_storage: caps.max_workgroup_storage,
            max_invocations: caps.max_invocations,
            choices: Default::default(),
        }
    }
}

/// A buffer as an op sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The op's i-th input.
    In(usize),
    /// The op's i-th output.
    Out(usize),
    /// The i-th scratch buffer that the lowering asked for.
    Scratch(usize),
}

/// One dispatch of an op; see [`crate::gpu::Step`] for the fields of the same name.
#[derive(Clone, Debug)]
pub struct Dispatch {
    pub source: Source,
    pub entry: &'static str,
    pub consts: Vec<(&'static str, f64)>,
    pub uniform: Vec<u8>,
    pub bindings: Vec<(&'static str, Slot)>,
    pub groups: [u32; 3],
    pub flops: u64,
}

/// An op as dispatches, with the bytes of each scratch buffer it needs while they run.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    pub dispatches: Vec<Dispatch>,
    pub scratch: Vec<u64>,
}

/// The kernels among which measuring may choose for one op and shape class; see [`crate::measure::tune`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// Key of [`LowerContext::choices`]: what the choice holds for.
    pub class: String,
    /// Values that the key may have.
    pub candidates: Vec<String>,
}

/// How an op can take part in fusion of elementwise chains.
#[derive(Clone, Debug, PartialEq)]
pub struct Elementwise {
    /// WGSL of one output element from the operands `{0}`, `{1}`..., all f32, e.g. `max({0}, 0.0)`.
    pub wgsl: String,
}

/// A tensor op. Implement in one file under `graph/ops/`, with a method on [`Graph`] that builds it.
pub trait Op: Debug + Any {
    /// Snake-case name, as in errors, timings and shader files.
    fn name(&self) -> &'static str;

    /// Shape rule: types of the outputs.
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError>;

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost;

    /// Evaluates in f32 on the CPU: one entry of `outputs` for each output type. `inputs` carry their types.
    fn eval_f32(&self, inputs: &[(&TensorType, &Data<f32>)], outputs: &[TensorType]) -> Vec<Data<f32>>;

    /// The same in f64, for tests and the command line: a page does not carry it. Write one generic function and call it
    /// from both (`eval_both!`).
    #[cfg(not(target_arch = "wasm32"))]
    fn eval_f64(&self, inputs: &[(&TensorType, &Data<f64>)], outputs: &[TensorType]) -> Vec<Data<f64>>;

    /// Adds the gradient to the graph: one node for each input, `None` where there is no gradient.
    fn grad(&self, g: &mut Graph, context: &GradContext) -> Vec<Option<Node>>;

    /// The dispatches for these shapes on this adapter.
    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered;

    /// Set for ops that map each element alone (with operands of the output's shape): they can be fused and run in place.
    fn elementwise(&self) -> Option<Elementwise> {
        None
    }

    /// Whether `other` computes the same from the same inputs; `eval_both!` writes it for types with `PartialEq`.
    fn same_as(&self, _other: &dyn Op) -> bool {
        false
    }

    /// Set for ops with several kernels of which none is fastest everywhere.
    fn tunable(&self, _context: &LowerContext, _inputs: &[&TensorType]) -> Option<Tunable> {
        None
    }

    /// True where output 0 is input 0 under another shape: no dispatch, same buffer.
    fn is_view(&self) -> bool {
        false
    }
}

/// Implements both evaluation methods of [`Op`] by one generic method `eval<R: Real>` of the implementing type, and
/// [`Op::same_as`] by its `PartialEq`.
#[macro_export]
macro_rules! eval_both {
    () => {
        fn eval_f32(
            &self,
            inputs: &[(&$crate::graph::TensorType, &$crate::graph::Data<f32>)],
            outputs: &[$crate::graph::TensorType],
        ) -> Vec<$crate::graph::Data<f32>> {
            self.eval(inputs, outputs)
        }
        #[cfg(not(target_arch = "wasm32"))]
        fn eval_f64(
            &self,
            inputs: &[(&$crate::graph::TensorType, &$crate::graph::Data<f64>)],
            outputs: &[$crate::graph::TensorType],
        ) -> Vec<$crate::graph::Data<f64>> {
            self.eval(inputs, outputs)
        }
        fn same_as(&self, other: &dyn $crate::graph::Op) -> bool {
            let other: &dyn ::std::any::Any = other;
            other.downcast_ref::<Self>().is_some_and(|other| other == self)
        }
    };
}
