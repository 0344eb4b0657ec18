//! The worker's entry point: commands come as JSON text, canvases as objects `{ plate, canvas }`; events go back as text.

use crate::lab::protocol::{AdapterFacts, Backend, Command, Event};
use wasm_bindgen::prelude::*;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};

/// Begins to listen.
#[wasm_bindgen]
pub fn worker_main() {
    console_error_panic_hook::set_once();
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    let answering = scope.clone();
    let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
        let Some(text) = message.data().as_string() else { return };
        if let Ok(Command::Start { .. }) = serde_json::from_str(&text) {
            let adapter = AdapterFacts { backend: "cpu".into(), ..Default::default() };
            send(&answering, &Event::Ready { adapter, backend: Backend::Cpu, notice: None });
        }
    });
    scope.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    // The worker listens as long as it lives.
    on_message.forget();
}

fn send(scope: &DedicatedWorkerGlobalScope, event: &Event) {
    // Events are plain data: writing them cannot fail.
    let text = serde_json::to_string(event).unwrap_or_default();
    let _ = scope.post_message(&text.into());
}
