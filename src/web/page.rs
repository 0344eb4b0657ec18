//! The page's entry point.

use wasm_bindgen::prelude::*;

/// Builds the page in `root`.
#[wasm_bindgen]
pub fn page_main(root: web_sys::HtmlElement) {
    console_error_panic_hook::set_once();
    crate::ui::app::mount(root);
}
