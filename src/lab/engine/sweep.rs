//! Serving `Sweep`: length by length, all contenders prepared, then round by round over them.

use super::device::Fault;
use super::explore::inputs;
use super::inbox::Watch;
use super::pause::yield_now;
use super::prepared::{Planned, Prepared};
use super::timing::{Stopwatch, since};
use super::{Engine, setup_of};
use crate::attention::{Request, Setup, Variant, find};
use crate::gpu::now_ms;
use crate::lab::experiment::{Experiment, MAX_LENGTH, registry};
use crate::lab::protocol::{Event, Point};
use crate::measure::schedule::{Admission, Effort, Schedule};
use crate::measure::{ErrorToFull, Timing};
use crate::sort::Arrange;
use crate::task::{Qkv, Tokens};
use std::cell::LazyCell;

/// Contenders that are held at once may take so much memory together; others are measured one after the other.
pub(super) const TOGETHER_BYTES: u64 = 1 << 30;

/// Stages are timed apart where a run takes no longer.
const STAGES_MS: f64 = 250.0;

/// Lengths that one sweep takes at most.
const MAX_LENGTHS: usize = 64;

/// One contender at one length.
struct Entrant {
    contender: usize,
    runner: Runner,
    point: Point,
}

/// What takes turns with others.
pub(super) struct Runner {
    pub prepared: Prepared,
    /// Runs of one span, and rounds that it takes part in.
    repeats: u32,
    rounds: usize,
    /// Time of one run when it was warmed up, and all time spent on it, in milliseconds.
    run_ms: f64,
    spent_ms: f64,
    /// Milliseconds of one run, of each span.
    pub spans: Vec<f64>,
}

impl Runner {
    /// One that is warmed up.
    pub fn new(prepared: Prepared, repeats: u32, run_ms: f64, effort: Effort) -> Self {
        let rounds = effort.rounds_of(run_ms * f64::from(repeats));
        Self { prepared, repeats, rounds, run_ms, spent_ms: 0.0, spans: vec![] }
    }
}

/// What a sweep is about.
struct Course<'a> {
    experiment: &'a Experiment,
    variants: Vec<&'static Variant>,
    request: Request,
    watch: &'a Watch,
}

impl Engine {
    /// Measures every variant at every length; points are told as they come.
    pub(super) async fn sweep(
        &mut self,
        mut experiment: Experiment,
        lengths: &[usize],
        backward: bool,
        watch: &Watch,
    ) -> Result<(), Fault> {
        self.correct(&mut experiment);
        // Where memory ends is not to depend on what another place shows.
        self.give_resident_back();
        let experiment = experiment.with_fixed_parameters();
        let mut variants: Vec<&'static Variant> = experiment.variants.iter().filter_map(|id| find(id)).collect();
        // The others are compared with its output.
        variants.arrange_by_key(|v| v.id != "full");
        let exponents: Vec<f64> = variants.iter().map(|v| v.exponent).collect();
        let lengths: Vec<usize> =
            lengths.iter().copied().filter(|n| (1..=MAX_LENGTH).contains(n)).take(MAX_LENGTHS).collect();
        let mut schedule = Schedule::new(&lengths, &exponents, self.effort);
        let request = Request { grad: backward, ..Request::default() };
        let course = Course { experiment: &experiment, variants, request, watch };
        let stopwatch = self.stopwatch().await?;
        for length in schedule.lengths().to_vec() {
            match self.race(&course, length, &mut schedule, &stopwatch).await {
                Ok(()) => {}
                Err(Fault::Stopped) => {
                    self.emit(Event::SweepDone { cancelled: true });
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
        }
        self.emit(Event::SweepDone { cancelled: false });
        Ok(())
    }

    /// All contenders at one length.
    async fn race(
        &mut self,
        course: &Course<'_>,
        length: usize,
        schedule: &mut Schedule,
        stopwatch: &Stopwatch,
    ) -> Result<(), Fault> {
        let e = course.experiment;
        let tokens = Tokens::of_length(e.text.as_deref(), e.split, length);
        // Made when the first contender is known to fit.
        let x = LazyCell::new(|| inputs(&tokens.ids, e, None));
        let mut full_output = self.output_of_full(course, length, &x).await?;
        let mut entrants: Vec<Entrant> = Vec::new();
        let mut held = 0;
        for (contender, variant) in course.variants.iter().copied().enumerate() {
            self.between(course.watch).await?;
            let setup = setup_of(e, variant, length);
            let point = Point { variant: variant.id.into(), length, ..empty_point() };
            let planned = match Planned::new(&self.device, variant, &setup, course.request) {
                Ok(planned) => planned,
                Err(refusal) => {
                    let nearest = refusal.nearest.map(|n| format!("; nearest: {n}")).unwrap_or_default();
                    self.refuse(schedule, contender, Point { refused: Some(refusal.reason + &nearest), ..point });
                    continue;
                }
            };
            let by_category = planned.plan.bytes_by_category();
            let bytes = planned.plan.peak_bytes();
            let point = Point {
                bytes_peak: bytes,
                bytes_by_category: by_category.into_iter().map(|(c, b)| (category_name(c), b)).collect(),
                flops: planned.graph.cost().flops,
                ..point
            };
            if let Admission::TooLong { predicted_ms } = schedule.admit(contender, length) {
                let reason = format!(
                    "one run would take about {:.1} s; a sweep spends at most {:.1} s on it",
                    predicted_ms / 1e3,
                    self.effort.budget_ms / 1e3
                );
                self.refuse(schedule, contender, Point { refused: Some(reason), ..point });
                continue;
            }
            if held + bytes > TOGETHER_BYTES && !entrants.is_empty() {
                self.rounds(course, std::mem::take(&mut entrants), schedule, stopwatch).await?;
                held = 0;
            }
            let start = now_ms();
            let entered =
                self.enter(course, contender, variant, &setup, planned, &x, schedule, stopwatch, &mut full_output);
            match entered.await {
                Ok((prepared, repeats, run_ms, error)) => {
                    held += bytes;
                    let point = Point { error_to_full: error, ..point };
                    let mut runner = Runner::new(prepared, repeats, run_ms, self.effort);
                    runner.spent_ms = since(start);
                    entrants.push(Entrant { contender, runner, point });
                }
                Err(Fault::Refused { reason, .. }) => {
                    self.refuse(schedule, contender, Point { refused: Some(reason), ..point });
                }
                Err(other) => return Err(other),
            }
        }
        self.rounds(course, entrants, schedule, stopwatch).await
    }

    /// Prepares a contender, compares its output with `full`'s and warms it up.
    #[allow(clippy::too_many_arguments, reason = "one step of the race, apart so that its errors end one point only")]
    async fn enter(
        &self,
        course: &Course<'_>,
        contender: usize,
        variant: &'static Variant,
        setup: &Setup,
        planned: Planned,
        x: &LazyCell<Qkv, impl FnOnce() -> Qkv>,
        schedule: &Schedule,
        stopwatch: &Stopwatch,
        full_output: &mut Option<Vec<f32>>,
    ) -> Result<(Prepared, u32, f64, Option<ErrorToFull>), Fault> {
        let mut prepared = self.prepare(variant, planned).await?;
        prepared.write_all(variant, setup, x)?;
        prepared.run(course.watch).await?;
        let mut error = None;
        if variant.id == "full" {
            *full_output = Some(prepared.read("out").await?);
        } else if let Some(full) = full_output {
            error = Some(ErrorToFull::between(full, &prepared.read("out").await?));
        }
        debug_assert!(contender < schedule.progress().1.max(1));
        let (repeats, run_ms) = stopwatch.calibrate(&mut prepared, course.watch).await?;
        Ok((prepared, repeats, run_ms, error))
    }

    /// The output of `full` at this length where it is no contender itself and can be had quickly.
    async fn output_of_full(
        &self,
        course: &Course<'_>,
        length: usize,
        x: &LazyCell<Qkv, impl FnOnce() -> Qkv>,
    ) -> Result<Option<Vec<f32>>, Fault> {
        let Some(full) = find("full").filter(|_| course.variants.iter().all(|v| v.id != "full")) else {
            return Ok(None);
        };
        let setup = setup_of(course.experiment, full, length);
        let planned = match Planned::new(&self.device, full, &setup, Request::default()) {
            Ok(planned) if planned.graph.cost().flops <= self.device.most_flops() / 10 => planned,
            _ => return Ok(None),
        };
        let mut prepared = match self.prepare(full, planned).await {
            Ok(prepared) => prepared,
            Err(Fault::Refused { .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        prepared.write_all(full, &setup, x)?;
        prepared.run(course.watch).await?;
        Ok(Some(prepared.read("out").await?))
    }

    /// Round by round over the prepared contenders, then their points.
    async fn rounds(
        &mut self,
        course: &Course<'_>,
        mut entrants: Vec<Entrant>,
        schedule: &mut Schedule,
        stopwatch: &Stopwatch,
    ) -> Result<(), Fault> {
        let mut runners: Vec<&mut Runner> = entrants.iter_mut().map(|x| &mut x.runner).collect();
        self.take_turns(&mut runners, stopwatch, course.watch).await?;
        for Entrant { contender, mut runner, mut point } in entrants {
            self.between(course.watch).await?;
            let start = now_ms();
            if runner.run_ms <= STAGES_MS {
                point.stages_ms = stopwatch.stages(&mut runner.prepared, course.watch).await?;
            }
            point.time = Timing::new(&runner.spans, stopwatch.how());
            let run_ms = point.time.as_ref().map_or(runner.run_ms, |t| t.median);
            schedule.measured(contender, point.length, run_ms, runner.spent_ms + since(start));
            self.tell(schedule, point);
        }
        Ok(())
    }

    /// Round by round, a span of each.
    pub(super) async fn take_turns(
        &mut self,
        runners: &mut [&mut Runner],
        stopwatch: &Stopwatch,
        watch: &Watch,
    ) -> Result<(), Fault> {
        for round in 0..self.effort.rounds {
            for x in runners.iter_mut().filter(|x| round < x.rounds) {
                self.between(watch).await?;
                let start = now_ms();
                let ms = stopwatch.span(&mut x.prepared, x.repeats, watch).await?;
                x.spans.push(ms);
                x.spent_ms += since(start);
            }
        }
        Ok(())
    }

    /// Brings an experiment into its ranges and tells what had to change.
    pub(super) fn correct(&self, experiment: &mut Experiment) {
        for c in experiment.check(&registry) {
            let reason = format!("{:?} is not allowed; it takes {}", c.got, c.takes);
            self.emit(Event::Refused { what: c.key, reason, nearest: Some(c.used) });
        }
    }

    fn refuse(&self, schedule: &mut Schedule, contender: usize, point: Point) {
        schedule.refused(contender);
        self.tell(schedule, point);
    }

    fn tell(&self, schedule: &Schedule, point: Point) {
        let (done, total) = schedule.progress();
        self.emit(Event::Point { point, done, total, seconds_left: schedule.seconds_left() });
    }

    /// Between two spans: messages come in, other requests are served, other engines of the device go on, and a hidden page
    /// waits, since browsers slow it down.
    pub(super) async fn between(&mut self, watch: &Watch) -> Result<(), Fault> {
        self.turn = None;
        yield_now().await;
        self.take_turn().await;
        while let Some(command) = self.inbox.pop_between() {
            Box::pin(self.handle_between(command)).await?;
        }
        self.turn = None;
        self.inbox.seen(watch).await;
        self.take_turn().await;
        if watch.stop() { Err(Fault::Stopped) } else { Ok(()) }
    }
}

fn empty_point() -> Point {
    Point {
        variant: String::new(),
        length: 0,
        time: None,
        stages_ms: vec![],
        bytes_peak: 0,
        bytes_by_category: vec![],
        flops: 0,
        error_to_full: None,
        refused: None,
    }
}

/// The category's name in files.
pub(super) fn category_name(category: crate::gpu::Category) -> String {
    serde_json::to_value(category).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default()
}

/// The effort that fits a device: the interpreter is stopped earlier, since a run of it is not interrupted often.
pub(super) fn effort(is_cpu: bool) -> Effort {
    if is_cpu { Effort { rounds: 5, budget_ms: 4_000.0 } } else { Effort::default() }
}
