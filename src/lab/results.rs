//! A sweep's points as what the measuring layer works on: curves for findings, a result file for saving.

use crate::lab::experiment::Experiment;
use crate::lab::protocol::{AdapterFacts, Point};
use crate::measure::fit::PowerLaw;
use crate::measure::result::{Bytes, ResultFile, Row, SCHEMA};
use crate::measure::verdict::Curves;
use crate::sort::Arrange;
use crate::sort::IntoMap;

/// One curve for each variant that has points, in the order in which `ids` names them.
pub fn curves(points: &[Point], ids: &[(&str, f64)]) -> Vec<Curves> {
    ids.iter()
        .filter_map(|(id, exponent)| {
            let own = series(points, id);
            (!own.is_empty()).then(|| Curves {
                variant: (*id).to_owned(),
                times: own.iter().filter_map(|p| Some((p.length, p.time.clone()?))).collect(),
                bytes: own.iter().filter(|p| p.bytes_peak > 0).map(|p| (p.length, p.bytes_peak)).collect(),
                theory: Some(*exponent),
            })
        })
        .collect()
}

/// A variant's points, ascending in length.
pub fn series<'a>(points: &'a [Point], variant: &str) -> Vec<&'a Point> {
    let mut found: Vec<&Point> = points.iter().filter(|p| p.variant == variant).collect();
    found.arrange_by_key(|p| p.length);
    found
}

/// Where a law goes on beyond the last measured point, through that point, to at most four times its length.
pub fn continuation(law: &PowerLaw, (length, value): (usize, f64)) -> Vec<(usize, f64)> {
    let scale = value / law.at(length as f64);
    [1, 2, 4].into_iter().map(|times| (length * times, scale * law.at((length * times) as f64))).collect()
}

/// A sweep as a result file. `browser` is none for a native run.
pub fn file(
    points: &[Point],
    swept: &Experiment,
    backward: bool,
    adapter: &AdapterFacts,
    browser: Option<String>,
) -> ResultFile {
    let fixed = swept.with_fixed_parameters();
    let rows = points
        .iter()
        .map(|point| Row {
            variant: point.variant.clone(),
            params: values_used(&fixed, &point.variant),
            causal: swept.causal,
            backward,
            batch: swept.batch,
            heads: swept.heads,
            dim: swept.dim,
            length: point.length,
            time_ms: point.time.clone(),
            stages_ms: point.stages_ms.iter().cloned().into_map(),
            bytes: Bytes { peak: point.bytes_peak, by_category: point.bytes_by_category.iter().cloned().into_map() },
            flops: point.flops,
            error_to_full: point.error_to_full,
            refused: point.refused.clone(),
        })
        .collect();
    ResultFile {
        schema: SCHEMA,
        commit: crate::COMMIT.to_owned(),
        adapter: adapter.name.clone(),
        driver: adapter.driver.clone(),
        browser,
        limits: [("max_buffer_bytes", adapter.max_buffer_bytes), ("max_binding_bytes", adapter.max_binding_bytes)]
            .map(|(name, bytes)| (name.to_owned(), bytes))
            .into(),
        timer_quantum_ns: adapter.timer_quantum_ns,
        rows,
    }
}

/// Every parameter with the value it had in the sweep.
fn values_used(fixed: &Experiment, id: &str) -> std::collections::BTreeMap<String, serde_json::Value> {
    let values = fixed.params_of(id).0.into_iter();
    values.filter_map(|(name, value)| Some((name, serde_json::to_value(value).ok()?))).into_map()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Timing;
    use crate::measure::result::read;

    fn point(variant: &str, length: usize, ms: f64, bytes_peak: u64) -> Point {
        Point {
            variant: variant.into(),
            length,
            time: Timing::new(&[ms, ms * 1.01, ms * 0.99], "wall"),
            stages_ms: vec![("mix".into(), ms)],
            bytes_peak,
            bytes_by_category: vec![("workspace".into(), bytes_peak)],
            flops: 1,
            error_to_full: None,
            refused: None,
        }
    }

    #[test]
    fn a_saved_file_can_be_opened_again() {
        let points = [point("full", 64, 0.5, 1000), point("linear", 128, 0.25, 500)];
        let adapter = AdapterFacts { name: "An adapter".into(), ..Default::default() };
        let saved = file(&points, &Experiment::default(), true, &adapter, Some("a browser".into()));
        let (opened, complaints) = read(&saved.to_json()).unwrap();
        assert_eq!(complaints, []);
        assert_eq!(opened, saved);
        assert!(opened.rows[1].backward);
    }

    #[test]
    fn a_parameter_is_the_same_at_every_length() {
        let swept = Experiment { variants: vec!["sliding_window".into()], ..Experiment::default() };
        let points = [point("sliding_window", 64, 1.0, 10), point("sliding_window", 16_384, 2.0, 20)];
        let rows = file(&points, &swept, false, &AdapterFacts::default(), None).rows;
        assert_eq!(rows[0].params["window"], 128);
        assert_eq!(rows[0].params, rows[1].params);
    }

    #[test]
    fn curves_are_in_order_and_leave_refused_points_without_a_time() {
        let mut refused = point("full", 256, 1.0, 9000);
        refused.time = None;
        let points = [refused, point("linear", 64, 1.0, 10), point("full", 64, 1.0, 1000)];
        let curves = curves(&points, &[("full", 2.0), ("linear", 1.0), ("absent", 1.0)]);
        assert_eq!(curves.len(), 2);
        assert_eq!((curves[0].times.len(), &curves[0].bytes), (1, &vec![(64, 1000), (256, 9000)]));
    }

    #[test]
    fn a_continuation_begins_at_the_last_point() {
        let law = PowerLaw::fit(&[(64.0, 1.0), (128.0, 4.0), (256.0, 16.0)], 1.0, 1e9).unwrap();
        let further = continuation(&law, (256, 20.0));
        assert!((further[0].1 - 20.0).abs() < 1e-9 && (further[1].1 - 80.0).abs() < 1e-6 && further[2].0 == 1024);
    }
}
