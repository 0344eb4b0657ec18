//! What a sweep says, as data: the page turns it into sentences of its language, the command line into English.

use super::Timing;
use super::crossover::{Order, order};
use super::fit::PowerLaw;
use crate::sort::Arrange;
use serde::{Deserialize, Serialize};

/// One contender's curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    pub variant: String,
    pub times: Vec<(usize, Timing)>,
    /// Peak bytes by length, also where no time was measured.
    pub bytes: Vec<(usize, u64)>,
    /// Exponent of time in N by the paper.
    pub theory: Option<f64>,
}

/// One statement about a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Verdict {
    /// How the variant's time lies to the other's.
    Time { variant: String, than: String, order: Order },
    /// The other needs `ratio` times the variant's bytes at this length, the longest known for both.
    Memory { variant: String, than: String, length: usize, ratio: f64 },
    /// Growth of measured time with length.
    Growth { variant: String, law: PowerLaw, theory: Option<f64> },
    /// Memory of this adapter ends for the variant at about this length. `fits` is the longest that is sure to fit.
    MemoryEnds { variant: String, length: usize },
}

/// A ratio of bytes as people say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weight {
    /// So many times less memory, above 1.
    Lighter(f64),
    /// So many times more, above 1.
    Heavier(f64),
    Same,
}

impl Weight {
    /// Of the other's bytes over a variant's own. What rounds to 1.00 is the same.
    pub fn of(ratio: f64) -> Self {
        match ratio {
            r if r >= 1.005 => Self::Lighter(r),
            r if 1.0 / r >= 1.005 => Self::Heavier(1.0 / r),
            _ => Self::Same,
        }
    }
}

/// Everything that can be said of these curves, against the one called `base` (usually `full`).
pub fn verdicts(curves: &[Curves], base: &str, quantum_ms: f64, limit_bytes: Option<u64>) -> Vec<Verdict> {
    let mut out = Vec::new();
    let reference = curves.iter().find(|c| c.variant == base);
    for c in curves {
        if let Some(reference) = reference.filter(|r| r.variant != c.variant) {
            let (variant, than) = (c.variant.clone(), base.to_string());
            if let Some(order) = order(&c.times, &reference.times, quantum_ms) {
                out.push(Verdict::Time { variant: variant.clone(), than: than.clone(), order });
            }
            if let Some((length, ratio)) = memory_ratio(c, reference) {
                out.push(Verdict::Memory { variant, than, length, ratio });
            }
        }
        let points: Vec<(f64, f64)> = c.times.iter().map(|(n, t)| (*n as f64, t.median)).collect();
        if let Some(law) = PowerLaw::of_long_end(&points) {
            out.push(Verdict::Growth { variant: c.variant.clone(), law, theory: c.theory });
        }
        if let Some(length) = limit_bytes.and_then(|limit| memory_ends(&c.bytes, limit)) {
            out.push(Verdict::MemoryEnds { variant: c.variant.clone(), length });
        }
    }
    out
}

fn memory_ratio(c: &Curves, reference: &Curves) -> Option<(usize, f64)> {
    c.bytes
        .iter()
        .filter_map(|&(n, mine)| {
            let &(_, theirs) = reference.bytes.iter().find(|(m, _)| *m == n)?;
            (mine > 0).then(|| (n, theirs as f64 / mine as f64))
        })
        .max_by_key(|p| p.0)
}

/// The length at which bytes reach the limit, from known sizes: a parabola through the first, middle and last of them,
/// which is what every variant's memory is. None where it never ends below 2^30 tokens.
pub fn memory_ends(bytes: &[(usize, u64)], limit: u64) -> Option<usize> {
    let mut known: Vec<(f64, f64)> = bytes.iter().map(|&(n, b)| (n as f64, b as f64)).collect();
    known.arrange_by(|a, b| a.0.total_cmp(&b.0));
    known.dedup_by_key(|p| p.0);
    if known.len() < 2 {
        return None;
    }
    let mut through = vec![known[0], known[known.len() / 2], known[known.len() - 1]];
    through.dedup_by_key(|p| p.0);
    // Lagrange's form.
    let at = |x: f64| -> f64 {
        (0..through.len())
            .map(|i| {
                let others = (0..through.len()).filter(|&j| j != i);
                others.fold(through[i].1, |y, j| y * (x - through[j].0) / (through[i].0 - through[j].0))
            })
            .sum()
    };
    let most = 1usize << 30;
    let length = super::fit::largest(1, most, |n| at(n as f64) <= limit as f64)?;
    (length < most).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves(variant: &str, time: impl Fn(f64) -> f64, bytes: impl Fn(u64) -> u64) -> Curves {
        let lengths = [256usize, 512, 1024, 2048, 4096];
        let timing = |n: usize| {
            let median = time(n as f64);
            Timing { median, min: median, max: median, spread: 0.0, repeats: 5, how: "timestamp".into() }
        };
        Curves {
            variant: variant.into(),
            times: lengths.iter().map(|&n| (n, timing(n))).collect(),
            bytes: lengths.iter().map(|&n| (n, bytes(n as u64))).collect(),
            theory: Some(1.0),
        }
    }

    #[test]
    fn a_sweep_is_put_into_statements() {
        let full = curves("full", |n| n * n / 1e4, |n| 4 * n * n + 100 * n);
        let linear = curves("linear", |n| n / 10.0, |n| 100 * n);
        let said = verdicts(&[full, linear], "full", 0.0, Some(1 << 30));
        let time = said.iter().find_map(|v| match v {
            Verdict::Time { variant, order: Order::From { at, .. }, .. } => Some((variant.as_str(), at.round())),
            _ => None,
        });
        assert_eq!(time, Some(("linear", 1000.0)));
        let memory = said.iter().find_map(|v| match v {
            Verdict::Memory { length, ratio, .. } => Some((*length, ratio.round())),
            _ => None,
        });
        assert_eq!(memory, Some((4096, 165.0)));
        let growth: Vec<f64> = said
            .iter()
            .filter_map(|v| match v {
                Verdict::Growth { law, .. } => Some((law.exponent * 1e6).round() / 1e6),
                _ => None,
            })
            .collect();
        assert_eq!(growth, [2.0, 1.0]);
        assert_eq!(said.len(), 6);
    }

    #[test]
    fn a_ratio_of_bytes_is_never_said_upside_down() {
        assert_eq!(Weight::of(0.8), Weight::Heavier(1.25));
        assert_eq!(Weight::of(3.0), Weight::Lighter(3.0));
        assert_eq!([1.0, 1.004, 0.997].map(Weight::of), [Weight::Same; 3]);
    }

    #[test]
    fn memory_ends_where_the_bytes_say() {
        let quadratic: Vec<(usize, u64)> = [64usize, 100, 1000, 4096].map(|n| (n, (4 * n * n + 7 * n) as u64)).into();
        let n = memory_ends(&quadratic, 1 << 30).unwrap();
        assert!(4 * n * n + 7 * n <= 1 << 30 && 4 * (n + 1) * (n + 1) + 7 * (n + 1) > 1 << 30, "{n}");
        assert_eq!(memory_ends(&[(64, 6400), (128, 12800)], 1_000_000), Some(10_000));
        assert_eq!(memory_ends(&[(64, 100), (128, 100)], 1_000_000), None);
        assert_eq!(memory_ends(&[(64, 100)], 1000), None);
    }
}
