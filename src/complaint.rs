//! What a request or a file holds that is not taken: named, so that the rest can still be used.

/// Something in a request that is not taken: which key, what was given, what it takes, and what is used in its place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Complaint {
    pub key: String,
    pub got: String,
    pub takes: String,
    pub used: String,
}

impl Complaint {
    /// Long values are shortened: a complaint is a sentence on a page.
    pub fn new(key: &str, got: &str, takes: impl Into<String>, used: impl ToString) -> Self {
        Self { key: shorten(key, 60), got: shorten(got, 60), takes: takes.into(), used: used.to_string() }
    }
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:?} is not allowed; it takes {}; used: {}", self.key, self.got, self.takes, self.used)
    }
}

/// Cuts a string to at most `bytes`, between characters.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    let end = text.floor_char_boundary(bytes);
    text.truncate(end);
}

fn shorten(s: &str, bytes: usize) -> String {
    let mut out = s.to_string();
    if out.len() > bytes {
        cut(&mut out, bytes);
        out.push('…');
    }
    out
}
