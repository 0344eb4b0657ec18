//! Models that the visitor opens: read part by part, and run layer by layer, so that a device need hold the weights of one layer
//! only, and of tables no more than is looked at.

use super::Engine;
use super::device::{Device, Fault};
use super::inbox::Watch;
use super::pause::Pacer;
use super::prepared::Prepared;
use super::resident::{Here, Piece};
use super::subject::{flops, qkv_of, run_once};
use crate::graph::plan::{Plan, plan};
use crate::graph::{Dtype, Graph, TensorType};
use crate::lab::experiment::WeightsFrom;
use crate::lab::opened::{DRAWN_FROM, Opened, OpenedFacts};
use crate::lab::protocol::{Command, Event};
use crate::lab::subject::Subject;
use crate::model::ModelConfig;
use crate::model::alone::{self, Alone, Wanted};
use crate::reading::{Numbers, Opener, Source};
use crate::task::Qkv;
use std::rc::Rc;

/// Above so many operations it is told how far a text is.
const LONG_FLOPS: u64 = 1_000_000_000;
/// A text on its way through a model: what each layer reads, as far as it has come.
pub(super) struct Walk {
    pub subject: Rc<Subject>,
    /// The model as it is run.
    config: ModelConfig,
    pub ids: Rc<Vec<u32>>,
    /// `[N, d]` each; of the last layer also what it gives.
    pub states: Vec<Rc<Vec<f32>>>,
}

impl Walk {
    /// The same text in front of a layer, to go on with the attention of `config`.
    pub fn up_to(&self, config: &ModelConfig, layer: usize) -> Self {
        let states = self.states.iter().take(layer + 1).cloned().collect();
        Self { subject: self.subject.clone(), config: config.clone(), ids: self.ids.clone(), states }
    }
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
        let x = walk.states[layer].to_vec();
        self.subjects.walk = Some(walk);
        Ok(Some(qkv_of(self.part(model, inside, x, &["q", "k", "v"], watch).await?)))
    }

    /// A text in front of the first layer.
    pub(super) async fn begin(
        &self,
        subject: &Rc<Subject>,
        config: &ModelConfig,
        ids: &[u32],
        watch: &Watch,
    ) -> Result<Walk, Fault> {
        let model = subject.opened.as_ref().expect("it is an opened model");
        let mut x = model.embedded(ids, config.d_model);
        if let Some(first) = alone::first(config, ids.len(), &self.stored(model)) {
            x = self.through(model, first, x, watch).await?;
        }
        let (subject, ids) = (subject.clone(), Rc::new(ids.to_vec()));
        Ok(Walk { subject, config: config.clone(), ids, states: vec![Rc::new(x)] })
    }

    /// Goes on until `layer` can be read.
    pub(super) async fn go(
        &self,
        mut walk: Walk,
        layer: usize,
        tell: &dyn Fn(usize),
        watch: &Watch,
    ) -> Result<Walk, Fault> {
        let model = walk.subject.opened.as_ref().expect("it is an opened model");
        while walk.states.len() <= layer {
            let at = walk.states.len() - 1;
            tell(at);
            let stored = self.stored(model);
            let part = alone::layer(&walk.config, at, walk.ids.len(), DRAWN_FROM, Wanted::Output, &stored);
            let y = self.through(model, part, walk.states[at].to_vec(), watch).await?;
            walk.states.push(Rc::new(y));
        }
        Ok(walk)
    }

    /// Outputs of a part of a model, with its weights from where they are.
    async fn part(
        &self,
        model: &Opened,
        part: Alone,
        x: Vec<f32>,
        names: &[&str],
        watch: &Watch,
    ) -> Result<Vec<Vec<f32>>, Fault> {
        let weight = |name: &str, ty: &TensorType| {
            model.has(name).then(|| Piece { weight: name.to_owned(), range: 0..ty.len() })
        };
        let (device, plan) = self.fitting(&part.graph)?;
        let (prepared, here) = self.beside_resident(device, model, &part.graph, &plan, &weight).await?;
        let there = |name: &str| plan.inputs.get(name).is_some_and(|(id, _)| here.contains_key(id));
        run_once(prepared, model.inputs(&part, x, &there), names, watch).await
    }

    /// A graph that is ready to run, with those of its weights that stay on the device.
    pub(super) async fn beside_resident(
        &self,
        device: &Device,
        model: &Opened,
        graph: &Graph,
        plan: &Plan,
        piece: &dyn Fn(&str, &TensorType) -> Option<Piece>,
    ) -> Result<(Prepared, Here), Fault> {
        let mut here = self.subjects.resident.buffers(device, model, plan, piece).await?;
        loop {
            match Prepared::sharing(device, graph.clone(), plan.clone(), &here).await {
                // There is no room for what is computed beside what stays.
                Err(Fault::Refused { .. }) if self.subjects.resident.give_up() => here = Here::new(),
                prepared => return Ok((prepared?, here)),
            }
        }
    }

    /// The only output of a part, `y`.
    pub(super) async fn through(
        &self,
        model: &Opened,
        part: Alone,
        x: Vec<f32>,
        watch: &Watch,
    ) -> Result<Vec<f32>, Fault> {
        Ok(self.part(model, part, x, &["y"], watch).await?.swap_remove(0))
    }

    /// Where a graph runs, and its plan there, if none of its buffers is too large.
    pub(super) fn fitting(&self, graph: &Graph) -> Result<(&Device, Plan), Fault> {
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
    pub(super) fn stored<'a>(&'a self, model: &'a Opened) -> impl Fn(&str) -> Dtype + 'a {
        |name| self.subjects.resident.dtype(model, name)
    }

    /// Gives the device's memory of an opened model to what another place wants to run; it comes back when it is shown again.
    pub(super) fn give_resident_back(&self) {
        self.subjects.resident.clear();
        self.tell_resident();
    }

    pub(super) fn tell_resident(&self) {
        if let Some(bytes) = self.subjects.resident.news() {
            self.emit(Event::Resident { bytes });
        }
    }

    pub(super) fn flops_of_layers(&self, config: &ModelConfig, layers: usize, n: usize) -> u64 {
        layers as u64 * flops(&alone::layer(config, 0, n, DRAWN_FROM, Wanted::Output, &|_| Dtype::F32).graph)
    }
}
