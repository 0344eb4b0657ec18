//! The lab: one configuration everywhere, the protocol between a face (page, command line) and the engine, the engine.

pub mod abilities;
pub mod describe;
pub mod embed;
pub mod engine;
pub mod experiment;
pub mod matrix;
pub mod opened;
pub mod permalink;
pub mod picture;
pub mod protocol;
pub mod queue;
pub mod results;
pub mod screen;
pub mod session;
pub mod shelf;
pub mod subject;
pub mod train;

pub use embed::Embed;
pub use engine::{Engine, Handle, Shared};
pub use experiment::{Complaint, Experiment};
