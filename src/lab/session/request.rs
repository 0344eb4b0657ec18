//! What can be asked for, as plain data, and the graph of it.

use super::LabError;
use crate::attention::{self, Params, Request, Setup, Variant};
use crate::gpu::Category;
use crate::graph::ops::matmul::Matmul;
use crate::graph::{Graph, TensorType};
use serde::Deserialize;
use std::collections::BTreeMap;

/// One variant at one setup; fields as in the permalink.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    pub variant: String,
    #[serde(default)]
    pub params: Params,
    #[serde(default)]
    pub causal: bool,
    #[serde(default = "one")]
    pub batch: usize,
    #[serde(default = "one")]
    pub heads: usize,
    pub length: usize,
    /// Number of keys; the length where it is not given.
    #[serde(default)]
    pub keys: Option<usize>,
    #[serde(default = "head_dim")]
    pub dim: usize,
    /// Also gradients, from `g`, the gradient of the output.
    #[serde(default)]
    pub backward: bool,
    /// Reads `key_padding`.
    #[serde(default)]
    pub padding: bool,
    #[serde(default = "seed")]
    pub seed: u64,
    /// Extra tensors that the graph is built from, such as the mask of `custom`; others are written to the run.
    #[serde(default)]
    pub tensors: BTreeMap<String, Vec<f32>>,
}

fn one() -> usize {
    1
}

fn head_dim() -> usize {
    64
}

fn seed() -> u64 {
    1
}

/// Extra tensors that were drawn for a variant, by name.
type Drawn = BTreeMap<&'static str, Vec<f32>>;

impl RunRequest {
    /// The graph, and the extra tensors as drawn from the seed.
    pub(super) fn graph(&self, tensor_bytes: u64) -> Result<(Graph, Drawn), LabError> {
        let Some(variant) = attention::find(&self.variant) else {
            let known: Vec<&str> = attention::ALL.iter().map(|v| v.id).collect();
            let message = format!("there is no variant `{}`; there are {}", self.variant, known.join(", "));
            return Err(LabError::invalid(message));
        };
        if let Some(unknown) = self.params.0.keys().find(|name| !variant.params.iter().any(|p| p.name == **name)) {
            let known: Vec<&str> = variant.params.iter().map(|p| p.name).collect();
            let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(LabError::invalid(format!("{} has no parameter `{unknown}`; it has {takes}", variant.id)));
        }
        let mut setup = Setup {
            batch: self.batch,
            heads: self.heads,
            length: self.length,
            keys: self.keys.unwrap_or(self.length),
            dim: self.dim,
            causal: self.causal,
            params: self.params.clone(),
            seed: self.seed,
            structure: Default::default(),
        };
        if let Some(refusal) = variant.refusal(&setup, tensor_bytes) {
            return Err(refusal.into());
        }
        self.give(variant, &mut setup)?;
        // What is given may not be what the method takes.
        if let Some(refusal) = variant.refusal(&setup, tensor_bytes) {
            return Err(refusal.into());
        }
        let request = Request { grad: self.backward, key_padding: self.padding, ..Request::default() };
        Ok((variant.build(&setup, request).0, variant.drawn(&setup)))
    }

    /// Puts the given tensors in their place.
    fn give(&self, variant: &Variant, setup: &mut Setup) -> Result<(), LabError> {
        let extras = (variant.extras)(setup);
        for (name, values) in &self.tensors {
            let Some(extra) = extras.iter().find(|e| e.name == *name && e.is_structure()) else {
                let known: Vec<&str> = extras.iter().filter(|e| e.is_structure()).map(|e| e.name).collect();
                let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message = format!("{} is built from no tensor `{name}`; it takes {takes}", variant.id);
                return Err(LabError::invalid(message));
            };
            let values = extra.structure_of(values).map_err(|what| LabError::invalid(format!("tensor {what}")))?;
            setup.structure.given.insert(name.clone(), values);
        }
        Ok(())
    }
}

/// A single op.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum OpRequest {
    /// `c = a b`: a `[batch, m, k]` (stored `[batch, k, m]` with `trans_a`), b `[batch, k, n]` (`[batch, n, k]` with
    /// `trans_b`), c `[batch, m, n]`.
    Matmul {
        m: usize,
        n: usize,
        k: usize,
        #[serde(default = "one")]
        batch: usize,
        #[serde(default)]
        trans_a: bool,
        #[serde(default)]
        trans_b: bool,
    },
    /// `y`, the softmax of each row of x `[rows, cols]`.
    Softmax { rows: usize, cols: usize },
    /// `y`, each row of x `[rows, cols]` normalised, times `gain` plus `bias`, both `[cols]`.
    LayerNorm {
        rows: usize,
        cols: usize,
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
}

fn epsilon() -> f64 {
    1e-5
}

impl OpRequest {
    /// Reads a request for the op `name` from its other fields.
    ///
    /// # Errors
    /// When there is no such op, or a field is missing, unknown or of another kind.
    pub fn parse(name: &str, fields: serde_json::Value) -> Result<Self, LabError> {
        let serde_json::Value::Object(mut fields) = fields else {
            return Err(LabError::invalid("the sizes of an op are an object"));
        };
        fields.insert("op".into(), name.into());
        serde_json::from_value(fields.into()).map_err(|e| LabError::invalid(format!("{name}: {e}")))
    }

    pub(super) fn graph(&self) -> Result<Graph, LabError> {
        let mut g = Graph::new();
        let input = |g: &mut Graph, name: &str, shape: &[usize]| {
            // Far below what an address can hold, so that no product of sizes overflows.
            let elements = shape.iter().fold(1u128, |all, &extent| all.saturating_mul(extent as u128));
            if elements == 0 || elements > 1 << 31 {
                return Err(LabError::invalid(format!("{name} of shape {shape:?} holds nothing, or too much")));
            }
            Ok(g.input(name, TensorType::f32(shape), Category::Activations))
        };
        match *self {
            Self::Matmul { m, n, k, batch, trans_a, trans_b } => {
                let a = input(&mut g, "a", &if trans_a { [batch, k, m] } else { [batch, m, k] })?;
                let b = input(&mut g, "b", &if trans_b { [batch, n, k] } else { [batch, k, n] })?;
                let c = g.matmul_with(Matmul { trans_a, trans_b, ..Matmul::default() }, a, b);
                g.output("c", c);
            }
            Self::Softmax { rows, cols } => {
                let x = input(&mut g, "x", &[rows, cols])?;
                let y = g.softmax(x);
                g.output("y", y);
            }
            Self::LayerNorm { rows, cols, epsilon } => {
                let x = input(&mut g, "x", &[rows, cols])?;
                let gain = input(&mut g, "gain", &[cols])?;
                let bias = input(&mut g, "bias", &[cols])?;
                let y = g.layer_norm(x, gain, bias, epsilon);
                g.output("y", y);
            }
        }
        Ok(g)
    }
}
