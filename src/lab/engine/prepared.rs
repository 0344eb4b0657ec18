//! A graph made ready on a device: inputs are written, it runs any number of times, outputs are read.

use super::device::{Device, Fault};
use super::inbox::Watch;
use super::pause::Pacer;
use crate::attention::{Built, Decision, Effective, Refusal, Request, Setup, Variant};
use crate::gpu::{Buffer, BufferId, Replay, now_ms};
use crate::graph::plan::{Plan, plan};
use crate::graph::{Data, Graph, TensorType, cpu};
use crate::measure::fit::largest;
use crate::task::Qkv;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;

/// A variant's graph and plan, known to fit the device. Nothing is allocated yet.
pub struct Planned {
    pub graph: Graph,
    pub effective: Option<Effective>,
    pub decisions: Vec<Decision>,
    pub plan: Plan,
}

impl Planned {
    /// Plans a variant, or says why it cannot be served here and the longest sequence that can.
    pub fn new(device: &Device, variant: &Variant, setup: &Setup, request: Request) -> Result<Self, Refusal> {
        let refusal = match Self::attempt(device, variant, setup, request) {
            Ok(planned) => return Ok(planned),
            Err(refusal) => refusal,
        };
        if refusal.nearest.is_some() {
            return Err(refusal);
        }
        let shorter = |length: usize| {
            let keys = if setup.keys == setup.length { length } else { setup.keys };
            Self::attempt(device, variant, &Setup { length, keys, ..setup.clone() }, request).is_ok()
        };
        let nearest = largest(1, setup.length.saturating_sub(1), shorter).map(|n| format!("length {n}"));
        Err(Refusal { nearest, ..refusal })
    }

    /// The same without looking for what could be served.
    pub fn attempt(device: &Device, variant: &Variant, setup: &Setup, request: Request) -> Result<Self, Refusal> {
        if let Some(refusal) = variant.refusal(setup, device.tensor_bytes()) {
            return Err(refusal);
        }
        let Built { graph, effective, decisions } = variant.build_all(setup, request);
        Ok(Self { decisions, ..Self::of_graph(device, variant, setup, graph, effective)? })
    }

    /// Plans a graph of a variant, or says why it is too much for the device.
    pub fn of_graph(
        device: &Device,
        variant: &Variant,
        setup: &Setup,
        graph: Graph,
        effective: Option<Effective>,
    ) -> Result<Self, Refusal> {
        let refuse = |reason: String| Err(Refusal { reason, nearest: None });
        let flops = graph.cost().flops;
        if flops > device.most_flops() {
            let billions = |x: u64| x as f64 / 1e9;
            return refuse(format!(
                "{} at N = {} takes {:.0} billion operations; without a real GPU at most {:.0} are tried",
                variant.name,
                setup.length,
                billions(flops),
                billions(device.most_flops())
            ));
        }
        let plan = plan(&graph, &device.context());
        let most = plan.program.buffers.iter().map(|b| b.bytes).max().unwrap_or(0);
        for (what, needs, limit) in [
            ("one buffer of", most, device.tensor_bytes()),
            ("buffers of together", plan.peak_bytes(), device.total_bytes()),
        ] {
            if needs > limit {
                let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
                return refuse(format!(
                    "{} at N = {} needs {what} {:.1} MiB; this device takes {:.1} MiB",
                    variant.name,
                    setup.length,
                    mib(needs),
                    mib(limit)
                ));
            }
        }
        Ok(Self { graph, effective, decisions: vec![], plan })
    }
}

/// A graph on a device.
pub struct Prepared {
    pub graph: Graph,
    pub plan: Plan,
    place: Place,
}

enum Place {
    Gpu(Box<Replay>),
    Cpu { inputs: BTreeMap<String, Data<f32>>, outputs: BTreeMap<String, Data<f32>> },
}

impl Prepared {
    /// Compiles, telling `progress` how many pipelines of how many are ready, and allocates.
    pub async fn new(device: &Device, planned: Planned, progress: &mut dyn FnMut(usize, usize)) -> Result<Self, Fault> {
        if let Device::Gpu(gpu) = device {
            gpu.prepare(&planned.plan.program, progress).await?;
        }
        Self::of_graph(device, planned.graph, planned.plan).await
    }

    /// The same for any graph and its plan.
    pub async fn of_graph(device: &Device, graph: Graph, plan: Plan) -> Result<Self, Fault> {
        Self::sharing(device, graph, plan, &HashMap::new()).await
    }

    /// The same with some of a GPU's buffers taken from elsewhere.
    pub async fn sharing(
        device: &Device,
        graph: Graph,
        plan: Plan,
        given: &HashMap<BufferId, Rc<Buffer>>,
    ) -> Result<Self, Fault> {
        let place = match device {
            Device::Gpu(gpu) => Place::Gpu(Box::new(Replay::sharing(gpu, &plan.program, given).await?)),
            Device::Cpu => Place::Cpu { inputs: BTreeMap::new(), outputs: BTreeMap::new() },
        };
        Ok(Self { graph, plan, place })
    }

    /// The device's buffer of an output.
    pub fn on_device(&self, name: &str) -> Option<(Rc<Buffer>, &TensorType)> {
        let (id, ty) = self.plan.outputs.get(name)?;
        Some((self.replay()?.buffer(*id).clone(), ty))
    }

    pub fn replay(&self) -> Option<&Replay> {
        match &self.place {
            Place::Gpu(replay) => Some(replay),
            Place::Cpu { .. } => None,
        }
    }

    /// Writes an input of real numbers; one that the graph does not use is passed over.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<(), Fault> {
        match &mut self.place {
            Place::Gpu(replay) => {
                if let Some((buffer, ty)) = self.plan.inputs.get(name) {
                    replay.write(*buffer, &ty.stored(values))?;
                }
            }
            Place::Cpu { inputs, .. } => {
                inputs.insert(name.into(), Data::Real(values.into()));
            }
        }
        Ok(())
    }

    /// Writes those values that the graph reads.
    pub fn write_values(&mut self, values: BTreeMap<String, Data<f32>>) -> Result<(), Fault> {
        match &mut self.place {
            Place::Gpu(replay) => {
                for (name, data) in values {
                    let Some((buffer, ty)) = self.plan.inputs.get(&name) else { continue };
                    match data {
                        Data::Real(x) => replay.write(*buffer, &ty.stored(&x))?,
                        Data::Index(x) => replay.write(*buffer, bytemuck::cast_slice(&x))?,
                    }
                }
            }
            Place::Cpu { inputs, .. } => inputs.extend(values),
        }
        Ok(())
    }

    /// Writes q, k, v, the variant's drawn tensors, and `g` where gradients are asked for: the values serve as it.
    pub fn write_all(&mut self, variant: &Variant, setup: &Setup, x: &Qkv) -> Result<(), Fault> {
        for (name, values) in [("q", &x.q), ("k", &x.k), ("v", &x.v), ("g", &x.v)] {
            self.write(name, values)?;
        }
        for (name, values) in variant.drawn(setup) {
            self.write(name, &values)?;
        }
        Ok(())
    }

    /// Runs once; returns when it is done. Milliseconds by stage on the CPU, empty on a GPU.
    pub async fn run(&mut self, watch: &Watch) -> Result<Vec<f64>, Fault> {
        match &mut self.place {
            Place::Gpu(replay) => {
                replay.run(&|| watch.stop()).await?;
                Ok(vec![])
            }
            Place::Cpu { inputs, outputs } => {
                let mut stages = vec![0.0; self.graph.stages().len()];
                let mut pacer = Pacer::default();
                let mut run = cpu::Run::new(&self.graph, inputs).map_err(|e| Fault::refused(e.to_string()))?;
                loop {
                    let start = now_ms();
                    let more = run.step();
                    if !more {
                        break;
                    }
                    if let Some(entry) = self.graph.entries().get(run.progress().0 - 1) {
                        stages[entry.stage] += now_ms() - start;
                    }
                    pacer.pause().await;
                    if watch.stop() {
                        return Err(Fault::Stopped);
                    }
                }
                *outputs = run.finish();
                Ok(stages)
            }
        }
    }

    /// An output of the last run.
    pub async fn read(&self, name: &str) -> Result<Vec<f32>, Fault> {
        match &self.place {
            Place::Gpu(replay) => {
                let Some((buffer, ty)) = self.plan.outputs.get(name) else { return Ok(vec![]) };
                let mut values: Vec<f32> = bytemuck::pod_collect_to_vec(&replay.read(*buffer).await?);
                values.truncate(ty.len());
                Ok(values)
            }
            Place::Cpu { outputs, .. } => Ok(outputs.get(name).map(|d| d.real().to_vec()).unwrap_or_default()),
        }
    }
    /// Some elements of an output of the last run; none where there is no such output.
    pub async fn read_part(&self, name: &str, range: Range<usize>) -> Result<Vec<f32>, Fault> {
        match &self.place {
            Place::Gpu(replay) => {
                let Some((buffer, _)) = self.plan.outputs.get(name) else { return Ok(vec![]) };
                let bytes = replay.read_range(*buffer, 4 * range.start as u64, 4 * range.len() as u64).await?;
                Ok(bytemuck::pod_collect_to_vec(&bytes))
            }
            Place::Cpu { outputs, .. } => {
                Ok(outputs.get(name).and_then(|d| d.real().get(range)).unwrap_or_default().to_vec())
            }
        }
    }
}
