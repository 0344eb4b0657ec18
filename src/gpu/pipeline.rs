//! Compute pipelines, made once for each kernel, entry and set of constants, with explicit bind group layouts.

use super::heat::HeatPipeline;
use super::kernel::{self, Access, Kernel, Stage};
use super::{Error, Gpu, Program, Source, Step};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// What makes two pipelines the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    source: Source,
    entry: &'static str,
    /// Values as bits, sorted by name.
    consts: Vec<(&'static str, u64)>,
    /// Of generated kernels, which cannot be asked.
    generated_uniform: u32,
}

impl Key {
    pub fn of(step: &Step) -> Self {
        let mut consts: Vec<_> = step.consts.iter().map(|&(name, value)| (name, value.to_bits())).collect();
        consts.sort_unstable();
        let generated_uniform = match step.source {
            Source::Table(_) => 0,
            Source::Generated { .. } => padded_uniform(step.uniform.len()),
        };
        Self { source: step.source.clone(), entry: step.entry, consts, generated_uniform }
    }

    /// `ops/matmul.forward`.
    pub fn label(&self) -> String {
        let name = match &self.source {
            Source::Table(name) => name,
            Source::Generated { name, .. } => name.as_str(),
        };
        format!("{name}.{}", self.entry)
    }
}

/// Bytes of a uniform struct with `origin` in front, padded as WGSL pads it.
pub(super) fn padded_uniform(bytes_behind_origin: usize) -> u32 {
    (16 + bytes_behind_origin).next_multiple_of(16) as u32
}

/// A storage binding that an entry uses.
#[derive(Clone, Debug)]
pub(super) struct StorageSlot {
    /// The variable's name; of a generated kernel, empty.
    pub name: &'static str,
    pub binding: u32,
    pub writes: bool,
}

/// A compute pipeline with what is needed to bind to it.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub storage_layout: wgpu::BindGroupLayout,
    pub uniform_layout: wgpu::BindGroupLayout,
    pub slots: Vec<StorageSlot>,
    /// Names of all bindings of the kernel file, used by this entry or not.
    pub declared: Vec<&'static str>,
    pub uniform_bytes: u32,
}

/// Source, and the consts rewritten in it.
type ModuleKey = (Source, Vec<(&'static str, u64)>);

/// Everything made so far on one device.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pipelines: HashMap<Key, Rc<Pipeline>>,
    modules: HashMap<ModuleKey, wgpu::ShaderModule>,
    storage_layouts: HashMap<Vec<(u32, bool)>, wgpu::BindGroupLayout>,
    uniform_layouts: HashMap<u32, wgpu::BindGroupLayout>,
    pub(super) heat: HashMap<wgpu::TextureFormat, Rc<HeatPipeline>>,
}

/// The facts about a kernel entry that its layout is made from.
struct Interface {
    slots: Vec<StorageSlot>,
    declared: Vec<&'static str>,
    uniform_bytes: u32,
}

impl Gpu {
    /// Makes the pipelines of a program ahead of its first run, so that a picker can warm up what is chosen. `progress` is told
    /// how many of how many are ready.
    pub async fn prepare(&self, program: &Program, progress: &mut dyn FnMut(usize, usize)) -> Result<(), Error> {
        self.check()?;
        self.make_pipelines(&program.steps, progress).await
    }

    /// Makes the pipelines of these steps that do not exist yet. `progress` is told how many of how many are ready.
    pub(super) async fn make_pipelines(
        &self,
        steps: &[Step],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), Error> {
        let mut missing: Vec<Key> = Vec::new();
        for step in steps {
            let key = Key::of(step);
            if !self.pipeline_cache().borrow().pipelines.contains_key(&key) && !missing.contains(&key) {
                missing.push(key);
            }
        }
        progress(0, missing.len());
        for (done, key) in missing.iter().enumerate() {
            let pipeline = self.make_pipeline(key).await?;
            self.pipeline_cache().borrow_mut().pipelines.insert(key.clone(), Rc::new(pipeline));
            progress(done + 1, missing.len());
        }
        Ok(())
    }

    /// The pipeline of a step, which [`Gpu::make_pipelines`] has made.
    pub(super) fn pipeline(&self, step: &Step) -> Result<Rc<Pipeline>, Error> {
        let key = Key::of(step);
        self.pipeline_cache()
            .borrow()
            .pipelines
            .get(&key)
            .cloned()
            .ok_or_else(|| Error::Program { what: key.label(), message: "its pipeline has not been made".into() })
    }

    async fn make_pipeline(&self, key: &Key) -> Result<Pipeline, Error> {
        let label = key.label();
        let values: Vec<(&'static str, f64)> = key.consts.iter().map(|&(n, v)| (n, f64::from_bits(v))).collect();
        let (interface, wgsl, consts, overrides) = match &key.source {
            Source::Table(name) => {
                let kernel = kernel::kernel(name)
                    .ok_or_else(|| Error::Program { what: label.clone(), message: "there is no such kernel".into() })?;
                self.check_features(kernel)?;
                let (consts, overrides) = settings(kernel, &label, &values)?;
                (of_table(kernel, key.entry, &label)?, kernel.wgsl, consts, overrides)
            }
            Source::Generated { wgsl, .. } => {
                (of_generated(wgsl, key.generated_uniform, &label)?, wgsl.as_ref(), values, Vec::new())
            }
        };
        let scope = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let module = self.module(key, wgsl, &consts, &label);
        let storage_layout = self.storage_layout(&interface.slots);
        let uniform_layout = self.uniform_layout(interface.uniform_bytes);
        let layout = self.device().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&storage_layout), Some(&uniform_layout)],
            immediate_size: 0,
        });
        let raw = self.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(key.entry),
            compilation_options: wgpu::PipelineCompilationOptions { constants: &overrides, ..Default::default() },
            cache: None,
        });
        if let Some(error) = scope.pop().await {
            self.check()?;
            return Err(Error::from_wgpu(&label, &error));
        }
        Ok(Pipeline {
            raw,
            storage_layout,
            uniform_layout,
            slots: interface.slots,
            declared: interface.declared,
            uniform_bytes: interface.uniform_bytes,
        })
    }

    fn check_features(&self, kernel: &Kernel) -> Result<(), Error> {
        let lacks = |feature| Error::Unsupported { what: kernel.name.into(), feature };
        if kernel.f16 && !self.caps().f16 {
            return Err(lacks("shader-f16"));
        }
        if kernel.subgroups && self.caps().subgroups.is_none() {
            return Err(lacks("subgroups"));
        }
        Ok(())
    }

    fn module(&self, key: &Key, wgsl: &str, consts: &[(&'static str, f64)], label: &str) -> wgpu::ShaderModule {
        let id = (key.source.clone(), consts.iter().map(|&(n, v)| (n, v.to_bits())).collect::<Vec<_>>());
        if let Some(module) = self.pipeline_cache().borrow().modules.get(&id) {
            return module.clone();
        }
        let mut text = kernel::specialise(wgsl, consts);
        let subgroups = matches!(key.source, Source::Table(name) if kernel::kernel(name).is_some_and(|k| k.subgroups));
        if cfg!(target_arch = "wasm32") && subgroups {
            // Browsers require the directive, naga (natively and in the build) does not know it.
            text.insert_str(0, "enable subgroups;\n");
        }
        let module = self.create_module(label, &text);
        self.pipeline_cache().borrow_mut().modules.insert(id, module.clone());
        module
    }

    fn storage_layout(&self, slots: &[StorageSlot]) -> wgpu::BindGroupLayout {
        let id: Vec<(u32, bool)> = slots.iter().map(|s| (s.binding, s.writes)).collect();
        let make = || {
            let entries: Vec<_> = id
                .iter()
                .map(|&(binding, writes)| {
                    layout_entry(binding, wgpu::BufferBindingType::Storage { read_only: !writes })
                })
                .collect();
            self.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("storage"),
                entries: &entries,
            })
        };
        self.pipeline_cache().borrow_mut().storage_layouts.entry(id.clone()).or_insert_with(make).clone()
    }

    fn uniform_layout(&self, bytes: u32) -> wgpu::BindGroupLayout {
        let make = || {
            let mut entry = layout_entry(0, wgpu::BufferBindingType::Uniform);
            if let wgpu::BindingType::Buffer { has_dynamic_offset, min_binding_size, .. } = &mut entry.ty {
                *has_dynamic_offset = true;
                *min_binding_size = std::num::NonZeroU64::new(u64::from(bytes));
            }
            self.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("uniform"),
                entries: &[entry],
            })
        };
        self.pipeline_cache().borrow_mut().uniform_layouts.entry(bytes).or_insert_with(make).clone()
    }
}

fn layout_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

type Values = Vec<(&'static str, f64)>;

/// Sorts the values of a step into consts to rewrite and overrides to pass.
fn settings(kernel: &Kernel, label: &str, values: &[(&'static str, f64)]) -> Result<(Values, Values), Error> {
    let (mut consts, mut overrides) = (Vec::new(), Vec::new());
    for &(name, value) in values {
        if kernel.overrides.contains(&name) {
            overrides.push((name, value));
        } else if kernel.consts.contains(&name) {
            consts.push((name, value));
        } else {
            let message = format!("`{name}` is neither an override nor a const of its file");
            return Err(Error::Program { what: label.into(), message });
        }
    }
    Ok((consts, overrides))
}

fn of_table(kernel: &Kernel, entry: &str, label: &str) -> Result<Interface, Error> {
    let found = kernel.entries.iter().find(|e| e.name == entry && e.stage == Stage::Compute);
    let entry = found.ok_or_else(|| {
        let names: Vec<_> = kernel.entries.iter().map(|e| e.name).collect();
        let message = format!("there is no such compute entry point, only {}", names.join(", "));
        Error::Program { what: label.into(), message }
    })?;
    let slots = (entry.uses.iter().map(|&i| &kernel.bindings[i]))
        .filter(|b| b.access != Access::Uniform)
        .map(|b| StorageSlot { name: b.name, binding: b.binding, writes: b.access == Access::ReadWrite })
        .collect();
    let declared = kernel.bindings.iter().map(|b| b.name).collect();
    Ok(Interface { slots, declared, uniform_bytes: kernel.uniform_bytes })
}

/// Reads the storage declarations of a generated kernel: `@group(0) @binding(i) var<storage, read_write> name: ...`.
fn of_generated(wgsl: &str, uniform_bytes: u32, label: &str) -> Result<Interface, Error> {
    let mut found = BTreeMap::new();
    for declaration in wgsl.split("@group(0)").skip(1) {
        let parsed = declaration.split_once("@binding(").and_then(|(_, rest)| {
            let (number, rest) = rest.split_once(')')?;
            let (_, rest) = rest.split_once("var<storage")?;
            let (mode, _) = rest.split_once('>')?;
            Some((number.trim().parse::<u32>().ok()?, mode.contains("read_write")))
        });
        let (binding, writes) = parsed.ok_or_else(|| Error::Program {
            what: label.into(),
            message: "a generated binding does not read `@group(0) @binding(i) var<storage, ...>`".into(),
        })?;
        found.insert(binding, writes);
    }
    let slots = found.into_iter().map(|(binding, writes)| StorageSlot { name: "", binding, writes }).collect();
    Ok(Interface { slots, declared: Vec::new(), uniform_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_bindings_are_read_off_their_declarations() {
        let wgsl = "@group(0) @binding(1) var<storage,read_write> y: array<f32>;\n@group(0) @binding(0)\nvar<storage, \
                    read> x: array<f32>;\n@group(1) @binding(0) var<uniform> u: U;";
        let interface = of_generated(wgsl, 32, "fused").unwrap();
        let slots: Vec<_> = interface.slots.iter().map(|s| (s.binding, s.writes)).collect();
        assert_eq!((slots, interface.uniform_bytes), (vec![(0, false), (1, true)], 32));
        assert!(of_generated("@group(0) var<storage> x: f32;", 32, "fused").is_err());
    }
}
