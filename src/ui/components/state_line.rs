//! The experiment in words; each noun is a menu.

use crate::attention::{self, Causal, ParamKind, Value};
use crate::lab::experiment::{MAX_HEADS, View};
use crate::lab::train::setup::MOST_MODELS;
use crate::ui::format;
use crate::ui::geometry::LENGTHS;
use crate::ui::race::{in_race, task_name};
use crate::ui::state::{SessionStoreFields, known, set_value, use_lab, value_of};
use crate::ui::texts::{fill, lookup, t};
use leptos::prelude::*;

/// A value of a menu and how it is called there.
type Choice = (String, String);

/// A word of the sentence, with the browser's own menu laid over it.
#[component]
fn Noun(
    /// What is chosen here, for screen readers.
    name: String,
    /// What the sentence says.
    #[prop(into)]
    word: Signal<String>,
    #[prop(into)] value: Signal<String>,
    #[prop(into)] choices: Signal<Vec<Choice>>,
    on_pick: Callback<String>,
) -> impl IntoView {
    view! {
        <span class="clause"><span class="noun">
            <span aria-hidden="true">{move || word.get()}</span>
            <select aria-label=name prop:value=move || { choices.track(); value.get() }
                on:change:target=move |ev| on_pick.run(ev.target().value())>
                {move || choices.get().into_iter().map(|(id, text)| {
                    let selected = id == value.get_untracked();
                    view! { <option value=id selected=selected>{text}</option> }
                }).collect_view()}
            </select>
        </span></span>" "
    }
}

#[component]
pub fn StateLine() -> impl IntoView {
    let lab = use_lab();
    let speed = lab.of(|e| e.view == View::Speed);
    let train = lab.of(|e| {
        let task = task_name(&e.train.task);
        let models: Vec<&str> = known(&e.variants).into_iter().take(MOST_MODELS).map(|v| v.name).collect();
        (e.view == View::Train).then(|| format!("{task}: {}", models.join(" · ")))
    });
    // Runs that there are have the word, whatever the form says of the next ones.
    let runs = Memo::new(move |_| lab.session.race().with(in_race));
    let in_words =
        move || view! { <p class="state-line" id="state-line">{move || runs.get().or_else(|| train.get())}</p> };
    view! {
        <Show when=move || train.with(Option::is_none) fallback=in_words>
        <p class="state-line" id="state-line">
            <Show when=move || !speed.get() fallback=|| view! { <span class="clause">{t("state.sweep")}</span>" " }>
                <Variants/><Length/>
            </Show>
            <CausalNoun/><Heads/>
        </p>
        </Show>
    }
}

#[component]
fn Variants() -> impl IntoView {
    let lab = use_lab();
    let ids = lab.of(|e| e.variants.iter().take(2).cloned().collect::<Vec<_>>());
    move || {
        known(&ids.get())
            .into_iter()
            .enumerate()
            .map(|(at, variant)| {
                let choices: Vec<Choice> = attention::ALL.iter().map(|v| (v.id.into(), v.name.into())).collect();
                let pick = Callback::new(move |id: String| {
                    lab.edit(|e| {
                        if !e.variants.contains(&id) {
                            e.variants[at] = id;
                        }
                    });
                });
                view! {
                    {(at > 0).then(|| view! { <span class="beside">{t("state.beside")}</span>" " })}
                    <Noun name=t("state.variant").to_owned() word=variant.name.to_owned() value=variant.id.to_owned()
                        choices=choices on_pick=pick/>
                    {variant.params.iter().enumerate().map(|(at, param)| {
                        // A sentence names what is special: the first parameter, and whatever is not as usual.
                        let special = lab.of(move |e| at == 0 || value_of(e, variant.id, param) != param.default(e.n));
                        view! { <Show when=move || special.get()><ParamNoun variant param/></Show> }
                    }).collect_view()}
                }
            })
            .collect_view()
    }
}

/// A parameter as part of the sentence: "window 64", "feature map elu+1", "global tokens" where it is switched on.
#[component]
fn ParamNoun(variant: &'static attention::Variant, param: &'static attention::Param) -> impl IntoView {
    let lab = use_lab();
    let value = lab.of(move |e| value_of(e, variant.id, param));
    let n = lab.of(|e| e.n);
    let name = param.name.replace('_', " ");
    let said = name.clone();
    let word = Signal::derive(move || match value.get() {
        Value::Bool(true) => said.clone(),
        Value::Bool(false) => fill("state.without", &[("name", &said)]),
        other => format!("{said} {}", param.in_use(&other, n.get())),
    });
    let choices = Signal::derive(move || match param.kind {
        ParamKind::Bool { .. } => vec![("1".into(), t("state.yes").into()), ("0".into(), t("state.no").into())],
        ParamKind::Choice { options, .. } => options.iter().map(|o| ((*o).into(), (*o).into())).collect(),
        // It is written in the inspector; here it is only said.
        ParamKind::Text { .. } => vec![(value.get().to_string(), value.get().to_string())],
        ParamKind::Int { min, max, .. } => {
            let mut all: Vec<u32> = std::iter::successors(Some(1_u32), |x| x.checked_mul(2))
                .take_while(|x| *x <= max.min(n.get() as u32))
                .filter(|x| *x >= min)
                .chain([min])
                .chain(if let Value::Int(now) = value.get() { Some(now) } else { None })
                .collect();
            all.sort_unstable();
            all.dedup();
            all.into_iter().map(|x| (x.to_string(), format::count(x.into()))).collect()
        }
    });
    let pick = Callback::new(move |text: String| {
        if let Ok(value) = param.parse(&text) {
            lab.edit(|e| set_value(e, variant.id, param, value));
        }
    });
    view! { <Noun name=name word value=Signal::derive(move || value.get().to_string()) choices on_pick=pick/> }
}

#[component]
fn Length() -> impl IntoView {
    let lab = use_lab();
    let n = lab.of(|e| e.n);
    let choices = Signal::derive(move || {
        let mut all: Vec<usize> =
            std::iter::successors(Some(*LENGTHS.start()), |x| Some(x * 2)).take_while(|x| x <= LENGTHS.end()).collect();
        all.push(n.get());
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(|x| (x.to_string(), format::count(x as u64))).collect::<Vec<Choice>>()
    });
    let pick = Callback::new(move |text: String| {
        if let Ok(length) = text.parse() {
            lab.edit(|e| e.n = length);
        }
    });
    let word = Signal::derive(move || fill("state.tokens", &[("n", &format::count(n.get() as u64))]));
    view! { <Noun name=t("state.length").to_owned() word value=Signal::derive(move || n.get().to_string()) choices on_pick=pick/> }
}

#[component]
fn CausalNoun() -> impl IntoView {
    let lab = use_lab();
    let causal = lab.of(|e| e.causal);
    let choices: Vec<Choice> =
        vec![("0".into(), t("state.bidirectional").into()), ("1".into(), t("state.causal").into())];
    let pick = Callback::new(move |text: String| lab.edit(|e| e.causal = text == "1"));
    let word =
        Signal::derive(move || if causal.get() { t("state.causal") } else { t("state.bidirectional") }.to_owned());
    let value = Signal::derive(move || u8::from(causal.get()).to_string());
    view! { <Noun name=t("state.direction").to_owned() word value choices on_pick=pick/> }
}

#[component]
fn Heads() -> impl IntoView {
    let lab = use_lab();
    let (heads, model) = (lab.heads(), lab.model());
    let choices = Signal::derive(move || {
        // A model has as many as it has.
        let most = if model.with(Option::is_some) { 0 } else { MAX_HEADS };
        let mut all: Vec<usize> = [1, 2, 4, 8, 16].into_iter().filter(|h| *h <= most).chain([heads.get()]).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(|h| (h.to_string(), h.to_string())).collect::<Vec<Choice>>()
    });
    let pick = Callback::new(move |text: String| {
        if let Ok(heads) = text.parse::<usize>() {
            lab.edit(|e| {
                e.heads = heads;
                e.head = e.head.min(heads - 1);
            });
        }
    });
    let word = Signal::derive(move || match heads.get() {
        1 => t("state.head_one").to_owned(),
        many => fill("state.heads", &[("n", &many.to_string())]),
    });
    view! { <Noun name=t("state.heads_name").to_owned() word value=Signal::derive(move || heads.get().to_string()) choices on_pick=pick/> }
}

/// Why a variant cannot be causal, or cannot be anything else, for the visitor.
pub fn causal_note(variant: &attention::Variant) -> Option<String> {
    match variant.causal {
        Causal::Both => None,
        Causal::Never(why) => Some(fill("causal.never", &[("why", why)])),
        Causal::Always => lookup("causal.always").map(str::to_owned),
    }
}
