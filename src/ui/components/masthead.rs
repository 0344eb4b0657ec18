//! The header: the five places, theme, link.

use crate::lab::experiment::{Experiment, Theme, View};
use crate::lab::permalink;
use crate::lab::train::setup::MOST_MODELS;
use crate::ui::browser;
use crate::ui::state::{Place, SessionStoreFields, use_lab};
use crate::ui::texts::t;
use leptos::prelude::*;

#[component]
pub fn Masthead() -> impl IntoView {
    let lab = use_lab();
    let place = lab.of(|experiment| Place::of(experiment.view));
    // The view to return to when the visitor comes back from another place.
    let last_plate = StoredValue::new((View::default(), Vec::<String>::new()));
    Effect::new(move |_| {
        let (view, variants) = lab.session.experiment().with(|e| (e.view, e.variants.clone()));
        if Place::of(view) == Place::Attention {
            last_plate.set_value((view, variants));
        }
    });
    let to_plates = move |_| {
        lab.edit(|e| {
            let (view, variants) = last_plate.get_value();
            e.view = view;
            if variants.is_empty() { e.variants.truncate(2) } else { e.variants = variants }
        });
    };
    // One contender alone is no race: who comes with one finds others chosen too.
    let to_speed = move |_| {
        lab.edit(|e| {
            e.view = View::Speed;
            if e.variants.len() == 1 {
                e.variants = Experiment::rivals_of(&e.variants[0]);
            }
        });
    };
    let to_train = move |_| {
        lab.edit(|e| {
            e.view = View::Train;
            e.variants.truncate(MOST_MODELS);
            // One model alone is no race; beside full attention, a window shows what the task needs.
            if e.variants.len() == 1 {
                let other = if e.variants[0] == "full" { "sliding_window" } else { "full" };
                e.variants.push(other.into());
            }
        });
    };
    let current = move |of: Place| (place.get() == of).then_some("page");
    view! {
        <header class="masthead">
            <a class="brand" href="./">"Attention Lab"</a>
            <nav aria-label=t("nav.label")>
                <ul>
                    <li><button type="button" aria-current=move || current(Place::Attention)
                        on:click=to_plates>{t("nav.attention")}</button></li>
                    <li><button type="button" id="go-speed" aria-current=move || current(Place::Speed)
                        on:click=to_speed>{t("nav.speed")}</button></li>
                    <li><button type="button" id="go-train" aria-current=move || current(Place::Train)
                        on:click=to_train>{t("nav.train")}</button></li>
                    <Coming name=t("nav.techniques")/>
                    <Coming name=t("nav.guide")/>
                </ul>
            </nav>
            <div class="tools"><ThemePicker/><CopyLink/></div>
        </header>
    }
}

/// A place that is not built yet.
#[component]
fn Coming(name: &'static str) -> impl IntoView {
    view! { <li><button type="button" disabled=true>{name}<span class="soon">{t("nav.coming")}</span></button></li> }
}

#[component]
fn ThemePicker() -> impl IntoView {
    let lab = use_lab();
    let theme = lab.of(|experiment| experiment.theme);
    let (next, name) = (
        move || match theme.get() {
            Theme::Auto => Theme::Light,
            Theme::Light => Theme::Dark,
            Theme::Dark => Theme::Auto,
        },
        move || match theme.get() {
            Theme::Auto => t("theme.auto"),
            Theme::Light => t("theme.light"),
            Theme::Dark => t("theme.dark"),
        },
    );
    view! {
        <button type="button" class="plain" id="theme" title=t("theme.title") on:click=move |_| lab.edit(|e| e.theme = next())>
            {name}
        </button>
    }
}

#[component]
fn CopyLink() -> impl IntoView {
    let lab = use_lab();
    let copied = RwSignal::new(None::<&'static str>);
    let copy = move |_| {
        let link = lab.session.experiment().with_untracked(permalink::write);
        leptos::task::spawn_local(async move {
            copied.set(Some(match browser::copy_address(link.query).await {
                false => t("link.failed"),
                true if link.text_cut => t("link.cut"),
                true => t("link.copied"),
            }));
            set_timeout(move || copied.set(None), std::time::Duration::from_secs(3));
        });
    };
    view! {
        <button type="button" id="copy-link" on:click=copy>
            <span aria-live="polite">{move || copied.get().unwrap_or(t("link.copy"))}</span>
        </button>
    }
}
