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

impl ParamError {
    fn new(param: &Param, got: impl std::fmt::Display) -> Self {
        Self { name: param.name.into(), got: got.to_string(), takes: param.takes() }
    }
}

impl std::fmt::Display for Value {
    /// As in a permalink: `1` and `0` for truth values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(b) => write!(f, "{}", u8::from(*b)),
            Value::Int(i) => write!(f, "{i}"),
            Value::Choice(c) => write!(f, "{c}"),
        }
    }
}

impl Param {
    /// The default for sequence length `n`.
    pub fn default(&self, n: usize) -> Value {
        match self.kind {
            ParamKind::Int { min, max, default } => Value::Int(default(n).clamp(min, max)),
            ParamKind::Choice { default, .. } => Value::Choice(default.into()),
            ParamKind::Bool { default } => Value::Bool(default),
        }
    }

    /// What it takes, in words.
    pub fn takes(&self) -> String {
        match self.kind {
            ParamKind::Int { min, max, .. } => format!("an integer from {min} to {max}"),
            ParamKind::Choice { options, .. } => format!("one of {}", options.join(", ")),
            ParamKind::Bool { .. } => "1 or 0".into(),
        }
    }

    /// Checks a value's type and range.
    pub fn accept(&self, value: &Value) -> Result<(), ParamError> {
        let good = match (self.kind, value) {
            (ParamKind::Int { min, max, .. }, Value::Int(x)) => (min..=max).contains(x),
            (ParamKind::Choice { options, .. }, Value::Choice(x)) => options.contains(&x.as_str()),
            (ParamKind::Bool { .. }, Value::Bool(_)) => true,
            _ => false,
        };
        if good { Ok(()) } else { Err(ParamError::new(self, value)) }
    }

    /// Reads a value as written in a permalink or an option.
    pub fn parse(&self, text: &str) -> Result<Value, ParamError> {
        let value = match self.kind {
            ParamKind::Int { .. } => text.parse().ok().map(Value::Int),
            ParamKind::Choice { .. } => Some(Value::Choice(text.into())),
            ParamKind::Bool { .. } => match text {
                "1" | "true" => Some(Value::Bool(true)),
                "0" | "false" => Some(Value::Bool(false)),
                _ => None,
            },
        };
        let value = value.ok_or_else(|| ParamError::new(self, text))?;
        self.accept(&value)?;
        Ok(value)
    }
}
