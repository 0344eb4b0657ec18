//! What an embed hears from the page around it, and what it says. Anyone may frame an embed and send it anything, so
//! reading is total and bounded; nothing here is secret, so it may be heard by anyone.

use serde::Serialize;
use serde_json::Value;

/// Characters of a message's JSON that are read.
pub const MAX_MESSAGE_CHARS: u32 = 256 << 10;
const MAX_KEYS: usize = 100;

/// A message from the surrounding page: `{ type: 'set', state: { variant: 'linear', n: 256 } }` or `{ type: 'run' }`...
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Keys of a permalink and their values, to be laid over the state there is; none: the key's default.
    Set(Vec<(String, Option<String>)>),
    Run,
    Pause,
    Export,
}

impl Heard {
    /// Reads a message; None where it is not meant for an embed, `Err` where it is and cannot be taken.
    pub fn read(json: &str) -> Option<Result<Self, String>> {
        let message: Value = serde_json::from_str(json).ok()?;
        Some(match message.get("type")?.as_str()? {
            "run" => Ok(Self::Run),
            "pause" => Ok(Self::Pause),
            "export" => Ok(Self::Export),
            "set" => match message.get("state").and_then(Value::as_object) {
                None => Err("`set` takes an object `state` of permalink keys".into()),
                Some(state) if state.len() > MAX_KEYS => Err(format!("`set` takes at most {MAX_KEYS} keys")),
                Some(state) => Ok(Self::Set(
                    state.iter().filter_map(|(key, value)| Some((key.clone(), written(value)?))).collect(),
                )),
            },
            _ => return None,
        })
    }
}

/// A value as a permalink writes it; `null` takes the key away. What has no such form is passed over.
fn written(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::String(text) => Some(Some(text.clone())),
        Value::Bool(truth) => Some(Some(u8::from(*truth).to_string())),
        Value::Number(number) => Some(Some(number.to_string())),
        _ => None,
    }
}

/// A message to the surrounding page, with `source: 'attention-lab'` beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Said {
    /// The engine has started.
    Ready { adapter: String, backend: String },
    /// The embed's content is this high, in CSS pixels.
    Height { height: i32 },
    /// The state as a permalink's query.
    State { query: String },
    /// A result file.
    Result { result: Value },
    Error {
        message: String,
        /// The key of the state or the address that could not be taken, where it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
}

impl Said {
    /// As JSON, with its source.
    pub fn to_json(&self) -> String {
        // A plain tagged structure: it is always an object, and writing cannot fail.
        let mut message = serde_json::to_value(self).unwrap_or_default();
        message["source"] = "attention-lab".into();
        message.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_meant_for_others_are_passed_over() {
        for json in ["", "7", "null", "{}", r#"{"type":7}"#, r#"{"type":"webpackOk"}"#] {
            assert_eq!(Heard::read(json), None, "{json}");
        }
    }

    #[test]
    fn values_are_read_as_a_permalink_writes_them() {
        let json = r#"{"type":"set","state":{"causal":true,"n":256,"seed":null,"variant":"linear","text":["no"]}}"#;
        let pairs = [("causal", Some("1")), ("n", Some("256")), ("seed", None), ("variant", Some("linear"))]
            .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(Heard::read(json), Some(Ok(Heard::Set(pairs.into()))));
        assert!(matches!(Heard::read(r#"{"type":"set"}"#), Some(Err(_))));
        assert_eq!(Heard::read(r#"{"type":"run"}"#), Some(Ok(Heard::Run)));
    }

    #[test]
    fn what_is_said_names_its_source() {
        let said: Value = serde_json::from_str(&Said::Height { height: 300 }.to_json()).unwrap();
        assert_eq!(said, serde_json::json!({ "source": "attention-lab", "type": "height", "height": 300 }));
    }
}
