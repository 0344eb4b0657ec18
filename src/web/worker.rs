//! The worker's entry point: commands come as JSON text, canvases as objects `{ plate, canvas }`; events go back as text.

use crate::gpu::Options;
use crate::lab::Engine;
use crate::lab::protocol::{Command, Event};
use crate::lab::screen::Screen;
use wasm_bindgen::prelude::*;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent, OffscreenCanvas};

/// Begins to listen, and to serve.
#[wasm_bindgen]
pub fn worker_main() {
    console_error_panic_hook::set_once();
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    let answering = scope.clone();
    let (handle, mut engine) = Engine::new(Options::default(), move |event| send(&answering, &event));
    let refusing = scope.clone();
    let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
        let data = message.data();
        match data.as_string() {
            Some(text) => match serde_json::from_str::<Command>(&text) {
                Ok(command) => handle.send(command),
                Err(error) => send(
                    &refusing,
                    &Event::Refused { what: "command".into(), reason: error.to_string(), nearest: None },
                ),
            },
            None => {
                if let Some((plate, canvas)) = canvas_of(&data) {
                    handle.attach(plate, Screen::Canvas(canvas));
                }
            }
        }
    });
    scope.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    // The worker listens as long as it lives.
    on_message.forget();
    wasm_bindgen_futures::spawn_local(async move { engine.serve().await });
}

/// The canvas of a message `{ plate, canvas }`.
fn canvas_of(data: &JsValue) -> Option<(usize, OffscreenCanvas)> {
    let get = |name: &str| js_sys::Reflect::get(data, &name.into()).ok();
    Some((get("plate")?.as_f64()? as usize, get("canvas")?.dyn_into().ok()?))
}

fn send(scope: &DedicatedWorkerGlobalScope, event: &Event) {
    // Events are plain data: writing them cannot fail.
    let text = serde_json::to_string(event).unwrap_or_default();
    let _ = scope.post_message(&text.into());
}
