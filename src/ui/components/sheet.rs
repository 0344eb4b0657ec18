//! The sheet of one method: paper, what it does, what it can, its maths, and the shaders that it runs here.

use super::gallery::{family_key, glyph};
use super::numbers::Origin;
use crate::attention::{Causal, Variant};
use crate::lab::abilities::{self, Seen};
use crate::lab::protocol::{Command, Provenance, Shader};
use crate::ui::browser;
use crate::ui::state::{SessionStoreFields, known, use_lab};
use crate::ui::texts::{fill, t};
use crate::ui::{format, maths};
use leptos::html;
use leptos::prelude::*;

/// In the context where there is a [`Sheet`] on the page; a figure in another page has none.
#[derive(Clone, Copy)]
pub struct HasSheet;

/// Opens the sheet of the variant on plate `index`.
#[component]
pub fn OpenSheet(index: usize) -> impl IntoView {
    let lab = use_lab();
    use_context::<HasSheet>().map(|_| {
        view! {
            <button type="button" class="plain" id=format!("about-{index}") aria-haspopup="dialog"
                on:click=move |_| lab.session.sheet().set(Some(index))>{t("sheet.open")}</button>
        }
    })
}

#[component]
pub fn Sheet() -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let dialog = NodeRef::<html::Dialog>::new();
    let variant = Memo::new(move |_| {
        let id = session.experiment().with(|e| session.sheet().get().and_then(|index| e.variants.get(index).cloned()));
        id.and_then(|id| known(&[id]).first().map(|variant| variant.id))
    });
    Effect::new(move |_| {
        let Some(dialog) = dialog.get() else { return };
        match variant.get() {
            Some(_) if !dialog.open() => {
                let _ = dialog.show_modal();
            }
            None if dialog.open() => dialog.close(),
            _ => {}
        }
    });
    view! {
        <dialog class="sheet" id="sheet" node_ref=dialog aria-labelledby="sheet-name" on:close=move |_| session.sheet().set(None)>
            {move || {
                let index = session.sheet().get_untracked().unwrap_or(0);
                let variant = known(&[variant.get()?.to_owned()]).first().copied()?;
                Some(view! { <Content variant index/> })
            }}
        </dialog>
    }
}

#[component]
fn Content(variant: &'static Variant, index: usize) -> impl IntoView {
    let lab = use_lab();
    let paper = &variant.paper;
    let place = if paper.arxiv.is_empty() {
        view! { <cite>{paper.title}</cite> }.into_any()
    } else {
        view! { <a href=format!("https://arxiv.org/abs/{}", paper.arxiv)><cite>{paper.title}</cite></a> }.into_any()
    };
    let numbers = move || {
        lab.session.plates().with(|plates| {
            let state = plates.get(index)?;
            (state.variant == variant.id).then(|| state.numbers.clone()).flatten()
        })
    };
    let length = lab.of(|e| e.n);
    let at_length =
        move |figure: String| fill("sheet.at", &[("figure", &figure), ("n", &format::count(length.get() as u64))]);
    view! {
        <header data-family=family_key(variant.family)>
            <h2 id="sheet-name"><span class="glyph" aria-hidden="true">{glyph(variant.family)}</span>{variant.name}</h2>
            <button type="button" id="sheet-close" on:click=move |_| lab.session.sheet().set(None)>{t("sheet.close")}</button>
        </header>
        <p class="paper">{place}<br/>{paper.authors}{(paper.year > 0).then(|| format!(", {}", paper.year))}</p>
        <ul class="badges">{badges(variant).into_iter().map(|(key, text)| view! { <li data-badge=key>{text}</li> }).collect_view()}</ul>
        <p class="summary">{variant.summary}</p>
        <h3>{t("sheet.cost")}</h3>
        <table class="numbers"><tbody>
            <tr><th scope="row">{t("numbers.complexity")}</th><td>{format::powers(variant.complexity)}</td><td><Origin of=Provenance::Paper/></td></tr>
            <tr><th scope="row">{t("numbers.flops")}</th><td>{move || numbers().map(|n| at_length(format::flops(n.flops)))}</td><td><Origin of=Provenance::Computed/></td></tr>
            <tr><th scope="row">{t("numbers.bytes")}</th><td>{move || numbers().map(|n| at_length(format::bytes(n.bytes_peak)))}</td><td><Origin of=Provenance::Computed/></td></tr>
        </tbody></table>
        <h3>{t("sheet.maths")}</h3>
        <Maths id=variant.id/>
        <h3>{t("sheet.shaders")}</h3>
        <Shaders variant index/>
    }
}

/// What a method can do, each with the key of its badge.
fn badges(variant: &Variant) -> Vec<(&'static str, &'static str)> {
    let can = abilities::of(variant);
    let mut badges = vec![match can.causal {
        Causal::Both => ("causal", t("badge.causal_both")),
        Causal::Never(_) => ("not_causal", t("badge.causal_never")),
        Causal::Always => ("always_causal", t("badge.causal_always")),
    }];
    badges.push(match can.seen {
        Seen::All => ("all", t("badge.all")),
        Seen::Pattern => ("pattern", t("badge.pattern")),
        Seen::Content => ("content", t("badge.content")),
    });
    badges.push(if can.exact { ("exact", t("badge.exact")) } else { ("not_exact", t("badge.not_exact")) });
    if can.any_length {
        badges.push(("any_length", t("badge.any_length")));
    }
    if can.learned {
        badges.push(("learned", t("badge.learned")));
    }
    badges
}

/// The method's formulas, fetched when they are looked at: MathML, written beforehand.
#[component]
fn Maths(id: &'static str) -> impl IntoView {
    let place = NodeRef::<html::Div>::new();
    place.on_load(move |place| {
        leptos::task::spawn_local(async move {
            let text = browser::fetch_text(&maths::path(id)).await.ok().and_then(|text| text.as_string());
            match text {
                Some(text) => place.set_inner_html(&text),
                None => place.set_text_content(Some(t("sheet.no_maths"))),
            }
        });
    });
    view! { <div class="maths" id="sheet-maths" node_ref=place></div> }
}

/// The shaders of the variant's plan as it stands on its plate.
#[component]
fn Shaders(variant: &'static Variant, index: usize) -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let prepared = Memo::new(move |_| {
        session.plates().with(|plates| plates[index].variant == variant.id && plates[index].numbers.is_some())
    });
    Effect::new(move |_| {
        session.experiment().track();
        if prepared.get() {
            lab.send(Command::Sources { plate: index });
        }
    });
    let told = Memo::new(move |_| session.sources().get().filter(|sources| sources.variant == variant.id));
    move || {
        match told.get() {
        None => view! { <p class="quiet">{t("sheet.no_shaders")}</p> }.into_any(),
        Some(sources) => view! {
            <p class="quiet">{if sources.on_device { t("sheet.on_device") } else { t("sheet.on_host") }}</p>
            <ol class="shaders" id="sheet-shaders">{sources.shaders.into_iter().map(|shader| view! { <Source shader/> }).collect_view()}</ol>
        }
        .into_any(),
    }
    }
}

#[component]
fn Source(shader: Shader) -> impl IntoView {
    let copied = RwSignal::new(false);
    let Shader { name, entries, stages, dispatches, wgsl } = shader;
    let text = StoredValue::new(wgsl.clone());
    let copy = move |_| {
        leptos::task::spawn_local(async move { copied.set(browser::copy_text(&text.get_value()).await) });
    };
    let lines = wgsl.lines().count();
    let dispatches =
        fill("sheet.dispatches", &[("n", &dispatches.to_string()), ("lines", &format::count(lines as u64))]);
    view! {
        <li><details>
            <summary><code>{name}</code>" "<span class="quiet">{stages.join(", ")}" · "{entries.join(", ")}" · "{dispatches}</span></summary>
            <button type="button" on:click=copy>{move || if copied.get() { t("link.copied") } else { t("sheet.copy") }}</button>
            <pre tabindex="0"><code>{wgsl}</code></pre>
        </details></li>
    }
}
