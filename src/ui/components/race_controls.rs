//! Driving a race: start, pause, single steps, stop; how far it is; what it has shown.

use crate::lab::protocol::Command;
use crate::lab::train::orders::{Doing, Order};
use crate::lab::train::setup;
use crate::lab::train::verdict::Next;
use crate::ui::race::{awaited_words, say, status, would_change};
use crate::ui::state::{Lab, Phase, SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;
use std::time::Duration;

/// An edit is followed by others for so long.
const SETTLED: Duration = Duration::from_millis(500);

pub fn order(lab: Lab, order: Order) {
    lab.send_now(Command::Train { order: Box::new(order) });
}

/// Starts a race with the form's settings.
pub fn start(lab: Lab) {
    let (runs, pace) = lab.session.experiment().with_untracked(|e| (setup::runs(e), e.train.pace));
    order(lab, Order::Start { runs, pace });
}

/// Goes on with a race that rests, and starts one where there is none or it has ended.
pub fn go_on(lab: Lab) {
    match lab.session.race().with_untracked(|race| race.doing) {
        Doing::Paused | Doing::Stopped => {
            let pace = lab.session.experiment().with_untracked(|e| e.train.pace);
            order(lab, Order::Resume { pace });
        }
        Doing::Nothing | Doing::Ready | Doing::Done => start(lab),
        Doing::Preparing | Doing::Running => {}
    }
}

/// Has runs made ready and timed when the form has settled, unless others are at work.
pub fn prepare(lab: Lab) {
    let wanted = lab.of(setup::runs);
    let ready = Memo::new(move |_| lab.session.phase().with(|phase| *phase == Phase::Ready));
    let timer = StoredValue::new_local(None::<TimeoutHandle>);
    let begin = move || {
        let doing = lab.session.race().with_untracked(|race| race.doing);
        if matches!(doing, Doing::Nothing | Doing::Preparing | Doing::Ready) {
            order(lab, Order::Prepare { runs: wanted.get_untracked() });
        }
    };
    // What an earlier visit has trained comes first.
    Effect::new(move |_| {
        if ready.get() {
            order(lab, Order::Recall);
        }
    });
    Effect::new(move |_| {
        wanted.track();
        if ready.get() {
            timer.update_value(|timer| {
                if let Some(timer) = timer.take() {
                    timer.clear();
                }
                *timer = set_timeout_with_handle(begin, SETTLED).ok();
            });
        }
    });
    on_cleanup(move || {
        timer.try_update_value(|timer| timer.take().inspect(TimeoutHandle::clear));
    });
}

#[component]
pub fn Controls() -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let doing = Memo::new(move |_| session.race().with(|race| race.doing));
    let ready = Memo::new(move |_| session.phase().with(|phase| *phase == Phase::Ready));
    let wanted = lab.of(setup::runs);
    let pace = lab.of(|e| e.train.pace);
    let fresh = move || matches!(doing.get(), Doing::Nothing | Doing::Preparing | Doing::Ready);
    let changed = Memo::new(move |_| {
        let words = || session.race().with_untracked(|race| would_change(race, &wanted.get()));
        if fresh() {
            wanted.track();
            String::new()
        } else {
            words()
        }
    });
    let toggle = move |_| {
        order(
            lab,
            if doing.get_untracked() == Doing::Running {
                Order::Pause
            } else {
                Order::Resume { pace: pace.get_untracked() }
            },
        );
    };
    let running = move || doing.get() == Doing::Running;
    let resting = move || matches!(doing.get(), Doing::Paused | Doing::Stopped);
    let progress = move || {
        session.race().with(|race| {
            let (mut done, mut all) = (0, 0);
            for run in race.runs.iter().filter(|run| run.failed.is_none()) {
                done += run.samples.last().map_or(0, |s| s.step);
                all += run.config.steps;
            }
            done as f64 / all.max(1) as f64
        })
    };
    // Said aloud when what it does changes, not at every step.
    let spoken = move || match doing.get() {
        Doing::Running => t("train.spoken_running"),
        Doing::Paused => t("train.spoken_paused"),
        Doing::Stopped => t("train.spoken_stopped"),
        Doing::Done => t("train.spoken_done"),
        _ => "",
    };
    view! {
        <div class="actions" id="race-controls" data-doing=move || format!("{:?}", doing.get()).to_lowercase()>
            <button type="button" class="primary" id="race-start" data-changed=move || (!changed.get().is_empty()).then_some("")
                disabled=move || !ready.get() || doing.get() == Doing::Preparing on:click=move |_| start(lab)>
                {move || if fresh() { t("train.start") } else { t("train.restart") }}
            </button>
            <button type="button" id="race-pause" disabled=move || !running() && !resting() on:click=toggle>
                {move || if running() || fresh() { t("train.pause") } else { t("train.resume") }}
            </button>
            <button type="button" id="race-step" disabled=move || !resting() && doing.get() != Doing::Ready
                on:click=move |_| order(lab, Order::Step)>{t("train.step")}</button>
            <button type="button" id="race-stop" disabled=move || !running() && doing.get() != Doing::Paused
                on:click=move |_| order(lab, Order::Stop)>{t("train.stop")}</button>
            <span class="quiet small number" id="race-status">{move || session.race().with(status)}</span>
            <span class="unseen" role="status">{spoken}</span>
        </div>
        <div class="progress race-progress"><progress max="1" prop:value=progress aria-label=t("train.progress")></progress></div>
        <p class="notice" id="race-changed" role="status">{move || Some(changed.get()).filter(|words| !words.is_empty())
            .map(|what| fill("train.changed", &[("what", &what)]))}</p>
    }
}

/// The verdict, and one experiment that would say more.
#[component]
pub fn Said() -> impl IntoView {
    let lab = use_lab();
    let said = Memo::new(move |_| lab.session.race().with(say));
    let waits = Memo::new(move |_| lab.session.race().with(awaited_words));
    let begin = move |next: Next| {
        lab.edit(|e| match next {
            Next::Length(n) => e.train.length = n,
            Next::Steps(n) => e.train.steps = n,
            Next::Layers(n) => e.train.layers = n,
            Next::Seed(n) => e.seed = n,
        });
        start(lab);
    };
    view! {
        <div class="findings" id="verdict" aria-live="polite">
            {move || match said.get() {
                None => view! { <p>{move || waits.get()}</p> }.into_any(),
                Some((words, next, suggestion)) => view! {
                    <p>{words}</p>
                    <p>{suggestion}" "<button type="button" id="race-next" on:click=move |_| begin(next)>{t("train.try")}</button></p>
                }.into_any(),
            }}
        </div>
    }
}
