//! Every setting as a control: length and direction, shapes, text, and each variant's parameters from its descriptor.

use super::state_line::causal_note;
use super::subject::Weights;
use super::text_input::TextInput;
use crate::attention::{Param, ParamKind, Value, Variant};
use crate::lab::experiment::{Experiment, MAX_BATCH, MAX_DIM, MAX_HEADS, WeightsFrom};
use crate::ui::geometry::{self, LENGTHS};
use crate::ui::state::{known, set_value, use_lab, value_of};
use crate::ui::texts::t;
use leptos::prelude::*;

#[component]
pub fn Inspector() -> impl IntoView {
    let lab = use_lab();
    let ids = lab.of(|e| e.variants.iter().take(2).cloned().collect::<Vec<_>>());
    let causal = lab.of(|e| e.causal);
    // Which way an opened model looks is known.
    let is_opened = lab.of(|e| e.weights == WeightsFrom::Opened);
    let model = lab.model();
    view! {
        <fieldset id="control-length">
            <legend>{t("inspector.sequence")}</legend>
            <LengthControl/>
            <label class="control check">
                <input type="checkbox" id="causal" prop:checked=move || causal.get() disabled=move || is_opened.get()
                    on:change:target=move |ev| lab.edit(|e| e.causal = ev.target().checked())/>
                <span>{t("inspector.causal")}</span>
                <span class="meaning">{t("inspector.causal_meaning")}</span>
            </label>
        </fieldset>
        {move || known(&ids.get()).into_iter().map(|variant| view! { <VariantControls variant/> }).collect_view()}
        <TextInput/>
        <Weights/>
        <fieldset id="control-shape">
            <legend>{t("inspector.shape")}</legend>
            <div class="pair" style:display=move || model.with(Option::is_some).then_some("none")>
                <Whole name=t("inspector.heads") id="heads" min=1 max=MAX_HEADS get=|e| e.heads set=|e, x| {
                    e.heads = x;
                    e.head = e.head.min(x - 1);
                }/>
                <Whole name=t("inspector.dim") id="dim" min=1 max=MAX_DIM get=|e| e.dim set=|e, x| e.dim = x/>
                <Whole name=t("inspector.batch") id="batch" min=1 max=MAX_BATCH get=|e| e.batch set=|e, x| e.batch = x/>
            </div>
            <div class="pair">
                <Whole name=t("inspector.seed") id="seed" min=0 max=1_000_000 get=|e| e.seed as usize set=|e, x| e.seed = x as u64/>
            </div>
            <p class="meaning quiet">{t("inspector.seed_meaning")}</p>
        </fieldset>
    }
}

#[component]
pub fn LengthControl() -> impl IntoView {
    let lab = use_lab();
    let n = lab.of(|e| e.n);
    let set = move |length: usize| lab.edit(|e| e.n = length.clamp(*LENGTHS.start(), *LENGTHS.end()));
    view! {
        <div class="control">
            <label for="length">{t("inspector.length")}</label>
            <input type="number" aria-label=t("inspector.length_exact") id="length-exact" min=*LENGTHS.start() max=*LENGTHS.end()
                prop:value=move || n.get() on:change:target=move |ev| if let Ok(length) = ev.target().value().parse() { set(length) }/>
            <input type="range" id="length" min="0" max=geometry::length_positions() - 1 step="1"
                aria-valuetext=move || n.get().to_string()
                prop:value=move || geometry::position_of(n.get())
                on:input:target=move |ev| if let Ok(position) = ev.target().value().parse() { set(geometry::length_at(position)) }/>
        </div>
    }
}

/// A whole number of the experiment.
#[component]
fn Whole(
    name: &'static str,
    id: &'static str,
    min: usize,
    max: usize,
    get: fn(&Experiment) -> usize,
    set: fn(&mut Experiment, usize),
) -> impl IntoView {
    let lab = use_lab();
    let value = lab.of(get);
    view! {
        <label>{name}
            <input type="number" id=id min=min max=max prop:value=move || value.get()
                on:change:target=move |ev| if let Ok(x) = ev.target().value().parse() { lab.edit(|e| set(e, usize::clamp(x, min, max))) }/>
        </label>
    }
}

#[component]
fn VariantControls(variant: &'static Variant) -> impl IntoView {
    let paper = &variant.paper;
    view! {
        <fieldset id=format!("control-{}", variant.id)>
            <legend>{variant.name}</legend>
            {variant.params.iter().map(|param| view! { <ParamControl variant param/> }).collect_view()}
            {causal_note(variant).map(|note| view! { <p class="notice">{note}</p> })}
            <div class="about">
                <p>{variant.summary}</p>
                {(!paper.arxiv.is_empty()).then(|| view! {
                    <p><a href=format!("https://arxiv.org/abs/{}", paper.arxiv)>{paper.authors}", "{paper.year}</a></p>
                })}
            </div>
        </fieldset>
    }
}

#[component]
fn ParamControl(variant: &'static Variant, param: &'static Param) -> impl IntoView {
    let lab = use_lab();
    let value = lab.of(move |e| value_of(e, variant.id, param));
    let n = lab.of(|e| e.n);
    let id = format!("{}.{}", variant.id, param.name);
    let name = param.name.replace('_', " ");
    let set = move |value: Value| {
        if param.accept(&value).is_ok() {
            lab.edit(|e| set_value(e, variant.id, param, value));
        }
    };
    let control = match param.kind {
        ParamKind::Bool { .. } => view! {
            <label class="control check">
                <input type="checkbox" id=id prop:checked=move || value.get() == Value::Bool(true)
                    on:change:target=move |ev| set(Value::Bool(ev.target().checked()))/>
                <span>{name}</span>
                <span class="meaning">{param.meaning}</span>
            </label>
        }
        .into_any(),
        ParamKind::Choice { options, .. } => view! {
            <div class="control">
                <label for=id.clone()>{name}</label>
                <select id=id prop:value=move || value.get().to_string() on:change:target=move |ev| set(Value::Choice(ev.target().value()))>
                    {options.iter().map(|option| view! { <option value=*option selected=value.get_untracked().to_string() == *option>{*option}</option> }).collect_view()}
                </select>
                <span class="meaning">{param.meaning}</span>
            </div>
        }
        .into_any(),
        ParamKind::Text { check, .. } => {
            let wrong = RwSignal::new(None::<String>);
            let write = move |text: String| match check(&text) {
                Ok(()) => {
                    wrong.set(None);
                    set(Value::Choice(text));
                }
                Err(what) => wrong.set(Some(what)),
            };
            view! {
                <div class="control">
                    <label for=id.clone()>{name}</label>
                    <input type="text" id=id spellcheck="false" autocomplete="off" prop:value=move || value.get().to_string()
                        aria-invalid=move || wrong.get().is_some().to_string() on:input:target=move |ev| write(ev.target().value())/>
                    <p class="notice" role="status">{move || wrong.get()}</p>
                    <span class="meaning">{param.meaning}</span>
                </div>
            }
            .into_any()
        }
        ParamKind::Int { min, max, .. } => {
            // The slider goes as far as the sequence does: a window longer than it changes nothing.
            let top = move || max.min((n.get() as u32).max(min + 1));
            let number = move || if let Value::Int(x) = value.get() { x } else { min };
            let exact = format!("{id}.exact");
            view! {
                <div class="control">
                    <label for=id.clone()>{name.clone()}</label>
                    <input type="number" id=exact aria-label=name min=min max=max prop:value=number
                        on:change:target=move |ev| if let Ok(x) = ev.target().value().parse() { set(Value::Int(u32::clamp(x, min, max))) }/>
                    <input type="range" id=id min=min max=top prop:value=move || number().min(top())
                        on:input:target=move |ev| if let Ok(x) = ev.target().value().parse() { set(Value::Int(x)) }/>
                    <span class="meaning">{param.meaning}</span>
                </div>
            }
            .into_any()
        }
    };
    view! { {control} }
}
