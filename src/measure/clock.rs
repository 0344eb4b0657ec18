//! A monotonic clock, natively and in a browser's page or worker.

/// Milliseconds since some fixed moment.
#[cfg(not(target_arch = "wasm32"))]
pub fn now_ms() -> f64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}

/// Milliseconds since some fixed moment; `performance.now()`, which browsers round to between 0.005 and 0.1 ms.
#[cfg(target_arch = "wasm32")]
pub fn now_ms() -> f64 {
    use wasm_bindgen::{JsCast, JsValue};
    // By name, so that it works in a page and in a worker alike.
    let get = |object: &JsValue, name: &str| js_sys::Reflect::get(object, &JsValue::from_str(name));
    let now = || {
        let performance = get(&js_sys::global(), "performance").ok()?;
        let now: js_sys::Function = get(&performance, "now").ok()?.dyn_into().ok()?;
        now.call0(&performance).ok()?.as_f64()
    };
    now().unwrap_or_else(js_sys::Date::now)
}
