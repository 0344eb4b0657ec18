//! Reading a result file that someone else wrote.

use super::{Bytes, ResultFile, Row, SCHEMA};
use crate::complaint::{Complaint, cut};
use crate::measure::{ErrorToFull, Timing};
use crate::sort::IntoMap;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const MAX_BYTES: usize = 16 << 20;
const MAX_ROWS: usize = 20_000;
const MAX_STRING_BYTES: usize = 300;
const MAX_ENTRIES: usize = 64;
const MAX_COMPLAINTS: usize = 24;
/// Largest length, batch... that a row may state.
const MAX_SIZE: u64 = 1 << 30;

/// Why a file cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the file has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    #[error("the file is no JSON: {0}")]
    Json(String),
    #[error("the file is no result file: {0}")]
    Shape(String),
}

/// Reads a result file. Rows that lack something are left out and named.
pub fn read(text: &str) -> Result<(ResultFile, Vec<Complaint>), ReadError> {
    if text.len() > MAX_BYTES {
        return Err(ReadError::TooLarge(text.len()));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| ReadError::Json(e.to_string()))?;
    let top = value.as_object().ok_or_else(|| ReadError::Shape("an object is expected".into()))?;
    let rows = match top.get("rows") {
        Some(Value::Array(rows)) => rows,
        _ => return Err(ReadError::Shape("it has no array called rows".into())),
    };
    match top.get("schema").and_then(Value::as_u64) {
        Some(schema) if schema == u64::from(SCHEMA) => {}
        other => {
            let got = other.map_or("none".into(), |s| s.to_string());
            return Err(ReadError::Shape(format!("its schema is {got}, this page reads {SCHEMA}")));
        }
    }
    let mut complaints = Vec::new();
    let text_of = |key: &str| top.get(key).and_then(Value::as_str).map(short);
    let mut file = ResultFile {
        schema: SCHEMA,
        commit: text_of("commit").unwrap_or_else(|| "unknown".into()),
        adapter: text_of("adapter").unwrap_or_else(|| "unknown".into()),
        driver: text_of("driver").unwrap_or_default(),
        browser: text_of("browser"),
        limits: entries(top.get("limits"), Value::as_u64),
        timer_quantum_ns: top.get("timer_quantum_ns").and_then(Value::as_u64),
        rows: Vec::new(),
    };
    for (i, row) in rows.iter().enumerate().take(MAX_ROWS) {
        match read_row(row) {
            Ok(row) => file.rows.push(row),
            Err(e) if complaints.len() < MAX_COMPLAINTS => {
                let key = format!("rows[{i}].{}", e.field);
                complaints.push(Complaint::new(&key, &e.got, e.takes, "the other rows"));
            }
            Err(_) => {}
        }
    }
    if rows.len() > MAX_ROWS {
        let takes = format!("at most {MAX_ROWS} rows");
        complaints.push(Complaint::new("rows", &rows.len().to_string(), takes, "the first"));
    }
    Ok((file, complaints))
}

struct Bad {
    field: &'static str,
    got: String,
    takes: &'static str,
}

/// The object of a row, or of one of its parts, with errors that name the field.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn bad(&self, field: &'static str, takes: &'static str) -> Bad {
        let got = self.0.get(field).map_or("nothing".into(), |v| short(&v.to_string()));
        Bad { field, got, takes }
    }

    fn size(&self, field: &'static str) -> Result<usize, Bad> {
        let value = self.0.get(field).and_then(Value::as_u64).filter(|x| (1..=MAX_SIZE).contains(x));
        value.map(|x| x as usize).ok_or_else(|| self.bad(field, "an integer from 1 to 2^30"))
    }

    /// serde_json reads no NaN, and a number too large for f64 is an error of its own.
    fn number(&self, field: &'static str) -> Result<f64, Bad> {
        let value = self.0.get(field).and_then(Value::as_f64).filter(|x| x.is_finite() && *x >= 0.0);
        value.ok_or_else(|| self.bad(field, "a number that is not negative"))
    }

    fn truth(&self, field: &'static str) -> Result<bool, Bad> {
        self.0.get(field).and_then(Value::as_bool).ok_or_else(|| self.bad(field, "true or false"))
    }

    /// None where it is absent or null.
    fn object(&self, field: &'static str) -> Result<Option<Fields<'_>>, Bad> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields(map))),
            Some(_) => Err(self.bad(field, "an object or null")),
        }
    }
}

fn read_row(value: &Value) -> Result<Row, Bad> {
    let map = value.as_object().ok_or_else(|| Bad { field: "", got: short(&value.to_string()), takes: "an object" })?;
    let f = Fields(map);
    let variant = map.get("variant").and_then(Value::as_str).map(short).filter(|v| !v.is_empty());
    let time_ms = f.object("time_ms")?.map(|t| read_timing(&t)).transpose()?;
    let error_to_full = match f.object("error_to_full")? {
        Some(e) => Some(ErrorToFull { max_abs: e.number("max_abs")?, rms_ratio: e.number("rms_ratio")? }),
        None => None,
    };
    let refused = map.get("refused").and_then(Value::as_str).map(short);
    if time_ms.is_none() && refused.is_none() {
        return Err(f.bad("time_ms", "times, or a reason under refused"));
    }
    Ok(Row {
        variant: variant.ok_or_else(|| f.bad("variant", "the id of a variant"))?,
        params: entries(map.get("params"), |v| match v {
            Value::String(s) => Some(Value::String(short(s))),
            Value::Bool(_) | Value::Number(_) => Some(v.clone()),
            _ => None,
        }),
        causal: f.truth("causal")?,
        backward: map.get("backward").and_then(Value::as_bool).unwrap_or(false),
        batch: f.size("batch")?,
        heads: f.size("heads")?,
        dim: f.size("dim")?,
        length: f.size("length")?,
        time_ms,
        stages_ms: entries(map.get("stages_ms"), |v| v.as_f64().filter(|x| x.is_finite() && *x >= 0.0)),
        bytes: match f.object("bytes")? {
            Some(b) => {
                Bytes { peak: b.number("peak")? as u64, by_category: entries(b.0.get("by_category"), Value::as_u64) }
            }
            None => Bytes::default(),
        },
        flops: map.get("flops").and_then(Value::as_u64).unwrap_or(0),
        error_to_full,
        refused,
    })
}

fn read_timing(t: &Fields) -> Result<Timing, Bad> {
    let (median, min, max) = (t.number("median")?, t.number("min")?, t.number("max")?);
    if !(min <= median && median <= max) {
        return Err(t.bad("median", "a number between min and max"));
    }
    Ok(Timing {
        median,
        min,
        max,
        // A file of another program may not say; half of the whole range is on the safe side of the quartiles.
        spread: t.number("spread").unwrap_or((max - min) / 2.0),
        repeats: t.size("repeats")?,
        how: t.0.get("how").and_then(Value::as_str).map_or("unknown".into(), short),
    })
}

/// The entries of an object that are as expected, at most [`MAX_ENTRIES`].
fn entries<T>(value: Option<&Value>, read: impl Fn(&Value) -> Option<T>) -> BTreeMap<String, T> {
    let Some(Value::Object(map)) = value else { return BTreeMap::new() };
    map.iter().filter_map(|(k, v)| Some((short(k), read(v)?))).take(MAX_ENTRIES).into_map()
}

fn short(s: &str) -> String {
    let mut s = s.to_string();
    cut(&mut s, MAX_STRING_BYTES);
    s
}
