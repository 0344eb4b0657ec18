//! Entry points of figures inside other pages: the embed's, and the custom element's.

use crate::ui::embed::{self, Mounted};
use wasm_bindgen::prelude::*;

/// Builds the figure that the address describes in `root`.
#[wasm_bindgen]
pub fn embed_main(root: web_sys::HtmlElement) {
    console_error_panic_hook::set_once();
    embed::mount(root);
}

/// A figure in an element; `free` takes it away.
#[wasm_bindgen]
pub struct Figure(Mounted);

/// Builds the figure that `query` describes in `root`; `hears` is called with the JSON of every message that it has to say.
#[wasm_bindgen]
pub fn figure_open(root: web_sys::HtmlElement, query: String, hears: js_sys::Function) -> Figure {
    console_error_panic_hook::set_once();
    Figure(embed::figure(root, &query, hears))
}

#[wasm_bindgen]
impl Figure {
    /// Hears a message, as an embed hears it from its parent.
    pub fn hear(&self, json: String) {
        self.0.hear(&json);
    }

    /// The state as a permalink's query.
    pub fn query(&self) -> String {
        self.0.query()
    }
}
