//! The page, in Leptos. Everything that only computes (numbers to words, viewports, texts) builds natively too and is
//! tested there; everything that touches a document is wasm32 only.

pub mod drawing;
pub mod format;
pub mod geometry;
pub mod leak;
pub mod maths;
pub mod messages;
pub mod strips;
pub use crate::lab::results;
pub mod texts;

#[cfg(target_arch = "wasm32")]
pub mod app;
#[cfg(target_arch = "wasm32")]
pub mod browser;
#[cfg(target_arch = "wasm32")]
mod components;
#[cfg(target_arch = "wasm32")]
pub mod embed;
#[cfg(target_arch = "wasm32")]
pub mod link;
#[cfg(target_arch = "wasm32")]
mod pages;
#[cfg(target_arch = "wasm32")]
pub mod race;
#[cfg(target_arch = "wasm32")]
pub mod state;
