//! `attention-lab train`: a run from its configuration, with a log, and checkpoints from which it goes on.

use super::output::{print, print_json, table};
use super::{Failure, backend, tensors};
use attention_lab::lab::train::profile::{self, OpShare};
use attention_lab::lab::train::{Checkpoint, Error, Evaluation, Reading, Run, RunConfig, Weights};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two lines of progress.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Task, model, optimiser and steps; ready ones are in assets/runs
    #[arg(long, value_name = "RUN.json")]
    config: PathBuf,
    /// Where the weights and the optimiser's memories go, at each evaluation and at the end
    #[arg(long, value_name = "MODEL.safetensors")]
    out: Option<PathBuf>,
    /// One JSON object a line: start, readings of the loss, evaluations. With --resume, lines are added
    #[arg(long, value_name = "LOG.jsonl")]
    log: Option<PathBuf>,
    /// Go on from what --out has written
    #[arg(long, value_name = "CHECKPOINT")]
    resume: Option<PathBuf>,
    /// Begin with trained weights, as --weights writes them; the attention may be another
    #[arg(long, value_name = "WEIGHTS", conflicts_with = "resume")]
    from: Option<PathBuf>,
    /// Where the weights alone go at the end, at half precision
    #[arg(long, value_name = "WEIGHTS.safetensors")]
    weights: Option<PathBuf>,
    /// Tell at the end which ops a step spends its arithmetic on and, on a device, its time
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    backend: backend::Choice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = read_config(&arguments.config)?;
    // What no device could do is the request's fault; what this one can't is said below, when it is known.
    config.clone().complete(u64::MAX)?;
    let checkpoint = match &arguments.resume {
        Some(path) => Some(Checkpoint::from_bytes(&tensors::read_bytes("--resume", path)?)?),
        None => None,
    };
    let weights = match &arguments.from {
        Some(path) => Some(Weights::from_bytes(&tensors::read_bytes("--from", path)?)?),
        None => None,
    };
    for (option, path) in [("--out", &arguments.out), ("--weights", &arguments.weights)] {
        if let Some(path) = path {
            tensors::check_output(option, path)?;
        }
    }
    let log = Log::open(arguments.log.as_deref(), checkpoint.is_some())?;
    let backend = backend::Backend::choose(&arguments.backend)?;
    let start = match (checkpoint, weights) {
        (Some(checkpoint), _) => Start::Checkpoint(checkpoint),
        (None, Some(weights)) => Start::Weights(weights),
        (None, None) => Start::Drawn,
    };
    pollster::block_on(train(arguments, &config, start, &backend, log))
}

/// What a run begins with.
enum Start {
    Drawn,
    Checkpoint(Checkpoint),
    Weights(Weights),
}

/// A file of a configuration.
fn read_config(path: &Path) -> Result<RunConfig, Failure> {
    let wrong = |what: String| Failure::Request(format!("--config {}: {what}", path.display()));
    let bytes = tensors::read_bytes("--config", path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not a text".into()))?;
    RunConfig::parse(text).map_err(|e| wrong(e.to_string()))
}

async fn train(
    arguments: &Arguments,
    config: &RunConfig,
    start: Start,
    backend: &backend::Backend,
    mut log: Log,
) -> Result<(), Failure> {
    let gpu = match backend {
        backend::Backend::Gpu(gpu) => Some(gpu),
        backend::Backend::Cpu => None,
    };
    let made = match &start {
        Start::Drawn => Run::new(config, gpu).await,
        Start::Checkpoint(checkpoint) => Run::resume(config, checkpoint, gpu).await,
        Start::Weights(weights) => Run::from_weights(config, weights, gpu).await.map(|(run, exchange)| {
            for (names, what) in [(&exchange.begun, "drawn anew"), (&exchange.unused, "not used")] {
                if !names.is_empty() {
                    eprintln!("{what}: {}", names.join(", "));
                }
            }
            run
        }),
    };
    let mut run = made.map_err(|e| match e {
        Error::Config(e) => Failure::Adapter(e.to_string()),
        other => other.into(),
    })?;
    let config = run.config().clone();
    eprintln!(
        "{}: {} weights, {} tokens a step, steps {} to {} on {}",
        run.task().id(),
        run.weights(),
        config.batch * config.model.length,
        run.steps() + 1,
        config.steps,
        backend.adapter()
    );
    log.line(&json!({
        "event": "start", "step": run.steps(), "config": config, "weights": run.weights(), "flops": run.flops(),
        "backend": backend.name(), "adapter": backend.adapter(), "chance": run.task().chance(),
    }))?;

    let mut pace = Pace::default();
    let mut first: Option<Reading> = None;
    let mut last: Option<(Reading, Evaluation)> = None;
    let mut told = Instant::now();
    while run.steps() < config.steps {
        let began = Instant::now();
        run.step(&|| false)?;
        let at = run.steps();
        let ends = at == config.steps;
        let judges = ends || (config.evaluation.every > 0 && at.is_multiple_of(config.evaluation.every));
        let reads = judges || first.is_none() || at.is_multiple_of(config.log_every);
        let reading = if reads { Some(run.reading().await?) } else { None };
        pace.add(began.elapsed());
        let Some(reading) = reading else { continue };
        if !reading.loss.is_finite() {
            let reason = format!("the loss of step {at} is {}; a smaller optimiser.rate may help", reading.loss);
            return Err(Failure::Request(reason));
        }
        first.get_or_insert(reading);
        log.line(&with("step", &reading, pace.seconds()))?;
        if told.elapsed() >= QUIET || ends {
            told = Instant::now();
            let Reading { loss, norm, .. } = reading;
            eprintln!("step {at}/{}  loss {loss:.4}  norm {norm:.3}  {:.1} steps/s", config.steps, pace.rate());
        }
        if judges {
            let evaluation = run.evaluate(&|| false).await?;
            log.line(&with("held", &evaluation, pace.seconds()))?;
            eprintln!(
                "step {at}/{}  held out: loss {:.4}  accuracy {}  whole sequences {}",
                config.steps,
                evaluation.loss,
                share(evaluation.score.tokens.accuracy()),
                share(evaluation.score.sequences.accuracy()),
            );
            if let Some(out) = &arguments.out {
                tensors::write_bytes("--out", out, &run.checkpoint().await?.to_bytes()?)?;
            }
            last = Some((reading, evaluation));
        }
    }
    if let Some(path) = &arguments.weights {
        let held = match &last {
            Some((_, held)) => held.clone(),
            None => run.evaluate(&|| false).await?,
        };
        tensors::write_bytes("--weights", path, &run.weights_with(&held).await?.to_bytes()?)?;
    }
    let shares = if arguments.profile { profile::profile(run.plan(), gpu).await? } else { vec![] };
    report(arguments, &run, backend, first, last, &pace, &shares)
}

/// Time in steps alone. The first step counts for nothing: it waits for what the device has put off.
#[derive(Default)]
struct Pace {
    steps: u64,
    first: Duration,
    rest: Duration,
}

impl Pace {
    fn add(&mut self, time: Duration) {
        *(if self.steps == 0 { &mut self.first } else { &mut self.rest }) += time;
        self.steps += 1;
    }

    fn seconds(&self) -> f64 {
        (self.first + self.rest).as_secs_f64()
    }

    /// Steps a second.
    fn rate(&self) -> f64 {
        match self.steps {
            0 | 1 => self.steps as f64 / self.seconds().max(1e-9),
            steps => (steps - 1) as f64 / self.rest.as_secs_f64().max(1e-9),
        }
    }
}

/// A file of JSON lines, or nothing.
struct Log(Option<BufWriter<File>>);

impl Log {
    fn open(path: Option<&Path>, more: bool) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = OpenOptions::new().create(true).write(true).append(more).truncate(!more).open(path);
        let file = file.map_err(|e| Failure::Request(format!("--log {}: {e}", path.display())))?;
        Ok(Self(Some(BufWriter::new(file))))
    }

    /// Each line is in the file at once: a run that is killed has its log.
    fn line(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        writeln!(file, "{value}").and_then(|()| file.flush()).map_err(|e| Failure::Request(format!("--log: {e}")))
    }
}

/// A value as an object with an event's name and the seconds spent in steps.
fn with(event: &str, value: &impl serde::Serialize, seconds: f64) -> serde_json::Value {
    let mut line = json!({ "event": event, "seconds": seconds });
    if let (Some(line), Ok(serde_json::Value::Object(fields))) = (line.as_object_mut(), serde_json::to_value(value)) {
        line.extend(fields);
    }
    line
}

fn share(of: Option<f64>) -> String {
    of.map_or("–".into(), |x| format!("{:.2} %", 100.0 * x))
}

fn report(
    arguments: &Arguments,
    run: &Run,
    backend: &backend::Backend,
    first: Option<Reading>,
    last: Option<(Reading, Evaluation)>,
    pace: &Pace,
    shares: &[OpShare],
) -> Result<(), Failure> {
    if arguments.json {
        let (reading, held) = last.unzip();
        let mut report = json!({
            "task": run.task().id(), "steps": run.steps(), "weights": run.weights(), "backend": backend.name(),
            "adapter": backend.adapter(), "first": first, "last": reading, "held": held, "seconds": pace.seconds(),
            "steps_per_second": pace.rate(), "flops": run.flops(), "out": arguments.out,
        });
        if arguments.profile {
            report["ops"] = json!(shares);
        }
        return print_json(&report);
    }
    let Some((reading, held)) = last else {
        return print(&format!("{} steps were done before; nothing was left to do\n", run.steps()));
    };
    let mut rows = vec![
        ["steps".to_owned(), run.steps().to_string()],
        ["weights".into(), run.weights().to_string()],
        ["steps a second".into(), format!("{:.2}", pace.rate())],
        ["first loss read".into(), first.map_or("–".into(), |x| format!("{:.4} nats", x.loss))],
        ["last loss".into(), format!("{:.4} nats", reading.loss)],
        ["held-out loss".into(), format!("{:.4} nats", held.loss)],
        ["held-out accuracy".into(), share(held.score.tokens.accuracy())],
        ["chance".into(), share(Some(run.task().chance()))],
        ["whole sequences right".into(), share(held.score.sequences.accuracy())],
    ];
    for bin in &held.score.by_distance {
        let range = if bin.from == bin.to { bin.from.to_string() } else { format!("{} to {}", bin.from, bin.to) };
        rows.push([format!("accuracy at distance {range}"), share(bin.count.accuracy())]);
    }
    let flops: u64 = shares.iter().map(|share| share.flops).sum();
    let ms: f64 = shares.iter().filter_map(|share| share.ms).sum();
    for OpShare { op, dispatches, flops: own, ms: own_ms } in shares {
        let arithmetic = share(Some(*own as f64 / flops.max(1) as f64));
        let time =
            own_ms.map_or(String::new(), |own| format!(", {own:.3} ms, {} of all ops' time", share(Some(own / ms))));
        rows.push([format!("{op}, {dispatches} dispatches"), format!("{arithmetic} of the arithmetic{time}")]);
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    print(&table(&[run.task().id(), backend.adapter()], &rows))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Gpu(e) => e.into(),
            Error::Cpu(e) => e.into(),
            Error::OutOfMemory(_) => Self::Device(error.to_string()),
            _ => Self::Request(error.to_string()),
        }
    }
}
