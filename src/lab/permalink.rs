//! Permalinks: an [`Experiment`] as query parameters, and back. Only what differs from the defaults is written, behind the
//! schema version `v=1`. Reading is total: what it cannot take it names, and the rest applies.
//!
//! Two defaults follow the rest of the link: a race has several contenders, and methods that are always causal are so without
//! saying it.

use super::experiment::{
    Complaint, Experiment, Lookup, MAX_BATCH, MAX_DIM, MAX_HEADS, MAX_LAYER, MAX_LENGTH, MAX_VARIANTS, Pool, Precision,
    Scale, Split, Theme, View, WeightsFrom, registry,
};
use super::train::orders::Pace;
use super::train::setup::{Against, Cross, NUMBERS, TrainSetup};
use crate::attention::Value;
use crate::complaint::cut;
use crate::model::{Architecture, Block};
use std::borrow::Cow;

/// Bytes of text that a permalink carries; a longer address is refused by some servers and chat programs.
pub const MAX_LINK_TEXT_BYTES: usize = 8 << 10;
/// Bytes of a query string that are read.
const MAX_QUERY_BYTES: usize = 256 << 10;
/// Complaints that are worth telling about one address.
const MAX_COMPLAINTS: usize = 24;

/// A written permalink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Without the question mark; never empty, as `v=1` is always there.
    pub query: String,
    /// The text was longer than a permalink carries, so the link holds only its beginning.
    pub text_cut: bool,
}

/// Writes what differs from the defaults.
pub fn write(experiment: &Experiment) -> Link {
    write_with(experiment, &registry)
}

/// Reads a query string, with or without its question mark.
pub fn parse(query: &str) -> (Experiment, Vec<Complaint>) {
    let (pairs, mut complaints) = pairs(query);
    let experiment = apply(&pairs, &registry, &mut complaints);
    (experiment, few(complaints))
}

/// [`write()`] with another table of variants.
pub fn write_with(e: &Experiment, lookup: Lookup) -> Link {
    let default = Experiment::default();
    let mut query = String::from("v=1");
    let mut put = |key: &str, value: &str| {
        query.push('&');
        query.push_str(key);
        query.push('=');
        query.push_str(value);
    };
    if e.view != default.view {
        put("view", e.view.id());
    }
    if e.variants != Experiment::usual_variants(e.view, lookup) {
        let ids: Vec<String> = e.variants.iter().map(|id| encode(id)).collect();
        put("variant", &ids.join(","));
    }
    for (key, value, usual) in [
        ("n", e.n, default.n),
        ("batch", e.batch, default.batch),
        ("heads", e.heads, default.heads),
        ("dim", e.dim, default.dim),
    ] {
        if value != usual {
            put(key, &value.to_string());
        }
    }
    if e.causal != Experiment::usually_causal(&e.variants) {
        put("causal", if e.causal { "1" } else { "0" });
    }
    for (key, value, usual) in [("layer", e.layer, Experiment::usual_layer(e.weights)), ("head", e.head, default.head)]
    {
        if value != usual {
            put(key, &value.to_string());
        }
    }
    if e.seed != default.seed {
        put("seed", &e.seed.to_string());
    }
    if e.weights != e.usual_weights() {
        put("weights", e.weights.id());
    }
    if e.precision != default.precision {
        put("precision", e.precision.id());
    }
    for id in &e.variants {
        let (Some(values), Some(known)) = (e.params.get(id), lookup(id)) else { continue };
        for param in known {
            if let Some(value) = values.0.get(param.name)
                && *value != e.usual_value(param)
            {
                let key = match e.variants.len() {
                    1 => param.name.to_string(),
                    _ => format!("{id}.{}", param.name),
                };
                put(&key, &encode(&value.to_string()));
            }
        }
    }
    let (train, usual) = (&e.train, TrainSetup::usual(&e.train.task));
    if train.task != default.train.task {
        put("task", &encode(&train.task));
    }
    for number in NUMBERS {
        let value = (number.get)(train);
        if value != (number.get)(&usual) {
            put(&format!("train.{}", number.key), &value.to_string());
        }
    }
    if train.architecture != usual.architecture {
        put("train.architecture", train.architecture.id());
    }
    if train.block != usual.block {
        put("train.block", train.block.id());
    }
    if train.cross != usual.cross {
        put("train.cross", train.cross.id());
    }
    if train.rate != usual.rate {
        put("train.rate", &train.rate.to_string());
    }
    if train.pace != usual.pace {
        put("train.pace", "seconds");
    }
    if train.against != usual.against {
        put("train.against", train.against.id());
    }
    if e.split != default.split {
        put("split", e.split.id());
    }
    if e.pool != default.pool {
        put("pool", e.pool.id());
    }
    if e.scale != default.scale {
        put("scale", e.scale.id());
    }
    if e.theme != default.theme {
        put("theme", e.theme.id());
    }
    if e.lang != default.lang {
        put("lang", &encode(&e.lang));
    }
    let mut text_cut = false;
    // Last, so that the readable part of the address comes first.
    if let Some(text) = &e.text {
        let mut text = text.clone();
        text_cut = text.len() > MAX_LINK_TEXT_BYTES;
        cut(&mut text, MAX_LINK_TEXT_BYTES);
        put("text", &encode(&text));
    }
    Link { query, text_cut }
}

/// [`parse`] with another table of variants.
pub fn parse_with(query: &str, lookup: Lookup) -> (Experiment, Vec<Complaint>) {
    let (pairs, mut complaints) = pairs(query);
    let experiment = apply(&pairs, lookup, &mut complaints);
    (experiment, few(complaints))
}

/// A key and its value, percent-decoded.
pub(super) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The pairs of a query string, bounded in size.
pub(super) fn pairs(query: &str) -> (Vec<Pair<'_>>, Vec<Complaint>) {
    let query = query.strip_prefix('?').unwrap_or(query);
    let end = query.floor_char_boundary(MAX_QUERY_BYTES);
    let mut complaints = Vec::new();
    if end < query.len() {
        let takes = format!("at most {MAX_QUERY_BYTES} bytes");
        complaints.push(Complaint::new("address", &format!("{} bytes", query.len()), takes, "the beginning"));
    }
    (form_urlencoded::parse(&query.as_bytes()[..end]).collect(), complaints)
}

/// Keeps the first complaints, and says how many more there were.
pub(super) fn few(mut complaints: Vec<Complaint>) -> Vec<Complaint> {
    if complaints.len() > MAX_COMPLAINTS {
        let more = complaints.len() - MAX_COMPLAINTS;
        complaints.truncate(MAX_COMPLAINTS);
        complaints.push(Complaint::new("address", &format!("{more} more"), "the keys of a permalink", "nothing"));
    }
    complaints
}

/// The experiment that these pairs describe.
pub(super) fn apply(pairs: &[Pair], lookup: Lookup, complaints: &mut Vec<Complaint>) -> Experiment {
    let mut reader = Reader { e: Experiment::default(), named: false, complaints };
    // Variants first: which parameter names mean something depends on them.
    for (key, value) in pairs.iter().filter(|(key, _)| key == "variant") {
        reader.variants(key, value, lookup);
    }
    // What is usual depends on the task.
    if let Some((_, task)) = pairs.iter().find(|(key, _)| key == "task") {
        reader.e.train = TrainSetup::usual(task);
    }
    for (key, value) in pairs {
        reader.pair(key, value, lookup);
    }
    if !reader.named {
        reader.e.variants = Experiment::usual_variants(reader.e.view, lookup);
    }
    if !pairs.iter().any(|(key, _)| key == "causal") {
        reader.e.causal = Experiment::usually_causal(&reader.e.variants);
    }
    let Reader { mut e, complaints, .. } = reader;
    complaints.extend(e.check(lookup));
    if !pairs.iter().any(|(key, _)| key == "weights") {
        e.weights = e.usual_weights();
    }
    if !pairs.iter().any(|(key, _)| key == "layer") {
        e.layer = Experiment::usual_layer(e.weights);
    }
    e
}

struct Reader<'a> {
    e: Experiment,
    /// Some variant of the link is known.
    named: bool,
    complaints: &'a mut Vec<Complaint>,
}

impl Reader<'_> {
    fn complain(&mut self, key: &str, got: &str, takes: impl Into<String>, used: impl ToString) {
        self.complaints.push(Complaint::new(key, got, takes, used));
    }

    fn variants(&mut self, key: &str, value: &str, lookup: Lookup) {
        let mut kept: Vec<String> = Vec::new();
        for id in value.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            if kept.len() == MAX_VARIANTS {
                self.complain(key, value, format!("at most {MAX_VARIANTS} variants"), "the first");
                break;
            }
            if lookup(id).is_none() {
                self.complain(key, id, "ids of variants, separated by commas", "nothing in its place");
            } else if !kept.iter().any(|k| k == id) {
                kept.push(id.to_string());
            }
        }
        if !kept.is_empty() {
            self.e.variants = kept;
            self.named = true;
        }
    }

    fn pair(&mut self, key: &str, value: &str, lookup: Lookup) {
        match key {
            "v" => {
                if value != "1" {
                    self.complain(key, value, "1", "1: this page reads links of version 1");
                }
            }
            "variant" => {}
            "view" => self.choice(key, value, View::ALL, View::id, |e| &mut e.view),
            "theme" => self.choice(key, value, Theme::ALL, Theme::id, |e| &mut e.theme),
            "split" => self.choice(key, value, Split::ALL, Split::id, |e| &mut e.split),
            "pool" => self.choice(key, value, Pool::ALL, Pool::id, |e| &mut e.pool),
            "scale" => self.choice(key, value, Scale::ALL, Scale::id, |e| &mut e.scale),
            "precision" => self.choice(key, value, Precision::ALL, Precision::id, |e| &mut e.precision),
            "weights" => self.choice(key, value, WeightsFrom::ALL, WeightsFrom::id, |e| &mut e.weights),
            "n" => self.size(key, value, 1, MAX_LENGTH, |e| &mut e.n),
            "batch" => self.size(key, value, 1, MAX_BATCH, |e| &mut e.batch),
            "heads" => self.size(key, value, 1, MAX_HEADS, |e| &mut e.heads),
            "dim" => self.size(key, value, 1, MAX_DIM, |e| &mut e.dim),
            "layer" => self.size(key, value, 0, MAX_LAYER, |e| &mut e.layer),
            "head" => self.size(key, value, 0, MAX_HEADS - 1, |e| &mut e.head),
            "causal" => match value {
                "1" | "true" => self.e.causal = true,
                "0" | "false" => self.e.causal = false,
                _ => self.complain(key, value, "1 or 0", "0"),
            },
            "seed" => match value.parse() {
                Ok(seed) => self.e.seed = seed,
                Err(_) => self.complain(key, value, format!("an integer from 0 to {}", u64::MAX), self.e.seed),
            },
            "text" => self.e.text = Some(value.to_string()),
            "lang" => self.e.lang = value.to_string(),
            // Taken before the others, and checked with them.
            "task" => {}
            "techniques" => self.complain(key, value, "nothing yet: techniques come later", "nothing"),
            _ => match key.strip_prefix("train.") {
                Some(field) => self.train(key, field, value),
                None => self.param(key, value, lookup),
            },
        }
    }

    /// A setting of the place Train.
    fn train(&mut self, key: &str, field: &str, value: &str) {
        let setup = &mut self.e.train;
        if let Some(number) = NUMBERS.iter().find(|number| number.key == field) {
            let parsed = value.parse().ok();
            if let Some(x) = parsed {
                // The check that follows says where it is out of range.
                (number.set)(setup, x);
            } else {
                let (takes, used) = (format!("{:?}", number.range), (number.get)(setup));
                self.complain(key, value, format!("an integer in {takes}"), used);
            }
            return;
        }
        let taken = match field {
            "rate" => value.parse().map(|rate| setup.rate = rate).is_ok(),
            "pace" if value == "seconds" || value == "steps" => {
                setup.pace = if value == "seconds" { Pace::Seconds } else { Pace::Steps };
                true
            }
            "against" => Against::from_id(value).map(|against| setup.against = against).is_some(),
            "architecture" => Architecture::from_id(value).map(|kind| setup.architecture = kind).is_some(),
            "block" => Block::from_id(value).map(|block| setup.block = block).is_some(),
            "cross" => Cross::from_id(value).map(|cross| setup.cross = cross).is_some(),
            _ => false,
        };
        if !taken {
            let takes = match field {
                "rate" => "a number",
                "pace" => "steps or seconds",
                "against" => "steps, seconds, flops or tokens",
                "architecture" => "decoder, encoder or encoder_decoder",
                "block" => "transformer or plain",
                "cross" => "full or bahdanau",
                _ => {
                    "length, layers, width, batch, steps, architecture, block, cross, rate, pace or against behind `train.`"
                }
            };
            self.complain(key, value, takes, "the default");
        }
    }

    fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: &str,
        all: &[T],
        id: fn(T) -> &'static str,
        field: fn(&mut Experiment) -> &mut T,
    ) {
        match all.iter().find(|&&x| id(x) == value) {
            Some(&x) => *field(&mut self.e) = x,
            None => {
                let ids: Vec<_> = all.iter().map(|&x| id(x)).collect();
                let used = id(*field(&mut self.e));
                self.complain(key, value, format!("one of {}", ids.join(", ")), used);
            }
        }
    }

    fn size(&mut self, key: &str, value: &str, min: usize, max: usize, field: fn(&mut Experiment) -> &mut usize) {
        // No number, or one with more digits than any: what is there stays.
        let parsed = value.parse::<i128>().ok();
        let used = parsed.map_or(*field(&mut self.e), |x| x.clamp(min as i128, max as i128) as usize);
        if parsed != Some(used as i128) {
            self.complain(key, value, format!("an integer from {min} to {max}"), used);
        }
        *field(&mut self.e) = used;
    }

    /// `window=64` means the parameter of each shown variant that has it, `longformer.window=64` that of one variant.
    fn param(&mut self, key: &str, value: &str, lookup: Lookup) {
        let targets: Vec<(String, &str)> = match key.split_once('.') {
            Some((id, name)) => vec![(id.to_string(), name)],
            None => self.e.variants.iter().map(|id| (id.clone(), key)).collect(),
        };
        let mut known = false;
        for (id, name) in targets {
            let Some(param) = lookup(&id).and_then(|params| params.iter().find(|p| p.name == name)) else { continue };
            known = true;
            match param.parse(value) {
                Ok(value) => self.set(&id, name, value),
                Err(e) => self.complain(key, value, e.takes, format!("{id}'s default, {}", param.default(self.e.n))),
            }
        }
        if !known {
            self.complain(key, value, "nothing: no such key, and no parameter of the variants shown", "nothing");
        }
    }

    fn set(&mut self, id: &str, name: &str, value: Value) {
        self.e.params.entry(id.into()).or_default().0.insert(name.into(), value);
    }
}

/// Percent-encoding of one value, spaces as `+`.
fn encode(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

#[cfg(test)]
mod tests;
