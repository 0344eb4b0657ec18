//! One figure of the lab alone, inside another page: a plate or two, or the charts of a sweep, with the controls that the
//! address asks for.

use super::app::{adapter_line, explore};
use super::browser;
use super::components::banners::Banners;
use super::components::chart::{Chart, Quantity};
use super::components::findings::{Findings, Fits};
use super::components::gallery::Gallery;
use super::components::inspector::{Inspector, LengthControl};
use super::components::numbers::NumbersTable;
use super::components::plate::Plate;
use super::components::readout::Readout;
use super::components::results::sweep_file;
use super::components::state_line::StateLine;
use super::components::sweep::{SweepSetup, begin_sweep};
use super::components::text_input::Tokens;
use super::components::thumbnail::mask_of;
use super::components::tools::Tools;
use super::messages::{Heard, MAX_MESSAGE_CHARS, Said};
use super::pages::speed::Overlays;
use super::state::{Lab, Phase, Place, SessionStoreFields, known, setup_of, use_lab};
use super::texts::{self, t};
use crate::lab::embed::{Embed, Run};
use crate::lab::permalink;
use crate::lab::protocol::Command;
use leptos::prelude::*;
use wasm_bindgen::prelude::*;

/// What is shown of the page where the address does not say.
const USUAL: [&str; 6] = ["state", "tools", "length", "legend", "readout", "findings"];

/// Builds the embed in `root`.
pub fn mount(root: web_sys::HtmlElement) {
    let (embed, experiment, complaints) = crate::lab::embed::parse(&browser::query());
    texts::use_language(&experiment.lang);
    root.set_inner_html("");
    leptos::mount::mount_to(root, move || {
        let lab = Lab::new(experiment, complaints);
        provide_context(lab);
        provide_context(Tokens::of(lab));
        provide_context(Overlays(RwSignal::new(Vec::new())));
        let begun = RwSignal::new(false);
        browser::keep_theme(lab);
        browser::keep_visibility(lab);
        explore(lab);
        speak(lab);
        listen(lab, begun, embed.gpu);
        let at_once = embed.run == Run::Auto;
        let view = view! { <Figure embed=embed.clone() begun/> };
        if at_once {
            begin(lab, begun, embed.gpu);
        }
        view
    })
    .forget();
}

/// Starts the engine once, and what the figure is about with it.
fn begin(lab: Lab, begun: RwSignal<bool>, backend: crate::lab::protocol::Backend) {
    if begun.get_untracked() {
        lab.send_now(Command::Visible { visible: true });
        return;
    }
    begun.set(true);
    lab.start(backend);
    if lab.session.experiment().with_untracked(|e| Place::of(e.view)) == Place::Speed {
        begin_sweep(lab, 64, 1024, false);
    }
}

#[component]
fn Figure(embed: Embed, begun: RwSignal<bool>) -> impl IntoView {
    let lab = use_lab();
    let place = lab.of(|e| Place::of(e.view));
    let count = lab.of(|e| e.variants.len().min(2));
    let backend = embed.gpu;
    let locked = embed.lock;
    let never = embed.run == Run::Never;
    let (caption, motion) = (embed.caption.clone(), embed.motion.id());
    let shown = move |id: &str| (!embed.show.is_empty() || USUAL.contains(&id)) && embed.shows(id);
    let plates = {
        let shown = shown.clone();
        view! {
            <div class="embed-attention" class:no-legend=!shown("legend") hidden=move || place.get() != Place::Attention>
                {shown("gallery").then(|| view! { <div class="gallery" inert=locked><Gallery/></div> })}
                {shown("tools").then(|| view! { <div inert=locked><Tools/></div> })}
                <div class="plates" data-count=move || count.get()><Plate index=0/><Plate index=1/></div>
                {shown("length").then(|| view! { <div class="embed-length" inert=locked><LengthControl/></div> })}
                {shown("readout").then(|| view! { <Readout/> })}
                {shown("numbers").then(|| view! { <NumbersTable/> })}
                {shown("inspector").then(|| view! { <div class="inspector" inert=locked><Inspector/></div> })}
            </div>
        }
    };
    let charts = {
        let shown = shown.clone();
        view! {
            <div class="embed-speed" hidden=move || place.get() != Place::Speed>
                {shown("setup").then(|| view! { <div class="speed"><div class="setup" inert=locked><SweepSetup/></div></div> })}
                {shown("findings").then(|| view! { <Findings/> })}
                <div class="speed-charts"><Chart quantity=Quantity::Time/><Chart quantity=Quantity::Bytes/></div>
                {shown("fits").then(|| view! { <Fits/> })}
            </div>
        }
    };
    view! {
        <figure class="embed" data-motion=motion>
            {shown("state").then(|| view! { <div inert=locked><StateLine/></div> })}
            <Banners brief=true/>
            <Show when=move || !begun.get()>
                <div class="still">
                    <Still/>
                    {(!never).then(|| view! {
                        <button type="button" class="primary" id="run" on:click=move |_| begin(lab, begun, backend)>{t("embed.run")}</button>
                    })}
                </div>
            </Show>
            // Mounted from the start, so that its canvases are there when the engine is; shown once it runs.
            <div hidden=move || !begun.get()>{plates}{charts}</div>
            <figcaption class="embed-caption">
                {caption.map(|caption| view! { <p>{caption}</p> })}
                <span class="small">{move || begun.get().then(|| adapter_line(lab))}</span>
                <a href=move || format!("./?{}", lab.session.experiment().with(|e| permalink::write(e).query)) target="_blank" rel="noopener">{t("embed.open")}</a>
            </figcaption>
        </figure>
    }
}

/// What stands there before anything runs: the mask, drawn from the variant's own rule.
#[component]
fn Still() -> impl IntoView {
    let lab = use_lab();
    let drawing = move || {
        lab.session.experiment().with(|experiment| {
            let variant = known(&experiment.variants).first().copied()?;
            let n = experiment.n.min(128);
            let mut setup = setup_of(experiment, variant.id);
            (setup.length, setup.keys) = (n, n);
            Some((variant, n, mask_of(variant, &setup, n)))
        })
    };
    move || {
        drawing().map(|(variant, n, path)| view! {
            <svg viewBox=format!("0 0 {n} {n}") role="img" aria-label=variant.name data-family=super::components::gallery::family_key(variant.family)>
                <rect width=n height=n fill="var(--family)" fill-opacity="0.08"/>
                <path d=path fill="var(--family)"/>
            </svg>
        })
    }
}

/// Tells the surrounding page what happens.
fn speak(lab: Lab) {
    let session = lab.session;
    Effect::new(move |_| {
        if session.phase().get() == Phase::Ready {
            let facts = session.adapter().get().unwrap_or_default();
            say(&Said::Ready { adapter: facts.name, backend: facts.backend });
        }
    });
    Effect::new(move |_| {
        if let Phase::Failed(message) = session.phase().get() {
            say(&Said::Error { message });
        }
    });
    Effect::new(move |_| {
        for complaint in session.complaints().get() {
            say(&Said::Error { message: complaint.to_string() });
        }
    });
    Effect::new(move |_| {
        if let Some(refused) = session.refused().get() {
            say(&Said::Error { message: format!("{}: {}", refused.what, refused.reason) });
        }
    });
    Effect::new(move |_| say(&Said::State { query: session.experiment().with(|e| permalink::write(e).query) }));
    let running = Memo::new(move |_| session.sweep().with(|sweep| sweep.running));
    Effect::new(move |before: Option<bool>| {
        let now = running.get();
        if before == Some(true) && !now {
            say(&Said::Result { result: Box::new(sweep_file(lab)) });
        }
        now
    });
    if let Some(body) = document().body() {
        let measured = body.clone();
        let on_resize = Closure::<dyn Fn()>::new(move || say(&Said::Height { height: measured.scroll_height() }));
        if let Ok(observer) = web_sys::ResizeObserver::new(on_resize.as_ref().unchecked_ref()) {
            observer.observe(&body);
        }
        // The embed speaks as long as it is there.
        on_resize.forget();
    }
}

/// Hears what the surrounding page asks; messages from anyone else are not for us.
fn listen(lab: Lab, begun: RwSignal<bool>, backend: crate::lab::protocol::Backend) {
    let on_message = Closure::<dyn Fn(web_sys::MessageEvent)>::new(move |message: web_sys::MessageEvent| {
        let parent = window().parent().ok().flatten();
        let parent: Option<JsValue> = parent.map(Into::into);
        let from_parent = parent.is_some() && parent == message.source().map(Into::into);
        let Ok(json) = js_sys::JSON::stringify(&message.data()) else { return };
        // `undefined` has no JSON.
        let Some(text) = json.dyn_ref::<js_sys::JsString>().filter(|text| text.length() <= MAX_MESSAGE_CHARS) else {
            return;
        };
        if !from_parent {
            return;
        }
        match Heard::read(&String::from(text)) {
            None => {}
            Some(Err(message)) => say(&Said::Error { message }),
            Some(Ok(Heard::Set(pairs))) => set(lab, &pairs),
            Some(Ok(Heard::Run)) => begin(lab, begun, backend),
            Some(Ok(Heard::Pause)) => {
                lab.send_now(Command::Cancel);
                lab.send_now(Command::Visible { visible: false });
            }
            Some(Ok(Heard::Export)) => say(&Said::Result { result: Box::new(sweep_file(lab)) }),
        }
    });
    let _ = window().add_event_listener_with_callback("message", on_message.as_ref().unchecked_ref());
    on_message.forget();
}

/// Lays keys over the state there is; what cannot be taken is told.
fn set(lab: Lab, pairs: &[(String, String)]) {
    let query = lab.session.experiment().with_untracked(|e| permalink::write(e).query);
    let Ok(params) = web_sys::UrlSearchParams::new_with_str(&query) else { return };
    for (key, value) in pairs {
        params.set(key, value);
    }
    let (experiment, complaints) = permalink::parse(&String::from(params.to_string()));
    for complaint in &complaints {
        say(&Said::Error { message: complaint.to_string() });
    }
    lab.edit(|e| *e = experiment);
}

fn say(said: &Said) {
    let Some(parent) = window().parent().ok().flatten().filter(|parent| **parent != *window()) else { return };
    if let Ok(message) = js_sys::JSON::parse(&said.to_json()) {
        let _ = parent.post_message(&message, "*");
    }
}
