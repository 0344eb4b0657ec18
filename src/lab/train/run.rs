//! A training run, driven step by step.

use super::machine::{Machine, Values};
use super::{Checkpoint, Error, RunConfig, Weights};
use crate::gpu::Gpu;
use crate::graph::plan::Plan;
use crate::graph::{Data, Graph, Kind};
use crate::model::optimiser::NUMBERS;
use crate::model::{Architecture, ConfigError, ModelConfig, Parameter, judgement, parameters, training_step};
use crate::random;
use crate::sort::IntoMap;
use crate::task::{Batch, Part, Score, Task};
use std::collections::BTreeMap;

/// Bytes of one tensor where the CPU interpreter runs.
const HOST_TENSOR_BYTES: u64 = 1 << 31;

/// A model in training.
pub struct Run {
    pub(super) config: RunConfig,
    pub(super) task: Box<dyn Task>,
    pub(super) parameters: Vec<Parameter>,
    /// Shapes of weights and memories by name: what a checkpoint holds.
    pub(super) state: BTreeMap<String, Vec<usize>>,
    pub(super) machine: Machine,
    pub(super) step: u64,
    flops: u64,
    /// Trained weights that it begins with; others are drawn.
    begins: Values,
}

/// What the last step gave.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Reading {
    /// Steps done.
    pub step: u64,
    /// Mean cross-entropy of the judged positions of its batch, in nats, before the update.
    pub loss: f32,
    /// Norm of the gradient before clipping.
    pub norm: f32,
    /// The learning rate.
    pub rate: f64,
}

/// What differs between a model and the weights that it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Weights of the model that it was not given: drawn from the seed.
    pub begun: Vec<String>,
    /// Weights that the model does not have.
    pub unused: Vec<String>,
}

/// How well the model does on sequences that it does not learn from.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Evaluation {
    pub step: u64,
    /// Mean cross-entropy of judged positions, in nats.
    pub loss: f64,
    pub score: Score,
}

impl Run {
    /// A run at its beginning, on a device or, without one, on the CPU interpreter.
    ///
    /// # Errors
    /// What the configuration asks for and is not taken; what the device can't.
    pub async fn new(config: &RunConfig, gpu: Option<&Gpu>) -> Result<Self, Error> {
        if let Some(name) = &config.weights {
            let takes = "nothing, or trained weights beside the configuration";
            return Err(ConfigError::new("weights", format!("{name}, which is not at hand"), takes).into());
        }
        let mut run = Self::made(config, gpu).await?;
        run.restart()?;
        Ok(run)
    }

    /// Brings the run back to its beginning.
    ///
    /// # Errors
    /// The device's.
    pub fn restart(&mut self) -> Result<(), Error> {
        let state = self.beginning();
        self.machine.load(state)?;
        self.step = 0;
        Ok(())
    }

    /// A run at its beginning with trained weights. Where `config` has another attention than the weights were trained with,
    /// weights that it has and they have not begin as in [`Run::new`], and those that it has not are left out; which, is said.
    ///
    /// # Errors
    /// As [`Run::new`], and when a weight of both has another shape, or there is none of both.
    pub async fn from_weights(
        config: &RunConfig,
        weights: &Weights,
        gpu: Option<&Gpu>,
    ) -> Result<(Self, Exchange), Error> {
        let mut run = Self::made(config, gpu).await?;
        let mut exchange = Exchange::default();
        for parameter in &run.parameters {
            let Some((shape, data)) = weights.tensors.get(&parameter.name) else {
                exchange.begun.push(parameter.name.clone());
                continue;
            };
            if *shape != parameter.shape {
                let what = format!("tensor `{}` is {shape:?}; it takes {:?}", parameter.name, parameter.shape);
                return Err(Error::Checkpoint(what));
            }
            run.begins.insert(parameter.name.clone(), Data::Real(data.clone()));
        }
        if exchange.begun.len() == run.parameters.len() {
            return Err(Error::Checkpoint("no weight of the configuration's model is in it".into()));
        }
        exchange.unused = weights.tensors.keys().filter(|&name| !run.state.contains_key(name)).cloned().collect();
        run.restart()?;
        Ok((run, exchange))
    }

    /// First values of weights, and memories of nothing.
    fn beginning(&self) -> Values {
        let zeros = |shape: &Vec<usize>| Data::Real(vec![0.0; shape.iter().product()]);
        let mut state: Values = self.state.iter().map(|(name, shape)| (name.clone(), zeros(shape))).into_map();
        state.extend(self.parameters.iter().map(|p| (p.name.clone(), Data::Real(p.draw(self.config.seed)))));
        state.extend(self.begins.clone());
        state
    }

    /// A run that goes on where a checkpoint was taken. `config` may differ in everything but the model's tensors; with the
    /// checkpoint's own configuration, losses are those of a run that never stopped.
    ///
    /// # Errors
    /// As [`Run::new`], and when tensors are missing, unknown or of another shape.
    pub async fn resume(config: &RunConfig, checkpoint: &Checkpoint, gpu: Option<&Gpu>) -> Result<Self, Error> {
        let mut run = Self::made(config, gpu).await?;
        let wrong = |what: String| Err(Error::Checkpoint(what));
        if let Some(name) = checkpoint.tensors.keys().find(|&name| !run.state.contains_key(name)) {
            return wrong(format!("the configuration's model has no tensor `{name}`"));
        }
        let mut state = Values::new();
        for (name, shape) in &run.state {
            match checkpoint.tensors.get(name) {
                Some((have, data)) if have == shape => state.insert(name.clone(), Data::Real(data.clone())),
                Some((have, _)) => return wrong(format!("tensor `{name}` is {have:?}; it takes {shape:?}")),
                None => return wrong(format!("tensor `{name}` is missing")),
            };
        }
        run.machine.load(state)?;
        run.step = checkpoint.step;
        Ok(run)
    }

    async fn made(config: &RunConfig, gpu: Option<&Gpu>) -> Result<Self, Error> {
        let mut config = config.clone();
        let limit = gpu.map_or(HOST_TENSOR_BYTES, |gpu| gpu.caps().max_binding_bytes.min(gpu.caps().max_buffer_bytes));
        let task = config.complete(limit)?;
        let step = training_step(&config.model, &config.optimiser, config.batch, config.seed);
        let judge = judgement(&config.model, config.batch, config.seed);
        let state = state_of(&step.graph, &step.parameters);
        let flops = step.graph.cost().flops;
        let machine = Machine::new(step.graph, judge.graph, gpu).await?;
        Ok(Self { config, task, parameters: step.parameters, state, machine, step: 0, flops, begins: Values::new() })
    }

    /// The configuration, with what the task decided.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    pub fn task(&self) -> &dyn Task {
        &*self.task
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Numbers that are learned.
    pub fn weights(&self) -> u64 {
        parameters::count(&self.parameters)
    }

    /// Floating-point operations of one step, by the ops' own count.
    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// The plan of a step, with its timeline of memory; on the interpreter, what a device would need.
    pub fn plan(&self) -> &Plan {
        self.machine.plan()
    }

    /// One step. A device is given the work and not waited for; see [`Run::reading`].
    ///
    /// # Errors
    /// The device's; where `cancelled` answers true on the interpreter, nothing has changed.
    pub fn step(&mut self, cancelled: &dyn Fn() -> bool) -> Result<(), Error> {
        let given = self.next_inputs();
        self.machine.step(given, cancelled)?;
        self.step += 1;
        Ok(())
    }

    /// [`Run::step`] for who must not hold the thread: `pause` is awaited after every op of the interpreter, and where it
    /// answers true, the step is given up and nothing has changed.
    ///
    /// # Errors
    /// The device's, or cancelled.
    pub async fn step_in_pauses(&mut self, pause: &mut impl AsyncFnMut() -> bool) -> Result<(), Error> {
        let given = self.next_inputs();
        self.machine.step_in_pauses(given, pause).await?;
        self.step += 1;
        Ok(())
    }

    /// Batch and numbers of the next step.
    pub(super) fn next_inputs(&self) -> Values {
        let config = &self.config;
        let batch = self.task.batch(config.seed, Part::Train, self.step, config.batch);
        let mut given = inputs(&config.model, &batch, self.task.causal());
        let t = self.step + 1;
        for (name, value) in NUMBERS.iter().zip(config.optimiser.numbers(t, config.steps)) {
            given.insert((*name).to_owned(), Data::Real(vec![value as f32]));
        }
        let word = random::bits(config.seed, random::stream("dropout"), t);
        given.insert("seed".into(), Data::Index(vec![word as u32, (word >> 32) as u32]));
        given
    }

    /// What the last step gave; waits for it.
    ///
    /// # Errors
    /// The device's.
    pub async fn reading(&self) -> Result<Reading, Error> {
        let rate = self.config.optimiser.rate_at(self.step.max(1), self.config.steps);
        let (loss, norm) = (self.machine.number("loss").await?, self.machine.number("norm").await?);
        Ok(Reading { step: self.step, loss, norm, rate })
    }

    /// Judges the model on the first batches of the held-out part, without dropout.
    ///
    /// # Errors
    /// The device's, or cancelled.
    pub async fn evaluate(&mut self, cancelled: &dyn Fn() -> bool) -> Result<Evaluation, Error> {
        let config = &self.config;
        let mut evaluation = Evaluation { step: self.step, loss: 0.0, score: Score::default() };
        let mut judged = 0.0;
        for index in 0..config.evaluation.batches {
            let batch = self.task.batch(config.seed, Part::Held, index, config.batch);
            let given = inputs(&config.model, &batch, self.task.causal());
            let [losses, hits] = self.machine.judge(given, ["losses", "hits"], cancelled).await?;
            evaluation.loss += losses.iter().map(|&x| f64::from(x)).sum::<f64>();
            judged += batch.judged.iter().map(|&x| f64::from(x)).sum::<f64>();
            // A miss is any token but the right one.
            let predicted = |(&hit, &target): (&f32, &u32)| if hit > 0.0 { target } else { u32::MAX };
            let predictions: Vec<u32> = hits.iter().zip(&batch.targets).map(predicted).collect();
            evaluation.score.merge(&Score::new(&batch, config.model.length, &predictions));
        }
        evaluation.loss /= f64::max(judged, 1.0);
        Ok(evaluation)
    }

    /// The weights as they are now, with how good they are.
    ///
    /// # Errors
    /// The device's.
    pub async fn weights_with(&self, held: &Evaluation) -> Result<Weights, Error> {
        let mut tensors = BTreeMap::new();
        for parameter in &self.parameters {
            let data = self.machine.read(&parameter.name).await?;
            let data = data.ok_or_else(|| Error::Checkpoint(format!("`{}` is not there", parameter.name)))?;
            tensors.insert(parameter.name.clone(), (parameter.shape.clone(), data));
        }
        let accuracy = held.score.tokens.accuracy();
        Ok(Weights { config: self.config.clone(), step: self.step, loss: held.loss, accuracy, tensors })
    }

    /// The run as it is now.
    ///
    /// # Errors
    /// The device's.
    pub async fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let mut tensors = BTreeMap::new();
        for (name, shape) in &self.state {
            let data = self.machine.read(name).await?;
            let data = data.ok_or_else(|| Error::Checkpoint(format!("`{name}` is not there")))?;
            tensors.insert(name.clone(), (shape.clone(), data));
        }
        Ok(Checkpoint { config: self.config.clone(), step: self.step, tensors })
    }
}

/// Shapes of weights, and of what else a step carries on.
fn state_of(graph: &Graph, parameters: &[Parameter]) -> BTreeMap<String, Vec<usize>> {
    let carried = graph.updates().iter().filter_map(|(input, _)| match &graph.entry(*input).kind {
        Kind::Input { name } => Some((name.clone(), graph.shape(*input).to_vec())),
        _ => None,
    });
    carried.chain(parameters.iter().map(|p| (p.name.clone(), p.shape.clone()))).into_map()
}

/// What a network reads of a batch.
///
/// The encoder of an encoder–decoder reads the input, and the decoder the answers before the one it gives. Where a token's
/// answer is the next token, the encoder reads each row up to its first judged position, and the decoder reads the row.
pub(super) fn inputs(model: &ModelConfig, batch: &Batch, causal: bool) -> Values {
    let mut values = Values::new();
    values.insert("targets".into(), Data::Index(batch.targets.clone()));
    values.insert("judged".into(), Data::Real(batch.judged.clone()));
    let mut tokens = batch.inputs.clone();
    if model.architecture == Architecture::EncoderDecoder {
        let mut source = batch.inputs.clone();
        let rows = source.chunks_mut(model.length).zip(tokens.chunks_mut(model.length));
        for (row, (source, tokens)) in rows.enumerate() {
            let at = row * model.length..(row + 1) * model.length;
            if causal {
                let first = batch.judged[at].iter().position(|&judged| judged > 0.0);
                source[first.map_or(model.length, |first| first + 1)..].fill(model.blank());
            } else {
                tokens[0] = model.blank();
                tokens[1..].copy_from_slice(&batch.targets[at][..model.length - 1]);
            }
        }
        values.insert("source".into(), Data::Index(source));
    }
    values.insert("tokens".into(), Data::Index(tokens));
    values
}
