//! Looking inside a run: what a step would do to each part, what the model expects at each position, what it would write.
//! Nothing of it changes the run.

use super::heads::repeat;
use super::machine::Values;
use super::run::inputs;
use super::{Error, Run};
use crate::graph::Data;
use crate::model::{Architecture, ConfigError, inspection, reader};
use crate::random;
use crate::sort::IntoMap;
use crate::task::Part;

/// What the next step would do to a part of the model.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PartChange {
    /// E.g. `layers.0.attention`, `embedding`, `head`.
    pub part: String,
    /// Norm of the gradient before clipping.
    pub gradient: f32,
    /// Norm of the weights.
    pub weights: f32,
    /// Norm of what the step would add to them.
    pub update: f32,
}

impl PartChange {
    /// The share of the weights' norm by which they change; about a thousandth in training that goes well. None where weights
    /// are 0.
    pub fn ratio(&self) -> Option<f32> {
        (self.weights > 0.0).then(|| self.update / self.weights)
    }
}

/// What a model expects at one position.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Predicted {
    /// What stands there.
    pub token: u32,
    /// The right answer; means something where it is judged.
    pub target: u32,
    pub judged: bool,
    /// The likeliest token, the first of equals.
    pub guess: u32,
    /// Probabilities of the right answer and of the likeliest token.
    pub of_target: f32,
    pub of_guess: f32,
}

impl Predicted {
    pub fn is_right(&self) -> bool {
        self.guess == self.target
    }
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sampling {
    /// Logits are divided by it before softmax; 0 always takes the likeliest.
    pub temperature: f64,
    pub seed: u64,
}

impl Run {
    /// What the next step would do to each part of the model, which takes about as long as that step and, until
    /// [`Run::close`], as much memory for activations.
    ///
    /// # Errors
    /// The device's, or cancelled.
    pub async fn inspect(&mut self, cancelled: &dyn Fn() -> bool) -> Result<Vec<PartChange>, Error> {
        let config = &self.config;
        let made = inspection(&config.model, &config.optimiser, config.batch, config.seed);
        if !self.machine.has("inspection") {
            self.machine.add("inspection", made.graph).await?;
        }
        let names = ["gradients", "weights", "updates"];
        let [gradients, weights, updates] =
            self.machine.ask("inspection", self.next_inputs(), names, cancelled).await?;
        let change =
            |(at, part)| PartChange { part, gradient: gradients[at], weights: weights[at], update: updates[at] };
        Ok(made.parts.into_iter().enumerate().map(change).collect())
    }

    /// What the model expects at each position of sequence `number` of a part, `[N]`.
    ///
    /// # Errors
    /// The device's, or cancelled.
    pub async fn predictions(
        &mut self,
        part: Part,
        number: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Predicted>, Error> {
        let batch = self.task.batch(self.config.seed, part, number, 1);
        let given = inputs(&self.config.model, &batch, self.task.causal());
        let logits = self.read(given, cancelled).await?;
        let vocabulary = self.config.model.vocabulary;
        let one = |(i, logits): (usize, &[f32])| {
            let p = softmax(logits, 1.0);
            let guess = likeliest(logits);
            Predicted {
                token: batch.inputs[i],
                target: batch.targets[i],
                judged: batch.judged[i] > 0.0,
                guess: guess as u32,
                of_target: p[batch.targets[i] as usize] as f32,
                of_guess: p[guess] as f32,
            }
        };
        Ok(logits.chunks(vocabulary).enumerate().map(one).collect())
    }

    /// The token that a decoder puts behind a text, of which it sees the last N tokens. `at` numbers the choices of one
    /// text, so that each has chances of its own.
    ///
    /// # Errors
    /// The model is no decoder, the text is empty or has a token that the model does not know; the device's, or cancelled.
    pub async fn next_token(
        &mut self,
        text: &[u32],
        sampling: Sampling,
        at: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<u32, Error> {
        let model = &self.config.model;
        if model.architecture != Architecture::Decoder {
            let takes = "decoder: only that predicts a token from those before";
            return Err(ConfigError::new("model.architecture", model.architecture.id(), takes).into());
        }
        let (length, vocabulary) = (model.length, model.vocabulary);
        if let Some(token) = text.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(ConfigError::new("text", format!("token {token}"), format!("tokens below {vocabulary}")).into());
        }
        if text.is_empty() {
            return Err(ConfigError::new("text", "none", "at least one token").into());
        }
        let seen = &text[text.len().saturating_sub(length)..];
        let mut tokens = seen.to_vec();
        tokens.resize(length, 0);
        let given = std::iter::once(("tokens".to_owned(), Data::Index(tokens))).into_map();
        let logits = self.read(given, cancelled).await?;
        let logits = &logits[(seen.len() - 1) * vocabulary..][..vocabulary];
        if sampling.temperature <= 0.0 {
            return Ok(likeliest(logits) as u32);
        }
        let mut left = random::uniform(sampling.seed, random::stream("generate"), at);
        let p = softmax(logits, sampling.temperature);
        let chosen = p.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        Ok(chosen.unwrap_or_else(|| likeliest(logits)) as u32)
    }

    /// `count` tokens behind a text; see [`Run::next_token`].
    ///
    /// # Errors
    /// As there.
    pub async fn generate(
        &mut self,
        text: &[u32],
        count: usize,
        sampling: Sampling,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u32>, Error> {
        let mut tokens = text.to_vec();
        for at in 0..count as u64 {
            let token = self.next_token(&tokens, sampling, at, cancelled).await?;
            tokens.push(token);
        }
        Ok(tokens.split_off(text.len()))
    }

    /// Gives up the memory that looking inside took; it is taken again when somebody looks.
    pub fn close(&mut self) {
        for name in ["inspection", "reader", "heads"] {
            self.machine.remove(name);
        }
    }

    /// Logits `[N, V]` of one sequence.
    async fn read(&mut self, mut given: Values, cancelled: &dyn Fn() -> bool) -> Result<Vec<f32>, Error> {
        let (config, rows) = (&self.config, self.rows());
        if !self.machine.has("reader") {
            self.machine.add("reader", reader(&config.model, rows, config.seed).graph).await?;
        }
        repeat(&mut given, rows);
        let [mut logits] = self.machine.ask("reader", given, ["logits"], cancelled).await?;
        logits.truncate(config.model.length * config.model.vocabulary);
        Ok(logits)
    }
}

fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let most = f64::from(logits[likeliest(logits)]);
    let weights: Vec<f64> = logits.iter().map(|&x| ((f64::from(x) - most) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}
