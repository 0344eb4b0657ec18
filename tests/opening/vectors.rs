//! Opened models without a head that says words: what another attention does to the vector that they make of a text.

use super::layers::window;
use super::*;
use attention_lab::gpu::Category;
use attention_lab::graph::{Data, Graph, TensorType, cpu};
use attention_lab::model::{Mixer, Tokens, network};
use attention_lab::reading::Numbers as Weights;
use attention_lab::reading::model::Model;
use attention_lab::reading::model::header::header_bytes;
use std::collections::BTreeMap;

const TEXT: &str = "The roses grow every morning, and the gardener's daughter reads.";

/// The fixture without its head, as files of sentence models are.
fn headless() -> Vec<u8> {
    let file = bytes("bert", "model.safetensors");
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let kept = tensors.iter().filter(|(name, _)| !name.starts_with("cls."));
    safetensors::serialize(kept.collect::<Vec<_>>(), None).unwrap()
}

/// The mean of the last layer's rows with these attentions, from one graph of all of the model.
fn vector(file: &[u8], attention: Vec<Mixer>, ids: &[u32]) -> Vec<f64> {
    let config = String::from_utf8(bytes("bert", "config.json")).unwrap();
    let header = header_bytes(file, file.len() as u64).unwrap() as usize;
    let mut opened = Model::open(&file[..header], file.len() as u64, Some(&config)).unwrap();
    assert!(!opened.config.says_words);
    opened.config.attention = attention;
    let width = opened.config.d_model;
    let mut graph = Graph::new();
    let tokens = graph.input("tokens", TensorType::u32(&[1, ids.len()]), Category::Activations);
    let net = network(&mut graph, &opened.config, &Tokens { tokens, source: None, seed: None }, 1);
    graph.output("hidden", net.hidden);
    let mut inputs = BTreeMap::from([("tokens".to_owned(), Data::Index(ids.to_vec()))]);
    for piece in &opened.pieces {
        let parts: Vec<&[u8]> = piece.ranges().map(|r| &file[r.start as usize..r.end as usize]).collect();
        let Weights::Single(numbers) = piece.convert(&parts).unwrap() else { panic!("the file is single") };
        inputs.insert(piece.name.clone(), Data::Real(numbers));
    }
    let run = cpu::run(&graph, &inputs, &|| false).unwrap();
    let rows = run["hidden"].real();
    (0..width).map(|c| rows.iter().skip(c).step_by(width).map(|&x| f64::from(x)).sum()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / (length(a) * length(b))
}

#[test]
fn a_model_without_a_head_is_compared_by_its_vectors() {
    let file = headless();
    for backend in backends() {
        let mut lab = Lab::new(backend);
        let (facts, refused) = lab.open(with("bert", "model.safetensors", Some(&file)));
        assert!(facts.is_some(), "{refused:?}");
        let mut e = Experiment { variants: vec!["full".into(), "sliding_window".into()], ..experiment(TEXT, 24) };
        e.params.insert("sliding_window".into(), window(1).params);
        let events = lab.explore(&e);
        assert!(!subject(&events).model.expect("it is shown").says_words);
        let ids =
            attention_lab::reading::Tokenizer::parse(&String::from_utf8(bytes("bert", "tokenizer.json")).unwrap())
                .unwrap()
                .encode(TEXT)
                .unwrap();
        // The length is that of the text with what the model puts around it.
        e.n = ids.len();
        let events = lab.explore(&e);
        let full = Mixer::of("full");
        let dense = vector(&file, vec![full.clone()], &ids);
        let want = |attention: Vec<Mixer>| cosine(&dense, &vector(&file, attention, &ids));
        let text = |plate: usize| numbers(&events, plate).swapped.unwrap().text.unwrap();
        assert_eq!(text(0), [1.0, 1.0]);
        let [before, after] = text(1);
        let expected = want(vec![window(1)]);
        assert!(before == 1.0 && (after - expected).abs() < 1e-5 && after < 0.999, "{after} for {expected}");
        // No words, no guesses.
        let said = |event: &Event| matches!(event, Event::Guesses { guesses } if !guesses.is_empty());
        assert!(!events.iter().any(said));

        let layers = numbers(&lab.send(Command::Layers { plate: 1 }), 1).layers;
        let expected = [vec![window(1), full.clone()], vec![full, window(1)]].map(want);
        assert!(layers.len() == 2 && layers.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-5));
    }
}
