//! The small transformer on which variants are compared: configuration, weights, graph, and the step that trains it.
//!
//! Everything is built of the graph's ops. [`mod@network`] makes logits of tokens and declares every weight as it goes, so that
//! names, shapes and the graph are said once; [`step`] adds loss, gradients, clipping and the optimiser, and one plan serves
//! all steps.

pub mod alone;
mod attended;
pub mod config;
mod layers;
pub mod network;
pub mod optimiser;
pub mod parameters;
mod recurrent;
pub mod step;

pub use attended::{Attended, attended};
pub use config::{Architecture, Block, ConfigError, Mixer, ModelConfig};
pub use network::{Network, Tokens, network};
pub use optimiser::OptimiserConfig;
pub use parameters::Parameter;
pub use step::{Inspection, Judgement, Reader, TrainingStep, inspection, judgement, reader, training_step};
