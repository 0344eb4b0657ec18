//! What graphs run on: a GPU, or the CPU interpreter.

use super::shared::Shared;
use crate::gpu::{Error, Gpu, Options};
use crate::graph::LowerContext;
use crate::lab::protocol::{AdapterFacts, Backend, Notice};

/// Why a request ended without its result.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Cancelled, or a newer request took its place.
    Stopped,
    /// The device is gone.
    Lost(String),
    /// Not served; the nearest request that would be.
    Refused { reason: String, nearest: Option<String> },
}

impl Fault {
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), nearest: None }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Fault::Stopped,
            Error::Lost { reason } => Fault::Lost(reason),
            // How much there is nobody says; less is all that can be proposed.
            Error::OutOfMemory { .. } => {
                Fault::Refused { reason: error.to_string(), nearest: Some("a shorter sequence".into()) }
            }
            other => Fault::refused(other.to_string()),
        }
    }
}

impl From<crate::attention::Refusal> for Fault {
    fn from(r: crate::attention::Refusal) -> Self {
        Fault::Refused { reason: r.reason, nearest: r.nearest }
    }
}

/// Where graphs run.
#[derive(Clone, Debug)]
pub enum Device {
    Gpu(Gpu),
    Cpu,
}

/// A 32-bit address space holds 4 GiB, of which a browser gives less.
const CPU_TENSOR_BYTES: u64 = if cfg!(target_arch = "wasm32") { 512 << 20 } else { 4 << 30 };
const CPU_TOTAL_BYTES: u64 = if cfg!(target_arch = "wasm32") { 1536 << 20 } else { 8 << 30 };
/// Software adapters share the machine's memory; nobody says how much a GPU has, it refuses by itself.
const SOFTWARE_TOTAL_BYTES: u64 = 4 << 30;

/// Work that a request may ask of the interpreter: some seconds.
pub const CPU_FLOPS: u64 = if cfg!(target_arch = "wasm32") { 40_000_000_000 } else { 100_000_000_000 };

impl Device {
    /// Opens what `backend` asks for, or takes what another engine has opened. The notice says why it is not a GPU.
    pub async fn open(backend: Backend, options: &Options, shared: &Shared) -> Result<(Self, Option<Notice>), Error> {
        if backend == Backend::Cpu {
            return Ok((Self::Cpu, None));
        }
        match (shared.open(options).await, backend) {
            (Ok(gpu), Backend::Auto) if gpu.caps().software && options.adapter.is_none() => {
                let notice = Notice::SoftwareAdapter { name: gpu.caps().name.clone() };
                Ok((Self::Cpu, Some(notice)))
            }
            (Ok(gpu), _) => Ok((Self::Gpu(gpu), None)),
            (Err(error), Backend::Auto) => {
                let notice = Notice::NoGpu { reason: error.to_string() };
                Ok((Self::Cpu, Some(notice)))
            }
            (Err(error), _) => Err(error),
        }
    }

    pub fn backend(&self) -> Backend {
        match self {
            Device::Gpu(_) => Backend::Gpu,
            Device::Cpu => Backend::Cpu,
        }
    }

    pub fn context(&self) -> LowerContext {
        match self {
            Device::Gpu(gpu) => LowerContext::on(gpu),
            Device::Cpu => LowerContext::default(),
        }
    }

    /// Most bytes of one tensor.
    pub fn tensor_bytes(&self) -> u64 {
        match self {
            Device::Gpu(gpu) => gpu.caps().max_binding_bytes.min(gpu.caps().max_buffer_bytes),
            Device::Cpu => CPU_TENSOR_BYTES,
        }
    }

    /// Most bytes of everything.
    pub fn total_bytes(&self) -> u64 {
        match self {
            Device::Gpu(gpu) if gpu.caps().software => SOFTWARE_TOTAL_BYTES,
            Device::Gpu(_) => u64::MAX,
            Device::Cpu => CPU_TOTAL_BYTES,
        }
    }

    /// Most floating-point operations that one request may take.
    pub fn most_flops(&self) -> u64 {
        match self {
            Device::Gpu(gpu) if gpu.caps().software => CPU_FLOPS,
            Device::Gpu(_) => u64::MAX,
            Device::Cpu => CPU_FLOPS,
        }
    }

    pub fn facts(&self, quantum_ns: Option<f64>) -> AdapterFacts {
        let timer_quantum_ns = quantum_ns.map(|ns| ns.ceil() as u64);
        match self {
            Device::Gpu(gpu) => {
                let caps = gpu.caps();
                AdapterFacts {
                    name: caps.name.clone(),
                    driver: caps.driver.clone(),
                    backend: caps.backend.clone(),
                    software: caps.software,
                    features: caps.features(),
                    max_buffer_bytes: caps.max_buffer_bytes,
                    max_binding_bytes: caps.max_binding_bytes,
                    timer_quantum_ns,
                }
            }
            Device::Cpu => AdapterFacts {
                name: "CPU interpreter".into(),
                driver: std::env::consts::ARCH.into(),
                backend: "cpu".into(),
                software: true,
                features: vec![],
                max_buffer_bytes: CPU_TENSOR_BYTES,
                max_binding_bytes: CPU_TENSOR_BYTES,
                timer_quantum_ns,
            },
        }
    }
}
