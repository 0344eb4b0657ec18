//! Memory of one training step over its dispatches, by what it is for.

use super::{Error, RunConfig};
use crate::gpu::Category;
use crate::graph::LowerContext;
use crate::graph::plan::{Moment, Plan, plan};
use crate::model::training_step;

/// The bands of a [`MemoryTimeline`], from the bottom up: what stays from step to step first.
pub const BANDS: [Category; 5] =
    [Category::Parameters, Category::Optimiser, Category::Gradients, Category::Activations, Category::Workspace];

/// Bytes alive during each dispatch of one training step, known before anything runs: what a stacked chart draws, with
/// dispatches on its axis and the [`BANDS`] upon each other, and what the sentence beside it says of the peak.
///
/// Alive is what is written and still to be read, or kept between steps. The buffers may be somewhat more, since they are
/// shared as they are and not cut: [`MemoryTimeline::buffers`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemoryTimeline {
    /// In the order of execution: forward, backward, update.
    pub dispatches: Vec<Alive>,
    /// Index of the first dispatch at which most is alive.
    pub peak: usize,
    /// Bytes of all buffers, by band: what the ledger shows.
    pub buffers: [u64; BANDS.len()],
}

/// What is alive during one dispatch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Alive {
    /// `op.entry`, as in timings.
    pub op: String,
    /// What the op is there for, e.g. `feed forward backward`.
    pub stage: String,
    /// The part of the model that it belongs to, e.g. `layers.0.attention`; empty for what belongs to none, as the global norm.
    pub layer: String,
    /// Bytes by band.
    pub bytes: [u64; BANDS.len()],
}

impl Alive {
    /// Bytes of all bands.
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

impl MemoryTimeline {
    /// Of a step's plan.
    pub fn new(plan: &Plan) -> Self {
        let bytes =
            |of: &std::collections::BTreeMap<Category, u64>| BANDS.map(|band| of.get(&band).copied().unwrap_or(0));
        let alive = |moment: &Moment| Alive {
            op: moment.label.clone(),
            stage: moment.stage.clone(),
            layer: moment.part.clone(),
            bytes: bytes(&moment.alive),
        };
        let dispatches: Vec<Alive> = plan.timeline.iter().map(alive).collect();
        let most = dispatches.iter().map(Alive::total).max().unwrap_or(0);
        let peak = dispatches.iter().position(|alive| alive.total() == most).unwrap_or(0);
        Self { dispatches, peak, buffers: bytes(&plan.bytes_by_category()) }
    }

    /// Of a run that is not made yet: what it would need on a device of which `context` tells.
    ///
    /// # Errors
    /// What the configuration asks for and is not taken.
    pub fn of(config: &RunConfig, max_tensor_bytes: u64, context: &LowerContext) -> Result<Self, Error> {
        let mut config = config.clone();
        config.complete(max_tensor_bytes)?;
        let step = training_step(&config.model, &config.optimiser, config.batch, config.seed);
        Ok(Self::new(&plan(&step.graph, context)))
    }

    /// What is alive at the peak; none where there is no dispatch.
    pub fn at_peak(&self) -> Option<&Alive> {
        self.dispatches.get(self.peak)
    }
}
