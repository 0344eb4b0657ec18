//! Serving `Train`: runs side by side, in turns, whenever there is nothing else to do.
//!
//! A turn is as many steps as take about a tenth of a second, the same number for every run where they go step for step; the
//! loss is read at its end. So each run's seconds are its own, and the device is not waited for at every step.

mod entrant;
mod keeping;
mod looking;

use super::Engine;
use super::device::Fault;
use super::inbox::Watch;
use super::pause::yield_now;
use crate::gpu::now_ms;
use crate::lab::protocol::Event;
use crate::lab::train::RunConfig;
use crate::lab::train::orders::{Doing, MOST_RUNS, News, Order, Pace};
use entrant::Entrant;
pub use keeping::Keeping;
use looking::Wanted;

/// Between two tellings of new samples.
const QUIET_MS: f64 = 200.0;
/// Between two copies of the weights, from which a run goes on when the device is lost.
const KEEP_MS: f64 = 10_000.0;

/// Runs that are trained side by side.
pub struct Race {
    entrants: Vec<Entrant>,
    pace: Pace,
    doing: Doing,
    /// The only run that is trained until it ends, while the others rest.
    alone: Option<usize>,
    told_ms: f64,
    kept_ms: f64,
}

impl Race {
    fn new(entrants: Vec<Entrant>, pace: Pace, doing: Doing) -> Self {
        Self { entrants, pace, doing, alone: None, told_ms: f64::NEG_INFINITY, kept_ms: now_ms() }
    }

    /// The device is gone, and the runs with it; they are made again when it is their turn.
    pub fn lose(&mut self) {
        self.entrants.iter_mut().for_each(|entrant| entrant.run = None);
    }

    /// Whose turn it is.
    fn next(&self) -> Vec<usize> {
        let able = || (0..self.entrants.len()).filter(|&at| self.entrants[at].can_go_on());
        if let Some(at) = self.alone {
            return able().filter(|&able| able == at).collect();
        }
        match self.pace {
            Pace::Steps => {
                // A run that was copied late, or restored, catches up first.
                let least = able().map(|at| self.entrants[at].step()).min();
                able().filter(|&at| Some(self.entrants[at].step()) == least).collect()
            }
            Pace::Seconds => {
                let finished = self.entrants.iter().filter(|e| e.facts.failed.is_none() && !e.can_go_on());
                let end = finished.map(|e| e.seconds).min_by(f64::total_cmp).unwrap_or(f64::INFINITY);
                let seconds = |at: &usize| self.entrants[*at].seconds;
                able()
                    .filter(|at| seconds(at) < end)
                    .min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
                    .into_iter()
                    .collect()
            }
        }
    }

    /// Refuses more runs than a race takes.
    fn check_room(&self, more: usize) -> Result<(), Fault> {
        let here = self.entrants.len();
        if here + more <= MOST_RUNS {
            return Ok(());
        }
        let reason = format!("{} runs; a race takes {MOST_RUNS}: save some as files and remove them", here + more);
        Err(Fault::Refused { reason, nearest: None })
    }

    fn configs(&self) -> impl Iterator<Item = &RunConfig> {
        self.entrants.iter().map(|entrant| &entrant.facts.config)
    }

    /// Whether these runs are the ones that are ready at their beginning.
    fn is_ready_for(&self, wanted: &[RunConfig]) -> bool {
        self.doing == Doing::Ready
            && self.entrants.len() == wanted.len()
            && self.configs().zip(wanted).all(|(have, wanted)| {
                let mut wanted = wanted.clone();
                // What the task decides was filled in.
                wanted.complete(u64::MAX).is_ok() && *have == wanted
            })
    }
}

impl Engine {
    /// Serves one order.
    pub(super) async fn train(&mut self, order: Order, watch: &Watch) -> Result<(), Fault> {
        match order {
            Order::Prepare { runs } => {
                // What was trained is not thrown away for what may never start.
                let stays = |race: &Race| race.doing != Doing::Ready || race.is_ready_for(&runs);
                if self.race.as_ref().is_some_and(stays) {
                    self.tell_runs();
                    return Ok(());
                }
                self.line_up(runs, Pace::default(), true, watch).await
            }
            Order::Start { runs, pace } => {
                if !self.race.as_ref().is_some_and(|race| race.is_ready_for(&runs)) {
                    self.line_up(runs, pace, false, watch).await?;
                }
                self.go_on(pace);
                Ok(())
            }
            Order::Resume { pace } => {
                self.go_on(pace);
                Ok(())
            }
            Order::Pause => self.rest(Doing::Paused).await,
            Order::Step => {
                let all = self.race.as_ref().map_or(0..0, |race| match race.alone {
                    Some(at) => at..at + 1,
                    None => 0..race.entrants.len(),
                });
                for at in all {
                    self.turn_of(at, Some(1)).await?;
                }
                self.rest(Doing::Paused).await
            }
            Order::Stop => {
                if let Some(race) = &mut self.race {
                    race.alone = None;
                }
                self.rest(Doing::Stopped).await?;
                if let Some(race) = &mut self.race {
                    race.lose();
                }
                Ok(())
            }
            Order::Fork { run, config } => self.fork(run, *config).await,
            Order::Recall => {
                self.recall().await;
                Ok(())
            }
            Order::Look { run, sequence, prompt, heads } => {
                self.look(run, Wanted { sequence, prompt, heads }, watch).await
            }
            Order::FineTune { plate, steps } => {
                let Some(config) = self.fine_tuned(plate, steps) else { return Ok(()) };
                if self.race.as_ref().is_some_and(|race| race.doing != Doing::Ready) {
                    return self.train_beside(config).await;
                }
                self.line_up(vec![config], Pace::default(), true, watch).await?;
                self.go_on(Pace::default());
                Ok(())
            }
            Order::Save { run } => self.save(run).await,
            Order::Open { from } => self.open_file(&from).await,
            Order::Granted => {
                self.granted().await;
                Ok(())
            }
            Order::Keep => self.keep_these().await,
            Order::Remove { run } => self.remove(run).await,
        }
    }

    /// Makes runs ready in place of those that there were.
    async fn line_up(&mut self, runs: Vec<RunConfig>, pace: Pace, probe: bool, watch: &Watch) -> Result<(), Fault> {
        if runs.is_empty() || runs.len() > MOST_RUNS {
            let reason = format!("{} runs; a race takes 1 to {MOST_RUNS}", runs.len());
            return Err(Fault::Refused { reason, nearest: Some(MOST_RUNS.to_string()) });
        }
        // The memory of the old ones first, and of a model that another place shows: all of them might not fit.
        self.race = None;
        self.give_resident_back();
        self.say(News::Doing { doing: Doing::Preparing, alone: None });
        let mut race = Race::new(vec![], pace, Doing::Ready);
        for config in runs {
            let mut entrant = self.entrant(config);
            entrant.make(&self.device).await?;
            yield_now().await;
            if probe {
                entrant.probe().await?;
            }
            if watch.stop() {
                self.say(News::Doing { doing: Doing::Nothing, alone: None });
                return Err(Fault::Stopped);
            }
            race.entrants.push(entrant);
        }
        self.race = Some(race);
        self.tell_runs();
        Ok(())
    }

    /// Trains a run beside those that there are, which rest meanwhile.
    async fn train_beside(&mut self, config: RunConfig) -> Result<(), Fault> {
        if let Some(race) = &self.race {
            race.check_room(1)?;
        }
        self.rest(Doing::Paused).await?;
        let mut entrant = self.entrant(config);
        entrant.make(&self.device).await?;
        let able = entrant.can_go_on();
        let Some(race) = &mut self.race else { return Ok(()) };
        race.entrants.push(entrant);
        // One that cannot be says why, and leaves the others as they are.
        if able {
            race.alone = Some(race.entrants.len() - 1);
            let pace = race.pace;
            self.go_on(pace);
        }
        self.tell_runs();
        Ok(())
    }

    /// Takes a run away where another is left. Those that rested while it was trained rest on.
    async fn remove(&mut self, run: usize) -> Result<(), Fault> {
        let Some(race) = self.race.as_mut().filter(|race| race.entrants.len() > 1) else { return Ok(()) };
        if run >= race.entrants.len() {
            return Ok(());
        }
        let interrupts = race.alone == Some(run) && race.doing == Doing::Running;
        race.entrants.remove(run);
        for entrant in &mut race.entrants {
            if let Some((from, _)) = &mut entrant.facts.forked {
                *from -= usize::from(*from > run);
            }
        }
        race.alone = race.alone.filter(|&at| at != run).map(|at| at - usize::from(at > run));
        if interrupts {
            race.doing = Doing::Paused;
        }
        self.tell_runs();
        if interrupts {
            return self.rest(Doing::Paused).await;
        }
        self.shelve().await;
        Ok(())
    }

    /// A run that is not made yet, with the weights that it begins with.
    fn entrant(&self, config: RunConfig) -> Entrant {
        let mut entrant = Entrant::new(config);
        entrant.begins = entrant.facts.config.weights.as_deref().and_then(|name| self.shipped(name));
        entrant
    }

    fn go_on(&mut self, pace: Pace) {
        let Some(race) = &mut self.race else { return };
        race.pace = pace;
        race.doing = if race.next().is_empty() { Doing::Done } else { Doing::Running };
        self.tell_doing();
    }

    /// Ends or interrupts a race, with everything told and kept.
    async fn rest(&mut self, doing: Doing) -> Result<(), Fault> {
        self.tell_samples(true);
        let Some(race) = &mut self.race else { return Ok(()) };
        for entrant in &mut race.entrants {
            entrant.keep().await?;
        }
        let ended = race.entrants.iter().all(|entrant| !entrant.can_go_on());
        race.doing = if ended { Doing::Done } else { doing };
        self.tell_doing();
        self.shelve().await;
        Ok(())
    }

    async fn fork(&mut self, from: usize, config: RunConfig) -> Result<(), Fault> {
        let Some(race) = &mut self.race else { return Ok(()) };
        race.check_room(1)?;
        let Some(original) = race.entrants.get_mut(from) else { return Ok(()) };
        original.keep().await?;
        let mut entrant = Entrant::new(config);
        entrant.begins = original.begins.clone();
        entrant.kept = original.kept.clone();
        entrant.facts.forked = Some((from, original.step()));
        entrant.facts.samples = original.facts.samples.clone();
        entrant.make(&self.device).await?;
        if race.doing == Doing::Done {
            race.doing = Doing::Paused;
        }
        race.entrants.push(entrant);
        self.tell_runs();
        Ok(())
    }

    /// One round of the race; false where nothing is to be trained now.
    pub(super) async fn train_idly(&mut self) -> bool {
        if !self.race.as_ref().is_some_and(|race| race.doing == Doing::Running) || !self.inbox.may_train() {
            return false;
        }
        match self.round().await {
            Err(Fault::Lost(reason)) => {
                self.recover(reason, true).await;
            }
            Err(Fault::Refused { reason, nearest }) => {
                self.emit(Event::Refused { what: "train".into(), reason, nearest });
                // Its runs are made again when it goes on.
                if let Some(race) = &mut self.race {
                    race.doing = Doing::Paused;
                }
                self.tell_doing();
            }
            Ok(()) | Err(Fault::Stopped) => {}
        }
        self.turn = None;
        yield_now().await;
        self.take_turn().await;
        true
    }

    async fn round(&mut self) -> Result<(), Fault> {
        if let Some(race) = &mut self.race
            && race.alone.is_some_and(|at| !race.entrants[at].can_go_on())
        {
            // The others go on when they are asked to.
            race.alone = None;
            return self.rest(Doing::Paused).await;
        }
        let next = self.race.as_ref().map_or_else(Vec::new, Race::next);
        if next.is_empty() {
            return self.rest(Doing::Done).await;
        }
        let turn = |race: &Race| next.iter().map(|&at| race.entrants[at].turn()).min();
        let steps = self.race.as_ref().and_then(turn);
        for &at in &next {
            self.turn_of(at, steps).await?;
        }
        self.tell_samples(false);
        let Some(race) = &mut self.race else { return Ok(()) };
        if now_ms() - race.kept_ms > KEEP_MS {
            race.kept_ms = now_ms();
            for entrant in &mut race.entrants {
                entrant.keep().await?;
            }
            self.shelve().await;
        }
        Ok(())
    }

    /// So many steps of one run, which is made again first where its device was lost.
    async fn turn_of(&mut self, at: usize, steps: Option<u64>) -> Result<(), Fault> {
        let inbox = self.inbox.clone();
        let Some(entrant) = self.race.as_mut().and_then(|race| race.entrants.get_mut(at)) else { return Ok(()) };
        if !entrant.can_go_on() {
            return Ok(());
        }
        let was_lost = entrant.run.is_none();
        if was_lost {
            entrant.make(&self.device).await?;
        }
        if entrant.facts.failed.is_none() {
            entrant.go(steps.unwrap_or_else(|| entrant.turn()), &|| !inbox.may_train()).await?;
        }
        let failed = entrant.facts.failed.clone();
        if was_lost {
            self.tell_runs();
        }
        if let Some(failed) = failed {
            self.tell_samples(true);
            self.say(News::Failed { run: at, failed });
        }
        Ok(())
    }

    fn say(&self, news: News) {
        self.emit(Event::Training { news: Box::new(news) });
    }

    fn tell_doing(&self) {
        let Some(race) = &self.race else { return };
        self.say(News::Doing { doing: race.doing, alone: race.alone });
    }

    /// All that is known of the runs.
    fn tell_runs(&mut self) {
        let Some(race) = &mut self.race else { return };
        let runs = race.entrants.iter().map(|entrant| entrant.facts.clone()).collect();
        for entrant in &mut race.entrants {
            entrant.told = entrant.facts.samples.len();
        }
        let Race { pace, doing, alone, .. } = *race;
        self.say(News::Runs { runs, pace, doing, alone });
    }

    /// What is new, unless something was told a moment ago.
    fn tell_samples(&mut self, at_once: bool) {
        let Some(race) = &mut self.race else { return };
        if !at_once && now_ms() - race.told_ms < QUIET_MS {
            return;
        }
        race.told_ms = now_ms();
        let mut of = Vec::new();
        for (at, entrant) in race.entrants.iter_mut().enumerate() {
            let new = entrant.facts.samples[entrant.told..].to_vec();
            entrant.told = entrant.facts.samples.len();
            if !new.is_empty() {
                of.push((at, new));
            }
        }
        if !of.is_empty() {
            self.say(News::Samples { of });
        }
    }
}
