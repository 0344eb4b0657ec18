//! The device layer: the only module that calls wgpu.
//!
//! - [`Gpu`] is a device with its [`Ledger`] and pipelines; [`Caps`] says what its adapter is.
//! - [`Replay`] makes a [`Program`] ready once and then runs it without allocating; dispatches that are too large or too long
//!   are split through the `origin` of their uniform struct.
//! - [`Timer`] times a program or its stages. [`Gpu::read`] brings bytes back.
//! - Kernels come from the build-time table ([`kernel`]), which `shaders/build.rs` makes from the files under `shaders/`.
//! - [`plate::Plate`] computes pictures of matrices from their factors, [`heat`] colours them, `canvas` shows them.
//! - A lost device is [`Error::Lost`] from the next call on; [`Gpu::recreate`] opens another.

#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(target_arch = "wasm32")]
mod canvas;
mod caps;
mod clock;
mod context;
mod error;
mod health;
pub mod heat;
pub mod kernel;
mod ledger;
mod pipeline;
pub mod plate;
pub mod program;
mod readback;
mod replay;
mod split;
mod timer;

#[cfg(target_arch = "wasm32")]
pub use canvas::Canvas;
pub use caps::Caps;
pub use clock::now_ms;
pub use context::{Gpu, Options, Power};
pub use error::Error;
pub use kernel::{fold_1d, uniform_bytes};
pub use ledger::{Buffer, Item, Ledger};
pub use program::{BufferId, BufferSpec, Category, Program, Source, Step};
pub use replay::Replay;
pub use timer::{How, Samples, Timer};
