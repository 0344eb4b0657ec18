//! What a sweep says, in numbers that sentences are made of: exponents, crossovers, factors of memory.

use crate::lab::protocol::Point;

/// Points a fit needs at least, and how many of the longest it uses: short lengths are ruled by fixed costs.
const FIT_LEAST: usize = 3;
const FIT_MOST: usize = 5;

/// `y = scale * n^exponent`, fitted over lengths from `from` to `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    pub exponent: f64,
    pub scale: f64,
    pub from: usize,
    pub to: usize,
}

impl Fit {
    /// The fitted curve at length `n`.
    pub fn at(&self, n: f64) -> f64 {
        self.scale * n.powf(self.exponent)
    }
}

/// Least squares in log-log over the longest lengths; `points` are (length, value), ascending.
pub fn fit(points: &[(usize, f64)]) -> Option<Fit> {
    let usable: Vec<_> = points.iter().filter(|(n, y)| *n > 0 && *y > 0.0 && y.is_finite()).collect();
    let tail = &usable[usable.len().saturating_sub(FIT_MOST)..];
    if tail.len() < FIT_LEAST {
        return None;
    }
    let count = tail.len() as f64;
    let logs: Vec<(f64, f64)> = tail.iter().map(|(n, y)| ((*n as f64).ln(), y.ln())).collect();
    let mean_x = logs.iter().map(|p| p.0).sum::<f64>() / count;
    let mean_y = logs.iter().map(|p| p.1).sum::<f64>() / count;
    let spread: f64 = logs.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let exponent = logs.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / spread;
    let scale = (mean_y - exponent * mean_x).exp();
    Some(Fit { exponent, scale, from: tail.first()?.0, to: tail.last()?.0 })
}

/// A variant's points, ascending in length.
pub fn series<'a>(points: &'a [Point], variant: &str) -> Vec<&'a Point> {
    let mut found: Vec<&Point> = points.iter().filter(|p| p.variant == variant).collect();
    found.sort_by_key(|p| p.length);
    found
}

/// (length, median ms) where time was measured.
pub fn times(points: &[&Point]) -> Vec<(usize, f64)> {
    points.iter().filter_map(|p| Some((p.length, p.time.as_ref()?.median))).collect()
}

/// (length, peak bytes) where it is known.
pub fn bytes(points: &[&Point]) -> Vec<(usize, f64)> {
    points.iter().filter(|p| p.bytes_peak > 0).map(|p| (p.length, p.bytes_peak as f64)).collect()
}

/// How a variant's time compares with full attention's over the lengths both were measured at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crossover {
    /// Faster from this length on, by this factor at the longest.
    From { length: usize, longest: usize, factor: f64 },
    /// Not faster, beyond the spread, at the longest length.
    NotYet { longest: usize },
}

/// Compares only what differs by more than its spread: all of one's runs before all of the other's.
pub fn crossover(variant: &[&Point], full: &[&Point]) -> Option<Crossover> {
    let mut both: Vec<(usize, bool, f64)> = variant
        .iter()
        .filter_map(|ours| {
            let theirs = full.iter().find(|p| p.length == ours.length)?;
            let (a, b) = (ours.time.as_ref()?, theirs.time.as_ref()?);
            Some((ours.length, a.max < b.min, b.median / a.median))
        })
        .collect();
    both.sort_by_key(|x| x.0);
    let (longest, _, factor) = *both.last()?;
    let faster = both.iter().rev().take_while(|x| x.1).last();
    Some(match faster {
        Some((length, ..)) => Crossover::From { length: *length, longest, factor },
        None => Crossover::NotYet { longest },
    })
}

/// (longest common length, full's bytes over the variant's).
pub fn memory_factor(variant: &[&Point], full: &[&Point]) -> Option<(usize, f64)> {
    let ours = variant
        .iter()
        .rev()
        .find(|p| p.bytes_peak > 0 && full.iter().any(|f| f.length == p.length && f.bytes_peak > 0))?;
    let theirs = full.iter().find(|f| f.length == ours.length)?;
    Some((ours.length, theirs.bytes_peak as f64 / ours.bytes_peak as f64))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::lab::protocol::Timing;

    pub fn point(variant: &str, length: usize, ms: f64, bytes_peak: u64) -> Point {
        let time = Timing { median: ms, min: ms * 0.95, max: ms * 1.05, repeats: 7, how: "wall".into() };
        Point {
            variant: variant.into(),
            length,
            time: Some(time),
            stages_ms: vec![],
            bytes_peak,
            bytes_by_category: vec![],
            flops: 1,
            error_to_full: None,
            refused: None,
        }
    }

    #[test]
    fn a_power_law_is_found_again() {
        let points: Vec<_> = [64, 128, 256, 512, 1024].map(|n| (n, 0.003 * (n as f64).powf(1.7))).into();
        let fit = fit(&points).unwrap();
        assert!((fit.exponent - 1.7).abs() < 1e-9, "{fit:?}");
        assert!((fit.at(2048.0) / (0.003 * 2048_f64.powf(1.7)) - 1.0).abs() < 1e-9);
        assert_eq!(super::fit(&points[..2]), None);
    }

    #[test]
    fn a_crossover_needs_more_than_the_spread() {
        let full = [point("full", 256, 1.0, 10), point("full", 512, 4.0, 20), point("full", 1024, 16.0, 40)];
        let linear = [point("linear", 256, 2.0, 5), point("linear", 512, 3.9, 8), point("linear", 1024, 8.0, 10)];
        let (full, linear): (Vec<_>, Vec<_>) = (full.iter().collect(), linear.iter().collect());
        assert_eq!(crossover(&linear, &full), Some(Crossover::From { length: 1024, longest: 1024, factor: 2.0 }));
        assert_eq!(crossover(&full, &linear), Some(Crossover::NotYet { longest: 1024 }));
        assert_eq!(memory_factor(&linear, &full), Some((1024, 4.0)));
        assert_eq!(crossover(&[], &full), None);
    }
}
