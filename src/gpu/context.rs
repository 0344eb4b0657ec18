//! The device: chosen, asked for all that the adapter has, and made again when it is lost.

use super::health::Health;
use super::ledger::{Buffer, Ledger};
use super::pipeline::Cache;
use super::{Caps, Category, Error};
#[cfg(not(target_arch = "wasm32"))]
use crate::sort::Arrange;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Which adapter to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    #[default]
    High,
    Low,
}

/// How to choose the adapter.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Part of the adapter's or driver's name, in any case. Natively the environment variable `LAB_ADAPTER` stands in where
    /// this is none. Browsers do not let a page choose by name; there only `fallback` means something.
    pub adapter: Option<String>,
    /// `vulkan`, `metal` or `dx12`; natively only.
    pub backend: Option<String>,
    pub power: Power,
    /// Floating-point operations a second that long dispatches are cut by, where something else than the guess from the kind
    /// of adapter is wanted. A low one cuts every dispatch into pieces, which tests use.
    pub rate: Option<f64>,
}

/// A device with its queue, ledger and pipelines. Cheap to clone; clones are the same device.
#[derive(Clone)]
pub struct Gpu(Rc<Inner>);

struct Inner {
    #[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "only canvases ask for them"))]
    chosen: (wgpu::Instance, wgpu::Adapter),
    device: wgpu::Device,
    queue: wgpu::Queue,
    caps: Caps,
    options: Options,
    ledger: Ledger,
    health: Health,
    cache: RefCell<Cache>,
    /// Floating-point operations a second, for cutting long dispatches.
    rate: Cell<f64>,
    quantum_ns: Cell<Option<f64>>,
    /// Kernels chosen by measuring, by shape class.
    choices: RefCell<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("caps", self.caps()).finish_non_exhaustive()
    }
}

impl Gpu {
    /// Opens a device on the adapter that `options` ask for.
    pub async fn new(options: &Options) -> Result<Self, Error> {
        #[cfg(target_arch = "wasm32")]
        super::browser::let_subgroups_through();
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends(options);
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        // Drivers have been seen to promise a feature and then to give no device with it; so ask for less and less.
        let mut last = None;
        for tier in TIERS {
            // A browser's adapter serves one request only.
            let adapter = choose(&instance, options).await?;
            let features = adapter.features() & *tier;
            if last.as_ref().is_some_and(|(tried, _)| *tried == features) {
                continue;
            }
            let limits = adapter.limits();
            let descriptor = wgpu::DeviceDescriptor {
                label: Some("attention lab"),
                required_features: features,
                required_limits: limits.clone(),
                ..Default::default()
            };
            match adapter.request_device(&descriptor).await {
                Ok((device, queue)) => return Ok(Self::with((instance, adapter), device, queue, options)),
                Err(error) => last = Some((features, error.to_string())),
            }
        }
        let adapter = choose(&instance, options).await?.get_info().name;
        Err(Error::NoDevice { adapter, reason: last.map(|(_, reason)| reason).unwrap_or_default() })
    }

    fn with(
        chosen: (wgpu::Instance, wgpu::Adapter),
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &Options,
    ) -> Self {
        #[allow(unused_mut, reason = "the browser knows more than wgpu tells")]
        let mut caps = Caps::new(&chosen.1.get_info(), device.features(), &device.limits());
        #[cfg(target_arch = "wasm32")]
        super::browser::complete(&mut caps, &device);
        let health = Health::default();
        health.watch(&device);
        let rate = Cell::new(options.rate.unwrap_or(caps.assumed_rate()));
        let (ledger, cache) = (Ledger::default(), RefCell::default());
        let options = options.clone();
        let (quantum_ns, choices) = (Cell::new(None), RefCell::default());
        let inner = Inner { chosen, device, queue, caps, options, ledger, health, cache, rate, quantum_ns, choices };
        Self(Rc::new(inner))
    }

    /// A new device on an adapter chosen the same way, to go on with after [`Error::Lost`]. Nothing of the old one can be
    /// used with it: programs are prepared and inputs written again.
    pub async fn recreate(&self) -> Result<Self, Error> {
        let gpu = Self::new(&self.0.options).await?;
        gpu.choose_kernels(self.chosen_kernels());
        Ok(gpu)
    }

    /// Names of the adapters that could be chosen.
    pub async fn adapters(options: &Options) -> Vec<Caps> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends(options);
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        let adapters = instance.enumerate_adapters(backends(options)).await;
        adapters.iter().map(|a| Caps::new(&a.get_info(), a.features(), &a.limits())).collect()
    }

    /// Kernels chosen on this device by measuring, by shape class; programs planned from now on use them.
    pub fn choose_kernels(&self, choices: BTreeMap<String, String>) {
        self.0.choices.replace(choices);
    }

    /// The choices of [`Gpu::choose_kernels`].
    pub fn chosen_kernels(&self) -> BTreeMap<String, String> {
        self.0.choices.borrow().clone()
    }

    pub fn caps(&self) -> &Caps {
        &self.0.caps
    }

    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// The loss of the device, or the oldest error that no call has returned yet.
    pub fn check(&self) -> Result<(), Error> {
        self.0.health.check()
    }

    /// Why the device is gone, if it is.
    pub fn lost(&self) -> Option<String> {
        self.0.health.lost()
    }

    /// Destroys the device, as a driver reset would: every later call returns [`Error::Lost`].
    pub fn destroy(&self) {
        self.0.device.destroy();
        self.0.health.lose("destroyed");
    }

    /// Floating-point operations a second that long dispatches are cut by.
    pub fn rate(&self) -> f64 {
        self.0.rate.get()
    }

    /// Takes a measured rate into account, half of it, since kernels differ; and never far from what was assumed.
    pub fn note_rate(&self, flops_per_second: f64) {
        let assumed = self.caps().assumed_rate();
        if self.0.options.rate.is_none() && flops_per_second.is_finite() && flops_per_second > 0.0 {
            self.0.rate.set((flops_per_second * 0.5).clamp(assumed / 20.0, assumed * 20.0));
        }
    }

    /// A buffer of `bytes`, rounded up to 4, counted by the ledger. Refused without allocating if it exceeds the adapter's
    /// limits.
    pub async fn buffer(
        &self,
        label: &str,
        category: Category,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<Buffer, Error> {
        self.check()?;
        let bytes = bytes.max(4).next_multiple_of(4);
        self.check_size(label, bytes, usage.contains(wgpu::BufferUsages::STORAGE))?;
        let memory = self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false };
        let buffer = Buffer::new(self.ledger(), self.device().create_buffer(&descriptor), label, category);
        let validation = validation.pop();
        let memory = memory.pop();
        let (validation, memory) = (validation.await, memory.await);
        match validation.or(memory) {
            None => Ok(buffer),
            Some(error) => {
                self.check()?;
                Err(Error::from_wgpu(label, &error))
            }
        }
    }

    /// Whether a buffer of this size can be, and be bound.
    pub fn check_size(&self, label: &str, bytes: u64, bound: bool) -> Result<(), Error> {
        let too_large = |limit, limit_name| Error::TooLarge { what: label.into(), needs: bytes, limit, limit_name };
        let caps = self.caps();
        if bytes > caps.max_buffer_bytes {
            return Err(too_large(caps.max_buffer_bytes, "largest buffer (bytes)"));
        }
        if bound && bytes > caps.max_binding_bytes {
            return Err(too_large(caps.max_binding_bytes, "largest storage binding (bytes)"));
        }
        Ok(())
    }

    pub(super) fn create_module(&self, label: &str, wgsl: &str) -> wgpu::ShaderModule {
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        // Every loop of the project's kernels ends by itself; counting each round, as the default does to be safe against
        // hostile shaders, costs a fifth of the time on software adapters. Bounds stay checked.
        let checks = wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
        // SAFETY: only bounding of loops is given up, and no loop of a kernel here is endless: all shaders are the
        // project's own, and a reader's rule is an expression without loops.
        unsafe { self.device().create_shader_module_trusted(descriptor, checks) }
    }

    #[cfg(target_arch = "wasm32")]
    pub(super) fn instance(&self) -> &wgpu::Instance {
        &self.0.chosen.0
    }

    #[cfg(target_arch = "wasm32")]
    pub(super) fn adapter(&self) -> &wgpu::Adapter {
        &self.0.chosen.1
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    pub(super) fn pipeline_cache(&self) -> &RefCell<Cache> {
        &self.0.cache
    }

    pub(super) fn quantum_ns(&self) -> &Cell<Option<f64>> {
        &self.0.quantum_ns
    }
}

/// Feature sets to ask for, best first; each is cut to what the adapter has.
const TIERS: &[wgpu::Features] = {
    use wgpu::Features as F;
    &[
        F::TIMESTAMP_QUERY.union(F::SHADER_F16).union(F::SUBGROUP),
        F::TIMESTAMP_QUERY.union(F::SUBGROUP),
        F::TIMESTAMP_QUERY,
        F::empty(),
    ]
};

fn backends(options: &Options) -> wgpu::Backends {
    match options.backend.as_deref() {
        Some("vulkan") => wgpu::Backends::VULKAN,
        Some("metal") => wgpu::Backends::METAL,
        Some("dx12") => wgpu::Backends::DX12,
        _ => wgpu::Backends::all(),
    }
}

#[cfg(target_arch = "wasm32")]
async fn choose(instance: &wgpu::Instance, options: &Options) -> Result<wgpu::Adapter, Error> {
    let request = wgpu::RequestAdapterOptions {
        power_preference: match options.power {
            Power::High => wgpu::PowerPreference::HighPerformance,
            Power::Low => wgpu::PowerPreference::LowPower,
        },
        force_fallback_adapter: options.adapter.as_deref() == Some("fallback"),
        ..Default::default()
    };
    let none = |_| Error::NoAdapter { wanted: options.adapter.clone(), found: Vec::new() };
    instance.request_adapter(&request).await.map_err(none)
}

#[cfg(not(target_arch = "wasm32"))]
async fn choose(instance: &wgpu::Instance, options: &Options) -> Result<wgpu::Adapter, Error> {
    let wanted = options.adapter.clone().or_else(|| std::env::var("LAB_ADAPTER").ok().filter(|name| !name.is_empty()));
    let mut adapters = instance.enumerate_adapters(backends(options)).await;
    let rank = |a: &wgpu::Adapter| {
        let speed = match a.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
            wgpu::DeviceType::Cpu => 3,
        };
        // Low power swaps the first two; a software adapter stays the last resort.
        if options.power == Power::Low && speed < 2 { 1 - speed } else { speed }
    };
    adapters.arrange_by_key(rank);
    let found: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
    let matches = |a: &wgpu::Adapter| {
        let info = a.get_info();
        let mut text = format!("{} {} {}", info.name, info.driver, info.driver_info).to_lowercase();
        if text.contains("llvmpipe") {
            // Mesa's Vulkan driver goes by this name everywhere but in what it says of itself.
            text.push_str(" lavapipe");
        }
        wanted.as_ref().is_none_or(|w| text.contains(&w.to_lowercase()))
    };
    adapters.into_iter().find(matches).ok_or(Error::NoAdapter { wanted, found })
}
