//! What a run is: task, model, optimiser, and how long.

use super::Error;
use crate::model::config::within;
use crate::model::{Architecture, ConfigError, Mixer, ModelConfig, OptimiserConfig};
use crate::task::{self, Task, TaskConfig};

/// The version of the files that this reads and writes.
pub const SCHEMA: u32 = 1;
/// Longest text of a configuration, in which there may be a visitor's text.
const LONGEST: usize = 4 << 20;

/// How often a run is judged on sequences that it does not learn from.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Steps between two judgements; 0 judges at the end only.
    pub every: u64,
    /// Batches of each.
    pub batches: u64,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: 100, batches: 4 }
    }
}

/// A run. Only the task must be given; the rest has defaults.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    #[serde(default = "schema")]
    pub schema: u32,
    /// Of first weights, batches and dropout.
    #[serde(default = "one")]
    pub seed: u64,
    pub task: TaskConfig,
    #[serde(default)]
    pub model: ModelConfig,
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// Sequences of a step.
    #[serde(default = "batch")]
    pub batch: usize,
    #[serde(default = "steps")]
    pub steps: u64,
    /// Steps between two readings of the loss: each waits for the device.
    #[serde(default = "log_every")]
    pub log_every: u64,
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// Trained weights that it begins with in place of drawn ones: the name under which they are had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

fn schema() -> u32 {
    SCHEMA
}
fn one() -> u64 {
    1
}
fn batch() -> usize {
    32
}
fn steps() -> u64 {
    500
}
fn log_every() -> u64 {
    10
}

impl RunConfig {
    /// A run of this task with the defaults.
    pub fn of(task: TaskConfig) -> Self {
        Self {
            schema: SCHEMA,
            seed: one(),
            task,
            model: ModelConfig::default(),
            optimiser: OptimiserConfig::default(),
            batch: batch(),
            steps: steps(),
            log_every: log_every(),
            evaluation: EvaluationConfig::default(),
            weights: None,
        }
    }

    /// The same model with this attention in all its layers, trained on from `weights` for a while, gently: what was learned
    /// with another attention is to be kept.
    pub fn fine_tuned(&self, mixer: Mixer, weights: &str, steps: u64) -> Self {
        let mut config = self.clone();
        config.model.attention = vec![mixer];
        config.weights = Some(weights.into());
        config.optimiser.rate /= 4.0;
        config.optimiser.warmup = config.optimiser.warmup.min(steps / 10);
        (config.steps, config.log_every) = (steps, 5);
        config.evaluation = EvaluationConfig { every: (steps / 10).max(5), batches: 2 };
        config
    }

    /// A configuration from JSON; what is not known is refused by name.
    ///
    /// # Errors
    /// Where in the text what is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > LONGEST {
            let got = format!("a text of {} bytes", text.len());
            return Err(ConfigError::new("configuration", got, format!("at most {LONGEST}")).into());
        }
        Ok(crate::json::read(text)?)
    }

    /// Checks everything, fills in what the task decides, and makes the task. `max_tensor_bytes` is what one tensor may take
    /// on the device.
    ///
    /// # Errors
    /// The first field that is not taken.
    pub fn complete(&mut self, max_tensor_bytes: u64) -> Result<Box<dyn Task>, Error> {
        within("schema", self.schema as usize, SCHEMA as usize..=SCHEMA as usize)?;
        within("steps", usize::try_from(self.steps).unwrap_or(usize::MAX), 1..=100_000_000)?;
        within("log_every", usize::try_from(self.log_every).unwrap_or(usize::MAX), 1..=100_000_000)?;
        within("evaluation.batches", usize::try_from(self.evaluation.batches).unwrap_or(usize::MAX), 1..=100_000)?;
        let task = task::of(&self.task)?;
        if self.model.vocabulary == 0 {
            self.model.vocabulary = task.vocabulary();
        }
        if self.model.length == 0 {
            self.model.length = task.length();
        }
        self.model.pad = self.model.pad.or(task.pad());
        if self.model.vocabulary < task.vocabulary() {
            let takes = format!("at least the task's {}", task.vocabulary());
            return Err(ConfigError::new("model.vocabulary", self.model.vocabulary, takes).into());
        }
        within("model.length", self.model.length, task.length()..=task.length())?;
        if task.causal() && self.model.architecture == Architecture::Encoder {
            let got = format!("encoder for {}, in which a token's answer is the next token", task.id());
            return Err(ConfigError::new("model.architecture", got, "decoder or encoder_decoder").into());
        }
        self.optimiser.check()?;
        self.model.check(self.batch, max_tensor_bytes).map_err(|e| match e.field.as_str() {
            "batch" => e,
            field => ConfigError { field: format!("model.{field}"), ..e },
        })?;
        Ok(task)
    }
}
