//! What a face asks of runs that are trained side by side, and what it hears of them: plain data.

use super::RunConfig;
use super::memory::MemoryTimeline;
use super::{HeadPicture, PartChange};
use crate::task::score::Score;
use serde::{Deserialize, Serialize};

/// Most runs of one race, forks included.
pub const MOST_RUNS: usize = 6;

/// When a run has its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Step for step: no run is a round ahead of another.
    #[default]
    Steps,
    /// The run that has used the fewest seconds goes next; the race ends when the first has done its steps and the others
    /// have used as many seconds.
    Seconds,
}

/// What a race is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Makes these runs ready and times a few steps of each, so that one knows beforehand how long they take. They stay at
    /// their beginning.
    Prepare { runs: Vec<RunConfig> },
    /// Trains these runs from their beginning.
    Start { runs: Vec<RunConfig>, pace: Pace },
    /// Trains on.
    Resume { pace: Pace },
    /// Waits after the step at hand.
    Pause,
    /// One step of every run, or of the one that is trained alone.
    Step,
    /// Ends the race, and gives its memory back; what was reached is kept.
    Stop,
    /// Copies a run as it is now into a new one, which goes on as `config` says.
    Fork { run: usize, config: Box<RunConfig> },
    /// Brings back what was kept in an earlier visit, at rest; answered by `Runs` where there is something.
    Recall,
    /// Makes a `.safetensors` file of a run; answered by `Saved`.
    Save { run: usize },
    /// Looks inside a run as it is now, without changing it: what the next step would do, what it predicts on held-out sequence
    /// number `sequence`, what a head attends to, and, where it writes text, how it goes on with `prompt`; answered by `Looked`.
    Look { run: usize, sequence: u64, prompt: String, heads: HeadChoice },
    /// Trains the model that a plate shows with that plate's attention, from the weights that it has. Runs that were trained
    /// before stay beside it, at rest.
    FineTune { plate: usize, steps: u64 },
    /// Makes the file at an address of the page one more run.
    Open { from: String },
    /// Another tab kept its runs, and is gone.
    Granted,
    /// Puts these runs beside those that another tab has left, and keeps them all. All rest but a single one in training.
    Keep,
    /// Takes one of several runs away, also from what is kept.
    Remove { run: usize },
}

/// The head that is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadChoice {
    /// The attention, e.g. `layers.0.attention`; the first one where there is none of that name.
    pub part: String,
    pub head: usize,
    /// On the prompt and what was written behind it, where there is that, instead of the held-out sequence.
    pub written: bool,
}

/// What a race does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// There is none.
    #[default]
    Nothing,
    /// Pipelines and buffers are made.
    Preparing,
    /// Ready, at its beginning.
    Ready,
    Running,
    Paused,
    /// Stopped before its end.
    Stopped,
    Done,
}

/// One look at a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Steps done.
    pub step: u64,
    /// Spent in steps so far; judging and waiting are not counted.
    pub seconds: f64,
    /// Mean cross-entropy of the step's batch, in nats.
    pub loss: f32,
    /// Norm of the gradient before clipping.
    pub norm: f32,
    /// How well it does on sequences that it does not learn from, where that was asked at this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// A judgement on the held-out part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Nats.
    pub loss: f64,
    pub score: Score,
}

/// A run as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// With what the task decided.
    pub config: RunConfig,
    /// Numbers that are learned.
    pub weights: u64,
    /// Floating-point operations of a step, by the ops' own count.
    pub flops: u64,
    /// Bytes of the step's buffers at once, and by category.
    pub bytes: u64,
    pub bytes_by_category: Vec<(String, u64)>,
    /// What is alive over the dispatches of a step.
    #[serde(default)]
    pub memory: Option<MemoryTimeline>,
    /// Accuracy of guessing.
    pub chance: f64,
    /// Seconds of a step, from a few before the start.
    pub step_seconds: Option<f64>,
    /// The run that it was copied from, and at which step.
    pub forked: Option<(usize, u64)>,
    pub samples: Vec<Sample>,
    pub failed: Option<Failed>,
}

/// Why a run cannot be, or cannot go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    pub reason: String,
    /// The nearest that works.
    pub nearest: Option<String>,
}

/// What is told of a race.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// All runs as they stand: when they are made, copied, or brought back.
    Runs { runs: Vec<RunFacts>, pace: Pace, doing: Doing, alone: Option<usize> },
    /// It does something else now. `alone` is the run that is trained while the others rest, where there is one.
    Doing { doing: Doing, alone: Option<usize> },
    /// New looks at runs.
    Samples { of: Vec<(usize, Vec<Sample>)> },
    /// A run cannot go on.
    Failed { run: usize, failed: Failed },
    /// The browser keeps nothing, or no more; what was kept before stays.
    NotKept { why: NotKept },
    /// It keeps them again.
    Kept,
    /// A run is had as a file at an address.
    Saved { run: usize, at: String },
    /// What is inside a run.
    Looked { look: Box<Look> },
}

/// Why the browser does not keep these runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotKept {
    /// It gives the lab no more room.
    Full,
    /// Another tab keeps its own.
    OtherTab,
    /// Those of a tab that is gone are kept still, until these are put beside them.
    Others,
    /// In the browser's words.
    Failed(String),
}

/// The inside of a run at one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    pub run: usize,
    pub step: u64,
    pub sequence: u64,
    /// What the next step would do to each part.
    pub changes: Vec<PartChange>,
    /// The first [`MOST_SEEN`] positions of the sequence.
    pub seen: Vec<Seen>,
    /// None where the model or the task writes no text.
    pub written: Option<Written>,
    pub heads: HeadPicture,
}

/// Positions that a look tells of, at most.
pub const MOST_SEEN: usize = 512;
/// Bytes of a prompt, at most.
pub const MOST_PROMPT_BYTES: usize = 4096;

/// One position, in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// What the model reads.
    pub token: String,
    /// None where no prediction is judged.
    pub guess: Option<Guess>,
}

/// What a model predicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guess {
    pub guess: String,
    pub answer: String,
    pub right: bool,
    /// Probabilities that the model gives to its guess and to the answer.
    pub of_guess: f32,
    pub of_answer: f32,
}

/// A text and what a model wrote behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// What it went on from, in the words that it knows.
    pub prompt: String,
    pub words: String,
}
