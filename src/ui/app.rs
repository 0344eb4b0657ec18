//! The page as a whole: header, state line, banners, and the place that is open.

use super::browser;
use super::components::banners::Banners;
use super::components::masthead::Masthead;
use super::components::sheet::Sheet;
use super::components::state_line::StateLine;
use super::pages::attention::Attention;
use super::pages::speed::Speed;
use super::pages::train::Train;
use super::state::{Lab, Phase, Place, SessionStoreFields};
use super::texts::{self, fill, t};
use crate::lab::experiment::{Experiment, Pool, Scale, Theme, View};
use crate::lab::permalink;
use crate::lab::protocol::{Backend, Command};
use crate::lab::train::setup::TrainSetup;
use leptos::prelude::*;

/// Builds the page in `root`, in place of the picture that stood there while the module was being loaded.
pub fn mount(root: web_sys::HtmlElement) {
    let (experiment, complaints) = permalink::parse(&browser::query());
    texts::use_language(&experiment.lang);
    if let Some(html) = document().document_element() {
        let _ = html.set_attribute("lang", &experiment.lang);
    }
    root.set_inner_html("");
    leptos::mount::mount_to(root, move || {
        let lab = Lab::new(experiment, complaints);
        provide_context(lab);
        lab.start(Backend::Auto);
        browser::keep_address(lab);
        if let Some(html) = document().document_element() {
            browser::keep_theme(lab, html);
        }
        browser::keep_visibility(lab);
        browser::offer_commands(lab);
        explore(lab);
        provide_context(super::components::text_input::Tokens::of(lab));
        provide_context(super::components::sheet::HasSheet);
        provide_context(super::pages::speed::Overlays(RwSignal::new(Vec::new())));
        view! { <Page/> }
    })
    .forget();
}

/// Tells the engine of every change that concerns it; what is only shown differently travels with `Show`.
pub fn explore(lab: Lab) {
    let computed = lab.of(|experiment| Experiment {
        view: View::default(),
        head: 0,
        pool: Pool::default(),
        scale: Scale::default(),
        theme: Theme::default(),
        lang: String::new(),
        train: TrainSetup::default(),
        ..experiment.clone()
    });
    let attention = lab.of(|experiment| Place::of(experiment.view) == Place::Attention);
    Effect::new(move |_| {
        let ready = lab.session.phase().with(|phase| *phase == Phase::Ready);
        if ready && attention.get() {
            computed.track();
            let experiment = Box::new(lab.session.experiment().get_untracked());
            lab.send(Command::Explore { experiment });
        }
    });
}

#[component]
fn Page() -> impl IntoView {
    let lab = super::state::use_lab();
    let place = lab.of(|experiment| Place::of(experiment.view));
    view! {
        <div class="shell">
            <Show when=move || place.get() == Place::Attention>
                <a class="skip" href="#matrix-0" on:click=move |ev| { ev.prevent_default(); browser::focus("matrix-0") }>{t("nav.skip")}</a>
            </Show>
            <Masthead/>
            <StateLine/>
            <Banners/>
            <main>
                // The plates stay mounted while another place is open: a canvas can be handed to the engine only once.
                <div hidden=move || place.get() != Place::Attention><Attention/></div>
                <div hidden=move || place.get() != Place::Speed><Speed/></div>
                <Show when=move || place.get() == Place::Train><Train/></Show>
            </main>
            <Sheet/>
            <footer class="colophon">
                <span>{t("colophon.survey")}" "<a href="https://arxiv.org/abs/2103.14636">"arXiv 2103.14636"</a></span>
                <span>{t("colophon.local")}</span>
                <span>{move || adapter_line(lab)}</span>
                <a id="language" rel="alternate" href=move || lab.session.experiment().with(in_other_language)>{t("lang.other")}</a>
            </footer>
        </div>
    }
}

/// The page's address in the other language; texts are chosen once, so it is opened anew.
fn in_other_language(experiment: &Experiment) -> String {
    let lang = if experiment.lang == "de" { "en" } else { "de" };
    format!("./?{}", permalink::write(&Experiment { lang: lang.to_owned(), ..experiment.clone() }).query)
}

/// Which adapter computes, in words.
pub fn adapter_line(lab: Lab) -> String {
    lab.session.adapter().with(|adapter| match adapter {
        None => t("adapter.none").to_owned(),
        Some(facts) if facts.backend == "cpu" => t("adapter.cpu").to_owned(),
        Some(facts) => fill("adapter.gpu", &[("name", &facts.name), ("backend", &facts.backend)]),
    })
}
