//! A run at rest: its configuration, how far it is, its weights and the optimiser's memories, as a safetensors file.

use super::{Error, RunConfig};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};

/// What the metadata calls such a file.
const FORMAT: &str = "attention-lab checkpoint";

/// Everything that a run needs to go on as if never stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub config: RunConfig,
    /// Steps done.
    pub step: u64,
    /// Shape and values by name; memories of the optimiser begin with `optimiser.`.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Checkpoint {
    /// The bytes of a `.safetensors` file, with the configuration in its metadata.
    ///
    /// # Errors
    /// When a tensor does not fill its shape.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let wrong = |e: safetensors::SafeTensorError| Error::Checkpoint(e.to_string());
        let views: Result<Vec<_>, _> = (self.tensors.iter())
            .map(|(name, (shape, data))| {
                TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(data)).map(|view| (name.as_str(), view))
            })
            .collect();
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("config".to_owned(), serde_json::to_string(&self.config)?),
            ("step".to_owned(), self.step.to_string()),
        ]);
        safetensors::serialize(views.map_err(wrong)?, Some(metadata)).map_err(wrong)
    }

    /// Reads such a file without trust: what it holds is checked, and whether it fits a run when that is made of it.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |what: String| Error::Checkpoint(what);
        let (_, header) =
            SafeTensors::read_metadata(bytes).map_err(|e| wrong(format!("is not a safetensors file: {e}")))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let field = |name: &str| {
            metadata.get(name).ok_or_else(|| wrong(format!("its metadata has no `{name}`; is it from a training run?")))
        };
        if field("format")? != FORMAT {
            return Err(wrong(format!("its format is {:?}, not {FORMAT:?}", field("format")?)));
        }
        let config = RunConfig::parse(field("config")?)?;
        let step = field("step")?.parse().map_err(|_| wrong(format!("its step is {:?}", metadata["step"])))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| wrong(format!("is not a safetensors file: {e}")))?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in file.iter() {
            if tensor.dtype() != Dtype::F32 {
                return Err(wrong(format!("tensor `{name}` is {:?}; it takes F32", tensor.dtype())));
            }
            let data: Vec<f32> = bytemuck::pod_collect_to_vec(tensor.data());
            if data.iter().any(|x| !x.is_finite()) {
                return Err(wrong(format!("tensor `{name}` holds numbers that are not finite")));
            }
            tensors.insert(name.to_owned(), (tensor.shape().to_vec(), data));
        }
        Ok(Self { config, step, tensors })
    }
}
