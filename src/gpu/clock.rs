//! A monotonic clock for natively and in a browser, in a page or a worker.

/// Milliseconds since some fixed moment. Browsers round it, to 0.005 ms at best.
pub fn now_ms() -> f64 {
    #[cfg(target_arch = "wasm32")]
    {
        use wasm_bindgen::{JsCast, JsValue};
        let performance = js_sys::Reflect::get(&js_sys::global(), &JsValue::from_str("performance"));
        let now = performance.and_then(|p| {
            let now = js_sys::Reflect::get(&p, &JsValue::from_str("now"))?;
            now.dyn_ref::<js_sys::Function>().ok_or(JsValue::NULL)?.call0(&p)
        });
        now.ok().and_then(|n| n.as_f64()).unwrap_or_else(js_sys::Date::now)
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
    }
}
