//! The one configuration: state of the page, permalink, embed parameters, command-line JSON, result card.

use crate::attention::Params;
use std::collections::BTreeMap;

/// What a plate or the chart shows; ids as in permalinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    Mask,
    Blocks,
    Scores,
    #[default]
    Weights,
    Difference,
    Speed,
    Train,
    Memory,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    #[default]
    Auto,
    Light,
    Dark,
}

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    #[default]
    Words,
    Bytes,
}

/// How the cells under one pixel become one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    #[default]
    Max,
    Mean,
}

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
    /// None: the project's own default text, repeated or cut to `n` tokens.
    pub text: Option<String>,
    pub split: Split,
    pub pool: Pool,
    pub theme: Theme,
    pub lang: String,
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
            layer: 0,
            head: 0,
            seed: 1,
            text: None,
            split: Split::Words,
            pool: Pool::Max,
            theme: Theme::Auto,
            lang: "en".into(),
        }
    }
}
