//! Pauses in which messages can come in. Natively there is nobody to wait for: commands are sent from callbacks.

use crate::gpu::now_ms;

/// Work between two pauses, in milliseconds.
const SLICE_MS: f64 = 24.0;

/// Pauses when the last pause is long enough ago.
#[derive(Debug)]
pub struct Pacer {
    last: f64,
}

impl Default for Pacer {
    fn default() -> Self {
        Self { last: now_ms() }
    }
}

impl Pacer {
    pub async fn pause(&mut self) {
        if now_ms() - self.last > SLICE_MS {
            yield_now().await;
            self.last = now_ms();
        }
    }
}

/// Lets the event loop deliver messages.
#[cfg(target_arch = "wasm32")]
pub async fn yield_now() {
    use wasm_bindgen::{JsCast, JsValue};
    // A resolved promise would go on before any message is delivered; a timer does not.
    let promise = js_sys::Promise::new(&mut |resolve, _| {
        let timer = js_sys::Reflect::get(&js_sys::global(), &JsValue::from_str("setTimeout"));
        let called = timer
            .ok()
            .and_then(|t| t.dyn_into::<js_sys::Function>().ok())
            .map(|timer| timer.call2(&JsValue::NULL, &resolve, &JsValue::from_f64(0.0)).is_ok());
        if called != Some(true) {
            let _ = resolve.call0(&JsValue::NULL);
        }
    });
    let _ = wasm_bindgen_futures::JsFuture::from(promise).await;
}

/// Lets the event loop deliver messages.
#[cfg(not(target_arch = "wasm32"))]
pub async fn yield_now() {}
