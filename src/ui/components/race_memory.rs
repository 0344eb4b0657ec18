//! What is alive over the dispatches of one training step, for each run, known before anything runs.

use super::numbers::Origin;
use crate::lab::protocol::Provenance;
use crate::ui::browser;
use crate::ui::race::{Race, bands, describe_memory, name_of, peak_words};
use crate::ui::state::{Lab, SessionStoreFields, use_lab};
use crate::ui::texts::t;
use leptos::html;
use leptos::prelude::*;

#[component]
pub fn Memory() -> impl IntoView {
    let lab = use_lab();
    // Plans change with configurations only, not as steps go by.
    let planned = Memo::new(move |_| {
        lab.session.race().with(|race| {
            race.runs.iter().map(|run| run.memory.as_ref().map(|_| run.config.clone())).collect::<Vec<_>>()
        })
    });
    let keys =
        || bands().map(|(name, colour)| view! { <span><i style=format!("background:{colour}")></i>{name}</span> });
    view! {
        <Show when=move || planned.with(|all| all.iter().any(Option::is_some))>
            <section id="memory">
                <h2>{t("train.memory")}" "<Origin of=Provenance::Computed/></h2>
                <div class="legend-keys small">{keys().into_iter().collect_view()}</div>
                <div class="charts">{move || {
                    let all = planned.get();
                    (0..all.len()).filter(|at| all[*at].is_some()).map(|at| chart(lab, at)).collect_view()
                }}</div>
            </section>
        </Show>
    }
}

/// The most that any run has alive.
fn top(race: &Race) -> u64 {
    let most = race.runs.iter().filter_map(|run| Some(run.memory.as_ref()?.at_peak()?.total()));
    most.max().unwrap_or(1)
}

fn chart(lab: Lab, at: usize) -> AnyView {
    let race = lab.session.race();
    let place = NodeRef::<html::Div>::new();
    let width = RwSignal::new(0_i32);
    place.on_load(move |place| browser::on_resize(&place, move |place| width.set(place.client_width())));
    Effect::new(move |_| {
        let width = width.get();
        let Some(place) = place.get().filter(|_| width > 0) else { return };
        let spec = race.with_untracked(|race| {
            let run = race.runs.get(at)?;
            Some(describe_memory(run, run.memory.as_ref()?, top(race), width))
        });
        let Some(spec) = spec else { return };
        leptos::task::spawn_local(async move {
            let _ = browser::draw_chart(&place, &spec.to_string()).await;
        });
    });
    let (name, words) = race.with_untracked(|race| {
        let run = race.runs.get(at);
        (run.map(name_of), run.and_then(|run| peak_words(run.memory.as_ref()?)))
    });
    view! {
        <figure class="chart"><h3>{name}</h3><div class="canvas"><div node_ref=place></div></div><figcaption class="under">{words}</figcaption></figure>
    }
    .into_any()
}
