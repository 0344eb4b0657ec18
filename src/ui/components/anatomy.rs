//! Where a variant's time goes: one bar for each, a part for each stage, at the longest length at which stages were timed.

use super::gallery::{family_key, glyph};
use super::numbers::Origin;
use crate::attention;
use crate::lab::protocol::{Point, Provenance};
use crate::lab::results;
use crate::ui::format;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// Parts below this share of the longest bar carry no label of their own; they are named in the title of the part.
const LABELLED: f64 = 0.09;

#[component]
pub fn Anatomy() -> impl IntoView {
    let lab = use_lab();
    let timed = Memo::new(move |_| lab.session.sweep().with(|sweep| longest(&sweep.points)));
    move || {
        let points = timed.get();
        let most = points.iter().map(total).fold(0.0, f64::max);
        (!points.is_empty()).then(|| {
            view! {
                <section class="anatomy" id="anatomy">
                    <h2>{t("anatomy.title")}" "<Origin of=Provenance::Measured/></h2>
                    <dl>{points.into_iter().map(|point| view! { <Bar point most/> }).collect_view()}</dl>
                </section>
            }
        })
    }
}

/// For each variant its point at the longest length that all of them have stages at, so that bars can be compared.
fn longest(points: &[Point]) -> Vec<Point> {
    let staged: Vec<&Point> = points.iter().filter(|p| !p.stages_ms.is_empty()).collect();
    let mut ids: Vec<&str> = staged.iter().map(|p| p.variant.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let everywhere = |n: usize| ids.iter().all(|id| staged.iter().any(|p| p.variant == *id && p.length == n));
    let Some(length) = staged.iter().map(|p| p.length).filter(|n| everywhere(*n)).max() else { return Vec::new() };
    attention::ALL
        .iter()
        .filter_map(|v| {
            results::series(points, v.id).into_iter().find(|p| p.length == length && !p.stages_ms.is_empty())
        })
        .cloned()
        .collect()
}

fn total(point: &Point) -> f64 {
    point.stages_ms.iter().map(|(_, ms)| ms).sum()
}

#[component]
fn Bar(point: Point, most: f64) -> impl IntoView {
    let variant = attention::find(&point.variant)?;
    let count = point.stages_ms.len().max(1);
    let parts = point
        .stages_ms
        .iter()
        .enumerate()
        .map(|(at, (name, ms))| {
            let share = ms / most.max(f64::MIN_POSITIVE);
            // Parts of one bar are shades of the family's colour.
            let shade = 100.0 - 60.0 * at as f64 / count as f64;
            let style = format!(
                "inline-size:{:.2}%;background:color-mix(in oklab,var(--family) {shade:.0}%,var(--paper))",
                share * 100.0
            );
            let title = format!("{name}: {}", format::milliseconds(*ms));
            let label = (share >= LABELLED).then(|| name.clone());
            view! { <span class="part" style=style title=title class:light=shade < 65.0>{label}</span> }
        })
        .collect_view();
    let words = point.stages_ms.iter().map(|(name, ms)| format!("{name} {}", format::milliseconds(*ms)));
    let words = words.collect::<Vec<_>>().join(", ");
    let at = fill(
        "anatomy.at",
        &[("n", &format::count(point.length as u64)), ("time", &format::milliseconds(total(&point)))],
    );
    Some(view! {
        <div data-family=family_key(variant.family)>
            <dt><span class="glyph" aria-hidden="true">{glyph(variant.family)}</span>" "{variant.name}<span class="quiet">" "{at}</span></dt>
            <dd><span class="bars" aria-hidden="true">{parts}</span><span class="words">{words}</span></dd>
        </div>
    })
}
