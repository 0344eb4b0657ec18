//! The inside of one run while it trains: what the next step does to each part, what is predicted, what it writes.

use super::numbers::Origin;
use super::race_controls::order;
use super::race_heads::Heads;
use crate::lab::protocol::Provenance;
use crate::lab::train::PartChange;
use crate::lab::train::orders::{Doing, Guess, HeadChoice, Look, Order, Seen, Written};
use crate::ui::format;
use crate::ui::race::{name_of, part_words};
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// Held-out sequences to choose from.
const SEQUENCES: u64 = 32;

#[component]
pub fn Inside() -> impl IntoView {
    let lab = use_lab();
    let race = lab.session.race();
    let open = RwSignal::new(false);
    let wanted = RwSignal::new(0_usize);
    let sequence = RwSignal::new(0_u64);
    let prompt = RwSignal::new(String::new());
    let head = RwSignal::new(HeadChoice::default());
    let names = Memo::new(move |_| race.with(|race| race.runs.iter().map(name_of).collect::<Vec<_>>()));
    // Of fewer runs than there were, the last.
    let chosen = Memo::new(move |_| wanted.get().min(names.with(Vec::len).saturating_sub(1)));
    // Looked at again whenever the run is judged, and when it comes to rest: often enough to see it change, and seldom enough
    // not to slow it down.
    let moment = Memo::new(move |_| {
        race.with(|race| {
            let run = race.runs.get(chosen.get())?;
            let known = !matches!(race.doing, Doing::Nothing | Doing::Preparing) && run.failed.is_none();
            let judged = run.samples.iter().filter(|sample| sample.held.is_some()).count();
            let rests = race.doing != Doing::Running;
            let step = run.samples.last().map_or(0, |sample| sample.step);
            known.then_some((judged, rests, if rests { step } else { 0 }))
        })
    });
    Effect::new(move |_| {
        let (run, sequence, prompt, heads) = (chosen.get(), sequence.get(), prompt.get(), head.get());
        if open.get() && moment.get().is_some() {
            order(lab, Order::Look { run, sequence, prompt, heads });
        }
    });
    let look = Memo::new(move |_| race.with(|race| race.look.clone()).filter(|look| look.run == chosen.get()));
    let options = move || {
        let option = |(at, name): (usize, String)| {
            view! { <option value=at.to_string() selected=at == chosen.get_untracked()>{name}</option> }
        };
        names.get().into_iter().enumerate().map(option).collect_view()
    };
    let parse = |ev| event_target_value(&ev).parse::<u64>().ok();
    view! {
        <Show when=move || !names.with(Vec::is_empty)>
            <details id="look" on:toggle=move |_| open.update(|open| *open = !*open)>
                <summary><h2>{t("train.look")}</h2></summary>
                <p class="quiet">{t("train.look_meaning")}</p>
                <p class="actions">
                    <label>{t("train.run")}" "<select id="look-run"
                        on:change=move |ev| wanted.set(parse(ev).unwrap_or(0) as usize)>{options}</select></label>
                    <label>{t("train.look_sequence")}" "<input type="number" id="look-sequence" min="1" max=SEQUENCES value="1"
                        on:change=move |ev| sequence.set(parse(ev).unwrap_or(1).clamp(1, SEQUENCES) - 1)/></label>
                    <span class="quiet small number" id="look-step" role="status">{move || look.with(|look| look.as_ref()
                        .map(|look| fill("train.look_at", &[("step", &format::count(look.step))])))}</span>
                </p>
                {move || look.with(|look| look.as_ref().map(predictions))}
                <Show when=move || look.with(|look| look.as_ref().is_some_and(|look| look.written.is_some()))>
                    <p class="actions"><label>{t("train.prompt")}" "<input type="text" id="look-prompt" maxlength="400"
                        on:change=move |ev| prompt.set(event_target_value(&ev))/></label></p>
                </Show>
                {move || look.with(|look| look.as_ref().and_then(|look| look.written.as_ref()).map(written))}
                <Show when=move || look.with(Option::is_some)><Heads look choice=head/></Show>
                {move || look.with(|look| look.as_ref().map(changes))}
            </details>
        </Show>
    }
}

fn predictions(look: &Look) -> AnyView {
    let judged = || look.seen.iter().filter_map(|seen| seen.guess.as_ref());
    let right = judged().filter(|guess| guess.right).count();
    let counts = [("right", format::count(right as u64)), ("all", format::count(judged().count() as u64))];
    let words = fill("train.seen_under", &counts.each_ref().map(|(k, v)| (*k, v.as_str())));
    view! {
        <h3>{t("train.seen")}" "<Origin of=Provenance::Measured/></h3>
        <p class="seen" id="look-seen" tabindex="0">{look.seen.iter().map(position).collect_view()}</p>
        <p class="under">{words}</p>
    }
    .into_any()
}

/// What is read, and below it what is predicted.
fn position(seen: &Seen) -> AnyView {
    let Some(Guess { guess, answer, right, of_guess, of_answer }) = &seen.guess else {
        return view! { <span><b>{seen.token.clone()}</b></span>" " }.into_any();
    };
    let share = |p: &f32| format::percent(f64::from(*p));
    let values = [("guess", guess.as_str()), ("p", &share(of_guess)), ("answer", answer), ("q", &share(of_answer))];
    let tip = fill(if *right { "train.right_tip" } else { "train.wrong_tip" }, &values);
    let wrong = (!right).then(|| view! { <s>{guess.clone()}</s>" " });
    view! {
        <span data-right=right.to_string() title=tip><b>{seen.token.clone()}</b><i>{wrong}{answer.clone()}</i></span>" "
    }
    .into_any()
}

fn written(written: &Written) -> AnyView {
    view! {
        <p class="written" id="look-written"><span class="quiet">{written.prompt.clone()}</span>" "{written.words.clone()}</p>
    }
    .into_any()
}

/// Gradient and update of each part, with the ratio drawn on a logarithmic scale.
fn changes(look: &Look) -> AnyView {
    let row = |change: &PartChange| {
        let ratio = change.ratio();
        let figure = |x: f32| format::significant(f64::from(x), 3);
        // From a hundred-thousandth to a tenth.
        let along = ratio.map_or(0.0, |ratio| ((ratio.max(1e-9).log10() + 5.0) / 4.0).clamp(0.0, 1.0) * 100.0);
        view! {
            <tr><td class="wide">{part_words(&change.part)}</td><td>{figure(change.gradient)}</td>
            <td>{ratio.map_or("–".into(), figure)}</td>
            <td class="bar"><i style=format!("inline-size:{along:.1}%")></i></td></tr>
        }
    };
    view! {
        <h3>{t("train.changes")}" "<Origin of=Provenance::Measured/></h3>
        <div class="results"><table id="look-changes">
            <thead><tr><th scope="col">{t("train.part")}</th><th scope="col">{t("train.gradient")}</th>
                <th scope="col">{t("train.ratio")}</th><th scope="col">{t("train.ratio_scale")}</th></tr></thead>
            <tbody>{look.changes.iter().map(row).collect_view()}</tbody>
        </table></div>
        <p class="under">{t("train.changes_under")}</p>
    }
    .into_any()
}
