//! What the page sets for runs side by side: a task, sizes of the models, how they learn. Which variants, their parameters,
//! heads and the seed stand in the experiment, as everywhere.

use super::RunConfig;
use super::orders::Pace;
use crate::attention::{Family, find};
use crate::ids::ids;
use crate::lab::experiment::{Complaint, Experiment};
use crate::model::{Architecture, Block, Mixer, ModelConfig, OptimiserConfig};
use crate::task::TaskConfig;
use std::ops::RangeInclusive;

/// Most models of one race.
pub const MOST_MODELS: usize = 4;

ids! {
    /// What the curves are drawn against.
    Against {
        #[default]
        Steps = "steps",
        Seconds = "seconds",
        Flops = "flops",
        Tokens = "tokens",
    }
}

ids! {
    /// How the decoder of an encoder–decoder scores what the encoder gives.
    Cross {
        #[default]
        Full = "full",
        /// By a small network of both states.
        Bahdanau = "bahdanau",
    }
}

/// Settings that all models of a race share.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct TrainSetup {
    /// As in a run's configuration.
    pub task: String,
    /// Sequence length; a task takes the nearest that it has.
    pub length: usize,
    pub layers: usize,
    /// Model dimension.
    pub width: usize,
    /// Sequences of a step.
    pub batch: usize,
    pub steps: usize,
    /// One of those that the task takes ([`TrainSetup::takes`]).
    pub architecture: Architecture,
    /// What a layer of the models with a recurrent network is made of; the others are transformers.
    pub block: Block,
    /// For an encoder–decoder.
    pub cross: Cross,
    /// Learning rate.
    pub rate: f64,
    pub pace: Pace,
    pub against: Against,
}

impl Default for TrainSetup {
    fn default() -> Self {
        // Its answers lie at every distance, so that a window shows where it ends.
        Self::usual("reverse")
    }
}

/// One whole number of the setup.
pub struct Number {
    /// Its key in permalinks is `train.` and this; its text in the catalogues is `train.field.` and this.
    pub key: &'static str,
    pub range: RangeInclusive<usize>,
    pub get: fn(&TrainSetup) -> usize,
    pub set: fn(&mut TrainSetup, usize),
}

/// The whole numbers, in the order of the form.
pub const NUMBERS: [Number; 5] = [
    Number { key: "length", range: 4..=1024, get: |s| s.length, set: |s, x| s.length = x },
    Number { key: "layers", range: 1..=12, get: |s| s.layers, set: |s, x| s.layers = x },
    Number { key: "width", range: 4..=512, get: |s| s.width, set: |s, x| s.width = x },
    Number { key: "batch", range: 1..=256, get: |s| s.batch, set: |s, x| s.batch = x },
    Number { key: "steps", range: 1..=100_000, get: |s| s.steps, set: |s, x| s.steps = x },
];

/// Learning rates that are taken.
pub const RATES: RangeInclusive<f64> = 1e-6..=1.0;

impl TrainSetup {
    /// What tells methods apart on this task in about a minute, on a processor too.
    pub fn usual(task: &str) -> Self {
        let (length, batch, steps) = match task {
            "copy" | "reverse" | "sort" => (18, 16, 300),
            "modular" => (4, 64, 600),
            _ => (32, 16, 600),
        };
        Self {
            task: task.into(),
            length,
            layers: 2,
            width: 64,
            batch,
            steps,
            // Who sees later tokens would see the answers, where these are the next tokens.
            architecture: match task {
                "list_ops" | "masked_lm" => Architecture::Encoder,
                _ => Architecture::Decoder,
            },
            block: Block::default(),
            cross: Cross::default(),
            rate: 0.002,
            pace: Pace::Steps,
            against: Against::Steps,
        }
    }

    /// Whether the task can be learned by such a model: an encoder sees every token, and where the answer is the next token,
    /// it sees the answer.
    pub fn takes(&self, architecture: Architecture) -> bool {
        architecture != Architecture::Encoder || Self::usual(&self.task).architecture == Architecture::Encoder
    }

    /// Brings every value into its range and names what had to change.
    pub fn check(&mut self, complaints: &mut Vec<Complaint>) {
        if of(&self.task, 8).is_none() {
            let ids = task_ids().join(", ");
            complaints.push(Complaint::new("task", &self.task, format!("one of {ids}"), "reverse"));
            self.task = "reverse".into();
        }
        for number in NUMBERS {
            let (got, range) = ((number.get)(self), &number.range);
            if !range.contains(&got) {
                let used = got.clamp(*range.start(), *range.end());
                let takes = format!("an integer from {} to {}", range.start(), range.end());
                complaints.push(Complaint::new(&format!("train.{}", number.key), &got.to_string(), takes, used));
                (number.set)(self, used);
            }
        }
        if !self.takes(self.architecture) {
            let got = format!("{} for {}, whose answers are the next tokens", self.architecture.id(), self.task);
            complaints.push(Complaint::new("train.architecture", &got, "decoder or encoder_decoder", "decoder"));
            self.architecture = Architecture::Decoder;
        }
        if !RATES.contains(&self.rate) {
            let used = if self.rate.is_finite() { self.rate.clamp(*RATES.start(), *RATES.end()) } else { 0.002 };
            let takes = format!("a number from {} to {}", RATES.start(), RATES.end());
            complaints.push(Complaint::new("train.rate", &self.rate.to_string(), takes, used));
            self.rate = used;
        }
    }
}

/// The tasks' ids, in the order of menus.
pub fn task_ids() -> Vec<String> {
    TaskConfig::all().iter().map(task_id).collect()
}

/// The id of a task.
pub fn task_id(config: &TaskConfig) -> String {
    let json = serde_json::to_value(config).unwrap_or_default();
    json["id"].as_str().unwrap_or_default().to_owned()
}

/// A task at a length, with what is easy enough to be learned while one looks on.
pub fn of(id: &str, length: usize) -> Option<TaskConfig> {
    let at = task_ids().iter().position(|known| known == id)?;
    let mut config = TaskConfig::all().swap_remove(at);
    match &mut config {
        TaskConfig::Copy(c) | TaskConfig::Reverse(c) | TaskConfig::Sort(c) => {
            c.symbols = 12;
            c.items = (length.saturating_sub(2) / 2).max(1);
        }
        TaskConfig::Induction(c) => {
            c.length = length;
            c.symbols = (length / 2).max(16);
        }
        TaskConfig::Recall(c) => {
            c.length = length;
            c.pairs = (length / 8).max(1);
            c.vocabulary = c.vocabulary.max(4 * c.pairs);
        }
        TaskConfig::ListOps(c) => c.length = length.max(8),
        TaskConfig::Dyck(c) => c.length = length,
        TaskConfig::Needle(c) => {
            c.length = length;
            c.distance = length.saturating_sub(2).max(1);
        }
        TaskConfig::Story(c) => c.length = length.max(8),
        TaskConfig::MaskedLm(c) => c.length = length.max(8),
        TaskConfig::Text(c) => c.length = length,
        TaskConfig::Modular(_) => {}
    }
    Some(config)
}

/// Whether a variant is a recurrent network, whose layers may stand without a transformer's blocks.
pub fn is_recurrent(id: &str) -> bool {
    find(id).is_some_and(|variant| variant.family == Family::RecurrentNetwork)
}

/// The runs that an experiment describes: one for each of its first variants.
pub fn runs(e: &Experiment) -> Vec<RunConfig> {
    let setup = &e.train;
    let Some(mut config) = of(&setup.task, setup.length) else { return vec![] };
    if let TaskConfig::Text(c) = &mut config {
        (c.text, c.split) = (e.text.clone(), e.split);
    }
    // What a model has no use for is not told of it either.
    let is_pair = setup.architecture == Architecture::EncoderDecoder;
    let run = |id: &String| {
        let mut params = e.params_of(id);
        for param in find(id).map_or(&[][..], |variant| variant.params) {
            params.0.entry(param.name.into()).or_insert_with(|| e.usual_value(param));
        }
        let model = ModelConfig {
            architecture: setup.architecture,
            block: if is_recurrent(id) { setup.block } else { Block::default() },
            layers: setup.layers,
            d_model: setup.width,
            heads: e.heads,
            attention: vec![Mixer { variant: id.clone(), params }],
            cross: if is_pair { Mixer::of(setup.cross.id()) } else { Mixer::of("full") },
            ..ModelConfig::default()
        };
        let steps = setup.steps as u64;
        let optimiser =
            OptimiserConfig { rate: setup.rate, warmup: (steps / 10).min(50), ..OptimiserConfig::default() };
        let mut run = RunConfig::of(config.clone());
        run.seed = e.seed;
        run.model = model;
        run.optimiser = optimiser;
        run.batch = setup.batch;
        run.steps = steps;
        run.evaluation.every = (steps / 20).clamp(1, 50);
        // What the task decides is filled in; what can't be trained is said by who is asked to.
        let _ = run.complete(u64::MAX);
        run
    };
    e.variants.iter().take(MOST_MODELS).map(run).collect()
}

/// What differs between two configurations, by the names of their fields: name, value here, value there.
pub fn differences(from: &RunConfig, to: &RunConfig) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let json = |config: &RunConfig| serde_json::to_value(config).unwrap_or_default();
    compare("", &json(from), &json(to), &mut found);
    found
}

fn compare(path: &str, a: &serde_json::Value, b: &serde_json::Value, found: &mut Vec<(String, String, String)>) {
    use serde_json::Value;
    let written = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".into(),
        other => other.to_string(),
    };
    // What is left out is nothing in particular.
    let none = Value::Object(Default::default());
    match (if a.is_null() && b.is_object() { &none } else { a }, if b.is_null() && a.is_object() { &none } else { b }) {
        (Value::Object(x), Value::Object(y)) => {
            let names: std::collections::BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for name in names {
                let field = |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or_default();
                // The last name says enough, but for an id and the variant of a cross-attention, which are what they name.
                let named = name == "id" || (path, name.as_str()) == ("cross", "variant");
                compare(if named { path } else { name }, &field(x), &field(y), found);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).for_each(|(x, y)| compare(path, x, y, found));
        }
        _ if a != b && !["vocabulary", "schema"].contains(&path) => {
            found.push((path.to_owned(), written(a), written(b)));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::experiment::View;

    #[test]
    fn every_task_makes_runs_that_can_be_trained() {
        for id in task_ids() {
            let mut setup = TrainSetup::usual(&id);
            for length in [setup.length, 4, 7, 64, 1024] {
                // The project's own text is short.
                if id == "text" && length > 64 {
                    continue;
                }
                setup.length = length;
                let variants = vec!["full".into(), "sliding_window".into()];
                let e = Experiment { train: setup.clone(), variants, view: View::Train, ..Experiment::default() };
                let made = runs(&e);
                assert_eq!(made.len(), 2);
                for mut run in made {
                    let filled = run.clone();
                    run.complete(1 << 30).unwrap_or_else(|e| panic!("{id} at {length}: {e}"));
                    assert_eq!(run, filled);
                }
            }
        }
    }

    #[test]
    fn a_task_is_trained_by_every_architecture_that_it_takes() {
        for id in task_ids() {
            for &architecture in Architecture::ALL {
                let train = TrainSetup { architecture, ..TrainSetup::usual(&id) };
                let e = Experiment { train: train.clone(), view: View::Train, ..Experiment::default() };
                let causal = crate::task::of(&of(&id, train.length).unwrap()).unwrap().causal();
                assert_eq!(train.takes(architecture), !causal || architecture != Architecture::Encoder, "{id}");
                for mut run in runs(&e) {
                    assert_eq!(run.complete(1 << 30).is_ok(), train.takes(architecture), "{id}: {architecture:?}");
                }
                let (mut checked, mut complaints) = (train.clone(), vec![]);
                checked.check(&mut complaints);
                assert_eq!(complaints.is_empty(), train.takes(architecture), "{id}: {complaints:?}");
                assert!(checked.takes(checked.architecture));
            }
        }
    }

    #[test]
    fn what_differs_is_named() {
        let e = Experiment {
            view: View::Train,
            variants: vec!["full".into(), "sliding_window".into()],
            ..Experiment::default()
        };
        let made = runs(&e);
        let names: Vec<String> = differences(&made[0], &made[1]).into_iter().map(|d| d.0).collect();
        assert!(names.contains(&"variant".into()) && names.contains(&"window".into()), "{names:?}");
        assert!(differences(&made[0], &made[0].clone()).is_empty());
        let mut faster = made[0].clone();
        faster.optimiser.rate = 0.01;
        assert_eq!(differences(&made[0], &faster), [("rate".into(), "0.002".into(), "0.01".into())]);
    }

    #[test]
    fn recurrent_networks_alone_are_raced_beside_transformers() {
        let train = TrainSetup {
            architecture: Architecture::EncoderDecoder,
            block: Block::Plain,
            cross: Cross::Bahdanau,
            ..TrainSetup::default()
        };
        let variants: Vec<String> = ["full", "lstm", "gru", "rnn"].map(Into::into).into();
        let e = Experiment { train, variants, view: View::Train, ..Experiment::default() };
        let made = runs(&e);
        let blocks: Vec<Block> = made.iter().map(|run| run.model.block).collect();
        assert_eq!(blocks, [Block::Transformer, Block::Plain, Block::Plain, Block::Plain]);
        for mut run in made.clone() {
            assert_eq!(run.model.cross, Mixer::of("bahdanau"));
            run.complete(1 << 30).unwrap_or_else(|e| panic!("{:?}: {e}", run.model.attention));
        }
        // What a restart would change is named by the settings that were changed.
        let usual =
            runs(&Experiment { train: TrainSetup { block: Block::Transformer, ..e.train.clone() }, ..e.clone() });
        let named = |from: &RunConfig, to: &RunConfig| differences(from, to);
        assert_eq!(named(&usual[1], &made[1]), [("block".into(), "transformer".into(), "plain".into())]);
        assert_eq!(named(&usual[0], &made[0]), []);
        let dots = runs(&Experiment { train: TrainSetup { cross: Cross::Full, ..e.train.clone() }, ..e.clone() });
        assert_eq!(named(&dots[1], &made[1]), [("cross".into(), "full".into(), "bahdanau".into())]);
    }

    #[test]
    fn what_is_out_of_range_is_named_and_clamped() {
        let mut setup = TrainSetup { task: "juggle".into(), layers: 0, rate: f64::NAN, ..TrainSetup::default() };
        let mut complaints = vec![];
        setup.check(&mut complaints);
        let keys: Vec<&str> = complaints.iter().map(|c| c.key.as_str()).collect();
        assert_eq!(keys, ["task", "train.layers", "train.rate"]);
        assert_eq!((setup.task.as_str(), setup.layers, setup.rate), ("reverse", 1, 0.002));
    }
}
