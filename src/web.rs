//! Entry points of the wasm module: the page, the worker that holds the engine, the embed. One module serves all three,
//! so that a browser compiles and caches it once.

mod api;
mod embed;
mod page;
mod worker;

pub use api::{ApiLab, ApiRun, ApiTraining, api_open};
pub use embed::{Figure, embed_main, figure_open};
pub use page::page_main;
pub use worker::worker_main;
