//! What a sweep still has to do: which points are worth trying, how often each is repeated, and how long it will take.
//!
//! The sweep itself goes length by length, and at each length round by round over all contenders, so that a machine that
//! grows warm or busy does so for all of them.

/// How much effort goes into one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Rounds over the contenders at each length.
    pub rounds: usize,
    /// A point that would take longer ends its contender's curve.
    pub budget_ms: f64,
}

impl Effort {
    /// How many rounds a contender takes part in when one span of it takes so long: all, or as many as the budget holds, but
    /// one.
    pub fn rounds_of(&self, span_ms: f64) -> usize {
        ((self.budget_ms / span_ms.max(1e-6)) as usize).clamp(1, self.rounds)
    }
}

impl Default for Effort {
    fn default() -> Self {
        Self { rounds: 7, budget_ms: 8_000.0 }
    }
}

/// Whether a point is to be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission {
    Run,
    /// One run would take about so long.
    TooLong {
        predicted_ms: f64,
    },
}

/// The state of a sweep.
#[derive(Clone, Debug)]
pub struct Schedule {
    effort: Effort,
    lengths: Vec<usize>,
    contenders: Vec<Contender>,
}

#[derive(Clone, Debug)]
struct Contender {
    /// Exponent that is assumed until two points are known.
    exponent: f64,
    /// (length, time of one run, time spent on the whole point), ascending.
    known: Vec<(usize, f64, f64)>,
    /// Points over, measured or not.
    over: usize,
}

impl Schedule {
    /// A sweep over `lengths` (made ascending and unique) with contenders of these theoretical exponents.
    pub fn new(lengths: &[usize], exponents: &[f64], effort: Effort) -> Self {
        let mut lengths = lengths.to_vec();
        lengths.sort_unstable();
        lengths.dedup();
        let contenders = exponents.iter().map(|&exponent| Contender { exponent, known: vec![], over: 0 }).collect();
        Self { effort, lengths, contenders }
    }

    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Whether this point is worth trying, from the contender's shorter ones.
    pub fn admit(&self, contender: usize, length: usize) -> Admission {
        match self.contenders[contender].predict(length) {
            Some((run, _)) if run > self.effort.budget_ms => Admission::TooLong { predicted_ms: run },
            _ => Admission::Run,
        }
    }

    /// A point is over: one run took `run_ms`, the whole point with preparation `spent_ms`.
    pub fn measured(&mut self, contender: usize, length: usize, run_ms: f64, spent_ms: f64) {
        let c = &mut self.contenders[contender];
        c.known.push((length, run_ms, spent_ms));
        c.over += 1;
    }

    /// A point is over without a time.
    pub fn refused(&mut self, contender: usize) {
        self.contenders[contender].over += 1;
    }

    /// Points over, and of how many.
    pub fn progress(&self) -> (usize, usize) {
        let over = self.contenders.iter().map(|c| c.over).sum();
        (over, self.contenders.len() * self.lengths.len())
    }

    /// Estimated seconds to the end; None before every running contender has a point.
    pub fn seconds_left(&self) -> Option<f64> {
        let mut ms = 0.0;
        for (i, c) in self.contenders.iter().enumerate() {
            for &length in &self.lengths[c.over.min(self.lengths.len())..] {
                let (_, spent) = c.predict(length)?;
                if self.admit(i, length) == Admission::Run {
                    ms += spent;
                }
            }
        }
        Some(ms / 1e3)
    }
}

impl Contender {
    /// Time of one run, and of the whole point, at this length.
    fn predict(&self, length: usize) -> Option<(f64, f64)> {
        let &(n1, run1, spent1) = self.known.last()?;
        let growth = |a: f64, b: f64, ratio: f64| (b.max(1e-9) / a.max(1e-9)).ln() / ratio.ln();
        let exponent = match self.known.len() {
            1 => (self.exponent, self.exponent),
            k => {
                let (n0, run0, spent0) = self.known[k - 2];
                let ratio = n1 as f64 / n0 as f64;
                // Two points are noisy, and overhead at short lengths hides growth that is to come.
                let bound = |e: f64| e.clamp(0.5 * self.exponent, self.exponent + 0.5);
                (bound(growth(run0, run1, ratio)), bound(growth(spent0, spent1, ratio)))
            }
        };
        let ratio = length as f64 / n1 as f64;
        Some((run1 * ratio.powf(exponent.0), spent1 * ratio.powf(exponent.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        Schedule::new(&[256, 64, 128, 128], &[2.0, 1.0], Effort { rounds: 7, budget_ms: 100.0 })
    }

    #[test]
    fn lengths_ascend_and_progress_counts_points() {
        let mut s = schedule();
        assert_eq!(s.lengths(), [64, 128, 256]);
        assert_eq!(s.progress(), (0, 6));
        s.measured(0, 64, 1.0, 10.0);
        s.refused(1);
        assert_eq!(s.progress(), (2, 6));
    }

    #[test]
    fn a_point_over_budget_ends_a_curve() {
        let mut s = schedule();
        assert_eq!(s.admit(0, 256), Admission::Run);
        s.measured(0, 64, 10.0, 70.0);
        assert_eq!(s.admit(0, 128), Admission::Run);
        assert_eq!(s.admit(0, 256), Admission::TooLong { predicted_ms: 160.0 });
        assert_eq!(s.admit(1, 256), Admission::Run);
        // Measured growth replaces the assumed one.
        s.measured(0, 128, 20.0, 140.0);
        assert_eq!(s.admit(0, 256), Admission::Run);
    }

    #[test]
    fn slow_points_are_repeated_less() {
        let s = schedule();
        assert_eq!([0.0, 10.0, 40.0, 99.0, 1e4].map(|ms| s.effort.rounds_of(ms)), [7, 7, 2, 1, 1]);
    }

    #[test]
    fn time_left_is_told_once_it_can_be() {
        let mut s = schedule();
        assert_eq!(s.seconds_left(), None);
        s.measured(0, 64, 1.0, 10.0);
        assert_eq!(s.seconds_left(), None);
        s.measured(1, 64, 1.0, 10.0);
        // 40 + 160 of the first, 20 + 40 of the second.
        assert!((s.seconds_left().unwrap() - 0.26).abs() < 1e-9);
        for length in [128, 256] {
            s.measured(0, length, 1.0, 10.0);
            s.measured(1, length, 1.0, 10.0);
        }
        assert_eq!(s.seconds_left(), Some(0.0));
    }
}
