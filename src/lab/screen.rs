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

/// A canvas that cannot be painted on stays as it is: the page's own text says what it would show.
#[cfg(target_arch = "wasm32")]
fn paint(canvas: &web_sys::OffscreenCanvas, width: u32, height: u32, rgba: &[u8]) {
    use wasm_bindgen::{Clamped, JsCast};
    if canvas.width() != width || canvas.height() != height {
        canvas.set_width(width);
        canvas.set_height(height);
    }
    let context = canvas.get_context("2d").ok().flatten();
    let context = context.and_then(|c| c.dyn_into::<web_sys::OffscreenCanvasRenderingContext2d>().ok());
    let image = web_sys::ImageData::new_with_u8_clamped_array_and_sh(Clamped(rgba), width, height);
    if let (Some(context), Ok(image)) = (context, image) {
        let _ = context.put_image_data(&image, 0.0, 0.0);
    }
}
