//! Every variant in a layer: a step of training changes every weight and leaves all numbers finite.

use crate::case::{BATCH, Values, batch_values, inputs, weights};
use attention_lab::attention::{self, Causal, DEFAULT_TENSOR_BYTES, Value};
use attention_lab::graph::{Data, cpu};
use attention_lab::model::optimiser::NUMBERS;
use attention_lab::model::{Architecture, Mixer, ModelConfig, OptimiserConfig, TrainingStep, training_step};

/// A variant with parameters for few tokens.
pub fn mixer(id: &str) -> Mixer {
    let mut mixer = Mixer::of(id);
    if id == "sinkhorn" {
        // With its usual block there would be nothing to sort.
        mixer.params.0.insert("block".into(), Value::Int(4));
    }
    mixer
}

fn config(id: &str, causal: Causal) -> ModelConfig {
    let config = ModelConfig {
        architecture: if matches!(causal, Causal::Never(_)) { Architecture::Encoder } else { Architecture::Decoder },
        layers: 1,
        d_model: 16,
        heads: 2,
        vocabulary: 7,
        length: 21,
        attention: vec![mixer(id)],
        ..ModelConfig::default()
    };
    config.check(BATCH, DEFAULT_TENSOR_BYTES).unwrap_or_else(|e| panic!("{id}: {e}"));
    config
}

fn after_one_step(step: &TrainingStep, config: &ModelConfig, rule: &OptimiserConfig) -> (Values<f32>, [f32; 2]) {
    let mut state = weights(step.parameters.iter(), 0.05);
    for (name, len) in inputs(&step.graph).filter(|(name, _)| name.starts_with("optimiser.")) {
        state.insert(name.into(), Data::Real(vec![0.0; len]));
    }
    for (name, value) in NUMBERS.iter().zip(rule.numbers(1, 10)) {
        state.insert(name.to_string(), Data::Real(vec![value as f32]));
    }
    state.extend(batch_values(config, BATCH, 3));
    let (outputs, updates) = cpu::Run::new(&step.graph, &state).unwrap().finish_updated();
    let numbers = ["loss", "norm"].map(|name| outputs[name].real()[0]);
    for (name, data) in &updates {
        assert!(data.real().iter().all(|x| x.is_finite()), "{name} is not finite");
        assert!(name.starts_with("optimiser.") || state[name] != *data, "{name} has not changed");
    }
    (updates, numbers)
}

fn trains(id: &str) {
    let variant = attention::find(id).expect("an id of the registry");
    let config = config(id, variant.causal);
    // Without decay, which would move what has no gradient.
    let rule = OptimiserConfig { decay: 0.0, ..OptimiserConfig::default() };
    let step = training_step(&config, &rule, BATCH, 1);
    let (updates, [loss, norm]) = after_one_step(&step, &config, &rule);
    assert!((1.0..4.0).contains(&loss) && norm > 1e-3, "loss {loss}, norm {norm}");
    for parameter in step.parameters.iter().filter(|p| p.learned) {
        assert!(updates.contains_key(&parameter.name), "{} does not learn", parameter.name);
    }
    // A weight is no one sequence's own.
    let more = training_step(&config, &rule, BATCH + 1, 1);
    let shapes = |step: &TrainingStep| step.parameters.iter().map(|p| p.shape.clone()).collect::<Vec<_>>();
    assert_eq!(shapes(&step), shapes(&more));
}

macro_rules! one_for_each {
    ($($id:ident)*) => {
        $(#[test]
        fn $id() {
            trains(stringify!($id));
        })*
    };
}

attention_lab::for_each_variant!(one_for_each);
