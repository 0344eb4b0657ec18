//! Parameters of variants: their descriptors, which become controls, options and URL keys, and checked values.

use super::restricted::near_root;
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
    /// A text that `check` takes, or says why not.
    Text {
        default: &'static str,
        check: fn(&str) -> Result<(), String>,
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
    /// A choice or a text.
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

/// Parameters whose 0 stands for a size that follows the root of the length.
const FOLLOW_THE_ROOT: [&str; 2] = ["stride", "block"];

impl Param {
    /// The value that is really used where `value` was chosen for `n` tokens: a 0 may stand for a size that follows the length.
    pub fn in_use(&self, value: &Value, n: usize) -> Value {
        match (self.kind, value) {
            (ParamKind::Int { min: 0, .. }, Value::Int(0)) if FOLLOW_THE_ROOT.contains(&self.name) => {
                Value::Int(near_root(n))
            }
            _ => value.clone(),
        }
    }

    /// The default for sequence length `n`.
    pub fn default(&self, n: usize) -> Value {
        match self.kind {
            ParamKind::Int { min, max, default } => Value::Int(default(n).clamp(min, max)),
            ParamKind::Choice { default, .. } => Value::Choice(default.into()),
            ParamKind::Bool { default } => Value::Bool(default),
            ParamKind::Text { default, .. } => Value::Choice(default.into()),
        }
    }

    /// What it takes, in words.
    pub fn takes(&self) -> String {
        match self.kind {
            ParamKind::Int { min, max, .. } => format!("an integer from {min} to {max}"),
            ParamKind::Choice { options, .. } => format!("one of {}", options.join(", ")),
            ParamKind::Bool { .. } => "1 or 0".into(),
            ParamKind::Text { default, .. } => format!("a text such as {default}"),
        }
    }

    /// Checks a value's type and range.
    pub fn accept(&self, value: &Value) -> Result<(), ParamError> {
        let good = match (self.kind, value) {
            (ParamKind::Int { min, max, .. }, Value::Int(x)) => (min..=max).contains(x),
            (ParamKind::Choice { options, .. }, Value::Choice(x)) => options.contains(&x.as_str()),
            (ParamKind::Bool { .. }, Value::Bool(_)) => true,
            (ParamKind::Text { check, .. }, Value::Choice(text)) => {
                let (name, got) = (self.name.to_owned(), text.clone());
                return check(text).map_err(|what| ParamError {
                    name,
                    got,
                    takes: format!("{}; {what}", self.takes()),
                });
            }
            _ => false,
        };
        if good { Ok(()) } else { Err(ParamError::new(self, value)) }
    }

    /// Reads a value as written in a permalink or an option.
    pub fn parse(&self, text: &str) -> Result<Value, ParamError> {
        let value = match self.kind {
            ParamKind::Int { .. } => text.parse().ok().map(Value::Int),
            ParamKind::Choice { .. } | ParamKind::Text { .. } => Some(Value::Choice(text.into())),
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

impl Params {
    /// Values from a JSON object; every key must be one of `params`, every value one that it takes.
    ///
    /// # Errors
    /// The first key or value that is not taken, and what is.
    pub fn from_json(
        object: &serde_json::Map<String, serde_json::Value>,
        params: &[Param],
    ) -> Result<Self, ParamError> {
        let mut values = BTreeMap::new();
        for (name, json) in object {
            let Some(param) = params.iter().find(|p| p.name == name) else {
                let takes = match params {
                    [] => "no parameters".to_owned(),
                    _ => params.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
                };
                return Err(ParamError { name: name.clone(), got: "this name".into(), takes });
            };
            let value = match json {
                serde_json::Value::Bool(b) => Some(Value::Bool(*b)),
                serde_json::Value::Number(x) => x.as_u64().and_then(|x| u32::try_from(x).ok()).map(Value::Int),
                serde_json::Value::String(text) => Some(Value::Choice(text.clone())),
                _ => None,
            };
            let value = value.ok_or_else(|| ParamError::new(param, json))?;
            param.accept(&value)?;
            values.insert(name.clone(), value);
        }
        Ok(Self(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Param =
        Param { name: "window", kind: ParamKind::Int { min: 1, max: 100, default: |n| n as u32 / 8 }, meaning: "" };
    const MAP: Param =
        Param { name: "map", kind: ParamKind::Choice { options: &["a", "b"], default: "a" }, meaning: "" };

    fn read(text: &str) -> Result<Params, ParamError> {
        Params::from_json(serde_json::from_str::<serde_json::Value>(text).unwrap().as_object().unwrap(), &[WINDOW, MAP])
    }

    #[test]
    fn defaults_stay_in_range() {
        assert_eq!(WINDOW.default(80), Value::Int(10));
        assert_eq!(WINDOW.default(1), Value::Int(1));
        assert_eq!(WINDOW.default(1 << 20), Value::Int(100));
    }

    #[test]
    fn json_is_checked_and_errors_say_what_is_taken() {
        let good = read(r#"{"window": 7, "map": "b"}"#).unwrap();
        assert_eq!(good.0["window"], Value::Int(7));
        assert_eq!(good.0["map"], Value::Choice("b".into()));
        for (text, name, takes) in [
            (r#"{"windows": 7}"#, "windows", "window, map"),
            (r#"{"window": 0}"#, "window", "an integer from 1 to 100"),
            (r#"{"window": -3}"#, "window", "an integer from 1 to 100"),
            (r#"{"window": 1e300}"#, "window", "an integer from 1 to 100"),
            (r#"{"window": 2.5}"#, "window", "an integer from 1 to 100"),
            (r#"{"window": [1]}"#, "window", "an integer from 1 to 100"),
            (r#"{"map": "c"}"#, "map", "one of a, b"),
            (r#"{"map": true}"#, "map", "one of a, b"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.name.as_str(), error.takes.as_str()), (name, takes), "{error}");
        }
    }
}
