//! Players without a model: guess by how often a word has been seen, alone or behind the word before.

use std::collections::HashMap;

/// How many imagined words, spread as single words are, are added to what was seen behind a word.
const PRIOR: f64 = 2.0;

/// How often words and pairs of words occur.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    words: Vec<u32>,
    total: u64,
    pairs: HashMap<(u32, u32), u32>,
    /// Words that have one behind them.
    leading: Vec<u32>,
}

impl Counts {
    /// Counts sequences of tokens below `vocabulary`.
    pub fn new(sequences: &[Vec<u32>], vocabulary: usize) -> Self {
        let mut counts = Self { words: vec![0; vocabulary], leading: vec![0; vocabulary], ..Self::default() };
        for sequence in sequences {
            for &token in sequence {
                counts.words[token as usize] += 1;
                counts.total += 1;
            }
            for pair in sequence.windows(2) {
                *counts.pairs.entry((pair[0], pair[1])).or_default() += 1;
                counts.leading[pair[0] as usize] += 1;
            }
        }
        counts
    }

    /// Nats per token by single words, one imagined of each; the first `skipped` of each sequence do not count.
    pub fn unigram_loss(&self, held: &[Vec<u32>], skipped: usize) -> f64 {
        mean(held.iter().flat_map(|sequence| sequence.iter().skip(skipped)).map(|&token| -self.alone(token).ln()))
    }

    /// Nats per token, but the first of each sequence, by the token before.
    pub fn bigram_loss(&self, held: &[Vec<u32>]) -> f64 {
        let pairs = held.iter().flat_map(|sequence| sequence.windows(2));
        mean(pairs.map(|pair| -self.behind(pair[0], pair[1]).ln()))
    }

    fn alone(&self, token: u32) -> f64 {
        f64::from(self.words[token as usize] + 1) / (self.total as f64 + self.words.len() as f64)
    }

    fn behind(&self, before: u32, token: u32) -> f64 {
        let seen = f64::from(self.pairs.get(&(before, token)).copied().unwrap_or(0));
        (seen + PRIOR * self.alone(token)) / (f64::from(self.leading[before as usize]) + PRIOR)
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), x| (sum + x, count + 1));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_by_hand() {
        // Words 0 0 1: with one imagined of each of three, p = 3/6, 2/6, 1/6.
        let counts = Counts::new(&[vec![0, 0, 1]], 3);
        let unigram = counts.unigram_loss(&[vec![2, 1, 0]], 1);
        assert!((unigram - ((3.0f64).ln() + 2.0f64.ln()) / 2.0).abs() < 1e-12, "{unigram}");
        // Behind 0 stood 0 and 1: p(1 | 0) = (1 + 2/3) / 4; nothing was seen behind 1: p(2 | 1) = 1/6.
        let bigram = counts.bigram_loss(&[vec![0, 1, 2]]);
        let want = (-(5.0f64 / 12.0).ln() + 6.0f64.ln()) / 2.0;
        assert!((bigram - want).abs() < 1e-12, "{bigram} for {want}");
        for before in 0..3 {
            let total: f64 = (0..3).map(|token| counts.behind(before, token)).sum();
            assert!((total - 1.0).abs() < 1e-12, "{total}");
        }
    }
}
