//! Races outlive the page: what was reached is kept on the shelf, brought back, saved as files and opened from them.

use super::entrant::Entrant;
use super::{Race, now_ms};
use crate::lab::engine::Engine;
use crate::lab::engine::device::Fault;
use crate::lab::train::Checkpoint;
use crate::lab::train::orders::{Doing, Failed, MOST_RUNS, News, Pace, RunFacts};

/// The name of a race on the shelf, and of what is handed over as a file.
const RACE: &str = "race";
const FILE: &str = "file";

/// A race on the shelf; the weights of its runs lie beside it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    pace: Pace,
    doing: Doing,
    runs: Vec<RunFacts>,
}

fn weights_of(run: usize) -> String {
    format!("run-{run}")
}

impl Engine {
    /// Puts the race on the shelf as its runs were last kept. One that cannot be is told of, and goes on.
    pub(super) async fn shelve(&mut self) {
        let Some(race) = &mut self.race else { return };
        let runs = race.entrants.iter().map(|entrant| entrant.facts.clone()).collect();
        let kept = Kept { pace: race.pace, doing: race.doing, runs };
        let mut entries = Vec::new();
        for (at, entrant) in race.entrants.iter().enumerate() {
            if let Some(Ok(bytes)) = entrant.kept.as_ref().map(Checkpoint::to_bytes) {
                entries.push((weights_of(at), bytes));
            }
        }
        entries.push((RACE.into(), serde_json::to_vec(&kept).unwrap_or_default()));
        if let Err(reason) = self.shelf.put(&entries).await {
            self.say(News::NotKept { reason });
        }
    }

    /// Brings the race of an earlier visit back, at rest, or tells of the one that there is.
    pub(super) async fn recall(&mut self) {
        if self.race.is_none() {
            match self.shelved().await {
                Ok(race) => self.race = race,
                Err(reason) => self.say(News::NotKept { reason }),
            }
        }
        self.tell_runs();
    }

    async fn shelved(&self) -> Result<Option<Race>, String> {
        let Some(bytes) = self.shelf.get(RACE).await? else { return Ok(None) };
        // What another version of the lab has kept may not be read any more.
        let Ok(kept) = crate::json::read_bytes::<Kept>(&bytes) else { return Ok(None) };
        let mut entrants = Vec::new();
        for (at, facts) in kept.runs.into_iter().take(MOST_RUNS).enumerate() {
            let weights = self.shelf.get(&weights_of(at)).await?;
            let weights = weights.and_then(|bytes| Checkpoint::from_bytes(&bytes).ok());
            let mut entrant = self.entrant(facts.config.clone());
            entrant.facts = facts;
            entrant.facts.failed = None;
            let step = weights.as_ref().map_or(0, |weights| weights.step);
            entrant.facts.samples.retain(|sample| sample.step <= step);
            entrant.kept = weights;
            entrants.push(entrant);
        }
        if entrants.is_empty() {
            return Ok(None);
        }
        let doing = match kept.doing {
            _ if entrants.iter().all(|entrant| !entrant.can_go_on()) => Doing::Done,
            Doing::Done => Doing::Done,
            Doing::Stopped => Doing::Stopped,
            _ => Doing::Paused,
        };
        Ok(Some(Race { entrants, pace: kept.pace, doing, told_ms: f64::NEG_INFINITY, kept_ms: now_ms() }))
    }

    /// Puts one run on the shelf as a file, for the page to hand over.
    pub(super) async fn save(&mut self, run: usize) -> Result<(), Fault> {
        let Some(entrant) = self.race.as_mut().and_then(|race| race.entrants.get_mut(run)) else { return Ok(()) };
        entrant.keep().await?;
        let Some(kept) = &entrant.kept else { return Err(Fault::refused("this run has no weights yet")) };
        let bytes = kept.to_bytes().map_err(|e| Fault::refused(e.to_string()))?;
        match self.shelf.put(&[(FILE.into(), bytes)]).await {
            Ok(()) => self.say(News::Saved { run }),
            Err(reason) => self.say(News::NotKept { reason }),
        }
        Ok(())
    }

    /// Makes the file on the shelf one more run, at rest where it was saved.
    pub(super) async fn open_file(&mut self) -> Result<(), Fault> {
        let bytes = self.shelf.get(FILE).await.map_err(Fault::refused)?;
        let kept = Checkpoint::from_bytes(&bytes.unwrap_or_default()).map_err(|e| Fault::refused(e.to_string()))?;
        let mut entrant = Entrant::new(kept.config.clone());
        entrant.kept = Some(kept);
        // Whether it can be run is known at once, not at the next step.
        entrant.make(&self.device).await?;
        if let Some(Failed { reason, nearest }) = entrant.facts.failed {
            return Err(Fault::Refused { reason, nearest });
        }
        let at_work = |race: &Race| !matches!(race.doing, Doing::Ready | Doing::Nothing);
        match self.race.as_mut().filter(|race| at_work(race)) {
            Some(race) if race.entrants.len() >= MOST_RUNS => {
                return Err(Fault::refused(format!("there are {MOST_RUNS} runs, and a race takes no more")));
            }
            Some(race) => race.entrants.push(entrant),
            None => {
                let (pace, told_ms) = (Pace::default(), f64::NEG_INFINITY);
                let race = Race { entrants: vec![entrant], pace, doing: Doing::Paused, told_ms, kept_ms: now_ms() };
                self.race = Some(race);
            }
        }
        self.tell_runs();
        Ok(())
    }
}
