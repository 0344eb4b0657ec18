//! Folding what the engine tells into the page's state.

use super::{Cell, Decided, Drawn, Lab, Loss, Phase, PlateState, Refused, SessionStoreFields, Sources};
use crate::attention;
use crate::lab::experiment::WeightsFrom;
use crate::lab::opened::OpenedFacts;
use crate::lab::protocol::Event;
use crate::lab::train::orders::{News, RunFacts};
use crate::ui::browser;
use crate::ui::race::{Race, file_name};
use leptos::prelude::*;
use std::sync::Arc;

impl Lab {
    /// Folds an event of the engine into the state.
    pub fn fold(self, event: Event) {
        let session = self.session;
        match event {
            Event::Ready { adapter, backend, notice } => {
                session.adapter().set(Some(adapter));
                session.backend().set(backend);
                session.notice().set(notice);
                session.phase().set(Phase::Ready);
            }
            Event::Progress { what, done, total } => {
                session.progress().set((done < total).then_some((what, done, total)))
            }
            Event::Prepared { plate, variant, numbers } => {
                self.forget_decisions(plate, &variant);
                session.plates().update(|plates| {
                    if let Some(state) = plates.get_mut(plate) {
                        if state.variant != variant {
                            state.cell = None;
                        }
                        state.variant = variant;
                        state.numbers = Some(numbers);
                        state.refusal = None;
                    }
                });
            }
            Event::Subject { subject } => {
                session.guesses().set(vec![]);
                session.subject().set(Some(*subject));
            }
            Event::Opening { done, total } => session.opening().set(Some((done, total))),
            Event::Opened { model, refused } => {
                session.opening().set(None);
                session.not_opened().set(refused);
                self.take_opened(model.map(|model| *model));
            }
            Event::Resident { bytes } => session.resident().set(bytes),
            Event::Guesses { guesses } => session.guesses().set(guesses),
            Event::Decided { plate, variant, head, length, parts } => {
                let decided = Some(Arc::new(Decided { variant, head, length, parts }));
                session
                    .decided()
                    .update(|all| all.iter_mut().skip(plate).take(1).for_each(|old| *old = decided.clone()));
            }
            Event::Plate { plate, exact, domain, largest, non_finite, pool, ms } => session.plates().update(|plates| {
                if let Some(state) = plates.get_mut(plate) {
                    state.drawn = Some(Drawn { exact, domain, largest, non_finite, pool, ms });
                    state.draws += 1;
                }
            }),
            Event::Cell { plate, query, key, score, weight, rank, allowed, row } => session.plates().update(|plates| {
                if let Some(state) = plates.get_mut(plate) {
                    state.cell = Some(Cell { query, key, score, weight, rank, allowed, row });
                }
            }),
            Event::Sources { variant, on_device, shaders, .. } => {
                session.sources().set(Some(Sources { variant, on_device, shaders }));
            }
            Event::Point { point, done, total, seconds_left } => session.sweep().update(|sweep| {
                sweep.points.retain(|old| (&old.variant, old.length) != (&point.variant, point.length));
                sweep.points.push(point);
                (sweep.done, sweep.total, sweep.seconds_left) = (done, total, seconds_left);
            }),
            Event::SweepDone { cancelled } => session.sweep().update(|sweep| {
                sweep.running = false;
                sweep.cancelled = cancelled;
            }),
            Event::Form { row, done, total } => session.forms().update(|forms| {
                match forms.rows.iter_mut().find(|old| (old.way, old.block) == (row.way, row.block)) {
                    Some(old) => *old = row,
                    None => forms.rows.push(row),
                }
                (forms.done, forms.total) = (done, total);
            }),
            Event::FormsDone { cancelled, refused } => session.forms().update(|forms| {
                forms.running = false;
                (forms.cancelled, forms.refused) = (cancelled, refused);
            }),
            Event::DeviceLost { reason, recovered } => session.lost().set(Some(Loss { reason, recovered })),
            Event::Refused { what, reason, nearest } => self.refuse(what, reason, nearest),
            Event::Failed { reason } => session.phase().set(Phase::Failed(reason)),
            Event::Training { news } => session.race().update(|race| learn(race, *news)),
            // The link keeps it; nothing on the page shows it.
            Event::Tuned { .. } => {}
        }
    }

    /// Shows a model that was opened now, and something else where none is open.
    fn take_opened(self, model: Option<OpenedFacts>) {
        let before = self.session.opened().get_untracked();
        self.session.opened().set(model.clone());
        if let Some(model) = model.as_ref().filter(|model| before.as_ref() != Some(model)) {
            let (causal, length) = (model.causal, model.length);
            self.edit(|e| {
                (e.weights, e.causal, e.layer, e.head) = (WeightsFrom::Opened, causal, 0, 0);
                e.n = e.n.min(length);
            });
        } else if model.is_none() {
            self.edit(|e| {
                if e.weights == WeightsFrom::Opened && before.is_some() {
                    e.weights = WeightsFrom::Trained;
                }
            });
        }
    }

    /// What another variant decided says nothing of this one.
    fn forget_decisions(self, plate: usize, variant: &str) {
        let decided = self.session.decided();
        let of_another = |old: &Option<Arc<Decided>>| old.as_ref().is_some_and(|old| old.variant != variant);
        if decided.with_untracked(|all| all.get(plate).is_some_and(of_another)) {
            decided.update(|all| all[plate] = None);
        }
    }

    /// A refusal of a variant takes its picture and its numbers away: they are of another experiment.
    fn refuse(self, what: String, reason: String, nearest: Option<String>) {
        let plate = self.session.experiment().with_untracked(|e| e.variants.iter().take(2).position(|id| *id == what));
        if let Some(plate) = plate {
            self.forget_decisions(plate, "");
            self.session.plates().update(|plates| {
                let draws = plates[plate].draws;
                plates[plate] = PlateState { refusal: Some(reason.clone()), draws, ..PlateState::default() };
            });
        }
        let what = attention::find(&what).map_or(what, |variant| variant.name.to_owned());
        self.session.refused().set(Some(Refused { what, reason, nearest }));
    }
}

/// Folds what the engine tells of runs in training.
fn learn(race: &mut Race, news: News) {
    match news {
        News::Runs { runs, pace, doing, alone } => {
            let (not_kept, look) = (race.not_kept.take(), race.look.take());
            // What was inside a run says nothing of another in its place.
            let config = |runs: &[RunFacts], at: usize| runs.get(at).map(|run| run.config.clone());
            let look = look.filter(|look| config(&race.runs, look.run) == config(&runs, look.run));
            *race = Race { runs, pace, doing, alone, not_kept, look };
        }
        News::Doing { doing, alone } => (race.doing, race.alone) = (doing, alone),
        News::Samples { of } => {
            for (at, samples) in of {
                if let Some(run) = race.runs.get_mut(at) {
                    run.samples.extend(samples);
                }
            }
        }
        News::Failed { run, failed } => {
            if let Some(run) = race.runs.get_mut(run) {
                run.failed = Some(failed);
            }
        }
        News::NotKept { why } => race.not_kept = Some(why),
        News::Kept => race.not_kept = None,
        News::Looked { look } => race.look = Some(*look),
        News::Saved { run, at } => {
            let name = race.runs.get(run).map(file_name).unwrap_or_default();
            browser::save_address(&name, &at);
        }
    }
}
