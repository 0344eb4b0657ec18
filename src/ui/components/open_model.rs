//! Opening a model that others made: its files are chosen or dropped, read in the worker, and shown in the place Attention.

use super::numbers::Origin;
use super::text_input::Tokens;
use crate::lab::experiment::{Precision, WeightsFrom};
use crate::lab::opened::OpenedFacts;
use crate::lab::protocol::{Backend, Command, Provenance};
use crate::ui::state::{Lab, SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use crate::ui::{browser, format};
use leptos::prelude::*;
use wasm_bindgen::JsCast;

/// The way in, how far it is, and what is open.
#[component]
pub fn OpenModel() -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let choose = move |input: web_sys::HtmlInputElement| {
        open(lab, input.files());
        // So that the same files can be opened again.
        input.set_value("");
    };
    // Files may be dropped anywhere on the page: whoever misses a small frame would see the browser leave the page.
    browser::listen(&window(), "dragover", |event: web_sys::DragEvent| {
        if has_files(&event) {
            event.prevent_default();
        }
    });
    browser::listen(&window(), "drop", move |event: web_sys::DragEvent| {
        if has_files(&event) {
            event.prevent_default();
            open(lab, event.data_transfer().and_then(|data| data.files()));
        }
    });
    let precision = lab.of(|e| e.precision);
    let has_gpu = move || session.backend().get() == Backend::Gpu;
    let opening = Memo::new(move |_| session.opening().get());
    view! {
        <div id="open-model-part">
            <label class="button" title=t("open.title")>{t("open.button")}
                <input type="file" class="unseen" id="open-model" multiple accept=".safetensors,.json,.bin"
                    on:change:target=move |ev| choose(ev.target())/>
            </label>
            <p class="meaning quiet">{t("open.meaning")}</p>
            <Show when=move || opening.with(Option::is_some)>
                <div class="progress" id="opening">
                    <span>{move || {
                        let (done, total) = opening.get().unwrap_or_default();
                        let share = if total > 0 { done as f64 / total as f64 } else { 0.0 };
                        fill("open.reading", &[("share", &format::percent(share))])
                    }}</span>
                    <progress aria-label=t("open.progress") max=move || opening.get().map_or(1, |(_, total)| total.max(1))
                        prop:value=move || opening.get().map_or(0, |(done, _)| done)></progress>
                    <button type="button" on:click=move |_| lab.send_now(Command::Cancel)>{t("open.cancel")}</button>
                </div>
            </Show>
            <p class="notice" id="not-opened" role="alert">{move || session.not_opened().get().map(|reason| fill("open.refused", &[("reason", &reason)]))}</p>
            {move || session.opened().get().map(|model| view! {
                <p id="opened">{said(&model)}" "
                    <button type="button" class="plain" on:click=move |_| lab.send_now(Command::Close)>{t("open.close")}</button></p>
                <Show when=has_gpu>
                    <label class="control check"><input type="checkbox" id="precision" prop:checked=move || precision.get() == Precision::Half
                        on:change:target=move |ev| {
                            let half = ev.target().checked();
                            lab.edit(|e| e.precision = if half { Precision::Half } else { Precision::Single });
                        }/><span>{t("open.half")}</span><span class="meaning">{t("open.half_meaning")}</span></label>
                </Show>
                <Show when=move || { session.resident().get() > 0 }>
                    <p class="meaning quiet" id="resident">{move || fill("open.resident", &[("bytes", &format::bytes(session.resident().get()))])}" "
                        <Origin of=Provenance::Measured/></p>
                </Show>
            })}
        </div>
    }
}

fn has_files(event: &web_sys::DragEvent) -> bool {
    event.data_transfer().is_some_and(|data| data.types().includes(&"Files".into(), 0))
}

fn open(lab: Lab, files: Option<web_sys::FileList>) {
    let Some(files) = files.filter(|files| files.length() > 0) else { return };
    lab.session.not_opened().set(None);
    lab.open_model(&js_sys::Array::from(files.unchecked_ref()));
}

fn said(model: &OpenedFacts) -> String {
    let count = |n: usize| format::count(n as u64);
    fill(
        "open.is",
        &[
            ("name", &model.name),
            ("family", &model.family),
            ("layers", &count(model.layers)),
            ("heads", &count(model.heads)),
            ("width", &count(model.d_model)),
            ("length", &count(model.length)),
            ("weights", &format::count(model.weights)),
            ("bytes", &format::bytes(model.bytes)),
        ],
    )
}

/// What the opened model expects behind the query under the cursor or, of an encoder, in its place.
#[component]
pub fn Expected() -> impl IntoView {
    let lab = use_lab();
    let tokens = expect_context::<Tokens>();
    let is_shown = lab.of(|e| e.weights == WeightsFrom::Opened);
    let expected = move || {
        let (query, _) = lab.session.cursor().get().filter(|_| is_shown.get())?;
        let likeliest = lab.session.guesses().with(|guesses| {
            let guess = guesses.iter().find(|guess| guess.at == query)?;
            Some(
                guess
                    .likeliest
                    .iter()
                    .map(|(token, share)| format!("{token} {}", format::percent(f64::from(*share))))
                    .collect::<Vec<_>>(),
            )
        })?;
        let causal = lab.session.opened().with(|model| model.as_ref().is_some_and(|model| model.causal));
        let key = if causal { "open.expected_behind" } else { "open.expected_in" };
        Some(fill(key, &[("token", &tokens.label(query)), ("likeliest", &likeliest.join(", "))]))
    };
    view! { <p class="quiet small" id="expected" aria-live="polite">{expected}</p> }
}
