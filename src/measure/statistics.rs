//! Order statistics of a few repeats.

use crate::sort::Arrange;

/// Median and extremes of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Third quartile less first.
    pub spread: f64,
}

impl Summary {
    /// None for no numbers, or where one is not finite: a NaN must not hide in a median.
    pub fn new(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.arrange_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5),
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            spread: quantile(&sorted, 0.75) - quantile(&sorted, 0.25),
        })
    }
}

/// The `p`-quantile of ascending numbers, interpolated between neighbours.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (at - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_is_of_the_order_statistics() {
        let s = Summary::new(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!(s, Summary { median: 3.0, min: 1.0, max: 5.0, spread: 2.0 });
        assert_eq!(Summary::new(&[1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Summary::new(&[7.0]).unwrap().spread, 0.0);
    }

    #[test]
    fn summary_refuses_nan_and_infinity() {
        for bad in [f64::NAN, f64::INFINITY] {
            assert_eq!(Summary::new(&[1.0, bad, 2.0]), None);
        }
        assert_eq!(Summary::new(&[]), None);
    }
}
