//! The figures of a sweep as a table, saving them, and opening another machine's.

use crate::lab::protocol::Point;
use crate::measure::result::{ResultFile, read};
use crate::sort::Arrange;
use crate::ui::browser;
use crate::ui::format;
use crate::ui::pages::speed::Overlays;
use crate::ui::results;
use crate::ui::state::{Lab, SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;

/// The sweep as a result file.
pub fn sweep_file(lab: Lab) -> ResultFile {
    let sweep = lab.session.sweep().get_untracked();
    let adapter = lab.session.adapter().get_untracked().unwrap_or_default();
    let browser_name = window().navigator().user_agent().unwrap_or_default();
    results::file(&sweep.points, &sweep.experiment.unwrap_or_default(), sweep.backward, &adapter, Some(browser_name))
}

#[component]
pub fn Actions() -> impl IntoView {
    let lab = use_lab();
    let overlays = expect_context::<Overlays>();
    let problem = RwSignal::new(None::<String>);
    let empty = move || lab.session.sweep().with(|s| s.points.is_empty());
    let save_json = move |_| browser::save_text("attention-lab.json", "application/json", &sweep_file(lab).to_json());
    let save_csv = move |_| browser::save_text("attention-lab.csv", "text/csv", &sweep_file(lab).to_csv());
    let save_picture = move |kind: &'static str| {
        leptos::task::spawn_local(async move {
            for quantity in ["time", "bytes"] {
                let place = document().query_selector(&format!("#chart-{quantity} .canvas")).ok().flatten();
                if let Some(place) = place
                    && let Err(error) = browser::save_chart(&place, &format!("attention-lab-{quantity}"), kind).await
                {
                    problem.set(Some(format!("{error:?}")));
                }
            }
        });
    };
    let open = move |input: web_sys::HtmlInputElement| {
        let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
        leptos::task::spawn_local(async move {
            let text = JsFuture::from(file.text()).await.ok().and_then(|text| text.as_string()).unwrap_or_default();
            match read(&text) {
                Ok((opened, complaints)) => {
                    let told: Vec<String> = complaints.iter().map(ToString::to_string).collect();
                    problem.set((!told.is_empty()).then(|| told.join(" ")));
                    overlays.0.update(|all| all.push(opened));
                }
                Err(error) => {
                    let reason = error.to_string();
                    problem.set(Some(fill("results.bad_file", &[("name", &file.name()), ("reason", &reason)])));
                }
            }
        });
        input.set_value("");
    };
    view! {
        <div class="actions" id="actions">
            <button type="button" id="save-json" disabled=empty on:click=save_json>{t("results.json")}</button>
            <button type="button" id="save-csv" disabled=empty on:click=save_csv>{t("results.csv")}</button>
            <button type="button" id="save-svg" disabled=empty on:click=move |_| save_picture("svg")>{t("results.svg")}</button>
            <button type="button" id="save-png" disabled=empty on:click=move |_| save_picture("png")>{t("results.png")}</button>
            <label class="button">{t("results.open")}
                <input type="file" class="unseen" id="open-result" accept=".json,application/json"
                    on:change=move |ev| open(ev.target().unwrap().unchecked_into())/>
            </label>
            <Show when=move || overlays.0.with(|all| !all.is_empty())>
                <button type="button" class="plain" on:click=move |_| overlays.0.set(Vec::new())>{t("results.close")}</button>
            </Show>
            <span class="notice" role="status">{move || problem.get()}</span>
        </div>
    }
}

#[component]
pub fn Figures() -> impl IntoView {
    let lab = use_lab();
    let rows = move || {
        let mut points = lab.session.sweep().with(|sweep| sweep.points.clone());
        points.arrange_by(|a, b| (&a.variant, a.length).cmp(&(&b.variant, b.length)));
        points.into_iter().map(|point| view! { <Figure point/> }).collect_view()
    };
    view! {
        <Show when=move || lab.session.sweep().with(|s| !s.points.is_empty())>
            <div class="results">
                <details>
                    <summary>{t("figures.title")}</summary>
                    <table id="figures">
                        <thead><tr>
                            <th scope="col">{t("fits.variant")}</th>
                            <th scope="col">{t("figures.length")}</th>
                            <th scope="col">{t("figures.time")}</th>
                            <th scope="col">{t("figures.spread")}</th>
                            <th scope="col">{t("figures.bytes")}</th>
                            <th scope="col">{t("figures.flops")}</th>
                            <th scope="col">{t("fits.error")}</th>
                            <th scope="col">{t("figures.note")}</th>
                        </tr></thead>
                        <tbody>{rows}</tbody>
                    </table>
                </details>
            </div>
        </Show>
    }
}

#[component]
fn Figure(point: Point) -> impl IntoView {
    let time = point.time.as_ref();
    let spread = time.map(|t| {
        format!("{} to {}, {}× {}", format::milliseconds(t.min), format::milliseconds(t.max), t.repeats, t.how)
    });
    let stages = point
        .stages_ms
        .iter()
        .map(|(name, ms)| format!("{name} {}", format::milliseconds(*ms)))
        .collect::<Vec<_>>()
        .join(", ");
    view! {
        <tr>
            <td>{point.variant.clone()}</td>
            <td>{format::count(point.length as u64)}</td>
            <td>{time.map_or("–".into(), |t| format::milliseconds(t.median))}</td>
            <td>{spread}</td>
            <td>{format::bytes(point.bytes_peak)}</td>
            <td>{format::flops(point.flops)}</td>
            <td>{point.error_to_full.map(|e| format::significant(e.rms_ratio, 2))}</td>
            <td class="wide">{point.refused.clone().unwrap_or(stages)}</td>
        </tr>
    }
}
