//! The embed's entry point.

use wasm_bindgen::prelude::*;

/// Builds the figure that the address describes in `root`.
#[wasm_bindgen]
pub fn embed_main(root: web_sys::HtmlElement) {
    console_error_panic_hook::set_once();
    crate::ui::embed::mount(root);
}
