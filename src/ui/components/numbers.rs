//! The numbers beside the plates, one column for each variant, each row saying where its figures come from.

use crate::attention::Variant;
use crate::lab::protocol::{Numbers, Provenance};
use crate::ui::format;
use crate::ui::state::{SessionStoreFields, known, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// One quantity: its name, where it comes from, and how a variant's figure is written.
struct Quantity {
    name: &'static str,
    origin: Provenance,
    write: fn(&Variant, Option<&Numbers>) -> Option<String>,
}

fn quantities() -> [Quantity; 12] {
    use Provenance::{Computed, Measured, Paper};
    [
        Quantity { name: t("numbers.density"), origin: Computed, write: |_, n| Some(format::percent(n?.density)) },
        Quantity {
            name: t("numbers.keys"),
            origin: Computed,
            write: |_, n| Some(format::significant(n?.keys_per_query, 3)),
        },
        Quantity { name: t("numbers.blocks"), origin: Computed, write: |_, n| blocks(n?) },
        Quantity { name: t("numbers.mass"), origin: Computed, write: |_, n| n?.mass_kept.map(format::percent) },
        Quantity {
            name: t("numbers.error"),
            origin: Computed,
            write: |_, n| n?.error_to_full.map(|e| format::significant(e.rms_ratio, 2)),
        },
        Quantity { name: t("numbers.reach"), origin: Computed, write: |_, n| reach(n?) },
        Quantity { name: t("numbers.serial"), origin: Computed, write: |_, n| Some(format::count(n?.serial_steps)) },
        Quantity { name: t("numbers.flops"), origin: Computed, write: |_, n| Some(format::flops(n?.flops)) },
        Quantity { name: t("numbers.bytes"), origin: Computed, write: |_, n| Some(format::bytes(n?.bytes_peak)) },
        Quantity { name: t("numbers.time"), origin: Measured, write: |_, n| time(n?) },
        Quantity { name: t("numbers.complexity"), origin: Paper, write: |v, _| Some(format::powers(v.complexity)) },
        Quantity {
            name: t("numbers.exact"),
            origin: Paper,
            write: |v, _| Some(if v.exact { t("state.yes") } else { t("state.no") }.to_owned()),
        },
    ]
}

fn blocks(numbers: &Numbers) -> Option<String> {
    let (visited, total) = (numbers.blocks_visited?, numbers.blocks_total?);
    let share = format::percent(visited as f64 / total.max(1) as f64);
    Some(fill(
        "numbers.blocks_of",
        &[("visited", &format::count(visited)), ("total", &format::count(total)), ("share", &share)],
    ))
}

fn reach(numbers: &Numbers) -> Option<String> {
    let layers: Vec<String> = numbers.reach.iter().take(4).map(|r| format::count(*r)).collect();
    (!layers.is_empty()).then(|| layers.join(" · "))
}

fn time(numbers: &Numbers) -> Option<String> {
    let timing = numbers.measured.as_ref()?;
    Some(format!(
        "{} ({} to {}, {}×, {})",
        format::milliseconds(timing.median),
        format::milliseconds(timing.min),
        format::milliseconds(timing.max),
        timing.repeats,
        timing.how
    ))
}

/// A tag that says where a figure comes from.
#[component]
pub fn Origin(of: Provenance) -> impl IntoView {
    let (key, text) = match of {
        Provenance::Measured => ("measured", t("origin.measured")),
        Provenance::Computed => ("computed", t("origin.computed")),
        Provenance::Paper => ("paper", t("origin.paper")),
    };
    view! { <span class="origin" data-origin=key>{text}</span> }
}

#[component]
pub fn NumbersTable() -> impl IntoView {
    let lab = use_lab();
    let ids = lab.of(|e| e.variants.iter().take(2).cloned().collect::<Vec<_>>());
    move || {
        let variants = known(&ids.get());
        let columns = variants.clone();
        view! {
            <table class="numbers" id="numbers">
                <caption>{t("numbers.title")}</caption>
                <thead><tr>
                    <th></th>
                    {columns.iter().map(|variant| view! { <th scope="col">{variant.name}</th> }).collect_view()}
                    <th><span class="unseen">{t("numbers.origin")}</span></th>
                </tr></thead>
                <tbody>
                    {quantities().into_iter().map(|quantity| {
                        let cells = variants.clone().into_iter().enumerate().map(|(at, variant)| {
                            let figure = move || lab.session.plates().with(|plates| {
                                let state = &plates[at];
                                let numbers = (state.variant == variant.id).then_some(state.numbers.as_ref()).flatten();
                                (quantity.write)(variant, numbers).unwrap_or_else(|| "–".into())
                            });
                            view! { <td>{figure}</td> }
                        }).collect_view();
                        view! { <tr><th scope="row">{quantity.name}</th>{cells}<td><Origin of=quantity.origin/></td></tr> }
                    }).collect_view()}
                </tbody>
            </table>
        }
    }
}
