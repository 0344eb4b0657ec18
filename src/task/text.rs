//! Text to tokens: words or bytes of any Unicode text, each with an id for the embedding and a label for an axis.

use crate::ids::ids;
use std::collections::HashSet;
use unicode_segmentation::UnicodeSegmentation;

ids! {
    /// How text becomes tokens.
    Split {
        #[default]
        Words = "words",
        Bytes = "bytes",
    }
}

/// Tokens that a text is cut to.
pub const MAX_TOKENS: usize = 16_384;

/// Characters of a label; longer words are shortened on the axes.
const MAX_LABEL_CHARS: usize = 24;

/// The project's own text: stories of [`super::story`] that no shipped model has learned from.
pub const DEFAULT_TEXT: &str = include_str!("../../assets/texts/default.txt");

/// A text as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tokens {
    /// The same token has the same id in every text.
    pub ids: Vec<u32>,
    /// What an axis shows: controls, blanks and lone combining marks are made visible, long words are shortened.
    pub labels: Vec<String>,
    /// Tokens of the whole text.
    pub counted: usize,
    /// Different ones among those kept.
    pub distinct: usize,
    /// The text has more tokens than are kept.
    pub cut: bool,
    /// How often the text was begun to fill the length asked for; 1 where it was long enough.
    pub rounds: usize,
}

impl Tokens {
    /// Splits a text; keeps the first [`MAX_TOKENS`].
    pub fn new(text: &str, split: Split) -> Self {
        let mut tokens = Self { rounds: 1, ..Self::default() };
        match split {
            Split::Words => {
                for piece in words(text) {
                    tokens.add(|| (hash(piece.as_bytes()), word_label(piece)));
                }
            }
            Split::Bytes => {
                for byte in text.bytes() {
                    tokens.add(|| (u32::from(byte), byte_label(byte)));
                }
            }
        }
        tokens.finish()
    }

    /// Exactly `n` tokens (at most [`MAX_TOKENS`]) of a text, begun again as often as needed. No text, or one without a
    /// token, means the project's own.
    pub fn of_length(text: Option<&str>, split: Split, n: usize) -> Self {
        let n = n.min(MAX_TOKENS);
        let mut tokens = Self::new(text.unwrap_or(DEFAULT_TEXT), split);
        if tokens.ids.is_empty() {
            tokens = Self::new(DEFAULT_TEXT, split);
        }
        let have = tokens.ids.len();
        tokens.cut = tokens.counted > n;
        tokens.rounds = n.div_ceil(have).max(1);
        tokens.ids = (0..n).map(|i| tokens.ids[i % have]).collect();
        tokens.labels = (0..n).map(|i| tokens.labels[i % have].clone()).collect();
        tokens.finish()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn add(&mut self, token: impl FnOnce() -> (u32, String)) {
        self.counted += 1;
        if self.ids.len() < MAX_TOKENS {
            let (id, label) = token();
            self.ids.push(id);
            self.labels.push(label);
        } else {
            self.cut = true;
        }
    }

    fn finish(mut self) -> Self {
        self.distinct = self.ids.iter().collect::<HashSet<_>>().len();
        self
    }
}

/// The words behind [`Tokens::of_length`].
pub fn words_of_length(text: Option<&str>, n: usize) -> Vec<&str> {
    let mut all: Vec<&str> = words(text.unwrap_or(DEFAULT_TEXT)).take(MAX_TOKENS).collect();
    if all.is_empty() {
        all = words(DEFAULT_TEXT).collect();
    }
    (0..n.min(MAX_TOKENS)).map(|i| all[i % all.len()]).collect()
}

/// Words, numbers, emoji and single punctuation marks by the Unicode word boundaries (UAX 29); white space separates only.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_word_bounds().filter(|piece| !piece.chars().all(char::is_whitespace))
}

/// FNV-1a, 32 bits.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811C_9DC5, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

pub(super) fn word_label(piece: &str) -> String {
    let mut label = String::new();
    for (i, c) in piece.chars().enumerate() {
        if i == MAX_LABEL_CHARS {
            label.push('…');
            break;
        }
        match visible_control(c) {
            Some(symbol) => label.push(symbol),
            // Marks that would turn the direction of what stands beside the label, or show nothing at all.
            None if i == 0 && piece.chars().count() == 1 && invisible(c) => label += &format!("U+{:04X}", u32::from(c)),
            None if matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {}
            // A lone combining mark sits on a dotted circle.
            None if i == 0 && combining(c) => label.extend(['◌', c]),
            None => label.push(c),
        }
    }
    label
}

/// A token of a model's own, in which spaces count.
pub(crate) fn piece_label(piece: &str) -> String {
    word_label(&piece.replace(' ', "·"))
}

pub(super) fn byte_label(byte: u8) -> String {
    let c = char::from(byte);
    match byte {
        b' ' => "␠".into(),
        0x21..=0x7e => c.into(),
        _ => visible_control(c).filter(|_| byte < 0x80).map_or_else(|| format!("0x{byte:02X}"), String::from),
    }
}

/// The control pictures of Unicode.
fn visible_control(c: char) -> Option<char> {
    match c {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)),
        '\u{7f}' => Some('␡'),
        '\u{80}'..='\u{9f}' => Some('\u{fffd}'),
        _ => None,
    }
}

fn invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// The blocks of combining marks proper.
fn combining(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{64b}'..='\u{65f}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::bits;

    fn labels(text: &str) -> Vec<String> {
        Tokens::new(text, Split::Words).labels
    }

    #[test]
    fn words_and_punctuation_are_tokens_and_white_space_is_not() {
        assert_eq!(labels("  Mara lit\tthe lamp,\r\n\n twice."), ["Mara", "lit", "the", "lamp", ",", "twice", "."]);
        assert_eq!(labels("it's 3.14 e-mail"), ["it's", "3.14", "e", "-", "mail"]);
    }

    #[test]
    fn any_script_is_split() {
        assert_eq!(labels("👩🏽‍🚀 flies 🇩🇪🇫🇷"), ["👩🏽‍🚀", "flies", "🇩🇪", "🇫🇷"]);
        assert_eq!(labels("שלום עולם"), ["שלום", "עולם"]);
        assert_eq!(labels("cafe\u{301} a\0b"), ["cafe\u{301}", "a", "␀", "b"]);
        assert_eq!(labels("\u{301}"), ["◌\u{301}"]);
        assert_eq!(labels("\u{202e}"), ["U+202E"]);
        assert_eq!(labels("漢字"), ["漢", "字"]);
    }

    #[test]
    fn bytes_have_printable_labels() {
        let t = Tokens::new("aé \n\0", Split::Bytes);
        assert_eq!(t.labels, ["a", "0xC3", "0xA9", "␠", "␊", "␀"]);
        assert_eq!(t.ids, [97, 0xC3, 0xA9, 32, 10, 0]);
    }

    #[test]
    fn long_texts_are_cut_and_counted() {
        let t = Tokens::new(&"word ".repeat(MAX_TOKENS + 5), Split::Words);
        assert_eq!((t.len(), t.counted, t.cut, t.distinct), (MAX_TOKENS, MAX_TOKENS + 5, true, 1));
        let t = Tokens::new(&"x".repeat(100_000), Split::Words);
        assert_eq!((t.len(), t.labels[0].chars().count()), (1, MAX_LABEL_CHARS + 1));
    }

    #[test]
    fn a_length_is_filled_or_cut() {
        let t = Tokens::of_length(Some("one two three"), Split::Words, 7);
        assert_eq!(t.labels, ["one", "two", "three", "one", "two", "three", "one"]);
        assert_eq!((t.rounds, t.cut, t.counted, t.distinct), (3, false, 3, 3));
        let t = Tokens::of_length(Some("one two three"), Split::Words, 2);
        assert_eq!((t.labels.len(), t.cut, t.rounds, t.distinct), (2, true, 1, 2));
        let default = Tokens::of_length(None, Split::Words, 40);
        assert_eq!(Tokens::of_length(Some(" \n"), Split::Words, 40), default);
        assert_eq!(Tokens::of_length(None, Split::Words, 1 << 20).len(), MAX_TOKENS);
    }

    #[test]
    fn the_same_word_has_the_same_id() {
        let t = Tokens::new(DEFAULT_TEXT, Split::Words);
        let at: Vec<usize> = (0..t.len()).filter(|&i| t.labels[i] == "the").collect();
        assert!(at.len() > 5 && at.iter().all(|&i| t.ids[i] == t.ids[at[0]]));
        let words: HashSet<&String> = t.labels.iter().collect();
        assert_eq!(words.len(), t.distinct, "two words of the default text share an id");
        assert!(!t.cut && t.counted > 250);
    }

    #[test]
    fn any_text_is_split_without_a_panic() {
        for round in 0..300 {
            let length = bits(1, round, 0) % 60;
            let text: String = (0..length)
                .filter_map(|i| char::from_u32((bits(2, round, i) % [0x80, 0x3000, 0x11_0000][i as usize % 3]) as u32))
                .collect();
            for split in [Split::Words, Split::Bytes] {
                let t = Tokens::of_length(Some(&text), split, 33);
                assert_eq!((t.ids.len(), t.labels.len()), (33, 33));
                assert!(t.labels.iter().all(|l| !l.is_empty()), "{text:?}");
            }
        }
    }
}
