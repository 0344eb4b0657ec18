//! Power laws `y = c · x^e`, fitted in log-log, and what they say about lengths that were not measured.

use crate::sort::Arrange;
use serde::{Deserialize, Serialize};

/// A fitted power law.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerLaw {
    pub exponent: f64,
    /// Standard error of the exponent; none from two points, which any power law fits.
    pub error: Option<f64>,
    pub coefficient: f64,
    pub points: usize,
    /// The range it was fitted over.
    pub from: f64,
    pub to: f64,
}

impl PowerLaw {
    /// Least squares of `ln y` on `ln x` over the points with `from <= x <= to`. Points that are not positive and finite are
    /// left out; None where fewer than two different x remain.
    pub fn fit(points: &[(f64, f64)], from: f64, to: f64) -> Option<Self> {
        let logs: Vec<(f64, f64)> = points
            .iter()
            .filter(|(x, y)| (from..=to).contains(x) && *x > 0.0 && *y > 0.0 && x.is_finite() && y.is_finite())
            .map(|(x, y)| (x.ln(), y.ln()))
            .collect();
        let n = logs.len() as f64;
        let mean = |f: fn(&(f64, f64)) -> f64| logs.iter().map(f).sum::<f64>() / n;
        let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
        let sxx: f64 = logs.iter().map(|p| (p.0 - mx).powi(2)).sum();
        if logs.len() < 2 || sxx < 1e-12 {
            return None;
        }
        let sxy: f64 = logs.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
        let exponent = sxy / sxx;
        let residual: f64 = logs.iter().map(|p| (p.1 - my - exponent * (p.0 - mx)).powi(2)).sum();
        Some(Self {
            exponent,
            error: (logs.len() > 2).then(|| (residual / (n - 2.0) / sxx).sqrt()),
            coefficient: (my - exponent * mx).exp(),
            points: logs.len(),
            from: logs.iter().map(|p| p.0).fold(f64::INFINITY, f64::min).exp(),
            to: logs.iter().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max).exp(),
        })
    }

    /// The law of the long end: a factor of eight below the largest x, but three points where there are three. Short
    /// lengths are overhead and tell nothing about growth.
    pub fn of_long_end(points: &[(f64, f64)]) -> Option<Self> {
        let mut xs: Vec<f64> = points.iter().filter(|p| p.1.is_finite() && p.1 > 0.0).map(|p| p.0).collect();
        xs.arrange_by(f64::total_cmp);
        xs.dedup();
        let &last = xs.last()?;
        let third = xs[xs.len().saturating_sub(3)];
        // Logarithms and back cost a few bits; the bound must not lose a point to them.
        Self::fit(points, (last / 8.0).min(third) * (1.0 - 1e-9), last * (1.0 + 1e-9))
    }

    /// The value at `x`.
    pub fn at(&self, x: f64) -> f64 {
        self.coefficient * x.powf(self.exponent)
    }

    /// Where it reaches `y`; None where it does not grow.
    pub fn reaches(&self, y: f64) -> Option<f64> {
        (self.exponent > 0.0 && y > 0.0).then(|| (y / self.coefficient).powf(1.0 / self.exponent))
    }
}

/// The largest whole number in `low..=high` for which `fits` holds, given that it holds up to some number and not beyond.
/// None where it does not even hold for `low`.
pub fn largest(low: usize, high: usize, mut fits: impl FnMut(usize) -> bool) -> Option<usize> {
    if low > high || !fits(low) {
        return None;
    }
    let (mut good, mut bad) = (low, high + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) { good = middle } else { bad = middle }
    }
    Some(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal;

    #[test]
    fn fit_finds_an_exact_law() {
        let points: Vec<(f64, f64)> = (1..6).map(|i| (f64::from(1 << i), 3.0 * f64::from(1 << i).powf(1.7))).collect();
        let law = PowerLaw::fit(&points, 0.0, 1e9).unwrap();
        assert!((law.exponent - 1.7).abs() < 1e-12 && (law.coefficient - 3.0).abs() < 1e-12);
        assert!(law.error.unwrap() < 1e-7);
        assert!((law.at(100.0) - 3.0 * 100f64.powf(1.7)).abs() < 1e-8);
        assert!((law.reaches(law.at(77.0)).unwrap() - 77.0).abs() < 1e-9);
    }

    #[test]
    fn the_error_of_an_exponent_covers_the_truth() {
        let mut covered = 0;
        for seed in 0..400 {
            let points: Vec<(f64, f64)> = (0..12)
                .map(|i| {
                    let x = 2f64.powi(i);
                    (x, 5.0 * x.powf(2.0) * (0.1 * normal(seed, 0, i as u64)).exp())
                })
                .collect();
            let law = PowerLaw::fit(&points, 0.0, 1e9).unwrap();
            // 2.228 is the 97.5 % quantile of Student's t with 10 degrees of freedom.
            covered += usize::from((law.exponent - 2.0).abs() < 2.228 * law.error.unwrap());
        }
        assert!((365..=392).contains(&covered), "95 % intervals covered the truth {covered} times of 400");
    }

    #[test]
    fn the_long_end_leaves_overhead_out() {
        let points: Vec<(f64, f64)> =
            [64.0, 128.0, 256.0, 2048.0, 4096.0, 8192.0, 16384.0].map(|x: f64| (x, x.max(1000.0))).into();
        let law = PowerLaw::of_long_end(&points).unwrap();
        assert_eq!((law.points, law.from.round(), law.to.round()), (4, 2048.0, 16384.0));
        assert!((law.exponent - 1.0).abs() < 1e-9);
        let two = PowerLaw::of_long_end(&points[..2]).unwrap();
        assert_eq!((two.points, two.error), (2, None));
    }

    #[test]
    fn fit_refuses_what_is_no_curve() {
        assert_eq!(PowerLaw::fit(&[(1.0, 1.0)], 0.0, 9.0), None);
        assert_eq!(PowerLaw::fit(&[(2.0, 1.0), (2.0, 3.0)], 0.0, 9.0), None);
        assert_eq!(PowerLaw::fit(&[(1.0, f64::NAN), (2.0, 3.0), (0.0, 1.0)], 0.0, 9.0), None);
        assert_eq!(PowerLaw::of_long_end(&[]), None);
    }

    #[test]
    fn largest_is_the_last_that_fits() {
        for limit in [0, 1, 5, 63, 64, 65, 100] {
            let want = if limit < 1 { None } else { Some(limit.min(64)) };
            assert_eq!(largest(1, 64, |n| n <= limit), want);
        }
    }
}
