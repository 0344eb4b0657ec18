//! A canvas of the page, handed to the worker, that plates are drawn on.

use super::heat::Colours;
use super::plate::Plate;
use super::{Error, Gpu};

/// An OffscreenCanvas with a WebGPU context of one device. After the device was lost, make another from the same canvas.
pub struct Canvas {
    gpu: Gpu,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    /// To be configured before the next frame.
    stale: bool,
}

impl Canvas {
    pub fn new(gpu: &Gpu, canvas: wgpu::web_sys::OffscreenCanvas) -> Result<Self, Error> {
        gpu.check()?;
        let (width, height) = (canvas.width().max(1), canvas.height().max(1));
        let target = wgpu::SurfaceTarget::OffscreenCanvas(canvas);
        let surface = gpu.instance().create_surface(target).map_err(|e| Error::Surface(e.to_string()))?;
        let mut config = surface
            .get_default_config(gpu.adapter(), width, height)
            .ok_or_else(|| Error::Surface("the adapter cannot draw on a canvas".into()))?;
        // Palettes hold what is to be seen; nothing is to be converted.
        config.format = config.format.remove_srgb_suffix();
        config.alpha_mode = wgpu::CompositeAlphaMode::Opaque;
        Ok(Self { gpu: gpu.clone(), surface, config, stale: true })
    }

    /// The size of the next frame, in pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let most = self.gpu.caps().max_texture_size;
        let (width, height) = (width.clamp(1, most), height.clamp(1, most));
        if (self.config.width, self.config.height) != (width, height) {
            (self.config.width, self.config.height) = (width, height);
            self.stale = true;
        }
    }

    /// Draws what `plate` has computed so far. A frame that cannot be had now (the canvas is hidden) is left out.
    pub async fn present(&mut self, plate: &mut Plate, colours: &Colours) -> Result<(), Error> {
        use wgpu::CurrentSurfaceTexture as Frame;
        self.gpu.check()?;
        let Some(drawing) = plate.drawing(self.config.format, colours).await? else { return Ok(()) };
        for _ in 0..2 {
            if self.stale {
                self.surface.configure(self.gpu.device(), &self.config);
                self.stale = false;
            }
            match self.surface.get_current_texture() {
                Frame::Success(frame) | Frame::Suboptimal(frame) => {
                    let view = frame.texture.create_view(&wgpu::TextureViewDescriptor::default());
                    drawing.draw(&self.gpu, &view)?;
                    self.gpu.queue().present(frame);
                    return self.gpu.check();
                }
                Frame::Timeout | Frame::Occluded => return Ok(()),
                Frame::Outdated | Frame::Lost | Frame::Validation => self.stale = true,
            }
        }
        self.gpu.check()?;
        Err(Error::Surface("the canvas gives no frame".into()))
    }
}
