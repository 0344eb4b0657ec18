//! What a race has shown, and what to try next. The page says it in words.

use super::orders::{Doing, RunFacts};
use crate::sort::Arrange;
use crate::task::TaskConfig;

/// A task counts as solved from this accuracy on, and two accuracies as different from this difference on.
const SOLVED: f64 = 0.97;
const APART: f64 = 0.03;
/// Steps that the form takes.
const MOST_STEPS: usize = 100_000;

/// What a race has shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every run solves the task; this one was there first, in seconds, where that can be said of one.
    AllSolve { first: Option<usize> },
    /// `best` is better than `worst`, which is right up to distance `reach` and hardly beyond, where that is so.
    Apart { best: usize, worst: usize, reach: Option<u32> },
    /// No run is better than guessing, which is right so often.
    NoneLearns { chance: f64 },
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

/// What is waited for where there is no verdict yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// A start.
    Start,
    /// The first judgement of any run, after this step, and the verdict after all of `steps`.
    Judgement { first: u64, steps: u64 },
    /// The last of these steps.
    End(u64),
    /// That it goes on: it was stopped before its end.
    Resume,
    /// A second run that can be compared with the first: of the same task, and one that was not refused.
    Second,
}

/// What runs without a verdict wait for, of which these are trained or next.
pub fn awaited(runs: &[&RunFacts], doing: Doing) -> Awaited {
    let steps = runs.iter().filter(|run| run.failed.is_none()).map(|run| run.config.steps).max();
    let judged = runs.iter().any(|run| run.samples.iter().any(|sample| sample.held.is_some()));
    match (doing, first_judgement(runs), steps) {
        (Doing::Running | Doing::Paused, Some(first), Some(steps)) if !judged => Awaited::Judgement { first, steps },
        (Doing::Running | Doing::Paused, _, Some(steps)) => Awaited::End(steps),
        (Doing::Stopped, ..) => Awaited::Resume,
        (Doing::Nothing | Doing::Preparing | Doing::Ready, ..) => Awaited::Start,
        _ => Awaited::Second,
    }
}

/// The step at which the first run is judged for the first time; none where no run is left that could be.
pub fn first_judgement(runs: &[&RunFacts]) -> Option<u64> {
    let step = |run: &&RunFacts| match run.config.evaluation.every {
        0 => run.config.steps,
        every => every.min(run.config.steps),
    };
    runs.iter().filter(|run| run.failed.is_none()).map(step).min()
}

/// The verdict on runs that have ended, and the next experiment; none where there is nothing to compare.
pub fn verdict(runs: &[RunFacts]) -> Option<(Verdict, Next)> {
    let mut judged: Vec<(usize, f64)> = (runs.iter().enumerate())
        .filter(|(_, run)| run.failed.is_none())
        .filter_map(|(at, run)| Some((at, accuracy(run)?)))
        .collect();
    // Accuracies of different tasks say nothing of each other: the first task that two runs share.
    let task = |&(at, _): &(usize, f64)| &runs[at].config.task;
    let shared = |one: &&(usize, f64)| judged.iter().filter(|other| task(other) == task(one)).count() > 1;
    let shared = judged.iter().find(shared).map(task)?;
    judged.retain(|one| task(one) == shared);
    let &(best, top) = judged.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let &(worst, bottom) = judged.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let config = &runs[best].config;
    // What is at its end already is tried with another seed.
    let other = Next::Seed(config.seed + 1);
    let (length, steps, layers) = (config.model.length, config.steps as usize, runs[worst].config.model.layers);
    let more = |times: usize| if steps < MOST_STEPS { Next::Steps((times * steps).min(MOST_STEPS)) } else { other };
    let fixed = matches!(config.task, TaskConfig::Modular(_)) || length >= 1024;
    let longer = if fixed { other } else { Next::Length((2 * length).min(1024)) };
    Some(if bottom >= SOLVED {
        let seconds = |at: usize| solved_at(&runs[at]).map_or(f64::INFINITY, |at| at.1);
        let mut order: Vec<usize> = judged.iter().map(|(at, _)| *at).collect();
        order.arrange_by(|a, b| seconds(*a).total_cmp(&seconds(*b)));
        // Less than a fifth is within what two such runs differ by anyway.
        let clear = seconds(order[1]) > 1.2 * seconds(order[0]);
        (Verdict::AllSolve { first: clear.then_some(order[0]) }, longer)
    } else if judged.iter().all(|&(at, a)| a < runs[at].chance + APART) {
        (Verdict::NoneLearns { chance: runs[best].chance }, more(3))
    } else if top - bottom < APART {
        (Verdict::Alike, if top < SOLVED { more(2) } else { other })
    } else {
        let reach = reach(&runs[worst]);
        let next = if top >= SOLVED && reach.is_some() && layers < 12 { Next::Layers(layers + 1) } else { more(2) };
        (Verdict::Apart { best, worst, reach }, next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::train::RunConfig;
    use crate::lab::train::orders::{Held, Sample};
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
        assert_eq!(of(&[run(&[1], 1.0), run(&[1], 1.0)]), Some(Verdict::NoneLearns { chance: 0.1 }));
        assert_eq!(of(&[run(&[5], 1.0), run(&[5], 1.0)]), Some(Verdict::Alike));
        assert_eq!(of(&[run(&[10], 3.0), run(&[10], 1.0)]), Some(Verdict::AllSolve { first: Some(1) }));
        assert_eq!(of(&[run(&[10], 1.1), run(&[10], 1.0)]), Some(Verdict::AllSolve { first: None }));
    }

    #[test]
    fn runs_of_different_tasks_are_not_compared() {
        let mut other = run(&[1], 1.0);
        other.config = RunConfig::of(TaskConfig::Sort(Default::default()));
        assert_eq!(verdict(&[run(&[10], 1.0), other.clone()]), None);
        let three = verdict(&[run(&[5], 1.0), run(&[8], 1.0), other.clone()]).unwrap().0;
        assert_eq!(three, Verdict::Apart { best: 1, worst: 0, reach: None });
        other.chance = 0.5;
        let three = |right: usize| verdict(&[other.clone(), run(&[right], 1.0), run(&[1], 1.0)]).unwrap().0;
        assert_eq!(three(8), Verdict::Apart { best: 1, worst: 2, reach: None });
        assert_eq!(three(1), Verdict::NoneLearns { chance: 0.1 });
    }

    #[test]
    fn no_experiment_is_suggested_that_the_form_does_not_take() {
        let next = |runs: &[RunFacts]| verdict(runs).unwrap().1;
        let with = |right: &[usize], change: fn(&mut RunConfig)| {
            let mut run = run(right, 1.0);
            change(&mut run.config);
            run
        };
        let apart = |change| next(&[with(&[9], change), with(&[5], change)]);
        assert_eq!(apart(|config| config.steps = 60_000), Next::Steps(100_000));
        assert_eq!(apart(|config| config.steps = 100_000), Next::Seed(2));
        let solved = |change| next(&[with(&[10], change), with(&[10], change)]);
        assert_eq!(solved(|config| config.model.length = 40), Next::Length(80));
        assert_eq!(solved(|config| config.model.length = 1024), Next::Seed(2));
        assert_eq!(solved(|config| config.task = TaskConfig::Modular(Default::default())), Next::Seed(2));
        let cliff = |change| next(&[with(&[10, 10], change), with(&[10, 1], change)]);
        assert_eq!(cliff(|config| config.model.layers = 3), Next::Layers(4));
        assert_eq!(cliff(|config| config.model.layers = 12), Next::Steps(1000));
    }

    #[test]
    fn what_is_waited_for() {
        let begun = |every: u64| {
            let mut run = run(&[1], 1.0);
            (run.config.steps, run.config.evaluation.every) = (300, every);
            run.samples[0].held = None;
            run
        };
        let (slow, often, never) = (begun(40), begun(15), begun(0));
        let two = [&slow, &often];
        assert_eq!(awaited(&two, Doing::Ready), Awaited::Start);
        assert_eq!(awaited(&two, Doing::Running), Awaited::Judgement { first: 15, steps: 300 });
        assert_eq!(awaited(&[&never], Doing::Paused), Awaited::Judgement { first: 300, steps: 300 });
        let mut failed = begun(5);
        failed.failed = Some(super::super::orders::Failed { reason: "no".into(), nearest: None });
        assert_eq!(awaited(&[&slow, &failed], Doing::Running), Awaited::Judgement { first: 40, steps: 300 });
        let mut judged = run(&[1], 1.0);
        judged.config.steps = 300;
        assert_eq!(awaited(&[&slow, &judged], Doing::Running), Awaited::End(300));
        assert_eq!(awaited(&two, Doing::Stopped), Awaited::Resume);
        assert_eq!(awaited(&[&judged], Doing::Done), Awaited::Second);
    }
}
