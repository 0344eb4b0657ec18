//! What the sweep says: sentences first, then fitted exponents beside the theoretical ones.

use super::gallery::{YARDSTICK, family_key, glyph};
use super::numbers::Origin;
use crate::attention;
use crate::lab::protocol::{AdapterFacts, Point, Provenance};
use crate::measure::crossover::Order;
use crate::measure::fit::PowerLaw;
use crate::measure::verdict::{Curves, Verdict, Weight, verdicts};
use crate::ui::format;
use crate::ui::results;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// The curves of a sweep in the registry's order.
pub fn curves(points: &[Point]) -> Vec<Curves> {
    let ids: Vec<(&str, f64)> = attention::ALL.iter().map(|v| (v.id, v.exponent)).collect();
    results::curves(points, &ids)
}

#[component]
pub fn Findings() -> impl IntoView {
    let lab = use_lab();
    let sentences = Memo::new(move |_| {
        let adapter = lab.session.adapter().get().unwrap_or_default();
        lab.session.sweep().with(|sweep| say(&sweep.points, &adapter))
    });
    view! {
        <div class="findings" id="findings" aria-live="polite">
            {move || match sentences.get() {
                empty if empty.is_empty() => vec![t("findings.none").to_owned()],
                some => some,
            }.into_iter().map(|sentence| view! { <p>{sentence}</p> }).collect_view()}
        </div>
    }
}

fn name_of(id: &str) -> &str {
    attention::find(id).map_or(id, |variant| variant.name)
}

/// One sentence for each variant: time first, then memory.
fn say(points: &[Point], adapter: &AdapterFacts) -> Vec<String> {
    let quantum_ms = adapter.timer_quantum_ns.map_or(0.0, |ns| ns as f64 * 1e-6);
    let limit = (adapter.max_buffer_bytes > 0).then_some(adapter.max_buffer_bytes);
    let found = verdicts(&curves(points), YARDSTICK, quantum_ms, limit);
    let mut sentences: Vec<(String, String)> = Vec::new();
    for verdict in &found {
        let Some((variant, clause)) = clause(verdict, points) else { continue };
        match sentences.iter_mut().find(|(of, _)| *of == variant) {
            Some((_, sentence)) => *sentence += &clause,
            None => sentences.push((variant, clause)),
        }
    }
    sentences.into_iter().map(|(_, sentence)| sentence + ".").collect()
}

fn clause(verdict: &Verdict, points: &[Point]) -> Option<(String, String)> {
    let n = |n: usize| format::count(n as u64);
    match verdict {
        Verdict::Time { variant, than, order } => {
            let names = [("name", name_of(variant)), ("full", name_of(than))];
            let text = match *order {
                Order::Always { from, to } => fill(
                    "findings.always",
                    &[
                        names[0],
                        names[1],
                        ("from", &n(from)),
                        ("to", &n(to)),
                        ("factor", &factor(points, than, variant, to)?),
                    ],
                ),
                Order::From { at, .. } => {
                    fill("findings.faster", &[names[0], names[1], ("from", &n(at.round() as usize))])
                }
                Order::Slower { to } => fill(
                    "findings.slower",
                    &[names[0], names[1], ("to", &n(to)), ("factor", &factor(points, variant, than, to)?)],
                ),
                Order::Unclear { to } => fill("findings.unclear", &[names[0], names[1], ("to", &n(to))]),
            };
            Some((variant.clone(), text))
        }
        Verdict::Memory { variant, length, ratio, .. } => {
            let at = n(*length);
            let text = match Weight::of(*ratio) {
                Weight::Lighter(times) => {
                    fill("findings.lighter", &[("factor", &format::significant(times, 3)), ("n", &at)])
                }
                Weight::Heavier(times) => {
                    fill("findings.heavier", &[("factor", &format::significant(times, 3)), ("n", &at)])
                }
                Weight::Same => fill("findings.as_heavy", &[("n", &at)]),
            };
            Some((variant.clone(), text))
        }
        // Beyond this, nobody was going to run it anyway.
        Verdict::MemoryEnds { length, .. } if *length > 1 << 17 => None,
        Verdict::MemoryEnds { variant, length } => {
            let text = fill("findings.ends", &[("name", name_of(variant)), ("n", &n(*length))]);
            // A sentence of its own.
            Some((format!("{variant} ends"), text))
        }
        Verdict::Growth { .. } => None,
    }
}

/// How many times `slow` takes as long as `quick` at this length.
fn factor(points: &[Point], slow: &str, quick: &str, length: usize) -> Option<String> {
    let time =
        |id: &str| points.iter().find(|p| p.variant == id && p.length == length)?.time.as_ref().map(|t| t.median);
    Some(format::significant(time(slow)? / time(quick)?, 2))
}

#[component]
pub fn Fits() -> impl IntoView {
    let lab = use_lab();
    let rows = move || {
        let points = lab.session.sweep().with(|sweep| sweep.points.clone());
        curves(&points)
            .into_iter()
            .filter_map(|curve| {
                let variant = attention::find(&curve.variant)?;
                let times: Vec<(f64, f64)> = curve.times.iter().map(|(n, t)| (*n as f64, t.median)).collect();
                let bytes: Vec<(f64, f64)> = curve.bytes.iter().map(|(n, b)| (*n as f64, *b as f64)).collect();
                let (time, memory) = (PowerLaw::of_long_end(&times), PowerLaw::of_long_end(&bytes));
                let range = time.map(|f| {
                    format!("{}–{}", format::count(f.from.round() as u64), format::count(f.to.round() as u64))
                });
                let longest = results::series(&points, variant.id).iter().rev().find_map(|p| p.error_to_full);
                Some(view! {
                    <tr data-family=family_key(variant.family)>
                        <td><span class="glyph" aria-hidden="true">{glyph(variant.family)}</span>" "{variant.name}</td>
                        <td>{power(time)}</td>
                        <td>"N"<sup>{variant.exponent}</sup></td>
                        <td>{power(memory)}</td>
                        <td>{range.unwrap_or_else(|| "–".into())}</td>
                        <td>{longest.map_or("–".into(), |e| format::significant(e.rms_ratio, 2))}</td>
                    </tr>
                })
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
                        <th scope="col">{t("fits.time")}<br/><Origin of=Provenance::Measured/></th>
                        <th scope="col">{t("fits.theory")}<br/><Origin of=Provenance::Paper/></th>
                        <th scope="col">{t("fits.bytes")}<br/><Origin of=Provenance::Computed/></th>
                        <th scope="col">{t("fits.range")}</th>
                        <th scope="col">{t("fits.error")}<br/><Origin of=Provenance::Computed/></th>
                    </tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </Show>
    }
}

/// A fitted exponent with its standard error.
fn power(law: Option<PowerLaw>) -> AnyView {
    match law {
        None => "–".into_any(),
        Some(law) => {
            let error = law.error.filter(|e| *e >= 0.005).map(|e| format!(" ± {}", format::decimals(e, 2)));
            view! { "N"<sup>{format::decimals(law.exponent, 2)}</sup><span class="quiet">{error}</span> }.into_any()
        }
    }
}
