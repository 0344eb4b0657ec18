//! Races outlive the page: what was reached is kept on the shelf, brought back, saved as files and opened from them.

use super::Race;
use super::entrant::Entrant;
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
            // Another run may have stood in its place: what is at its beginning has no weights.
            if let Ok(bytes) = entrant.kept.as_ref().map_or(Ok(vec![]), Checkpoint::to_bytes) {
                entries.push((weights_of(at), bytes));
            }
        }
        // What is not there any more takes no room.
        entries.extend((race.entrants.len()..MOST_RUNS).map(|at| (weights_of(at), vec![])));
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
            // A visit that begins with a fine-tuning finds the runs of an earlier one when it comes to them.
            Ok(Some(others)) if trained && !waited && self.has_room_for(&others) => {
                self.keeping = Keeping::Yes;
                self.put_beside(others).await;
            }
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

    /// Puts the runs there are beside another tab's, and keeps them all.
    pub(super) async fn keep_these(&mut self) -> Result<(), Fault> {
        if self.keeping != Keeping::Offered || !self.claim().await {
            return Ok(());
        }
        let others = self.shelved().await.map_err(Fault::refused);
        let fits = others.and_then(|others| {
            if let (Some(race), Some(others)) = (&self.race, &others) {
                race.check_room(others.entrants.len())?;
            }
            Ok(others)
        });
        let others = match fits {
            Ok(others) => others,
            // Nothing is written over what could not be read, or has no place here.
            Err(fault) => {
                self.shelf.give_back();
                self.keeping = Keeping::Offered;
                return Err(fault);
            }
        };
        // What is refused now is told; if it is not, this is.
        self.keeping = Keeping::Failing;
        match others {
            Some(others) => self.put_beside(others).await,
            None => self.keep_now().await,
        }
        Ok(())
    }

    fn has_room_for(&self, others: &Race) -> bool {
        self.race.as_ref().is_none_or(|race| race.check_room(others.entrants.len()).is_ok())
    }

    /// Puts the runs of another race in front of those there are. All rest but a single one that is being trained.
    async fn put_beside(&mut self, others: Race) {
        let Some(race) = &mut self.race else { return };
        let before = others.entrants.len();
        for entrant in &mut race.entrants {
            if let Some((from, _)) = &mut entrant.facts.forked {
                *from += before;
            }
        }
        let single = race.doing == Doing::Running && race.entrants.len() == 1;
        race.alone = if single { Some(before) } else { race.alone.map(|at| at + before) };
        race.entrants.splice(0..0, others.entrants);
        if race.alone.is_none() {
            race.doing = Doing::Paused;
            if race.entrants.iter().all(|entrant| !entrant.can_go_on()) {
                race.doing = Doing::Done;
            }
        }
        self.tell_runs();
        self.keep_now().await;
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
        Ok(Some(Race::new(entrants, kept.pace, doing)))
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
            Some(race) => {
                race.check_room(1)?;
                race.entrants.push(entrant);
            }
            None => self.race = Some(Race::new(vec![entrant], Pace::default(), Doing::Paused)),
        }
        self.tell_runs();
        Ok(())
    }
}
