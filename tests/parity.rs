//! Models and tokenizers read from files agree with the implementations that wrote them: `tests/fixtures/pretrained`.

mod common;

use attention_lab::gpu::{Category, Gpu, Replay};
use attention_lab::graph::plan::plan;
use attention_lab::graph::{Data, Graph, LowerContext, TensorType, cpu};
use attention_lab::model::{Network, Tokens, network};
use attention_lab::reading::model::header::header_bytes;
use attention_lab::reading::{Model, Numbers, Tokenizer};
use pollster::block_on;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::PathBuf;

const MODELS: [&str; 3] = ["gpt2", "bert", "distilbert"];

/// `model` is a folder of the fixtures, or one anywhere by its absolute path.
fn read(model: &str, file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pretrained").join(model).join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn text(model: &str, file: &str) -> String {
    String::from_utf8(read(model, file)).expect("it is UTF-8")
}

#[derive(serde::Deserialize)]
struct Encoded {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn tokenizers_give_the_references_ids() {
    MODELS.into_iter().for_each(ids_agree);
}

fn ids_agree(model: &str) {
    let tokenizer = Tokenizer::parse(&text(model, "tokenizer.json")).unwrap();
    let texts: Vec<Encoded> = serde_json::from_str(&text(model, "texts.json")).unwrap();
    assert!(texts.len() > 10);
    for Encoded { text, ids } in texts {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{model}: {text:?}");
    }
}

/// What the reference says of one text.
struct Said {
    ids: Vec<u32>,
    /// `[N, V]`
    logits: Vec<f32>,
    /// `[L, H, N, N]`
    weights: Vec<f32>,
}

fn said(model: &str) -> Vec<Said> {
    let bytes = read(model, "reference.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: String| bytemuck::pod_collect_to_vec::<u8, f32>(file.tensor(&name).unwrap().data());
    (0..2)
        .map(|index| Said {
            ids: bytemuck::pod_collect_to_vec(file.tensor(&format!("ids.{index}")).unwrap().data()),
            logits: floats(format!("logits.{index}")),
            weights: floats(format!("weights.{index}")),
        })
        .collect()
}

/// The same file with real numbers of another type.
fn stored_as(bytes: &[u8], dtype: Dtype) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let data: Vec<_> = (file.iter())
        .map(|(name, tensor)| {
            if tensor.dtype() != Dtype::F32 {
                return (name.to_owned(), tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec());
            }
            let numbers = bytemuck::pod_collect_to_vec::<u8, f32>(tensor.data()).into_iter();
            let bytes: Vec<u8> = match dtype {
                Dtype::F16 => numbers.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
                Dtype::BF16 => numbers.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
                _ => numbers.flat_map(f32::to_le_bytes).collect(),
            };
            (name.to_owned(), dtype, tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = (data.iter()).map(|(name, dtype, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
}

/// A model's graph on a text, with all that it reads.
struct Made {
    graph: Graph,
    inputs: BTreeMap<String, Data<f32>>,
    layers: usize,
    scale: f64,
    heads: usize,
    dim: usize,
    causal: bool,
}

fn made(file: &[u8], config: &str, ids: &[u32]) -> Made {
    let header = header_bytes(file, file.len() as u64).unwrap() as usize;
    let opened = Model::open(&file[..header], file.len() as u64, Some(config)).unwrap();
    let mut graph = Graph::new();
    let tokens = graph.input("tokens", TensorType::u32(&[1, ids.len()]), Category::Activations);
    let Network { logits, hidden, mixings, .. } =
        network(&mut graph, &opened.config, &Tokens { tokens, source: None, seed: None }, 1);
    graph.output("logits", logits);
    graph.output("hidden", hidden);
    for mixing in &mixings {
        graph.output(&format!("q.{}", mixing.layer), mixing.inputs.q);
        graph.output(&format!("k.{}", mixing.layer), mixing.inputs.k);
    }
    let mut inputs = BTreeMap::from([("tokens".to_owned(), Data::Index(ids.to_vec()))]);
    for piece in &opened.pieces {
        let parts: Vec<&[u8]> = piece.ranges().map(|r| &file[r.start as usize..r.end as usize]).collect();
        let numbers = match piece.convert(&parts).unwrap() {
            Numbers::Single(x) => x,
            Numbers::Half(x) => x.into_iter().map(|x| half::f16::from_bits(x).to_f32()).collect(),
        };
        inputs.insert(piece.name.clone(), Data::Real(numbers));
    }
    let setup = &mixings[0].setup;
    let (heads, dim, causal) = (setup.heads, setup.dim, setup.causal);
    Made { graph, inputs, layers: mixings.len(), scale: 1.0 / (dim as f64).sqrt(), heads, dim, causal }
}

fn outputs(made: &Made, gpu: Option<&Gpu>) -> BTreeMap<String, Vec<f32>> {
    let Some(gpu) = gpu else {
        let run = cpu::run(&made.graph, &made.inputs, &|| false).unwrap();
        return run.into_iter().map(|(name, data)| (name, data.real().to_vec())).collect();
    };
    let plan = plan(&made.graph, &LowerContext::on(gpu));
    let replay = block_on(Replay::new(gpu, &plan.program)).unwrap();
    for (name, data) in &made.inputs {
        let (buffer, _) = plan.inputs[name];
        match data {
            Data::Real(x) => replay.write(buffer, bytemuck::cast_slice(x)).unwrap(),
            Data::Index(x) => replay.write(buffer, bytemuck::cast_slice(x)).unwrap(),
        }
    }
    block_on(replay.run(&|| false)).unwrap();
    (plan.outputs.iter())
        .map(|(name, (buffer, ty))| {
            let bytes = block_on(replay.read_range(*buffer, 0, ty.bytes())).unwrap();
            (name.clone(), bytemuck::pod_collect_to_vec(&bytes))
        })
        .collect()
}

/// The softmax of a layer's scores, `[H, N, N]`, from its queries and keys.
fn weights(made: &Made, q: &[f32], k: &[f32], n: usize) -> Vec<f64> {
    let mut all = vec![0.0; made.heads * n * n];
    for h in 0..made.heads {
        for i in 0..n {
            let row = |x: &[f32], at: usize| x[(h * n + at) * made.dim..][..made.dim].to_vec();
            let keys = if made.causal { i + 1 } else { n };
            let dot =
                |j: usize| -> f64 { row(q, i).iter().zip(row(k, j)).map(|(&a, b)| f64::from(a) * f64::from(b)).sum() };
            let exps: Vec<f64> = (0..keys).map(|j| (dot(j) * made.scale).exp()).collect();
            let sum: f64 = exps.iter().sum();
            (0..keys).for_each(|j| all[(h * n + i) * n + j] = exps[j] / sum);
        }
    }
    all
}

/// The largest difference; NaN where there is one.
fn largest(want: &[f32], got: impl Iterator<Item = f64>) -> f64 {
    let mut count = 0;
    let largest = want.iter().zip(got.inspect(|_| count += 1)).fold(0.0, |most: f64, (&want, got)| {
        let error = (f64::from(want) - got).abs();
        if error.is_nan() || most.is_nan() { f64::NAN } else { most.max(error) }
    });
    assert_eq!(count, want.len());
    largest
}

fn models_agree(models: &[&str], gpu: Option<&Gpu>) {
    for &model in models {
        let (file, config) = (read(model, "model.safetensors"), text(model, "config.json"));
        for said in said(model) {
            let n = said.ids.len();
            for (dtype, limit) in [(Dtype::F32, 1e-4), (Dtype::F16, 0.05), (Dtype::BF16, 0.15)] {
                let made = made(&stored_as(&file, dtype), &config, &said.ids);
                let outputs = outputs(&made, gpu);
                let error = largest(&said.logits, outputs["logits"].iter().map(|&x| f64::from(x)));
                // Of trained models they are large.
                let size = said.logits.iter().fold(1.0, |most: f64, x| most.max(f64::from(x.abs())));
                println!("{model} {dtype:?}: logits up to {size:.1} differ by at most {error:e}");
                assert!(error <= limit * size, "{model} {dtype:?}: logits up to {size} differ by {error}");
                if dtype == Dtype::F32 {
                    let layers = (0..made.layers)
                        .flat_map(|l| weights(&made, &outputs[&format!("q.{l}")], &outputs[&format!("k.{l}")], n));
                    let error = largest(&said.weights, layers.collect::<Vec<_>>().into_iter());
                    assert!(error <= 1e-5, "{model}: weights differ by {error}");
                }
            }
        }
    }
}

#[test]
fn models_give_the_references_logits_and_weights() {
    models_agree(&MODELS, None);
}

#[test]
fn models_give_the_references_logits_and_weights_on_the_device() {
    if let Some(gpu) = common::gpu() {
        models_agree(&MODELS, Some(&gpu));
    }
}

/// The folder that a variable of the environment names.
fn folder_of(variable: &str) -> String {
    let folder = std::env::var(variable).unwrap_or_else(|e| panic!("{variable}: {e}"));
    let folder = PathBuf::from(folder).canonicalize().expect("it is there");
    folder.into_os_string().into_string().expect("its path is UTF-8")
}

/// Weights that were trained for real, and too large for the fixtures, whose README says how to come by the reference's answers.
#[test]
#[ignore = "LAB_PRETRAINED must name a folder"]
fn a_trained_model_gives_the_references_ids_logits_and_weights() {
    let folder = &folder_of("LAB_PRETRAINED");
    ids_agree(folder);
    models_agree(&[folder], None);
    let gpu = common::gpu().expect("there is a device");
    // The engine goes through a larger table in parts; here it is one buffer.
    let file = read(folder, "model.safetensors");
    let largest = SafeTensors::deserialize(&file).unwrap().iter().map(|(_, tensor)| tensor.data().len() as u64).max();
    if largest.expect("there are tensors") <= gpu.caps().max_binding_bytes {
        models_agree(&[folder], Some(&gpu));
    }
}

/// The similarities that the model's own page publishes: cosines of the means of the last layer's rows.
#[test]
#[ignore = "LAB_MINILM must name the folder of all-MiniLM-L6-v2"]
fn the_sentence_model_gives_the_published_similarities() {
    let folder = &folder_of("LAB_MINILM");
    let (file, config) = (read(folder, "model.safetensors"), text(folder, "config.json"));
    let tokenizer = Tokenizer::parse(&text(folder, "tokenizer.json")).unwrap();
    let sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
    let means = sentences.map(|sentence| {
        let made = made(&file, &config, &tokenizer.encode(sentence).unwrap());
        let width = made.heads * made.dim;
        let mut mean = vec![0.0; width];
        for row in outputs(&made, None)["hidden"].chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x));
        }
        mean
    });
    let dot = |a: usize, b: usize| -> f64 { means[a].iter().zip(&means[b]).map(|(a, b)| a * b).sum() };
    for (a, b, published) in [(0, 1, 0.6660), (0, 2, 0.1046), (1, 2, 0.1411)] {
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        println!("{:?} and {:?}: {cosine:.5}", sentences[a], sentences[b]);
        assert!((cosine - published).abs() <= 2e-4, "{cosine} for {published}");
    }
}
