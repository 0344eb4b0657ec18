//! Named tensors with text beside them, as a safetensors file: written here, and read without trust.

use super::{Error, RunConfig};
use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};

/// Shape and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// What a file of a run holds besides tensors.
pub struct Header {
    pub config: RunConfig,
    /// Steps done.
    pub step: u64,
    pub metadata: HashMap<String, String>,
}

/// The bytes of a file; numbers are of half precision where `half` says so.
///
/// # Errors
/// When a tensor does not fill its shape, or holds a number beyond what half precision can hold.
pub fn write(format: &str, header: &Header, tensors: &Tensors, half: bool) -> Result<Vec<u8>, Error> {
    let wrong = |e: safetensors::SafeTensorError| Error::Checkpoint(e.to_string());
    let mut halves: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    if half {
        for (name, (_, data)) in tensors {
            let data: Option<Vec<u16>> = data.iter().map(|&x| in_half(x)).collect();
            let large = || Error::Checkpoint(format!("tensor `{name}` holds numbers too large for half precision"));
            halves.insert(name, data.ok_or_else(large)?);
        }
    }
    let views: Result<Vec<_>, _> = (tensors.iter())
        .map(|(name, (shape, data))| {
            let (dtype, bytes) = match halves.get(name.as_str()) {
                Some(data) => (Dtype::F16, bytemuck::cast_slice(data)),
                None => (Dtype::F32, bytemuck::cast_slice(data)),
            };
            TensorView::new(dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
        })
        .collect();
    let mut metadata = header.metadata.clone();
    metadata.insert("format".into(), format.into());
    metadata.insert("config".into(), serde_json::to_string(&header.config)?);
    metadata.insert("step".into(), header.step.to_string());
    safetensors::serialize(views.map_err(wrong)?, Some(metadata)).map_err(wrong)
}

/// Reads such a file without trust: what it holds is checked, and whether it fits a run when that is made of it.
///
/// # Errors
/// What is missing or wrong.
pub fn read(format: &str, bytes: &[u8]) -> Result<(Header, Tensors), Error> {
    let wrong = |what: String| Error::Checkpoint(what);
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|e| wrong(format!("is not a safetensors file: {e}")))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| {
        metadata.get(name).ok_or_else(|| wrong(format!("its metadata has no `{name}`; is it from a training run?")))
    };
    if field("format")? != format {
        return Err(wrong(format!("its format is {:?}, not {format:?}", field("format")?)));
    }
    let config = RunConfig::parse(field("config")?)?;
    let step = field("step")?.parse().map_err(|_| wrong(format!("its step is {:?}", metadata["step"])))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| wrong(format!("is not a safetensors file: {e}")))?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in file.iter() {
        let data: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => bytemuck::pod_collect_to_vec(tensor.data()),
            Dtype::F16 => tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => return Err(wrong(format!("tensor `{name}` is {other:?}; it takes F32 or F16"))),
        };
        if data.iter().any(|x| !x.is_finite()) {
            return Err(wrong(format!("tensor `{name}` holds numbers that are not finite")));
        }
        tensors.insert(name.to_owned(), (tensor.shape().to_vec(), data));
    }
    Ok((Header { config, step, metadata }, tensors))
}

/// The nearest number of half precision; nothing where there is none.
fn in_half(x: f32) -> Option<u16> {
    let half = f16::from_f32(x);
    half.is_finite().then_some(half.to_bits())
}
