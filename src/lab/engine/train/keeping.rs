//! Races outlive the page: what was reached is kept on the shelf, brought back, saved as files and opened from them.

use super::entrant::Entrant;
use super::{Race, now_ms};
use crate::lab::engine::Engine;
use crate::lab::engine::device::Fault;
use crate::lab::protocol::Command;
use crate::lab::train::Checkpoint;
use crate::lab::train::orders::{Doing, Failed, MOST_RUNS, News, NotKept, Order, Pace, RunFacts};

/// The name of a race on the shelf.
const RACE: &str = "race";

/// Whether an engine's runs go onto the shelf. Only one engine's do at a time, and only where a page has asked for what an
/// earlier visit kept: a figure in somebody's page leaves the visitor's runs alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    #[default]
    Unasked,
    /// Another tab's are kept, and this one's when that tab is gone.
    Waiting,
    /// It may, but what another tab has left would go.
    Offered,
    Yes,
    /// It may, but the browser has refused the last time.
    Failing,
}

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
        if !matches!(self.keeping, Keeping::Yes | Keeping::Failing) {
            return;
        }
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
        match self.shelf.put(&entries).await {
            Err(reason) => self.not_kept(reason),
            Ok(()) if self.keeping == Keeping::Failing => self.kept(),
            Ok(()) => {}
        }
    }

    fn kept(&mut self) {
        self.keeping = Keeping::Yes;
        self.say(News::Kept);
    }

    fn not_kept(&mut self, reason: String) {
        self.keeping = Keeping::Failing;
        let why = if reason.starts_with("QuotaExceeded") { NotKept::Full } else { NotKept::Failed(reason) };
        self.say(News::NotKept { why });
    }

    /// Brings the race of an earlier visit back, at rest, or tells of the one that there is.
    pub(super) async fn recall(&mut self) {
        match self.keeping {
            Keeping::Unasked => {
                if self.claim().await {
                    self.granted().await;
                } else {
                    self.tell_runs();
                }
            }
            _ => self.tell_runs(),
        }
    }

    /// Whether it may keep its runs now; otherwise this is told, and `Granted` comes when it may.
    async fn claim(&mut self) -> bool {
        let inbox = self.inbox.clone();
        let granted = move || inbox.send(Command::Train { order: Box::new(Order::Granted) });
        let may = self.shelf.claim(granted).await;
        if !may {
            self.keeping = Keeping::Waiting;
            self.say(News::NotKept { why: NotKept::OtherTab });
        }
        may
    }

    /// Takes up what lies on the shelf, unless something else has been trained meanwhile.
    pub(super) async fn granted(&mut self) {
        let waited = self.keeping == Keeping::Waiting;
        let trained = self.race.as_ref().is_some_and(|race| race.doing != Doing::Ready);
        match self.shelved().await {
            Ok(Some(_)) if trained => {
                // Until the visitor has decided, a new tab may bring the others back.
                self.shelf.give_back();
                self.keeping = Keeping::Offered;
                self.say(News::NotKept { why: NotKept::Others });
            }
            Ok(race) => {
                self.keeping = Keeping::Yes;
                if waited {
                    self.say(News::Kept);
                }
                if race.is_some() {
                    self.race = race;
                }
                if trained {
                    self.keep_now().await;
                }
            }
            Err(reason) => self.not_kept(reason),
        }
        self.tell_runs();
    }

    /// Keeps the runs there are in place of another tab's.
    pub(super) async fn keep_these(&mut self) {
        if self.keeping == Keeping::Offered && self.claim().await {
            // What is refused now is told; if it is not, this is.
            self.keeping = Keeping::Failing;
            self.keep_now().await;
        }
    }

    /// Puts the race on the shelf as it is now. A run that cannot say where it is stays as it was last kept.
    async fn keep_now(&mut self) {
        for entrant in self.race.iter_mut().flat_map(|race| &mut race.entrants) {
            let _ = entrant.keep().await;
        }
        self.shelve().await;
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

    /// Makes a file of one run, for the page to hand over.
    pub(super) async fn save(&mut self, run: usize) -> Result<(), Fault> {
        let Some(entrant) = self.race.as_mut().and_then(|race| race.entrants.get_mut(run)) else { return Ok(()) };
        entrant.keep().await?;
        let Some(kept) = &entrant.kept else { return Err(Fault::refused("this run has no weights yet")) };
        let bytes = kept.to_bytes().map_err(|e| Fault::refused(e.to_string()))?;
        let at = self.shelf.offer(bytes).map_err(Fault::refused)?;
        self.say(News::Saved { run, at });
        Ok(())
    }

    /// Makes a file one more run, at rest where it was saved.
    pub(super) async fn open_file(&mut self, from: &str) -> Result<(), Fault> {
        let bytes = self.shelf.take(from).await.map_err(Fault::refused)?;
        let kept = Checkpoint::from_bytes(&bytes).map_err(|e| Fault::refused(e.to_string()))?;
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
