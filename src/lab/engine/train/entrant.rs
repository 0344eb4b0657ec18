//! One run of a race.

use crate::gpu::{Gpu, now_ms};
use crate::lab::engine::device::{CPU_FLOPS, Device, Fault};
use crate::lab::engine::pause::Pacer;
use crate::lab::subject::Subject;
use crate::lab::train::memory::MemoryTimeline;
use crate::lab::train::orders::{Failed, Held, RunFacts, Sample};
use crate::lab::train::{Checkpoint, Error, Run, RunConfig};
use std::rc::Rc;

/// Steps of a probe, at most, and how long it may take.
const PROBE_STEPS: u32 = 8;
const PROBE_MS: f64 = 150.0;
/// A run has its turn for about so long.
const TURN_MS: f64 = 80.0;

/// A run with what was seen of it.
pub struct Entrant {
    pub facts: RunFacts,
    /// None where it cannot be, was stopped, or its device is lost.
    pub run: Option<Run>,
    /// Where it goes on without a run; none: at its beginning.
    pub kept: Option<Checkpoint>,
    /// The model whose weights it begins with.
    pub begins: Option<Rc<Subject>>,
    pub seconds: f64,
    /// Samples that have been told.
    pub told: usize,
    /// Milliseconds of a step, as of late.
    step_ms: f64,
}

impl Entrant {
    /// A run that is not made yet.
    pub fn new(config: RunConfig) -> Self {
        let facts = RunFacts {
            config,
            weights: 0,
            flops: 0,
            bytes: 0,
            bytes_by_category: vec![],
            memory: None,
            chance: 0.0,
            step_seconds: None,
            forked: None,
            samples: vec![],
            failed: None,
        };
        Self { facts, run: None, kept: None, begins: None, seconds: 0.0, told: 0, step_ms: f64::INFINITY }
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.run.as_ref().map_or_else(|| self.kept.as_ref().map_or(0, |kept| kept.step), Run::steps)
    }

    /// Whether it has steps left, and nothing keeps it from them.
    pub fn can_go_on(&self) -> bool {
        self.facts.failed.is_none() && self.step() < self.facts.config.steps
    }

    /// Makes the run, at its beginning or where it was kept. What cannot be is remembered with its reason.
    pub async fn make(&mut self, device: &Device) -> Result<(), Fault> {
        let gpu = gpu_of(device);
        let config = &self.facts.config;
        let made = match (&self.kept, self.begins.as_ref().and_then(|subject| subject.weights.as_ref())) {
            (Some(kept), _) => Run::resume(config, kept, gpu).await,
            (None, Some(weights)) => Run::from_weights(config, weights, gpu).await.map(|(run, _)| run),
            (None, None) => Run::new(config, gpu).await,
        };
        let run = match made {
            Ok(run) => run,
            Err(error) => return self.fail(error),
        };
        let most = device.most_flops().min(if gpu.is_none() { CPU_FLOPS } else { u64::MAX });
        if run.flops() > most {
            let batch = (run.config().batch as u64 * most / run.flops()).max(1);
            self.facts.failed = Some(Failed {
                reason: format!("a step of {} operations is more than the processor does in some seconds", run.flops()),
                nearest: Some(format!("batch {batch}")),
            });
            return Ok(());
        }
        self.facts.config = run.config().clone();
        self.facts.weights = run.weights();
        self.facts.flops = run.flops();
        self.facts.chance = run.task().chance();
        self.facts.bytes = run.plan().peak_bytes();
        let named = |(category, bytes)| (crate::lab::engine::sweep::category_name(category), bytes);
        self.facts.bytes_by_category = run.plan().bytes_by_category().into_iter().map(named).collect();
        self.facts.memory = Some(MemoryTimeline::new(run.plan()));
        // What was seen behind the point where it goes on will be seen again.
        let at = run.steps();
        self.facts.samples.retain(|sample| sample.step <= at);
        self.told = self.facts.samples.len();
        self.seconds = self.facts.samples.last().map_or(0.0, |sample| sample.seconds);
        self.run = Some(run);
        Ok(())
    }

    /// Times a few steps and goes back to the beginning.
    pub async fn probe(&mut self) -> Result<(), Fault> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let probed = probe(run).await;
        match probed {
            Ok(ms) => {
                self.step_ms = ms;
                self.facts.step_seconds = Some(ms / 1e3);
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }

    /// Steps that fit into a turn, at most those to the next judgement and reading.
    pub fn turn(&self) -> u64 {
        let config = &self.facts.config;
        let fit = if self.step_ms.is_finite() { (TURN_MS / self.step_ms.max(1e-3)) as u64 } else { 1 };
        let next = |every: u64| if every == 0 { u64::MAX } else { every - self.step() % every };
        let left = config.steps.saturating_sub(self.step());
        fit.clamp(1, config.log_every).min(next(config.evaluation.every)).min(left)
    }

    /// Takes so many steps, and looks at the last one.
    pub async fn go(&mut self, steps: u64, stop: &dyn Fn() -> bool) -> Result<(), Fault> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let mut pacer = Pacer::default();
        let mut pause = async || {
            pacer.pause().await;
            stop()
        };
        let begun = now_ms();
        let mut done = 0;
        let mut result = Ok(());
        for _ in 0..steps {
            result = run.step_in_pauses(&mut pause).await;
            if result.is_err() {
                break;
            }
            done += 1;
        }
        if done > 0 && result.as_ref().err().is_none_or(is_stopped) {
            match run.reading().await {
                Ok(reading) => {
                    let ms = now_ms() - begun;
                    self.step_ms = ms / f64::from(done);
                    self.seconds += ms / 1e3;
                    let (step, loss, norm) = (reading.step, reading.loss, reading.norm);
                    self.facts.samples.push(Sample { step, seconds: self.seconds, loss, norm, held: None });
                    if !loss.is_finite() {
                        self.facts.failed = Some(Failed {
                            reason: format!("the loss of step {step} is {loss}"),
                            nearest: Some("a smaller learning rate".into()),
                        });
                        return Ok(());
                    }
                    self.judge_where_due().await?;
                }
                Err(error) => return self.fail(error),
            }
        }
        result.or_else(|error| self.fail(error))
    }

    async fn judge_where_due(&mut self) -> Result<(), Fault> {
        let config = &self.facts.config;
        let at = self.step();
        let due = at == config.steps || (config.evaluation.every > 0 && at.is_multiple_of(config.evaluation.every));
        let Some(run) = self.run.as_mut().filter(|_| due) else { return Ok(()) };
        match run.evaluate(&|| false).await {
            Ok(judged) => {
                if let Some(sample) = self.facts.samples.last_mut() {
                    sample.held = Some(Held { loss: judged.loss, score: judged.score });
                }
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }

    /// Keeps the run as it is now.
    pub async fn keep(&mut self) -> Result<(), Fault> {
        let Some(run) = &self.run else { return Ok(()) };
        match run.checkpoint().await {
            Ok(kept) => self.kept = Some(kept),
            Err(error) => return self.fail(error),
        }
        Ok(())
    }

    /// What ends one run is remembered; what ends more is given back.
    fn fail(&mut self, error: Error) -> Result<(), Fault> {
        let failed = match error {
            error if is_stopped(&error) => return Err(Fault::Stopped),
            Error::Gpu(error) => match Fault::from(error) {
                Fault::Refused { reason, nearest } => Failed { reason, nearest },
                other => return Err(other),
            },
            Error::Config(e) => {
                Failed { reason: format!("{}: {} is not allowed", e.field, e.got), nearest: Some(e.takes) }
            }
            Error::Task(e) => Failed {
                reason: format!("{}: {} is not allowed; it takes {}", e.key, e.got, e.takes),
                nearest: Some(e.nearest),
            },
            Error::OutOfMemory(_) => {
                let half = (self.facts.config.batch / 2).max(1);
                Failed { reason: error.to_string(), nearest: Some(format!("batch {half}")) }
            }
            other => Failed { reason: other.to_string(), nearest: None },
        };
        self.facts.failed = Some(failed);
        self.run = None;
        Ok(())
    }
}

/// The device for a run; none: the interpreter.
fn gpu_of(device: &Device) -> Option<&Gpu> {
    match device {
        Device::Gpu(gpu) => Some(gpu),
        Device::Cpu => None,
    }
}

fn is_stopped(error: &Error) -> bool {
    matches!(error, Error::Cpu(crate::graph::cpu::Error::Cancelled) | Error::Gpu(crate::gpu::Error::Cancelled))
}

/// Milliseconds of a step: the first waits for what the device has put off and does not count where there is time for more.
async fn probe(run: &mut Run) -> Result<f64, Error> {
    let mut pacer = Pacer::default();
    let mut pause = async || {
        pacer.pause().await;
        false
    };
    let start = now_ms();
    run.step_in_pauses(&mut pause).await?;
    run.reading().await?;
    let mut ms = now_ms() - start;
    let mut steps = 1;
    while steps < PROBE_STEPS && now_ms() - start < PROBE_MS {
        let begun = now_ms();
        for _ in 0..steps {
            run.step_in_pauses(&mut pause).await?;
        }
        run.reading().await?;
        ms = (now_ms() - begun) / f64::from(steps);
        steps *= 2;
    }
    run.restart()?;
    Ok(ms)
}
