//! The curves of a race: loss, accuracy, accuracy by distance.

use crate::lab::train::orders::Doing;
use crate::lab::train::setup::Against;
use crate::lab::train::verdict::first_judgement;
use crate::ui::browser;
use crate::ui::format;
use crate::ui::race::{Curve, against_name, describe, going};
use crate::ui::state::{Lab, SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::html;
use leptos::prelude::*;

#[component]
pub fn Charts(
    /// Which curves; all of them where nothing is said.
    #[prop(default = Curve::ALL.to_vec())]
    curves: Vec<Curve>,
) -> impl IntoView {
    let lab = use_lab();
    let against = lab.of(|e| e.train.against);
    let tabs = Against::ALL.iter().map(|&choice| {
        view! {
            <label>{against_name(choice)}
                <input type="radio" name="against" id=format!("against-{}", choice.id()) prop:checked=move || against.get() == choice
                    on:change=move |_| lab.edit(|e| e.train.against = choice)/>
            </label>
        }
    });
    view! {
        <div class="tools-row">
            <span class="quiet">{t("train.against")}</span>
            <div class="tabs" role="radiogroup" aria-label=t("train.against")>{tabs.collect_view()}</div>
        </div>
        <div class="charts">{curves.into_iter().map(|curve| chart(lab, curve)).collect_view()}</div>
    }
}

fn chart(lab: Lab, curve: Curve) -> AnyView {
    let place = NodeRef::<html::Div>::new();
    let width = RwSignal::new(0_i32);
    let scheduled = StoredValue::new(false);
    let problem = RwSignal::new(None::<String>);
    place.on_load(move |place| browser::on_resize(&place, move |place| width.set(place.client_width())));
    let against = lab.of(|e| e.train.against);
    let has = move |race: &crate::ui::race::Race| {
        race.runs.iter().any(|run| match curve {
            Curve::Loss => !run.samples.is_empty(),
            _ => run.samples.iter().any(|sample| sample.held.is_some()),
        })
    };
    let empty = Memo::new(move |_| !lab.session.race().with(has));
    let draw = move || {
        scheduled.set_value(false);
        let Some(place) = place.get_untracked() else { return };
        let spec = lab
            .session
            .race()
            .with_untracked(|race| describe(curve, &race.runs, against.get_untracked(), width.get_untracked()));
        leptos::task::spawn_local(async move {
            if let Err(error) = browser::draw_chart(&place, &spec.to_string()).await {
                problem.try_set(Some(format!("{error:?}")));
            }
        });
    };
    // At most once a frame, however fast steps come.
    Effect::new(move |_| {
        lab.session.race().track();
        against.track();
        if width.get() > 0 && !empty.get() && !scheduled.get_value() {
            scheduled.set_value(true);
            request_animation_frame(draw);
        }
    });
    let waits = move || {
        let judged_at = lab.session.race().with(|race| {
            let begun = matches!(race.doing, Doing::Running | Doing::Paused) && curve != Curve::Loss;
            begun.then(|| first_judgement(&going(race))).flatten()
        });
        match judged_at {
            Some(step) => fill("train.first_judgement", &[("step", &format::count(step))]),
            None => t("train.empty").to_owned(),
        }
    };
    view! {
        <figure class="chart" id=format!("chart-{}", curve.id())>
            <h2>{curve.title()}</h2>
            <div class="canvas">
                // What was drawn of an earlier race is not left standing.
                <div node_ref=place hidden=move || empty.get()></div>
                <Show when=move || empty.get()><p class="empty">{waits}</p></Show>
                {move || problem.get()}
            </div>
            <figcaption class="under">{curve.under()}</figcaption>
        </figure>
    }
    .into_any()
}
