//! The variants: one file each, and the registry that everything else reads.

mod params;

pub use params::{Param, ParamError, ParamKind, Params, Value};

use crate::graph::{Graph, Node};
use crate::pattern::{BlockList, Rule};
use std::collections::BTreeMap;

/// The survey's taxonomy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Full,
    FixedPattern,
    LearnedPattern,
    LowRank,
    Kernel,
    Recurrent,
}

/// Where a variant comes from.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Paper {
    pub title: &'static str,
    pub authors: &'static str,
    pub year: u16,
    pub arxiv: &'static str,
}

/// Whether a variant can forbid looking ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Causal {
    Both,
    /// Bidirectional only, and why.
    Never(&'static str),
    Always,
}

/// The shapes and settings of one call: q `[B, H, N, D]`, k and v `[B, H, M, D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    pub batch: usize,
    pub heads: usize,
    pub length: usize,
    pub keys: usize,
    pub dim: usize,
    pub causal: bool,
    pub params: Params,
    /// Draws extra tensors that are not given.
    pub seed: u64,
}

impl Setup {
    /// B·H, the number of independent heads.
    pub fn instances(&self) -> usize {
        self.batch * self.heads
    }

    /// The softmax scale, 1/√D.
    pub fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// How an extra tensor is drawn when the caller does not give it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Zeros,
    /// Uniform on ±bound.
    Uniform(f32),
    /// Normal with this standard deviation.
    Normal(f32),
}

/// A tensor that a variant reads besides q, k and v: whatever would be learned or drawn.
#[derive(Clone, Debug)]
pub struct Extra {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub role: &'static str,
    pub differentiable: bool,
    pub init: Init,
}

/// The inputs of a variant's graph.
#[derive(Clone, Debug)]
pub struct Inputs<T> {
    pub q: T,
    pub k: T,
    pub v: T,
    /// `[B, M]`, 1 = real, 0 = padding; u32 in a graph.
    pub key_padding: Option<T>,
    pub extras: BTreeMap<&'static str, T>,
}

/// Why a variant cannot serve a request, in words for the visitor, with the nearest that it can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{reason}")]
pub struct Refusal {
    pub reason: String,
    /// The nearest request that works, in words.
    pub nearest: Option<String>,
}

/// The effective matrix in factored form: `A[i, j] = may(i, j) · f(left_i · right_j, row_i)`, so that any cell of it can be
/// had without an N×N buffer.
#[derive(Clone, Debug)]
pub struct Effective {
    /// `[B, H, N, R]`.
    pub left: Node,
    /// `[B, H, M, R]`.
    pub right: Node,
    /// `[B, H, N]`, as `kind` says; none for `Plain`.
    pub row: Option<Node>,
    pub kind: EffectiveKind,
    /// Cells outside the rule are zero.
    pub rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum EffectiveKind {
    /// `exp(x - row)`: softmax weights from scores and their log-sum-exp. `x` alone is the score.
    Softmax,
    /// `x / row`.
    Ratio,
    /// `x`.
    Plain,
}

/// One attention method: everything the lab knows of it.
pub struct Variant {
    pub id: &'static str,
    pub name: &'static str,
    pub family: Family,
    pub paper: Paper,
    /// One paragraph for a newcomer: what it does, what it costs, when to use it and when not.
    pub summary: &'static str,
    /// As the paper states it, e.g. `O(N^2 D)`.
    pub complexity: &'static str,
    /// Theoretical exponent of time in N.
    pub exponent: f64,
    /// Computes softmax attention exactly.
    pub exact: bool,
    pub causal: Causal,
    pub params: &'static [Param],
    /// Tensors read besides q, k, v, for this setup.
    pub extras: fn(&Setup) -> Vec<Extra>,
    /// Refuses what the method cannot do. Called before a graph is built; `Variant::refusal` adds what holds for all.
    pub check: fn(&Setup) -> Result<(), Refusal>,
    /// Builds the forward graph; `[B, H, N, D]`.
    pub graph: fn(&mut Graph, &Inputs<Node>, &Setup) -> Node,
    /// Builds what the effective matrix is made of.
    pub effective: fn(&mut Graph, &Inputs<Node>, &Setup) -> Effective,
    /// The pattern, where the method has one (`None`: every pair contributes).
    pub rule: fn(&Setup) -> Option<Rule>,
    /// The block list that the kernel really visits, where it visits blocks.
    pub blocks: fn(&Setup) -> Option<BlockList>,
    /// The naive definition, `[B, H, N, D]`, in f64 and in the recording scalar.
    pub reference: Reference,
}

/// A naive definition for both scalars; made by `Reference::new(naive, naive)`.
#[derive(Clone, Copy)]
pub struct Reference {
    pub values: fn(&Inputs<Vec<f64>>, &Setup) -> Vec<f64>,
    pub gradients: fn(&Inputs<Vec<crate::reference::Tape>>, &Setup) -> Vec<crate::reference::Tape>,
}

/// Every variant, in the survey's order.
pub static ALL: &[&Variant] = &[];

/// The variant with this id.
pub fn find(id: &str) -> Option<&'static Variant> {
    ALL.iter().copied().find(|v| v.id == id)
}
