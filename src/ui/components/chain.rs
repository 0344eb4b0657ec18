//! How many steps of each contender wait for each other, against length: why a wide device does not help a recurrent network.

use super::gallery::{family_key, glyph};
use super::numbers::Origin;
use crate::attention::find;
use crate::lab::engine::setup_of;
use crate::lab::protocol::Provenance;
use crate::ui::format;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::t;
use leptos::prelude::*;

/// Where nothing is measured yet.
const LENGTHS: [usize; 3] = [64, 512, 4096];

#[component]
pub fn Chain() -> impl IntoView {
    let lab = use_lab();
    let view = move || {
        let swept = lab.session.sweep().with(|sweep| sweep.experiment.clone().map(|e| (e, ends(&sweep.points))));
        let (experiment, lengths) = match swept {
            Some((experiment, Some(lengths))) => (experiment, lengths),
            _ => (lab.session.experiment().get(), LENGTHS),
        };
        let experiment = experiment.with_fixed_parameters();
        let heads = lengths.map(|n| view! { <th scope="col">{format::count(n as u64)}</th> });
        let rows = experiment.variants.iter().filter_map(|id| find(id)).map(|variant| {
            let steps = lengths.map(|n| variant.serial_steps(&setup_of(&experiment, variant, n)));
            let cells = steps.map(|steps| view! { <td>{format::count(steps as u64)}</td> });
            view! {
                <tr data-family=family_key(variant.family)>
                    <td><span class="glyph" aria-hidden="true">{glyph(variant.family)}</span>" "{variant.name}</td>
                    {cells.collect_view()}
                </tr>
            }
        });
        view! {
            <thead><tr><th scope="col">{t("chain.tokens")}</th>{heads.collect_view()}</tr></thead>
            <tbody>{rows.collect_view()}</tbody>
        }
    };
    view! {
        <section class="results" id="chain">
            <table>
                <caption>{t("numbers.serial")}" "<Origin of=Provenance::Computed/></caption>
                {view}
            </table>
            <p class="quiet small">{t("chain.why")}</p>
        </section>
    }
}

/// The shortest, a middle and the longest length of a sweep.
fn ends(points: &[crate::lab::protocol::Point]) -> Option<[usize; 3]> {
    let mut lengths: Vec<usize> = points.iter().map(|point| point.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let most = lengths.len();
    (most > 2).then(|| [lengths[0], lengths[most / 2], lengths[most - 1]])
}
