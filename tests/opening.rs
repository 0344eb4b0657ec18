//! Models that a visitor opens, in the engine: what is shown of them against the reference implementation, on what files are
//! refused, and that nothing else is harmed.

#[path = "opening/layers.rs"]
mod layers;
#[path = "opening/resident.rs"]
mod resident;
#[path = "opening/vectors.rs"]
mod vectors;

#[path = "common/backends.rs"]
mod backends;

use attention_lab::gpu::Options;
use attention_lab::lab::experiment::{Experiment, Pool, Scale, View, WeightsFrom};
use attention_lab::lab::opened::OpenedFacts;
use attention_lab::lab::protocol::{Backend, Command, Event, Guess, Numbers, SubjectFacts, Viewport, WhyDrawn};
use attention_lab::lab::subject::Unread;
use attention_lab::lab::{Engine, Handle};
use attention_lab::reading::{CHUNK_BYTES, Opener, Source};
use backends::backends;
use pollster::block_on;
use safetensors::SafeTensors;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

/// The texts whose weights the reference has said.
const SHOWN: [&str; 2] = ["The gardener's daughter reads", "It's 366 days, naïve brother!"];

fn path(model: &str, file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pretrained").join(model).join(file)
}

fn bytes(model: &str, file: &str) -> Vec<u8> {
    std::fs::read(path(model, file)).unwrap_or_else(|e| panic!("{model}/{file}: {e}"))
}

/// All files of a model, as a visitor would choose them: a folder's whole content.
fn files(model: &str) -> Vec<Source> {
    let names = ["config.json", "model.safetensors", "texts.json", "tokenizer.json"];
    names.iter().map(|name| Source::on_disk(&path(model, name)).unwrap()).collect()
}

/// The same with one of them replaced, or left out.
fn with(model: &str, name: &str, content: Option<&[u8]>) -> Vec<Source> {
    let mut files = files(model);
    files.retain(|file| file.name() != name);
    files.extend(content.map(|content| Source::of(name, content)));
    files
}

/// An engine and what it says.
struct Lab {
    handle: Handle,
    engine: Engine,
    events: Rc<RefCell<Vec<Event>>>,
}

impl Lab {
    fn new(backend: Backend) -> Self {
        let events = Rc::new(RefCell::new(Vec::new()));
        let log = events.clone();
        let (handle, engine) = Engine::new(Options::default(), move |event| log.borrow_mut().push(event));
        let mut lab = Self { handle, engine, events };
        lab.send(Command::Start { backend });
        lab
    }

    fn send(&mut self, command: Command) -> Vec<Event> {
        self.handle.send(command);
        self.served()
    }

    fn open(&mut self, files: Vec<Source>) -> (Option<OpenedFacts>, Option<String>) {
        self.handle.open(files);
        let events = self.served();
        let said = events.into_iter().filter_map(|event| match event {
            Event::Opened { model, refused } => Some((model.map(|model| *model), refused)),
            _ => None,
        });
        said.reduce(|_, last| last).expect("it is answered")
    }

    fn served(&mut self) -> Vec<Event> {
        block_on(self.engine.drain());
        self.events.take()
    }

    fn explore(&mut self, experiment: &Experiment) -> Vec<Event> {
        self.send(Command::Explore { experiment: Box::new(experiment.clone()) })
    }
}

fn experiment(text: &str, n: usize) -> Experiment {
    Experiment { weights: WeightsFrom::Opened, text: Some(text.into()), n, ..Experiment::default() }
}

fn subject(events: &[Event]) -> SubjectFacts {
    let facts = |event: &Event| match event {
        Event::Subject { subject } => Some((**subject).clone()),
        _ => None,
    };
    events.iter().filter_map(facts).next_back().expect("it is told")
}

fn numbers(events: &[Event], wanted: usize) -> Numbers {
    let of = |event: &Event| match event {
        Event::Prepared { plate, numbers, .. } if *plate == wanted => Some(numbers.clone()),
        _ => None,
    };
    events.iter().filter_map(of).next_back().expect("it is told")
}

/// What the reference says of one of its texts: ids, logits `[N, V]`, weights `[L, H, N, N]`.
fn reference(model: &str, index: usize) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
    let bytes = bytes(model, "reference.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name: &str| file.tensor(&format!("{name}.{index}")).unwrap().data().to_vec();
    (
        bytemuck::pod_collect_to_vec(&data("ids")),
        bytemuck::pod_collect_to_vec(&data("logits")),
        bytemuck::pod_collect_to_vec(&data("weights")),
    )
}

#[test]
fn every_layer_and_head_shows_the_references_weights() {
    for backend in backends() {
        for (model, family, layers, heads, causal) in
            [("gpt2", "GPT-2", 2, 2, true), ("bert", "BERT", 2, 3, false), ("distilbert", "DistilBERT", 3, 2, false)]
        {
            let mut lab = Lab::new(backend);
            let (facts, refused) = lab.open(files(model));
            let facts = facts.unwrap_or_else(|| panic!("{model}: {refused:?}"));
            assert_eq!(refused, None);
            assert_eq!(
                (facts.family.as_str(), facts.layers, facts.heads, facts.causal),
                (family, layers, heads, causal)
            );
            assert_eq!(facts.bytes, 4 * facts.weights);
            for (index, text) in SHOWN.iter().enumerate() {
                let (ids, _, weights) = reference(model, index);
                let n = ids.len();
                for layer in 0..layers {
                    for head in 0..heads {
                        let mut e = experiment(text, n);
                        (e.layer, e.head) = (layer, head);
                        let told = subject(&lab.explore(&e));
                        assert_eq!((told.heads, told.counted), (heads, Some(n)), "{model}: {:?}", told.why);
                        assert_eq!(told.labels.unwrap().len(), n);
                        let query = n - 1;
                        lab.send(Command::Show {
                            plate: 0,
                            view: View::Weights,
                            head,
                            pool: Pool::Max,
                            scale: Scale::Linear,
                            viewport: Viewport { row: 0.0, col: 0.0, rows: n as f64, cols: n as f64 },
                            width: n as u32,
                            height: n as u32,
                            dark: false,
                        });
                        let events = lab.send(Command::Probe { plate: 0, query, key: 0 });
                        let row = events.iter().find_map(|event| match event {
                            Event::Cell { row, .. } => Some(row.clone()),
                            _ => None,
                        });
                        let want = &weights[((layer * heads + head) * n + query) * n..][..n];
                        for (got, want) in row.expect("it is told").iter().zip(want) {
                            assert!((got - want).abs() < 1e-4, "{model} {layer} {head}: {got} for {want}");
                        }
                    }
                }
            }
        }
    }
}

/// Mean cross-entropy of each next token, by the reference's logits.
fn loss(ids: &[u32], logits: &[f32]) -> f64 {
    let vocabulary = logits.len() / ids.len();
    let of = |i: usize| {
        let row = &logits[i * vocabulary..(i + 1) * vocabulary];
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        sum.ln() - f64::from(row[ids[i + 1] as usize])
    };
    (0..ids.len() - 1).map(of).sum::<f64>() / (ids.len() - 1) as f64
}

#[test]
fn another_attention_changes_the_loss_and_one_that_sees_all_does_not() {
    for backend in backends() {
        let mut lab = Lab::new(backend);
        lab.open(files("gpt2"));
        let (ids, logits, _) = reference("gpt2", 0);
        let mut e = experiment(SHOWN[0], ids.len());
        e.variants = vec!["full".into(), "sliding_window".into()];
        e.params
            .entry("sliding_window".into())
            .or_default()
            .0
            .insert("window".into(), attention_lab::attention::Value::Int(2));
        let events = lab.explore(&e);
        let [before, after] = numbers(&events, 0).swapped.unwrap().text.unwrap();
        let want = loss(&ids, &logits);
        assert!((before - want).abs() < 1e-4, "{before} for {want}");
        assert!((after - before).abs() < 1e-6);
        let [before, after] = numbers(&events, 1).swapped.unwrap().text.unwrap();
        assert!((before - want).abs() < 1e-4 && (after - before).abs() > 1e-3, "{before} {after}");

        e.variants = vec!["sliding_window".into()];
        e.params.get_mut("sliding_window").unwrap().0.insert("window".into(), attention_lab::attention::Value::Int(64));
        let [before, after] = numbers(&lab.explore(&e), 0).swapped.unwrap().text.unwrap();
        assert!((after - before).abs() < 1e-5, "{before} {after}");
    }
}

#[test]
fn an_encoder_is_asked_for_hidden_words() {
    for backend in backends() {
        let mut lab = Lab::new(backend);
        lab.open(files("bert"));
        let events = lab.explore(&experiment("The roses grow every morning, and the gardener's daughter reads.", 24));
        let [before, after] = numbers(&events, 0).swapped.unwrap().text.unwrap();
        assert!(before.is_finite() && before > 0.0 && (after - before).abs() < 1e-6, "{before} {after}");
    }
}

#[test]
fn a_decoder_says_what_it_expects() {
    for backend in backends() {
        let mut lab = Lab::new(backend);
        lab.open(files("gpt2"));
        let (ids, logits, _) = reference("gpt2", 1);
        let events = lab.explore(&experiment(SHOWN[1], ids.len()));
        let guesses: Vec<Guess> = (events.into_iter())
            .find_map(|event| match event {
                Event::Guesses { guesses } => Some(guesses),
                _ => None,
            })
            .expect("they are told");
        let vocabulary = logits.len() / ids.len();
        assert_eq!(guesses.len(), ids.len() - 1);
        for Guess { at, likeliest } in guesses {
            let row = &logits[at * vocabulary..(at + 1) * vocabulary];
            let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            let mut shares: Vec<f64> = row.iter().map(|&x| f64::from(x).exp() / sum).collect();
            shares.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(likeliest.len(), 5);
            for ((_, got), want) in likeliest.iter().zip(shares) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{got} for {want}");
            }
        }
    }
}

#[test]
fn what_a_decoder_expects_is_told_again_beside_another_attention() {
    let mut lab = Lab::new(Backend::Cpu);
    lab.open(files("gpt2"));
    let mut e = Experiment { variants: vec!["sliding_window".into()], ..experiment(SHOWN[0], 8) };
    for window in [2, 3] {
        e.params.insert("sliding_window".into(), layers::window(window).params);
        let events = lab.explore(&e);
        let forgotten =
            events.iter().position(|event| matches!(event, Event::Subject { .. })).expect("it is told whose");
        let guessed = |event: &Event| matches!(event, Event::Guesses { guesses } if guesses.len() == 7);
        assert!(events[forgotten..].iter().any(guessed), "window {window}");
    }
}

#[test]
fn a_text_fills_the_length_inside_what_the_model_puts_around_it() {
    let mut lab = Lab::new(Backend::Cpu);
    lab.open(files("bert"));
    let labels = |lab: &mut Lab, n: usize| subject(&lab.explore(&experiment("it is", n))).labels.unwrap();
    let all = labels(&mut lab, 12);
    assert_eq!((all[0].as_str(), all[11].as_str()), ("[CLS]", "[SEP]"));
    assert!(all[1..11].iter().all(|label| !label.starts_with('[')), "{all:?}");
    assert_eq!(labels(&mut lab, 1), ["[CLS]"]);
    let told = subject(&lab.explore(&experiment("it is", 41)));
    assert_eq!(told.why, Some(WhyDrawn::Unread(Unread::Longer { most: 40 })));
    assert_eq!(told.model, None);
    // A text without a token is the lab's own.
    assert!(subject(&lab.explore(&experiment(" \n", 20))).why.is_none());
    assert_eq!(subject(&lab.explore(&experiment(&"ä".repeat(100_000), 20))).labels.unwrap().len(), 20);
}

#[test]
fn half_precision_stays_so() {
    let whole = bytes("gpt2", "model.safetensors");
    let file = SafeTensors::deserialize(&whole).unwrap();
    let data: Vec<_> = (file.iter())
        .map(|(name, tensor)| {
            let numbers = bytemuck::pod_collect_to_vec::<u8, f32>(tensor.data());
            let bytes: Vec<u8> = numbers.into_iter().flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect();
            (name.to_owned(), tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = (data.iter()).map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F16, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    let halves = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    let mut lab = Lab::new(Backend::Cpu);
    let (facts, _) = lab.open(with("gpt2", "model.safetensors", Some(&halves)));
    let facts = facts.unwrap();
    assert_eq!(facts.bytes, 2 * facts.weights);
    let (ids, logits, _) = reference("gpt2", 0);
    let [before, _] = numbers(&lab.explore(&experiment(SHOWN[0], ids.len())), 0).swapped.unwrap().text.unwrap();
    assert!((before - loss(&ids, &logits)).abs() < 0.02, "{before}");
}

#[test]
fn what_is_not_taken_is_named_and_harms_nothing() {
    let tensors = bytes("gpt2", "model.safetensors");
    let mut with_nan = tensors.clone();
    let end = with_nan.len();
    with_nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let config = |text: &str| with("gpt2", "config.json", Some(text.as_bytes()));
    let tokenizer = |text: &str| with("gpt2", "tokenizer.json", Some(text.as_bytes()));
    let only = |names: &[&str]| names.iter().map(|name| Source::of(name, b"{}")).collect::<Vec<_>>();
    let cut = Source::Memory { name: "model.safetensors".into(), told: end as u64, bytes: tensors[..end / 2].into() };
    let mut cut_files = with("gpt2", "model.safetensors", None);
    cut_files.push(cut);
    let cases: Vec<(Vec<Source>, &str)> = vec![
        (vec![], "there is no .safetensors file"),
        (with("gpt2", "tokenizer.json", None), "tokenizer.json is missing"),
        (only(&["pytorch_model.bin", "config.json", "tokenizer.json"]), "pytorch_model.bin: weights in this format"),
        (
            only(&["model.safetensors.index.json", "model-00001-of-00002.safetensors", "tokenizer.json"]),
            "model.safetensors.index.json: weights in several files are not read",
        ),
        (
            only(&["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
            "weights in several files are not read; choose one",
        ),
        (only(&["a.safetensors", "config.json", "config (1).json", "tokenizer.json"]), "there are two such files"),
        (with("gpt2", "model.safetensors", Some(b"")), "shorter than 8 bytes"),
        (with("gpt2", "model.safetensors", Some(&tensors[..end - 1])), "its header tells of"),
        (with("gpt2", "model.safetensors", Some(&with_nan)), "holds numbers that are not finite"),
        (cut_files, "model.safetensors: ends while it is read"),
        (
            config(r#"{"model_type": "llama"}"#),
            "config.json: its model_type is \"llama\"; it takes gpt2, bert or distilbert",
        ),
        (config(r#"{"model_type": "gpt2", "n_head": 5}"#), "heads: 5 is not allowed"),
        (config("\u{0}"), "config.json: "),
        (config(&"[".repeat(5000)), "config.json: "),
        (with("gpt2", "config.json", Some(b"\xff\xfe")), "config.json: is no text in UTF-8"),
        (config(&" ".repeat((1 << 20) + 1)), "config.json: has 1048577 bytes"),
        (tokenizer("{}"), "tokenizer.json: missing field `model`"),
        (tokenizer(&format!("{{\"model\": {}", "[".repeat(5000))), "tokenizer.json: "),
        (
            tokenizer(r#"{"model": {"type": "Unigram", "vocab": {"a": 1}}}"#),
            "is a Unigram model; it takes BPE or WordPiece",
        ),
        (
            with("distilbert", "tokenizer.json", Some(&bytes("gpt2", "tokenizer.json"))),
            "has 300 tokens and the model 130",
        ),
    ];
    let mut lab = Lab::new(Backend::Cpu);
    let drawn = Experiment { weights: WeightsFrom::Drawn, ..Experiment::default() };
    let before = lab.explore(&drawn);
    assert!(before.iter().any(|event| matches!(event, Event::Prepared { .. })));
    for (files, words) in cases {
        let (model, refused) = lab.open(files);
        assert_eq!(model, None, "{words}");
        let refused = refused.unwrap_or_default();
        assert!(refused.contains(words), "{words}: {refused}");
    }
    assert!(lab.explore(&drawn).iter().any(|event| matches!(event, Event::Prepared { .. })));
    let told = subject(&lab.explore(&experiment("a", 4)));
    assert_eq!(told.why, Some(WhyDrawn::NotThere { reason: "no model is open".into() }));

    // What cannot be read leaves what is open as it is, as long as nothing had to make room.
    let (model, _) = lab.open(files("bert"));
    assert!(model.is_some());
    let (still, refused) = lab.open(with("gpt2", "tokenizer.json", None));
    assert!(refused.is_some() && still == model);
    let events = lab.send(Command::Close);
    assert!(matches!(events[0], Event::Opened { model: None, refused: None }), "{events:?}");
    // What was shown of it is not shown any more.
    assert_eq!(subject(&events).model, None);
}

#[test]
fn opening_tells_how_far_it_is_and_can_be_cancelled() {
    let mut lab = Lab::new(Backend::Cpu);
    lab.handle.open(files("bert"));
    let events = lab.served();
    let steps: Vec<(usize, usize)> = (events.iter())
        .filter_map(|event| match event {
            Event::Opening { done, total } => Some((*done, *total)),
            _ => None,
        })
        .collect();
    assert!(steps.len() > 10 && steps.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{steps:?}");
    assert_eq!(steps[0], (0, 0));
    assert_eq!(steps.last().unwrap().0, steps.last().unwrap().1);

    // A cancel that comes in the middle.
    let events = Rc::new(RefCell::new(Vec::new()));
    let (log, sender) = (events.clone(), Rc::new(RefCell::new(None::<Handle>)));
    let cancelling = sender.clone();
    let (handle, mut engine) = Engine::new(Options::default(), move |event| {
        if matches!(event, Event::Opening { done: 1.., .. })
            && let Some(handle) = cancelling.take()
        {
            handle.send(Command::Cancel);
        }
        log.borrow_mut().push(event);
    });
    handle.send(Command::Start { backend: Backend::Cpu });
    sender.replace(Some(handle.clone()));
    handle.open(files("bert"));
    block_on(engine.drain());
    let events = events.take();
    assert!(events.iter().filter(|event| matches!(event, Event::Opening { .. })).count() < steps.len());
    assert!(matches!(events.last(), Some(Event::Opened { model: None, refused: None })), "{:?}", events.last());
}

#[test]
fn large_tensors_come_in_chunks() {
    // A table of words of a little more than one chunk, in half precision.
    let (d, rows) = (24, CHUNK_BYTES as usize / 96 + 3);
    let table: Vec<u8> = (0..rows * d).flat_map(|i| half::f16::from_f32((i % 1000) as f32).to_le_bytes()).collect();
    let whole = bytes("gpt2", "model.safetensors");
    let file = SafeTensors::deserialize(&whole).unwrap();
    let mut data = vec![];
    for (name, tensor) in file.iter().filter(|(name, _)| !name.ends_with("wte.weight")) {
        // All that was 16 wide is wider; positions stay.
        let mut shape: Vec<usize> = tensor.shape().iter().map(|&s| if s == 16 { d } else { s }).collect();
        if name.contains("c_attn") {
            *shape.last_mut().unwrap() = 3 * d;
        }
        let zeros = vec![0; 4 * shape.iter().product::<usize>()];
        data.push((safetensors::Dtype::F32, (name.to_owned(), shape, zeros)));
    }
    data.push((safetensors::Dtype::F16, ("transformer.wte.weight".to_owned(), vec![rows, d], table.clone())));
    let views = data.iter().map(|(dtype, (name, shape, bytes))| {
        (name.as_str(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let made = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    let mut opener = block_on(Opener::open(with("gpt2", "model.safetensors", Some(&made)))).unwrap();
    let (mut parts, mut numbers) = (0, vec![]);
    while let Some(part) = block_on(opener.next()).unwrap() {
        if opener.facts.weights[part.weight].name == "embedding.weight" {
            let attention_lab::reading::Numbers::Half(some) = part.numbers else { panic!("they are halves") };
            assert!(some.len() as u64 * 2 <= CHUNK_BYTES);
            assert_eq!(part.at, numbers.len());
            numbers.extend(some);
            parts += 1;
        }
    }
    assert!(parts >= 2);
    assert_eq!(bytemuck::cast_slice::<u16, u8>(&numbers), table);
}
