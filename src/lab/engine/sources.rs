//! Serving `Sources`: the shaders that a variant's plan runs.

use super::Engine;
use super::device::Device;
use crate::gpu::Program;
use crate::lab::protocol::{Event, Shader};

impl Engine {
    /// Tells the shaders of what plate `plate` shows; nothing where it shows nothing.
    pub(super) fn tell_sources(&self, plate: usize) {
        let shown = self.explored.as_ref().and_then(|explored| explored.plates.get(plate)?.as_ref());
        if let Some(shown) = shown {
            let shaders = shaders_of(&shown.prepared.plan.program);
            let on_device = matches!(self.device, Device::Gpu(_));
            self.emit(Event::Sources { plate, variant: shown.variant.id.into(), on_device, shaders });
        }
    }
}

/// A program's shaders, each once, in the order in which they first run. What only the picture needs is left out.
fn shaders_of(program: &Program) -> Vec<Shader> {
    let mut shaders: Vec<Shader> = Vec::new();
    for step in &program.steps {
        let stage = program.stages.get(step.stage).cloned().unwrap_or_default();
        if stage == "effective" {
            continue;
        }
        let (name, wgsl) = (step.source.name().to_owned(), step.wgsl());
        let at = shaders.iter().position(|shader| shader.name == name && shader.wgsl == wgsl).unwrap_or_else(|| {
            shaders.push(Shader { name, entries: vec![], stages: vec![], dispatches: 0, wgsl });
            shaders.len() - 1
        });
        let shader = &mut shaders[at];
        shader.dispatches += 1;
        if !shader.stages.contains(&stage) {
            shader.stages.push(stage);
        }
        if !shader.entries.iter().any(|entry| entry == step.entry) {
            shader.entries.push(step.entry.to_owned());
        }
    }
    shaders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Request, Setup, find};
    use crate::graph::op::LowerContext;
    use crate::graph::plan::plan;

    #[test]
    fn shaders_are_told_once_with_their_constants_and_without_those_of_the_picture() {
        let setup = Setup {
            batch: 1,
            heads: 2,
            length: 96,
            keys: 96,
            dim: 16,
            causal: false,
            params: Default::default(),
            seed: 1,
            structure: Default::default(),
        };
        for id in ["full", "full_naive", "nystromformer", "reformer"] {
            let (graph, _) = find(id).unwrap().build(&setup, Request { effective: true, ..Request::default() });
            let program = plan(&graph, &LowerContext::default()).program;
            let told = shaders_of(&program);
            let run = program.steps.iter().filter(|step| program.stages[step.stage] != "effective").count();
            assert_eq!(told.iter().map(|shader| shader.dispatches).sum::<usize>(), run, "{id}");
            for (at, shader) in told.iter().enumerate() {
                assert!(shader.entries.iter().all(|entry| shader.wgsl.contains(&format!("fn {entry}("))), "{id}");
                assert!(!shader.stages.is_empty());
                assert!(!told[..at].iter().any(|other| other.wgsl == shader.wgsl), "{id}: {} twice", shader.name);
            }
        }
    }
}
