//! What an opened model says of a text, with the attention that it was trained with and with another.

use super::Engine;
use super::device::Fault;
use super::inbox::Watch;
use super::opened::Walk;
use super::resident::Piece;
use super::subject::run_once;
use crate::gpu::Category;
use crate::graph::{Data, Graph, TensorType};
use crate::lab::opened::Opened;
use crate::lab::protocol::{Event, Guess};
use crate::lab::subject::{HIDDEN, Subject};
use crate::model::alone;
use crate::model::{Architecture, Mixer, ModelConfig};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Bytes of words, and of their logits, that a device holds at once.
const CHUNK_BYTES: usize = 16 << 20;
/// Guesses told of each position.
const GUESSES: usize = 5;

/// What an opened model was found to say of texts, so that looking at another layer of the same text does not ask again.
#[derive(Default)]
pub(super) struct Heard {
    ids: Vec<u32>,
    /// What was found with these attentions.
    losses: Vec<(Vec<Mixer>, f64)>,
    /// The text as it is asked about, with the attention that the model was trained with: where another begins in a later layer,
    /// what lies below is known.
    dense: Option<Walk>,
    guesses: Vec<Guess>,
}

/// What a model says of a text.
struct Said {
    /// Cross-entropy in nats of each position's target.
    losses: Vec<f64>,
    /// The likeliest tokens with their probabilities, the likeliest first.
    best: Vec<Vec<(u32, f64)>>,
}

impl Engine {
    /// Mean cross-entropy on a text with one attention in all layers or with one for each, as [`Subject::on_text`] asks for it; with
    /// full attention also what the model expects. Of a model that says no words, the cosine that
    /// [`Swapped`](crate::lab::protocol::Swapped) tells of. None where it takes too long here.
    pub(super) async fn opened_loss(
        &mut self,
        subject: &Rc<Subject>,
        ids: &[u32],
        attention: &[Mixer],
        watch: &Watch,
    ) -> Result<Option<f64>, Fault> {
        if self.subjects.heard.ids != ids {
            self.subjects.heard = Heard { ids: ids.to_vec(), ..Heard::default() };
        }
        let known = self.subjects.heard.losses.iter().find(|(other, _)| other == attention).map(|(_, loss)| *loss);
        let loss = match known {
            Some(loss) => Some(loss),
            None => self.ask(subject, ids, attention, watch).await?,
        };
        if let (None, Some(loss)) = (known, loss) {
            self.subjects.heard.losses.push((attention.to_vec(), loss));
        }
        if is_dense(attention) && loss.is_some() {
            self.emit(Event::Guesses { guesses: self.subjects.heard.guesses.clone() });
        }
        Ok(loss)
    }

    async fn ask(
        &mut self,
        subject: &Rc<Subject>,
        ids: &[u32],
        attention: &[Mixer],
        watch: &Watch,
    ) -> Result<Option<f64>, Fault> {
        let config = ModelConfig { attention: attention.into(), ..subject.config.clone() };
        let (n, d) = (ids.len(), config.d_model);
        let short = ModelConfig { length: n, ..config.clone() };
        let (is_decoder, says_words) = (config.architecture == Architecture::Decoder, subject.says_words());
        if short.check(1, u64::MAX).is_err() {
            return Ok(None);
        }
        let head = if says_words { 2 * (n * d * config.vocabulary) as u64 } else { 0 };
        if self.flops_of_layers(&config, config.layers, n) + head > self.device.most_flops() {
            return Ok(None);
        }
        let (mut shown, mut targets) = (ids.to_vec(), ids.to_vec());
        let asked: Vec<usize> = if is_decoder {
            targets.rotate_left(1);
            (0..n - 1).collect()
        } else if !says_words {
            vec![]
        } else {
            let Some(mask) = subject.reader.mask() else { return Ok(None) };
            let hidden: Vec<usize> = (HIDDEN / 2..n).step_by(HIDDEN).collect();
            hidden.iter().for_each(|&i| shown[i] = mask);
            hidden
        };
        if says_words && asked.is_empty() {
            return Ok(None);
        }
        let as_trained = is_dense(attention);
        let walk = match &self.subjects.heard.dense {
            Some(dense) => dense.up_to(&config, attention.iter().take_while(|mixer| mixer.is_full()).count()),
            None => {
                let goes_on = |walk: &mut Walk| as_trained && Rc::ptr_eq(&walk.subject, subject) && *walk.ids == shown;
                match self.subjects.walk.take_if(goes_on) {
                    Some(walk) => walk,
                    None => self.begin(subject, &config, &shown, watch).await?,
                }
            }
        };
        let walk = self.go(walk, config.layers, &|_| {}, watch).await?;
        if !says_words {
            self.tell_resident();
            let vector = |walk: &Walk| mean_row(&walk.states[config.layers], d);
            let dense = self.subjects.heard.dense.as_ref();
            let alike = if as_trained { Some(1.0) } else { dense.map(|dense| cosine(&vector(dense), &vector(&walk))) };
            if as_trained {
                self.subjects.walk = Some(walk.up_to(&config, config.layers));
                self.subjects.heard.dense = Some(walk);
            }
            return Ok(alike);
        }
        let said = self.expect(subject, walk.states[config.layers].to_vec(), &targets, watch).await;
        self.tell_resident();
        let said = said?;
        if as_trained {
            let guess = |&(token, share): &(u32, f64)| (subject.reader.label(token), share as f32);
            let guesses = asked.iter().map(|&at| Guess { at, likeliest: said.best[at].iter().map(guess).collect() });
            self.subjects.heard.guesses = guesses.collect();
            if is_decoder {
                self.subjects.walk = Some(walk.up_to(&config, config.layers));
            }
            self.subjects.heard.dense = Some(walk);
        }
        Ok(Some(asked.iter().map(|&i| said.losses[i]).sum::<f64>() / asked.len() as f64))
    }

    /// Goes through the words some at a time: their logits at all positions at once can be larger than a device's buffers.
    async fn expect(&self, subject: &Subject, mut x: Vec<f32>, targets: &[u32], watch: &Watch) -> Result<Said, Fault> {
        let (model, config) = (subject.opened.as_ref().expect("it is an opened model"), &subject.config);
        let (n, d) = (targets.len(), config.d_model);
        if let Some(last) = alone::last(config, n, &self.stored(model)) {
            x = self.through(model, last, x, watch).await?;
        }
        let mut rows = vec![Row::default(); n];
        // Whole vectors of words: a product of another size is up to two thirds slower.
        let most = (CHUNK_BYTES / (4 * d.max(n)) / 4 * 4).max(4);
        for from in (0..config.vocabulary).step_by(most) {
            let to = config.vocabulary.min(from + most);
            let logits = self.logits(model, &x, [n, d], from..to, watch).await?;
            let bias = config.says_words.then(|| model.numbers("words.bias", from..to));
            for (row, (logits, target)) in rows.iter_mut().zip(logits.chunks_exact(to - from).zip(targets)) {
                for (at, &logit) in logits.iter().enumerate() {
                    let logit = logit + bias.as_ref().map_or(0.0, |bias| bias[at]);
                    row.add((from + at) as u32, f64::from(logit), *target);
                }
            }
        }
        Ok(Said {
            losses: rows.iter().map(|row| row.most + row.sum.ln() - row.target).collect(),
            best: rows.iter().map(Row::best).collect(),
        })
    }

    /// The product of rows `[N, d]` with some of the words, `[N, words]`.
    async fn logits(
        &self,
        model: &Opened,
        x: &[f32],
        [n, d]: [usize; 2],
        words: Range<usize>,
        watch: &Watch,
    ) -> Result<Vec<f32>, Fault> {
        const TABLE: &str = "embedding.weight";
        let mut g = Graph::new();
        let h = g.input("x", TensorType::f32(&[n, d]), Category::Activations);
        let table = TensorType { dtype: (self.stored(model))(TABLE), shape: vec![words.len(), d] };
        let table = g.input("words", table, Category::Parameters);
        let logits = g.matmul_nt(h, table, 1.0);
        g.output("logits", logits);
        let range = words.start * d..words.end * d;
        let some = |name: &str, _: &TensorType| {
            (name == "words").then(|| Piece { weight: TABLE.to_owned(), range: range.clone() })
        };
        let (device, plan) = self.fitting(&g)?;
        let (prepared, here) = self.beside_resident(device, model, &g, &plan, &some).await?;
        let mut inputs = BTreeMap::from([("x".to_owned(), Data::Real(x.to_vec()))]);
        if here.is_empty() {
            inputs.insert("words".into(), Data::Real(model.numbers(TABLE, range.clone())));
        }
        Ok(run_once(prepared, inputs, &["logits"], watch).await?.swap_remove(0))
    }
}

/// The mean of rows of width `d`: what sentence models make of a text.
fn mean_row(rows: &[f32], d: usize) -> Vec<f64> {
    let mut mean = vec![0.0; d];
    for row in rows.chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) * d as f64 / rows.len() as f64);
    }
    mean
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Whether it is what opened models were trained with.
fn is_dense(attention: &[Mixer]) -> bool {
    attention.iter().all(Mixer::is_full)
}

/// Logits of one position, as they come.
#[derive(Clone)]
struct Row {
    most: f64,
    /// Of exponentials, as differences to `most`.
    sum: f64,
    target: f64,
    /// The largest logits, the largest first.
    best: Vec<(u32, f64)>,
}

impl Default for Row {
    fn default() -> Self {
        Self { most: f64::NEG_INFINITY, sum: 0.0, target: f64::NAN, best: vec![] }
    }
}

impl Row {
    fn add(&mut self, token: u32, logit: f64, target: u32) {
        if token == target {
            self.target = logit;
        }
        if logit > self.most {
            self.sum = self.sum * (self.most - logit).exp() + 1.0;
            self.most = logit;
        } else {
            self.sum += (logit - self.most).exp();
        }
        if self.best.len() < GUESSES || self.best.last().is_some_and(|(_, least)| logit > *least) {
            let at = self.best.partition_point(|(_, other)| *other >= logit);
            self.best.insert(at, (token, logit));
            self.best.truncate(GUESSES);
        }
    }

    /// With probabilities.
    fn best(&self) -> Vec<(u32, f64)> {
        self.best.iter().map(|&(token, logit)| (token, (logit - self.most).exp() / self.sum)).collect()
    }
}
