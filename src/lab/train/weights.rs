//! Trained weights alone: to look at, to judge under another attention, or to train further. Half the precision of a
//! checkpoint and none of the optimiser's memories, so a sixth of its size.

use super::file::{self, Header, Tensors};
use super::{Error, RunConfig};

/// What the metadata calls such a file.
const FORMAT: &str = "attention-lab weights";

/// Weights with what made them, and how good they were.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    pub config: RunConfig,
    /// Steps that they were trained for.
    pub step: u64,
    /// Mean cross-entropy on the held-out part in nats, and token accuracy, before rounding to half precision.
    pub loss: f64,
    pub accuracy: Option<f64>,
    /// Shape and values by name.
    pub tensors: Tensors,
}

impl Weights {
    /// The bytes of a `.safetensors` file of half precision, with the rest in its metadata.
    ///
    /// # Errors
    /// When a tensor does not fill its shape, or a weight is too large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut header = Header { config: self.config.clone(), step: self.step, metadata: Default::default() };
        header.metadata.insert("held_loss".into(), self.loss.to_string());
        if let Some(accuracy) = self.accuracy {
            header.metadata.insert("held_accuracy".into(), accuracy.to_string());
        }
        file::write(FORMAT, &header, &self.tensors, true)
    }

    /// Reads such a file without trust, of half or single precision.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (Header { config, step, metadata }, tensors) = file::read(FORMAT, bytes)?;
        let number =
            |name: &str| metadata.get(name).and_then(|text| text.parse::<f64>().ok()).filter(|x| x.is_finite());
        let loss = number("held_loss").ok_or_else(|| Error::Checkpoint("its metadata has no `held_loss`".into()))?;
        Ok(Self { config, step, loss, accuracy: number("held_accuracy"), tensors })
    }
}
