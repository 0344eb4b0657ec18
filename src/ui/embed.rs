//! One figure of the lab alone, inside another page: a plate or two, the charts of a sweep, or runs in training, with the controls that the
//! address or the element's attributes ask for.

mod around;

use super::app::{adapter_line, explore};
use super::browser;
use super::components::banners::Banners;
use super::components::chart::{Chart, Quantity};
use super::components::findings::{Findings, Fits};
use super::components::gallery::Gallery;
use super::components::inspector::{Inspector, LengthControl};
use super::components::numbers::NumbersTable;
use super::components::plate::Plate;
use super::components::race_charts::Charts;
use super::components::race_controls::{self, Controls, Said as Verdict};
use super::components::race_look::Inside;
use super::components::race_memory::Memory;
use super::components::race_setup::RaceSetup;
use super::components::race_table::Runs;
use super::components::readout::Readout;
use super::components::state_line::StateLine;
use super::components::sweep::{SweepSetup, begin_sweep};
use super::components::text_input::Tokens;
use super::components::tools::Tools;
use super::drawing;
use super::pages::speed::Overlays;
use super::race::{Curve, in_short};
use super::state::{Lab, Place, SessionStoreFields, known, setup_of, use_lab};
use super::texts::{self, t};
use crate::lab::embed::{Embed, Run};
use crate::lab::permalink;
use crate::lab::protocol::{Backend, Command};
use around::{Around, Talk};
use leptos::mount::UnmountHandle;
use leptos::prelude::*;
use leptos::tachys::view::Mountable;

/// What is shown of the page where the address does not say.
const USUAL: [&str; 11] = [
    "state", "tools", "length", "legend", "readout", "findings", "settings", "controls", "verdict", "loss", "accuracy",
];

/// Masks that stand there before anything runs.
const MOST_STILL: usize = 4;

/// Builds the embed in `root`, as the page's address describes it.
pub fn mount(root: web_sys::HtmlElement) {
    let themed = document().document_element().unwrap_or_else(|| root.clone().into());
    let measured = document().body().unwrap_or_else(|| root.clone());
    let surface = Surface { root, themed, measured: measured.into() };
    open(surface, &browser::query(), Around::Parent).0.forget();
}

/// A figure in an element of somebody's page; dropping it takes the figure away, and its engine with it.
pub struct Mounted {
    talk: Talk,
    _mounted: Box<dyn std::any::Any>,
}

impl Mounted {
    /// Hears a message, as an embed hears it from its parent.
    pub fn hear(&self, json: &str) {
        self.talk.hear(json);
    }

    /// The state as a permalink's query.
    pub fn query(&self) -> String {
        self.talk.query()
    }
}

/// Builds the figure that `query` describes in `root`; `hears` is called with the JSON of every message.
pub fn figure(root: web_sys::HtmlElement, query: &str, hears: js_sys::Function) -> Mounted {
    let surface = Surface { themed: root.clone().into(), measured: root.clone().into(), root };
    let (mounted, talk) = open(surface, query, Around::Element(hears));
    Mounted { talk, _mounted: Box::new(mounted) }
}

/// What a figure is built in: its root, the element that carries the theme, and the one whose height is told.
struct Surface {
    root: web_sys::HtmlElement,
    themed: web_sys::Element,
    measured: web_sys::Element,
}

fn open(surface: Surface, query: &str, around: Around) -> (UnmountHandle<impl Mountable + use<>>, Talk) {
    let (embed, experiment, complaints) = crate::lab::embed::parse(query);
    texts::use_language(&experiment.lang);
    let Surface { root, themed, measured } = surface;
    root.set_inner_html("");
    // Its words may be in another language than the page around it.
    let _ = root.set_attribute("lang", &experiment.lang);
    // Filled while the figure is built, which is at once.
    let built = std::rc::Rc::new(std::cell::Cell::new(None));
    let building = built.clone();
    let mounted = leptos::mount::mount_to(root, move || {
        let lab = Lab::new(experiment, complaints);
        provide_context(lab);
        provide_context(Tokens::of(lab));
        provide_context(Overlays(RwSignal::new(Vec::new())));
        let begun = RwSignal::new(false);
        browser::keep_theme(lab, themed);
        browser::keep_visibility(lab);
        explore(lab);
        let talk = Talk::new(lab, begun, embed.gpu, around);
        talk.speak(&measured);
        talk.listen();
        building.set(Some(talk));
        let at_once = embed.run == Run::Auto;
        let view = view! { <Figure embed=embed.clone() begun/> };
        if at_once {
            begin(lab, begun, embed.gpu);
        }
        view
    });
    (mounted, built.take().expect("the figure was built just now"))
}

/// Starts the engine once, and what the figure is about with it.
fn begin(lab: Lab, begun: RwSignal<bool>, backend: Backend) {
    if begun.get_untracked() {
        lab.send_now(Command::Visible { visible: true });
        if lab.session.experiment().with_untracked(|e| Place::of(e.view)) == Place::Train {
            race_controls::go_on(lab);
        }
        return;
    }
    begun.set(true);
    lab.start(backend);
    match lab.session.experiment().with_untracked(|e| Place::of(e.view)) {
        Place::Speed => begin_sweep(lab, 64, 1024, false),
        Place::Train => race_controls::start(lab),
        Place::Attention => {}
    }
}

#[component]
fn Figure(embed: Embed, begun: RwSignal<bool>) -> impl IntoView {
    let lab = use_lab();
    let place = lab.of(|e| Place::of(e.view));
    let count = lab.of(|e| e.variants.len().min(2));
    let backend = embed.gpu;
    let locked = embed.lock;
    let short = lab.of(in_short);
    let (asked, hidden) = (embed.show.clone(), embed.hide.clone());
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
    // Charts are what such a figure is for: which ones may be said, but none is to be asked for.
    let named = Curve::ALL.into_iter().any(|curve| asked.iter().any(|id| id == curve.id()));
    let curves = Curve::ALL.into_iter().filter(|curve| {
        let id = curve.id();
        if named { shown(id) } else { USUAL.contains(&id) && !hidden.iter().any(|other| other == id) }
    });
    let curves: Vec<Curve> = curves.collect();
    let parts = ["settings", "setup", "controls", "verdict", "runs", "inside", "memory"].map(&shown);
    let race = move || {
        let curves = curves.clone();
        view! { <Race curves parts locked/> }
    };
    view! {
        <figure class="embed" data-motion=motion>
            {shown("state").then(|| view! { <div inert=locked><StateLine/></div> })}
            <Banners brief=true/>
            {parts[0].then(|| view! {
                <p class="quiet small" id="settings" hidden=move || place.get() != Place::Train>{move || short.get()}</p>
            })}
            <Show when=move || !begun.get()>
                <div class="still">
                    <Still/>
                    {(!never).then(|| view! {
                        <button type="button" class="primary" id="run" on:click=move |_| begin(lab, begun, backend)>
                            {move || if place.get() == Place::Train { t("train.start") } else { t("embed.run") }}
                        </button>
                    })}
                </div>
            </Show>
            // Mounted from the start, so that its canvases are there when the engine is; shown once it runs.
            <div hidden=move || !begun.get()>{plates}{charts}</div>
            <Show when=move || begun.get() && place.get() == Place::Train>{race()}</Show>
            <figcaption class="embed-caption">
                {caption.map(|caption| view! { <p>{caption}</p> })}
                <span class="small">{move || begun.get().then(|| adapter_line(lab))}</span>
                <a href=move || browser::address(&format!("./?{}", lab.session.experiment().with(|e| permalink::write(e).query))) target="_blank" rel="noopener">{t("embed.open")}</a>
            </figcaption>
        </figure>
    }
}

/// Runs in training: which parts of the place Train are there, and which curves.
#[component]
fn Race(curves: Vec<Curve>, parts: [bool; 7], locked: bool) -> impl IntoView {
    let [_, setup, controls, verdict, runs, inside, memory] = parts;
    view! {
        <div class="embed-train">
            {setup.then(|| view! { <div class="speed"><div class="setup" inert=locked><RaceSetup/></div></div> })}
            {controls.then(|| view! { <Controls/> })}
            {verdict.then(|| view! { <div inert=locked><Verdict/></div> })}
            {(!curves.is_empty()).then(|| view! { <div inert=locked><Charts curves/></div> })}
            {runs.then(|| view! { <Runs/> })}
            {inside.then(|| view! { <Inside/> })}
            {memory.then(|| view! { <Memory/> })}
        </div>
    }
}

/// What stands there before anything runs: the masks, drawn from the variants' own rules.
#[component]
fn Still() -> impl IntoView {
    let lab = use_lab();
    let drawings = move || {
        lab.session.experiment().with(|experiment| {
            let n = experiment.n.min(128);
            let draw = |variant: &'static crate::attention::Variant| {
                let mut setup = setup_of(experiment, variant.id);
                (setup.length, setup.keys) = (n, n);
                (variant, drawing::still(variant, &setup))
            };
            known(&experiment.variants).into_iter().take(MOST_STILL).map(draw).collect::<Vec<_>>()
        })
    };
    move || {
        drawings().into_iter().map(|(variant, drawing)| view! {
            <svg viewBox=format!("0 0 {0} {0}", drawing.side) role="img" aria-label=variant.name data-family=super::components::gallery::family_key(variant.family)>
                <rect width=drawing.side height=drawing.side fill="var(--family)" fill-opacity="0.08"/>
                {drawing.shades.into_iter().map(|(shade, path)| view! { <path d=path fill="var(--family)" fill-opacity=(0.6 * shade).to_string()/> }).collect_view()}
            </svg>
        }).collect_view()
    }
}
