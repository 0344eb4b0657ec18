//! Padding: what a model says at real positions does not depend on what stands at the others.

use crate::case::{BATCH, Device, Values, weights};
use crate::common::gpu;
use crate::every_variant::mixer;
use attention_lab::attention::{self, Causal, DEFAULT_TENSOR_BYTES, Variant};
use attention_lab::graph::{Data, cpu};
use attention_lab::model::config::Block;
use attention_lab::model::{Architecture, Mixer, ModelConfig, Reader, reader};
use attention_lab::random;

const LENGTH: usize = 21;
const VOCABULARY: usize = 9;
const PAD: u32 = 6;

fn config(architecture: Architecture, mixer: Mixer) -> ModelConfig {
    ModelConfig {
        architecture,
        layers: 2,
        d_model: 16,
        heads: 2,
        vocabulary: VOCABULARY,
        length: LENGTH,
        pad: Some(PAD),
        attention: vec![mixer],
        ..ModelConfig::default()
    }
}

/// Tokens of which the first row is shorter at the end, and both begin with padding and have some inside.
fn tokens(stream: u64, blank: u32) -> Vec<u32> {
    let token = |at: usize| {
        let (row, i) = (at / LENGTH, at % LENGTH);
        let ends = if row == 0 { LENGTH - 6 } else { LENGTH };
        let hidden = i < 2 - row || i == 7 + row || i >= ends;
        // Below the padding, so that there is none by chance.
        if hidden { blank } else { random::below(11, stream, at as u64, PAD as usize) as u32 }
    };
    (0..BATCH * LENGTH).map(token).collect()
}

/// Logits, of real positions alone, with the embedding of `blank` as it was drawn and with another one, on the interpreter and
/// on the device.
fn both(config: &ModelConfig, blank: u32, cross: bool) -> Vec<(String, [Vec<f64>; 2])> {
    config.check(BATCH, DEFAULT_TENSOR_BYTES).unwrap_or_else(|e| panic!("{e}"));
    let Reader { graph, parameters } = reader(config, BATCH, 5);
    let mut values: Values<f32> = weights(parameters.iter(), 0.05);
    let read = if cross {
        // The decoder's own text is full: only the source has padding.
        values.insert("source".into(), Data::Index(tokens(1, blank)));
        (0..BATCH * LENGTH).map(|at| random::below(11, 2, at as u64, PAD as usize) as u32).collect()
    } else {
        tokens(1, blank)
    };
    let real: Vec<bool> = read.iter().map(|&token| token != blank).collect();
    values.insert("tokens".into(), Data::Index(read));
    let mut other = values.clone();
    let Some(Data::Real(table)) = other.get_mut("embedding.weight") else { panic!("there is an embedding") };
    table[blank as usize * config.d_model..][..config.d_model].fill(3.0);
    let of_real = |logits: Vec<f64>| -> Vec<f64> {
        let rows = logits.chunks(VOCABULARY).zip(&real).filter(|(_, real)| **real);
        rows.flat_map(|(row, _)| row.to_vec()).collect()
    };
    let on_cpu = [&values, &other].map(|values| {
        let outputs = cpu::run(&graph, values, &|| false).unwrap();
        of_real(outputs["logits"].real().iter().map(|&x| f64::from(x)).collect())
    });
    let mut all = vec![("the interpreter".to_owned(), on_cpu)];
    if let Some(gpu) = gpu() {
        let device = Device::new(&gpu, &graph);
        let on_gpu = [&values, &other].map(|values| {
            device.write(values);
            device.replay.submit().unwrap();
            of_real(device.output("logits"))
        });
        all.push((gpu.caps().name.clone(), on_gpu));
    }
    all
}

/// RMS of the difference over RMS of the first.
fn apart([a, b]: &[Vec<f64>; 2]) -> f64 {
    let square = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    square(&mut a.iter().zip(b).map(|(a, b)| a - b)) / square(&mut a.iter().copied())
}

fn check(config: &ModelConfig, blank: u32, cross: bool) {
    for (how, logits) in both(config, blank, cross) {
        assert!(apart(&logits) <= 1e-6, "on {how}: logits of real positions move by {:e}", apart(&logits));
    }
}

fn architectures(variant: &Variant) -> &'static [Architecture] {
    match variant.causal {
        Causal::Both => &[Architecture::Encoder, Architecture::Decoder],
        Causal::Never(_) => &[Architecture::Encoder],
        Causal::Always => &[Architecture::Decoder],
    }
}

fn is_not_read(id: &str) {
    let variant = attention::find(id).expect("an id of the registry");
    for &architecture in architectures(variant) {
        check(&config(architecture, mixer(id)), PAD, false);
    }
}

macro_rules! one_for_each {
    ($($id:ident)*) => {
        $(#[test]
        fn $id() {
            is_not_read(stringify!($id));
        })*
    };
}

attention_lab::for_each_variant!(one_for_each);

#[test]
fn recurrent_networks_alone_pass_it_over() {
    for id in ["rnn", "lstm", "gru"] {
        for architecture in [Architecture::Decoder, Architecture::Encoder] {
            check(&ModelConfig { block: Block::Plain, ..config(architecture, Mixer::of(id)) }, PAD, false);
        }
    }
}

#[test]
fn without_a_mask_it_would_be_read() {
    let unmasked = ModelConfig { pad: None, ..config(Architecture::Decoder, Mixer::of("full")) };
    for (how, logits) in both(&unmasked, PAD, false) {
        assert!(apart(&logits) > 1e-2, "on {how}: {:e}", apart(&logits));
    }
}

#[test]
fn a_decoder_does_not_read_that_of_its_source() {
    for id in ["full", "full_naive", "bahdanau", "linformer", "synthesizer", "clustered", "routing", "performer"] {
        let pair = ModelConfig { cross: mixer(id), ..config(Architecture::EncoderDecoder, Mixer::of("full")) };
        for blank in [PAD, pair.blank()] {
            check(&pair, blank, true);
        }
    }
}
