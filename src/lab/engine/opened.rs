//! Models that the visitor opens: read part by part, and run layer by layer, so that a device need hold the weights of one layer
//! only, and of tables no more than is looked at.

use super::Engine;
use super::device::{Device, Fault};
use super::inbox::Watch;
use super::pause::Pacer;
use super::prepared::Prepared;
use super::resident::{Here, Piece};
use super::subject::flops;
use crate::gpu::Category;
use crate::graph::plan::{Plan, plan};
use crate::graph::{Data, Dtype, Graph, TensorType};
use crate::lab::experiment::WeightsFrom;
use crate::lab::opened::{DRAWN_FROM, Opened, OpenedFacts};
use crate::lab::protocol::{Command, Event, Guess};
use crate::lab::subject::{HIDDEN, Subject};
use crate::model::alone::{self, Alone, Wanted};
use crate::model::{Architecture, Mixer, ModelConfig};
use crate::reading::{Numbers, Opener, Source};
use crate::task::Qkv;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Bytes of words, and of their logits, that a device holds at once.
const CHUNK_BYTES: usize = 16 << 20;
/// Above so many operations it is told how far a text is.
const LONG_FLOPS: u64 = 1_000_000_000;
/// Guesses told of each position.
const GUESSES: usize = 5;

/// A text on its way through a model: what each layer reads, as far as it has come.
pub(super) struct Walk {
    subject: Rc<Subject>,
    /// The model as it is run.
    config: ModelConfig,
    pub ids: Rc<Vec<u32>>,
    /// `[N, d]` each; of the last layer also what it gives.
    states: Vec<Vec<f32>>,
}

/// What an opened model was found to say of texts, so that looking at another layer of the same text does not ask again.
#[derive(Default)]
pub(super) struct Heard {
    ids: Vec<u32>,
    /// Mean losses with an attention in all layers.
    losses: Vec<(Mixer, f64)>,
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
    /// Reads the files that were handed over, and shows the model from then on. What is open stays open where they are not taken.
    pub(super) async fn open_model(&mut self, watch: &Watch) -> Result<(), Fault> {
        let Some(files) = self.inbox.files() else { return Ok(()) };
        let refused = match self.read_model(files, watch).await {
            Ok(subject) => {
                self.subjects.opened = subject.map(Rc::new);
                None
            }
            Err(Fault::Refused { reason, .. }) => Some(reason),
            Err(Fault::Stopped) => None,
            Err(other) => return Err(other),
        };
        self.tell_opened(refused);
        self.show_opened().await
    }

    /// Shows what is open, where it is what is asked for.
    async fn show_opened(&mut self) -> Result<(), Fault> {
        let asked = self.explored.as_ref().map(|explored| &explored.asked);
        let Some(asked) = asked.filter(|asked| asked.weights == WeightsFrom::Opened).cloned() else { return Ok(()) };
        let watch = self.inbox.watch(&Command::Explore { experiment: Box::new(asked.clone()) });
        self.explore(asked, &watch).await
    }

    /// Forgets the model that is open, and its memory.
    pub(super) async fn close_model(&mut self) -> Result<(), Fault> {
        self.close_quietly();
        self.tell_opened(None);
        self.show_opened().await
    }

    fn tell_opened(&self, refused: Option<String>) {
        self.emit(Event::Opened { model: self.subjects.opened_facts.clone().map(Box::new), refused });
    }

    async fn read_model(&mut self, files: Vec<Source>, watch: &Watch) -> Result<Option<Subject>, Fault> {
        self.emit(Event::Opening { done: 0, total: 0 });
        let unfit = |unfit: crate::reading::Unfit| Fault::refused(unfit.to_string());
        let mut opener = Opener::open(files).await.map_err(unfit)?;
        let facts = opener.facts.clone();
        let most = Device::Cpu.total_bytes();
        if facts.bytes > most {
            let mib = |bytes: u64| bytes >> 20;
            return Err(Fault::Refused {
                reason: format!(
                    "{}: its weights take {} MiB; here at most {} MiB are held. The nearest that fits is the same model in half \
                     precision, or a smaller one of its kind",
                    facts.name,
                    mib(facts.bytes),
                    mib(most)
                ),
                nearest: None,
            });
        }
        // The old one goes when its place is needed, and stays where nothing comes of the new one's small files.
        self.close_quietly();
        let total: usize = facts.weights.iter().map(|weight| weight.shape.iter().product::<usize>()).sum();
        let mut weights = Vec::new();
        for weight in &facts.weights {
            let room = Numbers::with_room(weight.shape.iter().product(), weight.half);
            weights.push(room.ok_or_else(|| Fault::refused(format!("{}: there is no memory for it", facts.name)))?);
        }
        let mut pacer = Pacer::default();
        while let Some(part) = opener.next().await.map_err(unfit)? {
            weights[part.weight].extend(part.numbers);
            let done = weights.iter().map(Numbers::len).sum();
            self.emit(Event::Opening { done, total });
            pacer.pause().await;
            if watch.stop() {
                return Err(Fault::Stopped);
            }
        }
        self.subjects.opened_facts = Some(OpenedFacts::of(&facts));
        Ok(Some(Opened::subject(&facts, weights, opener.tokenizer)))
    }

    fn close_quietly(&mut self) {
        self.subjects.opened = None;
        self.subjects.opened_facts = None;
        self.subjects.resident.clear();
        self.subjects.forget();
    }

    /// Queries, keys and values of a layer on a text. None where that takes more than is tried here.
    pub(super) async fn walk_to(
        &mut self,
        subject: &Rc<Subject>,
        ids: &[u32],
        layer: usize,
        watch: &Watch,
    ) -> Result<Option<Qkv>, Fault> {
        let Some(model) = &subject.opened else { return Ok(None) };
        if self.flops_of_layers(&subject.config, layer + 1, ids.len()) > self.device.most_flops() {
            return Ok(None);
        }
        let same = |walk: &Walk| Rc::ptr_eq(&walk.subject, subject) && *walk.ids == ids;
        let walk = match self.subjects.walk.take().filter(same) {
            Some(walk) => walk,
            None => self.begin(subject, &subject.config, ids, watch).await?,
        };
        let waits = self.flops_of_layers(&subject.config, layer, ids.len()) > LONG_FLOPS;
        let tell = |done: usize| {
            if waits {
                self.emit(Event::Progress { what: subject.name.clone(), done, total: layer + 1 });
            }
        };
        let walk = self.go(walk, layer, &tell, watch).await;
        tell(layer + 1);
        let walk = walk?;
        let inside = alone::layer(&subject.config, layer, ids.len(), DRAWN_FROM, Wanted::Inside, &self.stored(model));
        let x = walk.states[layer].clone();
        self.subjects.walk = Some(walk);
        let [q, k, v] = self.part(model, inside, x, ["q", "k", "v"], watch).await?;
        Ok(Some(Qkv { q, k, v }))
    }

    /// A text in front of the first layer.
    async fn begin(
        &self,
        subject: &Rc<Subject>,
        config: &ModelConfig,
        ids: &[u32],
        watch: &Watch,
    ) -> Result<Walk, Fault> {
        let model = subject.opened.as_ref().expect("it is an opened model");
        let mut x = model.embedded(ids, config.d_model);
        if let Some(first) = alone::first(config, ids.len(), &self.stored(model)) {
            [x] = self.part(model, first, x, ["y"], watch).await?;
        }
        let (subject, ids) = (subject.clone(), Rc::new(ids.to_vec()));
        Ok(Walk { subject, config: config.clone(), ids, states: vec![x] })
    }

    /// Goes on until `layer` can be read.
    async fn go(&self, mut walk: Walk, layer: usize, tell: &dyn Fn(usize), watch: &Watch) -> Result<Walk, Fault> {
        let model = walk.subject.opened.as_ref().expect("it is an opened model");
        while walk.states.len() <= layer {
            let at = walk.states.len() - 1;
            tell(at);
            let stored = self.stored(model);
            let part = alone::layer(&walk.config, at, walk.ids.len(), DRAWN_FROM, Wanted::Output, &stored);
            let [y] = self.part(model, part, walk.states[at].clone(), ["y"], watch).await?;
            walk.states.push(y);
        }
        Ok(walk)
    }

    /// Outputs of a part of a model, with its weights from where they are.
    async fn part<const K: usize>(
        &self,
        model: &Opened,
        part: Alone,
        x: Vec<f32>,
        names: [&str; K],
        watch: &Watch,
    ) -> Result<[Vec<f32>; K], Fault> {
        let weight = |name, ty: &TensorType| model.has(name).then(|| Piece { weight: name, range: 0..ty.len() });
        let (device, planned) = self.fitting(&part.graph)?;
        let here = self.subjects.resident.buffers(device, model, &planned, weight).await?;
        let inputs = |here: &Here| {
            let there = |name: &str| planned.inputs.get(name).is_some_and(|(id, _)| here.contains_key(id));
            model.inputs(&part, x.clone(), &there)
        };
        let given = inputs(&here);
        match Prepared::sharing(device, part.graph.clone(), planned.clone(), &here).await {
            // There is no room for what is computed beside what stays.
            Err(Fault::Refused { .. }) if self.subjects.resident.give_up() => {
                drop(here);
                let prepared = Prepared::of_graph(device, part.graph.clone(), planned.clone()).await?;
                Self::run_once(prepared, inputs(&Here::new()), names, watch).await
            }
            prepared => Self::run_once(prepared?, given, names, watch).await,
        }
    }

    /// Where a graph runs, and its plan there, if none of its buffers is too large.
    fn fitting(&self, graph: &Graph) -> Result<(&Device, Plan), Fault> {
        let device = self.device_for(graph);
        let plan = plan(graph, &device.context());
        let most = plan.program.buffers.iter().map(|b| b.bytes).max().unwrap_or(0);
        if most > device.tensor_bytes() {
            return Err(Fault::refused(format!(
                "a layer of the model needs one buffer of {} MiB; this device takes {} MiB",
                most >> 20,
                device.tensor_bytes() >> 20
            )));
        }
        Ok((device, plan))
    }

    /// How the device holds the matrices of products.
    fn stored<'a>(&'a self, model: &'a Opened) -> impl Fn(&str) -> Dtype + 'a {
        |name| self.subjects.resident.dtype(model, name)
    }

    pub(super) fn tell_resident(&self) {
        if let Some(bytes) = self.subjects.resident.news() {
            self.emit(Event::Resident { bytes });
        }
    }

    /// Mean cross-entropy on a text with another attention in all layers, as [`Subject::on_text`] asks for it; with full attention
    /// also what the model expects. None where it says no words, or it takes too long here.
    pub(super) async fn opened_loss(
        &mut self,
        subject: &Rc<Subject>,
        ids: &[u32],
        mixer: &Mixer,
        watch: &Watch,
    ) -> Result<Option<f64>, Fault> {
        if self.subjects.heard.ids != ids {
            self.subjects.heard = Heard { ids: ids.to_vec(), ..Heard::default() };
        }
        let known = self.subjects.heard.losses.iter().find(|(other, _)| other == mixer).map(|(_, loss)| *loss);
        let loss = match known {
            Some(loss) => Some(loss),
            None => self.ask(subject, ids, mixer, watch).await?,
        };
        if let (None, Some(loss)) = (known, loss) {
            self.subjects.heard.losses.push((mixer.clone(), loss));
        }
        if *mixer == Mixer::of("full") && loss.is_some() {
            self.emit(Event::Guesses { guesses: self.subjects.heard.guesses.clone() });
        }
        Ok(loss)
    }

    async fn ask(
        &mut self,
        subject: &Rc<Subject>,
        ids: &[u32],
        mixer: &Mixer,
        watch: &Watch,
    ) -> Result<Option<f64>, Fault> {
        let config = ModelConfig { attention: vec![mixer.clone()], ..subject.config.clone() };
        let (n, d) = (ids.len(), config.d_model);
        let short = ModelConfig { length: n, ..config.clone() };
        let is_decoder = config.architecture == Architecture::Decoder;
        if !(is_decoder || config.says_words) || short.check(1, u64::MAX).is_err() {
            return Ok(None);
        }
        let head = 2 * (n * d * config.vocabulary) as u64;
        if self.flops_of_layers(&config, config.layers, n) + head > self.device.most_flops() {
            return Ok(None);
        }
        let (mut shown, mut targets) = (ids.to_vec(), ids.to_vec());
        let asked: Vec<usize> = if is_decoder {
            targets.rotate_left(1);
            (0..n - 1).collect()
        } else {
            let Some(mask) = subject.reader.mask() else { return Ok(None) };
            let hidden: Vec<usize> = (HIDDEN / 2..n).step_by(HIDDEN).collect();
            hidden.iter().for_each(|&i| shown[i] = mask);
            hidden
        };
        if asked.is_empty() {
            return Ok(None);
        }
        let as_trained = *mixer == Mixer::of("full");
        let goes_on = |walk: &mut Walk| as_trained && Rc::ptr_eq(&walk.subject, subject) && *walk.ids == shown;
        let kept = self.subjects.walk.take_if(goes_on);
        let walk = match kept {
            Some(walk) => walk,
            None => self.begin(subject, &config, &shown, watch).await?,
        };
        let walk = self.go(walk, config.layers, &|_| {}, watch).await?;
        let said = self.expect(subject, walk.states[config.layers].clone(), &targets, watch).await;
        self.tell_resident();
        let said = said?;
        if as_trained && is_decoder {
            self.subjects.walk = Some(walk);
        }
        if as_trained {
            let guess = |&(token, share): &(u32, f64)| (subject.reader.label(token), share as f32);
            let guesses = asked.iter().map(|&at| Guess { at, likeliest: said.best[at].iter().map(guess).collect() });
            self.subjects.heard.guesses = guesses.collect();
        }
        Ok(Some(asked.iter().map(|&i| said.losses[i]).sum::<f64>() / asked.len() as f64))
    }

    /// Goes through the words some at a time: their logits at all positions at once can be larger than a device's buffers.
    async fn expect(&self, subject: &Subject, mut x: Vec<f32>, targets: &[u32], watch: &Watch) -> Result<Said, Fault> {
        let (model, config) = (subject.opened.as_ref().expect("it is an opened model"), &subject.config);
        let (n, d) = (targets.len(), config.d_model);
        if let Some(last) = alone::last(config, n, &self.stored(model)) {
            [x] = self.part(model, last, x, ["y"], watch).await?;
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
        let some = |name, _: &TensorType| (name == "words").then(|| Piece { weight: TABLE, range: range.clone() });
        let (device, plan) = self.fitting(&g)?;
        let here = self.subjects.resident.buffers(device, model, &plan, some).await?;
        let mut inputs = BTreeMap::from([("x".to_owned(), Data::Real(x.to_vec()))]);
        if here.is_empty() {
            inputs.insert("words".into(), Data::Real(model.numbers(TABLE, range.clone())));
        }
        let prepared = Prepared::sharing(device, g, plan, &here).await?;
        let [logits] = Self::run_once(prepared, inputs, ["logits"], watch).await?;
        Ok(logits)
    }

    fn flops_of_layers(&self, config: &ModelConfig, layers: usize, n: usize) -> u64 {
        layers as u64 * flops(&alone::layer(config, 0, n, DRAWN_FROM, Wanted::Output, &|_| Dtype::F32).graph)
    }
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
