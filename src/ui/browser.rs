//! What the page asks of the browser besides its own document: address, theme, visibility, clipboard, saving files.

use super::state::Lab;
use super::state::SessionStoreFields;
use crate::lab::experiment::Theme;
use crate::lab::permalink;
use crate::lab::protocol::Command;
use leptos::prelude::*;
use std::time::Duration;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `web/host.js`: draws a chart from its JSON description.
    #[wasm_bindgen(js_namespace = attentionLabHost, js_name = drawChart, catch)]
    pub async fn draw_chart(element: &web_sys::Element, json: &str) -> Result<JsValue, JsValue>;
    /// `web/host.js`: saves the chart inside an element as `svg` or `png`.
    #[wasm_bindgen(js_namespace = attentionLabHost, js_name = saveChart, catch)]
    pub async fn save_chart(element: &web_sys::Element, name: &str, kind: &str) -> Result<JsValue, JsValue>;
    /// `web/host.js`: saves a text as a file.
    #[wasm_bindgen(js_namespace = attentionLabHost, js_name = saveText)]
    pub fn save_text(name: &str, kind: &str, text: &str);
}

/// The query of the page's address, without the question mark.
pub fn query() -> String {
    window().location().search().unwrap_or_default().trim_start_matches('?').to_owned()
}

/// Whether the browser offers WebGPU at all; whether there is an adapter only the engine finds out.
pub fn has_webgpu() -> bool {
    js_sys::Reflect::get(&window().navigator(), &"gpu".into()).is_ok_and(|gpu| gpu.is_object())
}

/// Keeps the address in step with the experiment. Browsers limit how often it may change, hence the pause.
pub fn keep_address(lab: Lab) {
    let timer = StoredValue::new_local(None::<TimeoutHandle>);
    Effect::new(move |first: Option<()>| {
        let query = lab.session.experiment().with(|e| permalink::write(e).query);
        if first.is_none() {
            return;
        }
        timer.update_value(|timer| {
            if let Some(timer) = timer.take() {
                timer.clear();
            }
            *timer = set_timeout_with_handle(move || write_address(&query), Duration::from_millis(150)).ok();
        });
    });
}

fn write_address(query: &str) {
    let path = window().location().pathname().unwrap_or_default();
    let address = if query == "v=1" { path } else { format!("{path}?{query}") };
    if let Ok(history) = window().history() {
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&address));
    }
}

/// Copies the page's address, as it is for this experiment at this moment.
pub async fn copy_address(query: String) -> bool {
    write_address(&query);
    let address = window().location().href().unwrap_or_default();
    let copied = window().navigator().clipboard().write_text(&address);
    wasm_bindgen_futures::JsFuture::from(copied).await.is_ok()
}

/// Lays the chosen theme on the document and follows the system's.
pub fn keep_theme(lab: Lab) {
    if let Ok(Some(media)) = window().match_media("(prefers-color-scheme: dark)") {
        lab.session.system_dark().set(media.matches());
        let heard = media.clone();
        let on_change = Closure::<dyn Fn()>::new(move || lab.session.system_dark().set(heard.matches()));
        media.set_onchange(Some(on_change.as_ref().unchecked_ref()));
        on_change.forget();
    }
    Effect::new(move |_| {
        let theme = match lab.session.experiment().with(|e| e.theme) {
            Theme::Auto => "auto",
            Theme::Light => "light",
            Theme::Dark => "dark",
        };
        if let Some(root) = document().document_element() {
            let _ = root.set_attribute("data-theme", theme);
        }
    });
}

/// Tells the engine when the page is hidden and shown: measuring pauses meanwhile.
pub fn keep_visibility(lab: Lab) {
    let on_change = Closure::<dyn Fn()>::new(move || lab.send_now(Command::Visible { visible: !document().hidden() }));
    let _ = document().add_event_listener_with_callback("visibilitychange", on_change.as_ref().unchecked_ref());
    on_change.forget();
}

/// Puts `attentionLab.command(json)` on the window: the engine's protocol by hand, for the console and for tests, which
/// lose the device on purpose with it.
pub fn offer_commands(lab: Lab) {
    let command = Closure::<dyn Fn(String) -> bool>::new(move |json: String| match serde_json::from_str(&json) {
        Ok(command) => {
            lab.send_now(command);
            true
        }
        Err(_) => false,
    });
    let offered = js_sys::Object::new();
    let _ = js_sys::Reflect::set(&offered, &"command".into(), command.as_ref());
    let _ = js_sys::Reflect::set(&window(), &"attentionLab".into(), &offered);
    command.forget();
}
