//! What to measure: contenders, lengths, with or without the backward pass; start, progress, cancel.

use super::gallery::{family_key, glyph, in_order};
use crate::attention;
use crate::lab::protocol::Command;
use crate::sort::Arrange;
use crate::ui::browser;
use crate::ui::format;
use crate::ui::geometry::LENGTHS;
use crate::ui::state::{Lab, Phase, SessionStoreFields, Sweep, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

fn doublings() -> Vec<usize> {
    std::iter::successors(Some(*LENGTHS.start()), |n| Some(n * 2)).take_while(|n| n <= LENGTHS.end()).collect()
}

/// Starts a sweep of the experiment's variants over the doublings from `from` to `to`.
pub fn begin_sweep(lab: Lab, from: usize, to: usize, backward: bool) {
    let lengths: Vec<usize> = doublings().into_iter().filter(|n| (from..=to).contains(n)).collect();
    let experiment = lab.session.experiment().get_untracked();
    lab.session.sweep().set(Sweep {
        running: true,
        backward,
        experiment: Some(experiment.clone()),
        total: lengths.len() * experiment.variants.len(),
        ..Sweep::default()
    });
    lab.send_now(Command::Sweep { experiment: Box::new(experiment), lengths, backward });
}

#[component]
pub fn SweepSetup() -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let chosen = lab.of(|e| e.variants.clone());
    let from = RwSignal::new(64_usize);
    // A software adapter or a CPU takes minutes for what a GPU does in seconds, so it is asked for less at first.
    let to = RwSignal::new(4096_usize);
    Effect::new(move |_| {
        if session.adapter().with(|adapter| adapter.as_ref().is_some_and(|a| a.software || a.backend == "cpu")) {
            to.set(1024);
        }
    });
    let backward = RwSignal::new(false);
    let running = Memo::new(move |_| session.sweep().with(|sweep| sweep.running));
    let ready = Memo::new(move |_| session.phase().with(|phase| *phase == Phase::Ready));
    let start = move |()| begin_sweep(lab, from.get_untracked(), to.get_untracked(), backward.get_untracked());
    // What networks were trained before attention, and it, at one step of training.
    let train = move |_| {
        backward.set(true);
        lab.edit(|e| {
            e.variants = ["full", "rnn", "lstm", "gru"].map(String::from).into();
            e.causal = true;
        });
        start(());
    };
    let racing = Memo::new(move |_| session.forms().with(|forms| forms.running));
    let blocked = move || !ready.get() || racing.get() || from.get() > to.get();
    view! {
        <fieldset id="contenders">
            <legend>{t("sweep.contenders")}</legend>
            // Where the charts stand below the list, it would push them out of sight.
            <details open=browser::is_wide()>
            <summary>{move || fill("sweep.chosen", &[("n", &chosen.with(Vec::len).to_string())])}</summary>
            <ul>{in_order().into_iter().map(|variant| view! {
                <li data-family=family_key(variant.family)><label>
                    <input type="checkbox" id=format!("contender-{}", variant.id)
                        prop:checked=move || chosen.with(|ids| ids.iter().any(|id| id == variant.id))
                        on:change:target=move |ev| {
                            let wanted = ev.target().checked();
                            lab.edit(|e| toggle(&mut e.variants, variant.id, wanted));
                            // The last contender stays: its box is checked again.
                            ev.target().set_checked(chosen.with_untracked(|ids| ids.iter().any(|id| id == variant.id)));
                        }/>
                    <span class="glyph" aria-hidden="true">{glyph(variant.family)}</span>
                    <span>{variant.name}</span>
                </label></li>
            }).collect_view()}</ul>
            </details>
        </fieldset>
        <fieldset id="lengths">
            <legend>{t("sweep.lengths")}</legend>
            <div class="row">
                <label class="inline">{t("sweep.from")}<LengthMenu value=from id="sweep-from"/></label>
                <label class="inline">{t("sweep.to")}<LengthMenu value=to id="sweep-to"/></label>
            </div>
            <label class="control check">
                <input type="checkbox" id="backward" prop:checked=move || backward.get() on:change:target=move |ev| backward.set(ev.target().checked())/>
                <span>{t("sweep.backward")}</span>
            </label>
        </fieldset>
        <div class="progress">
            <Show when=move || running.get() fallback=move || view! {
                <button type="button" class="primary" id="sweep-start" disabled=blocked on:click=move |_| start(())>{t("sweep.start")}</button>
                <button type="button" id="sweep-chain" disabled=blocked on:click=train>{t("sweep.chain")}</button>
            }>
                <button type="button" id="sweep-cancel" on:click=move |_| lab.send_now(Command::Cancel)>{t("sweep.cancel")}</button>
                <progress max=move || session.sweep().with(|s| s.total) prop:value=move || session.sweep().with(|s| s.done) aria-label=t("sweep.progress")></progress>
            </Show>
            <p class="quiet" id="sweep-status" role="status">{move || session.sweep().with(status)}</p>
            <p class="quiet">{t("sweep.how")}</p>
        </div>
    }
}

#[component]
pub fn LengthMenu(value: RwSignal<usize>, id: &'static str) -> impl IntoView {
    view! {
        <select id=id prop:value=move || value.get().to_string()
            on:change:target=move |ev| if let Ok(n) = ev.target().value().parse() { value.set(n) }>
            {doublings().into_iter().map(|n| view! { <option value=n.to_string() selected=n == value.get_untracked()>{format::count(n as u64)}</option> }).collect_view()}
        </select>
    }
}

/// Adds or takes away a contender, in the registry's order; the last one stays.
fn toggle(variants: &mut Vec<String>, id: &str, wanted: bool) {
    if wanted {
        variants.push(id.to_owned());
        variants.arrange_by_key(|id| attention::ALL.iter().position(|v| v.id == id));
        variants.dedup();
    } else if variants.len() > 1 {
        variants.retain(|other| other != id);
    }
}

fn status(sweep: &Sweep) -> String {
    let (done, total) = (sweep.done.to_string(), sweep.total.to_string());
    let values = [("done", done.as_str()), ("total", total.as_str())];
    match (sweep.running, sweep.seconds_left) {
        (true, Some(left)) => fill("sweep.left", &[values[0], values[1], ("left", &format::duration(left))]),
        (true, None) => fill("sweep.running", &values),
        (false, _) if sweep.cancelled => fill("sweep.cancelled", &values),
        (false, _) if !sweep.points.is_empty() => fill("sweep.done", &values),
        _ => String::new(),
    }
}
