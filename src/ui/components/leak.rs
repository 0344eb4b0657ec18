//! The drawing of why a method has no causal form; what is drawn stands in [`crate::ui::leak`].

use crate::ui::leak::{TOKENS, middle, passes, paths, way_of};
use crate::ui::texts::{lookup, t};
use leptos::prelude::*;

/// The drawing for a variant that has one: a way from a later token to an earlier output among all ways there are.
#[component]
pub fn Leak(id: &'static str) -> impl IntoView {
    way_of(id).map(|way| {
        let (faint, loud) = paths(&way);
        let label = t("leak.label");
        let x = |i: usize| 60 + 30 * i;
        view! {
            <svg class="leak" id="leak" viewBox="0 0 330 170" role="img" aria-label=label>
                <title>{label}</title>
                <path class="ways" d=faint/>
                <path class="way" d=loud/>
                <text x="0" y="28">{t("leak.tokens")}</text>
                {way.between.map(|key| view! { <text x="0" y="84">{lookup(key)}</text> })}
                <text x="0" y="144">{t("leak.outputs")}</text>
                {(0..TOKENS).map(|i| view! {
                    <rect x=x(i) y="16" width="18" height="18" class:hit=i == way.future/>
                    <rect x=x(i) y="132" width="18" height="18" class:hit=i == way.early/>
                }).collect_view()}
                {way.between.map(|_| (0..way.count).map(|m| view! { <circle cx=middle(&way, m) cy="80" r="8" class:hit=passes(&way, m)/> }).collect_view())}
                <text class="hit" x=x(way.future) y="10">{t("leak.later")}</text>
                <text class="hit" x=x(way.early) y="164">{t("leak.earlier")}</text>
            </svg>
        }
    })
}
