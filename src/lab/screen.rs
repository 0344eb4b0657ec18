//! Where pictures go.

use std::cell::RefCell;
use std::rc::Rc;

/// A picture in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// `[height, width, 4]`.
    pub rgba: Vec<u8>,
}

/// A plate's surface.
#[derive(Clone, Debug, Default)]
pub enum Screen {
    /// Nobody looks.
    #[default]
    Nowhere,
    Memory(Rc<RefCell<Picture>>),
    /// A canvas that the page handed over.
    #[cfg(target_arch = "wasm32")]
    Canvas(web_sys::OffscreenCanvas),
}

impl Screen {
    /// Replaces what is shown.
    pub fn put(&self, width: usize, height: usize, rgba: &[u8]) {
        match self {
            Screen::Nowhere => {}
            Screen::Memory(picture) => *picture.borrow_mut() = Picture { width, height, rgba: rgba.into() },
            #[cfg(target_arch = "wasm32")]
            Screen::Canvas(canvas) => paint(canvas, width as u32, height as u32, rgba),
        }
    }
}

#[cfg(target_arch = "wasm32")]
impl Screen {
    /// Replaces what is shown by another canvas of this size.
    pub fn copy(&self, from: &web_sys::OffscreenCanvas, width: u32, height: u32) {
        let Screen::Canvas(canvas) = self else { return };
        if let Some(context) = context(canvas, width, height) {
            let _ = context.draw_image_with_offscreen_canvas(from, 0.0, 0.0);
        }
    }
}

#[cfg(target_arch = "wasm32")]
fn paint(canvas: &web_sys::OffscreenCanvas, width: u32, height: u32, rgba: &[u8]) {
    let context = context(canvas, width, height);
    let image = web_sys::ImageData::new_with_u8_clamped_array_and_sh(wasm_bindgen::Clamped(rgba), width, height);
    if let (Some(context), Ok(image)) = (context, image) {
        let _ = context.put_image_data(&image, 0.0, 0.0);
    }
}

/// The 2D context of a canvas of this size. A canvas that has none stays as it is: the page's own text says what it would
/// show.
#[cfg(target_arch = "wasm32")]
fn context(
    canvas: &web_sys::OffscreenCanvas,
    width: u32,
    height: u32,
) -> Option<web_sys::OffscreenCanvasRenderingContext2d> {
    use wasm_bindgen::JsCast;
    if canvas.width() != width || canvas.height() != height {
        canvas.set_width(width);
        canvas.set_height(height);
    }
    canvas.get_context("2d").ok().flatten()?.dyn_into().ok()
}
