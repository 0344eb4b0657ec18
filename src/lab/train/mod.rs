//! Training: a configuration, a run that is driven step by step, and checkpoints from which it goes on as if never stopped.

mod checkpoint;
mod config;
mod file;
mod heads;
mod look;
mod machine;
pub mod memory;
pub mod orders;
pub mod profile;
mod run;
pub mod setup;
pub mod verdict;
mod weights;

pub use checkpoint::Checkpoint;
pub use config::{EvaluationConfig, RunConfig};
pub use heads::{HeadPicture, HeadWeights, Text};
pub use look::{PartChange, Predicted, Sampling};
pub use memory::MemoryTimeline;
pub use run::{Evaluation, Exchange, Reading, Run};
pub use weights::Weights;

use crate::gpu;
use crate::graph::cpu;
use crate::model::ConfigError;
use crate::task::Refused;

/// Why a run could not be made or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("task.{0}")]
    Task(#[from] Refused),
    /// The text is no configuration.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    #[error("{0}")]
    Gpu(#[from] gpu::Error),
    #[error("{0}")]
    Cpu(#[from] cpu::Error),
    /// The interpreter would need more memory than there is.
    #[error("out of memory: a training step needs {0} bytes")]
    OutOfMemory(u64),
}
