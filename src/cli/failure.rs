//! Why a command did not do what it was asked, and the exit status that says so.

use attention_lab::attention::{self, Refusal, Variant};
use attention_lab::graph::cpu;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request is wrong: which option or tensor, what it got, what it takes.
    #[error("{0}")]
    Request(String),
    /// There is no adapter, or it can't.
    #[error("{0}")]
    Adapter(String),
    /// The device was lost, or memory ran out.
    #[error("{0}")]
    Device(String),
    #[error("cancelled")]
    Cancelled,
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Failure::Request(_) => 2,
            Failure::Adapter(_) => 3,
            Failure::Device(_) => 4,
            Failure::Cancelled => 130,
        }
    }

    pub fn request(message: impl Into<String>) -> Self {
        Self::Request(message.into())
    }
}

/// A refusal in one line.
pub fn in_words(refusal: &Refusal) -> String {
    match &refusal.nearest {
        Some(nearest) => format!("{}; nearest that works: {nearest}", refusal.reason),
        None => refusal.reason.clone(),
    }
}

impl From<cpu::Error> for Failure {
    fn from(error: cpu::Error) -> Self {
        match error {
            cpu::Error::Cancelled => Self::Cancelled,
            other => Self::Request(other.to_string()),
        }
    }
}

/// The variant with this id, or a failure that names the nearest one.
pub fn find_variant(id: &str) -> Result<&'static Variant, Failure> {
    attention::find(id).ok_or_else(|| {
        let ids: Vec<&str> = attention::ALL.iter().map(|v| v.id).collect();
        let nearest = nearest(id, &ids).map_or(String::new(), |near| format!(", did you mean `{near}`?"));
        Failure::Request(format!("no variant `{id}`{nearest} There are: {}", ids.join(", ")))
    })
}

/// The name that needs the fewest edits, where that is few enough to have been meant.
pub fn nearest<'a>(got: &str, names: &[&'a str]) -> Option<&'a str> {
    // What was typed may be of any length; names are short.
    let got: Vec<char> = got.chars().take(64).collect();
    let (edits, name) = names.iter().map(|&name| (edits(&got, name), name)).min()?;
    (edits <= got.len().max(3) / 3 + 1).then_some(name)
}

/// Levenshtein distance.
fn edits(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_the_status_that_the_interface_gives_it() {
        use attention_lab::gpu::Error;
        let of = |error: Error| Failure::from(error).code();
        assert_eq!(Failure::request("no").code(), 2);
        assert_eq!(of(Error::NoAdapter { wanted: None, found: vec![] }), 3);
        assert_eq!(of(Error::TooLarge { what: "x".into(), needs: 2, limit: 1, limit_name: "limit" }), 3);
        assert_eq!(of(Error::Lost { reason: "reset".into() }), 4);
        assert_eq!(of(Error::OutOfMemory { what: "x".into() }), 4);
        assert_eq!(of(Error::Cancelled), 130);
        assert_eq!(Failure::from(cpu::Error::Cancelled).code(), 130);
    }

    #[test]
    fn the_nearest_name_is_the_one_meant() {
        let names = ["full", "full_naive", "sliding_window", "linformer", "linear"];
        assert_eq!(nearest("linaer", &names), Some("linear"));
        assert_eq!(nearest("slidingwindow", &names), Some("sliding_window"));
        assert_eq!(nearest("zzzzzz", &names), None);
        assert_eq!(edits(&['k', 'i', 't', 't', 'e', 'n'], "sitting"), 3);
    }
}
