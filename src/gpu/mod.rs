//! The device layer: the only module that calls wgpu.

pub mod program;

pub use program::{BufferId, BufferSpec, Category, Program, Source, Step};
