//! Trained models in the place Attention: fetched when they are first wanted, read up to the layer that is shown, and judged with
//! other attention than they were trained with.

use super::device::{Device, Fault};
use super::explore::Explored;
use super::heard::Heard;
use super::inbox::Watch;
use super::opened::Walk;
use super::prepared::Prepared;
use super::resident::Resident;
use super::{Engine, Look};
use crate::graph::plan::plan;
use crate::graph::{Data, Graph};
use crate::lab::experiment::{Experiment, WeightsFrom};
use crate::lab::opened::OpenedFacts;
use crate::lab::protocol::{Event, ModelFacts, SubjectFacts, Swapped, WhyDrawn};
use crate::lab::subject::{Exam, Subject};
use crate::lab::train::{RunConfig, Weights};
use crate::model::Mixer;
use crate::task::Qkv;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Files of the lab with a decoder and an encoder, trained on stories.
const DECODER: &str = "weights/story.safetensors";
const ENCODER: &str = "weights/story_mlm.safetensors";

/// Below so many operations the interpreter is done before a device has begun.
const FEW_FLOPS: u64 = 300_000_000;

/// Models that can be shown.
#[derive(Default)]
pub(super) struct Subjects {
    pub library: Option<Box<dyn Fn(&'static str)>>,
    /// What came of asking the library.
    shipped: BTreeMap<&'static str, Shipped>,
    /// What the visitor has opened.
    pub opened: Option<Rc<Subject>>,
    pub opened_facts: Option<OpenedFacts>,
    /// How far a text has come through it.
    pub walk: Option<Walk>,
    pub heard: Heard,
    /// Its weights on the device.
    pub resident: Resident,
    /// Losses with full attention on held-out sequences, by the model's name.
    full_losses: BTreeMap<String, f64>,
    /// What was read last.
    last: Option<Seen>,
}

impl Subjects {
    /// Forgets what was read last.
    pub fn forget(&mut self) {
        self.last = None;
        self.walk = None;
        self.heard = Heard::default();
    }
}

enum Shipped {
    Asked,
    Here(Rc<Subject>),
    Not(String),
}

/// A model, and what one of its layers makes of a text.
#[derive(Clone)]
pub(super) struct Seen {
    pub subject: Rc<Subject>,
    pub layer: usize,
    pub ids: Rc<Vec<u32>>,
    /// `[1, H, N, D]`
    pub qkv: Rc<Qkv>,
    /// Mean loss on the text with full attention, once it is known.
    text_loss: Rc<Cell<Option<f64>>>,
}

impl Engine {
    /// The experiment with the shapes of the model that it is to show, and that model's queries, keys and values; tells whose they
    /// are.
    pub(super) async fn see(&mut self, asked: &Experiment, watch: &Watch) -> Result<(Experiment, Option<Seen>), Fault> {
        let mut e = asked.clone();
        let mut facts = SubjectFacts {
            heads: e.heads,
            dim: e.dim,
            model: None,
            labels: None,
            counted: None,
            stand_ins: vec![],
            why: None,
        };
        let seen = match self.wanted(asked) {
            Ok(None) => None,
            Ok(Some(subject)) => match self.read_up_to(&subject, asked, &mut facts, watch).await? {
                Ok(seen) => Some(seen),
                Err(why) => {
                    facts.why = Some(why);
                    None
                }
            },
            Err(why) => {
                facts.why = Some(why);
                None
            }
        };
        if let Some(seen) = &seen {
            let config = &seen.subject.config;
            (e.heads, e.dim, e.batch, e.layer) = (config.heads, config.dim(), 1, seen.layer);
            e.head = e.head.min(e.heads - 1);
            // The lab's own models are chosen by what is asked; of an opened one it is known.
            e.causal = seen.subject.causal();
            (facts.heads, facts.dim) = (e.heads, e.dim);
            facts.model = Some(ModelFacts {
                name: seen.subject.name.clone(),
                causal: seen.subject.causal(),
                layers: config.layers,
                d_model: config.d_model,
                length: config.length,
                trained: seen.subject.trained,
                says_words: seen.subject.says_words(),
            });
        }
        self.emit(Event::Subject { subject: Box::new(facts) });
        self.tell_resident();
        Ok((e, seen))
    }

    /// A model of the lab's that is there.
    pub(super) fn shipped(&self, file: &str) -> Option<Rc<Subject>> {
        match self.subjects.shipped.get(file) {
            Some(Shipped::Here(subject)) => Some(subject.clone()),
            _ => None,
        }
    }

    /// A run that trains the model of a plate on with the plate's attention.
    pub(super) fn fine_tuned(&self, plate: usize, steps: u64) -> Option<RunConfig> {
        let (seen, mixer) = swap(self.explored.as_ref()?, plate)?;
        let weights = seen.subject.weights.as_ref()?;
        Some(weights.config.fine_tuned(mixer, &seen.subject.name, steps))
    }

    /// The model that an experiment asks for; none where it asks for none.
    fn wanted(&mut self, e: &Experiment) -> Result<Option<Rc<Subject>>, WhyDrawn> {
        if e.weights != WeightsFrom::Opened {
            self.subjects.resident.clear();
        } else if self.subjects.resident.set_precision(e.precision) {
            self.subjects.forget();
        }
        let file = match e.weights {
            WeightsFrom::Drawn => return Ok(None),
            WeightsFrom::Opened => {
                let not = || WhyDrawn::NotThere { reason: "no model is open".into() };
                return self.subjects.opened.clone().map(Some).ok_or_else(not);
            }
            WeightsFrom::Trained if e.causal => DECODER,
            WeightsFrom::Trained => ENCODER,
        };
        match self.subjects.shipped.get(file) {
            Some(Shipped::Here(subject)) => Ok(Some(subject.clone())),
            Some(Shipped::Asked) => Err(WhyDrawn::Coming),
            Some(Shipped::Not(reason)) => Err(WhyDrawn::NotThere { reason: reason.clone() }),
            None => {
                let Some(library) = &self.subjects.library else { return Ok(None) };
                self.subjects.shipped.insert(file, Shipped::Asked);
                library(file);
                Err(WhyDrawn::Coming)
            }
        }
    }

    /// Takes what the library has brought, and shows it where it is waited for.
    pub(super) async fn receive(&mut self, watch: &Watch) -> Result<(), Fault> {
        for (file, bytes) in self.inbox.arrived() {
            let subject = bytes.and_then(|bytes| {
                let weights = Weights::from_bytes(&bytes).map_err(|e| e.to_string())?;
                Subject::of_weights(file, weights).map_err(|e| e.to_string())
            });
            let shipped = match subject {
                Ok(subject) => Shipped::Here(Rc::new(subject)),
                Err(reason) => Shipped::Not(reason),
            };
            self.subjects.shipped.insert(file, shipped);
        }
        match &self.explored {
            Some(explored) if explored.seen.is_none() && explored.asked.weights == WeightsFrom::Trained => {
                let asked = explored.asked.clone();
                self.explore(asked, watch).await
            }
            _ => Ok(()),
        }
    }

    /// Queries, keys and values of the layer that is shown, on the experiment's text.
    async fn read_up_to(
        &mut self,
        subject: &Rc<Subject>,
        e: &Experiment,
        facts: &mut SubjectFacts,
        watch: &Watch,
    ) -> Result<Result<Seen, WhyDrawn>, Fault> {
        let reading = match subject.read(e.text.as_deref(), e.split, e.n) {
            Ok(reading) => reading,
            Err(unread) => return Ok(Err(WhyDrawn::Unread(unread))),
        };
        (facts.labels, facts.stand_ins, facts.counted) = (reading.labels, reading.stand_ins, reading.counted);
        let layer = e.layer.min(subject.config.layers - 1);
        let of_last =
            |last: &&Seen| Rc::ptr_eq(&last.subject, subject) && last.layer == layer && *last.ids == reading.ids;
        if let Some(last) = self.subjects.last.as_ref().filter(of_last) {
            return Ok(Ok(last.clone()));
        }
        let qkv = if subject.opened.is_some() {
            self.walk_to(subject, &reading.ids, layer, watch).await?
        } else {
            self.layer_of(subject, &reading.ids, layer, watch).await?
        };
        let Some(qkv) = qkv else { return Ok(Err(WhyDrawn::TooMuch)) };
        let seen = Seen {
            subject: subject.clone(),
            layer,
            ids: Rc::new(reading.ids),
            qkv: Rc::new(qkv),
            text_loss: Rc::default(),
        };
        self.subjects.last = Some(seen.clone());
        Ok(Ok(seen))
    }

    /// Queries, keys and values of a layer of a model that is small enough to be run as a whole; None where it takes more than is
    /// tried here.
    async fn layer_of(
        &self,
        subject: &Subject,
        ids: &[u32],
        layer: usize,
        watch: &Watch,
    ) -> Result<Option<Qkv>, Fault> {
        let graph = subject.layer(layer, ids.len());
        if flops(&graph) > self.device.most_flops() / 4 {
            return Ok(None);
        }
        let mut inputs = subject.inputs.clone();
        inputs.insert("tokens".into(), Data::Index(ids.to_vec()));
        let outputs = self.evaluate(graph, inputs, &["q", "k", "v"], watch).await?;
        Ok(Some(qkv_of(outputs)))
    }

    /// Outputs of a graph that is run once.
    pub(super) async fn evaluate(
        &self,
        graph: Graph,
        inputs: BTreeMap<String, Data<f32>>,
        names: &[&str],
        watch: &Watch,
    ) -> Result<Vec<Vec<f32>>, Fault> {
        let device = self.device_for(&graph);
        let plan = plan(&graph, &device.context());
        let prepared = Prepared::of_graph(device, graph, plan).await?;
        run_once(prepared, inputs, names, watch).await
    }

    /// Where a graph that is run once is run.
    pub(super) fn device_for(&self, graph: &Graph) -> &Device {
        if flops(graph) < FEW_FLOPS { &Device::Cpu } else { &self.device }
    }

    /// Says what a plate's variant does to the model that is shown.
    pub(super) async fn judge_plate(&mut self, plate: usize, watch: &Watch) -> Result<(), Fault> {
        let Some((seen, mixer)) = self.explored.as_ref().and_then(|explored| swap(explored, plate)) else {
            return Ok(());
        };
        let (full, mixer) = ([Mixer::of("full")], [mixer]);
        let subject = &seen.subject;
        let mut swapped = Swapped::default();
        let as_trained = match self.subjects.full_losses.get(&subject.name) {
            Some(loss) => Some(*loss),
            None => self.loss(subject.on_held(&full), watch).await?,
        };
        if let Some(before) = as_trained {
            self.subjects.full_losses.insert(subject.name.clone(), before);
            swapped.held = self.loss(subject.on_held(&mixer), watch).await?.map(|after| [before, after]);
        }
        let as_trained = match seen.text_loss.get() {
            // What an opened model expects is told again wherever it is shown anew; it is known by then.
            Some(loss) if seen.subject.opened.is_none() => Some(loss),
            _ => self.loss_on_text(&seen, &full, watch).await?,
        };
        if let Some(before) = as_trained {
            seen.text_loss.set(Some(before));
            swapped.text = self.loss_on_text(&seen, &mixer, watch).await?.map(|after| [before, after]);
        }
        if let Some(shown) = self.explored.as_mut().and_then(|e| e.plates[plate].as_mut()) {
            shown.numbers.swapped = Some(swapped);
            let (variant, numbers) = (shown.variant.id.into(), shown.numbers.clone());
            self.emit(Event::Prepared { plate, variant, numbers });
        }
        Ok(())
    }

    /// Says what a plate's variant does to the model on the text in the next layer alone; others follow.
    pub(super) async fn judge_layer(&mut self, plate: usize, watch: &Watch) -> Result<(), Fault> {
        let Some((seen, mixer)) = self.explored.as_ref().and_then(|explored| swap(explored, plate)) else {
            return Ok(());
        };
        let done = |engine: &mut Self| Some(engine.explored.as_mut()?.plates[plate].as_mut()?.numbers.layers.len());
        let count = seen.subject.config.layers;
        let Some(layer) = done(self).filter(|layer| *layer < count) else { return Ok(()) };
        let mut attention = vec![Mixer::of("full"); count];
        attention[layer] = mixer;
        let Some(loss) = self.loss_on_text(&seen, &attention, watch).await? else { return Ok(()) };
        if let Some(shown) = self.explored.as_mut().and_then(|e| e.plates[plate].as_mut()) {
            shown.numbers.layers.push(loss);
            let (variant, numbers) = (shown.variant.id.into(), shown.numbers.clone());
            self.emit(Event::Prepared { plate, variant, numbers });
            self.looks.insert(0, (Look::Layers, plate));
        }
        Ok(())
    }

    /// Mean loss on the text with one attention in all layers, or with one for each; see [`Swapped`] for a model that says no words.
    async fn loss_on_text(&mut self, seen: &Seen, attention: &[Mixer], watch: &Watch) -> Result<Option<f64>, Fault> {
        if seen.subject.opened.is_some() {
            return self.opened_loss(&seen.subject, &seen.ids, attention, watch).await;
        }
        self.loss(seen.subject.on_text(&seen.ids, attention), watch).await
    }

    /// Mean loss; none where there is nothing to judge, or it takes too long here.
    async fn loss(&self, exam: Option<Exam>, watch: &Watch) -> Result<Option<f64>, Fault> {
        let Some(Exam { graph, inputs, count }) = exam else { return Ok(None) };
        if flops(&graph) > self.device.most_flops() / 10 {
            return Ok(None);
        }
        let losses = self.evaluate(graph, inputs, &["losses"], watch).await?;
        Ok(Some(losses[0].iter().map(|&x| f64::from(x)).sum::<f64>() / f64::from(count)))
    }
}

/// Outputs of a graph that is ready, in the order of their names.
pub(super) async fn run_once(
    mut prepared: Prepared,
    inputs: BTreeMap<String, Data<f32>>,
    names: &[&str],
    watch: &Watch,
) -> Result<Vec<Vec<f32>>, Fault> {
    prepared.write_values(inputs)?;
    prepared.run(watch).await?;
    let mut outputs = Vec::new();
    for name in names {
        outputs.push(prepared.read(name).await?);
    }
    Ok(outputs)
}

/// Outputs `q`, `k` and `v`.
pub(super) fn qkv_of(outputs: Vec<Vec<f32>>) -> Qkv {
    let [q, k, v] = outputs.try_into().expect("three outputs");
    Qkv { q, k, v }
}

/// The model that is shown, and the variant of a plate with the parameters that it has there.
fn swap(explored: &Explored, plate: usize) -> Option<(Seen, Mixer)> {
    let shown = explored.plates.get(plate)?.as_ref()?;
    let mut params = shown.setup.params.clone();
    for param in shown.variant.params {
        params.0.entry(param.name.into()).or_insert_with(|| param.default(explored.experiment.n));
    }
    Some((explored.seen.clone()?, Mixer { variant: shown.variant.id.into(), params }))
}

/// Operations of what a graph's outputs depend on.
pub(super) fn flops(g: &Graph) -> u64 {
    let needed = g.ancestors(g.outputs().iter().map(|(_, node)| *node));
    let entries = g.entries().iter().zip(needed).filter(|(_, needed)| *needed);
    entries.map(|(entry, _)| g.entry_cost(entry).flops).sum()
}
