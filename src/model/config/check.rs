//! Whether there is such a model: the first field that is not taken, before anything is allocated.

use super::{Architecture, Block, Mixer, ModelConfig};
use crate::attention::{self, Family, Refusal, Setup};
use std::ops::RangeInclusive;

/// A field of a configuration that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {got} is not allowed; it takes {takes}")]
pub struct ConfigError {
    pub field: String,
    pub got: String,
    pub takes: String,
}

impl ConfigError {
    pub fn new(field: impl Into<String>, got: impl std::fmt::Display, takes: impl Into<String>) -> Self {
        Self { field: field.into(), got: got.to_string(), takes: takes.into() }
    }
}

/// Refuses a number outside its range.
pub(crate) fn within(field: &str, got: usize, range: RangeInclusive<usize>) -> Result<(), ConfigError> {
    if range.contains(&got) {
        return Ok(());
    }
    Err(ConfigError::new(field, got, format!("a whole number from {} to {}", range.start(), range.end())))
}

/// Refuses a real number outside `range`, and what is none.
pub(crate) fn between(field: &str, got: f64, range: RangeInclusive<f64>) -> Result<(), ConfigError> {
    if range.contains(&got) {
        return Ok(());
    }
    Err(ConfigError::new(field, got, format!("a number from {} to {}", range.start(), range.end())))
}

impl ModelConfig {
    /// Whether there is such a model. `max_tensor_bytes` is what one tensor may take on the device
    /// ([`attention::DEFAULT_TENSOR_BYTES`] where nothing is known of it). Nothing is allocated.
    ///
    /// # Errors
    /// The first field that is not taken.
    pub fn check(&self, batch: usize, max_tensor_bytes: u64) -> Result<(), ConfigError> {
        within("layers", self.layers, 1..=48)?;
        within("d_model", self.d_model, 1..=4096)?;
        within("heads", self.heads, 1..=64)?;
        if !self.d_model.is_multiple_of(self.heads) {
            return Err(ConfigError::new("heads", self.heads, format!("a divisor of d_model, {}", self.d_model)));
        }
        within("d_ff", self.inner(), 1..=16_384)?;
        within("vocabulary", self.vocabulary, 2..=262_144)?;
        within("length", self.length, 1..=65_536)?;
        within("batch", batch, 1..=4096)?;
        between("dropout", self.dropout, 0.0..=0.9)?;
        between("norm_epsilon", self.norm_epsilon, 0.0..=0.01)?;
        if self.says_words && !self.tied {
            return Err(ConfigError::new("says_words", "true", "false, or `tied` with it"));
        }
        let lists = match self.architecture {
            Architecture::EncoderDecoder => vec![1, self.layers, 2 * self.layers],
            _ => vec![1, self.layers],
        };
        if !lists.contains(&self.attention.len()) {
            let takes = lists.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
            return Err(ConfigError::new("attention", format!("{} variants", self.attention.len()), takes));
        }
        for (at, mixer) in self.attention.iter().enumerate() {
            check_mixer(&format!("attention[{at}]"), mixer)?;
        }
        check_mixer("cross", &self.cross)?;
        if self.block == Block::Plain {
            self.check_plain()?;
        }
        self.check_sizes(batch, max_tensor_bytes)?;
        let serves = |field: &str, mixer: &Mixer, setup: &Setup| match mixer.variant().refusal(setup, max_tensor_bytes)
        {
            Some(refusal) => Err(refused(field, mixer, &refusal)),
            None => Ok(()),
        };
        for &stack in self.stacks() {
            for layer in 0..self.layers {
                let field = format!("attention of layer {layer}");
                serves(&field, self.mixer(stack, layer), &self.setup(stack, layer, batch, self.length, 0))?;
            }
        }
        if self.architecture == Architecture::EncoderDecoder {
            serves("cross", &self.cross, &self.cross_setup(0, batch, self.length, self.length, 0))?;
        }
        Ok(())
    }

    /// Refuses what no stack of recurrent networks alone can be.
    fn check_plain(&self) -> Result<(), ConfigError> {
        let is_recurrent = |mixer: &Mixer| mixer.variant().family == Family::RecurrentNetwork;
        if let Some(at) = self.attention.iter().position(|mixer| !is_recurrent(mixer)) {
            let ids: Vec<&str> =
                attention::ALL.iter().filter(|v| v.family == Family::RecurrentNetwork).map(|v| v.id).collect();
            let takes = format!("in plain blocks one of {}", ids.join(", "));
            return Err(ConfigError::new(format!("attention[{at}]"), &self.attention[at].variant, takes));
        }
        if self.stacks().iter().any(|&stack| !self.d_model.is_multiple_of(self.ways(stack))) {
            return Err(ConfigError::new("d_model", self.d_model, "an even number, half for each direction"));
        }
        if self.says_words {
            return Err(ConfigError::new("says_words", "true", "false in plain blocks, which have no layer norm"));
        }
        Ok(())
    }

    /// Refuses tensors that are too large, among the weights and between the layers.
    fn check_sizes(&self, batch: usize, max_tensor_bytes: u64) -> Result<(), ConfigError> {
        let tokens = (batch * self.length) as u64;
        let inner = self.inner() as u64;
        for (field, elements) in [
            ("vocabulary", self.embedded() as u64 * self.d_model as u64),
            ("d_ff", inner * self.d_model as u64),
            ("batch", tokens * inner.max(self.d_model as u64)),
            ("batch", tokens * self.vocabulary as u64),
        ] {
            if elements * 4 > max_tensor_bytes {
                let got = format!("a tensor of {} bytes", elements * 4);
                return Err(ConfigError::new(field, got, format!("{max_tensor_bytes} on this device")));
            }
        }
        Ok(())
    }
}

fn check_mixer(field: &str, mixer: &Mixer) -> Result<(), ConfigError> {
    let Some(variant) = attention::find(&mixer.variant) else {
        let ids: Vec<&str> = attention::ALL.iter().map(|v| v.id).collect();
        return Err(ConfigError::new(field, format!("{:?}", mixer.variant), format!("one of {}", ids.join(", "))));
    };
    for (name, value) in &mixer.params.0 {
        let Some(param) = variant.params.iter().find(|p| p.name == name) else {
            let names: Vec<&str> = variant.params.iter().map(|p| p.name).collect();
            let takes = if names.is_empty() { "no parameters".to_owned() } else { names.join(", ") };
            return Err(ConfigError::new(format!("{field}.{name}"), "this name", takes));
        };
        param.accept(value).map_err(|e| ConfigError::new(format!("{field}.{name}"), e.got, e.takes))?;
    }
    Ok(())
}

fn refused(field: &str, mixer: &Mixer, refusal: &Refusal) -> ConfigError {
    let takes = refusal.nearest.clone().unwrap_or_else(|| "another variant".into());
    ConfigError::new(field, format!("{} ({})", mixer.variant, refusal.reason), takes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::Stack;

    fn read(text: &str) -> Result<ModelConfig, String> {
        let config: ModelConfig = serde_json::from_str(text).map_err(|e| e.to_string())?;
        config.check(4, attention::DEFAULT_TENSOR_BYTES).map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_file_says_what_differs_from_the_defaults() {
        let text = r#"{"vocabulary": 9, "length": 12, "layers": 3, "attention": [{"variant": "full"},
            {"variant": "sliding_window", "params": {"window": 3}}, {"variant": "lstm"}]}"#;
        let config = read(text).unwrap();
        assert_eq!(config.mixer(Stack::Only, 1).params.0.len(), 1);
        assert_eq!((config.inner(), config.dim()), (256, 16));
        let again: ModelConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn what_is_not_taken_is_named() {
        for (more, words) in [
            (r#""layer": 3"#, "unknown field `layer`"),
            (r#""layers": 0"#, "layers: 0 is not allowed; it takes a whole number from 1 to 48"),
            (r#""heads": 7"#, "heads: 7 is not allowed; it takes a divisor of d_model, 64"),
            (r#""norm": "middle""#, "unknown variant `middle`"),
            (r#""dropout": 1.5"#, "dropout: 1.5 is not allowed"),
            (r#""attention": []"#, "attention: 0 variants is not allowed; it takes 1 or 2"),
            (
                r#""attention": [{"variant": "fool"}]"#,
                "attention[0]: \"fool\" is not allowed; it takes one of full_naive",
            ),
            (r#""attention": [{"variant": "full", "params": {"w": 1}}]"#, "attention[0].w: this name is not allowed"),
            (r#""attention": [{"variant": "linformer"}]"#, "no causal form"),
            (r#""architecture": "encoder", "attention": [{"variant": "gru"}]"#, "always causal"),
            (
                r#""block": "plain""#,
                "attention[0]: full is not allowed; it takes in plain blocks one of rnn, lstm, gru",
            ),
            (r#""block": "plain", "d_model": 544, "attention": [{"variant": "rnn"}]"#, "up to 512 numbers; D is 544"),
            (
                r#""block": "plain", "architecture": "encoder", "heads": 1, "d_model": 9, "attention": [{"variant": "gru"}]"#,
                "d_model: 9 is not allowed; it takes an even number",
            ),
            (r#""d_model": 4096, "heads": 1, "d_ff": 16384"#, "a tensor of 268435456 bytes"),
        ] {
            let error = read(&format!(r#"{{"vocabulary": 9, "length": 12, {more}}}"#)).unwrap_err();
            assert!(error.contains(words), "{more}: {error}");
        }
    }
}
