//! What a head of a run attends to, against softmax(Q Kᵀ / √D) of a plain forward pass in f64, made of the checkpoint's tensors.

mod common;

use attention_lab::gpu::Gpu;
use attention_lab::lab::picture::ABSENT;
use attention_lab::lab::train::{Checkpoint, Run, RunConfig, Text};
use attention_lab::task::Part;
use pollster::block_on;

type Rows = Vec<Vec<f64>>;

/// A model of one stack with layer norms in front and sinusoidal positions.
struct Plain {
    checkpoint: Checkpoint,
    causal: bool,
    /// How far each layer sees.
    radius: Vec<usize>,
}

impl Plain {
    fn get(&self, name: &str) -> Vec<f64> {
        let (_, data) = self.checkpoint.tensors.get(name).unwrap_or_else(|| panic!("{name}"));
        data.iter().map(|&x| f64::from(x)).collect()
    }

    fn linear(&self, name: &str, x: &Rows) -> Rows {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let out =
            |row: &Vec<f64>, j: usize| b[j] + row.iter().enumerate().map(|(i, x)| x * w[i * b.len() + j]).sum::<f64>();
        x.iter().map(|row| (0..b.len()).map(|j| out(row, j)).collect()).collect()
    }

    fn norm(&self, name: &str, x: &Rows) -> Rows {
        let (gain, bias) = (self.get(&format!("{name}.gain")), self.get(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let deviation = (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + 1e-5).sqrt();
            row.iter().enumerate().map(|(i, x)| (x - mean) / deviation * gain[i] + bias[i]).collect()
        };
        x.iter().map(one).collect()
    }

    fn embedded(&self, tokens: &[u32]) -> Rows {
        let (d, table) = (self.checkpoint.config.model.d_model, self.get("embedding.weight"));
        let element = |i: usize, c: usize| {
            let angle = i as f64 / 10_000f64.powf((c / 2 * 2) as f64 / d as f64);
            let position = if c.is_multiple_of(2) { angle.sin() } else { angle.cos() };
            table[tokens[i] as usize * d + c] * (d as f64).sqrt() + position
        };
        (0..tokens.len()).map(|i| (0..d).map(|c| element(i, c)).collect()).collect()
    }

    /// Weights of each head of a layer, none where a query may not look, and what the layer leaves.
    fn layer(&self, layer: usize, x: &Rows) -> (Vec<Vec<Vec<Option<f64>>>>, Rows) {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let normed = self.norm(&name("attention.norm"), x);
        let [q, k, v] = ["query", "key", "value"].map(|part| self.linear(&name(&format!("attention.{part}")), &normed));
        let (n, d, heads) = (x.len(), x[0].len(), self.checkpoint.config.model.heads);
        let dim = d / heads;
        let may = |i: usize, j: usize| i.abs_diff(j) <= self.radius[layer] && !(self.causal && j > i);
        let mut mixed = vec![vec![0.0; d]; n];
        let mut all = Vec::new();
        for head in 0..heads {
            let at = head * dim..(head + 1) * dim;
            let score = |i: usize, j: usize| {
                let product: f64 = at.clone().map(|c| q[i][c] * k[j][c]).sum();
                may(i, j).then(|| (product / (dim as f64).sqrt()).exp())
            };
            let mut weights: Vec<Vec<Option<f64>>> = (0..n).map(|i| (0..n).map(|j| score(i, j)).collect()).collect();
            for (i, row) in weights.iter_mut().enumerate() {
                let sum: f64 = row.iter().flatten().sum();
                for (j, weight) in row.iter_mut().enumerate() {
                    *weight = weight.map(|x| x / sum);
                    at.clone().for_each(|c| mixed[i][c] += weight.unwrap_or(0.0) * v[j][c]);
                }
            }
            all.push(weights);
        }
        let plus = |a: &Rows, b: Rows| -> Rows {
            a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
        };
        let x = plus(x, self.linear(&name("attention.out"), &mixed));
        let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
        let up = self.linear(&name("feed_forward.up"), &self.norm(&name("feed_forward.norm"), &x));
        let up = up.into_iter().map(|row| row.into_iter().map(gelu).collect()).collect();
        (all, plus(&x, self.linear(&name("feed_forward.down"), &up)))
    }
}

fn run(causal: bool, gpu: Option<&Gpu>) -> Run {
    let (task, architecture) = match causal {
        true => (r#"{"id": "story", "length": 23}"#, "decoder"),
        false => (r#"{"id": "masked_lm", "length": 23}"#, "encoder"),
    };
    let text = format!(
        r#"{{"task": {task}, "batch": 4, "steps": 30, "optimiser": {{"rate": 0.02}}, "evaluation": {{"batches": 1}},
            "model": {{"architecture": "{architecture}", "d_model": 24, "heads": 3, "layers": 3, "dropout": 0.1,
                "attention": [{{"variant": "full"}}, {{"variant": "sliding_window", "params": {{"window": 4}}}},
                    {{"variant": "full"}}]}}}}"#
    );
    let config = RunConfig::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut run = block_on(Run::new(&config, gpu)).unwrap_or_else(|e| panic!("{e}"));
    // Until heads differ.
    (0..12).for_each(|_| run.step(&|| false).unwrap_or_else(|e| panic!("{e}")));
    run
}

fn heads_are_softmax_of_their_queries_and_keys(gpu: Option<&Gpu>) {
    for causal in [true, false] {
        let mut run = run(causal, gpu);
        let checkpoint = block_on(run.checkpoint()).unwrap();
        let plain = Plain { checkpoint: checkpoint.clone(), causal, radius: vec![99, if causal { 3 } else { 2 }, 99] };
        let held = run.task().batch(run.config().seed, Part::Held, 5, 1).inputs;
        for (text, tokens) in [(Text::Held(5), &held[..]), (Text::Tokens(&held[3..14]), &held[3..14])] {
            // Behind a shorter text an encoder sees what fills it up.
            if !causal && tokens.len() < 23 {
                continue;
            }
            let mut x = plain.embedded(tokens);
            for layer in 0..3 {
                let (want, next) = plain.layer(layer, &x);
                x = next;
                for head in 0..3 {
                    let part = format!("layers.{layer}.attention");
                    let got =
                        block_on(run.head_weights(&part, head, text, &|| false)).unwrap_or_else(|e| panic!("{e}"));
                    assert_eq!((got.part, got.head, &got.queries[..], &got.keys[..]), (part, head, tokens, tokens));
                    let (cells, n) = (got.cells.unwrap(), tokens.len());
                    assert_eq!(cells.len(), n * n);
                    for (at, &got) in cells.iter().enumerate() {
                        let place = format!("causal {causal}, layer {layer}, head {head}, ({}, {})", at / n, at % n);
                        match want[head][at / n][at % n] {
                            Some(want) => assert!((f64::from(got) - want).abs() < 2e-5, "{place}: {got} for {want}"),
                            None => assert_eq!(got, ABSENT, "{place}"),
                        }
                    }
                    // Heads that are alike would hide that a wrong one is shown.
                    let other = &want[(head + 1) % 3];
                    let apart = |at: usize| Some((want[head][at / n][at % n]? - other[at / n][at % n]?).abs());
                    assert!((0..n * n).filter_map(apart).fold(0.0, f64::max) > 1e-3);
                }
            }
        }
        run.close();
        assert!(block_on(run.checkpoint()).unwrap() == checkpoint, "a look changes nothing");
    }
}

#[test]
fn heads_on_the_interpreter() {
    heads_are_softmax_of_their_queries_and_keys(None);
}

#[test]
fn heads_on_the_device() {
    let Some(gpu) = common::gpu() else { return };
    heads_are_softmax_of_their_queries_and_keys(Some(&gpu));
}

/// Both stacks of an encoder–decoder and what lies between them, and methods of every kind.
#[test]
fn every_attention_of_a_model_can_be_looked_at() {
    let parts = ["encoder.layers.1.attention", "decoder.layers.0.attention", "decoder.layers.1.cross"];
    for variant in ["full", "linear", "reformer", "gru"] {
        let text = format!(
            r#"{{"task": {{"id": "copy", "symbols": 5, "items": 4}}, "batch": 3, "steps": 9, "evaluation": {{"batches": 1}},
                "model": {{"architecture": "encoder_decoder", "d_model": 16, "heads": 2,
                    "attention": [{{"variant": "full"}}, {{"variant": "full"}}, {{"variant": "{variant}"}},
                        {{"variant": "full"}}]}}}}"#
        );
        let mut run = block_on(Run::new(&RunConfig::parse(&text).unwrap(), None)).unwrap_or_else(|e| panic!("{e}"));
        run.step(&|| false).unwrap();
        for part in parts {
            let got = block_on(run.head_weights(part, 1, Text::Held(0), &|| false)).unwrap();
            assert_eq!(got.part, part);
            let n = run.config().model.length;
            assert_eq!((got.queries.len(), got.keys.len()), (n, n));
            assert_eq!(got.queries == got.keys, part != "decoder.layers.1.cross", "{part}");
            let is_swapped = part == "decoder.layers.0.attention";
            match got.cells {
                Err(why) => {
                    assert!(is_swapped && variant == "gru" && why.contains("no attention matrix"), "{part}: {why}")
                }
                Ok(cells) => {
                    assert!(variant != "gru" || !is_swapped);
                    for (i, row) in cells.chunks(n).enumerate() {
                        // What the encoder is not shown is padding, for who reads it too.
                        let blank = run.config().model.blank();
                        let is_shown = |j: usize| match part.split_once("layers.0") {
                            Some(_) => j <= i,
                            None => got.keys[j] != blank && (part.ends_with("cross") || got.queries[i] != blank),
                        };
                        let seen = (0..n).filter(|&j| row[j] != ABSENT).count();
                        assert_eq!(seen, (0..n).filter(|&j| is_shown(j)).count(), "{variant}, {part}, row {i}");
                        let sum: f32 = row.iter().filter(|&&x| x != ABSENT).sum();
                        assert!(seen == 0 || (sum - 1.0).abs() < 1e-4, "{variant}, {part}: row {i} comes to {sum}");
                    }
                }
            }
        }
    }
}

#[test]
fn padding_is_outside_the_pattern_and_a_recurrent_network_alone_says_why() {
    let config = |more: &str| {
        let text = format!(
            r#"{{"task": {{"id": "copy", "symbols": 5, "items": 4}}, "batch": 2, "steps": 9, "evaluation": {{"batches": 1}},
                "model": {{"d_model": 16, "heads": 2, {more}}}}}"#
        );
        RunConfig::parse(&text).unwrap()
    };
    // The symbol that stands at some place of the sequence is taken for padding.
    let mut run = block_on(Run::new(&config(r#""norm": "pre""#), None)).unwrap();
    let tokens = run.task().batch(run.config().seed, Part::Held, 0, 1).inputs;
    let pad = tokens[2];
    let whole = block_on(run.head_weights("", 0, Text::Held(0), &|| false)).unwrap();
    let n = tokens.len();
    assert!(whole.cells.unwrap().iter().enumerate().all(|(at, x)| x.is_finite() == (at % n <= at / n)));
    let padded = config(&format!(r#""pad": {pad}"#));
    let mut run = block_on(Run::new(&padded, None)).unwrap();
    let got = block_on(run.head_weights("", 0, Text::Held(0), &|| false)).unwrap();
    for (i, row) in got.cells.unwrap().chunks(n).enumerate() {
        for (j, x) in row.iter().enumerate() {
            assert_eq!(*x == ABSENT, j > i || tokens[i] == pad || tokens[j] == pad, "({i}, {j}): {x}");
        }
        let sum: f32 = row.iter().filter(|&&x| x != ABSENT).sum();
        assert!(tokens[i] == pad || (sum - 1.0).abs() < 1e-4, "row {i} comes to {sum}");
    }
    let mut run = block_on(Run::new(&config(r#""block": "plain", "attention": [{"variant": "gru"}]"#), None)).unwrap();
    let got = block_on(run.head_weights("", 0, Text::Held(0), &|| false)).unwrap();
    assert!(got.cells.is_err_and(|why| why.contains("no attention matrix")));
}
