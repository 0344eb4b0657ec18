//! The cell under the cursor in words, and its row as a small profile; spoken to screen readers when it rests.

use super::gallery::family_key;
use super::text_input::Tokens;
use crate::ui::format;
use crate::ui::state::{Cell, SessionStoreFields, known, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;
use std::fmt::Write;

#[component]
pub fn Readout() -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let tokens = expect_context::<Tokens>();
    let place = move || session.cursor().get();
    let where_text = move || {
        place().map(|(query, key)| {
            view! {
                {t("readout.query")}" "<b>{tokens.label(query)}</b>" ("{query}") → "
                {t("readout.key")}" "<b>{tokens.label(key)}</b>" ("{key}")"
                <span class="quiet small">{move || if session.locked().get() { t("readout.locked") } else { t("readout.hint") }}</span>
            }
        })
    };
    let ids = lab.of(|e| e.variants.iter().take(2).cloned().collect::<Vec<_>>());
    let rows = move || {
        known(&ids.get())
            .into_iter()
            .enumerate()
            .map(|(at, variant)| {
                let cell = Memo::new(move |_| {
                    let cell = session.plates().with(|plates| plates[at].cell.clone());
                    cell.filter(|cell| Some((cell.query, cell.key)) == place())
                });
                view! {
                    <tr data-family=family_key(variant.family)>
                        <th scope="row">{variant.name}</th>
                        <td class="number" id=format!("cell-{at}")>{move || cell.get().map_or(String::new(), |cell| said(&cell))}</td>
                        <td>{move || cell.get().map(|cell| view! { <Profile cell/> })}</td>
                    </tr>
                }
            })
            .collect_view()
    };
    let spoken = Memo::new(move |_| {
        let (query, key) = place()?;
        let cell = session
            .plates()
            .with(|plates| plates[0].cell.clone())
            .filter(|cell| (cell.query, cell.key) == (query, key))?;
        Some(fill(
            "readout.spoken",
            &[
                ("query", &tokens.label(query)),
                ("i", &query.to_string()),
                ("key", &tokens.label(key)),
                ("j", &key.to_string()),
                ("cell", &said(&cell)),
            ],
        ))
    });
    view! {
        <div class="readout" id="readout">
            <p class="unseen" id="plate-keys">{t("plate.keys")}</p>
            <p class="unseen" aria-live="polite">{spoken}</p>
            <Show when=move || place().is_some() fallback=|| view! { <p class="quiet">{t("readout.empty")}</p> }>
                <p class="where">{where_text}</p>
                <table>{rows}</table>
            </Show>
        </div>
    }
}

/// Weight, score and rank of a cell.
fn said(cell: &Cell) -> String {
    if !cell.allowed {
        return t("readout.not_allowed").to_owned();
    }
    let mut text = fill(
        "readout.weight",
        &[
            ("weight", &format::significant(cell.weight, 3)),
            ("rank", &cell.rank.to_string()),
            ("of", &format::count(cell.row.len() as u64)),
        ],
    );
    if let Some(score) = cell.score {
        text.push_str(&fill("readout.score", &[("score", &format::significant(score, 3))]));
    }
    text
}

/// The row's weights over the keys, the cell's own marked.
#[component]
fn Profile(cell: Cell) -> impl IntoView {
    const WIDTH: usize = 240;
    const HEIGHT: f32 = 24.0;
    let length = cell.row.len().max(1);
    let columns = length.min(WIDTH);
    // Where keys share a column, the largest stands for them.
    let heights: Vec<f32> = (0..columns)
        .map(|column| {
            let (from, to) =
                (column * length / columns, ((column + 1) * length / columns).max(column * length / columns + 1));
            cell.row[from.min(cell.row.len())..to.min(cell.row.len())].iter().fold(0.0_f32, |most, w| most.max(w.abs()))
        })
        .collect();
    let top = heights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let step = WIDTH as f32 / columns as f32;
    let mut path = String::new();
    for (column, height) in heights.iter().enumerate() {
        let tall = HEIGHT * height / top;
        let _ =
            write!(path, "M{:.2} {HEIGHT}v-{tall:.2}h{:.2}v{tall:.2}z", column as f32 * step, (step * 0.85).max(0.6));
    }
    let mark = (cell.key as f32 + 0.5) / length as f32 * WIDTH as f32;
    view! {
        <svg class="profile" viewBox=format!("0 0 {WIDTH} {}", HEIGHT + 3.0) preserveAspectRatio="none" role="img" aria-label=t("readout.profile")>
            <path d=path fill="var(--family)"/>
            <path d=format!("M{mark} {}v3", HEIGHT) stroke="var(--accent)" stroke-width="2" vector-effect="non-scaling-stroke"/>
        </svg>
    }
}
