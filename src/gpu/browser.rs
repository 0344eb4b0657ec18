//! What the browser knows and wgpu does not pass on.
//!
//! wgpu 30 has no name for WebGPU's `subgroups` feature and passes neither the adapter's vendor nor its architecture on.

use super::Caps;
use super::caps::is_software;
use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;

/// Makes `navigator.gpu.requestAdapter` return adapters whose `requestDevice` also asks for `subgroups` where the adapter
/// has it. Does nothing where there is no WebGPU, or when called again.
pub(super) fn let_subgroups_through() {
    // A failure leaves everything as it was: then there are no subgroups, which every caller can bear.
    let _ = wrap_request_adapter();
}

const WRAPPED: &str = "attentionLabWrapped";

fn wrap_request_adapter() -> Result<(), JsValue> {
    let navigator = Reflect::get(&js_sys::global(), &"navigator".into())?;
    let gpu = Reflect::get(&navigator, &"gpu".into())?;
    if !gpu.is_object() || Reflect::has(&gpu, &WRAPPED.into())? {
        return Ok(());
    }
    let original: Function = Reflect::get(&gpu, &"requestAdapter".into())?.dyn_into()?;
    let owner = gpu.clone();
    let wrap_adapter = Closure::<dyn FnMut(JsValue)>::new(|adapter: JsValue| {
        if adapter.is_object() {
            let _ = wrap_request_device(&adapter);
        }
    });
    let request = Closure::<dyn FnMut(JsValue) -> Result<Promise, JsValue>>::new(move |options: JsValue| {
        let promise: Promise = original.call1(&owner, &options)?.dyn_into()?;
        // Registered before the caller's own handler, so it runs before it.
        let _ = promise.then(&wrap_adapter);
        Ok(promise)
    });
    Reflect::set(&gpu, &"requestAdapter".into(), request.as_ref())?;
    Reflect::set(&gpu, &WRAPPED.into(), &true.into())?;
    // It lives as long as the page or worker.
    request.forget();
    Ok(())
}

fn wrap_request_device(adapter: &JsValue) -> Result<(), JsValue> {
    if !has(&Reflect::get(adapter, &"features".into())?, "subgroups") {
        return Ok(());
    }
    let original: Function = Reflect::get(adapter, &"requestDevice".into())?.dyn_into()?;
    let owner = adapter.clone();
    let request = Closure::once_into_js(move |descriptor: JsValue| -> Result<JsValue, JsValue> {
        let descriptor = if descriptor.is_object() { descriptor } else { Object::new().into() };
        let asked = Reflect::get(&descriptor, &"requiredFeatures".into())?;
        let features = if asked.is_object() { Array::from(&asked) } else { Array::new() };
        features.push(&"subgroups".into());
        Reflect::set(&descriptor, &"requiredFeatures".into(), &features)?;
        original.call1(&owner, &descriptor)
    });
    Reflect::set(adapter, &"requestDevice".into(), &request)?;
    Ok(())
}

/// Adds vendor and architecture to the name, and the subgroup sizes where the device has the feature.
pub(super) fn complete(caps: &mut Caps, device: &wgpu::Device) {
    let Some(device) = device.as_webgpu() else { return };
    let device: &JsValue = device.as_ref();
    let info = Reflect::get(device, &"adapterInfo".into()).unwrap_or(JsValue::UNDEFINED);
    let text = |key: &str| Reflect::get(&info, &key.into()).ok().and_then(|v| v.as_string()).unwrap_or_default();
    let number = |key: &str| Reflect::get(&info, &key.into()).ok().and_then(|v| v.as_f64()).unwrap_or(0.0) as u32;
    let words = [text("description"), text("vendor"), text("architecture")];
    let known: Vec<&str> = words.iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
    if !known.is_empty() {
        caps.name = known.join(" ");
    }
    let fallback = Reflect::get(&info, &"isFallbackAdapter".into()).is_ok_and(|v| v.is_truthy());
    caps.software |= fallback || is_software(&caps.name);
    let features = Reflect::get(device, &"features".into()).unwrap_or(JsValue::UNDEFINED);
    let (min, max) = (number("subgroupMinSize"), number("subgroupMaxSize"));
    if has(&features, "subgroups") && min > 0 {
        caps.subgroups = Some((min, max));
    }
}

/// Whether a set-like object has this entry.
fn has(set: &JsValue, entry: &str) -> bool {
    let method = Reflect::get(set, &"has".into()).ok().and_then(|f| f.dyn_into::<Function>().ok());
    method.and_then(|f| f.call1(set, &entry.into()).ok()).is_some_and(|v| v.is_truthy())
}
