//! From what length on one curve lies clearly below another.

use super::Timing;
use crate::sort::Arrange;
use serde::{Deserialize, Serialize};

/// How two curves lie, over the lengths at which both were measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Order {
    /// The first is faster at every measured length.
    Always { from: usize, to: usize },
    /// The first is faster from about `at` on, a length interpolated between two measured ones.
    From { at: f64, after: usize, by: usize },
    /// The first is slower at the longest length.
    Slower { to: usize },
    /// At the longest length the difference is within the noise, so that nothing is claimed.
    Unclear { to: usize },
}

/// A measured curve: times by length, ascending.
pub type Curve = [(usize, Timing)];

/// Whether `a` is clearly faster (`Some(true)`) or slower (`Some(false)`) than `b`; None where the difference is not
/// larger than what either time is uncertain by.
pub fn faster(a: &Timing, b: &Timing, quantum_ms: f64) -> Option<bool> {
    let noise = a.uncertainty(quantum_ms).max(b.uncertainty(quantum_ms));
    ((a.median - b.median).abs() > noise).then_some(a.median < b.median)
}

/// Compares two curves; None where they share no length.
pub fn order(a: &Curve, b: &Curve, quantum_ms: f64) -> Option<Order> {
    let mut pairs: Vec<(usize, &Timing, &Timing)> =
        a.iter().filter_map(|(n, ta)| b.iter().find(|(m, _)| m == n).map(|(_, tb)| (*n, ta, tb))).collect();
    pairs.arrange_by_key(|p| p.0);
    let to = pairs.last()?.0;
    let sign: Vec<Option<bool>> = pairs.iter().map(|(_, a, b)| faster(a, b, quantum_ms)).collect();
    Some(match sign[sign.len() - 1] {
        None => Order::Unclear { to },
        Some(false) => Order::Slower { to },
        Some(true) => {
            // The first of the lengths from which on it is clearly faster throughout.
            let first = sign.iter().rposition(|s| *s != Some(true)).map_or(0, |i| i + 1);
            if first == 0 {
                return Some(Order::Always { from: pairs[0].0, to });
            }
            let log_ratio = |i: usize| (pairs[i].1.median / pairs[i].2.median).ln();
            let (left, right) = (log_ratio(first - 1), log_ratio(first));
            let (x0, x1) = ((pairs[first - 1].0 as f64).ln(), (pairs[first].0 as f64).ln());
            // Just before, it may have been faster by less than the noise: then the claim begins where it is clear.
            let at = if left > 0.0 { (x0 + (x1 - x0) * left / (left - right)).exp() } else { pairs[first].0 as f64 };
            Order::From { at, after: pairs[first - 1].0, by: pairs[first].0 }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(f: impl Fn(f64) -> f64, spread: f64) -> Vec<(usize, Timing)> {
        (6..13)
            .map(|p| {
                let n = 1usize << p;
                let median = f(n as f64);
                let t = Timing { median, min: median, max: median, spread, repeats: 5, how: "wall".into() };
                (n, t)
            })
            .collect()
    }

    #[test]
    fn power_laws_cross_where_they_should() {
        let quadratic = curve(|n| n * n / 1000.0, 0.0);
        let linear = curve(|n| n * 0.7, 0.0);
        match order(&linear, &quadratic, 0.0) {
            Some(Order::From { at, after: 512, by: 1024 }) => assert!((at - 700.0).abs() < 1e-6, "{at}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(order(&quadratic, &linear, 0.0), Some(Order::Slower { to: 4096 }));
    }

    #[test]
    fn nothing_is_claimed_within_noise() {
        let a = curve(|n| n, 0.0);
        let b = curve(|n| n + 3.0, 0.0);
        assert_eq!(order(&a, &b, 0.0), Some(Order::Always { from: 64, to: 4096 }));
        assert_eq!(order(&a, &b, 3.5), Some(Order::Unclear { to: 4096 }));
        assert_eq!(order(&a, &curve(|n| n + 3.0, 4.0), 0.0), Some(Order::Unclear { to: 4096 }));
        assert_eq!(order(&a, &[], 0.0), None);
    }

    #[test]
    fn a_claim_begins_where_the_difference_is_clear() {
        let a = curve(|n| n, 0.0);
        let b = curve(|n| n * 1.1, 0.0);
        // A tenth of 512 is the first that exceeds a quantum of 30.
        assert_eq!(order(&a, &b, 30.0), Some(Order::From { at: 512.0, after: 256, by: 512 }));
    }

    #[test]
    fn single_runs_need_a_wide_margin() {
        let t = |median, repeats| Timing { median, min: median, max: median, spread: 0.0, repeats, how: "wall".into() };
        assert_eq!(faster(&t(1.0, 1), &t(1.4, 1), 0.0), None);
        assert_eq!(faster(&t(1.0, 1), &t(3.0, 1), 0.0), Some(true));
        assert_eq!(faster(&t(1.0, 5), &t(1.4, 5), 0.0), Some(true));
    }
}
