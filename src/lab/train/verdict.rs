//! What a race has shown, and what to try next. The page says it in words.

use super::orders::RunFacts;
use crate::sort::Arrange;

/// A task counts as solved from this accuracy on, and two accuracies as different from this difference on.
const SOLVED: f64 = 0.97;
const APART: f64 = 0.03;

/// What a race has shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every run solves the task; this one was there first, in seconds, where that can be said of one.
    AllSolve { first: Option<usize> },
    /// `best` is better than `worst`, which is right up to distance `reach` and hardly beyond, where that is so.
    Apart { best: usize, worst: usize, reach: Option<u32> },
    /// No run is better than guessing.
    NoneLearns,
    /// All are about as good.
    Alike,
}

/// One experiment that would say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Longer sequences.
    Length(usize),
    Steps(usize),
    Layers(usize),
    Seed(u64),
}

/// Accuracy on the held-out part, as last judged.
pub fn accuracy(run: &RunFacts) -> Option<f64> {
    run.samples.iter().rev().find_map(|sample| sample.held.as_ref())?.score.tokens.accuracy()
}

/// Step and seconds at which a run was first judged to solve the task.
pub fn solved_at(run: &RunFacts) -> Option<(u64, f64)> {
    let solves = |held: &super::orders::Held| held.score.tokens.accuracy().is_some_and(|a| a >= SOLVED);
    run.samples.iter().find(|sample| sample.held.as_ref().is_some_and(solves)).map(|s| (s.step, s.seconds))
}

/// The distance up to which a run is nearly always right, where it is right far less often beyond.
fn reach(run: &RunFacts) -> Option<u32> {
    let bins = &run.samples.iter().rev().find_map(|sample| sample.held.as_ref())?.score.by_distance;
    let right = bins.iter().take_while(|bin| bin.count.accuracy().is_some_and(|a| a > 0.9)).count();
    let beyond = bins.get(right)?.count.accuracy()?;
    (right > 0 && beyond < 0.7).then(|| bins[right - 1].to)
}

/// The verdict on runs that have ended, and the next experiment; none where there is nothing to compare.
pub fn verdict(runs: &[RunFacts]) -> Option<(Verdict, Next)> {
    let judged: Vec<(usize, f64)> = (runs.iter().enumerate())
        .filter(|(_, run)| run.failed.is_none())
        .filter_map(|(at, run)| Some((at, accuracy(run)?)))
        .collect();
    let &(best, top) = judged.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let &(worst, bottom) = judged.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    if judged.len() < 2 {
        return None;
    }
    let config = &runs[best].config;
    let longer = Next::Length((2 * config.model.length).min(1024));
    Some(if bottom >= SOLVED {
        let seconds = |at: usize| solved_at(&runs[at]).map_or(f64::INFINITY, |at| at.1);
        let mut order: Vec<usize> = judged.iter().map(|(at, _)| *at).collect();
        order.arrange_by(|a, b| seconds(*a).total_cmp(&seconds(*b)));
        // Less than a fifth is within what two such runs differ by anyway.
        let clear = seconds(order[1]) > 1.2 * seconds(order[0]);
        (Verdict::AllSolve { first: clear.then_some(order[0]) }, longer)
    } else if judged.iter().all(|&(at, a)| a < runs[at].chance + APART) {
        (Verdict::NoneLearns, Next::Steps((3 * config.steps as usize).min(100_000)))
    } else if top - bottom < APART {
        let more = Next::Steps((2 * config.steps as usize).min(100_000));
        (Verdict::Alike, if top < SOLVED { more } else { Next::Seed(config.seed + 1) })
    } else {
        let reach = reach(&runs[worst]);
        let deeper = Next::Layers((runs[worst].config.model.layers + 1).min(12));
        let next = if top >= SOLVED && reach.is_some() { deeper } else { Next::Steps(2 * config.steps as usize) };
        (Verdict::Apart { best, worst, reach }, next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::train::RunConfig;
    use crate::lab::train::orders::{Held, Sample};
    use crate::task::TaskConfig;
    use crate::task::score::{Bin, Count, Score};

    /// A run judged once, with these shares of ten right at distances 1, 2–3, 4–7, ...
    fn run(right: &[usize], seconds: f64) -> RunFacts {
        let mut score = Score::default();
        for (at, &right) in right.iter().enumerate() {
            let count = Count { right, judged: 10 };
            score.by_distance.push(Bin { from: 1 << at, to: (2 << at) - 1, count });
            score.tokens.right += right;
            score.tokens.judged += 10;
        }
        RunFacts {
            config: RunConfig::of(TaskConfig::Copy(Default::default())),
            weights: 1,
            flops: 1,
            bytes: 1,
            bytes_by_category: vec![],
            memory: None,
            chance: 0.1,
            step_seconds: None,
            forked: None,
            samples: vec![Sample { step: 9, seconds, loss: 1.0, norm: 1.0, held: Some(Held { loss: 1.0, score }) }],
            failed: None,
        }
    }

    #[test]
    fn what_a_race_has_shown() {
        let of = |runs: &[RunFacts]| verdict(runs).map(|(verdict, _)| verdict);
        assert_eq!(of(&[run(&[10, 10], 1.0)]), None, "one run is no race");
        let cliff = of(&[run(&[10, 10, 10], 1.0), run(&[10, 10, 1], 1.0)]);
        assert_eq!(cliff, Some(Verdict::Apart { best: 0, worst: 1, reach: Some(3) }));
        assert_eq!(
            of(&[run(&[5, 5], 1.0), run(&[8, 8], 1.0)]),
            Some(Verdict::Apart { best: 1, worst: 0, reach: None })
        );
        assert_eq!(of(&[run(&[1], 1.0), run(&[1], 1.0)]), Some(Verdict::NoneLearns));
        assert_eq!(of(&[run(&[5], 1.0), run(&[5], 1.0)]), Some(Verdict::Alike));
        assert_eq!(of(&[run(&[10], 3.0), run(&[10], 1.0)]), Some(Verdict::AllSolve { first: Some(1) }));
        assert_eq!(of(&[run(&[10], 1.1), run(&[10], 1.0)]), Some(Verdict::AllSolve { first: None }));
    }
}
