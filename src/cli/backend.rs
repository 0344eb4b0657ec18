//! Which interpreter runs a graph, and one run on it.

use super::Failure;
use attention_lab::gpu::{Error, Gpu, Options, Replay};
use attention_lab::graph::{Data, Graph, LowerContext, cpu, plan};
use attention_lab::lab::protocol::{self, AdapterFacts};
use std::collections::BTreeMap;

/// Largest single tensor of the CPU interpreter, and largest effective matrix.
pub const HOST_TENSOR_BYTES: u64 = 4 << 30;

#[derive(Debug, clap::Args)]
pub struct Choice {
    /// Where to run; by default on the GPU where there is a real one, else on the CPU
    #[arg(long, value_enum)]
    backend: Option<Kind>,
    /// Part of the adapter's name, as `list` shows it
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Gpu,
    Cpu,
}

impl Choice {
    /// What the lab's engine is asked for, and how it chooses the adapter.
    pub fn wanted(&self) -> Result<(protocol::Backend, Options), Failure> {
        let options = Options { adapter: self.adapter.clone(), ..Options::default() };
        match (self.backend, &self.adapter) {
            (Some(Kind::Cpu), Some(_)) => Err(Failure::request("--adapter is for --backend gpu")),
            (Some(Kind::Cpu), None) => Ok((protocol::Backend::Cpu, options)),
            (Some(Kind::Gpu), _) | (None, Some(_)) => Ok((protocol::Backend::Gpu, options)),
            (None, None) => Ok((protocol::Backend::Auto, options)),
        }
    }
}

#[derive(Debug)]
pub enum Backend {
    Gpu(Gpu),
    Cpu,
}

/// Adapters of this machine, and the CPU interpreter.
pub fn adapters() -> Vec<AdapterFacts> {
    let mut adapters: Vec<AdapterFacts> = pollster::block_on(Gpu::adapters(&Options::default()))
        .into_iter()
        .map(|caps| AdapterFacts {
            features: caps.features(),
            name: caps.name,
            driver: caps.driver,
            backend: caps.backend,
            software: caps.software,
            max_buffer_bytes: caps.max_buffer_bytes,
            max_binding_bytes: caps.max_binding_bytes,
            timer_quantum_ns: None,
        })
        .collect();
    adapters.push(AdapterFacts {
        name: "CPU interpreter".into(),
        backend: "cpu".into(),
        software: true,
        max_buffer_bytes: HOST_TENSOR_BYTES,
        max_binding_bytes: HOST_TENSOR_BYTES,
        ..AdapterFacts::default()
    });
    adapters
}

impl Backend {
    pub fn choose(arguments: &Choice) -> Result<Self, Failure> {
        match (arguments.backend, &arguments.adapter) {
            (Some(Kind::Cpu), Some(_)) => Err(Failure::request("--adapter is for --backend gpu")),
            (Some(Kind::Cpu), None) => Ok(Self::Cpu),
            (Some(Kind::Gpu), adapter) | (None, adapter @ Some(_)) => {
                let options = Options { adapter: adapter.clone(), ..Options::default() };
                Ok(Self::Gpu(pollster::block_on(Gpu::new(&options))?))
            }
            // A software adapter is many times slower than the CPU interpreter.
            (None, None) => match pollster::block_on(Gpu::new(&Options::default())) {
                Ok(gpu) if !gpu.caps().software => Ok(Self::Gpu(gpu)),
                _ => Ok(Self::Cpu),
            },
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Gpu(_) => "gpu",
            Self::Cpu => "cpu",
        }
    }

    pub fn adapter(&self) -> &str {
        match self {
            Self::Gpu(gpu) => &gpu.caps().name,
            Self::Cpu => "CPU interpreter",
        }
    }

    /// Bytes that one tensor may take.
    pub fn max_tensor_bytes(&self) -> u64 {
        match self {
            Self::Gpu(gpu) => gpu.caps().max_binding_bytes.min(gpu.caps().max_buffer_bytes),
            Self::Cpu => HOST_TENSOR_BYTES,
        }
    }

    /// Runs a graph once; every named output.
    pub fn run(
        &self,
        graph: &Graph,
        inputs: &BTreeMap<String, Data<f32>>,
    ) -> Result<BTreeMap<String, Vec<f32>>, Failure> {
        match self {
            Self::Gpu(gpu) => Ok(pollster::block_on(run_on_gpu(gpu, graph, inputs))?),
            Self::Cpu => {
                check_memory(plan::plan(graph, &LowerContext::default()).peak_bytes())?;
                let results = cpu::run(graph, inputs, &|| false)?;
                Ok(results.into_iter().map(|(name, data)| (name, data.real().to_vec())).collect())
            }
        }
    }
}

async fn run_on_gpu(
    gpu: &Gpu,
    graph: &Graph,
    inputs: &BTreeMap<String, Data<f32>>,
) -> Result<BTreeMap<String, Vec<f32>>, Error> {
    let plan = plan::plan(graph, &LowerContext::on(gpu));
    let replay = Replay::new(gpu, &plan.program).await?;
    for (name, (buffer, _)) in &plan.inputs {
        match &inputs[name] {
            Data::Real(x) => replay.write(*buffer, bytemuck::cast_slice(x))?,
            Data::Index(x) => replay.write(*buffer, bytemuck::cast_slice(x))?,
        }
    }
    replay.run(&|| false).await?;
    let mut results = BTreeMap::new();
    for (name, (buffer, ty)) in &plan.outputs {
        let bytes = replay.read(*buffer).await?;
        // A buffer shared with a larger value is longer than its output.
        let values = bytes.chunks_exact(4).take(ty.len()).map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        results.insert(name.clone(), values.collect());
    }
    Ok(results)
}

/// Asks for the memory that a run will need and gives it back, so that too much is an error and not the end of the process.
fn check_memory(bytes: u64) -> Result<(), Failure> {
    let fits = usize::try_from(bytes).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
    if fits { Ok(()) } else { Err(Failure::Device(format!("out of memory: the run needs {bytes} bytes"))) }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            Error::Lost { .. } | Error::OutOfMemory { .. } => Self::Device(error.to_string()),
            _ => Self::Adapter(error.to_string()),
        }
    }
}
