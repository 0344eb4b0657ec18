//! Looking inside a run: what a step does to each part, what is predicted, what is written, what memory it takes; and trained
//! weights without their run.

mod common;

use attention_lab::gpu::Gpu;
use attention_lab::graph::LowerContext;
use attention_lab::lab::train::memory::BANDS;
use attention_lab::lab::train::{Checkpoint, Evaluation, MemoryTimeline, Run, RunConfig, Sampling, Weights};
use attention_lab::model::parameters;
use attention_lab::task::Part;
use pollster::block_on;
use std::collections::BTreeMap;
use std::path::PathBuf;

const SMALL: &str = r#"{
    "task": {"id": "copy", "symbols": 5, "items": 4},
    "model": {"d_model": 16, "heads": 2, "dropout": 0.1,
        "attention": [{"variant": "full"}, {"variant": "sliding_window", "params": {"window": 3}}]},
    "optimiser": {"rate": 0.01, "warmup": 3, "schedule": "cosine", "clip": 0.5},
    "batch": 8, "steps": 14, "log_every": 1, "evaluation": {"every": 6, "batches": 2}
}"#;

fn run(text: &str, gpu: Option<&Gpu>) -> Run {
    let config = RunConfig::parse(text).unwrap_or_else(|e| panic!("{e}"));
    block_on(Run::new(&config, gpu)).unwrap_or_else(|e| panic!("{e}"))
}

fn steps(run: &mut Run, count: usize) {
    (0..count).for_each(|_| run.step(&|| false).unwrap_or_else(|e| panic!("{e}")));
}

fn checkpoint(run: &Run) -> Checkpoint {
    block_on(run.checkpoint()).unwrap_or_else(|e| panic!("{e}"))
}

fn evaluation(run: &mut Run) -> Evaluation {
    block_on(run.evaluate(&|| false)).unwrap_or_else(|e| panic!("{e}"))
}

/// Root of the sum of squares of some tensors' values, by part.
fn norms(checkpoint: &Checkpoint, value: impl Fn(&str, usize) -> f32) -> BTreeMap<String, f32> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for (name, (_, data)) in checkpoint.tensors.iter().filter(|(name, _)| !name.starts_with("optimiser.")) {
        let sum = (0..data.len()).map(|i| f64::from(value(name, i)).powi(2)).sum::<f64>();
        *sums.entry(parameters::part(name).to_owned()).or_default() += sum;
    }
    sums.into_iter().map(|(part, sum)| (part, sum.sqrt() as f32)).collect()
}

fn close(name: &str, got: f32, want: f32) {
    assert!((got - want).abs() <= 2e-3 * want.abs() + 1e-7, "{name}: {got} for {want}");
}

fn inspecting_says_what_the_next_step_does(gpu: Option<&Gpu>) {
    let mut looked = run(SMALL, gpu);
    let mut other = run(SMALL, gpu);
    steps(&mut looked, 4);
    steps(&mut other, 4);
    let before = checkpoint(&looked);
    let changes = block_on(looked.inspect(&|| false)).unwrap_or_else(|e| panic!("{e}"));
    assert!(checkpoint(&looked) == before, "a look changes nothing");
    steps(&mut looked, 1);
    steps(&mut other, 1);
    let after = checkpoint(&looked);
    assert!(after == checkpoint(&other), "steps after a look are those of a run that nobody looks at");

    let names: Vec<&str> = changes.iter().map(|change| change.part.as_str()).collect();
    let layer = |i| [format!("layers.{i}.attention"), format!("layers.{i}.feed_forward")];
    let want = [vec!["embedding".to_owned()], layer(0).into(), layer(1).into(), vec!["norm".into(), "head".into()]];
    assert_eq!(names, want.concat());
    let reading = block_on(looked.reading()).unwrap();
    let total = changes.iter().map(|change| f64::from(change.gradient).powi(2)).sum::<f64>().sqrt();
    close("norm of the gradient", total as f32, reading.norm);
    assert!(reading.norm > 0.5, "clipping is at work");
    let weights = norms(&before, |name, i| before.tensors[name].1[i]);
    let updates = norms(&before, |name, i| after.tensors[name].1[i] - before.tensors[name].1[i]);
    for change in &changes {
        close(&change.part, change.weights, weights[&change.part]);
        close(&change.part, change.update, updates[&change.part]);
        assert!(change.ratio().is_some_and(|ratio| (1e-5..1.0).contains(&ratio)), "{change:?}");
    }
    looked.close();
    assert_ne!(block_on(looked.inspect(&|| false)).unwrap(), changes, "the next step is another");
}

#[test]
fn inspecting_on_the_interpreter() {
    inspecting_says_what_the_next_step_does(None);
}

#[test]
fn inspecting_on_the_device() {
    let Some(gpu) = common::gpu() else { return };
    inspecting_says_what_the_next_step_does(Some(&gpu));
}

/// One sequence after the other gives what the judgement of whole batches gives.
fn predictions_are_what_is_judged(text: &str, gpu: Option<&Gpu>) {
    let mut run = run(text, gpu);
    steps(&mut run, 8);
    let held = evaluation(&mut run);
    let (mut right, mut judged, mut nats) = (0, 0, 0.0);
    for number in 0..16 {
        let row = block_on(run.predictions(Part::Held, number, &|| false)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(row.len(), run.config().model.length);
        for one in row.iter().filter(|one| one.judged) {
            right += usize::from(one.is_right());
            judged += 1;
            nats -= f64::from(one.of_target).ln();
            assert!(one.of_target <= one.of_guess && one.of_guess <= 1.0, "{one:?}");
        }
    }
    assert_eq!((right, judged), (held.score.tokens.right, held.score.tokens.judged));
    close("loss", (nats / judged as f64) as f32, held.loss as f32);
}

#[test]
fn predictions_of_each_architecture() {
    predictions_are_what_is_judged(SMALL, None);
    let both = SMALL.replace("\"heads\"", "\"architecture\": \"encoder_decoder\", \"heads\"");
    predictions_are_what_is_judged(&both, None);
    let masked = r#"{"task": {"id": "masked_lm", "length": 16}, "batch": 8, "steps": 9, "evaluation": {"batches": 2},
        "model": {"architecture": "encoder", "d_model": 16, "heads": 2}}"#;
    predictions_are_what_is_judged(masked, None);
    if let Some(gpu) = common::gpu() {
        predictions_are_what_is_judged(SMALL, Some(&gpu));
        // Sorting draws noise for each element of a batch.
        let sinkhorn = masked.replace("\"heads\": 2", "\"heads\": 2, \"attention\": [{\"variant\": \"reformer\"}]");
        predictions_are_what_is_judged(&sinkhorn, Some(&gpu));
    }
}

#[test]
fn a_text_is_gone_on_with() {
    let text = "abcd".repeat(50);
    let config = serde_json::json!({
        "task": {"id": "text", "length": 8, "text": text}, "batch": 8, "steps": 60, "optimiser": {"rate": 0.02},
        "model": {"d_model": 16, "heads": 2, "layers": 1}, "evaluation": {"batches": 1},
    });
    let mut run = run(&config.to_string(), None);
    let read = |run: &Run, text: &str| run.task().read(text).expect("a text");
    let start = read(&run, "zabéc");
    assert_eq!(run.task().line(&start), "abc", "what the text has not is left out");
    let write = |run: &mut Run, start: &[u32], count, temperature, seed| {
        let written = block_on(run.generate(start, count, Sampling { temperature, seed }, &|| false));
        let written = written.unwrap_or_else(|e| panic!("{e}"));
        run.task().line(&written)
    };
    // Before training it says what it likes; hot sampling differs by seed and only by seed.
    let [first, again, other] = [1, 1, 2].map(|seed| write(&mut run, &start, 12, 1.5, seed));
    assert!(first == again && first != other, "{first} {again} {other}");
    steps(&mut run, 60);
    // Longer than the model sees.
    assert_eq!(write(&mut run, &start, 12, 0.0, 1), "dabcdabcdabc");
    assert_eq!(write(&mut run, &start, 12, 0.1, 7), "dabcdabcdabc");

    let refused = |run: &mut Run, text: &[u32], words: &str| {
        let said = block_on(run.generate(text, 1, Sampling { temperature: 0.0, seed: 1 }, &|| false));
        assert!(said.as_ref().is_err_and(|e| e.to_string().contains(words)), "{said:?}");
    };
    refused(&mut run, &[], "at least one token");
    refused(&mut run, &[4], "tokens below 4");
    let mut encoder = self::run(&SMALL.replace("\"heads\"", "\"architecture\": \"encoder_decoder\", \"heads\""), None);
    refused(&mut encoder, &[1], "decoder: only that");
}

#[test]
fn weights_alone_are_half_as_precise_and_as_good() {
    let mut first = run(SMALL, None);
    steps(&mut first, 14);
    let held = evaluation(&mut first);
    let weights = block_on(first.weights_with(&held)).unwrap();
    let bytes = weights.to_bytes().unwrap_or_else(|e| panic!("{e}"));
    assert!(bytes.len() < checkpoint(&first).to_bytes().unwrap().len() / 4);
    let read = Weights::from_bytes(&bytes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((read.step, read.loss, read.accuracy), (14, held.loss, held.score.tokens.accuracy()));
    assert_eq!(&read.config, first.config());
    assert_eq!(Weights::from_bytes(&read.to_bytes().unwrap()).unwrap(), read, "a second time nothing is lost");

    let (mut again, exchange) = block_on(Run::from_weights(&read.config, &read, None)).unwrap();
    assert_eq!((exchange, again.steps()), (Default::default(), 0));
    close("loss", evaluation(&mut again).loss as f32, held.loss as f32);
    // Another attention: what it brings along begins anew, what it does not need is left out.
    let swapped = |variant: &str| {
        let mut config = read.config.clone();
        config.model.attention = vec![attention_lab::model::Mixer::of(variant)];
        block_on(Run::from_weights(&config, &read, None)).unwrap_or_else(|e| panic!("{variant}: {e}"))
    };
    let (mut window, exchange) = swapped("sliding_window");
    assert_eq!(exchange, Default::default());
    assert!(evaluation(&mut window).loss.is_finite());
    let (_, exchange) = swapped("gru");
    assert!(exchange.begun.contains(&"layers.0.attention.U".to_owned()) && exchange.unused.is_empty(), "{exchange:?}");

    let refused = |weights: &Weights, words: &str| {
        let said = weights.to_bytes().and_then(|bytes| Weights::from_bytes(&bytes));
        let said = said.and_then(|weights| block_on(Run::from_weights(&read.config, &weights, None)).map(|_| ()));
        assert!(said.as_ref().is_err_and(|e| e.to_string().contains(words)), "{said:?}");
    };
    let mut wrong = read.clone();
    wrong.tensors.insert("head.bias".into(), (vec![2], vec![0.0; 2]));
    refused(&wrong, "tensor `head.bias` is [2]");
    wrong.tensors.insert("head.bias".into(), (vec![1], vec![1e5]));
    refused(&wrong, "too large for half precision");
    wrong.tensors.clear();
    refused(&wrong, "no weight");
    let checkpoint = checkpoint(&first).to_bytes().unwrap();
    assert!(Weights::from_bytes(&checkpoint).is_err() && Checkpoint::from_bytes(&bytes).is_err());
    for cut in [0, 7, 100, bytes.len() - 1] {
        assert!(Weights::from_bytes(&bytes[..cut]).is_err(), "{cut} bytes");
    }
}

fn timeline(layers: usize) -> MemoryTimeline {
    let text = format!(
        r#"{{"task": {{"id": "recall", "length": 64, "vocabulary": 32}}, "batch": 3,
            "model": {{"layers": {layers}, "d_model": 24, "heads": 3, "norm": "pre"}}}}"#
    );
    let config = RunConfig::parse(&text).unwrap();
    MemoryTimeline::of(&config, 1 << 30, &LowerContext::default()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_memory_of_a_step_is_known_by_band_and_layer() {
    let [two, four, six] = [2, 4, 6].map(timeline);
    // 12 d² + 13 d a layer, embedding and head 2 V d + V, the last norm 2 d.
    let weights = |layers: u64| 4 * (layers * (12 * 24 * 24 + 13 * 24) + 2 * 32 * 24 + 32 + 2 * 24);
    for (timeline, layers) in [(&two, 2), (&four, 4), (&six, 6)] {
        for alive in &timeline.dispatches {
            assert_eq!(alive.bytes[0], weights(layers), "parameters at {}", alive.op);
            // Two memories for each weight, and nothing else.
            assert_eq!(alive.bytes[1], 2 * weights(layers), "optimiser at {}", alive.op);
            assert!(alive.total() <= timeline.buffers.iter().sum());
        }
        let peak = timeline.at_peak().expect("there are dispatches");
        assert!(timeline.dispatches.iter().all(|alive| alive.total() <= peak.total()));
        assert!(timeline.dispatches[..timeline.peak].iter().all(|alive| alive.total() < peak.total()));
        assert!(!peak.layer.is_empty() && !peak.op.is_empty() && !peak.stage.is_empty(), "{peak:?}");
        for i in 0..layers {
            for branch in ["attention", "feed_forward"] {
                let layer = format!("layers.{i}.{branch}");
                let stages = || timeline.dispatches.iter().filter(|a| a.layer == layer).map(|a| a.stage.as_str());
                assert!(stages().any(|s| s.ends_with("backward")) && stages().any(|s| s == "update"), "{layer}");
                assert!(stages().any(|s| s == "norm"), "{layer}");
            }
        }
    }
    // Every layer keeps as much for its backward pass.
    let most = |timeline: &MemoryTimeline| timeline.dispatches.iter().map(|alive| alive.bytes[3]).max().unwrap();
    assert_eq!(most(&six) - most(&four), most(&four) - most(&two));
    assert!(most(&four) > most(&two));
    assert_eq!(BANDS.len(), two.buffers.len());
    let again: MemoryTimeline = serde_json::from_str(&serde_json::to_string(&two).unwrap()).unwrap();
    assert_eq!(again, two);
}
#[test]
fn weights_that_ship_are_as_good_as_they_say() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/weights");
    let mut total = 0;
    for (name, best) in [("story", 0.66), ("story_mlm", 0.75)] {
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        total += bytes.len();
        let weights = Weights::from_bytes(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Made by the configuration that stands beside them.
        let text = std::fs::read_to_string(folder.join(format!("../runs/{name}.json"))).unwrap();
        let mut config = RunConfig::parse(&text).unwrap();
        config.complete(1 << 30).unwrap();
        assert_eq!(weights.config, config, "{name}");
        assert_eq!(weights.step, config.steps, "{name}");
        let (mut run, exchange) = block_on(Run::from_weights(&weights.config, &weights, None)).unwrap();
        assert_eq!(exchange, Default::default(), "{name}");
        let held = evaluation(&mut run);
        assert!((held.loss - weights.loss).abs() < 3e-3, "{name}: {} for {}", held.loss, weights.loss);
        assert!(held.loss < best, "{name}: {}", held.loss);
    }
    assert!(total < 1 << 20, "{total} bytes");
}
