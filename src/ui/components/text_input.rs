//! The visitor's own text, and the tokens it becomes.

use crate::task::Split;
use crate::ui::format;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// The tokens on the axes.
#[derive(Clone, Copy)]
pub struct Tokens(Memo<Vec<String>>);

impl Tokens {
    /// Derives the tokens from the experiment's text; a context value.
    pub fn of(lab: crate::ui::state::Lab) -> Self {
        let source = lab.of(|e| (e.text.clone(), e.split, e.n));
        Self(Memo::new(move |_| {
            let told =
                lab.session.subject().with(|subject| subject.as_ref().and_then(|subject| subject.labels.clone()));
            told.unwrap_or_else(|| {
                source.with(|(text, split, n)| crate::task::Tokens::of_length(text.as_deref(), *split, *n).labels)
            })
        }))
    }

    /// Token `i` for an axis.
    pub fn label(&self, i: usize) -> String {
        self.0.with(|tokens| tokens.get(i).cloned().unwrap_or_else(|| i.to_string()))
    }
}

#[component]
pub fn TextInput() -> impl IntoView {
    let lab = use_lab();
    let text = lab.of(|e| e.text.clone());
    let split = lab.of(|e| e.split);
    let n = lab.of(|e| e.n);
    let counted = Memo::new(move |_| {
        let of_model = lab.session.subject().with(|subject| subject.as_ref().and_then(|subject| subject.counted));
        text.with(|text| {
            text.as_ref().map(|text| of_model.unwrap_or_else(|| crate::task::Tokens::new(text, split.get()).counted))
        })
    });
    let set = move |text: String| lab.edit(|e| e.text = (!text.is_empty()).then_some(text));
    let open = move |input: web_sys::HtmlInputElement| {
        let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
        leptos::task::spawn_local(async move {
            if let Ok(text) = JsFuture::from(file.text()).await
                && let Some(text) = text.as_string()
            {
                set(text);
            }
        });
        // So that the same file can be opened again.
        input.set_value("");
    };
    view! {
        <fieldset id="control-text">
            <legend>{t("text.title")}</legend>
            <textarea id="text" rows="4" spellcheck="false" aria-label=t("text.title") placeholder=t("text.placeholder")
                prop:value=move || text.get().unwrap_or_default() on:input:target=move |ev| set(ev.target().value())></textarea>
            <div class="row">
                <select aria-label=t("text.split") id="split" prop:value=move || split.get().id()
                    on:change:target=move |ev| if let Some(split) = Split::from_id(&ev.target().value()) { lab.edit(|e| e.split = split) }>
                    <option value=Split::Words.id()>{t("text.words")}</option>
                    <option value=Split::Bytes.id()>{t("text.bytes")}</option>
                </select>
                <label class="button">{t("text.open")}
                    <input type="file" class="unseen" accept=".txt,text/plain" on:change:target=move |ev| open(ev.target())/>
                </label>
                <Show when=move || text.with(Option::is_some)>
                    <button type="button" class="plain" on:click=move |_| lab.edit(|e| e.text = None)>{t("text.default")}</button>
                </Show>
            </div>
            {move || counted.get().map(|count| {
                let n = n.get();
                let words = [("count", format::count(count as u64)), ("n", format::count(n as u64))];
                let values: Vec<(&str, &str)> = words.iter().map(|(k, v)| (*k, v.as_str())).collect();
                let most = *crate::ui::geometry::LENGTHS.end();
                let told = if count > most { fill("text.cut", &values) } else if count > n { fill("text.more", &values) } else if count < n { fill("text.repeated", &values) } else { fill("text.all", &values) };
                let fitting = count.clamp(*crate::ui::geometry::LENGTHS.start(), most);
                view! {
                    <p class="notice" id="text-notice">{told}" "
                        {(fitting != n).then(|| view! {
                            <button type="button" class="plain" on:click=move |_| lab.edit(|e| e.n = fitting)>{fill("text.fit", &[("n", &format::count(fitting as u64))])}</button>
                        })}
                    </p>
                }
            })}
        </fieldset>
    }
}
