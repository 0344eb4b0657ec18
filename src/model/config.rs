//! What a model is: one serialisable value, checked in one place, `check`.

mod check;

use crate::attention::{self, Params, Setup, Structure, Variant};
use crate::ids::ids;
use crate::random;
pub use check::ConfigError;
pub(crate) use check::{between, within};

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
}
