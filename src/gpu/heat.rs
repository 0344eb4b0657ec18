//! Draws a plate's values in colour, on a canvas or into an image.

use super::plate::{Plate, put};
use super::{Error, Gpu, kernel};
use std::rc::Rc;

/// How values become colours.
#[derive(Clone, Debug, PartialEq)]
pub struct Colours {
    /// 256 steps, then forbidden cells, their hatching, and what is not finite.
    pub palette: Vec<[u8; 3]>,
    pub scale: Scale,
    /// From -top to top; otherwise from 0 to top.
    pub signed: bool,
    pub top: f32,
    /// The smallest share of the top that the logarithmic scale tells from 0.
    pub floor: f32,
    /// Pixels between two lines of the hatching.
    pub hatch: u32,
    /// Zero is hatched as forbidden cells are.
    pub hatch_zero: bool,
}

/// Length of [`Colours::palette`].
pub const PALETTE: usize = 259;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Sqrt,
    Log,
}

/// The render pipeline for one texture format.
#[derive(Debug)]
pub(super) struct HeatPipeline {
    raw: wgpu::RenderPipeline,
    storage: wgpu::BindGroupLayout,
    uniform: wgpu::BindGroupLayout,
}

/// A drawing made ready.
pub(super) struct Drawing {
    pipeline: Rc<HeatPipeline>,
    storage: wgpu::BindGroup,
    uniform: wgpu::BindGroup,
}

impl Drawing {
    /// Draws into a texture. Waits for nothing: a canvas takes its frame back when the task that asked for it ends.
    pub fn draw(&self, gpu: &Gpu, view: &wgpu::TextureView) -> Result<(), Error> {
        let mut encoder = gpu.encoder("plate.heat");
        {
            let ops = wgpu::Operations { load: wgpu::LoadOp::Clear(wgpu::Color::BLACK), store: wgpu::StoreOp::Store };
            let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
                label: Some("plate.heat"),
                color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                    view,
                    depth_slice: None,
                    resolve_target: None,
                    ops,
                })],
                ..Default::default()
            });
            pass.set_pipeline(&self.pipeline.raw);
            pass.set_bind_group(0, &self.storage, &[]);
            pass.set_bind_group(1, &self.uniform, &[]);
            pass.draw(0..3, 0..1);
        }
        gpu.queue().submit([encoder.finish()]);
        gpu.check()
    }
}

impl Plate {
    /// Makes ready to draw what is computed so far into textures of `format`; none before a scene is set.
    ///
    /// # Panics
    /// When the palette has not [`PALETTE`] colours.
    pub(super) async fn drawing(
        &mut self,
        format: wgpu::TextureFormat,
        colours: &Colours,
    ) -> Result<Option<Drawing>, Error> {
        let Some((width, height, columns)) = self.size() else { return Ok(None) };
        let gpu = self.gpu().clone();
        let pipeline = heat_pipeline(&gpu, format).await?;
        assert_eq!(colours.palette.len(), PALETTE, "a palette has its steps and three colours");
        let palette: Vec<f32> = (colours.palette.iter())
            .flat_map(|&[r, g, b]| [f32::from(r) / 255.0, f32::from(g) / 255.0, f32::from(b) / 255.0, 1.0])
            .collect();
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        put(&gpu, &mut self.palette, "plate.palette", bytemuck::cast_slice(&palette), storage).await?;
        let top = if colours.top > 0.0 { colours.top } else { 1.0 };
        let uniform: [u32; 12] = [
            colours.scale as u32,
            colours.signed.into(),
            top.to_bits(),
            colours.floor.to_bits(),
            width as u32,
            height as u32,
            columns as u32,
            colours.hatch.max(1),
            colours.hatch_zero.into(),
            0,
            0,
            0,
        ];
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        put(&gpu, &mut self.heat, "plate.heat", bytemuck::cast_slice(&uniform), usage).await?;
        let (Some(values), Some(places), Some(palette), Some(heat)) =
            (&self.values, &self.places, &self.palette, &self.heat)
        else {
            return Ok(None);
        };
        let group = |layout, buffers: &[&super::Buffer]| {
            let entries: Vec<_> = (buffers.iter().enumerate())
                .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.raw().as_entire_binding() })
                .collect();
            let label = Some("plate.heat");
            gpu.device().create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries: &entries })
        };
        let storage = group(&pipeline.storage, &[values, places, palette]);
        let uniform = group(&pipeline.uniform, &[heat]);
        Ok(Some(Drawing { pipeline, storage, uniform }))
    }

    /// What is computed so far as RGBA bytes, `[height, width, 4]`.
    pub async fn image(&mut self, colours: &Colours) -> Result<Vec<u8>, Error> {
        let Some((width, height, _)) = self.size() else { return Ok(Vec::new()) };
        let gpu = self.gpu().clone();
        let limit = u64::from(gpu.caps().max_texture_size);
        let needs = width.max(height) as u64;
        if needs > limit {
            let limit_name = "largest texture (pixels on a side)";
            return Err(Error::TooLarge { what: "picture".into(), needs, limit, limit_name });
        }
        let size = wgpu::Extent3d { width: width as u32, height: height as u32, depth_or_array_layers: 1 };
        let format = wgpu::TextureFormat::Rgba8Unorm;
        let texture = gpu.device().create_texture(&wgpu::TextureDescriptor {
            label: Some("picture"),
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        if let Some(drawing) = self.drawing(format, colours).await? {
            drawing.draw(&gpu, &texture.create_view(&wgpu::TextureViewDescriptor::default()))?;
        }
        let row = (width * 4).next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT as usize);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let bytes = (row * height) as u64;
        let staging = gpu.buffer("picture", super::Category::Staging, bytes, usage).await?;
        let mut encoder = gpu.encoder("picture");
        let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(row as u32), rows_per_image: None };
        encoder.copy_texture_to_buffer(
            texture.as_image_copy(),
            wgpu::TexelCopyBufferInfo { buffer: staging.raw(), layout },
            size,
        );
        gpu.queue().submit([encoder.finish()]);
        let bytes = gpu.map(&staging, bytes).await?;
        Ok(bytes.chunks_exact(row).flat_map(|line| &line[..width * 4]).copied().collect())
    }
}

/// The pipeline for `format`, made once for each device.
async fn heat_pipeline(gpu: &Gpu, format: wgpu::TextureFormat) -> Result<Rc<HeatPipeline>, Error> {
    if let Some(found) = gpu.pipeline_cache().borrow().heat.get(&format) {
        return Ok(found.clone());
    }
    let label = "view/heat";
    let what = kernel::kernel(label)
        .ok_or_else(|| Error::Program { what: label.into(), message: "there is no such kernel".into() })?;
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
    let layout = |group: u32| {
        let entries: Vec<_> = (what.bindings.iter().filter(|b| b.group == group))
            .map(|b| wgpu::BindGroupLayoutEntry {
                binding: b.binding,
                visibility: wgpu::ShaderStages::FRAGMENT,
                ty: wgpu::BindingType::Buffer {
                    ty: match b.access {
                        kernel::Access::Uniform => wgpu::BufferBindingType::Uniform,
                        _ => wgpu::BufferBindingType::Storage { read_only: true },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries };
        gpu.device().create_bind_group_layout(&descriptor)
    };
    let (storage, uniform) = (layout(0), layout(1));
    let module = gpu.create_module(label, what.wgsl);
    let layout = gpu.device().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(label),
        bind_group_layouts: &[Some(&storage), Some(&uniform)],
        immediate_size: 0,
    });
    let raw = gpu.device().create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some(label),
        layout: Some(&layout),
        vertex: wgpu::VertexState {
            module: &module,
            entry_point: Some("cover"),
            compilation_options: Default::default(),
            buffers: &[],
        },
        primitive: wgpu::PrimitiveState::default(),
        depth_stencil: None,
        multisample: wgpu::MultisampleState::default(),
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: Some("paint"),
            compilation_options: Default::default(),
            targets: &[Some(format.into())],
        }),
        multiview_mask: None,
        cache: None,
    });
    if let Some(error) = scope.pop().await {
        gpu.check()?;
        return Err(Error::from_wgpu(label, &error));
    }
    let made = Rc::new(HeatPipeline { raw, storage, uniform });
    gpu.pipeline_cache().borrow_mut().heat.insert(format, made.clone());
    Ok(made)
}
