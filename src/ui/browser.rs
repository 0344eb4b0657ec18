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
    /// `web/host.js`: saves what is at an address as a file.
    #[wasm_bindgen(js_namespace = attentionLabHost, js_name = saveAddress)]
    pub fn save_address(name: &str, address: &str);
    /// An address of a file, for the engine to read.
    #[wasm_bindgen(js_namespace = URL, js_name = createObjectURL, catch)]
    pub fn address_of(file: &web_sys::File) -> Result<String, JsValue>;
    /// `web/host.js`: the text of a file of the lab.
    #[wasm_bindgen(js_namespace = attentionLabHost, js_name = fetchText, catch)]
    pub async fn fetch_text(path: &str) -> Result<JsValue, JsValue>;
    /// `web/host.js`: starts the engine's worker.
    #[wasm_bindgen(js_namespace = attentionLabHost, js_name = startWorker, catch)]
    pub fn start_worker() -> Result<web_sys::Worker, JsValue>;
    /// `web/host.js`: the address of a path of the lab, also where a figure stands in a page of another site.
    #[wasm_bindgen(js_namespace = attentionLabHost)]
    pub fn address(path: &str) -> String;
}

/// A listener, taken down when this is dropped.
pub struct Listening {
    target: web_sys::EventTarget,
    event: &'static str,
    heard: JsValue,
    _closure: Box<dyn std::any::Any>,
}

impl Listening {
    pub fn to<E: wasm_bindgen::convert::FromWasmAbi + 'static>(
        target: &web_sys::EventTarget,
        event: &'static str,
        heard: impl Fn(E) + 'static,
    ) -> Self {
        let closure = Closure::<dyn Fn(E)>::new(heard);
        let heard: JsValue = closure.as_ref().clone();
        let _ = target.add_event_listener_with_callback(event, heard.unchecked_ref());
        Self { target: target.clone(), event, heard, _closure: Box::new(closure) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.target.remove_event_listener_with_callback(self.event, self.heard.unchecked_ref());
    }
}

/// Listens as long as the part of the page that asks is there.
pub fn listen<E: wasm_bindgen::convert::FromWasmAbi + 'static>(
    target: &web_sys::EventTarget,
    event: &'static str,
    heard: impl Fn(E) + 'static,
) {
    StoredValue::new_local(Listening::to(target, event, heard));
}

/// Calls `resized` with every size that an element has, as long as the part of the page that asks is there.
pub fn on_resize(element: &web_sys::Element, resized: impl Fn(&web_sys::Element) + 'static) {
    struct Watching(
        web_sys::ResizeObserver,
        #[expect(dead_code, reason = "what the observer calls")] Closure<dyn Fn()>,
    );
    impl Drop for Watching {
        fn drop(&mut self) {
            self.0.disconnect();
        }
    }
    let measured = element.clone();
    let closure = Closure::<dyn Fn()>::new(move || resized(&measured));
    if let Ok(observer) = web_sys::ResizeObserver::new(closure.as_ref().unchecked_ref()) {
        observer.observe(element);
        StoredValue::new_local(Watching(observer, closure));
    }
}

/// Whether the visitor says yes to what can't be undone. In a frame browsers ask nothing, and nothing is kept there either.
pub fn is_sure(question: &str) -> bool {
    let in_frame = window().parent().ok().flatten().is_some_and(|parent| parent != window());
    in_frame || window().confirm_with_message(question).unwrap_or(false)
}

/// The query of the page's address, without the question mark.
pub fn query() -> String {
    window().location().search().unwrap_or_default().trim_start_matches('?').to_owned()
}

/// Whether the window is wide enough for two columns.
pub fn is_wide() -> bool {
    window().match_media("(min-width: 48rem)").ok().flatten().is_none_or(|media| media.matches())
}

/// Gives the focus to an element, and brings it into sight.
pub fn focus(id: &str) {
    if let Some(element) = document().get_element_by_id(id)
        && let Ok(element) = element.dyn_into::<web_sys::HtmlElement>()
    {
        let _ = element.focus();
    }
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
    copy_text(&window().location().href().unwrap_or_default()).await
}

/// Copies a text; false where the browser refuses.
pub async fn copy_text(text: &str) -> bool {
    let copied = window().navigator().clipboard().write_text(text);
    wasm_bindgen_futures::JsFuture::from(copied).await.is_ok()
}

/// Lays the chosen theme on `root`, the document's own or a figure's, and follows what surrounds it.
pub fn keep_theme(lab: Lab, root: web_sys::Element) {
    let here = root.clone();
    if let Ok(Some(media)) = window().match_media("(prefers-color-scheme: dark)") {
        listen(&media, "change", move |_: web_sys::Event| lab.session.system_dark().set(is_dark(&here)));
    }
    Effect::new(move |_| {
        let theme = match lab.session.experiment().with(|e| e.theme) {
            Theme::Auto => "auto",
            Theme::Light => "light",
            Theme::Dark => "dark",
        };
        let _ = root.set_attribute("data-theme", theme);
        lab.session.system_dark().set(is_dark(&root));
    });
}

/// Whether an element is drawn dark: where its surroundings can be both, the system decides.
fn is_dark(element: &web_sys::Element) -> bool {
    let style = window().get_computed_style(element).ok().flatten();
    let scheme = style.and_then(|style| style.get_property_value("color-scheme").ok()).unwrap_or_default();
    let system = || window().match_media("(prefers-color-scheme: dark)").ok().flatten().is_some_and(|m| m.matches());
    scheme.contains("dark") && (!scheme.contains("light") || system())
}

/// Tells the engine when the page is hidden and shown: measuring pauses meanwhile.
pub fn keep_visibility(lab: Lab) {
    listen(&document(), "visibilitychange", move |_: web_sys::Event| {
        lab.send_now(Command::Visible { visible: !document().hidden() });
    });
}

/// Puts `attentionLab.command(json)` on the window: the engine's protocol by hand, for the console and for tests, which
/// lose the device on purpose with it.
pub fn offer_commands(lab: Lab) {
    let command = Closure::<dyn Fn(String) -> bool>::new(move |json: String| match crate::json::read(&json) {
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
