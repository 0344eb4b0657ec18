//! How good predictions are: token accuracy, exact-match accuracy, accuracy by distance.

use super::Batch;

/// Right answers among those judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Count {
    pub right: usize,
    pub judged: usize,
}

/// Answers whose evidence lies `from..=to` positions back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bin {
    pub from: u32,
    pub to: u32,
    pub count: Count,
}

/// Score of one or more batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    /// Judged positions.
    pub tokens: Count,
    /// Sequences with something to judge; right where every judged position is.
    pub sequences: Count,
    /// Judged positions by distance, in octaves: 0, 1, 2–3, 4–7, 8–15, ... Only octaves with something in them, nearest first.
    pub by_distance: Vec<Bin>,
}

impl Count {
    /// Share that is right; `None` where nothing was judged.
    pub fn accuracy(self) -> Option<f64> {
        (self.judged > 0).then(|| self.right as f64 / self.judged as f64)
    }

    fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.judged += 1;
    }

    fn merge(&mut self, other: Self) {
        self.right += other.right;
        self.judged += other.judged;
    }
}

impl Score {
    /// Judges predictions, the likeliest token at each position, `[B, N]`, of a batch with sequences of length `n`.
    ///
    /// # Panics
    /// If `predictions` has another length than the batch, or that is no multiple of `n`.
    pub fn new(batch: &Batch, n: usize, predictions: &[u32]) -> Self {
        assert_eq!(predictions.len(), batch.targets.len(), "one prediction for each position");
        assert!(n > 0 && predictions.len().is_multiple_of(n), "whole sequences of {n}");
        let mut score = Self::default();
        for first in (0..predictions.len()).step_by(n) {
            let judged: Vec<usize> = (first..first + n).filter(|&i| batch.judged[i] > 0.0).collect();
            let mut all = true;
            for &i in &judged {
                let right = predictions[i] == batch.targets[i];
                all &= right;
                score.tokens.add(right);
                score.bin(batch.distance[i]).add(right);
            }
            if !judged.is_empty() {
                score.sequences.add(all);
            }
        }
        score
    }

    /// Adds the counts of another score.
    pub fn merge(&mut self, other: &Self) {
        self.tokens.merge(other.tokens);
        self.sequences.merge(other.sequences);
        for bin in &other.by_distance {
            self.bin(bin.from).merge(bin.count);
        }
    }

    /// The octave of a distance, made where there is none yet.
    fn bin(&mut self, distance: u32) -> &mut Count {
        let from = if distance == 0 { 0 } else { 1 << distance.ilog2() };
        let at = self.by_distance.partition_point(|bin| bin.from < from);
        if self.by_distance.get(at).is_none_or(|bin| bin.from != from) {
            let to = if from == 0 { 0 } else { from + (from - 1) };
            self.by_distance.insert(at, Bin { from, to, count: Count::default() });
        }
        &mut self.by_distance[at].count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sequences of four: three judged in the first, two in the second.
    fn batch() -> Batch {
        Batch {
            inputs: vec![0; 8],
            targets: vec![5, 6, 7, 8, 9, 1, 2, 3],
            judged: vec![0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0],
            distance: vec![0, 0, 3, 4, 0, 0, 2, 7],
        }
    }

    #[test]
    fn counts_by_hand() {
        // Wrong at 3 (judged, distance 4) and at 0 and 4 (not judged).
        let score = Score::new(&batch(), 4, &[0, 6, 7, 0, 0, 1, 2, 3]);
        assert_eq!(score.tokens, Count { right: 4, judged: 5 });
        assert_eq!(score.sequences, Count { right: 1, judged: 2 });
        let bins: Vec<_> = score.by_distance.iter().map(|b| (b.from, b.to, b.count.right, b.count.judged)).collect();
        assert_eq!(bins, [(0, 0, 1, 1), (2, 3, 2, 2), (4, 7, 1, 2)]);
        assert_eq!(score.tokens.accuracy(), Some(0.8));
    }

    #[test]
    fn merging_is_scoring_together() {
        let (all, predictions) = (batch(), [0, 6, 0, 8, 0, 1, 2, 0]);
        let half = |r: std::ops::Range<usize>| Batch {
            inputs: all.inputs[r.clone()].to_vec(),
            targets: all.targets[r.clone()].to_vec(),
            judged: all.judged[r.clone()].to_vec(),
            distance: all.distance[r].to_vec(),
        };
        let mut score = Score::new(&half(4..8), 4, &predictions[4..]);
        score.merge(&Score::new(&half(0..4), 4, &predictions[..4]));
        assert_eq!(score, Score::new(&all, 4, &predictions));
    }

    #[test]
    fn nothing_judged_is_no_accuracy() {
        let mut none = batch();
        none.judged.fill(0.0);
        let score = Score::new(&none, 4, &[1; 8]);
        assert_eq!((score.tokens.accuracy(), score.sequences.accuracy()), (None, None));
        assert!(score.by_distance.is_empty());
        none.judged[0] = 1.0;
        none.distance[0] = u32::MAX;
        assert_eq!(Score::new(&none, 4, &[1; 8]).by_distance[0].to, u32::MAX);
    }
}
