//! How the tensors of known kinds of models are named and laid out.
//!
//! GPT-2: Radford et al., 2019; its products are stored `[in, out]`. BERT: Devlin et al., 2019, arXiv:1810.04805, and
//! DistilBERT: Sanh et al., 2019, arXiv:1910.01108; theirs are stored `[out, in]`.

use super::convert::{Layout, Origin};
use super::header::Tensors;
use super::list;
use super::settings::Settings;
use crate::model::config::{Activation, Initialisation, ModelConfig, NormPlace, Positions};
use crate::model::{Architecture, Mixer};
use crate::reading::Unfit;

/// A kind of model that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Gpt2,
    Bert,
    DistilBert,
}

const FAMILIES: [Family; 3] = [Family::Gpt2, Family::Bert, Family::DistilBert];

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "GPT-2",
            Self::Bert => "BERT",
            Self::DistilBert => "DistilBERT",
        }
    }

    /// As `config.json` says it.
    fn model_type(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Bert => "bert",
            Self::DistilBert => "distilbert",
        }
    }

    fn prefixes(self) -> [&'static str; 2] {
        match self {
            Self::Gpt2 => ["", "transformer."],
            Self::Bert => ["", "bert."],
            Self::DistilBert => ["", "distilbert."],
        }
    }

    /// The tables of words and of places.
    fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Gpt2 => ["wte.weight", "wpe.weight"],
            _ => ["embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"],
        }
    }

    /// What stands in front of a layer's number.
    fn layers(self) -> &'static str {
        match self {
            Self::Gpt2 => "h.",
            Self::Bert => "encoder.layer.",
            Self::DistilBert => "transformer.layer.",
        }
    }

    /// The bias of the wide product of a layer, whose length tells the inner width.
    fn inner(self) -> &'static str {
        match self {
            Self::Gpt2 => "mlp.c_fc.bias",
            Self::Bert => "intermediate.dense.bias",
            Self::DistilBert => "ffn.lin1.bias",
        }
    }

    /// The part of a layer that one of ours comes from, without `weight` or `bias`.
    fn part(self, ours: &str) -> Option<(&'static str, Option<usize>)> {
        let parts: [&str; 8] = match self {
            Self::Gpt2 => {
                ["attn.c_attn", "attn.c_attn", "attn.c_attn", "attn.c_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2"]
            }
            Self::Bert => [
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "attention.output.LayerNorm",
                "intermediate.dense",
                "output.dense",
                "output.LayerNorm",
            ],
            Self::DistilBert => [
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "sa_layer_norm",
                "ffn.lin1",
                "ffn.lin2",
                "output_layer_norm",
            ],
        };
        let ours = ["attention.query", "attention.key", "attention.value", "attention.out", "attention.norm"]
            .into_iter()
            .chain(["feed_forward.up", "feed_forward.down", "feed_forward.norm"])
            .position(|name| name == ours)?;
        Some((parts[ours], (self == Self::Gpt2 && ours < 3).then_some(ours)))
    }
}

/// How one file names its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    pub family: Family,
    prefix: &'static str,
    /// Norms are called gamma and beta.
    greek: bool,
    /// There is a table of token types, of which the first is meant.
    types: bool,
    /// There is a head that says masked words.
    says_words: bool,
}

const TYPES: &str = "embeddings.token_type_embeddings.weight";

impl Naming {
    /// Which family a file belongs to, by its tensors.
    pub fn of(tensors: &Tensors, settings: &Settings) -> Result<Self, Unfit> {
        if let Some(told) = &settings.model_type
            && !FAMILIES.iter().any(|f| f.model_type() == told)
        {
            return Err(Unfit::Config(format!("its model_type is {told:?}; it takes gpt2, bert or distilbert")));
        }
        for family in FAMILIES {
            for prefix in family.prefixes() {
                let has = |name: &str| tensors.contains_key(&format!("{prefix}{name}"));
                let own = format!("{}0.{}", family.layers(), family.inner());
                let told = settings.model_type.as_deref().is_none_or(|told| told == family.model_type());
                if has(family.tables()[0]) && has(&own) && told {
                    let head = match family {
                        Family::DistilBert => "vocab_transform.weight",
                        _ => "cls.predictions.transform.dense.weight",
                    };
                    return Ok(Self {
                        family,
                        prefix,
                        greek: has("embeddings.LayerNorm.gamma"),
                        types: has(TYPES),
                        says_words: tensors.contains_key(head),
                    });
                }
            }
        }
        let there = list(tensors.keys().cloned().collect());
        Err(Unfit::Model(format!("is of no kind known here (GPT-2, BERT, DistilBERT): it holds {there}")))
    }

    /// The configuration, from the shapes of tensors and what these do not tell.
    pub fn config(&self, tensors: &Tensors, settings: &Settings) -> Result<ModelConfig, Unfit> {
        let family = self.family;
        let matrix = |name: &str| -> Result<[usize; 2], Unfit> {
            let name = format!("{}{name}", self.prefix);
            let Some(info) = tensors.get(&name) else {
                return Err(Unfit::Tensors { what: "these tensors are missing:", names: name });
            };
            let shape = info.shape.as_slice();
            shape.try_into().map_err(|_| Unfit::Model(format!("tensor {name} is {shape:?}; it takes two axes")))
        };
        let [vocabulary, d_model] = matrix(family.tables()[0])?;
        let [length, _] = matrix(family.tables()[1])?;
        let layers_of = format!("{}{}", self.prefix, family.layers());
        let layers = (tensors.keys())
            .filter_map(|name| name.strip_prefix(&layers_of)?.split('.').next()?.parse::<usize>().ok())
            .max()
            .map_or(0, |last| last.saturating_add(1));
        let inner = tensors.get(&format!("{layers_of}0.{}", family.inner())).map_or(0, |x| x.shape.iter().product());
        let heads = match (settings.num_attention_heads, family) {
            (Some(heads), _) => heads,
            (None, Family::Gpt2) => d_model / 64,
            (None, _) => {
                let why = "is needed: the tensors of such a model do not tell how many heads there are";
                return Err(Unfit::Config(why.into()));
            }
        };
        let decoder = family == Family::Gpt2;
        Ok(ModelConfig {
            architecture: if decoder { Architecture::Decoder } else { Architecture::Encoder },
            block: Default::default(),
            layers,
            d_model,
            heads,
            d_ff: Some(inner),
            vocabulary,
            length,
            pad: None,
            norm: if decoder { NormPlace::Pre } else { NormPlace::Post },
            norm_epsilon: settings.layer_norm_eps.unwrap_or(if decoder { 1e-5 } else { 1e-12 }),
            positions: Positions::Learned,
            activation: settings.activation(if decoder { Activation::Gelu } else { Activation::GeluErf })?,
            initialisation: Initialisation::Gpt2,
            tied: true,
            says_words: self.says_words,
            dropout: 0.0,
            attention: vec![Mixer::of("full")],
            cross: Mixer::of("full"),
        })
    }

    /// Where a weight of ours comes from.
    pub fn origin(&self, ours: &str) -> Option<Origin> {
        let [words, places] = self.family.tables();
        let as_is = |tensor: String| Origin { tensor, layout: Layout::AsIs, plus_first_row_of: None };
        let norm = |name: &str, kind: &str| as_is(format!("{name}.{}", self.norm_name(kind)));
        let head = |part: &str| match (self.family, part) {
            (Family::DistilBert, "dense") => "vocab_transform".to_owned(),
            (Family::DistilBert, _) => "vocab_layer_norm".to_owned(),
            (_, part) => format!("cls.predictions.transform.{part}"),
        };
        let (name, kind) = ours.rsplit_once('.')?;
        let tensor = |name: &str| format!("{}{name}", self.prefix);
        Some(match (name, kind) {
            ("embedding", "weight") => as_is(tensor(words)),
            ("positions", "weight") => {
                Origin { plus_first_row_of: self.types.then(|| tensor(TYPES)), ..as_is(tensor(places)) }
            }
            ("embedding.norm", _) => norm(&tensor("embeddings.LayerNorm"), kind),
            ("norm", _) => norm(&tensor("ln_f"), kind),
            ("words.transform", "weight") => {
                Origin { layout: Layout::Transposed, ..as_is(format!("{}.weight", head("dense"))) }
            }
            ("words.transform", _) => as_is(format!("{}.bias", head("dense"))),
            ("words.norm", _) => norm(&head("LayerNorm"), kind),
            ("words", "bias") if self.family == Family::DistilBert => as_is("vocab_projector.bias".into()),
            ("words", "bias") => as_is("cls.predictions.bias".into()),
            _ => {
                let (layer, part) = name.strip_prefix("layers.")?.split_once('.')?;
                let (theirs, third) = self.family.part(part)?;
                let name = tensor(&format!("{}{layer}.{theirs}", self.family.layers()));
                if part.ends_with("norm") {
                    return Some(norm(&name, kind));
                }
                let layout = match (third, kind) {
                    (Some(third), _) => Layout::Third(third),
                    (None, "weight") if self.family != Family::Gpt2 => Layout::Transposed,
                    _ => Layout::AsIs,
                };
                Origin { layout, ..as_is(format!("{name}.{kind}")) }
            }
        })
    }

    fn norm_name(&self, kind: &str) -> &'static str {
        match (kind == "gain", self.greek) {
            (true, false) => "weight",
            (false, false) => "bias",
            (true, true) => "gamma",
            (false, true) => "beta",
        }
    }

    /// Tensors that say nothing of the model: stored masks and places, heads for other tasks, the output's weight where it is
    /// the table of words again.
    pub fn passes_over(&self, name: &str) -> bool {
        let own = name.strip_prefix(self.prefix).unwrap_or(name);
        let layer = own.strip_prefix(self.family.layers()).and_then(|rest| rest.split_once('.'));
        matches!(layer, Some((_, "attn.bias" | "attn.masked_bias")))
            || matches!(own, "embeddings.position_ids" | "lm_head.weight" | "pooler.dense.weight" | "pooler.dense.bias")
            || ["cls.seq_relationship.", "cls.predictions.decoder.", "vocab_projector.weight"]
                .iter()
                .any(|start| name.starts_with(start))
    }
}
