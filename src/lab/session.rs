//! A device on which callers run single variants and ops for their numbers alone, with no engine and no page: what the
//! JavaScript API and its tests use.

mod request;
mod run;

pub use request::{OpRequest, RunRequest};
pub use run::{Run, Tensor};

use super::protocol::{AdapterFacts, Backend};
use super::train::{self, RunConfig};
use crate::attention::Refusal;
use crate::gpu::{self, Gpu, Options, Timer};
use crate::graph::plan::{Plan, plan};
use crate::graph::{Graph, LowerContext};
use crate::measure::result::SCHEMA;
use crate::measure::tune::Tuned;
use serde::Serialize;

/// Why a call failed: a word for programs, a sentence for people, and the nearest request that would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct LabError {
    pub code: Code,
    pub message: String,
    pub nearest: Option<String>,
}

/// The kinds of [`LabError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is not one that the lab takes.
    Invalid,
    /// The request is sound, but this method or device can't serve it.
    Refused,
    /// There is no adapter, or it lacks what is needed.
    NoAdapter,
    /// The device was lost; a new `Lab` can be made.
    Lost,
    OutOfMemory,
    /// The lab itself is at fault.
    Internal,
}

impl LabError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), nearest: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// A call came while another was under way.
    pub fn busy() -> Self {
        Self::invalid("the call before has not ended; await it first")
    }
}

impl From<Refusal> for LabError {
    fn from(refusal: Refusal) -> Self {
        Self { code: Code::Refused, message: refusal.reason, nearest: refusal.nearest }
    }
}

impl From<gpu::Error> for LabError {
    fn from(error: gpu::Error) -> Self {
        use gpu::Error;
        let code = match &error {
            Error::NoAdapter { .. } | Error::NoDevice { .. } | Error::Unsupported { .. } => Code::NoAdapter,
            Error::TooLarge { .. } => Code::Refused,
            Error::OutOfMemory { .. } => Code::OutOfMemory,
            Error::Lost { .. } => Code::Lost,
            Error::Validation { .. } | Error::Program { .. } | Error::Surface(_) | Error::Cancelled => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<train::Error> for LabError {
    fn from(error: train::Error) -> Self {
        use train::Error;
        match error {
            Error::Gpu(error) => error.into(),
            Error::OutOfMemory(_) => Self::new(Code::OutOfMemory, error.to_string()),
            Error::Config(e) => {
                let message = format!("{}: {} is not allowed", e.field, e.got);
                Self { code: Code::Refused, message, nearest: Some(e.takes) }
            }
            Error::Task(e) => Self { code: Code::Refused, message: e.to_string(), nearest: Some(e.nearest) },
            Error::Json(_) | Error::Checkpoint(_) => Self::invalid(error.to_string()),
            Error::Cpu(_) => Self::new(Code::Internal, error.to_string()),
        }
    }
}

/// What a session runs on, as the JavaScript API's `lab.info`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Info {
    /// `gpu` or `cpu`.
    pub backend: Backend,
    pub adapter: AdapterFacts,
    /// Why it is the CPU, where that was not asked for.
    pub notice: Option<String>,
    /// Of result files.
    pub schema: u32,
    pub commit: &'static str,
}

/// A device, or the CPU interpreter.
#[derive(Clone, Debug)]
pub struct Session {
    place: Place,
    notice: Option<String>,
}

#[derive(Clone, Debug)]
enum Place {
    Gpu(Gpu),
    Cpu,
}

/// Most bytes of one tensor of the interpreter.
const CPU_TENSOR_BYTES: u64 = if cfg!(target_arch = "wasm32") { 512 << 20 } else { 4 << 30 };

impl Session {
    /// Opens what `backend` asks for; `Auto` takes a GPU where there is a real one and the CPU elsewhere.
    ///
    /// # Errors
    /// Where `Gpu` is asked for and there is none.
    pub async fn open(backend: Backend, options: &Options) -> Result<Self, LabError> {
        let cpu = |notice| Self { place: Place::Cpu, notice };
        if backend == Backend::Cpu {
            return Ok(cpu(None));
        }
        match (Gpu::new(options).await, backend) {
            (Ok(gpu), Backend::Auto) if gpu.caps().software => Ok(cpu(Some(format!(
                "{} computes on the processor, where the lab's own code is faster",
                gpu.caps().name
            )))),
            (Ok(gpu), _) => Ok(Self { place: Place::Gpu(gpu), notice: None }),
            (Err(error), Backend::Auto) => Ok(cpu(Some(error.to_string()))),
            (Err(error), _) => Err(error.into()),
        }
    }

    pub fn info(&self) -> Info {
        let (backend, adapter) = match &self.place {
            Place::Gpu(gpu) => (Backend::Gpu, AdapterFacts::from(gpu.caps())),
            Place::Cpu => (
                Backend::Cpu,
                AdapterFacts {
                    name: "CPU interpreter".into(),
                    backend: "cpu".into(),
                    software: true,
                    max_buffer_bytes: CPU_TENSOR_BYTES,
                    max_binding_bytes: CPU_TENSOR_BYTES,
                    ..AdapterFacts::default()
                },
            ),
        };
        Info { backend, adapter, notice: self.notice.clone(), schema: SCHEMA, commit: crate::COMMIT }
    }

    /// Makes a variant ready: compiles and allocates.
    ///
    /// # Errors
    /// When the request is unsound, or the method or device can't serve it.
    pub async fn prepare(&self, request: &RunRequest) -> Result<Run, LabError> {
        let (graph, drawn) = request.graph(self.tensor_bytes())?;
        let mut run = self.make(graph).await?;
        for (name, values) in drawn {
            run.write(name, &values)?;
        }
        Ok(run)
    }

    /// Makes a single op ready.
    ///
    /// # Errors
    /// As [`Session::prepare`].
    pub async fn prepare_op(&self, request: &OpRequest) -> Result<Run, LabError> {
        self.make(request.graph()?).await
    }

    /// Makes a training run ready, at its beginning.
    ///
    /// # Errors
    /// What of the configuration is not taken, or the device's.
    pub async fn prepare_training(&self, config: &RunConfig) -> Result<train::Run, LabError> {
        let gpu = match &self.place {
            Place::Gpu(gpu) => Some(gpu),
            Place::Cpu => None,
        };
        Ok(train::Run::new(config, gpu).await?)
    }

    /// Waits until everything submitted so far is done.
    pub async fn wait(&self) -> Result<(), LabError> {
        match &self.place {
            Place::Gpu(gpu) => Ok(gpu.wait().await?),
            Place::Cpu => Ok(()),
        }
    }

    /// Races the kernels of every op of this run that has several, once for each shape class, and has what is prepared
    /// from now on use the fastest. What is known so far comes in and goes out, to be kept between sessions: figures of
    /// another adapter or of other kernels are forgotten. Nothing is measured on the CPU.
    ///
    /// # Errors
    /// What the device says.
    pub async fn tune(&self, run: &Run, known: Option<Tuned>) -> Result<Tuned, LabError> {
        let Place::Gpu(gpu) = &self.place else { return Ok(known.unwrap_or_default()) };
        let mut tuned = Tuned::restore(known, gpu.caps());
        let context = LowerContext::from_caps(gpu.caps());
        let timer = Timer::new(gpu).await?;
        for open in tuned.open(run.graph(), &context) {
            tuned.measure(gpu, &timer, &open, &context, &|| false).await?;
        }
        tuned.apply(gpu);
        Ok(tuned)
    }

    async fn make(&self, graph: Graph) -> Result<Run, LabError> {
        let context = match &self.place {
            Place::Gpu(gpu) => LowerContext::on(gpu),
            Place::Cpu => LowerContext::default(),
        };
        let plan: Plan = plan(&graph, &context);
        match &self.place {
            Place::Gpu(gpu) => Run::on_gpu(gpu, graph, plan).await,
            Place::Cpu => {
                let largest = plan.program.buffers.iter().map(|b| b.bytes).max().unwrap_or(0);
                if largest > CPU_TENSOR_BYTES {
                    let mib = |bytes: u64| bytes >> 20;
                    let message =
                        format!("a tensor of {} MiB is needed; {} MiB is taken", mib(largest), mib(CPU_TENSOR_BYTES));
                    return Err(LabError::new(Code::Refused, message));
                }
                Ok(Run::on_cpu(graph, plan))
            }
        }
    }

    fn tensor_bytes(&self) -> u64 {
        match &self.place {
            Place::Gpu(gpu) => gpu.caps().max_binding_bytes.min(gpu.caps().max_buffer_bytes),
            Place::Cpu => CPU_TENSOR_BYTES,
        }
    }
}
