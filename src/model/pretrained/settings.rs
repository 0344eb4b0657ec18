//! What a `config.json` says beyond the shapes of tensors.

use super::{MOST_CONFIG_BYTES, Unfit};
use crate::model::config::Activation;

/// The fields that are read; others are passed over, since such files hold much that says nothing of the model.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
pub struct Settings {
    pub model_type: Option<String>,
    #[serde(alias = "n_head", alias = "n_heads")]
    pub num_attention_heads: Option<usize>,
    #[serde(alias = "activation_function", alias = "activation")]
    hidden_act: Option<String>,
    #[serde(alias = "layer_norm_epsilon")]
    pub layer_norm_eps: Option<f64>,
}

impl Settings {
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        if text.len() > MOST_CONFIG_BYTES {
            return Err(Unfit::Config(format!("has {} bytes; at most {MOST_CONFIG_BYTES} are read", text.len())));
        }
        serde_json::from_str(text).map_err(|e| Unfit::Config(e.to_string()))
    }

    /// The activation by the name that such files use.
    pub fn activation(&self, usual: Activation) -> Result<Activation, Unfit> {
        match self.hidden_act.as_deref() {
            None => Ok(usual),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::Gelu),
            Some("gelu") => Ok(Activation::GeluErf),
            Some("relu") => Ok(Activation::Relu),
            Some(other) => Err(Unfit::Config(format!("its activation is {other:?}; it takes gelu, gelu_new or relu"))),
        }
    }
}
