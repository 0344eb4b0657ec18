//! Losses of a method's own against their naive definitions, with the gradients that they add.

use crate::backends::again;
use crate::case::{Case, Shape, causalities, configurations_for, tolerance, variant};
use crate::close::{assert_close_to_scale, rms};
use crate::device::on_each;
use attention_lab::attention::{OwnLoss, Request};
use std::collections::BTreeMap;

pub fn equal_their_definition(id: &str) {
    let Some(own) = variant(id).loss else { return };
    for causal in causalities(variant(id)) {
        for json in configurations_for(id, causal) {
            for (n, key_padding) in [(100, true), (1, false), (65, false)].into_iter().take(if again() { 1 } else { 3 })
            {
                let request = Request { grad: true, loss: true, key_padding, ..Request::default() };
                let mut case = Case::new(id, Shape::of(n), causal, json, request);
                // The loss alone: its gradients may be small beside the output's, and their rounding.
                case.set("g", vec![0.0; case.real("g").len()]);
                let (loss, want) = if again() { interpreted(&case) } else { defined(&case, own) };
                let floor = 1e-2 * want.values().map(|x| rms(x)).fold(0.0, f64::max);
                on_each(|how, run| {
                    let got: BTreeMap<String, Vec<f64>> = run(&case);
                    let label = format!("{} {how}", case.label());
                    assert_close_to_scale(&format!("{label} loss"), &[loss], &got["loss"], tolerance(id).forward, 1e-6);
                    for (name, want) in &want {
                        assert_close_to_scale(
                            &format!("{label} {name}"),
                            want,
                            &got[name],
                            tolerance(id).gradient,
                            floor,
                        );
                    }
                });
            }
        }
    }
}

/// The loss and its gradients as the naive definition has them.
fn defined(case: &Case, own: &OwnLoss) -> (f64, BTreeMap<String, Vec<f64>>) {
    let (loss, mut want) = case.naive_loss(own);
    let slope = case.real("g_loss")[0];
    want.values_mut().flatten().for_each(|x| *x *= slope);
    (loss, want)
}

/// The same as the interpreter has them in f64.
fn interpreted(case: &Case) -> (f64, BTreeMap<String, Vec<f64>>) {
    let mut outputs = case.on_cpu::<f64>();
    let loss = outputs["loss"][0];
    outputs.retain(|name, _| name.starts_with('d'));
    (loss, outputs)
}

/// A loss that trains nothing, whatever the parameters, would be a picture of one.
#[test]
fn every_loss_reaches_something_to_train() {
    for variant in attention_lab::attention::ALL.iter().filter(|v| v.loss.is_some()) {
        let own = variant.loss.expect("filtered");
        let reaches = causalities(variant).into_iter().any(|causal| {
            configurations_for(variant.id, causal).any(|json| {
                let request = Request { grad: true, loss: true, ..Request::default() };
                let (_, gradients) = Case::new(variant.id, Shape::of(65), causal, json, request).naive_loss(own);
                gradients.iter().any(|(name, x)| !["dq", "dk", "dv"].contains(&name.as_str()) && rms(x) > 0.0)
            })
        });
        assert!(reaches, "{}: {}", variant.id, own.meaning);
    }
}
