//! Models that others trained, read part by part, and texts as these models read them. Nothing here computes with a model: what
//! comes out is a configuration of the lab's, weights as arrays, and ids of tokens.

pub mod model;
mod opener;
mod source;
pub mod tokenizer;

pub use model::{Model, Numbers, Piece};
pub use opener::{CHUNK_BYTES, Facts, Opener, Part, WeightFacts};
pub use source::Source;
pub use tokenizer::Tokenizer;

/// Why a file or a text is not taken: which, what is wrong with it, and where there is one the nearest that would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("model file: {0}")]
    Model(String),
    #[error("config.json: {0}")]
    Config(String),
    #[error("model file: {what} {names}")]
    Tensors { what: &'static str, names: String },
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    #[error("text: has {bytes} bytes; it takes {}", tokenizer::MOST_TEXT_BYTES)]
    Text { bytes: usize },
    /// Of files that are opened together.
    #[error("{0}")]
    Files(String),
}
