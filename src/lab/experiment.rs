//! The one configuration: state of the page, permalink, embed parameters, command-line JSON, result card.

use super::train::setup::TrainSetup;
use crate::attention::{self, Causal, Param, Params, Value};
pub use crate::complaint::Complaint;
use crate::complaint::cut;
use crate::ids::ids;
pub use crate::task::text::Split;
use std::collections::BTreeMap;

ids! {
    /// What a plate or the chart shows.
    View {
        Mask = "mask",
        Blocks = "blocks",
        Scores = "scores",
        #[default]
        Weights = "weights",
        Difference = "difference",
        Speed = "speed",
        Train = "train",
        Memory = "memory",
    }
}

ids! {
    Theme {
        #[default]
        Auto = "auto",
        Light = "light",
        Dark = "dark",
    }
}

ids! {
    /// How the cells under one pixel become one value.
    Pool {
        #[default]
        Max = "max",
        Mean = "mean",
    }
}

ids! {
    /// How a value from 0 to 1 becomes a colour: small weights of long texts are seen only on a root or logarithmic scale.
    Scale {
        #[default]
        Linear = "linear",
        Sqrt = "sqrt",
        Log = "log",
    }
}

ids! {
    /// Whose queries, keys and values the place Attention shows.
    WeightsFrom {
        /// A small model that comes with the lab, trained with full attention: its decoder where the experiment is causal, its
        /// encoder where it is not. Heads and their dimension are the model's.
        #[default]
        Trained = "trained",
        /// None: a seeded embedding of the text.
        Drawn = "drawn",
        /// A model that the visitor has opened.
        Opened = "opened",
    }
}

ids! {
    /// How a GPU holds the matrices of a model that the visitor has opened. On the CPU they are as in its file.
    Precision {
        /// In half the memory; those with a number that half precision does not hold stay single.
        #[default]
        Half = "half",
        Single = "single",
    }
}

/// Largest values that an experiment takes; what fits an adapter is the engine's to say.
pub const MAX_LENGTH: usize = 16_384;
pub const MAX_BATCH: usize = 64;
pub const MAX_HEADS: usize = 64;
pub const MAX_DIM: usize = 256;
pub const MAX_LAYER: usize = 63;
pub const MAX_VARIANTS: usize = 32;
/// Bytes of text in an experiment: more than 16,384 words of any language need.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Whom a single variant races against at first: one of each of the oldest families. All at once would take minutes.
const RIVALS: [&str; 4] = ["full", "sliding_window", "linformer", "linear"];

/// The length whose defaults hold at every length of a sweep.
const FIXED_AT_TOKENS: usize = 1024;

/// One serialisable value that says everything that is shown or run.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Experiment {
    pub view: View,
    /// Ids, one or two in the plates, any number in the chart; never empty.
    pub variants: Vec<String>,
    /// Parameter values by variant id.
    pub params: BTreeMap<String, Params>,
    pub n: usize,
    pub batch: usize,
    pub heads: usize,
    pub dim: usize,
    pub causal: bool,
    pub layer: usize,
    pub head: usize,
    pub seed: u64,
    pub weights: WeightsFrom,
    pub precision: Precision,
    /// None: the project's own default text, repeated or cut to `n` tokens.
    pub text: Option<String>,
    pub split: Split,
    pub pool: Pool,
    pub scale: Scale,
    pub theme: Theme,
    pub lang: String,
    /// Of the place Train.
    pub train: TrainSetup,
}

impl Default for Experiment {
    fn default() -> Self {
        Self {
            view: View::Weights,
            variants: vec!["full".into()],
            params: BTreeMap::new(),
            n: 64,
            batch: 1,
            heads: 4,
            dim: 64,
            causal: false,
            layer: Self::usual_layer(WeightsFrom::Trained),
            head: 0,
            seed: 1,
            weights: WeightsFrom::Trained,
            precision: Precision::Half,
            text: None,
            split: Split::Words,
            pool: Pool::Max,
            scale: Scale::Linear,
            theme: Theme::Auto,
            lang: "en".into(),
            train: TrainSetup::default(),
        }
    }
}

/// The parameters of the variant with this id, if there is one. [`registry`] is the real one.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<&'static [Param]>;

/// Looks a variant's parameters up in the registry.
pub fn registry(id: &str) -> Option<&'static [Param]> {
    crate::attention::find(id).map(|v| v.params)
}

impl Experiment {
    /// Brings every value into its range and names what had to change. Whatever came from outside goes through this once.
    pub fn check(&mut self, lookup: Lookup) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let mut range = |key: &str, value: &mut usize, min: usize, max: usize| {
            if !(min..=max).contains(value) {
                let used = (*value).clamp(min, max);
                let takes = format!("an integer from {min} to {max}");
                complaints.push(Complaint::new(key, &value.to_string(), takes, used));
                *value = used;
            }
        };
        range("n", &mut self.n, 1, MAX_LENGTH);
        range("batch", &mut self.batch, 1, MAX_BATCH);
        range("heads", &mut self.heads, 1, MAX_HEADS);
        range("dim", &mut self.dim, 1, MAX_DIM);
        range("layer", &mut self.layer, 0, MAX_LAYER);
        range("head", &mut self.head, 0, self.heads - 1);
        self.check_variants(lookup, &mut complaints);
        self.check_params(lookup, &mut complaints);
        if let Some(text) = &mut self.text
            && text.len() > MAX_TEXT_BYTES
        {
            complaints.push(Complaint::new(
                "text",
                &format!("{} bytes", text.len()),
                format!("at most {MAX_TEXT_BYTES} bytes"),
                "the beginning",
            ));
            cut(text, MAX_TEXT_BYTES);
        }
        self.train.check(&mut complaints);
        if !language_tag(&self.lang) {
            complaints.push(Complaint::new("lang", &self.lang, "a language tag such as en", "en"));
            self.lang = "en".into();
        }
        complaints
    }

    fn check_variants(&mut self, lookup: Lookup, complaints: &mut Vec<Complaint>) {
        let mut kept: Vec<String> = Vec::new();
        for id in std::mem::take(&mut self.variants) {
            if kept.contains(&id) {
                continue;
            }
            if lookup(&id).is_none() {
                complaints.push(Complaint::new("variant", &id, "ids of variants", "nothing in its place"));
            } else if kept.len() == MAX_VARIANTS {
                complaints.push(Complaint::new(
                    "variant",
                    &id,
                    format!("at most {MAX_VARIANTS} variants"),
                    "the first",
                ));
                break;
            } else {
                kept.push(id);
            }
        }
        if kept.is_empty() {
            kept = Self::default().variants;
        }
        self.variants = kept;
    }

    fn check_params(&mut self, lookup: Lookup, complaints: &mut Vec<Complaint>) {
        self.params.retain(|id, values| {
            let Some(known) = lookup(id) else {
                complaints.push(Complaint::new(id, "", "parameters of known variants", "nothing"));
                return false;
            };
            values.0.retain(|name, value| {
                let key = format!("{id}.{name}");
                match known.iter().find(|p| p.name == name) {
                    None => {
                        let names: Vec<_> = known.iter().map(|p| p.name).collect();
                        complaints.push(Complaint::new(&key, &value.to_string(), list_or_none(&names), "nothing"));
                        false
                    }
                    Some(param) => match param.accept(value) {
                        Ok(()) => true,
                        Err(e) => {
                            complaints.push(Complaint::new(&key, &e.got, e.takes, param.default(self.n)));
                            false
                        }
                    },
                }
            });
            !values.0.is_empty()
        });
    }

    /// The same with a value for every parameter that follows the length: its default for 1,024 tokens. What is raced over
    /// lengths must not change on the way, or a window that grows with the text would look quadratic.
    pub fn with_fixed_parameters(&self) -> Self {
        let mut fixed = self.clone();
        for variant in self.variants.iter().filter_map(|id| crate::attention::find(id)) {
            let values = fixed.params.entry(variant.id.into()).or_default();
            for param in variant.params {
                values.0.entry(param.name.into()).or_insert_with(|| param.default(FIXED_AT_TOKENS));
            }
        }
        fixed
    }

    /// Contenders of a race that `variant` alone takes part in: one contender is no race, so others come with it.
    pub fn rivals_of(variant: &str) -> Vec<String> {
        let chosen = |id: &&str| RIVALS.contains(id) || *id == variant;
        attention::ALL.iter().map(|v| v.id).filter(chosen).map(str::to_owned).collect()
    }

    /// The variants of a link that names none.
    pub(super) fn usual_variants(view: View, lookup: Lookup) -> Vec<String> {
        let mut usual = Self::default().variants;
        if view == View::Speed {
            usual = Self::rivals_of(&usual[0]);
            usual.retain(|id| lookup(id).is_some());
        }
        if view == View::Train {
            usual.extend(["sliding_window".to_owned()].into_iter().filter(|id| lookup(id).is_some()));
        }
        usual
    }

    /// The layer of a link that names none: of the trained models the last, in whose heads one sees most.
    pub(super) fn usual_layer(weights: WeightsFrom) -> usize {
        if weights == WeightsFrom::Trained { 2 } else { 0 }
    }

    /// Whose weights a link shows that doesn't say so: shapes or a seed of one's own are not those of a trained model.
    pub(super) fn usual_weights(&self) -> WeightsFrom {
        let default = Self::default();
        let shape = |e: &Self| (e.batch, e.heads, e.dim, e.seed);
        if shape(self) == shape(&default) { WeightsFrom::Trained } else { WeightsFrom::Drawn }
    }

    /// Whether a link to these variants that doesn't say so is causal: where some are always and none is never.
    pub(super) fn usually_causal(variants: &[String]) -> bool {
        let known = || variants.iter().filter_map(|id| attention::find(id));
        known().any(|v| v.causal == Causal::Always) && !known().any(|v| matches!(v.causal, Causal::Never(_)))
    }

    /// What a parameter has where nothing was chosen.
    pub fn usual_value(&self, param: &Param) -> Value {
        if !matches!(self.view, View::Train | View::Memory) {
            return param.default(self.n);
        }
        // A window over all of a short sequence would tell nothing.
        let length = self.train.length;
        match (param.name, param.default(length)) {
            ("window", Value::Int(w)) if w as usize >= length / 2 => Value::Int((length as u32 / 4).max(1)),
            (_, usual) => usual,
        }
    }

    /// The parameters of one variant, as given; absent ones have their defaults.
    pub fn params_of(&self, variant: &str) -> Params {
        self.params.get(variant).cloned().unwrap_or_default()
    }
}

fn list_or_none(names: &[&str]) -> String {
    if names.is_empty() { "no parameters".into() } else { format!("one of {}", names.join(", ")) }
}

/// Letters, digits and hyphens, as in BCP 47; short.
fn language_tag(s: &str) -> bool {
    (2..=16).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
