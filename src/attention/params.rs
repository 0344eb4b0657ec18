//! Parameters of variants: their descriptors, which become controls, options and URL keys, and checked values.

use std::collections::BTreeMap;

/// A parameter's type, range and default.
#[derive(Clone, Copy, Debug)]
pub enum ParamKind {
    /// Integer in `min..=max(setup)`; the default may depend on the sequence length N.
    Int {
        min: u32,
        max: u32,
        default: fn(n: usize) -> u32,
    },
    Choice {
        options: &'static [&'static str],
        default: &'static str,
    },
    Bool {
        default: bool,
    },
}

/// One parameter of a variant.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Key in URLs, files and options.
    pub name: &'static str,
    pub kind: ParamKind,
    /// One sentence of meaning, for a newcomer.
    pub meaning: &'static str,
}

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Value {
    Bool(bool),
    Int(u32),
    Choice(String),
}

/// Values of a variant's parameters by name. Absent ones have their default for the length at hand.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Params(pub BTreeMap<String, Value>);

/// Why a parameter value is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {got} is not allowed; it takes {takes}")]
pub struct ParamError {
    pub name: String,
    pub got: String,
    pub takes: String,
}
