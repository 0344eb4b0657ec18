//! Runs on each interpreter; on the GPU from poisoned buffers.

use crate::backends::again;
use crate::case::Case;
use attention_lab::gpu::{Gpu, Replay};
use attention_lab::graph::{Data, Graph, LowerContext, plan};
use std::collections::BTreeMap;

pub use crate::common::gpu;

/// Outputs of a graph by name.
pub type Outputs = BTreeMap<String, Vec<f64>>;

/// Hands `check` the name of each interpreter and a way to run a case on it: the CPU in f32, unless that was
/// tested before, and the GPU where there is one.
pub fn on_each(check: impl Fn(&str, &dyn Fn(&Case) -> Outputs)) {
    if !again() {
        check("CPU f32", &|case| case.on_cpu::<f32>());
    }
    if let Some(gpu) = gpu() {
        check(&gpu.caps().name, &|case| run(&gpu, &case.graph(), &case.values_in::<f32>()));
    }
}

/// Every named output. Whatever is not an input or a constant holds NaN before the run, so that an element which nobody
/// writes shows.
pub fn run(gpu: &Gpu, graph: &Graph, inputs: &BTreeMap<String, Data<f32>>) -> Outputs {
    let plan = plan::plan(graph, &LowerContext::from_caps(gpu.caps()));
    pollster::block_on(async {
        let replay = Replay::new(gpu, &plan.program).await?;
        for (index, buffer) in plan.program.buffers.iter().enumerate().filter(|(_, b)| b.initial.is_none()) {
            let poison = vec![f32::NAN; buffer.bytes as usize / 4];
            replay.write(attention_lab::gpu::BufferId(index), bytemuck::cast_slice(&poison))?;
        }
        for (name, (buffer, _)) in &plan.inputs {
            match &inputs[name] {
                Data::Real(x) => replay.write(*buffer, bytemuck::cast_slice(x))?,
                Data::Index(x) => replay.write(*buffer, bytemuck::cast_slice(x))?,
            }
        }
        replay.run(&|| false).await?;
        let mut outputs = BTreeMap::new();
        for (name, (buffer, ty)) in &plan.outputs {
            let bytes = replay.read(*buffer).await?;
            let words: &[f32] = bytemuck::cast_slice(&bytes);
            outputs.insert(name.clone(), words[..ty.len()].iter().map(|&x| f64::from(x)).collect());
        }
        Ok::<_, attention_lab::gpu::Error>(outputs)
    })
    .unwrap_or_else(|error| panic!("{error}"))
}
