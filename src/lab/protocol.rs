//! Plain data between a face of the lab and its engine: [`Command`]s in, [`Event`]s out. In the page they cross from the
//! main thread to the worker as JSON text, `{"start": {"backend": "auto"}}`; canvases are handed over beside them.
//!
//! A name stands outside its value, not in a field of it, so that a reader knows what it reads and need not keep it first.

use super::experiment::{Experiment, Pool, Scale, View};
use super::opened::OpenedFacts;
use super::subject::Unread;
use super::train::orders::{News, Order};
use crate::attention::Form;
use crate::gpu::Caps;
use crate::ids::ids;
use crate::measure::tune::Tuned;
pub use crate::measure::{ErrorToFull, Timing};
use serde::{Deserialize, Serialize};

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    Measured,
    Computed,
    Paper,
}

/// Which interpreter runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// GPU where there is a real one; CPU where there is none or it is a software adapter.
    #[default]
    Auto,
    Gpu,
    Cpu,
}

/// Why it is not a GPU that computes. The page says it in its language, programs in English.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Notice {
    #[error(
        "The only graphics adapter here, {name}, computes on the processor; the lab's own CPU code is many times faster and \
         is used in its place."
    )]
    SoftwareAdapter { name: String },
    #[error("No GPU can be used here ({reason}); the lab computes on the processor.")]
    NoGpu { reason: String },
    #[error("The GPU went away and could not be had again; the lab computes on the processor.")]
    WentAway,
}

/// The rectangle of the matrix that a plate shows, in cells; fractional while zooming.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Viewport {
    pub row: f64,
    pub col: f64,
    pub rows: f64,
    pub cols: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Starts the engine; answered by `Ready` or `Failed`.
    Start { backend: Backend },
    /// Makes `experiment` the one that plates and cells are about; answered by `Prepared` for each variant, then `Plate`s.
    Explore { experiment: Box<Experiment> },
    /// Plate `plate` (0 or 1) shows `view` of the variant at the same index, in this rectangle and pixel size.
    Show {
        plate: usize,
        view: View,
        head: usize,
        pool: Pool,
        #[serde(default)]
        scale: Scale,
        viewport: Viewport,
        width: u32,
        height: u32,
        dark: bool,
    },
    /// Asks for one cell and its row; answered by `Cell`.
    Probe { plate: usize, query: usize, key: usize },
    /// Asks for the shaders that a plate's variant runs as it stands; answered by `Sources`.
    Sources { plate: usize },
    /// Asks what a plate's variant does to a trained model in each layer alone; answered by `Prepared` after each layer.
    Layers { plate: usize },
    /// Starts a sweep over lengths; answered by `Point`s and `SweepDone`.
    Sweep { experiment: Box<Experiment>, lengths: Vec<usize>, backward: bool },
    /// Races the ways to compute one variant's pattern at the experiment's length, in blocks of these sizes and otherwise;
    /// answered by `Form`s and `FormsDone`.
    Forms { experiment: Box<Experiment>, variant: String, blocks: Vec<usize> },
    /// What runs that are trained side by side should do; answered by `Training`.
    Train { order: Box<Order> },
    /// Stops what is running as soon as it can be stopped.
    Cancel,
    /// The page is hidden or shown again; measuring pauses while hidden.
    Visible { visible: bool },
    /// What the engine asked its library for has come.
    Arrived,
    /// Opens the model whose files were handed over before; answered by `Opening`s and `Opened`.
    Open,
    /// Forgets the model that is open; answered by `Opened`.
    Close,
    /// Destroys the device, to test recovery.
    LoseDevice,
    /// What was measured of the kernels in an earlier visit, as `Tuned` told it.
    Remember { tuned: Box<Tuned> },
}

/// The adapter in words, for the state line, result files and tests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdapterFacts {
    pub name: String,
    pub driver: String,
    /// `webgpu`, `vulkan`, `metal`, `dx12`, or `cpu` for the CPU interpreter.
    pub backend: String,
    pub software: bool,
    pub features: Vec<String>,
    pub max_buffer_bytes: u64,
    pub max_binding_bytes: u64,
    pub timer_quantum_ns: Option<u64>,
}

impl From<&Caps> for AdapterFacts {
    fn from(caps: &Caps) -> Self {
        Self {
            name: caps.name.clone(),
            driver: caps.driver.clone(),
            backend: caps.backend.clone(),
            software: caps.software,
            features: caps.features(),
            max_buffer_bytes: caps.max_buffer_bytes,
            max_binding_bytes: caps.max_binding_bytes,
            timer_quantum_ns: None,
        }
    }
}

/// One measured or refused point of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub variant: String,
    pub length: usize,
    pub time: Option<Timing>,
    pub stages_ms: Vec<(String, f64)>,
    /// Peak bytes (computed from the plan, equal to the ledger's), and by category.
    pub bytes_peak: u64,
    pub bytes_by_category: Vec<(String, u64)>,
    pub flops: u64,
    /// Against `full` on the same inputs: largest absolute difference and RMS ratio.
    pub error_to_full: Option<ErrorToFull>,
    /// Why this point could not be measured, and the nearest that could.
    pub refused: Option<String>,
}

ids! {
    /// A way to compute a pattern, or what it is measured by.
    Way {
        /// Attention to every pair.
        #[default]
        Full = "full",
        /// Every pair, those outside the pattern under a mask.
        Masked = "masked",
        Gather = "gather",
        Blocks = "blocks",
        /// The variant's own graph.
        Own = "own",
    }
}

/// One way to compute a pattern: shares are of all pairs or blocks that there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormRow {
    pub way: Way,
    /// Tokens of a block, for [`Way::Blocks`].
    pub block: Option<usize>,
    /// Pairs that the pattern allows.
    pub density: f64,
    /// Pairs that are scored, allowed or not; none where it is not known from a list.
    pub scored: Option<f64>,
    /// Blocks that are visited.
    pub blocks: Option<f64>,
    pub flops: u64,
    pub bytes_peak: u64,
    pub time: Option<Timing>,
    /// Against the first of the ways that leave the same pairs out; none for that one and for `full`.
    pub error: Option<ErrorToFull>,
    /// Why it could not be measured, and the nearest that could.
    pub refused: Option<String>,
}

impl FormRow {
    /// One of which nothing is known.
    pub fn of(way: Way, block: Option<usize>) -> Self {
        Self {
            way,
            block,
            density: 0.0,
            scored: None,
            blocks: None,
            flops: 0,
            bytes_peak: 0,
            time: None,
            error: None,
            refused: None,
        }
    }
}

/// One shader module of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shader {
    /// The kernel file, or what a generated kernel was made for.
    pub name: String,
    /// Entry points that are run, in order.
    pub entries: Vec<String>,
    /// Stages in which it runs, in order.
    pub stages: Vec<String>,
    /// Dispatches that run it.
    pub dispatches: usize,
    /// What the device compiles, constants filled in.
    pub wgsl: String,
}

/// One thing that a method decided about a text, for one head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Unique within the variant.
    pub name: String,
    pub form: Form,
    pub rows: usize,
    pub columns: usize,
    /// `[rows, columns]`, to be read as `form` says; empty where there are too many to be told.
    pub values: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Ready {
        adapter: AdapterFacts,
        backend: Backend,
        notice: Option<Notice>,
    },
    /// Pipelines made, of how many.
    Progress {
        what: String,
        done: usize,
        total: usize,
    },
    /// A variant's numbers for the experiment at hand.
    Prepared {
        plate: usize,
        variant: String,
        numbers: Numbers,
    },
    /// A plate has been drawn. `exact` is false while a coarser picture stands in for the one being computed. `domain` is
    /// what the ends of the colour bar mean: 0 to 1 for weights, symmetric around 0 for scores and differences. `largest` is
    /// the largest size of what is shown.
    Plate {
        plate: usize,
        exact: bool,
        domain: [f64; 2],
        largest: f64,
        non_finite: u64,
        pool: Pool,
        ms: f64,
    },
    Cell {
        plate: usize,
        query: usize,
        key: usize,
        score: Option<f64>,
        weight: f64,
        rank: usize,
        allowed: bool,
        row: Vec<f32>,
    },
    /// Whose queries, keys and values the plates show from now on.
    Subject {
        subject: Box<SubjectFacts>,
    },
    /// A model is being read: numbers so far, of how many; of 0 while its small files are looked at.
    Opening {
        done: usize,
        total: usize,
    },
    /// Which model is open, and why another was not opened.
    Opened {
        model: Option<Box<OpenedFacts>>,
        refused: Option<String>,
    },
    /// Bytes of the opened model's weights that stay on the device.
    Resident {
        bytes: u64,
    },
    /// What an opened model expects where it was asked, with full attention.
    Guesses {
        guesses: Vec<Guess>,
    },
    /// What a plate's variant decided about the text in the head that is shown; told with the first picture of each head.
    Decided {
        plate: usize,
        variant: String,
        head: usize,
        /// N.
        length: usize,
        parts: Vec<Part>,
    },
    /// The shaders of a plate's variant, in the order in which they first run. `on_device` is false where the CPU
    /// interpreter computes and these are what a GPU would run.
    Sources {
        plate: usize,
        variant: String,
        on_device: bool,
        shaders: Vec<Shader>,
    },
    Point {
        point: Point,
        done: usize,
        total: usize,
        seconds_left: Option<f64>,
    },
    SweepDone {
        cancelled: bool,
    },
    /// One way to compute a pattern, with what is known of it so far.
    Form {
        row: FormRow,
        done: usize,
        total: usize,
    },
    /// `refused`: why the whole race could not be run.
    FormsDone {
        cancelled: bool,
        refused: Option<String>,
    },
    /// What there is to say of the runs in training.
    Training {
        news: Box<News>,
    },
    /// The device went away and was made again; what was asked is being run again.
    DeviceLost {
        reason: String,
        recovered: bool,
    },
    /// A request was not served: which, why, and the nearest that would be.
    Refused {
        what: String,
        reason: String,
        nearest: Option<String>,
    },
    Failed {
        reason: String,
    },
    /// Kernels were raced against each other: all that is known of this adapter now, to be kept for the next visit.
    Tuned {
        tuned: Box<Tuned>,
    },
}

/// Whose queries, keys and values are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubjectFacts {
    pub heads: usize,
    /// Head dimension.
    pub dim: usize,
    /// The trained model; none where they are drawn from the seed.
    pub model: Option<ModelFacts>,
    /// What the axes show, where a model's tokens are not the text's.
    pub labels: Option<Vec<String>>,
    /// Tokens that the model makes of the whole text, where these are not its words.
    #[serde(default)]
    pub counted: Option<usize>,
    /// Words of the text that the model does not know, each with the one that it reads in its place.
    pub stand_ins: Vec<(String, String)>,
    /// Why it is no model, though one was asked for.
    pub why: Option<WhyDrawn>,
}

/// What a model expects behind a position or, of an encoder, in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guess {
    pub at: usize,
    /// Tokens with their probabilities, the likeliest first.
    pub likeliest: Vec<(String, f32)>,
}

/// A trained model, for a sentence about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    pub name: String,
    /// No token sees a later one.
    pub causal: bool,
    pub layers: usize,
    pub d_model: usize,
    /// The longest sequence that it was trained on.
    pub length: usize,
    /// Steps of its training, and the loss that it reached on held-out sequences in nats; none of an opened model.
    pub trained: Option<(u64, f64)>,
    /// Whether it says words, so that it has losses; otherwise the vectors that it makes of texts are compared.
    pub says_words: bool,
}

/// Why no model's weights are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyDrawn {
    /// The file is on its way.
    Coming,
    /// It did not come, or is none.
    NotThere { reason: String },
    /// The model does not read this text.
    Unread(Unread),
    /// The layers below take more operations than are tried without a real GPU.
    TooMuch,
}

/// What becomes of a model that was trained with full attention when it is run with another: mean cross-entropy in nats, with full
/// attention and with the other. Of a model that says no words, the cosine of the text's vector, the mean of the last layer's rows,
/// with that of full attention: 1, and that of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Swapped {
    /// On sequences that it has not learned from.
    pub held: Option<[f64; 2]>,
    /// On the text.
    pub text: Option<[f64; 2]>,
}

/// Numbers shown beside a plate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Share of the N×M pairs that the pattern allows.
    pub density: f64,
    pub blocks_visited: Option<u64>,
    pub blocks_total: Option<u64>,
    /// Mean keys per query.
    pub keys_per_query: f64,
    /// Share of the full softmax mass inside the pattern, mean over rows of the shown head.
    pub mass_kept: Option<f64>,
    pub error_to_full: Option<ErrorToFull>,
    /// Tokens reachable after 1, 2, 3... layers, from the middle token.
    pub reach: Vec<u64>,
    /// Steps along the sequence of which each waits for the one before.
    #[serde(default)]
    pub serial_steps: u64,
    pub flops: u64,
    pub bytes_peak: u64,
    pub measured: Option<Timing>,
    /// Where a trained model is shown.
    #[serde(default)]
    pub swapped: Option<Swapped>,
    /// As [`Swapped::text`], with the variant in one layer alone, layer by layer, as far as `Layers` has come.
    #[serde(default)]
    pub layers: Vec<f64>,
}
