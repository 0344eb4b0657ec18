//! Where a run's graphs are evaluated: on a device, where weights and memories stay, or by the CPU interpreter.

use super::Error;
use crate::gpu::{Category, Gpu, Replay};
use crate::graph::plan::{Plan, plan};
use crate::graph::{Data, Graph, LowerContext, cpu};
use std::collections::{BTreeMap, HashMap};

/// Software adapters share the machine's memory; a GPU refuses by itself.
const SOFTWARE_BYTES: u64 = 4 << 30;

pub type Values = BTreeMap<String, Data<f32>>;

/// A graph that changes its state, one that judges it, and others that look at it, by name.
pub enum Machine {
    Gpu {
        gpu: Gpu,
        step: Box<Ready>,
        judge: Box<Ready>,
        more: More<Ready>,
    },
    /// The plan is what a device would need.
    Cpu {
        step: Box<Graph>,
        plan: Box<Plan>,
        judge: Box<Graph>,
        more: More<Graph>,
        state: Values,
        outputs: Values,
    },
}

type More<T> = BTreeMap<&'static str, T>;

/// A graph on the device.
pub struct Ready {
    pub plan: Plan,
    pub replay: Replay,
}

impl Ready {
    /// Writes those values that the graph reads.
    fn write(&self, values: &Values) -> Result<(), Error> {
        for (name, data) in values {
            if let Some((buffer, _)) = self.plan.inputs.get(name) {
                match data {
                    Data::Real(x) => self.replay.write(*buffer, bytemuck::cast_slice(x))?,
                    Data::Index(x) => self.replay.write(*buffer, bytemuck::cast_slice(x))?,
                }
            }
        }
        Ok(())
    }

    async fn answer<const K: usize>(
        &self,
        given: &Values,
        names: [&str; K],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<[Vec<f32>; K], Error> {
        self.write(given)?;
        self.replay.run(cancelled).await?;
        let mut results = [const { Vec::new() }; K];
        for (result, name) in results.iter_mut().zip(names) {
            *result = self.output(name).await?;
        }
        Ok(results)
    }

    async fn output(&self, name: &str) -> Result<Vec<f32>, Error> {
        let (buffer, ty) = &self.plan.outputs[name];
        Ok(bytemuck::pod_collect_to_vec(&self.replay.read_range(*buffer, 0, ty.bytes()).await?))
    }
}

impl Machine {
    /// Makes everything that steps and judgements need; the judgement reads the step's weights where they are.
    pub async fn new(step: Graph, judge: Graph, gpu: Option<&Gpu>) -> Result<Self, Error> {
        let Some(gpu) = gpu else {
            let plan = Box::new(plan(&step, &LowerContext::default()));
            let bytes = plan.peak_bytes();
            let fits = usize::try_from(bytes).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
            if !fits {
                return Err(Error::OutOfMemory(bytes));
            }
            let (more, state, outputs) = Default::default();
            return Ok(Self::Cpu { step: Box::new(step), plan, judge: Box::new(judge), more, state, outputs });
        };
        let context = LowerContext::on(gpu);
        let step = plan(&step, &context);
        if gpu.caps().software && step.peak_bytes() > SOFTWARE_BYTES {
            return Err(Error::OutOfMemory(step.peak_bytes()));
        }
        let step = Ready { replay: Replay::new(gpu, &step.program).await?, plan: step };
        let judge = plan(&judge, &context);
        let shared: HashMap<_, _> = (judge.inputs.iter())
            .filter_map(|(name, (to, _))| Some((*to, step.replay.buffer(step.plan.inputs.get(name)?.0).clone())))
            .collect();
        let replay = Replay::sharing(gpu, &judge.program, &shared).await?;
        let judge = Box::new(Ready { plan: judge, replay });
        Ok(Self::Gpu { gpu: gpu.clone(), step: Box::new(step), judge, more: More::new() })
    }

    /// Whether there is a graph of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Gpu { more, .. } => more.contains_key(name),
            Self::Cpu { more, .. } => more.contains_key(name),
        }
    }

    /// Adds a graph that looks at the state, by [`Machine::ask`]: it reads weights and memories where they are.
    pub async fn add(&mut self, name: &'static str, graph: Graph) -> Result<(), Error> {
        match self {
            Self::Gpu { gpu, step, more, .. } => {
                let plan = plan(&graph, &LowerContext::on(gpu));
                let is_state = |of: &Plan, at: crate::gpu::BufferId| {
                    matches!(of.program.buffers[at.0].category, Category::Parameters | Category::Optimiser)
                };
                let shared: HashMap<_, _> = (plan.inputs.iter())
                    .filter(|(_, (to, _))| is_state(&plan, *to))
                    .filter_map(|(name, (to, _))| {
                        Some((*to, step.replay.buffer(step.plan.inputs.get(name)?.0).clone()))
                    })
                    .collect();
                let replay = Replay::sharing(gpu, &plan.program, &shared).await?;
                more.insert(name, Ready { plan, replay });
            }
            Self::Cpu { more, .. } => {
                more.insert(name, graph);
            }
        }
        Ok(())
    }

    /// Gives up the memory of a graph that was added.
    pub fn remove(&mut self, name: &str) {
        match self {
            Self::Gpu { more, .. } => drop(more.remove(name)),
            Self::Cpu { more, .. } => drop(more.remove(name)),
        }
    }

    /// What an added graph gives for these inputs, by the names of its outputs.
    ///
    /// # Panics
    /// If there is no such graph.
    pub async fn ask<const K: usize>(
        &self,
        name: &str,
        given: Values,
        names: [&str; K],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<[Vec<f32>; K], Error> {
        match self {
            Self::Gpu { more, .. } => more[name].answer(&given, names, cancelled).await,
            Self::Cpu { more, state, .. } => answer(&more[name], state, given, names, cancelled),
        }
    }

    /// Writes weights and memories.
    pub fn load(&mut self, values: Values) -> Result<(), Error> {
        match self {
            Self::Gpu { step, .. } => step.write(&values)?,
            Self::Cpu { state, .. } => state.extend(values),
        }
        Ok(())
    }

    /// One step on these inputs. A device is given work and not waited for. What is cancelled has changed nothing.
    pub fn step(&mut self, given: Values, cancelled: &dyn Fn() -> bool) -> Result<(), Error> {
        match self {
            Self::Gpu { step, .. } => {
                step.write(&given)?;
                step.replay.submit()?;
            }
            Self::Cpu { step, state, outputs, .. } => {
                state.extend(given);
                let updates;
                (*outputs, updates) = evaluate(step, state, cancelled)?;
                state.extend(updates);
            }
        }
        Ok(())
    }

    /// [`Machine::step`] with a pause after every op of the interpreter; where `pause` answers true, nothing has changed.
    pub async fn step_in_pauses(&mut self, given: Values, pause: &mut impl AsyncFnMut() -> bool) -> Result<(), Error> {
        let Self::Cpu { step, state, outputs, .. } = self else { return self.step(given, &|| false) };
        state.extend(given);
        let mut run = cpu::Run::new(step, state)?;
        while run.step() {
            if pause().await {
                return Err(cpu::Error::Cancelled.into());
            }
        }
        let updates;
        (*outputs, updates) = run.finish_updated();
        state.extend(updates);
        Ok(())
    }

    /// A number that the last step gave.
    pub async fn number(&self, name: &str) -> Result<f32, Error> {
        match self {
            Self::Gpu { step, .. } => Ok(step.output(name).await?[0]),
            Self::Cpu { outputs, .. } => Ok(outputs.get(name).map_or(f32::NAN, |data| data.real()[0])),
        }
    }

    /// What the judgement gives for these inputs, by the names of its outputs.
    pub async fn judge<const K: usize>(
        &self,
        given: Values,
        names: [&str; K],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<[Vec<f32>; K], Error> {
        match self {
            Self::Gpu { judge, .. } => judge.answer(&given, names, cancelled).await,
            Self::Cpu { judge, state, .. } => answer(judge, state, given, names, cancelled),
        }
    }

    /// A weight or memory as it is now; none where the step does not read it.
    pub async fn read(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        match self {
            Self::Gpu { step, .. } => match step.plan.inputs.get(name) {
                Some((buffer, ty)) => {
                    let bytes = step.replay.read_range(*buffer, 0, ty.bytes()).await?;
                    Ok(Some(bytemuck::pod_collect_to_vec(&bytes)))
                }
                None => Ok(None),
            },
            Self::Cpu { state, .. } => Ok(state.get(name).map(|data| data.real().to_vec())),
        }
    }

    /// The step's plan, with its timeline of memory; of the interpreter, what a device would need.
    pub fn plan(&self) -> &Plan {
        match self {
            Self::Gpu { step, .. } => &step.plan,
            Self::Cpu { plan, .. } => plan,
        }
    }
}

/// What a graph gives for a state and these inputs.
fn answer<const K: usize>(
    graph: &Graph,
    state: &Values,
    given: Values,
    names: [&str; K],
    cancelled: &dyn Fn() -> bool,
) -> Result<[Vec<f32>; K], Error> {
    let mut all = state.clone();
    all.extend(given);
    let (outputs, _) = evaluate(graph, &all, cancelled)?;
    Ok(names.map(|name| outputs[name].real().to_vec()))
}

fn evaluate(graph: &Graph, inputs: &Values, cancelled: &dyn Fn() -> bool) -> Result<(Values, Values), Error> {
    let mut run = cpu::Run::new(graph, inputs)?;
    while run.step() {
        if cancelled() {
            return Err(cpu::Error::Cancelled.into());
        }
    }
    Ok(run.finish_updated())
}
