//! The runs of a race: what differs from one to the next, what they cost, and why one could not go on.

use super::gallery::{family_key, glyph};
use super::race_controls::order;
use crate::attention::find;
use crate::lab::train::orders::{Doing, MOST_RUNS, NotKept, Order, RunFacts};
use crate::lab::train::setup;
use crate::ui::browser;
use crate::ui::race::{COLUMNS, difference, name_of, not_kept_words, variant_of};
use crate::ui::state::{Lab, Refused, SessionStoreFields, use_lab};
use crate::ui::texts::{fill, lookup, t};
use leptos::prelude::*;
use wasm_bindgen::JsCast;

#[component]
pub fn Runs() -> impl IntoView {
    let lab = use_lab();
    // Rows stay while figures in them change, so that a button in them keeps the focus.
    let configs = Memo::new(move |_| {
        lab.session.race().with(|race| race.runs.iter().map(|run| (run.config.clone(), run.forked)).collect::<Vec<_>>())
    });
    let not_kept = Memo::new(move |_| lab.session.race().with(|race| race.not_kept.clone()));
    let rows = move || (0..configs.with(Vec::len)).map(|at| row(lab, at)).collect_view();
    view! {
        <Show when=move || !configs.with(Vec::is_empty)>
            <div class="results">
                <table id="runs">
                    <caption>{t("train.runs")}</caption>
                    <thead><tr>
                        <th scope="col">{t("train.run")}</th>
                        <th scope="col">{t("train.differs")}</th>
                        {COLUMNS.iter().map(|(title, _)| view! { <th scope="col">{lookup(title)}</th> }).collect_view()}
                        <th scope="col"><span class="unseen">{t("train.actions")}</span></th>
                    </tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </Show>
        <p class="actions">
            <label class="button">{t("train.open")}
                <input type="file" class="unseen" id="open-run" accept=".safetensors"
                    on:change=move |ev| open(lab, ev.target().unwrap().unchecked_into())/>
            </label>
        </p>
        <p class="notice" id="not-kept" role="status">{move || not_kept.get().map(|why| not_kept_words(&why))}" "
            <Show when=move || not_kept.get() == Some(NotKept::Others)>
                <button type="button" id="keep-these" on:click=move |_| order(lab, Order::Keep)>{t("train.keep_these")}</button>
            </Show>
        </p>
    }
}

/// Bytes of a file that is opened, at most.
const LARGEST: f64 = (512 << 20) as f64;

/// Hands a file to the engine, which makes it one more run or says why not.
fn open(lab: Lab, input: web_sys::HtmlInputElement) {
    let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
    if file.size() > LARGEST {
        let (what, reason) = (file.name(), fill("train.too_large", &[("name", &file.name())]));
        lab.session.refused().set(Some(Refused { what, reason, nearest: None }));
    } else if let Ok(from) = browser::address_of(&file) {
        order(lab, Order::Open { from });
    }
    input.set_value("");
}

fn row(lab: Lab, at: usize) -> AnyView {
    let race = lab.session.race();
    let cell = move |words: fn(&RunFacts) -> String| move || race.with(|race| race.runs.get(at).map(words));
    let (name, family, differs) = race.with_untracked(|race| {
        let Some(run) = race.runs.get(at) else { return Default::default() };
        let before = at.checked_sub(1).and_then(|before| race.runs.get(before));
        let differs = before.map(|before| difference(&before.config, &run.config));
        (name_of(run), find(variant_of(&run.config)).map(|variant| variant.family), differs)
    });
    let failed = move || {
        race.with(|race| race.runs.get(at)?.failed.clone()).map(|failed| {
            let nearest = failed.nearest.map(|nearest| fill("banner.nearest", &[("nearest", &nearest)]));
            view! { <span class="notice" role="status">{failed.reason}". "{nearest}</span> }
        })
    };
    // A copy keeps its method, and takes everything else from the form.
    let copy = move |_| {
        let form = lab.session.experiment().with_untracked(setup::runs);
        let made = race.with_untracked(|race| Some((race.runs.get(at)?.config.clone(), form.first()?.clone())));
        if let Some((own, mut config)) = made {
            config.model.attention = own.model.attention;
            order(lab, Order::Fork { run: at, config: Box::new(config) });
        }
    };
    let can_copy = move || {
        race.with(|race| {
            let rests = matches!(race.doing, Doing::Running | Doing::Paused | Doing::Stopped | Doing::Done);
            rests && race.runs.len() < MOST_RUNS && race.runs.get(at).is_some_and(|run| !run.samples.is_empty())
        })
    };
    let can_remove =
        move || race.with(|race| race.runs.len() > 1 && !matches!(race.doing, Doing::Preparing | Doing::Ready));
    let remove = move |_| {
        let sure =
            race.with_untracked(|race| Some(fill("train.remove_sure", &[("name", &name_of(race.runs.get(at)?))])));
        if sure.is_some_and(|words| browser::is_sure(&words)) {
            order(lab, Order::Remove { run: at });
        }
    };
    let can_save = move || race.with(|race| race.runs.get(at).is_some_and(|run| !run.samples.is_empty()));
    view! {
        <tr data-family=family.map(family_key)>
            <td class="wide"><span class="glyph" aria-hidden="true">{family.map(glyph)}</span>" "{name}" "{failed}</td>
            <td class="wide">{differs}</td>
            {COLUMNS.iter().map(|(_, words)| view! { <td>{cell(*words)}</td> }).collect_view()}
            <td><button type="button" id=format!("copy-{at}") title=t("train.copy_meaning") disabled=move || !can_copy()
                on:click=copy>{t("train.copy")}</button>" "
                <button type="button" id=format!("save-{at}") title=t("train.save_meaning") disabled=move || !can_save()
                on:click=move |_| order(lab, Order::Save { run: at })>{t("train.save")}</button>" "
                <button type="button" id=format!("remove-{at}") title=t("train.remove_meaning") disabled=move || !can_remove()
                on:click=remove>{t("train.remove")}</button></td>
        </tr>
    }
    .into_any()
}
