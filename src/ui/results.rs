//! Result files, as `attention-lab bench --out` writes them and the page saves and opens them, and tables for a spreadsheet.

use super::findings::Fit;
use crate::lab::experiment::Experiment;
use crate::lab::protocol::{AdapterFacts, Point};
use serde_json::{Value, json};

/// What is read of a file at most; a larger one is no result of this program.
pub const MAX_FILE_BYTES: usize = 8 << 20;
const MAX_ROWS: usize = 20_000;

/// A result file of another run or machine, laid over the page's own measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// Where it was measured.
    pub adapter: String,
    pub rows: Vec<Row>,
}

/// One row of it: (variant, length) and what was measured there.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub variant: String,
    pub length: usize,
    pub median_ms: Option<f64>,
    pub bytes_peak: Option<f64>,
}

/// Reads a result file; whatever comes from outside is bounded and checked.
pub fn read(text: &str) -> Result<Overlay, String> {
    if text.len() > MAX_FILE_BYTES {
        return Err(format!("{} bytes are more than a result file has", text.len()));
    }
    let file: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let rows = file.get("rows").and_then(Value::as_array).ok_or("no `rows` in it")?;
    if file.get("schema").is_none() {
        return Err("no `schema` in it".into());
    }
    if rows.len() > MAX_ROWS {
        return Err(format!("{} rows are more than are read", rows.len()));
    }
    let positive = |value: Option<&Value>| value.and_then(Value::as_f64).filter(|x| x.is_finite() && *x > 0.0);
    let rows: Vec<Row> = rows
        .iter()
        .filter_map(|row| {
            Some(Row {
                variant: row.get("variant")?.as_str()?.chars().take(60).collect(),
                length: usize::try_from(row.get("length")?.as_u64()?).ok().filter(|n| *n > 0)?,
                median_ms: positive(row.pointer("/time_ms/median")),
                bytes_peak: positive(row.pointer("/bytes/peak")),
            })
        })
        .collect();
    if rows.is_empty() {
        return Err("no row in it names a variant and a length".into());
    }
    let adapter = file.get("adapter").map(|a| a.as_str().or_else(|| a.get("name")?.as_str()).unwrap_or("?").to_owned());
    Ok(Overlay { adapter: adapter.unwrap_or_else(|| "?".into()).chars().take(60).collect(), rows })
}

/// Writes a sweep as a result file.
pub fn write(points: &[Point], experiment: &Experiment, adapter: &AdapterFacts, browser: &str) -> String {
    let rows: Vec<Value> = points
        .iter()
        .map(|point| {
            json!({
                "variant": point.variant,
                "params": experiment.params_of(&point.variant),
                "causal": experiment.causal,
                "batch": experiment.batch,
                "heads": experiment.heads,
                "dim": experiment.dim,
                "length": point.length,
                "time_ms": point.time,
                "stages_ms": point.stages_ms.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
                "bytes": {
                    "peak": point.bytes_peak,
                    "by_category": point.bytes_by_category.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
                },
                "flops": point.flops,
                "error_to_full": point.error_to_full,
                "refused": point.refused,
            })
        })
        .collect();
    let file = json!({
        "schema": 1,
        "commit": option_env!("LAB_COMMIT"),
        "adapter": adapter.name,
        "driver": adapter.driver,
        "backend": adapter.backend,
        "browser": browser,
        "limits": { "max_buffer_bytes": adapter.max_buffer_bytes, "max_binding_bytes": adapter.max_binding_bytes },
        "timer_quantum_ns": adapter.timer_quantum_ns,
        "rows": rows,
    });
    serde_json::to_string_pretty(&file).unwrap_or_default()
}

/// One line for each point, with a header.
pub fn csv(points: &[Point]) -> String {
    let mut text =
        String::from("variant,length,median_ms,min_ms,max_ms,repeats,how,bytes_peak,flops,rms_to_full,refused\n");
    for point in points {
        let time = point.time.as_ref();
        let fields = [
            point.variant.clone(),
            point.length.to_string(),
            time.map(|t| t.median.to_string()).unwrap_or_default(),
            time.map(|t| t.min.to_string()).unwrap_or_default(),
            time.map(|t| t.max.to_string()).unwrap_or_default(),
            time.map(|t| t.repeats.to_string()).unwrap_or_default(),
            time.map(|t| t.how.clone()).unwrap_or_default(),
            point.bytes_peak.to_string(),
            point.flops.to_string(),
            point.error_to_full.map(|e| e.rms_ratio.to_string()).unwrap_or_default(),
            point.refused.clone().unwrap_or_default(),
        ];
        text.push_str(&fields.map(|field| quoted(&field)).join(","));
        text.push('\n');
    }
    text
}

/// Where a fitted curve goes on beyond the last measured length, to at most four times it: (length, value).
pub fn continuation(fit: &Fit, last: (usize, f64)) -> Vec<(usize, f64)> {
    // It starts at the measured point, so that the two lines meet.
    let scale = last.1 / fit.at(last.0 as f64);
    [1, 2, 4]
        .into_iter()
        .map(|times| last.0 * times)
        .take_while(|n| *n <= 32_768)
        .map(|n| (n, scale * fit.at(n as f64)))
        .collect()
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::point;
    use super::*;

    #[test]
    fn a_saved_file_can_be_opened_again() {
        let points = [point("full", 64, 0.5, 1000), point("linear", 128, 0.25, 500)];
        let facts = AdapterFacts { name: "An adapter".into(), ..Default::default() };
        let text = write(&points, &Experiment::default(), &facts, "a browser");
        let overlay = read(&text).unwrap();
        assert_eq!(overlay.adapter, "An adapter");
        assert_eq!(overlay.rows.len(), 2);
        assert_eq!(
            overlay.rows[1],
            Row { variant: "linear".into(), length: 128, median_ms: Some(0.25), bytes_peak: Some(500.0) }
        );
    }

    #[test]
    fn what_is_no_result_is_refused_with_a_reason() {
        for text in ["", "[]", "{}", "{\"rows\":[]}", "{\"schema\":1,\"rows\":[{}]}", "{\"schema\":1,\"rows\":7}"] {
            assert!(read(text).is_err(), "{text}");
        }
        let odd =
            r#"{"schema":1,"rows":[{"variant":"x","length":-3},{"variant":"y","length":8,"time_ms":{"median":-1}}]}"#;
        let overlay = read(odd).unwrap();
        assert_eq!(overlay.rows, [Row { variant: "y".into(), length: 8, median_ms: None, bytes_peak: None }]);
    }

    #[test]
    fn a_table_quotes_what_needs_it() {
        let mut refused = point("full", 64, 1.0, 1);
        refused.refused = Some("too large, by \"far\"".into());
        let text = csv(&[refused]);
        assert!(text.ends_with("\"too large, by \"\"far\"\"\"\n"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }
}
