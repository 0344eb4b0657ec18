//! Training: the device beside the interpreter, step by step, and what a step leaves behind.

use crate::case::{Device, Values, batch_values, config, inputs, weights};
use crate::common::gpu;
use attention_lab::gpu::Category;
use attention_lab::graph::{Data, cpu};
use attention_lab::model::optimiser::{NUMBERS, Rule};
use attention_lab::model::{Architecture, ModelConfig, OptimiserConfig, TrainingStep, training_step};
use pollster::block_on;

const BATCH: usize = 8;
const STEPS: u64 = 50;

struct Training {
    config: ModelConfig,
    rule: OptimiserConfig,
    step: TrainingStep,
}

impl Training {
    fn new(config: ModelConfig, rule: OptimiserConfig) -> Self {
        let step = training_step(&config, &rule, BATCH, 1);
        Self { config, rule, step }
    }

    /// Weights, and memories of zeros.
    fn state(&self) -> Values<f32> {
        let mut state = weights(self.step.parameters.iter(), 0.0);
        for (name, len) in inputs(&self.step.graph).filter(|(name, _)| name.starts_with("optimiser.")) {
            state.insert(name.into(), Data::Real(vec![0.0; len]));
        }
        state
    }

    /// The batch and the numbers of step `t`.
    fn given(&self, t: u64) -> Values<f32> {
        let mut given = batch_values(&self.config, BATCH, t);
        for (name, value) in NUMBERS.iter().zip(self.rule.numbers(t, STEPS)) {
            given.insert(name.to_string(), Data::Real(vec![value as f32]));
        }
        given
    }

    fn on_cpu(&self) -> Vec<f64> {
        let mut state = self.state();
        let losses = (1..=STEPS).map(|t| {
            state.extend(self.given(t));
            let (outputs, updates) = cpu::Run::new(&self.step.graph, &state).unwrap().finish_updated();
            state.extend(updates);
            f64::from(outputs["loss"].real()[0])
        });
        losses.collect()
    }
}

fn both_ways(config: ModelConfig, rule: OptimiserConfig) {
    let training = Training::new(config, rule);
    let want = training.on_cpu();
    let (first, last) = (want[..5].iter().sum::<f64>(), want[want.len() - 5..].iter().sum::<f64>());
    assert!(last < 0.9 * first, "nothing is learned: {want:?}");
    let Some(gpu) = gpu() else { return };
    let device = Device::new(&gpu, &training.step.graph);
    device.write(&training.state());
    let mut worst = 0f64;
    for (t, want) in (1..).zip(&want) {
        device.write(&training.given(t));
        device.replay.submit().unwrap();
        let got = device.output("loss")[0];
        assert!((got - want).abs() <= 1e-3, "step {t}: {got} on {}, {want} on the CPU", gpu.caps().name);
        worst = worst.max((got - want).abs());
    }
    println!("largest difference of {STEPS} losses: {worst:e}; from {} to {}", want[0], want[want.len() - 1]);
}

#[test]
fn losses_of_adamw_agree_for_fifty_steps() {
    let rule = OptimiserConfig { rate: 5e-3, warmup: 10, ..OptimiserConfig::default() };
    both_ways(ModelConfig { dropout: 0.1, ..config(Architecture::Decoder, &["full", "sliding_window"]) }, rule);
}

#[test]
fn losses_of_sgd_agree_for_fifty_steps() {
    let rule = OptimiserConfig { rule: Rule::Sgd, rate: 0.2, clip: 0.5, ..OptimiserConfig::default() };
    both_ways(config(Architecture::EncoderDecoder, &["full"]), rule);
}

#[test]
fn a_step_allocates_nothing_and_the_ledger_does_not_grow() {
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
    run(1, 2);
    let (current, allocations) = (gpu.ledger().current(), gpu.ledger().allocations());
    run(2, 200);
    assert_eq!((gpu.ledger().current(), gpu.ledger().allocations()), (current, allocations));
    assert!(device.output("loss")[0].is_finite());
}
