//! What a `config.json` says beyond the shapes of tensors.

use super::MOST_CONFIG_BYTES;
use crate::model::config::Activation;
use crate::reading::Unfit;

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
    /// Some models have an output of their own, which is not read.
    tie_word_embeddings: Option<bool>,
    /// A BERT that writes.
    is_decoder: Option<bool>,
    /// BERT's other ways to tell positions.
    position_embedding_type: Option<String>,
    /// GPT-2's other ways to scale scores.
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
}

impl Settings {
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        if text.len() > MOST_CONFIG_BYTES {
            return Err(Unfit::Config(format!("has {} bytes; at most {MOST_CONFIG_BYTES} are read", text.len())));
        }
        let settings: Self = crate::json::read(text).map_err(|e| Unfit::Config(e.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    /// Refuses what would compute something else than the model's authors did.
    fn check(&self) -> Result<(), Unfit> {
        let usual_positions = self.position_embedding_type.as_deref().is_none_or(|kind| kind == "absolute");
        for (is_usual, name, takes) in [
            (
                self.tie_word_embeddings != Some(false),
                "tie_word_embeddings",
                "models whose output is their table of words",
            ),
            (self.is_decoder != Some(true), "is_decoder", "BERT as an encoder"),
            (usual_positions, "position_embedding_type", "absolute"),
            (
                self.scale_attn_weights != Some(false),
                "scale_attn_weights",
                "scores divided by the root of the head dimension",
            ),
            (
                self.scale_attn_by_inverse_layer_idx != Some(true),
                "scale_attn_by_inverse_layer_idx",
                "the same scale in every layer",
            ),
        ] {
            if !is_usual {
                return Err(Unfit::Config(format!("its {name} is of no kind known here; it takes {takes}")));
            }
        }
        Ok(())
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
