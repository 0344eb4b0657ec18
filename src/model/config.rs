//! What a model is: one serialisable value, checked in one place.

use crate::attention::{self, Family, Params, Refusal, Setup, Structure, Variant};
use crate::ids::ids;
use crate::random;
use std::ops::RangeInclusive;

ids! {
    /// Which stacks there are, and which way they look.
    Architecture {
        /// One stack; no token sees a later one.
        #[default]
        Decoder = "decoder",
        /// One stack; every token sees every other.
        Encoder = "encoder",
        /// An encoder reads the source; a decoder reads what was written so far, and the encoder's output (Vaswani et al.,
        /// 2017, arXiv:1706.03762).
        EncoderDecoder = "encoder_decoder",
    }
}

ids! {
    /// What a layer is made of.
    Block {
        /// What mixes tokens and a feed-forward network, each a residual branch with a layer norm.
        #[default]
        Transformer = "transformer",
        /// A recurrent network alone, which reads what the layer below gives: no residual branch, no layer norm, no feed-forward
        /// network, nowhere in the model. What there was before transformers; see `super::recurrent`.
        Plain = "plain",
    }
}

ids! {
    /// Where the layer norms stand.
    NormPlace {
        /// Before each part of a layer, and once behind the last layer (Xiong et al., 2020, arXiv:2002.04745).
        #[default]
        Pre = "pre",
        /// Behind each residual sum, and once behind the embedding, as in the first transformer and in BERT.
        Post = "post",
    }
}

ids! {
    /// How tokens learn where they stand, besides what a variant does of its own.
    Positions {
        #[default]
        Sinusoidal = "sinusoidal",
        Learned = "learned",
        None = "none",
    }
}

ids! {
    /// Between the two products of a feed-forward network.
    Activation {
        /// In its tanh form.
        #[default]
        Gelu = "gelu",
        /// With the normal distribution itself, as BERT has it.
        GeluErf = "gelu_erf",
        Relu = "relu",
    }
}

ids! {
    /// How weights begin.
    Initialisation {
        /// Glorot and Bengio's uniform for products, N(0, 1/d) for embeddings, which are then scaled by √d where positions are
        /// not learned. Small models find content-addressed solutions from here and not from the other.
        #[default]
        Xavier = "xavier",
        /// N(0, 0.02) everywhere, and divided by √(2 layers) where a residual branch ends.
        Gpt2 = "gpt2",
    }
}

/// What mixes tokens in a layer: a variant with its parameters.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixer {
    /// An id of [`attention::ALL`].
    pub variant: String,
    #[serde(default, skip_serializing_if = "no_params")]
    pub params: Params,
}

fn no_params(params: &Params) -> bool {
    params.0.is_empty()
}

impl Mixer {
    /// A variant with its default parameters.
    pub fn of(variant: &str) -> Self {
        Self { variant: variant.into(), params: Params::default() }
    }

    pub fn is_full(&self) -> bool {
        *self == Self::of("full")
    }

    /// # Panics
    /// Where [`ModelConfig::check`] complains.
    pub fn variant(&self) -> &'static Variant {
        attention::find(&self.variant).expect("the configuration was checked")
    }
}

/// A stack of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// The only one of a decoder or an encoder.
    Only,
    /// Those of an encoder–decoder.
    Encoder,
    Decoder,
}

impl Stack {
    /// What the names of its parts begin with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Stack::Only => "",
            Stack::Encoder => "encoder.",
            Stack::Decoder => "decoder.",
        }
    }
}

/// Sizes and parts of a model. Fields that are left out of a file have the values of [`ModelConfig::default`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub block: Block,
    /// Of each stack.
    pub layers: usize,
    pub d_model: usize,
    pub heads: usize,
    /// Inner width of the feed-forward networks; 4 d_model where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_ff: Option<usize>,
    /// Classes of the logits; 0 stands for the task's.
    pub vocabulary: usize,
    /// Longest sequence; 0 stands for the task's.
    pub length: usize,
    /// The token that fills up what is shorter: nothing attends to it. The task's where it is not given; none where all
    /// sequences are full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad: Option<u32>,
    pub norm: NormPlace,
    /// Added to the variance in layer norms.
    pub norm_epsilon: f64,
    pub positions: Positions,
    pub activation: Activation,
    pub initialisation: Initialisation,
    /// The embedding is also the output's weight, without a bias.
    pub tied: bool,
    /// BERT's way to say words, where the output is tied: a product, the activation and a layer norm in front, and a bias for each
    /// word.
    pub says_words: bool,
    /// Probability at which elements of the embedding and of what a residual branch adds are dropped in training. Attention
    /// weights are never dropped: the kernels do not store them.
    pub dropout: f64,
    /// One for all layers, or one for each layer of a stack, or of an encoder–decoder one for each layer of the encoder and then
    /// of the decoder.
    pub attention: Vec<Mixer>,
    /// How the decoder of an encoder–decoder reads the encoder's output.
    pub cross: Mixer,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            architecture: Architecture::default(),
            block: Block::default(),
            layers: 2,
            d_model: 64,
            heads: 4,
            d_ff: None,
            vocabulary: 0,
            length: 0,
            pad: None,
            norm: NormPlace::default(),
            norm_epsilon: 1e-5,
            positions: Positions::default(),
            activation: Activation::default(),
            initialisation: Initialisation::default(),
            tied: false,
            says_words: false,
            dropout: 0.0,
            attention: vec![Mixer::of("full")],
            cross: Mixer::of("full"),
        }
    }
}

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
    /// Inner width of the feed-forward networks.
    pub fn inner(&self) -> usize {
        self.d_ff.unwrap_or(4 * self.d_model)
    }

    /// Width of a head.
    pub fn dim(&self) -> usize {
        self.d_model / self.heads
    }

    /// Rows of the embedding: an encoder–decoder has one more, for what begins a sequence and for what is not shown
    /// ([`ModelConfig::blank`]).
    pub fn embedded(&self) -> usize {
        self.vocabulary + usize::from(self.architecture == Architecture::EncoderDecoder)
    }

    /// The token that stands for nothing, in an encoder–decoder.
    pub fn blank(&self) -> u32 {
        self.vocabulary as u32
    }

    /// What is multiplied with embeddings, √d or 1.
    pub fn embedding_scale(&self) -> f64 {
        let scales = self.initialisation == Initialisation::Xavier && self.positions != Positions::Learned;
        if scales { (self.d_model as f64).sqrt() } else { 1.0 }
    }

    /// Whether a layer norm stands there, behind the last layer or behind the embedding.
    pub(super) fn norm_at(&self, place: NormPlace) -> bool {
        self.block == Block::Transformer && self.norm == place
    }

    pub fn stacks(&self) -> &'static [Stack] {
        match self.architecture {
            Architecture::EncoderDecoder => &[Stack::Encoder, Stack::Decoder],
            _ => &[Stack::Only],
        }
    }

    /// What mixes tokens in a layer of a stack.
    ///
    /// # Panics
    /// Where [`ModelConfig::check`] complains.
    pub fn mixer(&self, stack: Stack, layer: usize) -> &Mixer {
        let at =
            if stack == Stack::Decoder && self.attention.len() > self.layers { self.layers + layer } else { layer };
        &self.attention[if self.attention.len() == 1 { 0 } else { at }]
    }

    /// Shapes and settings of a layer's attention to its own stack, for `batch` sequences of `length` tokens.
    pub fn setup(&self, stack: Stack, layer: usize, batch: usize, length: usize, seed: u64) -> Setup {
        let causal = match stack {
            Stack::Only => self.architecture == Architecture::Decoder,
            Stack::Encoder => false,
            Stack::Decoder => true,
        };
        let part = 2 * layer as u64 + u64::from(stack == Stack::Decoder) * 1024;
        let setup = self.setup_of(self.mixer(stack, layer), part, causal, [batch, length, length], seed);
        match self.block {
            Block::Transformer => setup,
            // One network each way, and each is causal in its own direction.
            Block::Plain => Setup { heads: 1, dim: self.d_model / self.ways(stack), causal: true, ..setup },
        }
    }

    /// Directions that a stack of plain layers reads in: both where every token may see every other.
    pub fn ways(&self, stack: Stack) -> usize {
        let sees_all = stack == Stack::Encoder || self.architecture == Architecture::Encoder;
        if sees_all { 2 } else { 1 }
    }

    /// The same of a decoder's attention to `keys` rows of the encoder.
    pub fn cross_setup(&self, layer: usize, batch: usize, length: usize, keys: usize, seed: u64) -> Setup {
        let setup = self.setup_of(&self.cross, 2 * layer as u64 + 1, false, [batch, length, keys], seed);
        Setup { structure: Structure { cross: true, ..Default::default() }, ..setup }
    }

    fn setup_of(&self, mixer: &Mixer, part: u64, causal: bool, sizes: [usize; 3], seed: u64) -> Setup {
        let [batch, length, keys] = sizes;
        Setup {
            batch,
            heads: self.heads,
            length,
            keys,
            dim: self.dim(),
            causal,
            params: mixer.params.clone(),
            seed: random::bits(seed, random::stream("mixer"), part),
            structure: Default::default(),
        }
    }

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
