//! A program made ready: buffers, pipelines, bind groups and uniforms are made once; a step only encodes and submits.

use super::ledger::Buffer;
use super::pipeline::{Pipeline, padded_uniform};
use super::split::{Part, split};
use super::{BufferId, Category, Error, Gpu, Program, Source, Step};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// Longest time, in seconds, that one dispatch should hold the device: browsers lose it after a few seconds, and a page
/// cannot draw meanwhile.
const LONGEST_DISPATCH_S: f64 = 0.2;
/// Most dispatches in one submission.
const DISPATCHES_PER_SUBMIT: usize = 1024;
/// Most dispatches of a program; one that needs more would run for hours.
const MOST_DISPATCHES: usize = 1 << 17;

/// How a program uses its buffers.
const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// A [`Program`] on a device.
pub struct Replay {
    gpu: Gpu,
    buffers: Vec<Rc<Buffer>>,
    steps: Vec<Ready>,
    dispatches: Vec<Dispatch>,
    /// Runs of dispatches that are submitted together.
    submissions: Vec<Range<usize>>,
    stages: Vec<String>,
    flops: u64,
    /// Holds the uniforms that the bind groups refer to.
    _uniforms: Option<Buffer>,
}

struct Ready {
    pipeline: Rc<Pipeline>,
    storage: wgpu::BindGroup,
    uniform: wgpu::BindGroup,
    stage: usize,
}

#[derive(Clone, Copy)]
struct Dispatch {
    step: usize,
    uniform_offset: u32,
    groups: [u32; 3],
    flops: u64,
}

impl Replay {
    /// Makes everything that running `program` needs.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything is allocated where a buffer exceeds the adapter's limits; [`Error::Program`] where
    /// a step names what its kernel does not have.
    pub async fn new(gpu: &Gpu, program: &Program) -> Result<Self, Error> {
        Self::sharing(gpu, program, &HashMap::new()).await
    }

    /// The same, with some of the program's buffers taken from elsewhere, e.g. from another replay.
    pub async fn sharing(gpu: &Gpu, program: &Program, given: &HashMap<BufferId, Rc<Buffer>>) -> Result<Self, Error> {
        gpu.check()?;
        for (index, spec) in program.buffers.iter().enumerate() {
            gpu.check_size(&spec.label, spec.bytes, true)?;
            if given.get(&BufferId(index)).is_some_and(|b| b.bytes() < spec.bytes) {
                return Err(program_error(&spec.label, "the given buffer is too small"));
            }
        }
        let parts = divide(gpu, program)?;
        gpu.make_pipelines(&program.steps, &mut |_, _| {}).await?;

        let mut buffers = Vec::with_capacity(program.buffers.len());
        for (index, spec) in program.buffers.iter().enumerate() {
            let buffer = match given.get(&BufferId(index)) {
                Some(buffer) => buffer.clone(),
                None => Rc::new(gpu.buffer(&spec.label, spec.category, spec.bytes, USAGE).await?),
            };
            if let Some(initial) = &spec.initial {
                write(gpu, &buffer, &spec.label, 0, initial)?;
            }
            buffers.push(buffer);
        }

        let (uniform_bytes, dispatches) = lay_out(gpu, program, &parts);
        let uniforms = if uniform_bytes.is_empty() {
            None
        } else {
            let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
            let buffer = gpu.buffer("uniforms", Category::Staging, uniform_bytes.len() as u64, usage).await?;
            gpu.queue().write_buffer(buffer.raw(), 0, &uniform_bytes);
            Some(buffer)
        };
        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let steps = bind(gpu, program, &buffers, uniforms.as_ref())?;
        if let Some(error) = scope.pop().await {
            gpu.check()?;
            return Err(Error::from_wgpu("bind groups", &error));
        }
        gpu.check()?;
        let submissions = group(&dispatches, budget(gpu));
        let flops = program.steps.iter().map(|s| s.flops).sum();
        let (gpu, stages) = (gpu.clone(), program.stages.clone());
        Ok(Self { gpu, buffers, steps, dispatches, submissions, stages, flops, _uniforms: uniforms })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// A buffer of the program, to bind or share.
    pub fn buffer(&self, id: BufferId) -> &Rc<Buffer> {
        &self.buffers[id.0]
    }

    /// Stage labels, as in the program.
    pub fn stages(&self) -> &[String] {
        &self.stages
    }

    /// Dispatches of one run, after splitting.
    pub fn dispatches(&self) -> usize {
        self.dispatches.len()
    }

    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// Writes the beginning of a buffer; effective before the next submission.
    pub fn write(&self, id: BufferId, bytes: &[u8]) -> Result<(), Error> {
        self.write_at(id, 0, bytes)
    }

    /// Writes a part of a buffer; `offset` is a multiple of 4.
    pub fn write_at(&self, id: BufferId, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.gpu.check()?;
        write(&self.gpu, self.buffer(id), "input", offset, bytes)
    }

    /// Runs the program once; returns when it is submitted.
    pub fn submit(&self) -> Result<(), Error> {
        for range in &self.submissions {
            self.submit_range(range.clone())?;
        }
        Ok(())
    }

    /// Runs the program once and waits for it, asking between submissions whether to stop.
    pub async fn run(&self, cancelled: &dyn Fn() -> bool) -> Result<(), Error> {
        for range in &self.submissions {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            self.submit_range(range.clone())?;
            if self.submissions.len() > 1 {
                self.gpu.wait().await?;
            }
        }
        self.gpu.wait().await
    }

    /// The bytes of a whole buffer, once everything submitted before is done.
    pub async fn read(&self, id: BufferId) -> Result<Vec<u8>, Error> {
        let buffer = self.buffer(id);
        self.gpu.read(buffer, 0, buffer.bytes()).await
    }

    /// Bytes `offset..offset + len` of a buffer, both multiples of 4.
    pub async fn read_range(&self, id: BufferId, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        self.gpu.read(self.buffer(id), offset, len).await
    }

    fn submit_range(&self, range: Range<usize>) -> Result<(), Error> {
        self.gpu.check()?;
        let mut encoder = self.gpu.encoder("program");
        {
            let mut pass = encoder
                .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("program"), timestamp_writes: None });
            self.encode(&mut pass, range);
        }
        self.gpu.queue().submit([encoder.finish()]);
        self.gpu.check()
    }

    /// Encodes these dispatches.
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, range: impl Iterator<Item = usize>) {
        let mut bound = None;
        for dispatch in range.map(|i| self.dispatches[i]) {
            let step = &self.steps[dispatch.step];
            if bound != Some(dispatch.step) {
                pass.set_pipeline(&step.pipeline.raw);
                pass.set_bind_group(0, &step.storage, &[]);
                bound = Some(dispatch.step);
            }
            pass.set_bind_group(1, &step.uniform, &[dispatch.uniform_offset]);
            let [x, y, z] = dispatch.groups;
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Indices of the dispatches of a stage, or all, with their FLOPs.
    pub(super) fn select(&self, stage: Option<usize>) -> Vec<(usize, u64)> {
        (self.dispatches.iter().enumerate())
            .filter(|(_, d)| stage.is_none_or(|s| self.steps[d.step].stage == s))
            .map(|(i, d)| (i, d.flops))
            .collect()
    }
}

impl Gpu {
    /// A buffer that holds `bytes`, for [`Replay::sharing`].
    pub async fn filled(&self, label: &str, category: Category, bytes: &[u8]) -> Result<Buffer, Error> {
        let buffer = self.buffer(label, category, bytes.len() as u64, USAGE).await?;
        write(self, &buffer, label, 0, bytes)?;
        Ok(buffer)
    }
}

/// FLOPs that may go into one dispatch or submission.
pub(super) fn budget(gpu: &Gpu) -> u64 {
    (gpu.rate() * LONGEST_DISPATCH_S) as u64
}

fn program_error(what: &str, message: &str) -> Error {
    Error::Program { what: what.into(), message: message.into() }
}

fn write(gpu: &Gpu, buffer: &Buffer, label: &str, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    if offset + bytes.len() as u64 > buffer.bytes() || !offset.is_multiple_of(4) {
        let message = format!("{} bytes at {offset} do not fit a buffer of {}", bytes.len(), buffer.bytes());
        return Err(Error::Program { what: label.into(), message });
    }
    let whole = bytes.len() / 4 * 4;
    gpu.queue().write_buffer(buffer.raw(), offset, &bytes[..whole]);
    if whole < bytes.len() {
        // Writes are in words; a tensor of an odd number of f16 ends within one.
        let mut last = [0; 4];
        last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
        gpu.queue().write_buffer(buffer.raw(), offset + whole as u64, &last);
    }
    Ok(())
}

/// The parts of every step.
fn divide(gpu: &Gpu, program: &Program) -> Result<Vec<Vec<Part>>, Error> {
    let mut total = 0;
    let mut all = Vec::with_capacity(program.steps.len());
    for step in &program.steps {
        let needs = step.flops / budget(gpu).max(1);
        if needs > MOST_DISPATCHES as u64 {
            return Err(too_long(&step.label, needs));
        }
        let parts = split(step.groups, step.flops, gpu.caps().max_groups_per_axis, budget(gpu));
        total += parts.len();
        if total > MOST_DISPATCHES {
            return Err(too_long(&step.label, total as u64));
        }
        all.push(parts);
    }
    Ok(all)
}

fn too_long(label: &str, needs: u64) -> Error {
    let limit_name = "most dispatches in a program";
    Error::TooLarge { what: label.into(), needs, limit: MOST_DISPATCHES as u64, limit_name }
}

/// The uniform structs of all parts in one run of bytes, each at an aligned offset with its origin in front.
fn lay_out(gpu: &Gpu, program: &Program, parts: &[Vec<Part>]) -> (Vec<u8>, Vec<Dispatch>) {
    let align = (gpu.caps().uniform_align as usize).max(256);
    let mut bytes = Vec::new();
    let mut dispatches = Vec::new();
    for (index, (step, parts)) in program.steps.iter().zip(parts).enumerate() {
        for part in parts {
            let offset = bytes.len();
            for word in [part.origin[0], part.origin[1], part.origin[2], 0] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            bytes.extend_from_slice(&step.uniform);
            bytes.resize(bytes.len().next_multiple_of(align), 0);
            dispatches.push(Dispatch {
                step: index,
                uniform_offset: offset as u32,
                groups: part.groups,
                flops: step.flops / parts.len() as u64,
            });
        }
    }
    (bytes, dispatches)
}

fn group(dispatches: &[Dispatch], budget: u64) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut flops) = (0, 0);
    for (i, dispatch) in dispatches.iter().enumerate() {
        if i > start && (flops + dispatch.flops > budget || i - start >= DISPATCHES_PER_SUBMIT) {
            runs.push(start..i);
            (start, flops) = (i, 0);
        }
        flops += dispatch.flops;
    }
    if start < dispatches.len() {
        runs.push(start..dispatches.len());
    }
    runs
}

fn bind(gpu: &Gpu, program: &Program, buffers: &[Rc<Buffer>], uniforms: Option<&Buffer>) -> Result<Vec<Ready>, Error> {
    let mut ready = Vec::with_capacity(program.steps.len());
    let mut uniform_groups: HashMap<u32, wgpu::BindGroup> = HashMap::new();
    for step in &program.steps {
        let pipeline = gpu.pipeline(step)?;
        let bound = resolve(step, &pipeline)?;
        if bound.len() as u32 > gpu.caps().max_storage_buffers {
            return Err(Error::TooLarge {
                what: step.label.clone(),
                needs: bound.len() as u64,
                limit: u64::from(gpu.caps().max_storage_buffers),
                limit_name: "storage buffers in one kernel",
            });
        }
        let padded = padded_uniform(step.uniform.len());
        if padded != pipeline.uniform_bytes {
            let message = format!(
                "its uniform struct has {} bytes with origin and padding, {padded} were given",
                pipeline.uniform_bytes
            );
            return Err(Error::Program { what: step.label.clone(), message });
        }
        let entries: Vec<_> = (bound.iter())
            .map(|&(binding, id)| wgpu::BindGroupEntry { binding, resource: buffers[id.0].raw().as_entire_binding() })
            .collect();
        let storage = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&step.label),
            layout: &pipeline.storage_layout,
            entries: &entries,
        });
        let Some(buffer) = uniforms else { continue };
        let size = std::num::NonZeroU64::new(u64::from(padded));
        let uniform = uniform_groups.entry(padded).or_insert_with(|| {
            gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("uniform"),
                layout: &pipeline.uniform_layout,
                entries: &[wgpu::BindGroupEntry {
                    binding: 0,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: buffer.raw(),
                        offset: 0,
                        size,
                    }),
                }],
            })
        });
        ready.push(Ready { uniform: uniform.clone(), pipeline, storage, stage: step.stage });
    }
    Ok(ready)
}

/// The buffer of every storage binding that the entry uses.
fn resolve(step: &Step, pipeline: &Pipeline) -> Result<Vec<(u32, BufferId)>, Error> {
    let mut bound: Vec<(u32, BufferId)> = Vec::new();
    let mut written = Vec::new();
    for slot in &pipeline.slots {
        let found = match step.source {
            Source::Table(_) => step.bindings.iter().find(|(name, _)| *name == slot.name),
            Source::Generated { .. } => step.bindings.get(slot.binding as usize),
        };
        let id = found.ok_or_else(|| program_error(&step.label, &format!("nothing is bound to `{}`", slot.name)))?.1;
        let clashes = bound.iter().any(|&(_, other)| other == id && (slot.writes || written.contains(&id)));
        if clashes {
            return Err(program_error(&step.label, "a buffer it writes is bound twice"));
        }
        if slot.writes {
            written.push(id);
        }
        bound.push((slot.binding, id));
    }
    if matches!(step.source, Source::Table(_)) {
        for (name, _) in &step.bindings {
            if !pipeline.declared.contains(name) {
                return Err(program_error(&step.label, &format!("its kernel has no binding `{name}`")));
            }
        }
    }
    Ok(bound)
}
