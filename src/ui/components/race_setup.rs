//! What to train: a task, two to four models, sizes, and how they learn.

use super::gallery::{family_key, glyph, in_order};
use super::text_input::TextInput;
use crate::attention::{Param, Variant, find};
use crate::lab::experiment::{Experiment, MAX_HEADS};
use crate::lab::train::orders::Pace;
use crate::lab::train::setup::{Cross, MOST_MODELS, NUMBERS, RATES, TrainSetup, is_recurrent, task_ids};
use crate::model::{Architecture, Block};
use crate::ui::race::{architecture_name, task_name};
use crate::ui::state::{Lab, use_lab};
use crate::ui::texts::{fill, lookup, t};
use leptos::prelude::*;

#[component]
pub fn RaceSetup() -> impl IntoView {
    let lab = use_lab();
    let task = lab.of(|e| e.train.task.clone());
    let pick = move |id: String| {
        lab.edit(|e| {
            let (pace, against) = (e.train.pace, e.train.against);
            e.train = TrainSetup { pace, against, ..TrainSetup::usual(&id) };
        });
    };
    let tasks = task_ids().into_iter().map(|id| {
        let selected = task.with_untracked(|task| *task == id);
        view! { <option value=id.clone() selected=selected>{task_name(&id)}</option> }
    });
    let seconds = lab.of(|e| e.train.pace == Pace::Seconds);
    let numbers = NUMBERS.into_iter().map(|number| {
        let (get, set) = (number.get, number.set);
        let id = lookup(&format!("train.field.{}", number.key)).unwrap_or(number.key);
        let range = (*number.range.start(), *number.range.end());
        whole(lab, number.key, id, range, move |e| get(&e.train), move |e, x| set(&mut e.train, x))
    });
    let rate = lab.of(|e| e.train.rate);
    let recurrent = lab.of(|e| e.variants.iter().take(MOST_MODELS).any(|id| is_recurrent(id)));
    let crosses = lab.of(|e| e.train.architecture == Architecture::EncoderDecoder);
    view! {
        <fieldset>
            <legend>{t("train.task")}</legend>
            <select id="task" aria-label=t("train.task") prop:value=move || task.get()
                on:change:target=move |ev| pick(ev.target().value())>{tasks.collect_view()}</select>
            <p class="meaning quiet">{move || lookup(&format!("task.{}.about", task.get()))}</p>
            <Show when=move || task.with(|task| task == "text")><TextInput/></Show>
        </fieldset>
        <fieldset id="models">
            <legend>{t("train.models")}</legend>
            {(0..MOST_MODELS).map(|at| model(lab, at)).collect_view()}
        </fieldset>
        <fieldset id="race-numbers">
            <legend>{t("train.settings")}</legend>
            {architecture(lab)}
            <Show when=move || recurrent.get()>
                {menu(lab, "block", Block::IDS, |e| e.train.block.id(), |e, id| {
                    e.train.block = Block::from_id(id).unwrap_or_default();
                })}
            </Show>
            <Show when=move || crosses.get()>
                {menu(lab, "cross", Cross::IDS, |e| e.train.cross.id(), |e, id| {
                    e.train.cross = Cross::from_id(id).unwrap_or_default();
                })}
            </Show>
            <div class="pair">
                {numbers.collect_view()}
                {whole(lab, "heads", t("train.field.heads"), (1, MAX_HEADS), |e| e.heads, |e, x| {
                    e.heads = x;
                    e.head = e.head.min(x - 1);
                })}
                <label>{t("train.field.rate")}
                    <input type="text" inputmode="decimal" id="train-rate" prop:value=move || rate.get().to_string()
                        on:change:target=move |ev| {
                            match ev.target().value().trim().parse::<f64>() {
                                Ok(x) if RATES.contains(&x) => lab.edit(|e| e.train.rate = x),
                                _ => ev.target().set_value(&rate.get_untracked().to_string()),
                            }
                        }/>
                </label>
                {whole(lab, "seed", t("train.field.seed"), (0, 1_000_000), |e| e.seed as usize, |e, x| e.seed = x as u64)}
            </div>
            <label class="control check">
                <input type="checkbox" id="equal-seconds" prop:checked=move || seconds.get() on:change:target=move |ev| {
                    let pace = if ev.target().checked() { Pace::Seconds } else { Pace::Steps };
                    lab.edit(|e| e.train.pace = pace);
                }/>
                <span>{t("train.equal_seconds")}</span>
                <span class="meaning">{t("train.equal_seconds_meaning")}</span>
            </label>
        </fieldset>
    }
}

/// The architecture, of those that the task takes; why it does not take another is said.
fn architecture(lab: Lab) -> AnyView {
    let chosen = lab.of(|e| e.train.architecture);
    let encodes = lab.of(|e| e.train.takes(Architecture::Encoder));
    let options = Architecture::ALL.iter().map(|&kind| {
        let selected = chosen.with_untracked(|chosen| *chosen == kind);
        let refused = move || kind == Architecture::Encoder && !encodes.get();
        view! { <option value=kind.id() selected=selected disabled=refused>{architecture_name(kind)}</option> }
    });
    let about = move || match chosen.get() {
        Architecture::Decoder => t("architecture.decoder.about"),
        Architecture::Encoder => t("architecture.encoder.about"),
        Architecture::EncoderDecoder => t("architecture.encoder_decoder.about"),
    };
    view! {
        <label class="control">{t("train.field.architecture")}
            <select id="train-architecture" prop:value=move || chosen.get().id() on:change:target=move |ev| {
                let picked = Architecture::from_id(&ev.target().value());
                lab.edit(|e| match picked {
                    Some(kind) if e.train.takes(kind) => e.train.architecture = kind,
                    _ => {}
                });
                ev.target().set_value(chosen.get_untracked().id());
            }>{options.collect_view()}</select>
            <span class="meaning">{about}" "{move || (!encodes.get()).then(|| t("architecture.no_encoder"))}</span>
        </label>
    }
    .into_any()
}

/// One of a few choices; the catalogues name it, its choices, and what each means.
fn menu(
    lab: Lab,
    key: &'static str,
    ids: &'static [&'static str],
    get: fn(&Experiment) -> &'static str,
    set: fn(&mut Experiment, &str),
) -> AnyView {
    let chosen = lab.of(get);
    let options = ids.iter().map(|&id| {
        let selected = chosen.get_untracked() == id;
        view! { <option value=id selected=selected>{lookup(&format!("{key}.{id}"))}</option> }
    });
    view! {
        <label class="control">{lookup(&format!("train.field.{key}"))}
            <select id=format!("train-{key}") prop:value=move || chosen.get()
                on:change:target=move |ev| lab.edit(|e| set(e, &ev.target().value()))>{options.collect_view()}</select>
            <span class="meaning">{move || lookup(&format!("{key}.{}.about", chosen.get()))}</span>
        </label>
    }
    .into_any()
}

/// A whole number of the experiment; its input's id is `train-` and `key`.
fn whole(
    lab: Lab,
    key: &'static str,
    name: &'static str,
    (min, max): (usize, usize),
    get: impl Fn(&Experiment) -> usize + Copy + Send + Sync + 'static,
    set: impl Fn(&mut Experiment, usize) + Copy + 'static,
) -> AnyView {
    let value = lab.of(get);
    view! {
        <label>{name}
            <input type="number" id=format!("train-{key}") min=min max=max prop:value=move || value.get()
                on:change:target=move |ev| {
                    if let Ok(x) = ev.target().value().parse::<usize>() {
                        lab.edit(|e| set(e, x.clamp(min, max)));
                    }
                    // What was not taken is not left standing.
                    ev.target().set_value(&value.get_untracked().to_string());
                }/>
        </label>
    }
    .into_any()
}

/// The model at a place: its variant and that one's parameters.
fn model(lab: Lab, at: usize) -> AnyView {
    let chosen = lab.of(move |e| e.variants.get(at).cloned().unwrap_or_default());
    let count = lab.of(|e| e.variants.len());
    let pick = move |id: String| {
        lab.edit(|e| {
            if id.is_empty() {
                e.variants.remove(at);
            } else if !e.variants.contains(&id) {
                match e.variants.get_mut(at) {
                    Some(place) => *place = id,
                    None => e.variants.push(id),
                }
            }
        });
    };
    let options = in_order().into_iter().map(|variant| {
        let selected = chosen.with_untracked(|id| id == variant.id);
        view! { <option value=variant.id selected=selected>{variant.name}</option> }
    });
    let family = move || find(&chosen.get()).map(|variant| family_key(variant.family));
    let name = fill("train.model", &[("n", &(at + 1).to_string())]);
    view! {
        <div class="model" hidden=move || count.get() < at data-family=family>
            <span class="glyph" aria-hidden="true">{move || find(&chosen.get()).map(|variant| glyph(variant.family))}</span>
            <select id=format!("model-{at}") aria-label=name prop:value=move || { count.track(); chosen.get() }
                on:change:target=move |ev| {
                    pick(ev.target().value());
                    // One that stands elsewhere already is not taken twice.
                    ev.target().set_value(&chosen.get_untracked());
                }>
                {(at > 0).then(|| view! { <option value="">{t("train.no_model")}</option> })}
                {options.collect_view()}
            </select>
            <div class="params">{move || find(&chosen.get()).map(|variant| {
                variant.params.iter().map(|param| param_field(lab, variant, param)).collect_view()
            })}</div>
        </div>
    }
    .into_any()
}

/// One parameter of a variant, written as in a permalink.
fn param_field(lab: Lab, variant: &'static Variant, param: &'static Param) -> AnyView {
    let value = lab.of(move |e| {
        let given = e.params.get(variant.id).and_then(|params| params.0.get(param.name)).cloned();
        given.unwrap_or_else(|| e.usual_value(param)).to_string()
    });
    view! {
        <label title=param.meaning>{param.name.replace('_', " ")}
            <input type="text" id=format!("train-{}.{}", variant.id, param.name) prop:value=move || value.get()
                on:change:target=move |ev| {
                    if let Ok(value) = param.parse(ev.target().value().trim()) {
                        lab.edit(|e| {
                            e.params.entry(variant.id.into()).or_default().0.insert(param.name.into(), value);
                        });
                    }
                    ev.target().set_value(&value.get_untracked());
                }/>
        </label>
    }
    .into_any()
}
