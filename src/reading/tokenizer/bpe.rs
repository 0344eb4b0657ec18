//! Byte-level pairs, as GPT-2 has them (Sennrich et al., 2016, arXiv:1508.07909; Radford et al., 2019).

use super::unicode::{is_letter, is_number};
use crate::reading::Unfit;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

#[derive(Clone, Debug)]
pub struct Bpe {
    /// Two neighbours, and what they become: rank and id. Lower ranks go first.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// The token of each byte; none where the vocabulary lacks it.
    bytes: [Option<u32>; 256],
    /// A space is put before a text that begins with none.
    spaced: bool,
}

impl Bpe {
    pub fn new(merges: &[[String; 2]], ids: &HashMap<String, u32>, spaced: bool) -> Result<Self, Unfit> {
        let id = |token: &str| {
            ids.get(token)
                .copied()
                .ok_or_else(|| Unfit::Tokenizer(format!("its merges name {token:?}, which has no id")))
        };
        let mut pairs = HashMap::with_capacity(merges.len());
        for (rank, [left, right]) in merges.iter().enumerate() {
            let merged = (rank as u32, id(&format!("{left}{right}"))?);
            pairs.entry((id(left)?, id(right)?)).or_insert(merged);
        }
        let mut bytes = [None; 256];
        for (byte, token) in bytes.iter_mut().enumerate() {
            *token = ids.get(letter(byte as u8).encode_utf8(&mut [0; 4]) as &str).copied();
        }
        Ok(Self { merges: pairs, bytes, spaced })
    }

    pub fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let led = self.spaced && !text.starts_with(char::is_whitespace);
        let text = if led { &format!(" {text}") } else { text };
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(piece(rest));
            self.merge(piece, out);
            rest = behind;
        }
    }

    /// Joins the pair of lowest rank again and again, of equals the first. Pairs wait in a heap, so that a word of many thousand
    /// letters takes no time that one notices.
    fn merge(&self, piece: &str, out: &mut Vec<u32>) {
        let mut tokens: Vec<Option<u32>> =
            piece.bytes().filter_map(|byte| self.bytes[byte as usize]).map(Some).collect();
        // Neighbours of those that are left; an end is none.
        let mut before: Vec<Option<usize>> = (0..tokens.len()).map(|at| at.checked_sub(1)).collect();
        let mut behind: Vec<Option<usize>> = (1..=tokens.len()).map(|at| (at < tokens.len()).then_some(at)).collect();
        let mut waiting = BinaryHeap::new();
        let pair = |tokens: &[Option<u32>], at: usize, next: usize| {
            let (rank, merged) = *self.merges.get(&(tokens[at]?, tokens[next]?))?;
            Some(Reverse((rank, at, next, merged)))
        };
        waiting.extend((1..tokens.len()).filter_map(|next| pair(&tokens, next - 1, next)));
        while let Some(Reverse((rank, at, next, merged))) = waiting.pop() {
            // One of the two may have been joined with another since.
            if behind[at] != Some(next) || pair(&tokens, at, next) != Some(Reverse((rank, at, next, merged))) {
                continue;
            }
            tokens[at] = Some(merged);
            tokens[next] = None;
            behind[at] = behind[next];
            if let Some(far) = behind[at] {
                before[far] = Some(at);
                waiting.extend(pair(&tokens, at, far));
            }
            if let Some(first) = before[at] {
                waiting.extend(pair(&tokens, first, at));
            }
        }
        out.extend(tokens.into_iter().flatten());
    }
}

/// The text of tokens: letters back to bytes, and tokens that stand for themselves as they are.
pub fn decode<'a>(tokens: impl Iterator<Item = &'a str>, whole: &[String]) -> String {
    let mut bytes = Vec::new();
    for token in tokens {
        if whole.iter().any(|other| other == token) {
            bytes.extend(token.bytes());
        } else {
            bytes.extend(token.chars().filter_map(byte));
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The bytes of a token as numbers, `E282`: of one that is no text.
pub fn bytes_of(token: &str) -> String {
    token.chars().filter_map(byte).map(|byte| format!("{byte:02X}")).collect()
}

/// The letter that stands for a byte in a vocabulary: itself where it can be seen, one from U+0100 on where it cannot.
fn letter(byte: u8) -> char {
    let hidden = (0..byte).filter(|&b| !is_seen(b)).count() as u32;
    if is_seen(byte) { char::from(byte) } else { char::from_u32(256 + hidden).expect("letters of Latin Extended-A") }
}

fn byte(letter: char) -> Option<u8> {
    match u8::try_from(u32::from(letter)) {
        Ok(byte) => is_seen(byte).then_some(byte),
        Err(_) => (0..=255).filter(|&b| !is_seen(b)).nth((u32::from(letter) - 256) as usize),
    }
}

fn is_seen(byte: u8) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

/// How long the first piece of a text is, in bytes: GPT-2's pattern
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, by hand since its look-ahead is beyond
/// regular expressions that never backtrack.
fn piece(text: &str) -> usize {
    for ending in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        if text.starts_with(ending) {
            return ending.len();
        }
    }
    let space = usize::from(text.starts_with(' '));
    if let Some(class) = text[space..].chars().next().map(Class::of).filter(|class| *class != Class::Space) {
        let behind = text[space..].find(|c| Class::of(c) != class);
        return behind.map_or(text.len(), |at| space + at);
    }
    let run = text.find(|c| Class::of(c) != Class::Space).unwrap_or(text.len());
    // The last one of several spaces goes to what follows.
    match text[..run].char_indices().next_back() {
        Some((last, _)) if run < text.len() && last > 0 => last,
        _ => run,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        if c.is_whitespace() {
            return Self::Space;
        }
        match c {
            c if is_letter(c) => Self::Letter,
            c if is_number(c) => Self::Number,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(mut text: &str) -> Vec<&str> {
        let mut all = Vec::new();
        while !text.is_empty() {
            let (first, rest) = text.split_at(piece(text));
            all.push(first);
            text = rest;
        }
        all
    }

    #[test]
    fn texts_are_split_as_the_pattern_says() {
        assert_eq!(pieces("Hello world"), ["Hello", " world"]);
        assert_eq!(pieces("it's we'll I'D"), ["it", "'s", " we", "'ll", " I", "'", "D"]);
        assert_eq!(pieces("a  b"), ["a", " ", " b"]);
        assert_eq!(pieces("a \n\tb  "), ["a", " \n", "\t", "b", "  "]);
        assert_eq!(pieces(" 12ab!? x²"), [" 12", "ab", "!?", " x", "²"]);
        assert_eq!(pieces("नमस्ते"), ["नमस", "्", "त", "े"], "marks are no letters");
        assert_eq!(pieces("\u{a0}x"), ["\u{a0}", "x"]);
    }

    #[test]
    fn bytes_and_letters_are_one_to_one() {
        let letters: std::collections::BTreeSet<char> = (0..=255).map(letter).collect();
        assert_eq!(letters.len(), 256);
        assert!((0..=255).all(|b| byte(letter(b)) == Some(b)));
        assert_eq!((letter(b' '), letter(b'\n'), letter(b'A')), ('Ġ', 'Ċ', 'A'));
        assert_eq!(byte('€'), None);
    }
}
