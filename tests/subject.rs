//! Trained models in the engine: queries, keys and values of a layer against a plain definition in f64, losses with another
//! attention, and what is shown where there is no model.

#[path = "common/backends.rs"]
mod backends;

use attention_lab::attention;
use attention_lab::gpu::Options;
use attention_lab::lab::experiment::{Experiment, Pool, Scale, View, WeightsFrom};
use attention_lab::lab::protocol::{Backend, Command, Event, SubjectFacts, Swapped, Viewport, WhyDrawn};
use attention_lab::lab::subject::{Subject, Unread};
use attention_lab::lab::train::orders::{Doing, News, Order};
use attention_lab::lab::train::{Run, Weights};
use attention_lab::lab::{Engine, Handle};
use attention_lab::task::Split;
use backends::{again, backends};
use pollster::block_on;
use std::cell::RefCell;
use std::rc::Rc;

fn file(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/assets/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Serves commands; files of the lab come as `bring` says.
fn serve(backend: Backend, commands: Vec<Command>, bring: impl Fn(&Handle, &'static str) + 'static) -> Vec<Event> {
    let events = Rc::new(RefCell::new(Vec::new()));
    let log = events.clone();
    let (sender, mut engine) = Engine::new(Options::default(), move |event| log.borrow_mut().push(event));
    let handle = sender.clone();
    engine.set_library(move |path| bring(&handle, path));
    block_on(async {
        for command in std::iter::once(Command::Start { backend }).chain(commands) {
            sender.send(command);
            engine.drain().await;
        }
    });
    events.take()
}

fn shipped(handle: &Handle, path: &'static str) {
    handle.provide(path, Ok(file(path)));
}

fn explore(experiment: &Experiment) -> Command {
    Command::Explore { experiment: Box::new(experiment.clone()) }
}

fn experiment(variants: &[&str]) -> Experiment {
    Experiment { variants: variants.iter().map(|v| v.to_string()).collect(), ..Experiment::default() }
}

fn subjects(events: &[Event]) -> Vec<SubjectFacts> {
    let facts = |event: &Event| match event {
        Event::Subject { subject } => Some((**subject).clone()),
        _ => None,
    };
    events.iter().filter_map(facts).collect()
}

fn swapped(events: &[Event], wanted: usize) -> Option<Swapped> {
    events.iter().rev().find_map(|event| match event {
        Event::Prepared { plate, numbers, .. } if *plate == wanted => Some(numbers.swapped),
        _ => None,
    })?
}

/// The shipped model, written out: rows of f64, one function for each line of its definition.
struct Plain(Weights);

type Rows = Vec<Vec<f64>>;

impl Plain {
    fn get(&self, name: &str) -> &[f32] {
        &self.0.tensors.get(name).unwrap_or_else(|| panic!("{name}")).1
    }

    fn linear(&self, name: &str, x: &Rows) -> Rows {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let column = |row: &Vec<f64>, j: usize| {
            row.iter().enumerate().map(|(i, x)| x * f64::from(w[i * b.len() + j])).sum::<f64>() + f64::from(b[j])
        };
        x.iter().map(|row| (0..b.len()).map(|j| column(row, j)).collect()).collect()
    }

    fn norm(&self, name: &str, x: &Rows) -> Rows {
        let (gain, bias) = (self.get(&format!("{name}.gain")), self.get(&format!("{name}.bias")));
        let normed = |row: &Vec<f64>| {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scaled =
                |(i, x): (usize, &f64)| (x - mean) / (variance + 1e-5).sqrt() * f64::from(gain[i]) + f64::from(bias[i]);
            row.iter().enumerate().map(scaled).collect()
        };
        x.iter().map(normed).collect()
    }

    /// Weights of each head of a layer, and what the layer leaves.
    fn layer(&self, layer: usize, x: &Rows, heads: usize, causal: bool) -> (Vec<Rows>, Rows) {
        let part = |name: &str| format!("layers.{layer}.{name}");
        let normed = self.norm(&part("attention.norm"), x);
        let [q, k, v] = ["query", "key", "value"].map(|name| self.linear(&part(&format!("attention.{name}")), &normed));
        let (n, dim) = (x.len(), x[0].len() / heads);
        let mut mixed = vec![vec![0.0; heads * dim]; n];
        let mut all = Vec::new();
        for head in 0..heads {
            let at = head * dim..(head + 1) * dim;
            let mut weights = vec![vec![0.0; n]; n];
            for i in 0..n {
                let keys = if causal { i + 1 } else { n };
                let score = |j: usize| q[i][at.clone()].iter().zip(&k[j][at.clone()]).map(|(a, b)| a * b).sum::<f64>();
                let raised: Vec<f64> = (0..keys).map(|j| (score(j) / (dim as f64).sqrt()).exp()).collect();
                let sum: f64 = raised.iter().sum();
                for j in 0..keys {
                    weights[i][j] = raised[j] / sum;
                    for c in at.clone() {
                        mixed[i][c] += weights[i][j] * v[j][c];
                    }
                }
            }
            all.push(weights);
        }
        let sum = |a: &Rows, b: &Rows| -> Rows {
            a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
        };
        let x = sum(x, &self.linear(&part("attention.out"), &mixed));
        let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
        let up = self.linear(&part("feed_forward.up"), &self.norm(&part("feed_forward.norm"), &x));
        let up = up.into_iter().map(|row| row.into_iter().map(gelu).collect()).collect();
        (all, sum(&x, &self.linear(&part("feed_forward.down"), &up)))
    }

    /// Weights of a layer's heads for these tokens.
    fn weights(&self, ids: &[u32], layer: usize, causal: bool) -> Vec<Rows> {
        let (d, heads) = (self.0.config.model.d_model, self.0.config.model.heads);
        let table = self.get("embedding.weight");
        let element = |i: usize, c: usize| {
            let angle = i as f64 / 10_000f64.powf((c / 2 * 2) as f64 / d as f64);
            let position = if c.is_multiple_of(2) { angle.sin() } else { angle.cos() };
            f64::from(table[ids[i] as usize * d + c]) * (d as f64).sqrt() + position
        };
        let mut x: Rows = (0..ids.len()).map(|i| (0..d).map(|c| element(i, c)).collect()).collect();
        for below in 0..layer {
            x = self.layer(below, &x, heads, causal).1;
        }
        self.layer(layer, &x, heads, causal).0
    }
}

#[test]
fn what_is_shown_are_the_weights_of_the_trained_model() {
    let text = "Once a pink fox named Zelda lived in the castle. Zelda found the sword, and the fox was glad!";
    for backend in backends() {
        for (causal, path) in [(true, "weights/story.safetensors"), (false, "weights/story_mlm.safetensors")] {
            let plain = Plain(Weights::from_bytes(&file(path)).unwrap());
            let subject = Subject::of_weights(path, Weights::from_bytes(&file(path)).unwrap()).unwrap();
            let n = 37;
            let ids = subject.read(Some(text), Split::Words, n).unwrap().ids;
            for (layer, head, query) in [(0, 3, 36), (1, 0, 17), (2, 1, 30)] {
                let e = Experiment { n, causal, layer, head, text: Some(text.into()), ..experiment(&["full"]) };
                let probe = Command::Probe { plate: 0, query, key: 5 };
                let events = serve(backend, vec![explore(&e), probe], shipped);
                let told = subjects(&events);
                let words: Vec<&str> = told[1].stand_ins.iter().map(|(word, _)| word.as_str()).collect();
                assert_eq!((told[0].why.clone(), told[1].why.clone()), (Some(WhyDrawn::Coming), None));
                assert_eq!((told[1].heads, told[1].dim, words), (4, 16, vec!["Zelda", "castle", "sword", "!"]));
                let model = told[1].model.as_ref().unwrap();
                assert!(model.causal == causal && model.layers == 3 && model.trained.unwrap().1 < 0.65, "{model:?}");
                let row = events.iter().rev().find_map(|event| match event {
                    Event::Cell { row, .. } => Some(row.clone()),
                    _ => None,
                });
                let want = &plain.weights(&ids, layer, causal)[head][query];
                let row = row.expect("a row");
                assert_eq!(row.len(), n);
                for (j, (got, want)) in row.iter().zip(want).enumerate() {
                    assert!(
                        (f64::from(*got) - want).abs() < 2e-5,
                        "{backend:?} {path} layer {layer}: {j}: {got} for {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn another_attention_changes_the_loss_of_a_trained_model() {
    for backend in backends() {
        let models = [(true, "linear"), (false, "nystromformer")];
        for (causal, other) in models.into_iter().take(if again() { 1 } else { 2 }) {
            let mut e = Experiment { causal, n: 50, ..experiment(&["full", "sliding_window"]) };
            let first = serve(backend, vec![explore(&e)], shipped);
            let full = swapped(&first, 0).expect("losses of full attention");
            let [held, again] = full.held.unwrap();
            assert_eq!(held, again, "full attention is what it was trained with");
            assert!((0.5..0.75).contains(&held), "{held}");
            let [_, windowed] = swapped(&first, 1).expect("losses of a window").held.unwrap();
            assert!(windowed > held + 0.05, "{backend:?}: a narrow window must cost: {held} to {windowed}");
            let [before, after] = swapped(&first, 1).unwrap().text.unwrap();
            assert!(before.is_finite() && after.is_finite() && before != after);
            // A window over everything is full attention.
            let wide = attention::find("sliding_window").unwrap().params.iter().find(|p| p.name == "window").unwrap();
            e.params.entry("sliding_window".into()).or_default().0.insert("window".into(), wide.parse("512").unwrap());
            e.variants = vec!["sliding_window".into(), other.into()];
            let second = serve(backend, vec![explore(&e)], shipped);
            let [held, all] = swapped(&second, 0).unwrap().held.unwrap();
            assert!((held - all).abs() < 1e-5, "{held} and {all}");
            assert!(swapped(&second, 1).unwrap().held.unwrap()[1] > held, "{other}");
        }
    }
}

#[test]
fn each_layer_alone_is_told_when_asked_for() {
    for backend in backends() {
        let e = Experiment { causal: true, n: 50, ..experiment(&["full", "sliding_window"]) };
        let events = serve(backend, vec![explore(&e), Command::Layers { plate: 1 }], shipped);
        let [full, all] = swapped(&events, 1).unwrap().text.unwrap();
        let layers = events.iter().rev().find_map(|event| match event {
            Event::Prepared { plate: 1, numbers, .. } => Some(numbers.layers.clone()),
            _ => None,
        });
        let layers = layers.expect("it is told");
        assert!(layers.len() == 3 && layers.iter().all(|loss| loss.is_finite()), "{layers:?}");
        let most = layers.iter().copied().fold(0.0, f64::max);
        assert!(most > full + 1e-3 && layers.iter().any(|loss| *loss < all), "{full}, {layers:?}, {all}");
    }
}

#[test]
fn without_a_model_weights_are_drawn_and_it_is_said_why() {
    if again() {
        return;
    }
    let e = experiment(&["full"]);
    let gone = serve(Backend::Cpu, vec![explore(&e)], |handle, path| handle.provide(path, Err("404".into())));
    let broken = serve(Backend::Cpu, vec![explore(&e)], |handle, path| handle.provide(path, Ok(vec![1; 100])));
    for events in [&gone, &broken] {
        let last = subjects(events).pop().unwrap();
        assert!(matches!(last.why, Some(WhyDrawn::NotThere { .. })) && last.model.is_none(), "{last:?}");
        assert_eq!((last.heads, last.dim), (4, 64));
        assert!(events.iter().any(|event| matches!(event, Event::Prepared { .. })));
        assert_eq!(swapped(events, 0), None);
    }
    let bytes = Experiment { split: Split::Bytes, ..e.clone() };
    let drawn = Experiment { weights: WeightsFrom::Drawn, ..e.clone() };
    let opened = Experiment { weights: WeightsFrom::Opened, ..e };
    let why = |e| subjects(&serve(Backend::Cpu, vec![explore(e)], shipped)).pop().unwrap().why;
    let long = Experiment { n: 16_384, causal: true, ..experiment(&["linear"]) };
    assert_eq!(why(&long), Some(WhyDrawn::TooMuch));
    assert_eq!(why(&bytes), Some(WhyDrawn::Unread(Unread::Bytes)));
    assert_eq!(why(&drawn), None);
    assert!(matches!(why(&opened), Some(WhyDrawn::NotThere { .. })));
}

#[test]
fn a_head_alone_and_another_layer_are_those_of_the_model() {
    // Long enough for the interpreter to compute one head only.
    let e = Experiment { n: 4200, causal: true, layer: 0, head: 2, ..experiment(&["full"]) };
    let viewport = Viewport { row: 0.0, col: 0.0, rows: 4200.0, cols: 4200.0 };
    let (pool, scale) = (Pool::Max, Scale::Linear);
    let show = |head| Command::Show {
        plate: 0,
        view: View::Weights,
        head,
        pool,
        scale,
        viewport,
        width: 20,
        height: 20,
        dark: false,
    };
    let probe = Command::Probe { plate: 0, query: 9, key: 5 };
    let events = serve(Backend::Cpu, vec![explore(&e), show(2), probe.clone(), show(1), probe], shipped);
    let rows: Vec<Vec<f32>> = events
        .iter()
        .filter_map(|event| match event {
            Event::Cell { row, .. } => Some(row[..10].to_vec()),
            _ => None,
        })
        .collect();
    let path = "weights/story.safetensors";
    let subject = Subject::of_weights(path, Weights::from_bytes(&file(path)).unwrap()).unwrap();
    let ids = subject.read(None, Split::Words, 10).unwrap().ids;
    let weights = Plain(Weights::from_bytes(&file(path)).unwrap()).weights(&ids, 0, true);
    for (row, head) in rows.iter().zip([2, 1]) {
        for (got, want) in row.iter().zip(&weights[head][9]) {
            assert!((f64::from(*got) - want).abs() < 2e-5, "head {head}: {got} for {want}");
        }
    }
    assert_eq!(rows.len(), 2);
}

#[test]
fn fine_tuning_begins_with_the_trained_weights_and_mends_the_loss() {
    if again() {
        return;
    }
    for backend in backends() {
        let e = Experiment { causal: true, ..experiment(&["full", "sliding_window"]) };
        let tune = Command::Train { order: Box::new(Order::FineTune { plate: 1, steps: 30 }) };
        let events = serve(backend, vec![explore(&e), tune], shipped);
        let [_, swapped] = swapped(&events, 1).unwrap().held.unwrap();
        let mut held = Vec::new();
        let mut doing = None;
        for event in &events {
            let Event::Training { news } = event else { continue };
            match &**news {
                News::Samples { of } => {
                    held.extend(of.iter().flat_map(|(_, samples)| samples).filter_map(|s| Some(s.held.as_ref()?.loss)))
                }
                News::Doing { doing: now, .. } => doing = Some(*now),
                _ => {}
            }
        }
        assert_eq!(doing, Some(Doing::Done));
        let last = *held.last().expect("a judgement");
        assert!(last < swapped - 0.02 && last < 1.2, "{backend:?}: {swapped} when swapped, then {held:?}");
    }
}

#[test]
fn a_run_restarts_with_the_weights_it_began_with() {
    if again() {
        return;
    }
    let weights = Weights::from_bytes(&file("weights/story.safetensors")).unwrap();
    let mut config = weights.config.clone();
    (config.batch, config.evaluation.batches) = (4, 1);
    let (mut run, _) = block_on(Run::from_weights(&config, &weights, None)).unwrap();
    let before = block_on(run.evaluate(&|| false)).unwrap();
    run.step(&|| false).unwrap();
    assert_ne!(block_on(run.evaluate(&|| false)).unwrap().loss, before.loss);
    run.restart().unwrap();
    assert_eq!(block_on(run.evaluate(&|| false)).unwrap().loss, before.loss);
    config.weights = Some("weights/story.safetensors".into());
    let error = block_on(Run::new(&config, None)).err().expect("weights that nobody gives").to_string();
    assert!(error.contains("weights"), "{error}");
}
