//! A graph made ready: inputs are written, it runs any number of times, outputs are read.

use super::{Code, LabError};
use crate::gpu::{Gpu, Replay, Timer, now_ms};
use crate::graph::plan::Plan;
use crate::graph::{Data, Dtype, Graph, TensorType, cpu};
use crate::measure::Timing;
use crate::sort::IntoMap;
use serde::Serialize;
use std::collections::BTreeMap;

/// A named tensor of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

/// A prepared graph on its device; dropping it frees its memory.
pub struct Run {
    graph: Graph,
    plan: Plan,
    place: Place,
}

enum Place {
    Gpu(Box<Replay>),
    Cpu { inputs: BTreeMap<String, Data<f32>>, outputs: BTreeMap<String, Data<f32>> },
}

/// The interpreter's spans are at least so long, in milliseconds.
const SHORTEST_MS: f64 = 20.0;

impl Run {
    pub(super) async fn on_gpu(gpu: &Gpu, graph: Graph, plan: Plan) -> Result<Self, LabError> {
        let replay = Replay::new(gpu, &plan.program).await?;
        Ok(Self { graph, plan, place: Place::Gpu(Box::new(replay)) })
    }

    pub(super) fn on_cpu(graph: Graph, plan: Plan) -> Self {
        Self { graph, plan, place: Place::Cpu { inputs: BTreeMap::new(), outputs: BTreeMap::new() } }
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Bytes of all its buffers.
    pub fn bytes(&self) -> u64 {
        self.plan.peak_bytes()
    }

    /// The same by category, in words of the result file.
    pub fn bytes_by_category(&self) -> BTreeMap<String, u64> {
        let word = |category| serde_json::to_value(category).ok().and_then(|v| v.as_str().map(str::to_owned));
        self.plan.bytes_by_category().into_iter().filter_map(|(c, bytes)| Some((word(c)?, bytes))).into_map()
    }

    /// Floating-point operations of one run, from the ops.
    pub fn flops(&self) -> u64 {
        self.graph.cost().flops
    }

    /// Labels of the stages that do something.
    pub fn stages(&self) -> Vec<String> {
        let used = |index: usize| self.plan.program.steps.iter().any(|s| s.stage == index);
        let labels = self.graph.stages().iter().enumerate().filter(|(i, _)| used(*i));
        labels.map(|(_, label)| label.clone()).filter(|label| !label.is_empty()).collect()
    }

    pub fn inputs(&self) -> Vec<Tensor> {
        tensors(self.plan.inputs.iter().map(|(name, (_, ty))| (name, ty)))
    }

    pub fn outputs(&self) -> Vec<Tensor> {
        tensors(self.plan.outputs.iter().map(|(name, (_, ty))| (name, ty)))
    }

    /// Writes an input; indices and masks are taken as whole numbers.
    ///
    /// # Errors
    /// When there is no such input, or it has another number of elements.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<(), LabError> {
        let Some((buffer, ty)) = self.plan.inputs.get(name) else {
            let known: Vec<&str> = self.plan.inputs.keys().map(String::as_str).collect();
            return Err(LabError::new(Code::Invalid, format!("no input `{name}`; there are {}", known.join(", "))));
        };
        if values.len() != ty.len() {
            let message = format!("`{name}` is {:?}, {} elements; got {}", ty.shape, ty.len(), values.len());
            return Err(LabError::new(Code::Invalid, message));
        }
        let data = match ty.dtype {
            Dtype::U32 => Data::Index(values.iter().map(|&x| x as u32).collect()),
            _ => Data::Real(values.to_vec()),
        };
        match (&mut self.place, &data) {
            (Place::Gpu(replay), Data::Real(x)) => replay.write(*buffer, bytemuck::cast_slice(x))?,
            (Place::Gpu(replay), Data::Index(x)) => replay.write(*buffer, bytemuck::cast_slice(x))?,
            (Place::Cpu { inputs, .. }, _) => {
                inputs.insert(name.into(), data);
            }
        }
        Ok(())
    }

    /// Runs once: on a GPU it is queued, on the CPU it is done when this returns.
    pub fn submit(&mut self) -> Result<(), LabError> {
        match &mut self.place {
            Place::Gpu(replay) => Ok(replay.submit()?),
            Place::Cpu { inputs, outputs } => {
                let results = cpu::run(&self.graph, inputs, &|| false);
                *outputs = results.map_err(|e| LabError::new(Code::Invalid, e.to_string()))?;
                Ok(())
            }
        }
    }

    /// Runs once, and returns when it is done.
    pub async fn execute(&mut self) -> Result<(), LabError> {
        self.submit()?;
        if let Place::Gpu(replay) = &self.place {
            replay.gpu().wait().await?;
        }
        Ok(())
    }

    /// An output of the last run.
    ///
    /// # Errors
    /// When there is no such output, or nothing has run yet.
    pub async fn read(&self, name: &str) -> Result<Vec<f32>, LabError> {
        let Some((buffer, ty)) = self.plan.outputs.get(name) else {
            let known: Vec<&str> = self.plan.outputs.keys().map(String::as_str).collect();
            return Err(LabError::new(Code::Invalid, format!("no output `{name}`; there are {}", known.join(", "))));
        };
        match &self.place {
            Place::Gpu(replay) => {
                let bytes = replay.read_range(*buffer, 0, ty.bytes()).await?;
                Ok(match ty.dtype {
                    Dtype::U32 => bytemuck::pod_collect_to_vec::<u8, u32>(&bytes).iter().map(|&x| x as f32).collect(),
                    _ => bytemuck::pod_collect_to_vec(&bytes),
                })
            }
            Place::Cpu { outputs, .. } => match outputs.get(name) {
                Some(Data::Real(x)) => Ok(x.clone()),
                Some(Data::Index(x)) => Ok(x.iter().map(|&x| x as f32).collect()),
                None => Err(LabError::new(Code::Invalid, "nothing has run yet")),
            },
        }
    }

    /// Times it in some spans, each long enough for the clock.
    pub async fn time(&mut self, spans: usize) -> Result<Timing, LabError> {
        let spans = spans.clamp(1, 1000);
        let (ms, how) = match &self.place {
            Place::Gpu(replay) => {
                let timer = Timer::new(replay.gpu()).await?;
                (timer.measure(replay, None, spans).await?.ms, timer.how().id())
            }
            Place::Cpu { .. } => (self.time_on_cpu(spans)?, "wall"),
        };
        Timing::new(&ms, how).ok_or_else(|| LabError::new(Code::Internal, "the clock stood still"))
    }

    fn time_on_cpu(&mut self, spans: usize) -> Result<Vec<f64>, LabError> {
        let mut span = |repeats: u32| {
            let start = now_ms();
            for _ in 0..repeats {
                self.submit()?;
            }
            Ok((now_ms() - start) / f64::from(repeats))
        };
        // The first run also fills caches.
        span(1)?;
        let repeats = (SHORTEST_MS / span(1)?.max(1e-3)).ceil().clamp(1.0, 1e4) as u32;
        (0..spans).map(|_| span(repeats)).collect()
    }
}

fn tensors<'a>(all: impl Iterator<Item = (&'a String, &'a TensorType)>) -> Vec<Tensor> {
    all.map(|(name, ty)| Tensor { name: name.clone(), dtype: ty.dtype, shape: ty.shape.clone() }).collect()
}
