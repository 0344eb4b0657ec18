//! Random choices of one sequence.

use super::Part;
use crate::random;

/// A counter over the random numbers that belong to one sequence: the sequence is a pure function of what [`Dice::new`] gets.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    stream: u64,
    drawn: u64,
}

impl Dice {
    /// For sequence `number` of a part of a task.
    pub fn new(id: &str, seed: u64, part: Part, number: u64) -> Self {
        let part = match part {
            Part::Train => "train",
            Part::Held => "held",
        };
        let stream = random::stream(id) ^ random::stream(part).rotate_left(1);
        Self { seed: random::bits(seed, stream, number), stream, drawn: 0 }
    }

    /// Uniform on the whole numbers below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        self.drawn += 1;
        random::below(self.seed, self.stream, self.drawn, end)
    }

    /// Uniform on `from..=to`.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    /// True `percent` times in a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// `count` different numbers below `end`, in random order.
    pub fn distinct(&mut self, count: usize, end: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..end).collect();
        for i in 0..count {
            let other = self.between(i, end - 1);
            all.swap(i, other);
        }
        all.truncate(count);
        all
    }
}
