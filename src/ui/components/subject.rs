//! Whose weights the place Attention shows, and what another attention does to a trained model.

use super::by_layer::by_layer;
use super::gallery::family_key;
use super::numbers::Origin;
use super::open_model::OpenModel;
use super::race_controls::order;
use crate::lab::experiment::{View, WeightsFrom};
use crate::lab::protocol::{ModelFacts, Provenance, SubjectFacts, WhyDrawn};
use crate::lab::subject::{JUDGED, Unread};
use crate::lab::train::orders::Order;
use crate::lab::train::setup::TrainSetup;
use crate::ui::format;
use crate::ui::state::{SessionStoreFields, known, use_lab};
use crate::ui::texts::{fill, lookup, t};
use leptos::prelude::*;

/// Words whose stand-ins are told.
const TOLD: usize = 6;
/// Steps of a fine-tuning: some seconds without a GPU.
const STEPS: u64 = 200;

/// Chooses whose weights are shown, and says what they are.
#[component]
pub fn Weights() -> impl IntoView {
    let lab = use_lab();
    let weights = lab.of(|e| e.weights);
    let is_open = Memo::new(move |_| lab.session.opened().with(Option::is_some));
    let said = move || {
        let subject = lab.session.subject().get().filter(|_| weights.get() != WeightsFrom::Drawn);
        subject.map(|subject| say(&subject, weights.get())).unwrap_or_default()
    };
    view! {
        <fieldset id="control-weights">
            <legend>{t("weights.title")}</legend>
            <select id="weights" aria-label=t("weights.title") prop:value=move || weights.get().id()
                on:change:target=move |ev| if let Some(weights) = WeightsFrom::from_id(&ev.target().value()) { lab.edit(|e| e.weights = weights) }>
                {move || WeightsFrom::ALL.iter().filter(|choice| **choice != WeightsFrom::Opened || is_open.get()).map(|choice| {
                    let name = lookup(&format!("weights.{}", choice.id())).unwrap_or(choice.id());
                    view! { <option value=choice.id() selected=move || *choice == weights.get()>{name}</option> }
                }).collect_view()}
            </select>
            <OpenModel/>
            <div class="meaning" id="weights-said" role="status">{move || said().into_iter().map(|sentence| view! { <p>{sentence}</p> }).collect_view()}</div>
        </fieldset>
    }
}

fn say(subject: &SubjectFacts, weights: WeightsFrom) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(model) = &subject.model {
        said.push(said_of(model, subject));
    }
    let count = |n: usize| format::count(n as u64);
    match &subject.why {
        None => {}
        Some(WhyDrawn::Coming) => said.push(t("weights.coming").into()),
        Some(WhyDrawn::NotThere { .. }) if weights == WeightsFrom::Opened => said.push(t("weights.none_open").into()),
        Some(WhyDrawn::NotThere { reason }) => said.push(fill("weights.not_there", &[("reason", reason)])),
        Some(WhyDrawn::Unread(Unread::Bytes)) => said.push(t("weights.bytes").into()),
        Some(WhyDrawn::Unread(Unread::Longer { most })) => {
            said.push(fill("weights.longer", &[("most", &count(*most))]))
        }
        Some(WhyDrawn::Unread(Unread::Refused { reason })) => said.push(fill("weights.refused", &[("reason", reason)])),
        Some(WhyDrawn::TooMuch) => said.push(t("weights.too_much").into()),
    }
    // One mark for another goes without saying.
    let is_word = |(word, _): &&(String, String)| word.chars().any(char::is_alphanumeric);
    let words: Vec<_> = subject.stand_ins.iter().filter(is_word).collect();
    if !words.is_empty() && subject.why.is_none() {
        let pair = |(word, other): &&(String, String)| format!("{word} → {other}");
        let mut pairs = words.iter().take(TOLD).map(pair).collect::<Vec<_>>().join(", ");
        if words.len() > TOLD {
            pairs += ", …";
        }
        said.push(fill("weights.stand_ins", &[("count", &count(words.len())), ("pairs", &pairs)]));
    }
    said
}

fn said_of(model: &ModelFacts, subject: &SubjectFacts) -> String {
    let kind = if model.causal { t("weights.decoder") } else { t("weights.encoder") };
    // What others have trained is told where it was opened.
    let Some((steps, loss)) = model.trained else { return t("weights.of_opened").into() };
    let count = |n: usize| format::count(n as u64);
    let task = if model.causal { t("weights.next") } else { t("weights.hidden") };
    fill(
        "weights.model",
        &[
            ("kind", kind),
            ("layers", &count(model.layers)),
            ("heads", &count(subject.heads)),
            ("width", &count(model.d_model)),
            ("length", &count(model.length)),
            ("steps", &format::count(steps)),
            ("task", task),
            ("loss", &format::significant(loss, 3)),
        ],
    )
}

/// What the methods on the plates do to the trained model: its loss before and after, and a way to train it on.
#[component]
pub fn Swap() -> impl IntoView {
    let lab = use_lab();
    let ids = lab.of(|e| e.variants.iter().take(2).cloned().collect::<Vec<_>>());
    let model = lab.model();
    // Only the lab's own can be judged on what they have not seen, and trained on.
    let is_own = Memo::new(move |_| model.with(|model| model.as_ref().is_some_and(|model| model.trained.is_some())));
    let says_words = Memo::new(move |_| model.with(|model| model.as_ref().is_none_or(|model| model.says_words)));
    let rows = move || {
        known(&ids.get()).into_iter().enumerate().filter(|(_, variant)| variant.id != "full").map(|(at, variant)| {
            let swapped = Memo::new(move |_| {
                lab.session.plates().with(|plates| {
                    let state = &plates[at];
                    (state.variant == variant.id).then_some(state.numbers.as_ref()).flatten().and_then(|n| n.swapped)
                })
            });
            let figure = move |pair: Option<[f64; 2]>| {
                let told = |[before, after]: [f64; 2]| {
                    let after = format::significant(after, 3);
                    if says_words.get() { format!("{} → {after}", format::significant(before, 3)) } else { after }
                };
                pair.map_or_else(|| "–".to_owned(), told)
            };
            let tune = move |_| {
                order(lab, Order::FineTune { plate: at, steps: STEPS });
                lab.edit(|e| {
                    e.view = View::Train;
                    // What the form would start anew is the same task and size.
                    e.train = TrainSetup::usual(if e.causal { "story" } else { "masked_lm" });
                    (e.train.length, e.train.layers) = (128, 3);
                });
            };
            view! {
                <tr data-family=family_key(variant.family)>
                    <th scope="row">{fill("swap.run_with", &[("name", variant.name)])}</th>
                    <td class="number" hidden=move || !is_own.get()>{move || figure(swapped.get().and_then(|s| s.held))}</td>
                    <td class="number">{move || figure(swapped.get().and_then(|s| s.text))}</td>
                    <td hidden=move || !is_own.get()>
                        <button type="button" class="fine-tune" disabled=move || swapped.get().and_then(|s| s.held).is_none()
                            title=t("swap.tune_title") on:click=tune>{t("swap.tune")}</button></td>
                </tr>
            }
        }).collect_view()
    };
    view! {
        <Show when=move || model.with(Option::is_some) && ids.with(|ids| ids.iter().any(|id| id != "full"))>
            <table class="numbers" id="swap">
                <caption>{move || t(if says_words.get() { "swap.title" } else { "swap.vector" })}" "<Origin of=Provenance::Measured/></caption>
                <thead><tr><th></th>
                    <th scope="col" hidden=move || !is_own.get()>{fill("swap.held", &[("count", &JUDGED.to_string())])}</th>
                    <th scope="col">{t("swap.text")}</th><th hidden=move || !is_own.get()></th></tr></thead>
                <tbody>{rows}</tbody>
            </table>
            {move || known(&ids.get()).into_iter().enumerate().filter(|(_, variant)| variant.id != "full")
                .map(|(at, variant)| by_layer(lab, at, variant, says_words)).collect_view()}
        </Show>
    }
}
