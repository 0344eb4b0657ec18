//! A canvas outside the page that plates are drawn on with WebGPU.
//!
//! The page's own canvas keeps a 2D context, onto which the worker copies this one with `drawImage` in the task that drew it:
//! a canvas keeps the kind of context it got first, and the CPU interpreter must be able to take over the page's when the
//! device is lost for good.

use super::heat::Colours;
use super::plate::Plate;
use super::{Error, Gpu};

/// An OffscreenCanvas with a WebGPU context of one device. A new device needs a new one.
pub struct Canvas {
    gpu: Gpu,
    element: web_sys::OffscreenCanvas,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    /// To be configured before the next frame.
    stale: bool,
}

impl Canvas {
    /// A canvas of this many pixels.
    pub fn new(gpu: &Gpu, width: u32, height: u32) -> Result<Self, Error> {
        gpu.check()?;
        let words = |e: wasm_bindgen::JsValue| Error::Surface(format!("{e:?}"));
        let element = web_sys::OffscreenCanvas::new(width.max(1), height.max(1)).map_err(words)?;
        let target = wgpu::SurfaceTarget::OffscreenCanvas(element.clone());
        let surface = gpu.instance().create_surface(target).map_err(|e| Error::Surface(e.to_string()))?;
        let mut config = surface
            .get_default_config(gpu.adapter(), width.max(1), height.max(1))
            .ok_or_else(|| Error::Surface("the adapter cannot draw on a canvas".into()))?;
        // Palettes hold what is to be seen; nothing is to be converted.
        config.format = config.format.remove_srgb_suffix();
        config.alpha_mode = wgpu::CompositeAlphaMode::Opaque;
        Ok(Self { gpu: gpu.clone(), element, surface, config, stale: true })
    }

    /// What to copy from, right after [`Canvas::present`] returned.
    pub fn element(&self) -> &web_sys::OffscreenCanvas {
        &self.element
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
