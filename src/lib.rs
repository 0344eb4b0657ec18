//! Attention Lab: the attention variants of the survey literature, as compute shaders that run, are measured and are
//! looked at where the reader is.
//!
//! Modules from the bottom up; each may use those before it, never those after it:
//! - [`gpu`]: device, memory ledger, pipelines, replay of a program, timing. The only module that calls wgpu.
//! - [`graph`]: tensor ops, reverse-mode gradients, planning, and the CPU interpreter. Knows no attention method.
//! - [`pattern`]: which (query, key) pairs a method may score, and the block lists made from that rule.
//! - [`mod@reference`]: naive definitions in plain loops, generic over the scalar; tests and error figures use them.
//! - [`attention`]: the variants, one file each, and their registry.
//! - [`model`]: the small transformer, its optimisers and the step that trains it.
//! - [`reading`]: models and tokenizers that others made. Knows nothing of graphs.
//! - [`random`]: random numbers by counter. [`task`]: text and tokens. [`measure`]: timing statistics, fits, crossovers.
//! - [`lab`]: the experiment (one configuration everywhere), the command/event protocol, the engine.
//! - [`ui`]: the page (what touches a document is wasm32 only). `web` (wasm32 only): the entry points of page, worker, embed
//!   and JavaScript API.

pub mod attention;
pub mod complaint;
pub mod gpu;
pub mod graph;
mod ids;
pub mod json;
pub mod lab;
pub mod measure;
pub mod model;
pub mod pattern;
pub mod random;
pub mod reading;
pub mod reference;
pub mod sort;
pub mod task;
pub mod ui;
#[cfg(target_arch = "wasm32")]
pub mod web;

/// The commit that this was built from, for result files; `cargo xtask` sets it, a plain `cargo build` does not know it.
pub const COMMIT: &str = match option_env!("LAB_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
