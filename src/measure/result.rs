//! Result files: what a sweep measured and where, so that two machines, or a browser and a native run, can be compared.
//! Reading a foreign file is total and bounded; what it lacks is named, and its other rows are used.

mod read;

use super::{ErrorToFull, Timing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use read::{ReadError, read};

/// Version of the format.
pub const SCHEMA: u32 = 1;

/// A result file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    pub schema: u32,
    /// Of the program that measured.
    pub commit: String,
    pub adapter: String,
    pub driver: String,
    /// None for a native run.
    pub browser: Option<String>,
    /// The adapter's limits by name.
    pub limits: BTreeMap<String, u64>,
    pub timer_quantum_ns: Option<u64>,
    pub rows: Vec<Row>,
}

/// One point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub variant: String,
    /// Every parameter with the value that was used.
    pub params: BTreeMap<String, serde_json::Value>,
    pub causal: bool,
    /// The gradients of q, k and v were computed too.
    #[serde(default)]
    pub backward: bool,
    pub batch: usize,
    pub heads: usize,
    pub dim: usize,
    pub length: usize,
    pub time_ms: Option<Timing>,
    pub stages_ms: BTreeMap<String, f64>,
    pub bytes: Bytes,
    pub flops: u64,
    pub error_to_full: Option<ErrorToFull>,
    /// Why there is no time.
    pub refused: Option<String>,
}

/// Memory of one point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bytes {
    pub peak: u64,
    pub by_category: BTreeMap<String, u64>,
}

impl ResultFile {
    /// As JSON, for people too.
    pub fn to_json(&self) -> String {
        // Only strings as keys and finite numbers: writing cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// As comma-separated values, one line a row, with a header.
    pub fn to_csv(&self) -> String {
        let mut out = String::from(
            "variant,length,batch,heads,dim,causal,backward,median_ms,min_ms,max_ms,repeats,how,peak_bytes,flops,\
             error_max_abs,error_rms_ratio,params,refused,adapter\n",
        );
        for row in &self.rows {
            let time = row.time_ms.as_ref();
            let number = |x: Option<f64>| x.map(|x| x.to_string()).unwrap_or_default();
            let cells = [
                row.variant.clone(),
                row.length.to_string(),
                row.batch.to_string(),
                row.heads.to_string(),
                row.dim.to_string(),
                row.causal.to_string(),
                row.backward.to_string(),
                number(time.map(|t| t.median)),
                number(time.map(|t| t.min)),
                number(time.map(|t| t.max)),
                time.map(|t| t.repeats.to_string()).unwrap_or_default(),
                time.map(|t| t.how.clone()).unwrap_or_default(),
                row.bytes.peak.to_string(),
                row.flops.to_string(),
                number(row.error_to_full.map(|e| e.max_abs)),
                number(row.error_to_full.map(|e| e.rms_ratio)),
                serde_json::to_string(&row.params).unwrap_or_default(),
                row.refused.clone().unwrap_or_default(),
                self.adapter.clone(),
            ];
            out += &cells.map(|c| quoted(&c)).join(",");
            out.push('\n');
        }
        out
    }
}

/// A cell of a CSV file. A leading sign that a spreadsheet would take for a formula is kept as text.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '@', '\t']) || (cell.starts_with(['+', '-']) && cell.parse::<f64>().is_err());
    let cell = if formula { format!("'{cell}") } else { cell.to_string() };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests;
