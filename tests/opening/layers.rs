//! Another attention in one layer of an opened model alone, against the model run as a whole.

use super::*;
use attention_lab::attention::{Params, Value};
use attention_lab::gpu::Category;
use attention_lab::graph::{Data, Graph, TensorType, cpu};
use attention_lab::model::{Mixer, Tokens, network};
use attention_lab::reading::Numbers as Weights;
use attention_lab::reading::model::Model;
use attention_lab::reading::model::header::header_bytes;
use std::collections::BTreeMap;

pub fn window(size: u32) -> Mixer {
    Mixer { variant: "sliding_window".into(), params: Params([("window".to_owned(), Value::Int(size))].into()) }
}

/// The loss of a decoder on tokens with these attentions, from one graph of all of it.
fn whole(model: &str, attention: Vec<Mixer>, ids: &[u32]) -> f64 {
    let file = bytes(model, "model.safetensors");
    let config = String::from_utf8(bytes(model, "config.json")).unwrap();
    let header = header_bytes(&file, file.len() as u64).unwrap() as usize;
    let mut opened = Model::open(&file[..header], file.len() as u64, Some(&config)).unwrap();
    opened.config.attention = attention;
    let mut graph = Graph::new();
    let tokens = graph.input("tokens", TensorType::u32(&[1, ids.len()]), Category::Activations);
    let net = network(&mut graph, &opened.config, &Tokens { tokens, source: None, seed: None }, 1);
    graph.output("logits", net.logits);
    let mut inputs = BTreeMap::from([("tokens".to_owned(), Data::Index(ids.to_vec()))]);
    for piece in &opened.pieces {
        let parts: Vec<&[u8]> = piece.ranges().map(|r| &file[r.start as usize..r.end as usize]).collect();
        let Weights::Single(numbers) = piece.convert(&parts).unwrap() else { panic!("the file is single") };
        inputs.insert(piece.name.clone(), Data::Real(numbers));
    }
    loss(ids, cpu::run(&graph, &inputs, &|| false).unwrap()["logits"].real())
}

/// Losses of each layer alone, after they were asked for.
fn told(lab: &mut Lab, e: &Experiment) -> Vec<f64> {
    assert_eq!(numbers(&lab.explore(e), 0).layers, Vec::<f64>::new(), "nobody has asked");
    let events = lab.send(Command::Layers { plate: 0 });
    let steps: Vec<usize> = (events.iter())
        .filter_map(|event| match event {
            Event::Prepared { plate: 0, numbers, .. } => Some(numbers.layers.len()),
            _ => None,
        })
        .collect();
    assert_eq!(steps, (1..=steps.len()).collect::<Vec<_>>(), "each layer is told when it is known");
    numbers(&events, 0).layers
}

#[test]
fn each_layer_alone_is_told_when_asked_for() {
    let (ids, logits, _) = reference("gpt2", 0);
    for backend in backends() {
        let mut lab = Lab::new(backend);
        lab.open(files("gpt2"));
        let mut e = Experiment { variants: vec!["sliding_window".into()], ..experiment(SHOWN[0], ids.len()) };
        e.params.insert("sliding_window".into(), window(2).params);
        let got = told(&mut lab, &e);
        let (full, narrow) = (Mixer::of("full"), window(2));
        for (layer, got) in got.iter().enumerate() {
            let mut attention = vec![full.clone(); 2];
            attention[layer] = narrow.clone();
            let want = whole("gpt2", attention, &ids);
            assert!((got - want).abs() < 1e-4, "layer {layer}: {got} for {want}");
        }
        assert!(got.len() == 2 && (got[0] - got[1]).abs() > 1e-5, "{got:?}");

        // Asked again, nothing is done again; a window over everything changes nothing.
        assert!(lab.send(Command::Layers { plate: 0 }).iter().all(|event| !matches!(event, Event::Prepared { .. })));
        e.params.insert("sliding_window".into(), window(64).params);
        let want = loss(&ids, &logits);
        assert!(told(&mut lab, &e).iter().all(|got| (got - want).abs() < 1e-4));
    }
}

#[test]
fn a_layer_of_an_encoder_with_a_window_over_everything_is_as_it_was() {
    for backend in backends() {
        let mut lab = Lab::new(backend);
        lab.open(files("bert"));
        let text = "The roses grow every morning, and the gardener's daughter reads.";
        let mut e = Experiment { variants: vec!["sliding_window".into()], ..experiment(text, 24) };
        e.params.insert("sliding_window".into(), window(64).params);
        let [before, _] = numbers(&lab.explore(&e), 0).swapped.unwrap().text.unwrap();
        let layers = told(&mut lab, &e);
        assert!(layers.len() == 2 && layers.iter().all(|got| (got - before).abs() < 1e-5), "{layers:?} for {before}");
    }
}
