//! One call's shapes and settings, and the checks that hold for every variant.

use super::{Causal, Param, Params, Value, Variant};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What WebGPU guarantees for one storage binding.
pub const DEFAULT_TENSOR_BYTES: u64 = 128 << 20;

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
    pub structure: Structure,
}

/// What shapes a pattern besides the parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Keys are those of another text, though there may be as many as queries: what is padding there says nothing of queries.
    pub cross: bool,
    /// Which head of the model the first head at hand is: heads may have patterns of their own.
    pub first_head: usize,
    /// Extra tensors of kind [`super::Init::Structure`] that were given, by name.
    pub given: BTreeMap<String, Arc<[u32]>>,
}

/// Why a variant cannot serve a request, in words for the visitor, with the nearest that it can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[error("{reason}")]
pub struct Refusal {
    pub reason: String,
    /// The nearest request that works, in words.
    pub nearest: Option<String>,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>, nearest: impl Into<Option<String>>) -> Self {
        Self { reason: reason.into(), nearest: nearest.into() }
    }
}

impl Setup {
    /// B·H, the number of independent heads.
    pub fn instances(&self) -> usize {
        self.batch * self.heads
    }

    /// Whether a text attends to itself.
    pub fn is_of_itself(&self) -> bool {
        self.length == self.keys && !self.structure.cross
    }

    /// The softmax scale, 1/√D.
    pub fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Value of an integer parameter, or its default for N.
    ///
    /// # Panics
    /// When `param` is of another kind. Values are checked when they are parsed.
    pub fn int(&self, param: &Param) -> usize {
        match self.value(param) {
            Value::Int(x) => x as usize,
            other => panic!("{} is not an integer: {other:?}", param.name),
        }
    }

    /// Value of a choice or a text; see [`Setup::int`].
    pub fn choice(&self, param: &Param) -> String {
        match self.value(param) {
            Value::Choice(x) => x,
            other => panic!("{} is not a choice: {other:?}", param.name),
        }
    }

    /// Value of a switch; see [`Setup::int`].
    pub fn bool(&self, param: &Param) -> bool {
        match self.value(param) {
            Value::Bool(x) => x,
            other => panic!("{} is not a switch: {other:?}", param.name),
        }
    }

    /// A given value that the parameter takes, else its default.
    fn value(&self, param: &Param) -> Value {
        match self.params.0.get(param.name) {
            Some(value) if param.accept(value).is_ok() => value.clone(),
            _ => param.default(self.length),
        }
    }

    /// Elements of q and of k, in a type that no size overflows.
    fn elements(&self) -> [u128; 2] {
        [self.length, self.keys].map(|rows| product(&[self.batch, self.heads, rows, self.dim]))
    }
}

/// Elements of a tensor; the largest number there is where that overflows.
pub(super) fn product(sizes: &[usize]) -> u128 {
    sizes.iter().fold(1, |product: u128, &size| product.saturating_mul(size as u128))
}

impl Variant {
    /// Why this variant cannot serve `setup` where one tensor may take `max_tensor_bytes` ([`DEFAULT_TENSOR_BYTES`] where
    /// nothing is known of the device), or `None` when it can. Nothing is allocated.
    pub fn refusal(&self, setup: &Setup, max_tensor_bytes: u64) -> Option<Refusal> {
        self.method_refusal(setup)
            .or_else(|| self.size_refusal(setup, max_tensor_bytes))
            .or_else(|| (self.check)(setup).err())
    }

    /// What the method cannot do at any size.
    fn method_refusal(&self, s: &Setup) -> Option<Refusal> {
        for (name, size) in
            [("batch", s.batch), ("heads", s.heads), ("length", s.length), ("keys", s.keys), ("dim", s.dim)]
        {
            if size == 0 {
                return Some(Refusal::new(format!("{name} is 0"), format!("{name} 1")));
            }
        }
        match self.causal {
            Causal::Never(why) if s.causal => {
                return Some(Refusal::new(format!("{} has no causal form: {why}", self.name), "causal off".to_owned()));
            }
            Causal::Always if !s.causal => {
                return Some(Refusal::new(format!("{} is always causal", self.name), "causal on".to_owned()));
            }
            _ => {}
        }
        if s.causal && s.keys < s.length {
            let reason = format!(
                "causal attention needs at least as many keys as queries; there are {} keys and {} queries",
                s.keys, s.length
            );
            return Some(Refusal::new(reason, format!("{} keys", s.length)));
        }
        self.params.iter().find_map(|p| {
            let error = p.accept(s.params.0.get(p.name)?).err()?;
            Some(Refusal::new(error.to_string(), format!("{} {}", p.name, p.default(s.length))))
        })
    }

    fn size_refusal(&self, s: &Setup, max_tensor_bytes: u64) -> Option<Refusal> {
        let bytes = self.largest_bytes(s);
        if bytes <= u128::from(max_tensor_bytes) {
            return None;
        }
        let mib = |bytes: u128| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let reason = format!(
            "{} at N = {} needs a tensor of {}; this device takes {}",
            self.name,
            s.length,
            mib(bytes),
            mib(max_tensor_bytes.into())
        );
        Some(Refusal::new(reason, self.longest(s, max_tensor_bytes).map(|n| format!("length {n}"))))
    }

    /// Bytes of the largest tensor of a run.
    fn largest_bytes(&self, s: &Setup) -> u128 {
        let [q, k] = s.elements();
        q.max(k).max((self.largest)(s)).saturating_mul(4)
    }

    /// The longest sequence below `s` whose tensors fit, by bisection; `None` where not even one token does.
    fn longest(&self, s: &Setup, max_tensor_bytes: u64) -> Option<usize> {
        let fits = |length: usize| {
            let keys = if s.keys == s.length { length } else { s.keys };
            self.largest_bytes(&Setup { length, keys, ..s.clone() }) <= u128::from(max_tensor_bytes)
        };
        let (mut good, mut bad) = (0, s.length);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            *(if fits(middle) { &mut good } else { &mut bad }) = middle;
        }
        (good > 0).then_some(good)
    }
}
