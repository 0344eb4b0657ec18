//! Models that others trained: GPT-2-style and BERT-style `.safetensors` files with their `config.json`.
//!
//! Nothing here reads a file: [`Pretrained::open`] takes the header's bytes and says which tensors are wanted and where they
//! lie, and [`Piece::convert`] turns one tensor's bytes into a weight, so that a page can fetch a large file part by part.
//! Everything in a file is checked before anything is allocated for it.

mod convert;
mod families;
mod settings;

pub use convert::Piece;
pub use families::Family;

use super::{ModelConfig, Tokens, network};
use crate::gpu::Category;
use crate::graph::{Graph, TensorType};
use families::Naming;
use safetensors::tensor::{Metadata, TensorInfo};
use settings::Settings;
use std::collections::{BTreeMap, BTreeSet};

/// A longer header is refused.
pub const MOST_HEADER_BYTES: u64 = 100_000_000;
/// A longer `config.json` is refused.
pub const MOST_CONFIG_BYTES: usize = 1 << 20;
/// Names listed in one message.
const MOST_NAMES: usize = 8;

/// What a file of weights holds, and how it becomes a model of ours.
#[derive(Clone, Debug)]
pub struct Pretrained {
    pub family: Family,
    /// Full attention in every layer; change `attention` to run the same weights with another variant.
    pub config: ModelConfig,
    /// One for each weight of the model.
    pub pieces: Vec<Piece>,
    /// Tensors that the model makes no use of, such as stored masks and heads for other tasks.
    pub passed_over: Vec<String>,
}

/// Why a file is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("model file: {0}")]
    File(String),
    #[error("config.json: {0}")]
    Config(String),
    #[error("model file: {what} {names}")]
    Tensors { what: &'static str, names: String },
    #[error("model: {0}")]
    Model(String),
}

/// How many bytes the header takes, with the eight in front that say so.
///
/// # Errors
/// When the first bytes of the file cannot be those of a `.safetensors` file of `file_bytes`.
pub fn header_bytes(first: &[u8], file_bytes: u64) -> Result<u64, Unfit> {
    let Some(first) = first.first_chunk::<8>() else {
        return Err(Unfit::File("is shorter than 8 bytes; it takes a .safetensors file".into()));
    };
    let length = u64::from_le_bytes(*first);
    if length > MOST_HEADER_BYTES || length + 8 > file_bytes {
        return Err(Unfit::File(format!(
            "says that its header has {length} bytes, of {file_bytes} in all; it takes a .safetensors file"
        )));
    }
    Ok(length + 8)
}

impl Pretrained {
    /// Reads the first [`header_bytes`] of a file of `file_bytes` and, where there is one, the text of its `config.json`.
    ///
    /// # Errors
    /// What is missing, of a wrong shape or type, or unknown, by name.
    pub fn open(header: &[u8], file_bytes: u64, config: Option<&str>) -> Result<Self, Unfit> {
        let start = header_bytes(header, file_bytes)?;
        let Some(text) = header.get(8..start as usize) else {
            return Err(Unfit::File(format!("ends inside its header, after {} of {start} bytes", header.len())));
        };
        // Checks that tensors lie one behind the other and are as long as their shapes say.
        let metadata: Metadata = serde_json::from_slice(text).map_err(|e| Unfit::File(format!("its header: {e}")))?;
        let tensors: BTreeMap<String, TensorInfo> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let end = tensors.values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
        if start + end != file_bytes {
            return Err(Unfit::File(format!("has {file_bytes} bytes; its header tells of {}", start + end)));
        }
        let settings = config.map(Settings::parse).transpose()?.unwrap_or_default();
        let naming = Naming::of(&tensors, &settings)?;
        let config = naming.config(&tensors, &settings)?;
        config.check(1, u64::MAX).map_err(|e| Unfit::Model(e.to_string()))?;
        let mut pieces = Vec::new();
        let mut missing = Vec::new();
        let mut used = BTreeSet::new();
        for (name, shape) in weights(&config) {
            let Some(origin) = naming.origin(&name) else {
                return Err(Unfit::Model(format!("{name} has no place in a {} file", naming.family.name())));
            };
            let piece = Piece::new(name, shape, origin);
            match piece.check(&tensors)? {
                None => {
                    used.extend(piece.tensors().map(str::to_owned));
                    pieces.push(piece.at(&tensors, start));
                }
                Some(absent) => missing.push(absent),
            }
        }
        if !missing.is_empty() {
            return Err(Unfit::Tensors { what: "these tensors are missing:", names: list(missing) });
        }
        let (passed_over, unknown): (Vec<_>, Vec<_>) =
            tensors.into_keys().filter(|name| !used.contains(name)).partition(|name| naming.passes_over(name));
        if !unknown.is_empty() {
            return Err(Unfit::Tensors { what: "these tensors belong to no model known here:", names: list(unknown) });
        }
        Ok(Self { family: naming.family, config, pieces, passed_over })
    }
}

/// Names and shapes of a model's weights, from the graph that reads them.
fn weights(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut g = Graph::new();
    let tokens = g.input("tokens", TensorType::u32(&[1, 1]), Category::Activations);
    let built = network(&mut g, config, &Tokens { tokens, source: None, seed: None }, 0);
    built.parameters.into_iter().map(|(parameter, _)| (parameter.name, parameter.shape)).collect()
}

/// The first few names, and how many more there are.
fn list(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(MOST_NAMES);
    let mut text = names.into_iter().take(MOST_NAMES).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
