//! From raw times to statements that hold: statistics, fits, crossovers, the order of a sweep, result files.

pub mod crossover;
pub mod fit;
pub mod result;
pub mod schedule;
pub mod statistics;
pub mod tune;
pub mod verdict;

use serde::{Deserialize, Serialize};

/// Time of one run, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Distance between the first and third quartile of the repeats.
    #[serde(default)]
    pub spread: f64,
    pub repeats: usize,
    /// `timestamp` or `wall`.
    pub how: String,
}

/// Distance of a variant's output from that of `full` on the same inputs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorToFull {
    pub max_abs: f64,
    /// Root mean square of the difference over that of `full`.
    pub rms_ratio: f64,
}

impl Timing {
    /// Summarises the times of single runs. None when there is none, or one of them is no finite positive number.
    pub fn new(runs_ms: &[f64], how: &str) -> Option<Self> {
        let s = statistics::Summary::new(runs_ms)?;
        let positive = s.min >= 0.0;
        positive.then(|| Self {
            median: s.median,
            min: s.min,
            max: s.max,
            spread: s.spread,
            repeats: runs_ms.len(),
            how: how.into(),
        })
    }

    /// What two medians must differ by before one is called smaller: the spread and the quantum of the clock. A single run
    /// says nothing about its spread, so it is ranked only by a wide margin.
    pub fn uncertainty(&self, quantum_ms: f64) -> f64 {
        let spread = if self.repeats < 3 { 0.5 * self.median } else { self.spread };
        spread.max(quantum_ms)
    }
}

impl ErrorToFull {
    /// Compares two outputs of the same length. NaN on either side gives NaN.
    pub fn between(full: &[f32], other: &[f32]) -> Self {
        assert_eq!(full.len(), other.len(), "outputs of different sizes are not compared");
        let (mut max_abs, mut difference, mut size) = (0.0f64, 0.0f64, 0.0f64);
        for (&a, &b) in full.iter().zip(other) {
            let d = f64::from(a) - f64::from(b);
            max_abs = if d.abs() > max_abs || d.is_nan() { d.abs() } else { max_abs };
            difference += d * d;
            size += f64::from(a) * f64::from(a);
        }
        let rms_ratio = if difference == 0.0 { 0.0 } else { (difference / size).sqrt() };
        Self { max_abs, rms_ratio }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_relative_and_shows_nan() {
        let e = ErrorToFull::between(&[3.0, 4.0], &[3.0, 4.5]);
        assert_eq!((e.max_abs, e.rms_ratio), (0.5, 0.1));
        assert!(ErrorToFull::between(&[1.0, 2.0, 3.0], &[1.0, f32::NAN, 3.0]).max_abs.is_nan());
        assert!(ErrorToFull::between(&[1.0], &[f32::NAN]).rms_ratio.is_nan());
        assert_eq!(ErrorToFull::between(&[0.0], &[0.0]).rms_ratio, 0.0);
    }

    #[test]
    fn timing_refuses_what_is_no_time() {
        assert_eq!(Timing::new(&[], "wall"), None);
        assert_eq!(Timing::new(&[1.0, f64::NAN], "wall"), None);
        assert_eq!(Timing::new(&[1.0, -1.0], "wall"), None);
        let t = Timing::new(&[3.0, 1.0, 2.0], "wall").unwrap();
        assert_eq!((t.median, t.min, t.max, t.repeats), (2.0, 1.0, 3.0, 3));
        assert_eq!(t.uncertainty(0.1), 1.0);
        assert_eq!(t.uncertainty(4.0), 4.0);
    }
}
