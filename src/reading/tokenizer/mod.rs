//! Tokenizers of models that others trained, read from their `tokenizer.json`: byte-level pairs (GPT-2) and word pieces (BERT).
//!
//! Written here and not taken from the `tokenizers` crate. That one does serve on wasm32, with its feature `unstable_wasm` in place
//! of the default `onig` and `esaxx_fast`, which are C and C++ and do not build for wasm32-unknown-unknown. But it brings training,
//! unigrams, all normalisers, templates and two engines of regular expressions (`fancy-regex` on top of `regex-automata` with their
//! tables): a module of 2.3 MB, 531 KB with brotli, half of what the page may load at first. These two kinds of models need a
//! hand-written scanner, a map and a loop of it. A test holds the ids of texts equal to those that the crate gives.

mod bpe;
mod file;
mod unicode;
mod wordpiece;

use crate::reading::Unfit;
use file::File;
use std::collections::HashMap;

/// A longer `tokenizer.json` is refused.
pub const MOST_FILE_BYTES: usize = 32 << 20;
/// A longer text is refused.
pub const MOST_TEXT_BYTES: usize = 1 << 16;
/// More tokens that stand for themselves are refused: each is looked for at every place of a text.
const MOST_WHOLE: usize = 2048;
/// More tokens than this in one vocabulary are refused.
const MOST_TOKENS: usize = 1 << 20;

/// Turns text into the ids that a model was trained on, and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    model: Model,
    /// Token to id.
    ids: HashMap<String, u32>,
    /// Id to token; empty where there is none.
    tokens: Vec<String>,
    /// Tokens that are found in a text before it is split, longest first.
    whole: Vec<String>,
}

#[derive(Clone, Debug)]
enum Model {
    Bpe(Box<bpe::Bpe>),
    WordPiece(wordpiece::WordPiece),
}

impl Tokenizer {
    /// Reads the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// What is missing or of no kind known here.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        if text.len() > MOST_FILE_BYTES {
            return Err(Unfit::Tokenizer(format!("has {} bytes; at most {MOST_FILE_BYTES} are read", text.len())));
        }
        File::parse(text)?.tokenizer()
    }

    /// The ids of a text. Where the model begins and ends every text with tokens of its own (`[CLS]`, `[SEP]`), these are there.
    ///
    /// # Errors
    /// A text that is too long.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Unfit> {
        if text.len() > MOST_TEXT_BYTES {
            return Err(Unfit::Text { bytes: text.len() });
        }
        let mut ids = Vec::new();
        for (part, is_whole) in split_at_whole(text, &self.whole) {
            match &self.model {
                _ if is_whole => ids.extend(self.ids.get(part)),
                Model::Bpe(bpe) => bpe.encode(part, &mut ids),
                Model::WordPiece(pieces) => pieces.encode(part, &self.ids, &mut ids),
            }
        }
        Ok(match &self.model {
            Model::Bpe(_) => ids,
            Model::WordPiece(pieces) => pieces.framed(ids),
        })
    }

    /// The text of some ids. Unknown ids are left out; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let tokens = ids.iter().filter_map(|&id| self.tokens.get(id as usize)).map(String::as_str);
        match &self.model {
            Model::Bpe(_) => bpe::decode(tokens, &self.whole),
            Model::WordPiece(pieces) => pieces.decode(tokens),
        }
    }

    /// One token as an axis shows it: its text, with a leading space where it begins a word of a byte-level model.
    pub fn label(&self, id: u32) -> String {
        match &self.model {
            Model::Bpe(_) => match (self.decode(&[id]), self.tokens.get(id as usize)) {
                // Part of a character.
                (text, Some(token)) if text.contains('\u{fffd}') => bpe::bytes_of(token),
                (text, _) => text,
            },
            Model::WordPiece(_) => self.tokens.get(id as usize).cloned().unwrap_or_default(),
        }
    }

    /// The token that hides another, of a model that says masked words.
    pub fn mask(&self) -> Option<u32> {
        match &self.model {
            Model::Bpe(_) => None,
            Model::WordPiece(_) => self.ids.get("[MASK]").copied(),
        }
    }

    /// Ids from 0 up to this one are known.
    pub fn vocabulary(&self) -> usize {
        self.tokens.len()
    }
}

/// The parts of a text between tokens that stand for themselves, and these.
fn split_at_whole<'a>(text: &'a str, whole: &[String]) -> Vec<(&'a str, bool)> {
    let mut begins = [false; 256];
    whole.iter().for_each(|token| begins[token.as_bytes()[0] as usize] = true);
    let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
    while at < text.len() {
        // The first in the text, and of those that begin there the longest.
        let found = begins[text.as_bytes()[at] as usize]
            .then(|| whole.iter().find(|token| text.as_bytes()[at..].starts_with(token.as_bytes())))
            .flatten();
        match found {
            None => at += 1,
            Some(token) => {
                parts.push((&text[from..at], false));
                parts.push((&text[at..at + token.len()], true));
                at += token.len();
                from = at;
            }
        }
    }
    parts.push((&text[from..], false));
    parts.retain(|(part, _)| !part.is_empty());
    parts
}
