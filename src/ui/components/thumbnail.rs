//! A small picture of a variant, as [`crate::ui::drawing`] makes it. What must be computed for it is computed after the page
//! stands, one picture at a time.

use crate::attention::{ALL, Variant};
use crate::ui::drawing::{Drawing, at_once, computed};
use crate::ui::state::{Phase, SessionStoreFields, use_lab};
use leptos::prelude::*;
use std::time::Duration;

/// How long after the engine stands the first picture is computed, and how long after it each next one.
const FIRST: Duration = Duration::from_millis(400);
const NEXT: Duration = Duration::from_millis(60);

#[component]
pub fn Thumbnail(variant: &'static Variant) -> impl IntoView {
    let lab = use_lab();
    let causal = lab.of(|experiment| experiment.causal);
    let stands = Memo::new(move |_| lab.session.phase().with(|phase| *phase != Phase::Starting));
    let drawing = RwSignal::new(Drawing { side: 1, shades: vec![] });
    let place = ALL.iter().position(|other| other.id == variant.id).unwrap_or(0) as u32;
    Effect::new(move |_| {
        let causal_now = causal.get();
        if let Some(made) = at_once(variant, causal_now) {
            drawing.set(made);
        } else if stands.get() {
            let make = move || {
                // It may have been asked for anew meanwhile, or its gallery may be gone.
                if causal.try_get_untracked() == Some(causal_now) {
                    drawing.try_set(computed(variant, causal_now));
                }
            };
            set_timeout(make, FIRST + NEXT * place);
        }
    });
    let side = move || drawing.with(|drawing| drawing.side);
    view! {
        <svg class="thumbnail" viewBox=move || format!("0 0 {0} {0}", side()) aria-hidden="true" shape-rendering="crispEdges"
            data-family=super::gallery::family_key(variant.family)>
            <rect width=side height=side fill="currentColor" fill-opacity="0.08"/>
            {move || drawing.get().shades.into_iter().map(|(shade, path)| view! { <path d=path fill="currentColor" fill-opacity=shade.to_string()/> }).collect_view()}
        </svg>
    }
}
