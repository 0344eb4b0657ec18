//! Training: the device beside the interpreter, step by step.

use crate::case::{Device, Values, batch_values, config, inputs, weights};
use crate::common::gpu;
use attention_lab::graph::{Data, cpu};
use attention_lab::model::optimiser::{NUMBERS, Rule};
use attention_lab::model::{Architecture, ModelConfig, OptimiserConfig, TrainingStep, training_step};

const BATCH: usize = 8;
const STEPS: u64 = 50;

pub struct Training {
    config: ModelConfig,
    rule: OptimiserConfig,
    pub step: TrainingStep,
}

impl Training {
    pub fn new(config: ModelConfig, rule: OptimiserConfig) -> Self {
        let step = training_step(&config, &rule, BATCH, 1);
        Self { config, rule, step }
    }

    /// Weights, and memories of zeros.
    pub fn state(&self) -> Values<f32> {
        let mut state = weights(self.step.parameters.iter(), 0.0);
        for (name, len) in inputs(&self.step.graph).filter(|(name, _)| name.starts_with("optimiser.")) {
            state.insert(name.into(), Data::Real(vec![0.0; len]));
        }
        state
    }

    /// The batch and the numbers of step `t`.
    pub fn given(&self, t: u64) -> Values<f32> {
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
