//! Models that others trained: GPT-2-style and BERT-style `.safetensors` files with their `config.json`.
//!
//! Nothing here reads a file: [`Model::open`] takes the header's bytes and says which tensors are wanted and where they lie, and
//! [`Piece`] turns their bytes into weights, so that a large file can be fetched part by part. Everything in a file is checked
//! before anything is allocated for it.

mod convert;
mod families;
pub mod header;
mod settings;

pub use convert::{Numbers, Piece};
pub use families::Family;

use crate::gpu::Category;
use crate::graph::{Graph, TensorType};
use crate::model::{ModelConfig, Tokens, network};
use crate::reading::Unfit;
use families::Naming;
use header::tensors;
use settings::Settings;
use std::collections::BTreeSet;

/// A longer `config.json` is refused.
pub const MOST_CONFIG_BYTES: usize = 1 << 20;
/// Names listed in one message.
const MOST_NAMES: usize = 8;

/// What a file of weights holds, and how it becomes a model of the lab.
#[derive(Clone, Debug)]
pub struct Model {
    pub family: Family,
    /// Full attention in every layer; change `attention` to run the same weights with another variant.
    pub config: ModelConfig,
    /// One for each weight of the model.
    pub pieces: Vec<Piece>,
    /// Tensors that the model makes no use of, such as stored masks and heads for other tasks.
    pub passed_over: Vec<String>,
}

impl Model {
    /// Reads the first [`header::header_bytes`] of a file of `file_bytes` and, where there is one, the text of its `config.json`.
    ///
    /// # Errors
    /// What is missing, of a wrong shape or type, or unknown, by name.
    pub fn open(header: &[u8], file_bytes: u64, config: Option<&str>) -> Result<Self, Unfit> {
        let tensors = tensors(header, file_bytes)?;
        let start = header::header_bytes(header, file_bytes)?;
        let settings = config.map(Settings::parse).transpose()?.unwrap_or_default();
        let naming = Naming::of(&tensors, &settings)?;
        let config = naming.config(&tensors, &settings)?;
        config.check(1, u64::MAX).map_err(|e| Unfit::Model(format!("its sizes: {e}")))?;
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
