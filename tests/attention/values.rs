//! Outputs and gradients against the naive definition in f64; on a second adapter against the interpreter, which was compared with
//! it on the first.

use crate::backends::again;
use crate::case::{Case, Shape, amplified, causalities, configurations, configurations_for, tolerance, variant};
use crate::close::{assert_close_to_scale, rms};
use crate::device;
use attention_lab::attention::Request;
use attention_lab::gpu::Gpu;
use std::collections::BTreeMap;

/// A gradient may vanish where its terms do not: over one key, a softmax has none. Errors are then measured against this
/// share of the largest gradient of the case.
const VANISHING: f64 = 1e-2;

/// On a second adapter fewer: each length is another set of pipelines, which take most of the time.
fn lengths() -> impl Iterator<Item = usize> {
    [1, 65, 257, 2, 7, 63, 64, 100].into_iter().take(if again() { 3 } else { 8 })
}

pub fn forward(id: &str) {
    let gpu = device::gpu();
    for n in lengths() {
        for causal in causalities(variant(id)) {
            for json in configurations_for(id, causal) {
                check(&Case::new(id, Shape::of(n), causal, json, Request::default()), gpu.as_ref());
            }
        }
    }
}

pub fn forward_long(id: &str) {
    let gpu = device::gpu();
    for causal in causalities(variant(id)) {
        let shape = Shape { batch: 1, heads: 2, n: 1000, m: 1000, dim: 5 };
        check(&Case::new(id, shape, causal, configurations(id)[0], Request::default()), gpu.as_ref());
    }
}

pub fn gradients(id: &str) {
    let gpu = device::gpu();
    let request = Request { grad: true, ..Request::default() };
    for n in lengths() {
        for causal in causalities(variant(id)) {
            for json in configurations_for(id, causal) {
                let shape = if n < 100 { Shape::of(n) } else { Shape { batch: 1, ..Shape::of(n) } };
                check(&Case::new(id, shape, causal, json, request), gpu.as_ref());
            }
        }
    }
}

pub fn gradients_long(id: &str) {
    let gpu = device::gpu();
    let shape = Shape { batch: 1, heads: 1, n: 1000, m: 1000, dim: 3 };
    for causal in causalities(variant(id)) {
        let request = Request { grad: true, ..Request::default() };
        check(&Case::new(id, shape, causal, configurations(id)[0], request), gpu.as_ref());
    }
}

/// Key padding, optional tensors, more keys than queries, and fewer where no order is kept.
pub fn ragged(id: &str) {
    let gpu = device::gpu();
    let padded = Request { grad: true, key_padding: true, ..Request::default() };
    let optional = Request { optional: true, ..padded };
    for causal in causalities(variant(id)) {
        for json in configurations_for(id, causal) {
            for n in [7, 1, 65].into_iter().take(if again() { 1 } else { 3 }) {
                check(&Case::new(id, Shape::of(n), causal, json, padded), gpu.as_ref());
            }
            let longer = Shape { m: 50, ..Shape::of(33) };
            let shorter = Shape { m: 20, ..Shape::of(33) };
            for (shape, request) in
                [(longer, Request { key_padding: false, ..padded }), (longer, optional), (shorter, padded)]
            {
                if Case::takes(id, shape, causal) {
                    check(&Case::new(id, shape, causal, json, request), gpu.as_ref());
                }
            }
        }
    }
}

/// Every output of a case on every interpreter.
fn check(case: &Case, gpu: Option<&Gpu>) {
    let want = if again() { case.on_cpu::<f64>() } else { defined(case) };
    let usual = want.iter().filter(|(name, _)| amplified(case, name) == 1.0);
    let floor = VANISHING * usual.map(|(_, x)| rms(x)).fold(0.0, f64::max);
    let compare = |how: &str, got: &BTreeMap<String, Vec<f64>>, forward: f64, gradient: f64| {
        for (name, want) in &want {
            let (tolerance, floor) =
                if name == "out" { (forward, 0.0) } else { (gradient, floor * amplified(case, name)) };
            assert_close_to_scale(&format!("{} {name} on {how}", case.label()), want, &got[name], tolerance, floor);
        }
    };
    let t = tolerance(case.variant.id);
    if !again() {
        compare("CPU f64", &case.on_cpu::<f64>(), t.exact, t.exact);
        compare("CPU f32", &case.on_cpu::<f32>(), t.forward, t.gradient);
    }
    if let Some(gpu) = gpu {
        compare(&gpu.caps().name, &device::run(gpu, &case.graph(), &case.values_in::<f32>()), t.forward, t.gradient);
    }
}

/// What the naive definition says.
fn defined(case: &Case) -> BTreeMap<String, Vec<f64>> {
    let mut want = BTreeMap::from([("out".to_owned(), case.naive())]);
    if case.request.grad {
        want.extend(case.naive_gradients());
    }
    want
}
