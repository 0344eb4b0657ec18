//! What the sweep says: sentences first, then fitted exponents beside the theoretical ones.

use super::gallery::{family_key, glyph};
use super::numbers::Origin;
use crate::attention::{self, Variant};
use crate::lab::protocol::{Point, Provenance};
use crate::ui::findings::{Crossover, bytes, crossover, fit, memory_factor, series, times};
use crate::ui::format;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// The variant that all others are compared with.
const MEASURE: &str = "full";

#[component]
pub fn Findings() -> impl IntoView {
    let lab = use_lab();
    let sentences = Memo::new(move |_| lab.session.sweep().with(|sweep| say(&sweep.points)));
    view! {
        <div class="findings" id="findings" aria-live="polite">
            {move || match sentences.get() {
                empty if empty.is_empty() => vec![t("findings.none").to_owned()],
                some => some,
            }.into_iter().map(|sentence| view! { <p>{sentence}</p> }).collect_view()}
        </div>
    }
}

fn say(points: &[Point]) -> Vec<String> {
    let full = series(points, MEASURE);
    let others = attention::ALL.iter().filter(|v| v.id != MEASURE && points.iter().any(|p| p.variant == v.id));
    let reference = attention::find(MEASURE).map_or(MEASURE, |v| v.name);
    others.filter_map(|variant| sentence(variant, &series(points, variant.id), &full, reference)).collect()
}

fn sentence(variant: &Variant, own: &[&Point], full: &[&Point], reference: &str) -> Option<String> {
    let n = |n: usize| format::count(n as u64);
    let names = [("name", variant.name), ("full", reference)];
    let time = match crossover(own, full)? {
        Crossover::From { length, longest, factor } => fill(
            "findings.faster",
            &[
                names[0],
                names[1],
                ("from", &n(length)),
                ("longest", &n(longest)),
                ("factor", &format::significant(factor, 2)),
            ],
        ),
        Crossover::NotYet { longest } => fill("findings.not_faster", &[names[0], names[1], ("longest", &n(longest))]),
    };
    let memory = memory_factor(own, full).map(|(at, factor)| {
        let at = n(at);
        if factor >= 1.05 {
            fill("findings.lighter", &[("factor", &format::significant(factor, 2)), ("n", &at)])
        } else if factor <= 0.95 {
            fill("findings.heavier", &[("factor", &format::significant(1.0 / factor, 2)), ("n", &at)])
        } else {
            fill("findings.as_heavy", &[("n", &at)])
        }
    });
    Some(time + &memory.unwrap_or_default())
}

#[component]
pub fn Fits() -> impl IntoView {
    let lab = use_lab();
    let points = move || lab.session.sweep().with(|sweep| sweep.points.clone());
    let rows = move || {
        let points = points();
        attention::ALL
            .iter()
            .copied()
            .filter(|variant| points.iter().any(|p| p.variant == variant.id))
            .map(|variant| {
                let own = series(&points, variant.id);
                let (time, memory) = (fit(&times(&own)), fit(&bytes(&own)));
                let range = time.map(|f| format!("{}–{}", format::count(f.from as u64), format::count(f.to as u64)));
                let written = |fit: Option<crate::ui::findings::Fit>| {
                    fit.map_or("–".into(), |f| format!("N^{:.2}", f.exponent))
                };
                let longest = own.iter().rev().find_map(|p| p.error_to_full);
                view! {
                    <tr data-family=family_key(variant.family)>
                        <td><span class="glyph" aria-hidden="true">{glyph(variant.family)}</span>" "{variant.name}</td>
                        <td>{written(time)}</td>
                        <td>{format!("N^{}", variant.exponent)}</td>
                        <td>{written(memory)}</td>
                        <td>{range.unwrap_or_else(|| "–".into())}</td>
                        <td>{longest.map_or("–".into(), |e| format::significant(e.rms_ratio, 2))}</td>
                    </tr>
                }
            })
            .collect_view()
    };
    view! {
        <Show when=move || lab.session.sweep().with(|s| !s.points.is_empty())>
            <div class="results">
                <table id="fits">
                    <caption>{t("fits.title")}</caption>
                    <thead><tr>
                        <th scope="col">{t("fits.variant")}</th>
                        <th scope="col">{t("fits.time")}" "<Origin of=Provenance::Measured/></th>
                        <th scope="col">{t("fits.theory")}" "<Origin of=Provenance::Paper/></th>
                        <th scope="col">{t("fits.bytes")}" "<Origin of=Provenance::Computed/></th>
                        <th scope="col">{t("fits.range")}</th>
                        <th scope="col">{t("fits.error")}" "<Origin of=Provenance::Computed/></th>
                    </tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </Show>
    }
}
