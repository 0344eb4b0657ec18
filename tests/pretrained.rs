//! Models that others trained: small files of each kind, made here, against plain definitions that read the files' own tensors.

use attention_lab::gpu::Category;
use attention_lab::graph::{Data, Graph, TensorType, cpu};
use attention_lab::model::{Tokens, network};
use attention_lab::random;
use attention_lab::reading::model::header::header_bytes;
use attention_lab::reading::{Model, Numbers};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;

const VOCABULARY: usize = 29;
const D: usize = 12;
const HEADS: usize = 3;
const INNER: usize = 20;
const PLACES: usize = 11;
const LAYERS: usize = 2;

/// Tensors of a file: shape and values.
type File = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn add(file: &mut File, name: impl Into<String>, shape: &[usize], around: f64) {
    let name = name.into();
    let (stream, count) = (random::stream(&name), shape.iter().product::<usize>());
    let values = (0..count as u64).map(|i| (around + 0.4 * random::normal(7, stream, i)) as f32).collect();
    file.insert(name, (shape.into(), values));
}

fn norm(file: &mut File, name: &str, [gain, bias]: [&str; 2]) {
    add(file, format!("{name}.{gain}"), &[D], 1.0);
    add(file, format!("{name}.{bias}"), &[D], 0.0);
}

fn gpt2(prefix: &str) -> File {
    let mut file = File::new();
    add(&mut file, format!("{prefix}wte.weight"), &[VOCABULARY, D], 0.0);
    add(&mut file, format!("{prefix}wpe.weight"), &[PLACES, D], 0.0);
    for layer in 0..LAYERS {
        let name = format!("{prefix}h.{layer}");
        for (part, from, to) in
            [("attn.c_attn", D, 3 * D), ("attn.c_proj", D, D), ("mlp.c_fc", D, INNER), ("mlp.c_proj", INNER, D)]
        {
            add(&mut file, format!("{name}.{part}.weight"), &[from, to], 0.0);
            add(&mut file, format!("{name}.{part}.bias"), &[to], 0.0);
        }
        norm(&mut file, &format!("{name}.ln_1"), ["weight", "bias"]);
        norm(&mut file, &format!("{name}.ln_2"), ["weight", "bias"]);
        add(&mut file, format!("{name}.attn.bias"), &[1, 1, PLACES, PLACES], 0.0);
    }
    norm(&mut file, &format!("{prefix}ln_f"), ["weight", "bias"]);
    file
}

fn bert(greek: bool) -> File {
    let names = if greek { ["gamma", "beta"] } else { ["weight", "bias"] };
    let mut file = File::new();
    add(&mut file, "bert.embeddings.word_embeddings.weight", &[VOCABULARY, D], 0.0);
    add(&mut file, "bert.embeddings.position_embeddings.weight", &[PLACES, D], 0.0);
    add(&mut file, "bert.embeddings.token_type_embeddings.weight", &[2, D], 0.0);
    norm(&mut file, "bert.embeddings.LayerNorm", names);
    for layer in 0..LAYERS {
        let name = format!("bert.encoder.layer.{layer}");
        for (part, to, from) in [
            ("attention.self.query", D, D),
            ("attention.self.key", D, D),
            ("attention.self.value", D, D),
            ("attention.output.dense", D, D),
            ("intermediate.dense", INNER, D),
            ("output.dense", D, INNER),
        ] {
            add(&mut file, format!("{name}.{part}.weight"), &[to, from], 0.0);
            add(&mut file, format!("{name}.{part}.bias"), &[to], 0.0);
        }
        norm(&mut file, &format!("{name}.attention.output.LayerNorm"), names);
        norm(&mut file, &format!("{name}.output.LayerNorm"), names);
    }
    add(&mut file, "bert.pooler.dense.weight", &[D, D], 0.0);
    add(&mut file, "bert.pooler.dense.bias", &[D], 0.0);
    add(&mut file, "cls.predictions.transform.dense.weight", &[D, D], 0.0);
    add(&mut file, "cls.predictions.transform.dense.bias", &[D], 0.0);
    norm(&mut file, "cls.predictions.transform.LayerNorm", names);
    add(&mut file, "cls.predictions.bias", &[VOCABULARY], 0.0);
    file
}

fn distilbert() -> File {
    let mut file = File::new();
    add(&mut file, "distilbert.embeddings.word_embeddings.weight", &[VOCABULARY, D], 0.0);
    add(&mut file, "distilbert.embeddings.position_embeddings.weight", &[PLACES, D], 0.0);
    norm(&mut file, "distilbert.embeddings.LayerNorm", ["weight", "bias"]);
    for layer in 0..LAYERS {
        let name = format!("distilbert.transformer.layer.{layer}");
        for part in ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"] {
            add(&mut file, format!("{name}.{part}.weight"), &[D, D], 0.0);
            add(&mut file, format!("{name}.{part}.bias"), &[D], 0.0);
        }
        for (part, to, from) in [("ffn.lin1", INNER, D), ("ffn.lin2", D, INNER)] {
            add(&mut file, format!("{name}.{part}.weight"), &[to, from], 0.0);
            add(&mut file, format!("{name}.{part}.bias"), &[to], 0.0);
        }
        norm(&mut file, &format!("{name}.sa_layer_norm"), ["weight", "bias"]);
        norm(&mut file, &format!("{name}.output_layer_norm"), ["weight", "bias"]);
    }
    file
}

fn bytes(file: &File, dtype: Dtype) -> Vec<u8> {
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = (file.iter())
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|&x| match dtype {
                Dtype::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
                Dtype::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
                _ => x.to_le_bytes().to_vec(),
            });
            (name.clone(), shape.clone(), bytes.collect())
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).expect("it fills its shape"))
    });
    safetensors::serialize(views.collect::<Vec<_>>(), None).expect("it is a file")
}

fn open(bytes: &[u8], config: Option<&str>) -> Result<Model, String> {
    let length = header_bytes(bytes, bytes.len() as u64).map_err(|e| e.to_string())?;
    Model::open(&bytes[..length as usize], bytes.len() as u64, config).map_err(|e| e.to_string())
}

/// Logits `[N, V]` of the model that a file becomes, in f64 on the CPU.
fn logits(bytes: &[u8], opened: &Model, tokens: &[u32]) -> Vec<f64> {
    let mut inputs = BTreeMap::from([("tokens".to_owned(), Data::Index(tokens.to_vec()))]);
    for piece in &opened.pieces {
        let parts: Vec<&[u8]> = piece.ranges().map(|range| &bytes[range.start as usize..range.end as usize]).collect();
        let values = match piece.convert(&parts).expect("it converts") {
            Numbers::Single(x) => x.into_iter().map(f64::from).collect(),
            Numbers::Half(x) => x.into_iter().map(|x| half::f16::from_bits(x).to_f64()).collect(),
        };
        inputs.insert(piece.name.clone(), Data::Real(values));
    }
    let mut g = Graph::new();
    let node = g.input("tokens", TensorType::u32(&[1, tokens.len()]), Category::Activations);
    let built = network(&mut g, &opened.config, &Tokens { tokens: node, source: None, seed: None }, 0);
    g.output("logits", built.logits);
    cpu::run(&g, &inputs, &|| false).expect("it runs")["logits"].real().to_vec()
}

/// Plain arithmetic on rows of numbers.
struct Plain<'a> {
    file: &'a File,
    epsilon: f64,
}

type Rows = Vec<Vec<f64>>;

impl Plain<'_> {
    fn get(&self, name: &str) -> Vec<f64> {
        self.file[name].1.iter().map(|&x| f64::from(x)).collect()
    }

    fn row(&self, name: &str, row: usize) -> Vec<f64> {
        self.get(name)[row * D..(row + 1) * D].to_vec()
    }

    /// A product stored `[in, out]`, or `[out, in]` where `torch`.
    fn linear(&self, name: &str, x: &Rows, torch: bool) -> Rows {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let (from, to) = (x[0].len(), b.len());
        let weight = |i: usize, o: usize| if torch { w[o * from + i] } else { w[i * to + o] };
        x.iter()
            .map(|x| (0..to).map(|o| b[o] + (0..from).map(|i| x[i] * weight(i, o)).sum::<f64>()).collect())
            .collect()
    }

    fn norm(&self, name: &str, x: &Rows) -> Rows {
        let either = |a: &str, b: &str| {
            let first = format!("{name}.{a}");
            if self.file.contains_key(&first) { self.get(&first) } else { self.get(&format!("{name}.{b}")) }
        };
        let (gain, bias) = (either("weight", "gamma"), either("bias", "beta"));
        x.iter()
            .map(|x| {
                let mean = x.iter().sum::<f64>() / x.len() as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
                let scale = 1.0 / (variance + self.epsilon).sqrt();
                (0..x.len()).map(|d| (x[d] - mean) * scale * gain[d] + bias[d]).collect()
            })
            .collect()
    }

    fn attend(q: &Rows, k: &Rows, v: &Rows, causal: bool) -> Rows {
        let (n, dim) = (q.len(), D / HEADS);
        let mut out = vec![vec![0.0; D]; n];
        for h in 0..HEADS {
            for i in 0..n {
                let keys = if causal { i + 1 } else { n };
                let score = |j: usize| (0..dim).map(|d| q[i][h * dim + d] * k[j][h * dim + d]).sum::<f64>();
                let weights: Vec<f64> = (0..keys).map(|j| (score(j) / (dim as f64).sqrt()).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..dim {
                    out[i][h * dim + d] = (0..keys).map(|j| weights[j] / total * v[j][h * dim + d]).sum();
                }
            }
        }
        out
    }

    /// Hidden states times the words.
    fn words(&self, name: &str, x: &Rows) -> Rows {
        let dot = |x: &[f64], word: usize| self.row(name, word).iter().zip(x).map(|(a, b)| a * b).sum();
        x.iter().map(|x| (0..VOCABULARY).map(|word| dot(x, word)).collect()).collect()
    }

    fn gpt2(&self, prefix: &str, tokens: &[u32]) -> Rows {
        let name = |part: &str| format!("{prefix}{part}");
        let mut x: Rows = (tokens.iter().enumerate())
            .map(|(at, &token)| sum(&self.row(&name("wte.weight"), token as usize), &self.row(&name("wpe.weight"), at)))
            .collect();
        for layer in 0..LAYERS {
            let name = |part: &str| format!("{prefix}h.{layer}.{part}");
            let all = self.linear(&name("attn.c_attn"), &self.norm(&name("ln_1"), &x), false);
            let third = |t: usize| all.iter().map(|row| row[t * D..(t + 1) * D].to_vec()).collect::<Rows>();
            let mixed = Self::attend(&third(0), &third(1), &third(2), true);
            x = sums(&x, &self.linear(&name("attn.c_proj"), &mixed, false));
            let inner = self.linear(&name("mlp.c_fc"), &self.norm(&name("ln_2"), &x), false);
            let gelu =
                |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
            x = sums(&x, &self.linear(&name("mlp.c_proj"), &each(&inner, gelu), false));
        }
        self.words(&name("wte.weight"), &self.norm(&name("ln_f"), &x))
    }

    /// BERT and DistilBERT, whose parts of a layer are given in the order query, key, value, out, norm, up, down, norm.
    fn bert(&self, prefix: &str, layer_name: &str, parts: [&str; 8], tokens: &[u32]) -> Rows {
        let name = |part: &str| format!("{prefix}embeddings.{part}");
        let types = name("token_type_embeddings.weight");
        let mut x: Rows = (tokens.iter().enumerate())
            .map(|(at, &token)| {
                let word = self.row(&name("word_embeddings.weight"), token as usize);
                let x = sum(&word, &self.row(&name("position_embeddings.weight"), at));
                if self.file.contains_key(&types) { sum(&x, &self.row(&types, 0)) } else { x }
            })
            .collect();
        x = self.norm(&name("LayerNorm"), &x);
        for layer in 0..LAYERS {
            let name = |part: usize| format!("{prefix}{layer_name}.{layer}.{}", parts[part]);
            let [q, k, v] = [0, 1, 2].map(|part| self.linear(&name(part), &x, true));
            let mixed = self.linear(&name(3), &Self::attend(&q, &k, &v, false), true);
            x = self.norm(&name(4), &sums(&x, &mixed));
            let inner = each(&self.linear(&name(5), &x, true), |x| x * normal(x));
            x = self.norm(&name(7), &sums(&x, &self.linear(&name(6), &inner, true)));
        }
        x
    }
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn sums(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| sum(a, b)).collect()
}

fn each(x: &Rows, f: impl Fn(f64) -> f64) -> Rows {
    x.iter().map(|row| row.iter().map(|&x| f(x)).collect()).collect()
}

/// The normal distribution function, by Simpson's rule.
fn normal(x: f64) -> f64 {
    let (steps, h) = (2000, x / 2000.0);
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let inner: f64 = (1..steps).map(|i| density(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    0.5 + h / 3.0 * (density(0.0) + inner + density(x))
}

fn assert_close(got: &[f64], want: &Rows, limit: f64) {
    let want: Vec<f64> = want.concat();
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let size: f64 = want.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!(size > 0.0 && error <= limit * size, "rms ratio {}", error / size);
}

const TOKENS: [u32; 7] = [3, 28, 0, 11, 11, 5, 17];
const BERT_PARTS: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];
const BERT_CONFIG: &str = r#"{"model_type": "bert", "num_attention_heads": 3, "hidden_act": "gelu"}"#;

#[test]
fn gpt2_files_give_their_logits() {
    for prefix in ["", "transformer."] {
        let file = gpt2(prefix);
        let bytes = bytes(&file, Dtype::F32);
        let opened = open(&bytes, Some(r#"{"model_type": "gpt2", "n_head": 3, "n_embd": 12}"#)).unwrap();
        assert_eq!(opened.passed_over.len(), LAYERS, "{:?}", opened.passed_over);
        let want = Plain { file: &file, epsilon: 1e-5 }.gpt2(prefix, &TOKENS);
        assert_close(&logits(&bytes, &opened, &TOKENS), &want, 1e-9);
    }
}

#[test]
fn bert_files_say_masked_words() {
    for greek in [false, true] {
        let file = bert(greek);
        let bytes = bytes(&file, Dtype::F32);
        let opened = open(&bytes, Some(BERT_CONFIG)).unwrap();
        let plain = Plain { file: &file, epsilon: 1e-12 };
        let x = plain.bert("bert.", "encoder.layer", BERT_PARTS, &TOKENS);
        let x = each(&plain.linear("cls.predictions.transform.dense", &x, true), |x| x * normal(x));
        let x = plain.norm("cls.predictions.transform.LayerNorm", &x);
        let bias = plain.get("cls.predictions.bias");
        let words = plain.words("bert.embeddings.word_embeddings.weight", &x);
        let want: Rows = words.iter().map(|row| sum(row, &bias)).collect();
        // The error function is an approximation to 1.5e-7.
        assert_close(&logits(&bytes, &opened, &TOKENS), &want, 1e-5);
    }
}

#[test]
fn distilbert_files_give_their_hidden_states() {
    let file = distilbert();
    let bytes = bytes(&file, Dtype::F32);
    let opened = open(&bytes, Some(r#"{"model_type": "distilbert", "n_heads": 3, "activation": "gelu"}"#)).unwrap();
    let parts = [
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    ];
    let plain = Plain { file: &file, epsilon: 1e-12 };
    let x = plain.bert("distilbert.", "transformer.layer", parts, &TOKENS);
    let want = plain.words("distilbert.embeddings.word_embeddings.weight", &x);
    assert_close(&logits(&bytes, &opened, &TOKENS), &want, 1e-5);
}

#[test]
fn half_precision_is_read() {
    for (dtype, limit) in [(Dtype::F16, 2e-3), (Dtype::BF16, 2e-2)] {
        let file = gpt2("");
        let bytes = bytes(&file, dtype);
        let opened = open(&bytes, Some(r#"{"n_head": 3}"#)).unwrap();
        let want = Plain { file: &file, epsilon: 1e-5 }.gpt2("", &TOKENS);
        assert_close(&logits(&bytes, &opened, &TOKENS), &want, limit);
    }
}

#[test]
fn a_file_that_does_not_fit_is_refused_by_name() {
    let heads = Some(r#"{"n_head": 3}"#);
    let refused = |file: &File, config: Option<&str>| open(&bytes(file, Dtype::F32), config).unwrap_err();

    let mut file = gpt2("");
    file.remove("h.1.mlp.c_proj.weight");
    assert!(refused(&file, heads).contains("missing: h.1.mlp.c_proj.weight"));

    let mut file = gpt2("");
    add(&mut file, "h.0.attn.rotary", &[4], 0.0);
    assert!(refused(&file, heads).contains("no model known here: h.0.attn.rotary"));

    let mut file = gpt2("");
    add(&mut file, "h.0.mlp.c_proj.weight", &[D, INNER], 0.0);
    assert!(refused(&file, heads).contains("h.0.mlp.c_proj.weight is [12, 20]; it takes [20, 12]"));

    assert!(refused(&gpt2(""), Some(r#"{"n_head": 5}"#)).contains("heads: 5 is not allowed"));
    assert!(refused(&gpt2(""), Some(r#"{"model_type": "llama"}"#)).contains("\"llama\""));
    assert!(refused(&gpt2(""), Some(r#"{"n_head": 3, "activation_function": "swish"}"#)).contains("swish"));
    assert!(refused(&gpt2(""), Some("[")).starts_with("config.json: "));
    assert!(refused(&bert(false), None).contains("how many heads"));
    let other = File::from([("conv.weight".to_owned(), (vec![1], vec![0.0]))]);
    assert!(refused(&other, None).contains("conv.weight"));

    // Layers numbered as if there were very many: refused before anything is made for them.
    let mut file = gpt2("");
    add(&mut file, "h.4000000000.ln_1.weight", &[1], 0.0);
    assert!(refused(&file, heads).contains("layers: 4000000001"));

    for (setting, name) in [
        (r#""tie_word_embeddings": false"#, "tie_word_embeddings"),
        (r#""is_decoder": true"#, "is_decoder"),
        (r#""position_embedding_type": "relative_key""#, "position_embedding_type"),
        (r#""scale_attn_by_inverse_layer_idx": true"#, "scale_attn_by_inverse_layer_idx"),
    ] {
        let config = format!(r#"{{"n_head": 3, {setting}}}"#);
        assert!(refused(&gpt2(""), Some(&config)).contains(name), "{name}");
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let with = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.resize(bytes.len() + data, 0);
        open(&bytes, None).unwrap_err()
    };
    let one = |offsets: &str, shape: &str| {
        format!(r#"{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
    };
    for (header, words) in [
        ("{".repeat(20), "its header: "),
        (format!(r#"{{"a": {}1{}}}"#, "[".repeat(500), "]".repeat(500)), "its header: "),
        ("[]".to_owned(), "its header: "),
        (one("[0, 16]", "[2, 3]"), "tensor a: [2, 3] does not fill bytes 0 to 16"),
        (one("[16, 0]", "[4]"), "does not fill"),
        (one("[4, 20]", "[4]"), "tensor a leaves bytes before it unused"),
        (one("[0, 16]", "[4294967295, 4294967295, 4294967295]"), "does not fill"),
        (one("[0, 18446744073709551615]", "[4]"), "does not fill"),
        (one("[0, 16]", "[-4]"), "its header: "),
        (one("[0, 16]", "[4]").replace("F32", "F3"), "unknown variant `F3`"),
        (
            one("[0, 16]", "[4]").replace("}}", r#"}, "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}"#),
            "tensor a stands there twice",
        ),
        (
            one("[0, 16]", "[4]").replace("}}", r#"}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}"#),
            "tensor b lies over another",
        ),
        (one("[0, 12]", "[3]"), "and 12 more"),
        (one("[0, 16]", "[4]"), "of no kind known here (GPT-2, BERT, DistilBERT): it holds a"),
    ] {
        let said = with(&header, 16);
        assert!(said.contains(words), "{header}: {said}");
    }
}

#[test]
fn broken_files_are_refused() {
    let whole = bytes(&gpt2(""), Dtype::F32);
    let heads = Some(r#"{"n_head": 3}"#);
    for cut in [0, 7, 8, 100, whole.len() - 1] {
        assert!(open(&whole[..cut], heads).is_err(), "{cut}");
    }
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(open(&huge, heads).unwrap_err().contains("18446744073709551615"));

    let mut file = gpt2("");
    file.get_mut("ln_f.bias").unwrap().1[3] = f32::NAN;
    let bytes = bytes(&file, Dtype::F32);
    let opened = open(&bytes, heads).unwrap();
    let piece = opened.pieces.iter().find(|piece| piece.name == "norm.bias").unwrap();
    let range = piece.ranges().next().unwrap();
    let part = &bytes[range.start as usize..range.end as usize];
    assert!(piece.convert(&[part]).unwrap_err().to_string().contains("ln_f.bias holds numbers that are not finite"));
    assert!(piece.convert(&[&part[4..]]).unwrap_err().to_string().contains("not read whole"));
}
