//! Times of prepared graphs: the GPU's timer, or the wall clock around the interpreter.

use super::device::{Device, Fault};
use super::inbox::Watch;
use super::prepared::Prepared;
use crate::gpu::{Timer, now_ms};
use crate::measure::Timing;

/// A span of the interpreter is at least so long.
const SHORTEST_MS: f64 = 20.0;
/// Most runs of the interpreter for the times of stages.
const MOST_RUNS: u32 = 100;

/// Takes times on one device.
pub enum Stopwatch {
    Gpu(Timer),
    Cpu,
}

impl Stopwatch {
    pub async fn new(device: &Device) -> Result<Self, Fault> {
        Ok(match device {
            Device::Gpu(gpu) => Self::Gpu(Timer::new(gpu).await?),
            Device::Cpu => Self::Cpu,
        })
    }

    /// `timestamp` or `wall`.
    pub fn how(&self) -> &'static str {
        match self {
            Self::Gpu(timer) => timer.how().id(),
            Self::Cpu => "wall",
        }
    }

    /// The step of the clock, in milliseconds.
    pub fn quantum_ms(&self) -> f64 {
        match self {
            Self::Gpu(timer) => timer.quantum_ns() * 1e-6,
            // Browsers round the clock to 0.1 ms at worst.
            Self::Cpu => 0.1,
        }
    }

    /// Warms up; how many runs make one span, and the time of one run.
    pub async fn calibrate(&self, x: &mut Prepared, watch: &Watch) -> Result<(u32, f64), Fault> {
        match (self, x.replay()) {
            (Self::Gpu(timer), Some(replay)) => {
                let repeats = timer.calibrate(replay, None).await?;
                Ok((repeats, timer.span(replay, None, repeats).await?))
            }
            _ => {
                let first = self.span(x, 1, watch).await?;
                // The first run also fills caches; a short one is not believed.
                let ms = if first < SHORTEST_MS { self.span(x, 1, watch).await?.min(first) } else { first };
                Ok(((SHORTEST_MS / ms.max(1e-3)).ceil().clamp(1.0, 1000.0) as u32, ms))
            }
        }
    }

    /// Milliseconds of one run, from one span of `repeats`.
    pub async fn span(&self, x: &mut Prepared, repeats: u32, watch: &Watch) -> Result<f64, Fault> {
        if let (Self::Gpu(timer), Some(replay)) = (self, x.replay()) {
            return Ok(timer.span(replay, None, repeats).await?);
        }
        // Pauses for messages are not part of the time, so ops are added up.
        let mut ms = 0.0;
        for _ in 0..repeats {
            ms += x.run(watch).await?.iter().sum::<f64>();
        }
        Ok(ms / f64::from(repeats))
    }

    /// Median time of each stage that takes any.
    pub async fn stages(&self, x: &mut Prepared, watch: &Watch) -> Result<Vec<(String, f64)>, Fault> {
        if let (Self::Gpu(timer), Some(replay)) = (self, x.replay()) {
            let stages = timer.measure_stages(replay, 3).await?;
            return Ok(stages.into_iter().map(|(label, s)| (named(label), s.median())).collect());
        }
        // A browser's clock advances in steps that a short stage lies between: enough runs for each to be seen.
        let mut times = vec![0.0; x.graph.stages().len()];
        let mut runs = 0;
        while runs == 0 || (runs < MOST_RUNS && times.iter().sum::<f64>() < SHORTEST_MS) {
            for (sum, ms) in times.iter_mut().zip(x.run(watch).await?) {
                *sum += ms;
            }
            runs += 1;
        }
        let labels = x.graph.stages().iter().cloned().map(named);
        let each = times.iter().map(|ms| ms / f64::from(runs));
        Ok(labels.zip(each).filter(|(_, ms)| *ms > 0.0).collect())
    }

    /// Some spans of one graph alone.
    pub async fn time(&self, x: &mut Prepared, spans: usize, watch: &Watch) -> Result<Option<Timing>, Fault> {
        let (repeats, _) = self.calibrate(x, watch).await?;
        let mut ms = Vec::new();
        for _ in 0..spans {
            if watch.stop() {
                return Err(Fault::Stopped);
            }
            ms.push(self.span(x, repeats, watch).await?);
        }
        Ok(Timing::new(&ms, self.how()))
    }
}

/// What was built outside any stage.
fn named(label: String) -> String {
    if label.is_empty() { "other".into() } else { label }
}

/// Milliseconds since `start`.
pub fn since(start: f64) -> f64 {
    now_ms() - start
}
