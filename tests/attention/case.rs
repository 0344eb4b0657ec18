//! One call of a variant with seeded random inputs, and the ways to compute it.

use crate::backends::again;
use crate::close::Random;
use attention_lab::attention::{
    self, Causal, EffectiveFactors, Inputs, OwnLoss, Params, Request, Setup, Value, Variant,
};
use attention_lab::graph::{Data, Dtype, Float, Graph, Real, cpu};
use attention_lab::reference::{self, Tape};
use std::collections::BTreeMap;

pub type Values<R> = BTreeMap<String, Data<R>>;

/// A variant, a setup, and values of every input (rounded to f32, so that all precisions start from the same numbers).
#[derive(Clone)]
pub struct Case {
    pub variant: &'static Variant,
    pub setup: Setup,
    pub request: Request,
    pub values: Values<f64>,
}

/// Parameters that are worth a run of their own, small enough for short sequences; the first are usual ones.
pub fn configurations(id: &str) -> &'static [&'static str] {
    match id {
        "sliding_window" => &[
            r#"{"window": 16}"#,
            r#"{"window": 5, "dilation": 3}"#,
            r#"{"window": 1}"#,
            r#"{"window": 8, "global_tokens": 2, "dilation": 2}"#,
            r#"{"window": 20, "links": "random"}"#,
        ],
        "star" => &[
            "{}",
            r#"{"radius": 3, "relay": "mean"}"#,
            r#"{"radius": 2, "neighbours": "random"}"#,
            r#"{"radius": 2, "relay": "none"}"#,
        ],
        "sparse_strided" => &[
            r#"{"stride": 8}"#,
            r#"{"stride": 5, "window": "closed"}"#,
            r#"{"stride": 6, "part": "by_head"}"#,
            r#"{"stride": 7, "part": "strided"}"#,
            r#"{"stride": 6, "part": "by_head", "links": "random"}"#,
        ],
        "sparse_fixed" => &[
            r#"{"block": 12, "columns": 4}"#,
            r#"{"block": 7, "columns": 3, "sub_blocks": false}"#,
            r#"{"block": 8, "columns": 2, "part": "by_head"}"#,
            r#"{"block": 12, "columns": 4, "links": "random"}"#,
        ],
        "cascade" => &[
            r#"{"layer": 2}"#,
            r#"{"layer": 3, "form": "dilated"}"#,
            r#"{"layer": 3, "form": "dilated_memory", "kernel": 4, "growth": 3}"#,
            r#"{"layer": 2, "links": "random"}"#,
        ],
        "logsparse" => &[r#"{"local": 1}"#, r#"{"local": 5, "restart": 24}"#, r#"{"local": 3, "links": "random"}"#],
        "blockbert" => &[r#"{"blocks": 3}"#, r#"{"blocks": 5, "order": "random"}"#],
        "longformer" => &[
            r#"{"window": 16}"#,
            r#"{"window": 5, "dilation": 2, "global_tokens": 20}"#,
            r#"{"window": 16, "links": "random"}"#,
        ],
        "bigbird" => &[
            r#"{"block": 8, "random": 2}"#,
            r#"{"block": 5, "window": 1, "random": 0, "globals": "etc", "global_blocks": 1}"#,
        ],
        "custom" => &[
            "{}",
            r#"{"rule": "j == i || rand(i, j + 1000 * h) < 0.2 || j == b", "block": 16}"#,
            r#"{"rule": "i - j > 3 && (i + j) % 3 == h", "form": "gather"}"#,
            r#"{"rule": "abs(i - j) % 7 < 2 * (i % 3)", "form": "masked", "block": 11}"#,
        ],
        "linformer" => &[
            r#"{"k": 16}"#,
            r#"{"k": 9, "sharing": "key_value"}"#,
            r#"{"k": 5, "sharing": "none"}"#,
            r#"{"k": 7, "project": "random"}"#,
        ],
        "linear" => &["{}", r#"{"feature_map": "relu"}"#],
        "performer" => &[r#"{"features": 16}"#, r#"{"features": 24, "feature_map": "relu", "orthogonal": false}"#],
        "synthesizer" => &[
            "{}",
            r#"{"kind": "mixture", "rank": 2}"#,
            r#"{"kind": "random"}"#,
            r#"{"kind": "factorized_dense", "columns": 9}"#,
        ],
        "nystromformer" => &[
            r#"{"landmarks": 8, "conv_kernel": 5}"#,
            r#"{"landmarks": 5, "iterations": 12, "conv_kernel": 0, "choose": "random"}"#,
        ],
        "adaptive_span" => &[
            r#"{"max_span": 24, "ramp": 6}"#,
            r#"{"max_span": 40, "ramp": 15, "spans": "random"}"#,
            r#"{"max_span": 9, "ramp": 3, "itself": false}"#,
        ],
        "sparsebert" => &[
            "{}",
            r#"{"form": "log", "temperature": 70, "diagonal": false}"#,
            r#"{"structure": "pair"}"#,
            r#"{"structure": "pair", "form": "log", "diagonal": false}"#,
            r#"{"phase": "deployed", "sparsity": 80}"#,
            r#"{"phase": "deployed", "structure": "pair", "sparsity": 85, "diagonal": false, "mask": "random"}"#,
        ],
        "entmax" => &["{}", r#"{"alpha": "1.5"}"#, r#"{"alpha": "2"}"#],
        "bahdanau" => &[r#"{"units": 7}"#],
        "lstm" => &["{}", r#"{"forget_bias": 0}"#],
        "transformer_xl" => &[
            r#"{"segment": 16, "memory": 16}"#,
            r#"{"segment": 9, "memory": 21}"#,
            r#"{"segment": 30, "memory": 0}"#,
            r#"{"segment": 14, "memory": 9, "positions": "random"}"#,
        ],
        "compressive" => &[
            r#"{"segment": 16, "memory_segments": 1, "compressed": 16, "rate": 3}"#,
            r#"{"segment": 10, "memory_segments": 2, "compressed": 9, "rate": 2, "compress": "conv"}"#,
            r#"{"segment": 12, "memory_segments": 0, "compressed": 5, "rate": 4}"#,
            r#"{"segment": 8, "memory_segments": 1, "compressed": 6, "rate": 3, "compress": "random"}"#,
        ],
        "sinkhorn" => &[
            r#"{"block": 8}"#,
            r#"{"block": 5, "iterations": 4, "temperature": 60, "sort": "random"}"#,
            r#"{"block": 8, "cut": 2}"#,
        ],
        "routing" => &[r#"{"clusters": 4, "window": 10}"#, r#"{"clusters": 3, "window": 20, "choose": "random"}"#],
        "reformer" => &[
            r#"{"chunk": 8, "buckets": 6, "rounds": 2}"#,
            r#"{"chunk": 5, "buckets": 4, "rounds": 3, "hash": "random"}"#,
        ],
        "clustered" => &[
            r#"{"clusters": 6, "iterations": 3}"#,
            r#"{"clusters": 5, "bits": 40, "iterations": 2, "improved": true, "top": 4}"#,
        ],
        "funnel" => &["{}", r#"{"poolings": 2, "separate_first": false}"#, r#"{"pool": "random"}"#],
        "nsa" => &[
            r#"{"block": 8, "stride": 4, "select_block": 16, "select_count": 4, "window": 20, "group": 1}"#,
            r#"{"block": 6, "stride": 2, "select_block": 6, "select_count": 5, "window": 7, "group": 2, "compress": "learned"}"#,
            r#"{"block": 5, "stride": 5, "select_block": 10, "select_count": 5, "window": 1, "group": 1, "selection": "random"}"#,
        ],
        _ => &["{}"],
    }
}

/// The configurations that a variant takes with this setting of `causal`.
pub fn configurations_for(id: &str, causal: bool) -> impl Iterator<Item = &'static str> {
    configurations(id).iter().copied().filter(move |json| !(causal && json.contains("cut")))
}

/// Those with which it is tried whether something holds whatever a variant computes. On a second adapter one is enough: that all of
/// them compute there what they computed on the first is checked apart.
pub fn configurations_for_invariants(id: &str, causal: bool) -> impl Iterator<Item = &'static str> {
    configurations_for(id, causal).take(if again() { 1 } else { usize::MAX })
}

/// Whether what is read follows the data of the whole sequence, so that only what is *read* can be kept from looking ahead.
pub fn follows_data(id: &str) -> bool {
    ["routing", "reformer"].contains(&id)
}

/// RMS ratios that a variant's f32 may miss its f64 by.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub forward: f64,
    pub gradient: f64,
    /// The interpreter in f64 against the definition: the order of sums, and factors kept in f32 (1/√D).
    pub exact: f64,
    /// One form of the same call in f32 against another.
    pub alike: f64,
}

/// The usual tolerances; wider for an iterated inverse, which carries every rounding error on.
pub fn tolerance(id: &str) -> Tolerance {
    match id {
        // Normalised by turns, each time with the errors of the last.
        "sinkhorn" => Tolerance { forward: 1e-4, gradient: 1e-3, exact: 1e-6, alike: 1e-5 },
        "nystromformer" => Tolerance { forward: 1e-3, gradient: 1e-3, exact: 1e-5, alike: 1e-4 },
        // The sinusoid is a table in f32.
        "transformer_xl" | "compressive" => Tolerance { forward: 1e-5, gradient: 1e-4, exact: 1e-6, alike: 2e-6 },
        _ => Tolerance { forward: 1e-5, gradient: 1e-4, exact: 1e-7, alike: 2e-6 },
    }
}

/// How much larger than those of others the terms of a gradient are, where it may vanish: over one key a softmax has none, and
/// a mask that takes 10⁴ from scores, or leaves a thousandth of a weight, has that many times its rounding errors.
pub fn amplified(case: &Case, name: &str) -> f64 {
    let is_log = case.setup.params.0.get("form") == Some(&Value::Choice("log".into()));
    if case.variant.id == "sparsebert" && name == "dlogits" {
        if !is_log {
            1e4
        } else if case.setup.keys <= 2 {
            1e3
        } else {
            1.0
        }
    } else {
        1.0
    }
}

/// Whether the weights of a row must sum to 1.
pub fn sums_to_one(id: &str) -> bool {
    !["sparsebert", "linformer", "nystromformer", "compressive", "sinkhorn", "routing", "nsa"].contains(&id)
}

/// The parameters that make 70 tokens, of which the last 33 are padding, what `json` makes of 37: constants of a method that
/// depend on the length must be the same.
pub fn padded_parameters(id: &str, json: &'static str) -> &'static str {
    match (id, json) {
        // Segments of five tokens, and of eight.
        ("nystromformer", r#"{"landmarks": 8, "conv_kernel": 5}"#) => r#"{"landmarks": 14, "conv_kernel": 5}"#,
        ("nystromformer", _) => r#"{"landmarks": 9, "iterations": 12, "conv_kernel": 0, "choose": "random"}"#,
        _ => json,
    }
}

pub fn variant(id: &str) -> &'static Variant {
    attention::find(id).expect("ids come from the registry")
}

/// The settings of `causal` that a variant takes.
pub fn causalities(variant: &Variant) -> Vec<bool> {
    match variant.causal {
        Causal::Both => vec![false, true],
        Causal::Never(_) => vec![false],
        Causal::Always => vec![true],
    }
}

pub fn params(variant: &Variant, json: &str) -> Params {
    let object = serde_json::from_str::<serde_json::Value>(json).expect("JSON");
    Params::from_json(object.as_object().expect("an object"), variant.params).expect("parameters of this variant")
}

/// Shapes of a case; the rest follows.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub batch: usize,
    pub heads: usize,
    pub n: usize,
    pub m: usize,
    pub dim: usize,
}

impl Shape {
    /// Self-attention over `n` tokens, two batches, two heads, odd D: small, because software adapters take long to compile
    /// kernels that are written out for a large one.
    pub fn of(n: usize) -> Self {
        Self { batch: 2, heads: 2, n, m: n, dim: 3 }
    }
}

impl Case {
    pub fn new(id: &str, shape: Shape, causal: bool, json: &str, request: Request) -> Self {
        let variant = variant(id);
        let Shape { batch, heads, n, m, dim } = shape;
        let setup = Setup {
            batch,
            heads,
            length: n,
            keys: m,
            dim,
            causal,
            params: params(variant, json),
            seed: 11,
            structure: Default::default(),
        };
        assert_eq!(variant.refusal(&setup, u64::MAX), None);
        let mut random = Random(0x5eed ^ (n as u64) << 20 ^ (m as u64) << 8 ^ u64::from(causal));
        println!("{id} {shape:?} causal {causal} {json} {request:?}, seed {:#x}", random.0);
        let mut values = Values::new();
        for (name, ty) in variant.input_types(&setup, request) {
            let data = match ty.dtype {
                // Padding lies at the end, as it does in practice, and here and there, as it may.
                Dtype::U32 => {
                    Data::Index((0..ty.len()).map(|i| (i % m * 4 < m * 3 && random.below(8) > 0).into()).collect())
                }
                _ => Data::Real((0..ty.len()).map(|_| random.normal()).collect()),
            };
            values.insert(name, data);
        }
        Self { variant, setup, request, values }
    }

    /// Whether a variant takes M keys for N queries.
    pub fn takes(id: &str, shape: Shape, causal: bool) -> bool {
        match id {
            // Causal rows would be empty.
            _ if causal && shape.m < shape.n => false,
            // One state serves both sides.
            "linear" | "performer" | "routing" if causal => shape.m == shape.n,
            // Landmarks or blocks of one sequence; global tokens at the front of both.
            "nystromformer" | "bigbird" | "sinkhorn" | "reformer" => shape.m == shape.n,
            // What is remembered was a query's own token once; a network reads one sequence.
            "transformer_xl" | "compressive" | "nsa" | "rnn" | "lstm" | "gru" | "star" => shape.m == shape.n,
            "longformer" => shape.m >= shape.n,
            _ => true,
        }
    }

    pub fn label(&self) -> String {
        let s = &self.setup;
        format!("{} N {} M {} causal {} {:?}", self.variant.id, s.length, s.keys, s.causal, s.params.0)
    }

    pub fn graph(&self) -> Graph {
        self.variant.build(&self.setup, self.request).0
    }

    pub fn real(&self, name: &str) -> &[f64] {
        self.values[name].real()
    }

    /// Replaces the values of an input.
    pub fn set(&mut self, name: &str, data: Vec<f64>) {
        let rounded = data.into_iter().map(|x| f64::from(x as f32)).collect();
        assert_eq!(
            self.values.insert(name.into(), Data::Real(rounded)).expect("an input").len(),
            self.values[name].len()
        );
    }

    pub fn values_in<R: Float>(&self) -> Values<R> {
        let convert = |data: &Data<f64>| match data {
            Data::Real(x) => Data::Real(x.iter().map(|&x| R::from_f64(x)).collect()),
            Data::Index(x) => Data::Index(x.clone()),
        };
        self.values.iter().map(|(name, data)| (name.clone(), convert(data))).collect()
    }

    /// Every output on the CPU interpreter.
    pub fn on_cpu<R: Float>(&self) -> BTreeMap<String, Vec<f64>> {
        let outputs = cpu::run(&self.graph(), &self.values_in::<R>(), &|| false).expect("inputs fit the graph");
        outputs.into_iter().map(|(name, y)| (name, y.real().iter().map(|y| y.to_f64()).collect())).collect()
    }

    /// Inputs of the naive definition, in a scalar made from `values`.
    fn inputs<R: Real>(&self, mut values: impl FnMut(&str) -> Vec<R>) -> Inputs<Vec<R>> {
        let key_padding = self
            .request
            .key_padding
            .then(|| self.values["key_padding"].index().iter().map(|&x| R::from_f64(x.into())).collect());
        let extras = self.variant.extras_read(&self.setup, self.request);
        Inputs {
            q: values("q"),
            k: values("k"),
            v: values("v"),
            key_padding,
            extras: extras.iter().map(|e| (e.name, values(e.name))).collect(),
        }
    }

    /// The naive definition's output.
    pub fn naive(&self) -> Vec<f64> {
        (self.variant.reference.values)(&self.inputs(|name| self.real(name).to_vec()), &self.setup)
    }

    /// The naive definition's gradients, by the names of the graph's outputs.
    pub fn naive_gradients(&self) -> BTreeMap<String, Vec<f64>> {
        self.gradients_of(self.real("g"), |x| (self.variant.reference.gradients)(x, &self.setup))
    }

    /// The naive definition of a loss of the method's own, and its gradients.
    pub fn naive_loss(&self, own: &OwnLoss) -> (f64, BTreeMap<String, Vec<f64>>) {
        let loss = (own.reference.values)(&self.inputs(|name| self.real(name).to_vec()), &self.setup);
        (loss, self.gradients_of(&[1.0], |x| vec![(own.reference.gradients)(x, &self.setup)]))
    }

    fn gradients_of(
        &self,
        seed: &[f64],
        definition: impl FnOnce(&Inputs<Vec<Tape>>) -> Vec<Tape>,
    ) -> BTreeMap<String, Vec<f64>> {
        let mut names = vec!["q", "k", "v"];
        let extras = self.variant.extras_read(&self.setup, self.request);
        names.extend(extras.iter().map(|e| e.name));
        let values: Vec<&[f64]> = names.iter().map(|name| self.real(name)).collect();
        let gradients = reference::gradients(&values, seed, |variables| {
            let find = |name: &str| variables[names.iter().position(|n| *n == name).expect("an input")].clone();
            definition(&self.inputs::<Tape>(find))
        });
        let wanted = names
            .iter()
            .zip(gradients)
            .filter(|(name, _)| extras.iter().find(|e| e.name == **name).is_none_or(|e| e.differentiable));
        wanted.map(|(name, gradient)| (format!("d{name}"), gradient)).collect()
    }

    /// The effective matrix `[B, H, N, M]`, from factors computed in f32.
    pub fn effective(&self) -> Vec<f64> {
        let case = Self { request: Request { grad: false, effective: true, ..self.request }, ..self.clone() };
        let (graph, effective) = case.variant.build(&case.setup, case.request);
        let effective = effective.expect("it was asked for");
        let inputs = case.values_in::<f32>();
        let outputs = cpu::run(&graph, &inputs, &|| false).expect("inputs fit the graph");
        let factors = EffectiveFactors {
            left: outputs["effective_left"].real(),
            right: outputs["effective_right"].real(),
            row: outputs.get("effective_row").map(|row| row.real()),
            bias: inputs.get("bias").map(|bias| bias.real()),
            kind: effective.kind,
            rule: &effective.rule,
        };
        let padding = self.values.get("key_padding").map(|padding| padding.index());
        factors.dense(&self.setup, padding).into_iter().map(f64::from).collect()
    }
}
