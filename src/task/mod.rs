//! Tasks that a model is trained on and judged by, and text as tokens.
//!
//! Every task is made from a seed, on the spot: a batch is a pure function of task, seed, part and index, natively and in the
//! browser alike, so a run is repeated by its numbers alone and nothing is downloaded. A task is chosen because it tells
//! variants apart: its file says which should fail and why, and each judged position says how far back its evidence lies, so
//! that a window, a landmark or a state that is too small shows as a cliff in accuracy by distance ([`score`]).
//!
//! [`embedding`] makes queries, keys and values of a text where no trained model is at hand.

pub mod copy;
mod dice;
pub mod dyck;
pub mod embedding;
pub mod induction;
pub mod list_ops;
pub mod masked_lm;
pub mod modular;
pub mod needle;
mod ngram;
pub mod own_text;
pub mod recall;
pub mod score;
pub mod story;
pub mod text;

pub use dice::Dice;
pub use embedding::{Qkv, embed};
pub use score::Score;
pub use text::{Split, Tokens};

/// Sequences to train on or to judge by. Each field is `[B, N]`, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// What the model reads.
    pub inputs: Vec<u32>,
    /// What it should answer at each position; in a causal task the next token. 0 where nothing is judged and nothing follows.
    pub targets: Vec<u32>,
    /// 1 where a prediction is judged, 0 elsewhere: the weights of the loss.
    pub judged: Vec<f32>,
    /// Positions from the one that answers to its evidence: back, or on either side where a task is not causal. 0 where that is
    /// the position itself or means nothing.
    pub distance: Vec<u32>,
}

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// To train on.
    Train,
    /// Kept from training, to judge by.
    Held,
}

/// A task with its parameters.
pub trait Task: Send + Sync {
    /// As in files, permalinks and on the command line.
    fn id(&self) -> &'static str;

    /// V: every input and target is below it.
    fn vocabulary(&self) -> usize;

    /// N: positions of a sequence.
    fn length(&self) -> usize;

    /// Whether a model that sees later positions would see the answer: then it must be causal.
    fn causal(&self) -> bool;

    /// The token behind the end of what is shorter than N, where anything is.
    fn pad(&self) -> Option<u32> {
        None
    }

    /// Accuracy of guessing uniformly among the tokens that can be an answer.
    fn chance(&self) -> f64;

    /// Writes one sequence of a part.
    fn write(&self, part: Part, dice: &mut Dice, row: &mut Row);

    /// Batch `index` of `size` sequences, each with dice of its own. Batches of other sizes walk through the same sequences in
    /// the same order.
    fn batch(&self, seed: u64, part: Part, index: u64, size: usize) -> Batch {
        let n = self.length();
        let mut batch = Batch {
            inputs: vec![0; size * n],
            targets: vec![0; size * n],
            judged: vec![0.0; size * n],
            distance: vec![0; size * n],
        };
        for r in 0..size {
            let span = r * n..(r + 1) * n;
            let mut row = Row {
                inputs: &mut batch.inputs[span.clone()],
                targets: &mut batch.targets[span.clone()],
                judged: &mut batch.judged[span.clone()],
                distance: &mut batch.distance[span],
            };
            let number = index.wrapping_mul(size as u64).wrapping_add(r as u64);
            self.write(part, &mut Dice::new(self.id(), seed, part, number), &mut row);
        }
        batch
    }

    /// What an axis or a table shows for a token.
    fn label(&self, token: u32) -> String;

    /// Tokens as a line of text.
    fn line(&self, tokens: &[u32]) -> String {
        tokens.iter().map(|&token| self.label(token)).collect::<Vec<_>>().join(" ")
    }

    /// A text as tokens of this task, those that it does not have left out; `None` where tokens are no text.
    fn read(&self, _text: &str) -> Option<Vec<u32>> {
        None
    }

    /// −ln p of each target of [`Task::batch`] under the process that made it, `[B, N]` in nats, for a reader who knows the
    /// process and recalls what lies at most `reach` positions back; its mean over what is judged is the loss that no such
    /// model can beat. `None` where it cannot be computed.
    fn surprisal(&self, _seed: u64, _part: Part, _index: u64, _size: usize, _reach: usize) -> Option<Vec<f32>> {
        None
    }

    /// Losses of simple players, for comparison: name, and nats per judged token on the held part.
    fn baselines(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// Which task, with bounded parameters: `{"id": "copy", "items": 8}`; a parameter left out has its default.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "id", rename_all = "snake_case")]
pub enum TaskConfig {
    Copy(copy::Config),
    Reverse(copy::Config),
    Sort(copy::Config),
    Induction(induction::Config),
    Recall(recall::Config),
    ListOps(list_ops::Config),
    Modular(modular::Config),
    Dyck(dyck::Config),
    Needle(needle::Config),
    Story(story::Config),
    MaskedLm(masked_lm::Config),
    Text(own_text::Config),
}

impl TaskConfig {
    /// Every task with its defaults, in the order of menus.
    pub fn all() -> Vec<Self> {
        vec![
            Self::Copy(Default::default()),
            Self::Reverse(Default::default()),
            Self::Sort(Default::default()),
            Self::Induction(Default::default()),
            Self::Recall(Default::default()),
            Self::ListOps(Default::default()),
            Self::Modular(Default::default()),
            Self::Dyck(Default::default()),
            Self::Needle(Default::default()),
            Self::Story(Default::default()),
            Self::MaskedLm(Default::default()),
            Self::Text(Default::default()),
        ]
    }
}

/// Makes a task.
///
/// # Errors
/// The first parameter that is not taken, what it takes, and the nearest value that works.
pub fn of(config: &TaskConfig) -> Result<Box<dyn Task>, Refused> {
    Ok(match config {
        TaskConfig::Copy(c) => Box::new(copy::Copy::new(c, copy::Order::Same)?),
        TaskConfig::Reverse(c) => Box::new(copy::Copy::new(c, copy::Order::Reversed)?),
        TaskConfig::Sort(c) => Box::new(copy::Copy::new(c, copy::Order::Sorted)?),
        TaskConfig::Induction(c) => Box::new(induction::Induction::new(c)?),
        TaskConfig::Recall(c) => Box::new(recall::Recall::new(c)?),
        TaskConfig::ListOps(c) => Box::new(list_ops::ListOps::new(c)?),
        TaskConfig::Modular(c) => Box::new(modular::Modular::new(c)?),
        TaskConfig::Dyck(c) => Box::new(dyck::Dyck::new(c)?),
        TaskConfig::Needle(c) => Box::new(needle::Needle::new(c)?),
        TaskConfig::Story(c) => Box::new(story::Story::new(c)?),
        TaskConfig::MaskedLm(c) => Box::new(masked_lm::MaskedLm::new(c)?),
        TaskConfig::Text(c) => Box::new(own_text::OwnText::new(c)?),
    })
}

/// Why a task's parameters are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {got} is not allowed; it takes {takes}; the nearest that works is {nearest}")]
pub struct Refused {
    pub key: &'static str,
    pub got: String,
    pub takes: String,
    pub nearest: String,
}

impl Refused {
    /// Refuses a whole number outside `from..=to`.
    ///
    /// # Errors
    /// The number is outside; `why` says what sets the bounds, empty where nothing but size does.
    pub fn outside(key: &'static str, got: usize, from: usize, to: usize, why: &str) -> Result<(), Self> {
        if (from..=to).contains(&got) {
            return Ok(());
        }
        let reason = if why.is_empty() { String::new() } else { format!(" ({why})") };
        Err(Self {
            key,
            got: got.to_string(),
            takes: format!("{from} to {to}{reason}"),
            nearest: got.clamp(from, to.max(from)).to_string(),
        })
    }
}

/// One sequence of a batch while a task writes it: the fields of [`Batch`], `[N]` each, zeros at first.
pub struct Row<'a> {
    inputs: &'a mut [u32],
    targets: &'a mut [u32],
    judged: &'a mut [f32],
    distance: &'a mut [u32],
}

impl Row<'_> {
    /// Inputs are the tokens, targets the same shifted by one; what is missing at the end stays 0.
    fn next_token(&mut self, tokens: &[u32]) {
        for (slot, &token) in self.inputs.iter_mut().zip(tokens) {
            *slot = token;
        }
        for (slot, &token) in self.targets.iter_mut().zip(tokens.iter().skip(1)) {
            *slot = token;
        }
    }

    /// The prediction at position `i` is judged; its evidence lies at `evidence`.
    fn judge(&mut self, i: usize, evidence: usize) {
        self.judged[i] = 1.0;
        self.distance[i] = (i - evidence) as u32;
    }
}
