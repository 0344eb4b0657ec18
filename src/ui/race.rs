//! Runs in training as the page shows them: curves as descriptions of charts, and sentences.

use super::components::gallery::family_key;
use super::format;
use super::texts::{fill, lookup, t};
use crate::attention;
use crate::lab::experiment::Experiment;
use crate::lab::train::RunConfig;
use crate::lab::train::memory::{BANDS, MemoryTimeline};
use crate::lab::train::orders::{Doing, Held, Look, NotKept, Pace, RunFacts, Sample};
use crate::lab::train::setup::{Against, NUMBERS, differences, task_id};
use crate::lab::train::verdict::{Awaited, Next, Verdict, accuracy, awaited, verdict};
use crate::model::Architecture;
use serde_json::{Value, json};

/// Points of a line, at most: more than a chart has pixels for.
const MOST_POINTS: usize = 240;
/// Lines of one family differ by their dashes.
const DASHES: [&str; 4] = ["none", "6 3", "2 3", "8 3 2 3"];

/// Runs in training, as the engine told of them.
#[derive(Clone, Debug, Default)]
pub struct Race {
    pub runs: Vec<RunFacts>,
    pub pace: Pace,
    pub doing: Doing,
    /// The run that is trained while the others rest.
    pub alone: Option<usize>,
    /// Why the browser keeps no more of it.
    pub not_kept: Option<NotKept>,
    /// The inside of a run, as it was last looked at.
    pub look: Option<Look>,
}

/// What a chart of a race shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    Loss,
    Accuracy,
    Distance,
}

impl Curve {
    pub const ALL: [Curve; 3] = [Curve::Loss, Curve::Accuracy, Curve::Distance];

    pub fn id(self) -> &'static str {
        ["loss", "accuracy", "distance"][self as usize]
    }

    pub fn title(self) -> &'static str {
        [t("train.loss"), t("train.accuracy"), t("train.distance")][self as usize]
    }

    pub fn under(self) -> &'static str {
        [t("train.loss_under"), t("train.accuracy_under"), t("train.distance_under")][self as usize]
    }
}

/// What an architecture is called.
pub fn architecture_name(kind: Architecture) -> &'static str {
    match kind {
        Architecture::Decoder => t("architecture.decoder"),
        Architecture::Encoder => t("architecture.encoder"),
        Architecture::EncoderDecoder => t("architecture.encoder_decoder"),
    }
}

/// The settings of a race in short.
pub fn in_short(e: &Experiment) -> String {
    let numbers = NUMBERS.iter().map(|number| {
        let name = lookup(&format!("train.field.{}", number.key)).unwrap_or(number.key);
        format!("{name} {}", format::count((number.get)(&e.train) as u64))
    });
    std::iter::once(architecture_name(e.train.architecture).to_owned()).chain(numbers).collect::<Vec<_>>().join(" · ")
}

/// The id of a run's variant.
pub fn variant_of(config: &RunConfig) -> &str {
    config.model.attention.first().map_or("", |mixer| mixer.variant.as_str())
}

/// What a run is called: its variant, and that it is a copy.
pub fn name_of(run: &RunFacts) -> String {
    let id = variant_of(&run.config);
    let name = attention::find(id).map_or(id, |variant| variant.name);
    match run.forked {
        Some((_, step)) => fill("train.copy_of", &[("name", name), ("step", &format::count(step))]),
        None if run.config.weights.is_some() => fill("train.tuned", &[("name", name)]),
        None => name.to_owned(),
    }
}

/// The runs of a race in short, by their tasks; none before the start, when the form says what they will be.
pub fn in_race(race: &Race) -> Option<String> {
    if matches!(race.doing, Doing::Nothing | Doing::Preparing | Doing::Ready) {
        return None;
    }
    let mut tasks: Vec<(String, Vec<String>)> = Vec::new();
    for run in &race.runs {
        let (task, name) = (task_name(&task_id(&run.config.task)), name_of(run));
        match tasks.iter_mut().find(|(known, _)| *known == task) {
            Some((_, names)) => names.push(name),
            None => tasks.push((task, vec![name])),
        }
    }
    let words: Vec<String> = tasks.iter().map(|(task, names)| format!("{task}: {}", names.join(" · "))).collect();
    Some(words.join("; "))
}

/// What a task is called.
pub fn task_name(id: &str) -> String {
    lookup(&format!("task.{id}")).map_or_else(|| id.replace('_', " "), str::to_owned)
}

/// What a run's file is called.
pub fn file_name(run: &RunFacts) -> String {
    let step = run.samples.last().map_or(0, |sample| sample.step);
    format!("{}-{step}.safetensors", variant_of(&run.config))
}

/// How far along the axis a look at a run is.
fn along(run: &RunFacts, sample: &Sample, against: Against) -> f64 {
    match against {
        Against::Steps => sample.step as f64,
        Against::Seconds => sample.seconds,
        Against::Flops => (sample.step * run.flops) as f64,
        Against::Tokens => (sample.step as usize * run.config.batch * run.config.model.length) as f64,
    }
}

/// The name of an axis.
pub fn against_name(against: Against) -> &'static str {
    [t("train.steps"), t("train.seconds"), t("train.flops"), t("train.tokens")][against as usize]
}

fn last_held(run: &RunFacts) -> Option<&Held> {
    run.samples.iter().rev().find_map(|sample| sample.held.as_ref())
}

/// A chart as `web/charts.js` takes it.
pub fn describe(curve: Curve, runs: &[RunFacts], against: Against, width: i32) -> Value {
    let mut families: Vec<&str> = Vec::new();
    let mut series = Vec::new();
    for run in runs {
        let family = attention::find(variant_of(&run.config)).map_or("full", |v| family_key(v.family));
        let dash = DASHES[families.iter().filter(|f| **f == family).count() % DASHES.len()];
        families.push(family);
        let (line, dots) = points(curve, run, against);
        series.push(json!({
            "name": name_of(run), "colour": format!("var(--family-{family})"), "dash": dash, "line": line, "dots": dots,
        }));
    }
    let chance = runs.iter().map(|run| run.chance).next().filter(|_| curve != Curve::Loss);
    let unit = match (curve, against) {
        (Curve::Distance, _) => "distance",
        (_, Against::Seconds) => "seconds",
        _ => "count",
    };
    json!({
        "kind": "curves", "label": curve.title(), "width": width, "series": series, "share": curve != Curve::Loss,
        "unit": unit, "xLabel": if curve == Curve::Distance { t("train.distance_axis") } else { against_name(against) },
        "rule": chance.map(|y| json!({ "y": y, "name": t("train.chance") })),
    })
}

/// A line of training losses, and dots of judgements.
fn points(curve: Curve, run: &RunFacts, against: Against) -> (Vec<[f64; 2]>, Vec<Value>) {
    let name = name_of(run);
    let dot = |x: f64, y: f64, tip: String| json!({ "n": x, "y": y, "tip": format!("{name}\n{tip}") });
    if curve == Curve::Distance {
        let bins = last_held(run).map_or(&[][..], |held| &held.score.by_distance);
        let dots = bins.iter().filter_map(|bin| {
            let range = if bin.from == bin.to { bin.from.to_string() } else { format!("{}–{}", bin.from, bin.to) };
            let share = bin.count.accuracy()?;
            let values = [("distance", range.as_str()), ("accuracy", &format::percent(share))];
            Some(dot(f64::from(bin.from.max(1)), share, fill("train.distance_tip", &values)))
        });
        return (vec![], dots.collect());
    }
    let step = run.samples.len().div_ceil(MOST_POINTS).max(1);
    let line = run.samples.iter().step_by(step).filter(|s| curve == Curve::Loss && s.loss.is_finite());
    let line = line.map(|s| [along(run, s, against), f64::from(s.loss)]).collect();
    let judged = run.samples.iter().filter_map(|sample| Some((sample, sample.held.as_ref()?)));
    let dots = judged.filter_map(|(sample, held)| {
        let share = held.score.tokens.accuracy()?;
        let values = [
            ("step", format::count(sample.step)),
            ("seconds", format::duration(sample.seconds)),
            ("loss", format::significant(held.loss, 3)),
            ("accuracy", format::percent(share)),
        ];
        let tip = fill("train.tip", &values.each_ref().map(|(k, v)| (*k, v.as_str())));
        Some(dot(along(run, sample, against), if curve == Curve::Loss { held.loss } else { share }, tip))
    });
    (line, dots.collect())
}

/// Colours of the bands of memory, from the bottom up.
const BAND_COLOURS: [&str; BANDS.len()] = ["full", "kernel", "recurrent", "fixed_pattern", "low_rank"];

/// The names of the bands of memory, with their colours.
pub fn bands() -> [(&'static str, String); BANDS.len()] {
    let names =
        [t("band.parameters"), t("band.optimiser"), t("band.gradients"), t("band.activations"), t("band.workspace")];
    std::array::from_fn(|at| (names[at], format!("var(--family-{})", BAND_COLOURS[at])))
}

/// The memory of a step as a chart, all of them as high as `top` bytes.
pub fn describe_memory(run: &RunFacts, memory: &MemoryTimeline, top: u64, width: i32) -> Value {
    let all = &memory.dispatches;
    // The fullest of those that share a column.
    let columns = all
        .chunks(all.len().div_ceil(MOST_POINTS).max(1))
        .map(|chunk| chunk.iter().max_by_key(|alive| alive.total()).map_or([0; BANDS.len()], |alive| alive.bytes));
    json!({
        "kind": "bands", "label": fill("train.memory_of", &[("name", &name_of(run))]), "width": width, "top": top,
        "colours": bands().map(|(_, colour)| colour), "columns": columns.collect::<Vec<_>>(), "dispatches": all.len(),
        "peak": memory.peak, "xLabel": t("train.dispatches"),
    })
}

/// Where the peak lies, in words.
pub fn peak_words(memory: &MemoryTimeline) -> Option<String> {
    let peak = memory.at_peak()?;
    let place = if peak.layer.is_empty() { peak.stage.clone() } else { part_words(&peak.layer) };
    let values = [("bytes", format::bytes(peak.total())), ("op", peak.op.clone()), ("place", place)];
    Some(fill("train.memory_peak", &values.each_ref().map(|(k, v)| (*k, v.as_str()))))
}

/// A part of a model in words: `layers.0.attention` is "layer 1, attention".
pub fn part_words(name: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut pieces = name.split('.');
    while let Some(piece) = pieces.next() {
        words.push(match piece {
            "layers" => {
                let number = pieces.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
                fill("train.parts.layer", &[("n", &(number + 1).to_string())])
            }
            _ => lookup(&format!("train.parts.{piece}")).map_or_else(|| piece.replace('_', " "), str::to_owned),
        });
    }
    words.join(", ")
}

/// One column of the table of runs: the key of its title, and its words for a run.
pub type Column = (&'static str, fn(&RunFacts) -> String);

/// Figures of a run.
pub const COLUMNS: [Column; 7] = [
    ("train.steps", |run| run.samples.last().map_or("–".into(), |s| format::count(s.step))),
    ("train.loss_last", |run| last_held(run).map_or("–".into(), |held| format::significant(held.loss, 3))),
    ("train.accuracy_last", |run| accuracy(run).map_or("–".into(), format::percent)),
    ("train.rate_of_steps", |run| rate(run).map_or("–".into(), |rate| format::significant(rate, 3))),
    ("train.weights", |run| format::count(run.weights)),
    ("train.flops_step", |run| format::flops(run.flops)),
    ("train.bytes", |run| format::bytes(run.bytes)),
];

/// Steps a second: as it went, or as it was tried.
fn rate(run: &RunFacts) -> Option<f64> {
    let seen = run.samples.last().filter(|s| s.seconds > 0.0).map(|s| s.step as f64 / s.seconds);
    seen.or_else(|| run.step_seconds.filter(|s| *s > 0.0).map(|s| 1.0 / s))
}

/// What differs from a configuration to the next, in words.
pub fn difference(from: &RunConfig, to: &RunConfig) -> String {
    // What only one of two methods has is no difference to dwell on.
    let both = differences(from, to).into_iter().filter(|(_, old, new)| old != "–" && new != "–");
    // Methods have names; what else differs says enough as it is.
    let called = |name: &str, value: String| match attention::find(&value) {
        Some(variant) if name == "variant" => variant.name.to_owned(),
        _ => lookup(&format!("{name}.{value}")).map_or(value, str::to_owned),
    };
    let words = both.map(|(name, old, new)| {
        let (old, new) = (called(&name, old), called(&name, new));
        let name = lookup(&format!("train.field.{name}")).map_or_else(|| name.replace('_', " "), str::to_owned);
        format!("{name} {old} → {new}")
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What a new start with `wanted` would change; empty where nothing.
pub fn would_change(race: &Race, wanted: &[RunConfig]) -> String {
    let have: Vec<&RunFacts> = race.runs.iter().filter(|run| run.forked.is_none()).collect();
    let before: Vec<String> = have.iter().map(|run| name_of(run)).collect();
    let named = |id: &str| attention::find(id).map_or(id, |v| v.name).to_owned();
    let after: Vec<String> = wanted.iter().map(|config| named(variant_of(config))).collect();
    if before != after {
        return format!("{} → {}", before.join(" · "), after.join(" · "));
    }
    let mut found: Vec<String> = Vec::new();
    for (run, config) in have.iter().zip(wanted) {
        let words = difference(&run.config, config);
        if !words.is_empty() && !found.contains(&words) {
            found.push(words);
        }
    }
    found.join("; ")
}

/// Why the browser does not keep these runs, and what to do.
pub fn not_kept_words(why: &NotKept) -> String {
    match why {
        NotKept::Full => t("train.not_kept_full").into(),
        NotKept::OtherTab => t("train.not_kept_other_tab").into(),
        NotKept::Others => t("train.not_kept_others").into(),
        NotKept::Failed(reason) => fill("train.not_kept", &[("reason", reason)]),
    }
}

/// The last step that is known of a run.
fn step_of(run: &RunFacts) -> u64 {
    run.samples.last().map_or(0, |sample| sample.step)
}

/// The runs that are trained, or would be next: the one that is trained alone, or those that are not at their end; all where none
/// is left.
pub fn going(race: &Race) -> Vec<&RunFacts> {
    if let Some(run) = race.alone.and_then(|at| race.runs.get(at)) {
        return vec![run];
    }
    let able = |run: &&RunFacts| run.failed.is_none() && step_of(run) < run.config.steps;
    let able: Vec<&RunFacts> = race.runs.iter().filter(able).collect();
    if able.is_empty() { race.runs.iter().collect() } else { able }
}

/// How far a race is, in words.
pub fn status(race: &Race) -> String {
    let going = going(race);
    let steps = going.iter().map(|run| run.config.steps).max().unwrap_or(0);
    let done = going.iter().map(|run| step_of(run)).max().unwrap_or(0);
    match race.doing {
        Doing::Nothing => String::new(),
        Doing::Preparing => t("train.preparing").into(),
        Doing::Ready => match left(race) {
            Some(seconds) => fill("train.estimate", &[("time", &format::duration(seconds))]),
            None => String::new(),
        },
        doing => {
            let values = [("step", format::count(done)), ("steps", format::count(steps))];
            let mut words = fill("train.status", &values.each_ref().map(|(k, v)| (*k, v.as_str())));
            if let (Doing::Running, Some(seconds)) = (doing, left(race)) {
                words += &fill("train.left", &[("time", &format::duration(seconds))]);
            }
            words
        }
    }
}

/// Seconds until the end, all runs together.
fn left(race: &Race) -> Option<f64> {
    let one = |run: &RunFacts| Some(run.config.steps.saturating_sub(step_of(run)) as f64 / rate(run)?);
    let times: Vec<f64> = going(race).into_iter().filter(|run| run.failed.is_none()).filter_map(one).collect();
    if times.is_empty() {
        return None;
    }
    Some(match race.pace {
        Pace::Steps => times.iter().sum(),
        Pace::Seconds => times.iter().copied().fold(f64::INFINITY, f64::min) * times.len() as f64,
    })
}

/// What a race without a verdict waits for, in words.
pub fn awaited_words(race: &Race) -> String {
    match awaited(&going(race), race.doing) {
        Awaited::Start => t("train.no_verdict").into(),
        Awaited::Judgement { first, steps } => {
            let values = [("first", format::count(first)), ("steps", format::count(steps))];
            fill("train.waits_judgement", &values.each_ref().map(|(k, v)| (*k, v.as_str())))
        }
        Awaited::End(steps) => fill("train.waits_end", &[("steps", &format::count(steps))]),
        Awaited::Resume => t("train.waits_resume").into(),
        Awaited::Second => t("train.waits_second").into(),
    }
}

/// What a race has shown, and the next experiment with its words.
pub fn say(race: &Race) -> Option<(String, Next, String)> {
    if race.doing != Doing::Done {
        return None;
    }
    let (shown, next) = verdict(&race.runs)?;
    let name = |at: usize| name_of(&race.runs[at]);
    let share = |at: usize| accuracy(&race.runs[at]).map_or("–".into(), format::percent);
    let words = match shown {
        Verdict::AllSolve { first: Some(at) } => fill("train.all_solve_first", &[("name", &name(at))]),
        Verdict::AllSolve { first: None } => t("train.all_solve").into(),
        Verdict::NoneLearns { chance } => fill("train.none_learns", &[("chance", &format::percent(chance))]),
        Verdict::Alike => t("train.alike").into(),
        Verdict::Apart { best, worst, reach } => {
            let (a, b, x, y) = (name(best), name(worst), share(best), share(worst));
            let mut words = fill("train.apart", &[("best", &a), ("worst", &b), ("high", &x), ("low", &y)]);
            if let Some(reach) = reach {
                words += &fill("train.reach", &[("worst", &b), ("distance", &reach.to_string())]);
            }
            words
        }
    };
    let next_words = match next {
        Next::Length(n) => fill("train.next_length", &[("n", &n.to_string())]),
        Next::Steps(n) => fill("train.next_steps", &[("n", &n.to_string())]),
        Next::Layers(n) => fill("train.next_layers", &[("n", &n.to_string())]),
        Next::Seed(n) => fill("train.next_seed", &[("n", &n.to_string())]),
    };
    Some((words, next, next_words))
}
