//! What can go wrong with a device, as values.

/// An error of the device layer. Each names the buffer, op or request it is about.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is no adapter, or none of the wanted name.
    #[error("no GPU adapter{}; found: {}", wanted.as_ref().map(|w| format!(" named like `{w}`")).unwrap_or_default(),
        if found.is_empty() { "none".to_string() } else { found.join(", ") })]
    NoAdapter { wanted: Option<String>, found: Vec<String> },
    /// The adapter gave no device.
    #[error("the adapter {adapter} gave no device: {reason}")]
    NoDevice { adapter: String, reason: String },
    /// A request exceeds a limit of the adapter. Nothing was allocated.
    #[error("{what} needs {needs}, the adapter's {limit_name} is {limit}")]
    TooLarge { what: String, needs: u64, limit: u64, limit_name: &'static str },
    /// The device ran out of memory.
    #[error("out of GPU memory at {what}")]
    OutOfMemory { what: String },
    /// The device is gone; [`super::Gpu::recreate`] makes a new one.
    #[error("the GPU device was lost: {reason}")]
    Lost { reason: String },
    /// The adapter lacks a feature that a kernel needs.
    #[error("{what} needs {feature}, which this adapter does not have")]
    Unsupported { what: String, feature: &'static str },
    /// The device refused something that the program should not have asked for.
    #[error("{what}: {message}")]
    Validation { what: String, message: String },
    /// A program names a kernel, entry, constant or binding that there is not.
    #[error("{what}: {message}")]
    Program { what: String, message: String },
    /// A canvas or window could not be drawn to.
    #[error("surface: {0}")]
    Surface(String),
    /// Stopped on request.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// From an error scope or the device's error event; `what` is the op or buffer at hand.
    pub(super) fn from_wgpu(what: &str, error: &wgpu::Error) -> Self {
        match error {
            wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.into() },
            e => Error::Validation { what: what.into(), message: e.to_string() },
        }
    }
}
