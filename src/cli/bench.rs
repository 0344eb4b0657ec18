//! `attention-lab bench`: time, memory and error of variants over lengths, contenders interleaved.

mod report;

use super::failure::find_variant;
use super::output::print_json;
use super::{Failure, backend};
use attention_lab::attention::{ALL, Params};
use attention_lab::lab::engine::rates::{Rate, rates};
use attention_lab::lab::experiment::{Experiment, MAX_BATCH, MAX_DIM, MAX_HEADS, MAX_LENGTH};
use attention_lab::lab::protocol::{AdapterFacts, Command, Event, Point};
use attention_lab::lab::{Engine, engine::Fault, results};
use attention_lab::measure::schedule::Effort;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Ids of variants, separated by commas; all by default
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    variants: Vec<String>,
    /// Sequence lengths, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "N,N", default_value = "64,128,256,512,1024,2048,4096")]
    lengths: Vec<usize>,
    /// Texts at once
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Heads
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Head dimension
    #[arg(long, default_value_t = 64)]
    dim: usize,
    /// Parameters by variant as a JSON object, e.g. '{"sliding_window": {"window": 128}}'
    #[arg(long, value_name = "JSON", default_value = "{}")]
    params: String,
    /// No query sees a key behind it
    #[arg(long)]
    causal: bool,
    /// Also compute the gradients of q, k and v
    #[arg(long)]
    backward: bool,
    /// Rounds over the contenders at each length
    #[arg(long, default_value_t = Effort::default().rounds)]
    rounds: usize,
    /// Seconds that one run of a variant may take before it leaves the race
    #[arg(long, value_name = "SECONDS", default_value_t = Effort::default().budget_ms / 1e3)]
    budget: f64,
    /// Also time square matrix products of these sizes, and multiply-adds that touch no memory
    #[arg(long, value_delimiter = ',', value_name = "N,N", num_args = 0.., default_missing_value = "256,512,1024")]
    matmul: Vec<usize>,
    #[command(flatten)]
    backend: backend::Choice,
    /// Write a result file, which the page opens and lays over its own measurements
    #[arg(long, value_name = "RESULT.json")]
    out: Option<PathBuf>,
    /// Print the result file in place of the tables
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let experiment = experiment(arguments)?;
    let (backend, options) = arguments.backend.wanted()?;
    // Asked first: a race of minutes must not end in a file that cannot be written.
    if let Some(out) = &arguments.out {
        super::tensors::check_output("--out", out)?;
    }
    let single = if arguments.matmul.is_empty() {
        vec![]
    } else {
        pollster::block_on(rates(backend, &options, &arguments.matmul)).map_err(failure)?
    };

    let told = Rc::new(RefCell::new(Told::default()));
    let log = told.clone();
    let (handle, mut engine) = Engine::new(options, move |event| log.borrow_mut().hear(event));
    engine.set_effort(Effort { rounds: arguments.rounds.max(1), budget_ms: arguments.budget * 1e3 });
    pollster::block_on(async {
        handle.send(Command::Start { backend });
        engine.drain().await;
        if told.borrow().failed.is_none() {
            let (experiment, lengths) = (Box::new(experiment.clone()), arguments.lengths.clone());
            handle.send(Command::Sweep { experiment, lengths, backward: arguments.backward });
            engine.drain().await;
        }
    });
    let told = told.take();
    if let Some(reason) = told.failed {
        return Err(Failure::Adapter(reason));
    }
    if let Some(reason) = told.lost {
        return Err(Failure::Device(reason));
    }
    let file = results::file(&told.points, &experiment, arguments.backward, &told.adapter, None);
    if let Some(out) = &arguments.out {
        std::fs::write(out, file.to_json() + "\n")
            .map_err(|e| Failure::Request(format!("--out: {} cannot be written: {e}", out.display())))?;
    }
    if arguments.json {
        return print_json(&serde_json::to_value(&file).unwrap_or_default());
    }
    report::print_report(&told.adapter, &experiment, &told.points, &single)
}

/// What the engine says, gathered; progress goes to standard error as it comes.
#[derive(Debug, Default)]
struct Told {
    adapter: AdapterFacts,
    points: Vec<Point>,
    failed: Option<String>,
    lost: Option<String>,
}

impl Told {
    fn hear(&mut self, event: Event) {
        match event {
            Event::Ready { adapter, notice, .. } => {
                self.adapter = adapter;
                if let Some(notice) = notice {
                    eprintln!("note: {notice}");
                }
            }
            Event::Point { point, done, total, seconds_left } => {
                let left = seconds_left.map(|s| format!(", about {s:.0} s left")).unwrap_or_default();
                eprintln!("{done}/{total} {} at {}{left}", point.variant, point.length);
                self.points.push(point);
            }
            Event::DeviceLost { reason, recovered } => {
                eprintln!("note: the device was lost ({reason}) and the race begins again");
                // What was measured on two devices must not be mixed.
                self.points.clear();
                if !recovered {
                    self.lost = Some(reason);
                }
            }
            Event::Refused { what, reason, .. } => eprintln!("note: {what}: {reason}"),
            Event::Failed { reason } => self.failed = Some(reason),
            _ => {}
        }
    }
}

/// The experiment that the options describe; what is wrong in them is named, not corrected.
fn experiment(arguments: &Arguments) -> Result<Experiment, Failure> {
    let range = |option: &str, value: usize, max: usize| {
        let wrong = || Failure::Request(format!("--{option}: {value} is not allowed; it takes 1 to {max}"));
        if (1..=max).contains(&value) { Ok(()) } else { Err(wrong()) }
    };
    range("batch", arguments.batch, MAX_BATCH)?;
    range("heads", arguments.heads, MAX_HEADS)?;
    range("dim", arguments.dim, MAX_DIM)?;
    for &length in &arguments.lengths {
        range("lengths", length, MAX_LENGTH)?;
    }
    for &size in &arguments.matmul {
        range("matmul", size, 8192)?;
    }
    if !(arguments.budget > 0.0 && arguments.budget.is_finite()) {
        let got = arguments.budget;
        return Err(Failure::Request(format!("--budget: {got} is not allowed; it takes seconds above 0")));
    }
    let all: Vec<String> = ALL.iter().map(|v| v.id.to_owned()).collect();
    let variants = if arguments.variants.is_empty() { all } else { arguments.variants.clone() };
    for id in &variants {
        find_variant(id)?;
    }
    Ok(Experiment {
        variants,
        params: params(&arguments.params)?,
        batch: arguments.batch,
        heads: arguments.heads,
        dim: arguments.dim,
        causal: arguments.causal,
        ..Experiment::default()
    })
}

fn params(text: &str) -> Result<BTreeMap<String, Params>, Failure> {
    let wrong = |what: String| Failure::Request(format!("--params: {what}"));
    let json: BTreeMap<String, serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text)
        .map_err(|e| wrong(format!("{e}; it takes e.g. {{\"sliding_window\": {{\"window\": 128}}}}")))?;
    json.into_iter()
        .map(|(id, values)| {
            let params = Params::from_json(&values, find_variant(&id)?.params);
            Ok((id, params.map_err(|e| wrong(e.to_string()))?))
        })
        .collect()
}

fn failure(fault: Fault) -> Failure {
    match fault {
        Fault::Stopped => Failure::Cancelled,
        Fault::Lost(reason) => Failure::Device(reason),
        Fault::Refused { reason, .. } => Failure::Adapter(reason),
    }
}

/// A rate as a row of the table: what, GFLOP/s, and its share of the first, which is the adapter's peak.
fn rate_row(rate: &Rate, peak: Option<f64>) -> Vec<String> {
    let share = peak.map(|p| format!("{:.1} %", 100.0 * rate.gflops() / p)).unwrap_or_default();
    vec![rate.what.clone(), format!("{:.3}", rate.time.median), format!("{:.1}", rate.gflops()), share]
}
