//! The worker's entry point. A page sends `{ port }` for each of its figures; each gets an engine of its own, and all of them
//! share one device. On a port, commands come as JSON text, canvases as objects `{ plate, canvas }`, and `{ close }` when the
//! figure is gone; events go back as text.

use crate::gpu::Options;
use crate::lab::protocol::{Command, Event};
use crate::lab::screen::Screen;
use crate::lab::shelf::Shelf;
use crate::lab::{Engine, Handle, Shared};
use crate::reading::Source;
use wasm_bindgen::prelude::*;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent, MessagePort, OffscreenCanvas};

#[wasm_bindgen]
extern "C" {
    /// `web/shelf.js`: a file of the lab.
    #[wasm_bindgen(js_namespace = attentionLabShelf, js_name = bytes, catch)]
    async fn fetch_bytes(path: &str) -> Result<JsValue, JsValue>;
}

async fn fetch(path: &str) -> Result<Vec<u8>, String> {
    let told = |error: JsValue| js_sys::Object::from(error).to_string().into();
    fetch_bytes(path).await.map(|bytes| js_sys::Uint8Array::new(&bytes).to_vec()).map_err(told)
}

/// Begins to listen, and to serve.
#[wasm_bindgen]
pub fn worker_main() {
    console_error_panic_hook::set_once();
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    let shared = Shared::default();
    let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
        if let Some(port) = part::<MessagePort>(&message.data(), "port") {
            wasm_bindgen_futures::spawn_local(serve(port, shared.clone()));
        }
    });
    scope.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    // The worker listens as long as it lives.
    on_message.forget();
}

/// Serves one figure until it is gone.
async fn serve(port: MessagePort, shared: Shared) {
    let answering = port.clone();
    let (handle, mut engine) = Engine::sharing(shared, Options::default(), move |event| send(&answering, &event));
    engine.set_shelf(Shelf::Browser);
    let answered = handle.clone();
    engine.set_library(move |path| {
        let handle = answered.clone();
        wasm_bindgen_futures::spawn_local(async move { handle.provide(path, fetch(path).await) });
    });
    let refusing = port.clone();
    let on_message =
        Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| hear(&handle, &refusing, &message.data()));
    port.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    engine.serve().await;
    port.set_onmessage(None);
    port.close();
}

fn hear(handle: &Handle, port: &MessagePort, data: &JsValue) {
    if let Some(text) = data.as_string() {
        match crate::json::read::<Command>(&text) {
            Ok(command) => handle.send(command),
            Err(error) => {
                let refused = Event::Refused { what: "command".into(), reason: error.to_string(), nearest: None };
                send(port, &refused);
            }
        }
    } else if let Some(canvas) = part::<OffscreenCanvas>(data, "canvas") {
        let plate = part::<js_sys::Number>(data, "plate").map_or(usize::MAX, |plate| plate.value_of() as usize);
        handle.attach(plate, Screen::Canvas(canvas));
    } else if let Some(files) = part::<js_sys::Array>(data, "files") {
        handle.open(files.iter().filter_map(|file| Some(Source::Chosen(file.dyn_into().ok()?))).collect());
    } else if part::<js_sys::Boolean>(data, "close").is_some() {
        handle.send(Command::Cancel);
        handle.close();
    }
}

/// A field of a message, where it is there and of this type.
fn part<T: JsCast>(data: &JsValue, name: &str) -> Option<T> {
    js_sys::Reflect::get(data, &name.into()).ok()?.dyn_into().ok()
}

fn send(port: &MessagePort, event: &Event) {
    // Events are plain data: writing them cannot fail.
    let text = serde_json::to_string(event).unwrap_or_default();
    let _ = port.post_message(&text.into());
}
