//! Pictures of effective matrices, computed on the device straight from their factors.
//!
//! [`Plate::set`] takes a [`Scene`]; [`Plate::step`] computes the next piece of it, first a coarse picture where the exact one
//! takes long, then the exact one in tiles over it; [`super::heat`] draws what is there at any time. So a caller can present
//! after every step, look for messages, and leave off or set another scene whenever it likes.

mod scene;
mod tiling;

pub use scene::{Content, Factors, Kind, Progress, Scene, Summary};

use super::ledger::Buffer;
use super::pipeline::Pipeline;
use super::{Category, Error, Gpu};
use std::rc::Rc;
use tiling::{Tiling, budget, distinct, entry_of, step_of};
/// The device side of one plate. Its buffers grow with what is asked of it and are used again.
pub struct Plate {
    gpu: Gpu,
    ranges: Option<Buffer>,
    pub(super) places: Option<Buffer>,
    pub(super) values: Option<Buffer>,
    blocks: Option<Buffer>,
    uniforms: Option<Buffer>,
    summary: Buffer,
    pub(super) palette: Option<Buffer>,
    pub(super) heat: Option<Buffer>,
    work: Option<Work>,
}

/// The scene being computed.
struct Work {
    pipeline: Rc<Pipeline>,
    storage: wgpu::BindGroup,
    uniform: wgpu::BindGroup,
    tiles: Vec<Tile>,
    next: usize,
    coarse_tiles: usize,
    /// Bins.
    rows: usize,
    columns: usize,
    /// Pixels.
    width: usize,
    height: usize,
    summarise: u32,
}

struct Tile {
    groups: [u32; 3],
    offset: u32,
    flops: u64,
}

impl Plate {
    pub async fn new(gpu: &Gpu) -> Result<Self, Error> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let summary = gpu.buffer("plate.summary", Category::Workspace, 8, usage).await?;
        let gpu = gpu.clone();
        let (ranges, places, values, blocks) = (None, None, None, None);
        let (uniforms, palette, heat, work) = (None, None, None, None);
        Ok(Self { gpu, ranges, places, values, blocks, uniforms, summary, palette, heat, work })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Makes `scene` the one that [`Plate::step`] computes. What was there is shown until it is overwritten only if the sizes
    /// stay the same.
    pub async fn set(&mut self, scene: &Scene<'_>) -> Result<(), Error> {
        self.work = None;
        let gpu = self.gpu.clone();
        let (rows, row_of) = distinct(scene.rows);
        let (columns, column_of) = distinct(scene.columns);
        if rows.is_empty() || columns.is_empty() {
            return Ok(());
        }
        let mut ranges: Vec<u32> = rows.iter().chain(&columns).flat_map(|r| [r.start as u32, r.end as u32]).collect();
        ranges.extend(scene.listed);
        ranges.resize(ranges.len().next_multiple_of(2), 0);
        let places: Vec<u32> = column_of.iter().chain(&row_of).copied().collect();
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        put(&gpu, &mut self.ranges, "plate.ranges", bytemuck::cast_slice(&ranges), storage).await?;
        put(&gpu, &mut self.places, "plate.places", bytemuck::cast_slice(&places), storage).await?;
        reserve(&gpu, &mut self.values, "plate.values", (rows.len() * columns.len() * 4) as u64, storage).await?;
        if let Content::Visited { kinds, .. } = scene.content {
            put(&gpu, &mut self.blocks, "plate.blocks", bytemuck::cast_slice(kinds), storage).await?;
        }

        let entry = entry_of(&scene.content);
        let steps = [step_of(entry), step_of("summarise")];
        gpu.make_pipelines(&steps, &mut |_, _| {}).await?;
        let pipeline = gpu.pipeline(&steps[0])?;
        let tiling = Tiling::new(&gpu, scene, entry, &rows, &columns);
        let align = (gpu.caps().uniform_align as usize).max(256);
        let uniforms = tiling.uniforms(scene, &rows, &columns, align);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        put(&gpu, &mut self.uniforms, "plate.uniforms", &uniforms, usage).await?;

        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let storage = self.bind(&pipeline, entry, &scene.content)?;
        let uniform = self.bind_uniform(&pipeline)?;
        if let Some(error) = scope.pop().await {
            gpu.check()?;
            return Err(Error::from_wgpu(&format!("view/plate.{entry}"), &error));
        }
        let tiles: Vec<Tile> = (tiling.parts.iter().enumerate())
            .map(|(i, (part, flops))| Tile { groups: part.groups, offset: (i * align) as u32, flops: *flops })
            .collect();
        self.work = Some(Work {
            pipeline,
            storage,
            uniform,
            summarise: (tiles.len() * align) as u32,
            tiles,
            next: 0,
            coarse_tiles: tiling.coarse,
            rows: rows.len(),
            columns: columns.len(),
            width: scene.columns.len(),
            height: scene.rows.len(),
        });
        Ok(())
    }

    /// Computes the next piece and waits for it; none when the picture is complete.
    pub async fn step(&mut self) -> Result<Option<Progress>, Error> {
        let Some(work) = &mut self.work else { return Ok(None) };
        if work.next >= work.tiles.len() {
            return Ok(None);
        }
        let coarse = work.next < work.coarse_tiles;
        let (first, total) =
            if coarse { (0, work.coarse_tiles) } else { (work.coarse_tiles, work.tiles.len() - work.coarse_tiles) };
        let end = first + total;
        let budget = budget(&self.gpu);
        let mut encoder = self.gpu.encoder("plate");
        {
            let mut pass = encoder
                .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("plate"), timestamp_writes: None });
            pass.set_pipeline(&work.pipeline.raw);
            pass.set_bind_group(0, &work.storage, &[]);
            let mut flops = 0;
            while work.next < end && (flops == 0 || flops + work.tiles[work.next].flops <= budget) {
                let tile = &work.tiles[work.next];
                pass.set_bind_group(1, &work.uniform, &[tile.offset]);
                pass.dispatch_workgroups(tile.groups[0], tile.groups[1], tile.groups[2]);
                flops += tile.flops.max(1);
                work.next += 1;
            }
        }
        let done = work.next - first;
        self.gpu.queue().submit([encoder.finish()]);
        self.gpu.wait().await?;
        Ok(Some(Progress { exact: !coarse, done, total }))
    }

    /// What the picture holds as far as it is computed.
    pub async fn summary(&self) -> Result<Summary, Error> {
        let (Some(work), Some(values)) = (&self.work, &self.values) else {
            return Ok(Summary { largest: 0.0, non_finite: 0 });
        };
        let pipeline = self.gpu.pipeline(&step_of("summarise"))?;
        self.gpu.queue().write_buffer(self.summary.raw(), 0, &[0; 8]);
        let storage = self.group(&pipeline, |name| match name {
            "values" => Some(values),
            _ => Some(&self.summary),
        })?;
        let mut encoder = self.gpu.encoder("plate.summarise");
        {
            let label = Some("plate.summarise");
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes: None });
            pass.set_pipeline(&pipeline.raw);
            pass.set_bind_group(0, &storage, &[]);
            pass.set_bind_group(1, &work.uniform, &[work.summarise]);
            pass.dispatch_workgroups(work.columns.div_ceil(64) as u32, work.rows.div_ceil(8) as u32, 1);
        }
        self.gpu.queue().submit([encoder.finish()]);
        let bytes = self.gpu.read(&self.summary, 0, 8).await?;
        let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Ok(Summary { largest: f32::from_bits(word(0)), non_finite: word(4) })
    }

    /// The value of every pixel, `[height, width]`; negative infinity where the pattern forbids all of its cells.
    pub async fn values(&self) -> Result<Vec<f32>, Error> {
        let (Some(work), Some(values), Some(places)) = (&self.work, &self.values, &self.places) else {
            return Ok(Vec::new());
        };
        let words = async |buffer: &Buffer, count: usize| -> Result<Vec<u32>, Error> {
            let bytes = self.gpu.read(buffer, 0, count as u64 * 4).await?;
            Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let values = words(values, work.rows * work.columns).await?;
        let places = words(places, work.width + work.height).await?;
        let (column_of, row_of) = places.split_at(work.width);
        let pixel = |y: u32, x: u32| f32::from_bits(values[y as usize * work.columns + x as usize]);
        Ok(row_of.iter().flat_map(|&y| column_of.iter().map(move |&x| pixel(y, x))).collect())
    }

    /// Width and height of the picture in pixels, and columns of bins.
    pub(super) fn size(&self) -> Option<(usize, usize, usize)> {
        self.work.as_ref().map(|w| (w.width, w.height, w.columns))
    }

    fn bind(&self, pipeline: &Pipeline, entry: &str, content: &Content<'_>) -> Result<wgpu::BindGroup, Error> {
        let (a, b) = match content {
            Content::Scores(a) | Content::Weights(a) => (Some(*a), None),
            Content::Difference(a, b) => (Some(*a), Some(*b)),
            Content::Pattern(_) | Content::Visited { .. } => (None, None),
        };
        let group = self.group(pipeline, |name| match name {
            "left" | "left4" => a.map(|f| &*f.left),
            "right" | "right4" => a.map(|f| &*f.right),
            // A plain matrix has no row values and reads none; something must be bound.
            "row" => a.map(|f| f.row.as_deref().unwrap_or(&f.left)),
            "left_b" | "left4_b" => b.map(|f| &*f.left),
            "right_b" | "right4_b" => b.map(|f| &*f.right),
            "row_b" => b.map(|f| f.row.as_deref().unwrap_or(&f.left)),
            "ranges" => self.ranges.as_ref(),
            "values" => self.values.as_ref(),
            "blocks" => self.blocks.as_ref(),
            _ => None,
        });
        let bound = pipeline.slots.len() as u64;
        let limit = u64::from(self.gpu.caps().max_storage_buffers);
        if bound > limit {
            let (what, limit_name) = (format!("view/plate.{entry}"), "storage buffers in one kernel");
            return Err(Error::TooLarge { what, needs: bound, limit, limit_name });
        }
        group
    }

    fn group<'b>(
        &self,
        pipeline: &Pipeline,
        buffer: impl Fn(&str) -> Option<&'b Buffer>,
    ) -> Result<wgpu::BindGroup, Error> {
        let mut entries = Vec::with_capacity(pipeline.slots.len());
        for slot in &pipeline.slots {
            let found = buffer(slot.name).ok_or_else(|| Error::Program {
                what: "view/plate".into(),
                message: format!("nothing is bound to `{}`", slot.name),
            })?;
            entries.push(wgpu::BindGroupEntry { binding: slot.binding, resource: found.raw().as_entire_binding() });
        }
        Ok(self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("plate"),
            layout: &pipeline.storage_layout,
            entries: &entries,
        }))
    }

    fn bind_uniform(&self, pipeline: &Pipeline) -> Result<wgpu::BindGroup, Error> {
        let missing = || Error::Program { what: "view/plate".into(), message: "no uniforms".into() };
        let buffer = self.uniforms.as_ref().ok_or_else(missing)?.raw();
        let size = std::num::NonZeroU64::new(u64::from(pipeline.uniform_bytes));
        let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size });
        Ok(self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("plate.uniform"),
            layout: &pipeline.uniform_layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
        }))
    }
}

/// Makes `slot` hold at least `bytes`.
pub(super) async fn reserve(
    gpu: &Gpu,
    slot: &mut Option<Buffer>,
    label: &str,
    bytes: u64,
    usage: wgpu::BufferUsages,
) -> Result<(), Error> {
    if slot.as_ref().is_none_or(|b| b.bytes() < bytes) {
        // The old one goes first, so that both are never alive together.
        *slot = None;
        *slot = Some(gpu.buffer(label, Category::Workspace, bytes, usage).await?);
    }
    Ok(())
}

/// Makes `slot` hold these bytes.
pub(super) async fn put(
    gpu: &Gpu,
    slot: &mut Option<Buffer>,
    label: &str,
    bytes: &[u8],
    usage: wgpu::BufferUsages,
) -> Result<(), Error> {
    reserve(gpu, slot, label, bytes.len() as u64, usage).await?;
    if let Some(buffer) = slot {
        gpu.queue().write_buffer(buffer.raw(), 0, bytes);
    }
    Ok(())
}
