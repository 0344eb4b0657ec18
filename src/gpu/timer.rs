//! Timing a program or one of its stages.
//!
//! Browsers round timestamps, some to 65,536 ns, so a stage is repeated inside one span until the span is many quanta long.
//! Where there are no timestamps, the clock around a submission and its completion serves, over longer spans, and the result
//! says so. Repeating runs the dispatches again on what they left: programs that update in place go on updating.

use super::ledger::Buffer;
use super::replay::budget;
use super::{Category, Error, Gpu, Replay, clock::now_ms};
use crate::sort::Arrange;

/// How a time was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Timestamp,
    Wall,
}

impl How {
    /// `timestamp` or `wall`.
    pub fn id(self) -> &'static str {
        match self {
            How::Timestamp => "timestamp",
            How::Wall => "wall",
        }
    }
}

/// Times of one run, one for each span, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    pub ms: Vec<f64>,
    /// Runs inside each span.
    pub repeats: u32,
    pub how: How,
}

impl Samples {
    pub fn median(&self) -> f64 {
        let mut sorted = self.ms.clone();
        sorted.arrange_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]),
        }
    }

    pub fn min(&self) -> f64 {
        self.ms.iter().copied().fold(f64::NAN, f64::min)
    }

    pub fn max(&self) -> f64 {
        self.ms.iter().copied().fold(f64::NAN, f64::max)
    }
}

/// A span is this many quanta long, so that rounding changes it by at most 2 %.
const QUANTA_PER_SPAN: f64 = 100.0;
/// Shortest span by timestamps and by the wall clock, in nanoseconds.
const SHORTEST_SPAN_NS: f64 = 1e6;
const SHORTEST_WALL_SPAN_NS: f64 = 2e7;
/// Most dispatches in one span.
const MOST_PER_SPAN: usize = 20_000;

/// Takes times on one device.
pub struct Timer {
    gpu: Gpu,
    stamps: Option<Stamps>,
    quantum_ns: f64,
}

struct Stamps {
    set: wgpu::QuerySet,
    resolved: Buffer,
    staging: Buffer,
}

impl Timer {
    /// Prepares the queries and, once for each device, finds how coarse its timestamps are.
    pub async fn new(gpu: &Gpu) -> Result<Self, Error> {
        gpu.check()?;
        let stamps = if gpu.caps().timestamps { Some(Stamps::new(gpu).await?) } else { None };
        let mut timer = Self { gpu: gpu.clone(), stamps, quantum_ns: 0.0 };
        timer.quantum_ns = match gpu.quantum_ns().get() {
            Some(known) => known,
            None => timer.find_quantum().await?,
        };
        gpu.quantum_ns().set(Some(timer.quantum_ns));
        Ok(timer)
    }

    /// A timer that uses the wall clock even where there are timestamps.
    pub fn by_clock(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), stamps: None, quantum_ns: clock_step_ns() }
    }

    pub fn how(&self) -> How {
        if self.stamps.is_some() { How::Timestamp } else { How::Wall }
    }

    /// The step in which times advance, in nanoseconds.
    pub fn quantum_ns(&self) -> f64 {
        self.quantum_ns
    }

    /// Warms up and finds how many runs make a span long enough. `stage` none: the whole program.
    pub async fn calibrate(&self, replay: &Replay, stage: Option<usize>) -> Result<u32, Error> {
        let dispatches = replay.select(stage).len().max(1);
        let most = (MOST_PER_SPAN / dispatches).max(1) as u32;
        let shortest = match self.how() {
            How::Timestamp => SHORTEST_SPAN_NS,
            How::Wall => SHORTEST_WALL_SPAN_NS,
        };
        let wanted_ns = shortest.max(QUANTA_PER_SPAN * self.quantum_ns);
        self.span(replay, stage, 1).await?;
        let mut repeats = 1;
        loop {
            let span_ns = self.span(replay, stage, repeats).await? * f64::from(repeats) * 1e6;
            if span_ns >= wanted_ns || repeats >= most {
                return Ok(repeats);
            }
            // From a span of a few quanta nothing is known but that it is short.
            let factor =
                if span_ns > 4.0 * self.quantum_ns { (1.1 * wanted_ns / span_ns).clamp(1.2, 16.0) } else { 8.0 };
            repeats = ((f64::from(repeats) * factor).ceil() as u32).min(most);
        }
    }

    /// One span of `repeats` runs; milliseconds for one run.
    pub async fn span(&self, replay: &Replay, stage: Option<usize>, repeats: u32) -> Result<f64, Error> {
        let selected = replay.select(stage);
        if selected.is_empty() {
            return Ok(0.0);
        }
        let flops: u64 = selected.iter().map(|(_, f)| f).sum();
        let ns = match &self.stamps {
            Some(stamps) => self.stamped(replay, &selected, repeats, stamps).await?,
            None => {
                self.gpu.wait().await?;
                let start = now_ms();
                self.submit(replay, &selected, repeats, None)?;
                self.gpu.wait().await?;
                (now_ms() - start) * 1e6
            }
        };
        if stage.is_none() && flops > 1_000_000 && ns > 1e6 {
            self.gpu.note_rate(flops as f64 * f64::from(repeats) / (ns * 1e-9));
        }
        Ok(ns * 1e-6 / f64::from(repeats))
    }

    /// Calibrates, then takes `spans` spans.
    pub async fn measure(&self, replay: &Replay, stage: Option<usize>, spans: usize) -> Result<Samples, Error> {
        let repeats = self.calibrate(replay, stage).await?;
        let mut ms = Vec::with_capacity(spans);
        for _ in 0..spans {
            ms.push(self.span(replay, stage, repeats).await?);
        }
        Ok(Samples { ms, repeats, how: self.how() })
    }

    /// Every stage that has dispatches, apart.
    pub async fn measure_stages(&self, replay: &Replay, spans: usize) -> Result<Vec<(String, Samples)>, Error> {
        let mut all = Vec::new();
        for (index, label) in replay.stages().iter().enumerate() {
            if !replay.select(Some(index)).is_empty() {
                all.push((label.clone(), self.measure(replay, Some(index), spans).await?));
            }
        }
        Ok(all)
    }

    async fn stamped(
        &self,
        replay: &Replay,
        selected: &[(usize, u64)],
        repeats: u32,
        stamps: &Stamps,
    ) -> Result<f64, Error> {
        self.submit(replay, selected, repeats, Some(&stamps.set))?;
        let ticks = stamps.read(&self.gpu).await?;
        let period = f64::from(self.gpu.queue().get_timestamp_period());
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * period)
    }

    /// Submits the dispatches `repeats` times, cut into passes that hold the device no longer than one may; the first and
    /// last pass write the queries.
    fn submit(
        &self,
        replay: &Replay,
        selected: &[(usize, u64)],
        repeats: u32,
        queries: Option<&wgpu::QuerySet>,
    ) -> Result<(), Error> {
        let budget = budget(&self.gpu);
        let mut passes: Vec<Vec<usize>> = vec![Vec::new()];
        let mut flops = 0;
        for _ in 0..repeats {
            for &(dispatch, cost) in selected {
                let current = passes.last().map_or(0, Vec::len);
                if current > 0 && flops + cost > budget {
                    passes.push(Vec::new());
                    flops = 0;
                }
                if let Some(pass) = passes.last_mut() {
                    pass.push(dispatch);
                }
                flops += cost;
            }
        }
        let last = passes.len() - 1;
        for (i, dispatches) in passes.into_iter().enumerate() {
            self.gpu.check()?;
            let timestamp_writes =
                queries.filter(|_| i == 0 || i == last).map(|query_set| wgpu::ComputePassTimestampWrites {
                    query_set,
                    beginning_of_pass_write_index: (i == 0).then_some(0),
                    end_of_pass_write_index: (i == last).then_some(1),
                });
            let mut encoder = self.gpu.encoder("timed");
            {
                let descriptor = wgpu::ComputePassDescriptor { label: Some("timed"), timestamp_writes };
                let mut pass = encoder.begin_compute_pass(&descriptor);
                replay.encode(&mut pass, dispatches.into_iter());
            }
            self.gpu.queue().submit([encoder.finish()]);
        }
        self.gpu.check()
    }

    /// The greatest common divisor of the differences of many timestamps; of the wall clock, its smallest step.
    async fn find_quantum(&self) -> Result<f64, Error> {
        let Some(stamps) = &self.stamps else {
            return Ok(clock_step_ns());
        };
        let mut ticks = Vec::new();
        // Coarse timestamps may stand still over several short passes: go on until they have moved often enough.
        for _ in 0..MOST_PASSES_FOR_QUANTUM {
            let mut encoder = self.gpu.encoder("quantum");
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &stamps.set,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
            drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("quantum"), timestamp_writes }));
            self.gpu.queue().submit([encoder.finish()]);
            ticks.extend(stamps.read(&self.gpu).await?);
            let mut values = ticks.clone();
            values.sort_unstable();
            values.dedup();
            if values.len() >= 12 {
                let step = values.windows(2).map(|w| w[1] - w[0]).fold(0, gcd);
                return Ok(step as f64 * f64::from(self.gpu.queue().get_timestamp_period()));
            }
        }
        // They never moved: as coarse as the coarsest known.
        Ok(65_536.0)
    }
}

const MOST_PASSES_FOR_QUANTUM: usize = 200;
/// Queries in the set: begin and end.
const STAMPS: u32 = 2;
const STAMP_BYTES: u64 = 8 * STAMPS as u64;

impl Stamps {
    async fn new(gpu: &Gpu) -> Result<Self, Error> {
        let descriptor =
            wgpu::QuerySetDescriptor { label: Some("timer"), ty: wgpu::QueryType::Timestamp, count: STAMPS };
        let set = gpu.device().create_query_set(&descriptor);
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = gpu.buffer("timestamps", Category::Staging, STAMP_BYTES, usage).await?;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = gpu.buffer("timestamps", Category::Staging, STAMP_BYTES, usage).await?;
        Ok(Self { set, resolved, staging })
    }

    /// Both timestamps, once all work is done.
    async fn read(&self, gpu: &Gpu) -> Result<Vec<u64>, Error> {
        let mut encoder = gpu.encoder("timestamps");
        encoder.resolve_query_set(&self.set, 0..STAMPS, self.resolved.raw(), 0);
        encoder.copy_buffer_to_buffer(self.resolved.raw(), 0, self.staging.raw(), 0, STAMP_BYTES);
        gpu.queue().submit([encoder.finish()]);
        let bytes = gpu.map(&self.staging, STAMP_BYTES).await?;
        Ok(bytes.chunks_exact(8).map(|b| b.iter().rev().fold(0, |a, &x| a << 8 | u64::from(x))).collect())
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The smallest step of the clock seen over a short while.
fn clock_step_ns() -> f64 {
    let mut smallest = f64::INFINITY;
    let mut last = now_ms();
    for _ in 0..20_000 {
        let now = now_ms();
        if now > last {
            smallest = smallest.min((now - last) * 1e6);
        }
        last = now;
    }
    if smallest.is_finite() { smallest } else { 1e6 }
}
