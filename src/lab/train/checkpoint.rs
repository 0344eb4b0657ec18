//! A run at rest: its configuration, how far it is, its weights and the optimiser's memories, as a safetensors file.

use super::file::{self, Header, Tensors};
use super::{Error, RunConfig};

/// What the metadata calls such a file.
const FORMAT: &str = "attention-lab checkpoint";

/// Everything that a run needs to go on as if never stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub config: RunConfig,
    /// Steps done.
    pub step: u64,
    /// Shape and values by name; memories of the optimiser begin with `optimiser.`.
    pub tensors: Tensors,
}

impl Checkpoint {
    /// The bytes of a `.safetensors` file, with the configuration in its metadata.
    ///
    /// # Errors
    /// When a tensor does not fill its shape.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let header = Header { config: self.config.clone(), step: self.step, metadata: Default::default() };
        file::write(FORMAT, &header, &self.tensors, false)
    }

    /// Reads such a file without trust: what it holds is checked, and whether it fits a run when that is made of it.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (Header { config, step, .. }, tensors) = file::read(FORMAT, bytes)?;
        Ok(Self { config, step, tensors })
    }
}
