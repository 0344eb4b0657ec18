//! Word pieces, as BERT has them (Wu et al., 2016, arXiv:1609.08144; Devlin et al., 2019, arXiv:1810.04805).

use super::unicode::{is_other, is_punctuation, without_marks};
use std::collections::HashMap;

#[derive(Clone, Debug)]
pub struct WordPiece {
    /// In front of a piece that continues a word.
    pub prefix: String,
    /// Words of more characters are unknown.
    pub longest: usize,
    pub lowercase: bool,
    pub strips_accents: bool,
    pub unknown: u32,
    /// `[CLS]` and `[SEP]`, where there are such.
    pub begin: Option<u32>,
    pub end: Option<u32>,
}

impl WordPiece {
    pub fn encode(&self, text: &str, ids: &HashMap<String, u32>, out: &mut Vec<u32>) {
        for word in words(&self.normal(text)) {
            self.pieces(&word, ids, out);
        }
    }

    pub fn framed(&self, ids: Vec<u32>) -> Vec<u32> {
        self.begin.into_iter().chain(ids).chain(self.end).collect()
    }

    /// The longest piece that the vocabulary has, then the longest of the rest; a word that cannot be made so is unknown.
    fn pieces(&self, word: &str, ids: &HashMap<String, u32>, out: &mut Vec<u32>) {
        let first = out.len();
        let mut rest = word;
        if word.chars().count() > self.longest {
            return out.push(self.unknown);
        }
        while !rest.is_empty() {
            let prefix = if rest.len() < word.len() { self.prefix.as_str() } else { "" };
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            let found = ends.into_iter().find_map(|end| Some((end, *ids.get(&format!("{prefix}{}", &rest[..end]))?)));
            let Some((end, id)) = found else {
                out.truncate(first);
                return out.push(self.unknown);
            };
            out.push(id);
            rest = &rest[end..];
        }
    }

    /// Without control characters, spaces around Chinese characters, accents off and small letters where the model has it so.
    fn normal(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        for c in text.chars() {
            if is_space(c) {
                clean.push(' ');
            } else if is_chinese(c) {
                clean.extend([' ', c, ' ']);
            } else if c != '\0' && c != '\u{fffd}' && !is_other(c) {
                clean.push(c);
            }
        }
        if self.strips_accents {
            clean = without_marks(clean);
        }
        if self.lowercase { clean.to_lowercase() } else { clean }
    }

    pub fn decode<'a>(&self, tokens: impl Iterator<Item = &'a str>) -> String {
        let mut text = String::new();
        for token in tokens {
            match token.strip_prefix(self.prefix.as_str()) {
                Some(rest) => text += rest,
                None if text.is_empty() => text += token,
                None => text = text + " " + token,
            }
        }
        text
    }
}

/// Split at spaces, with each mark of punctuation by itself.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in text.chars() {
        if c.is_whitespace() {
            words.push(String::new());
        } else if is_punctuation(c) {
            words.extend([c.to_string(), String::new()]);
        } else {
            words.last_mut().expect("there is one").push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Tabs and line ends count as spaces, not as control characters.
fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || c.is_whitespace()
}

/// The blocks of Chinese characters that BERT names.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
