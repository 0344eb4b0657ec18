//! What a training step leaves behind on the device: its own memory, and nothing more.

use crate::backends::again;
use crate::case::{Device, config};
use crate::common::gpu;
use crate::curves::Training;
use attention_lab::gpu::Category;
use attention_lab::model::{Architecture, OptimiserConfig};
use pollster::block_on;

/// Steps of a training; fewer on a second adapter.
fn steps() -> u64 {
    if again() { 200 } else { 2000 }
}

#[test]
fn two_thousand_steps_allocate_nothing_and_the_ledger_does_not_grow() {
    let Some(gpu) = gpu() else { return };
    let training = Training::new(config(Architecture::Decoder, &["full"]), OptimiserConfig::default());
    let device = Device::new(&gpu, &training.step.graph);
    let by = device.plan.bytes_by_category();
    let weights: u64 = training.step.parameters.iter().map(|p| 4 * p.len() as u64).sum();
    assert_eq!((by[&Category::Parameters], by[&Category::Optimiser]), (weights, 2 * weights));
    let gradients = device.plan.timeline.iter().filter_map(|m| m.alive.get(&Category::Gradients)).max();
    assert!(gradients.is_some_and(|&bytes| bytes >= weights), "{gradients:?} bytes of gradients of {weights}");

    device.write(&training.state());
    let run = |from: u64, to: u64| {
        for t in from..to {
            device.write(&training.given(t));
            device.replay.submit().unwrap();
        }
        block_on(gpu.wait()).unwrap();
    };
    let held = || {
        let ledger = gpu.ledger();
        (ledger.current(), ledger.peak(), ledger.allocations())
    };
    run(1, 2);
    let after_one = held();
    assert!(after_one.0 >= 3 * weights && after_one.1 >= after_one.0, "{after_one:?}");
    let last = steps();
    run(2, last + 1);
    assert_eq!(held(), after_one, "bytes, most bytes and allocations after step {last}, and after step 1");
    let loss = device.output("loss")[0];
    println!("{} bytes after step 1 and after step {last}; loss {loss}", after_one.0);
    assert!(loss.is_finite());
}
