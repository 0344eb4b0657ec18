//! The variants: one file each, and the registry that everything else reads.

mod build;
mod decisions;
mod draw;
mod effective;
mod forms;
mod links;
mod loss;
mod lots;
mod params;
pub(crate) mod recurrence;
mod reference;
mod restricted;
mod serial;
mod setup;
mod split;
mod strips;

pub use build::{Built, Request};
pub use decisions::{Decide, Decision, Form, Of};
pub use draw::{Extra, Init, NONE};
pub use effective::{Cell, Effective, EffectiveFactors, EffectiveKind};
pub use forms::{Formed, PatternForm, density_of};
pub use loss::OwnLoss;
pub use params::{Param, ParamError, ParamKind, Params, Value};
pub use reference::Reference;
pub use setup::{DEFAULT_TENSOR_BYTES, Refusal, Setup, Structure};

use crate::graph::{Dtype, Graph, Node};
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
    /// What there was before attention did without it.
    RecurrentNetwork,
}

/// Where a variant comes from.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Paper {
    pub title: &'static str,
    pub authors: &'static str,
    pub year: u16,
    /// Empty for what is older than arXiv.
    pub arxiv: &'static str,
}

impl Paper {
    /// Where it can be read, to be put behind its year; nothing for what is older than arXiv.
    pub fn place(&self) -> String {
        if self.arxiv.is_empty() { String::new() } else { format!(", arXiv:{}", self.arxiv) }
    }
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

impl Inputs<Node> {
    /// 1 for a real key and 0 for padding, f32 `[B, 1, M, 1]`, where there is padding.
    fn real_keys(&self, g: &mut Graph, s: &Setup) -> Option<Node> {
        self.key_padding.map(|padding| {
            let column = g.reshape(padding, &[s.batch, 1, s.keys, 1]);
            g.cast(column, Dtype::F32)
        })
    }

    /// `out` with zeros in the rows of padded queries. In self-attention key padding says it of queries too.
    fn without_padded_queries(&self, g: &mut Graph, out: Node, s: &Setup) -> Node {
        match self.real_keys(g, s) {
            Some(real) if s.is_of_itself() => g.mul(out, real),
            _ => out,
        }
    }
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
    /// Refuses what the method cannot do. Called before a graph is built; [`Variant::refusal`] adds what holds for all.
    pub check: fn(&Setup) -> Result<(), Refusal>,
    /// Elements of the largest tensor that the graph makes, besides q, k, v and the extras.
    pub largest: fn(&Setup) -> u128,
    /// Builds the forward graph; `[B, H, N, D]`.
    pub graph: fn(&mut Graph, &Inputs<Node>, &Setup) -> Node,
    /// Builds what the effective matrix is made of.
    pub effective: fn(&mut Graph, &Inputs<Node>, &Setup) -> Effective,
    /// The pattern, where the method has one (`None`: every pair contributes).
    pub rule: fn(&Setup) -> Option<Rule>,
    /// The block list that the kernel really visits, where it visits blocks.
    pub blocks: fn(&Setup) -> Option<BlockList>,
    /// What the method adds to a model's loss while it is trained, where it adds anything.
    pub loss: Option<&'static OwnLoss>,
    /// What the method decides about a text besides its weights, where it decides anything.
    pub decide: Option<Decide>,
    /// The naive definition, `[B, H, N, D]`, in f64 and in the recording scalar.
    pub reference: Reference,
}

impl Variant {
    /// What a pattern that follows the data may look like, for small pictures: that of some chance data.
    pub fn sketch(&self, s: &Setup) -> Option<Rule> {
        match self.id {
            id if id == nsa::VARIANT.id => Some(nsa::sketch(s)),
            id if id == adaptive_span::VARIANT.id => Some(adaptive_span::sketch(s)),
            id if id == sparsebert::VARIANT.id => Some(sparsebert::sketch(s)),
            _ => None,
        }
    }

    /// Why there is no effective matrix, where there is none: the output of some methods is not linear in the values.
    pub fn no_matrix(&self) -> Option<&'static str> {
        (self.family == Family::RecurrentNetwork).then_some(
            "a recurrent network has no attention matrix: what it makes of a value depends on all it has read before, and no \
             matrix times the values gives its output",
        )
    }
}

/// Declares the modules, the registry, and a macro that hands all ids to another one, for tests named after variants. The
/// first token is a dollar sign for that macro.
macro_rules! variants {
    ($dollar:tt $($id:ident)*) => {
        $(mod $id;)*

        /// Every variant, in the survey's order.
        pub static ALL: &[&Variant] = &[$(&$id::VARIANT),*];

        /// Calls a macro with the ids of all variants.
        #[macro_export]
        macro_rules! for_each_variant {
            ($dollar callback:ident) => { $dollar callback! { $($id)* } };
        }
    };
}

variants! { $
    full_naive full sliding_window star
    sparse_strided sparse_fixed cascade logsparse blockbert longformer bigbird
    entmax sparsebert
    sinkhorn reformer routing
    linformer synthesizer nystromformer linear performer clustered
    transformer_xl compressive funnel adaptive_span nsa custom rnn lstm gru bahdanau
}

/// The variant with this id.
pub fn find(id: &str) -> Option<&'static Variant> {
    ALL.iter().copied().find(|v| v.id == id)
}
