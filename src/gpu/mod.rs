//! The device layer: the only module that calls wgpu.
//!
//! Kernels come from the build-time table ([`kernel`]), which `shaders/build.rs` makes from the files under `shaders/`.

pub mod kernel;
pub mod program;

pub use kernel::{fold_1d, uniform_bytes};
pub use program::{BufferId, BufferSpec, Category, Program, Source, Step};
