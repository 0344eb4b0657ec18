//! Pictures of effective matrices, computed on the device straight from their factors.
//!
//! [`Plate::set`] takes a [`Scene`]; [`Plate::step`] computes the next piece of it, first a coarse picture where the exact one
//! takes long, then the exact one in tiles over it; [`super::heat`] draws what is there at any time. So a caller can present
//! after every step, look for messages, and leave off or set another scene whenever it likes.

use super::ledger::Buffer;
use super::pipeline::Pipeline;
use super::split::{Part, split};
use super::{Category, Error, Gpu, Source, Step};
use std::ops::Range;
use std::rc::Rc;

/// How a cell's weight comes from its product and the row's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `exp(x - row)`.
    Softmax,
    /// `x / row`.
    Ratio,
    /// `x`.
    Plain,
    /// `x + row[j - i + ⌊taps / 2⌋]`.
    Filtered { taps: u32 },
    /// `left[i, j]`.
    Cells,
}

impl Kind {
    /// As the kernels read it: the kind, and behind its first byte the taps.
    fn encode(self) -> u32 {
        match self {
            Kind::Softmax => 0,
            Kind::Ratio => 1,
            Kind::Plain => 2,
            Kind::Filtered { taps } => 3 | taps << 8,
            Kind::Cells => 4,
        }
    }
}

/// An effective matrix in factors, on the device.
#[derive(Clone, Debug)]
pub struct Factors {
    /// `[B, H, N, R]`.
    pub left: Rc<Buffer>,
    /// `[B, H, M, R]`.
    pub right: Rc<Buffer>,
    /// `[B, H, N]`, or `[B, H, taps]`; none for [`Kind::Plain`] and [`Kind::Cells`].
    pub row: Option<Rc<Buffer>>,
    /// R.
    pub rank: usize,
    pub kind: Kind,
    /// The rule as `shaders/lib/mask.wesl` reads it.
    pub mask: [u32; 8],
}

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Share of allowed cells.
    Pattern([u32; 8]),
    /// Blocks visited: of each query block and key block 0 absent, 1 partial, 2 full.
    Visited {
        kinds: &'a [u32],
        block_q: usize,
        block_k: usize,
    },
    Scores(&'a Factors),
    Weights(&'a Factors),
    /// Weights of the first less weights of the second.
    Difference(&'a Factors, &'a Factors),
}

/// One picture.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    pub content: Content<'a>,
    /// Queries and keys.
    pub n: usize,
    pub m: usize,
    /// batch · heads + head.
    pub head: usize,
    /// The mean over a pixel's allowed cells, or the largest by size.
    pub mean: bool,
    /// The cells under each pixel row and pixel column; none is empty.
    pub rows: &'a [Range<usize>],
    pub columns: &'a [Range<usize>],
}

/// How far a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// False while single cells stand for many.
    pub exact: bool,
    pub done: usize,
    pub total: usize,
}

/// What a picture holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The largest size of a finite value.
    pub largest: f32,
    /// Values that are NaN or infinite.
    pub non_finite: u32,
}

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

/// Bins on each axis of a workgroup.
const BINS: u32 = 32;
/// Share of the longest dispatch that one step may take, so that a caller hears of messages soon.
const STEP_SHARE: f64 = 0.25;

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
        let ranges: Vec<u32> = rows.iter().chain(&columns).flat_map(|r| [r.start as u32, r.end as u32]).collect();
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

fn budget(gpu: &Gpu) -> u64 {
    (super::replay::budget(gpu) as f64 * STEP_SHARE) as u64
}

/// A step that names one of the kernels, for the pipeline cache.
fn step_of(entry: &'static str) -> Step {
    Step {
        source: Source::Table("view/plate"),
        entry,
        consts: vec![],
        uniform: vec![],
        bindings: vec![],
        groups: [1; 3],
        label: entry.into(),
        stage: 0,
        flops: 0,
    }
}

fn entry_of(content: &Content<'_>) -> &'static str {
    let in_fours = |f: &Factors| f.rank.is_multiple_of(4) && f.kind != Kind::Cells;
    match content {
        Content::Pattern(_) => "pattern",
        Content::Visited { .. } => "visited",
        Content::Scores(f) | Content::Weights(f) => {
            if in_fours(f) {
                "show4"
            } else {
                "show"
            }
        }
        Content::Difference(a, b) => {
            if in_fours(a) && in_fours(b) {
                "difference4"
            } else {
                "difference"
            }
        }
    }
}

/// How a scene is cut into dispatches: first the coarse ones.
struct Tiling {
    parts: Vec<(Part, u64)>,
    coarse: usize,
}

impl Tiling {
    fn new(gpu: &Gpu, scene: &Scene<'_>, entry: &str, rows: &[Range<usize>], columns: &[Range<usize>]) -> Self {
        let bins = if entry == "visited" { 8 } else { BINS };
        let groups = [(columns.len() as u32).div_ceil(bins), (rows.len() as u32).div_ceil(bins), 1];
        let product = |f: &Factors| if f.kind == Kind::Cells { 1 } else { 2 * f.rank };
        let per_cell = match scene.content {
            Content::Pattern(_) | Content::Visited { .. } => 8,
            Content::Scores(f) | Content::Weights(f) => product(f) + 16,
            Content::Difference(a, b) => product(a) + product(b) + 32,
        };
        let bins = u64::from(groups[0]) * u64::from(groups[1]) * u64::from(bins * bins);
        let cells = (most(rows) * most(columns)) as u64;
        let flops = |cells: u64| bins * cells * per_cell as u64;
        let budget = budget(gpu);
        let cut = |flops: u64| {
            let parts = split(groups, flops, gpu.caps().max_groups_per_axis, budget);
            let each = flops / parts.len().max(1) as u64;
            parts.into_iter().map(move |part| (part, each))
        };
        let mut parts = Vec::new();
        if cells > 1 && flops(cells) > budget {
            parts.extend(cut(flops(1)));
        }
        let coarse = parts.len();
        parts.extend(cut(flops(cells)));
        Self { parts, coarse }
    }

    /// The uniform struct of every part, `align` bytes apart, and one for the summary.
    fn uniforms(&self, scene: &Scene<'_>, rows: &[Range<usize>], columns: &[Range<usize>], align: usize) -> Vec<u8> {
        let (what, mask, a, b) = match scene.content {
            Content::Pattern(mask) => (0, mask, None, None),
            Content::Visited { .. } => (0, [0; 8], None, None),
            Content::Scores(f) => (0, f.mask, Some(f), None),
            Content::Weights(f) => (1, f.mask, Some(f), None),
            Content::Difference(a, b) => (1, a.mask, Some(a), Some(b)),
        };
        let (block_q, block_k) = match scene.content {
            Content::Visited { block_q, block_k, .. } => (block_q, block_k),
            _ => (1, 1),
        };
        let kind = |f: Option<&Factors>| f.map_or(0, |f| f.kind.encode());
        let rank = |f: Option<&Factors>| f.map_or(0, |f| f.rank as u32);
        let whole = (Part { origin: [0; 3], groups: [0; 3] }, 0);
        let mut bytes = Vec::with_capacity((self.parts.len() + 1) * align);
        for (index, (part, _)) in self.parts.iter().chain([&whole]).enumerate() {
            let coarse = index < self.coarse;
            let [x, y, z] = part.origin;
            let (most_rows, most_columns) = if coarse { (1, 1) } else { (most(rows), most(columns)) };
            let mut words = vec![x, y, z, 0];
            words.extend([scene.n as u32, scene.m as u32, scene.head as u32, coarse.into()]);
            words.extend([rows.len() as u32, columns.len() as u32, most_rows as u32, most_columns as u32]);
            words.extend([what, scene.mean.into(), kind(a), kind(b)]);
            words.extend([rank(a), rank(b), block_q as u32, block_k as u32]);
            words.extend(mask);
            words.extend(b.map_or([0; 8], |f| f.mask));
            words.push(scene.m.div_ceil(block_k) as u32);
            bytes.extend_from_slice(bytemuck::cast_slice(&words));
            bytes.resize((index + 1) * align, 0);
        }
        bytes
    }
}

/// Most cells in one range.
fn most(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(Range::len).max().unwrap_or(0)
}

/// Ranges without equal neighbours, and for each pixel which of them it shows.
fn distinct(ranges: &[Range<usize>]) -> (Vec<Range<usize>>, Vec<u32>) {
    let mut bins: Vec<Range<usize>> = Vec::new();
    let mut bin_of = Vec::with_capacity(ranges.len());
    for range in ranges {
        if bins.last() != Some(range) {
            bins.push(range.clone());
        }
        bin_of.push(bins.len() as u32 - 1);
    }
    (bins, bin_of)
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
