//! The visitor's own text: the next byte or the next word.
//!
//! The last tenth of the text is held out, at least one sequence of it; both parts are read from random places. Tokens are
//! numbered by how often they occur, so that a short text has a small vocabulary; words beyond the [`MOST_WORDS`] most frequent
//! are one token. What to beat: the loss of guessing by how often a token occurs, and by what stood behind the token before.
//!
//! What it tells apart: with some hundred thousand tokens, how far back the text is worth reading. A short text is soon known by
//! heart, and the held part gets worse while the loss falls: dropout, or fewer steps.

use super::text::{Split, byte_label, word_label, words};
use super::{Dice, Part, Refused, Row, Task, ngram, text::DEFAULT_TEXT};
use crate::sort::Arrange;
use std::collections::HashMap;

/// Longest text in bytes.
pub const MOST_BYTES: usize = 512 * 1024;

/// Words that have a token of their own.
pub const MOST_WORDS: usize = 4095;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// N in tokens, 2 to 4,096; the text is at least twice as long.
    pub length: usize,
    pub split: Split,
    /// At most [`MOST_BYTES`]; none stands for the project's own, which is too short for anything but a look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { length: 64, split: Split::Bytes, text: None }
    }
}

/// The task.
#[derive(Clone, Debug)]
pub struct OwnText {
    length: usize,
    split: Split,
    /// Of each token. A byte's is the byte itself.
    pieces: Vec<Vec<u8>>,
    train: Vec<u32>,
    held: Vec<u32>,
    /// Different tokens that are an answer in training.
    answers: usize,
}

impl OwnText {
    /// # Errors
    /// A parameter is out of bounds, or the text is too long or too short.
    pub fn new(config: &Config) -> Result<Self, Refused> {
        Refused::outside("length", config.length, 2, 4096, "")?;
        let text = config.text.as_deref().unwrap_or(DEFAULT_TEXT);
        let refused =
            |got: String, takes: String, nearest: &str| Refused { key: "text", got, takes, nearest: nearest.into() };
        if text.len() > MOST_BYTES {
            return Err(refused(format!("{} bytes", text.len()), format!("at most {MOST_BYTES}"), "its beginning"));
        }
        let all: Vec<&[u8]> = match config.split {
            Split::Bytes => text.as_bytes().chunks(1).collect(),
            Split::Words => words(text).map(str::as_bytes).collect(),
        };
        if all.len() < 6 {
            let takes = "texts of at least six, two short sequences".into();
            return Err(refused(format!("a text of {} tokens", all.len()), takes, "a longer one"));
        }
        let longest = all.len() / 2 - 1;
        Refused::outside(
            "length",
            config.length,
            2,
            longest,
            "each part of the text holds a sequence and its answers",
        )?;
        let pieces = by_frequency(&all);
        let numbers: HashMap<&[u8], u32> = pieces.iter().enumerate().map(|(i, &piece)| (piece, i as u32)).collect();
        // What is too rare has the number behind the last one.
        let mut train: Vec<u32> =
            all.iter().map(|piece| numbers.get(piece).copied().unwrap_or(pieces.len() as u32)).collect();
        let mut pieces: Vec<Vec<u8>> = pieces.into_iter().map(<[u8]>::to_vec).collect();
        if train.iter().any(|&token| token as usize == pieces.len()) {
            pieces.push("…".into());
        }
        let held = train.split_off(train.len() - (train.len() / 10).max(config.length + 1));
        let mut answers = vec![false; pieces.len()];
        train[1..].iter().for_each(|&token| answers[token as usize] = true);
        let answers = answers.into_iter().filter(|&is| is).count();
        Ok(Self { length: config.length, split: config.split, pieces, train, held, answers })
    }

    fn part(&self, part: Part) -> &Vec<u32> {
        match part {
            Part::Train => &self.train,
            Part::Held => &self.held,
        }
    }
}

/// Different pieces, the most frequent first and of equal ones the smaller; at most [`MOST_WORDS`].
fn by_frequency<'a>(all: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    for piece in all {
        *counts.entry(piece).or_default() += 1;
    }
    let mut pieces: Vec<(&[u8], usize)> = counts.into_iter().collect();
    pieces.arrange_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    pieces.truncate(MOST_WORDS);
    pieces.into_iter().map(|(piece, _)| piece).collect()
}

impl Task for OwnText {
    fn id(&self) -> &'static str {
        "text"
    }

    /// At least 2, which is what a model takes.
    fn vocabulary(&self) -> usize {
        self.pieces.len().max(2)
    }

    fn length(&self) -> usize {
        self.length
    }

    fn causal(&self) -> bool {
        true
    }

    fn chance(&self) -> f64 {
        1.0 / self.answers as f64
    }

    /// Everything is judged, and nobody knows where the evidence lies: distances are 0.
    fn write(&self, part: Part, dice: &mut Dice, row: &mut Row) {
        let tokens = self.part(part);
        let start = dice.below(tokens.len() - self.length);
        row.next_token(&tokens[start..=start + self.length]);
        (0..self.length).for_each(|i| row.judge(i, i));
    }

    fn label(&self, token: u32) -> String {
        match (self.pieces.get(token as usize), self.split) {
            (None, _) => "·".into(),
            (Some(piece), Split::Bytes) if piece.len() == 1 => byte_label(piece[0]),
            (Some(piece), _) => word_label(&String::from_utf8_lossy(piece)),
        }
    }

    fn line(&self, tokens: &[u32]) -> String {
        let pieces = tokens.iter().filter_map(|&token| self.pieces.get(token as usize));
        match self.split {
            Split::Bytes => String::from_utf8_lossy(&pieces.flatten().copied().collect::<Vec<u8>>()).into_owned(),
            Split::Words => pieces.map(|piece| String::from_utf8_lossy(piece)).collect::<Vec<_>>().join(" "),
        }
    }

    fn read(&self, text: &str) -> Option<Vec<u32>> {
        let number = |piece: &[u8]| self.pieces.iter().position(|have| have == piece).map(|at| at as u32);
        Some(match self.split {
            Split::Bytes => text.as_bytes().chunks(1).filter_map(number).collect(),
            Split::Words => words(text).filter_map(|piece| number(piece.as_bytes())).collect(),
        })
    }

    fn baselines(&self) -> Vec<(&'static str, f64)> {
        let counts = ngram::Counts::new(std::slice::from_ref(&self.train), self.vocabulary());
        let held = std::slice::from_ref(&self.held);
        vec![("unigram", counts.unigram_loss(held, 1)), ("bigram", counts.bigram_loss(held))]
    }
}
