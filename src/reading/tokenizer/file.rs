//! The parts of a `tokenizer.json` that are read.

use super::bpe::Bpe;
use super::wordpiece::WordPiece;
use super::{MOST_TOKENS, MOST_WHOLE, Model, Tokenizer};
use crate::reading::Unfit;
use crate::sort::Arrange;
use serde_json::Value;
use std::collections::HashMap;

#[derive(serde::Deserialize)]
pub struct File {
    model: Settings,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
}

/// `truncation` and `padding` of a file are passed over on purpose: padding must not enter attention.
#[derive(serde::Deserialize)]
struct Settings {
    /// Missing in old files.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Option<Vec<Merge>>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    max_input_chars_per_word: Option<usize>,
}

/// Two tokens that become one, in the two ways that files write them.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Merge {
    Spaced(String),
    Pair([String; 2]),
}

#[derive(serde::Deserialize)]
struct Added {
    id: u32,
    content: String,
}

impl File {
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        serde_json::from_str(text).map_err(|e| Unfit::Tokenizer(e.to_string()))
    }

    pub fn tokenizer(self) -> Result<Tokenizer, Unfit> {
        let mut ids = self.model.vocab;
        ids.extend(self.added_tokens.iter().map(|added| (added.content.clone(), added.id)));
        let largest = ids.values().max().map_or(0, |&id| id as usize);
        if ids.is_empty() || largest >= MOST_TOKENS {
            return Err(Unfit::Tokenizer(format!(
                "has {} tokens up to {largest}; ids go from 0 to {MOST_TOKENS}",
                ids.len()
            )));
        }
        let mut tokens = vec![String::new(); largest + 1];
        for (token, &id) in &ids {
            tokens[id as usize].clone_from(token);
        }
        let mut whole: Vec<String> =
            self.added_tokens.into_iter().map(|added| added.content).filter(|token| !token.is_empty()).collect();
        whole.arrange_by_key(|token| std::cmp::Reverse(token.len()));
        if whole.len() > MOST_WHOLE {
            return Err(Unfit::Tokenizer(format!("has {} added tokens; it takes {MOST_WHOLE}", whole.len())));
        }
        let kind = self.model.kind.as_deref().unwrap_or(if self.model.merges.is_some() { "BPE" } else { "WordPiece" });
        let model = match kind {
            "BPE" => {
                if !mentions(&self.pre_tokenizer, "ByteLevel") {
                    return Err(Unfit::Tokenizer("its pairs are not of bytes; it takes GPT-2's ByteLevel".into()));
                }
                let merges = self.model.merges.unwrap_or_default().into_iter().map(|merge| match merge {
                    Merge::Pair(pair) => Ok(pair),
                    Merge::Spaced(text) => match text.split_once(' ') {
                        Some((left, right)) => Ok([left.to_owned(), right.to_owned()]),
                        None => Err(Unfit::Tokenizer(format!("its merge {text:?} is not of two tokens"))),
                    },
                });
                let spaced = self.pre_tokenizer.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
                Model::Bpe(Box::new(Bpe::new(&merges.collect::<Result<Vec<_>, _>>()?, &ids, spaced)?))
            }
            "WordPiece" => {
                let lowercase = self.normalizer.get("lowercase").and_then(Value::as_bool).unwrap_or(true);
                let accents = self.normalizer.get("strip_accents").and_then(Value::as_bool).unwrap_or(lowercase);
                let unknown = self.model.unk_token.unwrap_or_else(|| "[UNK]".into());
                let of = |name: &str| ids.get(name).copied();
                Model::WordPiece(WordPiece {
                    prefix: self.model.continuing_subword_prefix.unwrap_or_else(|| "##".into()),
                    longest: self.model.max_input_chars_per_word.unwrap_or(100).min(1000),
                    lowercase,
                    strips_accents: accents,
                    unknown: of(&unknown).ok_or_else(|| {
                        Unfit::Tokenizer(format!("its token for unknown words, {unknown:?}, has no id"))
                    })?,
                    begin: of("[CLS]"),
                    end: of("[SEP]"),
                })
            }
            other => return Err(Unfit::Tokenizer(format!("is a {other} model; it takes BPE or WordPiece"))),
        };
        Ok(Tokenizer { model, ids, tokens, whole })
    }
}

/// Whether a part of this type stands in a setting, alone or in a sequence.
fn mentions(setting: &Value, kind: &str) -> bool {
    let own = |value: &Value| value.get("type").and_then(Value::as_str) == Some(kind);
    own(setting) || setting.get("pretokenizers").and_then(Value::as_array).is_some_and(|all| all.iter().any(own))
}
