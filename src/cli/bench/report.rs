//! What a race says, in tables and sentences for people.

use super::super::Failure;
use super::super::output::{print, table};
use super::rate_row;
use attention_lab::COMMIT;
use attention_lab::attention::find;
use attention_lab::lab::engine::rates::Rate;
use attention_lab::lab::experiment::Experiment;
use attention_lab::lab::protocol::{AdapterFacts, Point};
use attention_lab::lab::results::curves;
use attention_lab::measure::crossover::Order;
use attention_lab::measure::verdict::{Verdict, Weight, verdicts};

pub fn print_report(adapter: &AdapterFacts, e: &Experiment, points: &[Point], rates: &[Rate]) -> Result<(), Failure> {
    let causal = if e.causal { ", causal" } else { "" };
    let quantum = adapter.timer_quantum_ns.map(|ns| format!(", timer step {ns} ns")).unwrap_or_default();
    let mut text = format!(
        "{} ({}{}){quantum}\nbatch {}, heads {}, head dimension {}{causal}; commit {COMMIT}\n\n",
        adapter.name,
        adapter.backend,
        if adapter.driver.is_empty() { String::new() } else { format!(", {}", adapter.driver) },
        e.batch,
        e.heads,
        e.dim,
    );
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by_key(|p| p.length);
    let rows: Vec<Vec<String>> = sorted.into_iter().map(row).collect();
    let header = ["length", "variant", "median ms", "min", "max", "runs", "GFLOP/s", "peak MiB", "rms to full"];
    text += &table(&header, &rows);
    for point in points {
        if let Some(reason) = &point.refused {
            text += &format!("not measured: {} at {}: {reason}\n", point.variant, point.length);
        }
    }
    if !rates.is_empty() {
        let peak = rates.iter().find(|r| r.what == "multiply-add").map(Rate::gflops);
        let rows: Vec<Vec<String>> = rates.iter().map(|r| rate_row(r, peak)).collect();
        text += &format!("\n{}", table(&["kernel", "median ms", "GFLOP/s", "of peak"], &rows));
    }
    let stages = stage_rows(points);
    if !stages.is_empty() {
        text += &format!("\n{}", table(&["variant", "length", "stages, ms"], &stages));
    }
    text += &format!("\n{}", sentences(adapter, e, points));
    print(&text)
}

fn row(p: &Point) -> Vec<String> {
    let of_time = |f: fn(&attention_lab::measure::Timing) -> String| p.time.as_ref().map(f).unwrap_or_default();
    let rate = p.time.as_ref().map(|t| format!("{:.1}", p.flops as f64 / t.median / 1e6)).unwrap_or_default();
    vec![
        p.length.to_string(),
        p.variant.clone(),
        of_time(|t| format!("{:.4}", t.median)),
        of_time(|t| format!("{:.4}", t.min)),
        of_time(|t| format!("{:.4}", t.max)),
        of_time(|t| format!("{} {}", t.repeats, t.how)),
        rate,
        format!("{:.2}", p.bytes_peak as f64 / f64::from(1 << 20)),
        p.error_to_full.map(|e| format!("{:.1e}", e.rms_ratio)).unwrap_or_default(),
    ]
}

/// Stages of each variant at its longest measured length.
fn stage_rows(points: &[Point]) -> Vec<Vec<String>> {
    let mut longest: Vec<&Point> = Vec::new();
    for point in points.iter().filter(|p| p.stages_ms.len() > 1) {
        match longest.iter_mut().find(|p| p.variant == point.variant) {
            Some(p) if p.length < point.length => *p = point,
            Some(_) => {}
            None => longest.push(point),
        }
    }
    let stages = |p: &Point| p.stages_ms.iter().map(|(s, ms)| format!("{s} {ms:.4}")).collect::<Vec<_>>().join(", ");
    longest.into_iter().map(|p| vec![p.variant.clone(), p.length.to_string(), stages(p)]).collect()
}

fn sentences(adapter: &AdapterFacts, e: &Experiment, points: &[Point]) -> String {
    let ids: Vec<(&str, f64)> = e.variants.iter().filter_map(|id| find(id)).map(|v| (v.id, v.exponent)).collect();
    let curves = curves(points, &ids);
    let quantum_ms = adapter.timer_quantum_ns.unwrap_or(0) as f64 * 1e-6;
    verdicts(&curves, "full", quantum_ms, None).iter().map(|v| sentence(v) + "\n").collect()
}

fn sentence(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Time { variant, than, order } => match order {
            Order::Always { from, to } => format!("{variant} is faster than {than} from {from} to {to}"),
            Order::From { at, after, by } => {
                format!("{variant} is faster than {than} from about {at:.0} on (between {after} and {by})")
            }
            Order::Slower { to } => format!("{variant} is slower than {than} at {to}"),
            Order::Unclear { to } => format!("{variant} and {than} do not differ by more than the noise at {to}"),
        },
        Verdict::Memory { variant, than, length, ratio } => match Weight::of(*ratio) {
            Weight::Lighter(times) => format!("{variant} needs {times:.2} times less memory than {than} at {length}"),
            Weight::Heavier(times) => format!("{variant} needs {times:.2} times more memory than {than} at {length}"),
            Weight::Same => format!("{variant} needs as much memory as {than} at {length}"),
        },
        Verdict::Growth { variant, law, theory } => {
            let error = law.error.map(|e| format!(" ± {e:.2}")).unwrap_or_default();
            let theory = theory.map(|t| format!("; in theory {t}")).unwrap_or_default();
            format!(
                "{variant}: time grows with N to the power {:.2}{error} from {:.0} to {:.0}{theory}",
                law.exponent, law.from, law.to
            )
        }
        Verdict::MemoryEnds { variant, length } => format!("{variant}: memory ends at about {length}"),
    }
}
