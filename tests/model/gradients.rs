//! The gradient of the loss with respect to every weight, through whole models in which each layer has another variant.
//!
//! The oracle is the interpreter in f64, which must agree with central differences of itself; the interpreter in f32 and
//! the device must agree with it.

use crate::backends::again;
use crate::case::{BATCH, Device, Values, batch_values, config, weights};
use crate::common::gpu;
use attention_lab::graph::{Data, Float, Graph, cpu, grad};
use attention_lab::model::config::{Activation, Block, Initialisation, NormPlace, Positions};
use attention_lab::model::{Architecture, Mixer, ModelConfig, step};
use attention_lab::random;
use std::collections::BTreeMap;

/// Elements of each weight that are compared with central differences.
const PROBES: u64 = 3;

/// The loss, and its gradient with respect to each learned weight by the weight's name.
struct Whole {
    forward: Graph,
    graph: Graph,
    values: Values<f64>,
    names: Vec<String>,
}

impl Whole {
    fn new(config: &ModelConfig) -> Self {
        let step::Forward { graph: mut forward, network: net, loss, .. } = step::forward(config, BATCH, 4);
        let mut graph = forward.clone();
        forward.output("loss", loss);
        let learned: Vec<_> = net.parameters.iter().filter(|(p, _)| p.learned).collect();
        let one = graph.constant(&[], Data::Real(vec![1.0]));
        let nodes: Vec<_> = learned.iter().map(|(_, node)| *node).collect();
        graph.output("loss", loss);
        for (gradient, (parameter, _)) in grad::gradients(&mut graph, &[(loss, one)], &nodes).iter().zip(&learned) {
            graph.output(&parameter.name, gradient.unwrap_or_else(|| panic!("{} has no gradient", parameter.name)));
        }
        let names = learned.iter().map(|(p, _)| p.name.clone()).collect();
        let mut values = batch_values(config, BATCH, 1);
        values.extend(weights(net.parameters.iter().map(|(p, _)| p), 0.1));
        Self { forward, graph, values, names }
    }

    fn values_f32(&self) -> Values<f32> {
        let convert = |data: &Data<f64>| match data {
            Data::Real(x) => Data::Real(x.iter().map(|&x| x as f32).collect()),
            Data::Index(x) => Data::Index(x.clone()),
        };
        self.values.iter().map(|(name, data)| (name.clone(), convert(data))).collect()
    }

    /// Central differences of some elements of every weight, and what the gradient says of them.
    fn differences(&self, gradients: &BTreeMap<String, Vec<f64>>) -> [Vec<f64>; 2] {
        const STEP: f64 = 1e-5;
        let mut values = self.values.clone();
        let mut loss = |name: &str, at: usize, shift: f64| {
            let Some(Data::Real(x)) = values.get_mut(name) else { unreachable!("weights are real") };
            let before = x[at];
            x[at] += shift;
            let loss = cpu::run(&self.forward, &values, &|| false).unwrap()["loss"].real()[0];
            let Some(Data::Real(x)) = values.get_mut(name) else { unreachable!("weights are real") };
            x[at] = before;
            loss
        };
        let (mut want, mut got) = (Vec::new(), Vec::new());
        for name in &self.names {
            let gradient = &gradients[name];
            for probe in 0..PROBES {
                let at = random::below(9, random::stream(name), probe, gradient.len());
                want.push((loss(name, at, STEP) - loss(name, at, -STEP)) / (2.0 * STEP));
                got.push(gradient[at]);
            }
        }
        [want, got]
    }
}

fn numbers<R: Float>(outputs: BTreeMap<String, Data<R>>) -> BTreeMap<String, Vec<f64>> {
    outputs.into_iter().map(|(name, data)| (name, data.real().iter().map(|x| x.to_f64()).collect())).collect()
}

fn rms(x: impl Iterator<Item = f64> + Clone) -> f64 {
    (x.clone().map(|x| x * x).sum::<f64>() / x.count().max(1) as f64).sqrt()
}

/// RMS of the error over RMS of `want`; NaN where there is one.
fn ratio(want: &[f64], got: &[f64], floor: f64) -> f64 {
    assert_eq!(want.len(), got.len());
    rms(want.iter().zip(got).map(|(a, b)| a - b)) / rms(want.iter().copied()).max(floor)
}

/// Every output of a run against the oracle's. The gradient of some weights is 0 by construction (the bias of keys shifts all
/// scores alike), so an error is also allowed that is small against the gradients of all.
fn compare(how: &str, want: &BTreeMap<String, Vec<f64>>, got: &BTreeMap<String, Vec<f64>>, tolerance: f64) {
    let all = rms(want.values().flatten().copied());
    for (name, want) in want {
        let ratio = ratio(want, &got[name], 0.1 * all);
        assert!(ratio <= tolerance, "{name} on {how}: RMS ratio {ratio:e} over {tolerance:e}");
    }
}

fn check(config: &ModelConfig) {
    let whole = Whole::new(config);
    let want = numbers(cpu::run(&whole.graph, &whole.values, &|| false).unwrap());
    let values = whole.values_f32();
    if !again() {
        let [differences, gradients] = whole.differences(&want);
        let worst = ratio(&differences, &gradients, 0.0);
        println!("central differences: RMS ratio {worst:e} over {} probes", gradients.len());
        assert!(worst <= 1e-5, "central differences: RMS ratio {worst:e}\nwant {differences:?}\ngot {gradients:?}");
        compare("CPU f32", &want, &numbers(cpu::run(&whole.graph, &values, &|| false).unwrap()), 1e-4);
    }
    let Some(gpu) = gpu() else { return };
    let device = Device::new(&gpu, &whole.graph);
    device.write(&values);
    device.replay.submit().unwrap();
    let got = want.keys().map(|name| (name.clone(), device.output(name))).collect();
    compare(&gpu.caps().name, &want, &got, 1e-4);
}

#[test]
fn decoder_of_exact_and_local_layers() {
    check(&config(Architecture::Decoder, &["full", "sliding_window", "full_naive", "bahdanau"]));
}

#[test]
fn decoder_of_kernel_and_recurrent_layers() {
    let hybrid = config(Architecture::Decoder, &["linear", "performer", "transformer_xl", "gru"]);
    check(&ModelConfig {
        norm: NormPlace::Post,
        positions: Positions::Learned,
        activation: Activation::Relu,
        initialisation: Initialisation::Gpt2,
        tied: true,
        ..hybrid
    });
}

#[test]
fn decoder_of_dropped_and_learned_layers() {
    let hybrid = config(Architecture::Decoder, &["synthesizer", "lstm", "rnn"]);
    check(&ModelConfig { positions: Positions::None, dropout: 0.3, ..hybrid });
}

#[test]
fn encoder_of_low_rank_and_pattern_layers() {
    check(&config(Architecture::Encoder, &["linformer", "longformer", "bigbird", "entmax"]));
}

#[test]
fn encoder_that_says_words_as_bert_does() {
    let encoder = config(Architecture::Encoder, &["full"]);
    check(&ModelConfig {
        norm: NormPlace::Post,
        norm_epsilon: 1e-12,
        positions: Positions::Learned,
        activation: Activation::GeluErf,
        tied: true,
        says_words: true,
        ..encoder
    });
}

#[test]
fn encoder_decoder_with_its_own_variants() {
    let mut pair = config(Architecture::EncoderDecoder, &["full"]);
    pair.attention = ["linformer", "full"].map(Mixer::of).to_vec();
    pair.cross = Mixer::of("bahdanau");
    check(&ModelConfig { tied: true, ..pair });
}

#[test]
fn recurrent_networks_alone() {
    let stack = config(Architecture::Decoder, &["lstm", "gru", "rnn"]);
    check(&ModelConfig { block: Block::Plain, positions: Positions::None, dropout: 0.2, ..stack });
}

#[test]
fn recurrent_networks_that_read_in_both_directions() {
    let stack = config(Architecture::Decoder, &["gru", "lstm", "rnn"]);
    check(&ModelConfig { block: Block::Plain, architecture: Architecture::Encoder, norm: NormPlace::Post, ..stack });
}

#[test]
fn recurrent_encoder_decoder_with_additive_attention() {
    let mut pair = config(Architecture::Decoder, &["gru", "lstm"]);
    pair.architecture = Architecture::EncoderDecoder;
    pair.cross = Mixer::of("bahdanau");
    check(&ModelConfig { block: Block::Plain, heads: 1, ..pair });
}
