//! Text and tokens, and the queries, keys and values that are made of them where no trained model is at hand.

pub mod embedding;
pub mod text;

pub use embedding::{Qkv, embed};
pub use text::{Split, Tokens};
