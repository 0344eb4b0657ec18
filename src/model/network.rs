//! From tokens to logits.
//!
//! ```text
//! x = s E[token] + P[position]                          s = √d or 1
//! pre:   a = x + Mix(LN x);   y = a + FFN(LN a)         one more LN behind the last layer
//! post:  a = LN(x + Mix x);   y = LN(a + FFN a)         one more LN behind the embedding
//! plain: y = RNN(x), LSTM(x) or GRU(x)                  and no LN; see `recurrent.rs`
//! logits = h W + b, or h Eᵀ
//! ```
//! Vaswani et al., 2017, arXiv:1706.03762; pre-norm: Xiong et al., 2020, arXiv:2002.04745; tied embeddings: Press and Wolf,
//! 2017, arXiv:1608.05859.

use super::config::{Architecture, Block, ModelConfig, NormPlace, Positions, Stack};
use super::layers::{Builder, Memory, Sequences};
use super::parameters::Beginning;
use super::{Parameter, config::Initialisation};
use crate::attention::{Inputs, Setup, Variant};
use crate::graph::{Data, Dtype, Graph, Node};

/// What a network reads. Positions that hold [`ModelConfig::pad`], and those of a source that hold [`ModelConfig::blank`], are
/// padding: no other position attends to them.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// u32 `[B, N]`, below [`ModelConfig::embedded`].
    pub tokens: Node,
    /// What the encoder of an encoder–decoder reads, u32 `[B, S]`.
    pub source: Option<Node>,
    /// Where there is dropout, u32 `[2]`: another one for each step.
    pub seed: Option<Node>,
}

/// One attention of a network, for those who look inside.
#[derive(Clone)]
pub struct Mixing {
    pub stack: Stack,
    pub layer: usize,
    pub cross: bool,
    pub variant: &'static Variant,
    /// `[B, H, N, D]`; keys and values `[B, H, M, D]`.
    pub inputs: Inputs<Node>,
    pub setup: Setup,
}

impl Mixing {
    /// The part of the model that it is, e.g. `decoder.layers.0.cross`: what the names of its weights begin with.
    pub fn part(&self) -> String {
        let branch = if self.cross { "cross" } else { "attention" };
        format!("{}layers.{}.{branch}", self.stack.prefix(), self.layer)
    }
}

/// A network's nodes.
#[derive(Clone)]
pub struct Network {
    /// `[B, N, V]`
    pub logits: Node,
    /// What the last layer leaves, `[B, N, d]`.
    pub hidden: Node,
    /// Every weight that the logits or a method's own loss depend on, with its input, in the order of use.
    pub parameters: Vec<(Parameter, Node)>,
    pub mixings: Vec<Mixing>,
}

/// Adds a network to a graph. Weights become inputs under their names; `seed` is what variants draw structures and tensors
/// from.
///
/// # Panics
/// Where [`ModelConfig::check`] complains, or an input that the architecture needs is missing.
pub fn network(g: &mut Graph, config: &ModelConfig, inputs: &Tokens, seed: u64) -> Network {
    let mut b = Builder::new(g, config, inputs.seed, seed);
    let table = b.weight("embedding.weight", &[config.embedded(), config.d_model], embedding_beginning(config));
    let positions = (config.positions == Positions::Learned)
        .then(|| b.weight("positions.weight", &[config.length, config.d_model], embedding_beginning(config)));
    let memory = (config.architecture == Architecture::EncoderDecoder).then(|| {
        let source = inputs.source.expect("an encoder-decoder reads a source");
        let x = b.part("encoder.embedding", |b| embed(b, "encoder.", table, positions, source));
        let of = sequences(&mut b, source, &[Some(config.blank()), config.pad]);
        Memory { rows: stack(&mut b, Stack::Encoder, x, of, None), of }
    });
    let (which, prefix) = match config.architecture {
        Architecture::EncoderDecoder => (Stack::Decoder, "decoder."),
        _ => (Stack::Only, ""),
    };
    let x = b.part(&format!("{prefix}embedding"), |b| embed(b, prefix, table, positions, inputs.tokens));
    let of = sequences(&mut b, inputs.tokens, &[config.pad]);
    let x = stack(&mut b, which, x, of, memory);
    let Sequences { batch, length, .. } = of;
    let hidden = b.g.reshape(x, &[batch, length, config.d_model]);
    let logits = b.part("head", |b| {
        let logits = head(b, table, x);
        b.g.reshape(logits, &[batch, length, config.vocabulary])
    });
    let (mut parameters, mixings) = (b.parameters, b.mixings);
    // Some variants make no use of keys or queries; what would make those is not part of the model.
    let read = g.ancestors([logits]);
    let of_own_loss =
        |node: &Node| mixings.iter().any(|m| m.variant.loss.is_some() && m.inputs.extras.values().any(|n| n == node));
    parameters.retain(|(_, node)| read[node.entry as usize] || of_own_loss(node));
    Network { logits, hidden, parameters, mixings }
}

fn embedding_beginning(config: &ModelConfig) -> Beginning {
    Beginning::Normal(match config.initialisation {
        Initialisation::Xavier => 1.0 / (config.d_model as f64).sqrt(),
        Initialisation::Gpt2 => 0.02,
    })
}

/// B and N of tokens.
fn sizes(b: &Builder, tokens: Node) -> [usize; 2] {
    b.g.shape(tokens).try_into().expect("tokens are [B, N]")
}

/// Sizes of tokens, and which of them are none of the blanks.
fn sequences(b: &mut Builder, tokens: Node, blanks: &[Option<u32>]) -> Sequences {
    let [batch, length] = sizes(b, tokens);
    let part = b.g.enter_part("padding");
    let real = b.g.stage("padding", |g| {
        let mut real: Option<Node> = None;
        for blank in blanks.iter().flatten() {
            // 0 where the token is the blank, and at least 1 elsewhere.
            let number = g.cast(tokens, Dtype::F32);
            let apart = g.add_scalar(number, -f64::from(*blank));
            let apart = g.square(apart);
            let one = g.constant(&[1], Data::Real(vec![1.0]));
            let is_other = g.minimum(apart, one);
            real = Some(real.map_or(is_other, |real| g.mul(real, is_other)));
        }
        real.map(|real| g.cast(real, Dtype::U32))
    });
    b.g.set_part(part);
    Sequences { batch, length, real }
}

/// Embedded tokens, `[B N, d]`.
fn embed(b: &mut Builder, prefix: &str, table: Node, positions: Option<Node>, tokens: Node) -> Node {
    let [batch, length] = sizes(b, tokens);
    let (config, d) = (b.config, b.config.d_model);
    let x = b.g.stage("embed", |g| {
        let x = g.embedding(table, tokens);
        let x = g.scale(x, config.embedding_scale());
        match (config.positions, positions) {
            (Positions::Learned, Some(table)) => {
                let rows = if length == config.length { table } else { g.slice(table, 0, 0..length) };
                g.add(x, rows)
            }
            (Positions::Sinusoidal, _) => {
                let rows = g.constant(&[length, d], Data::Real(sinusoids(length, d)));
                g.add(x, rows)
            }
            _ => x,
        }
    });
    let x = b.g.reshape(x, &[batch * length, d]);
    let x = if config.norm_at(NormPlace::Post) { b.norm(&format!("{prefix}embedding.norm"), x) } else { x };
    b.dropout(x)
}

/// All layers of a stack, `[B N, d]` to `[B N, d]`.
fn stack(b: &mut Builder, which: Stack, mut x: Node, of: Sequences, memory: Option<Memory>) -> Node {
    let prefix = which.prefix();
    for layer in 0..b.config.layers {
        let name = format!("{prefix}layers.{layer}");
        x = match b.config.block {
            Block::Transformer => b.layer(&name, which, layer, x, of, memory),
            Block::Plain => b.plain_layer(&name, which, layer, x, of, memory),
        };
    }
    let norm = format!("{prefix}norm");
    if b.config.norm_at(NormPlace::Pre) { b.part(&norm, |b| b.norm(&norm, x)) } else { x }
}

/// Logits `[M, V]` of hidden states `[M, d]`.
fn head(b: &mut Builder, table: Node, x: Node) -> Node {
    let config = b.config;
    if !config.tied {
        return b.linear("head", "head", x, [config.d_model, config.vocabulary], false);
    }
    let x = if config.says_words { b.before_words(x) } else { x };
    let logits = b.g.stage("head", |g| {
        let rows = if config.embedded() == config.vocabulary { table } else { g.slice(table, 0, 0..config.vocabulary) };
        g.matmul_nt(x, rows, 1.0)
    });
    if !config.says_words {
        return logits;
    }
    let bias = b.weight("words.bias", &[config.vocabulary], Beginning::Zeros);
    b.g.stage("head", |g| g.add(logits, bias))
}

/// `sin(p / 10000^(2i/d))` and the cosine in turn, `[N, d]`: computed here in f64, since shaders promise little of sines of
/// large angles.
fn sinusoids(length: usize, d: usize) -> Vec<f32> {
    let element = |at: usize| {
        let (position, i) = ((at / d) as f64, at % d);
        let angle = position / 10_000f64.powf((i / 2 * 2) as f64 / d as f64);
        (if i.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    (0..length * d).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Category;
    use crate::graph::TensorType;
    use crate::model::parameters::count;

    #[test]
    fn a_model_of_gpt2s_sizes_has_as_many_weights() {
        let config = ModelConfig {
            layers: 12,
            d_model: 768,
            heads: 12,
            vocabulary: 50_257,
            length: 1024,
            positions: Positions::Learned,
            tied: true,
            ..ModelConfig::default()
        };
        let mut g = Graph::new();
        let tokens = g.input("tokens", TensorType::u32(&[1, 8]), Category::Activations);
        let built = network(&mut g, &config, &Tokens { tokens, source: None, seed: None }, 1);
        assert_eq!(count(built.parameters.iter().map(|(p, _)| p)), 124_439_808);
        assert_eq!(g.shape(built.logits), [1, 8, 50_257]);
    }

    #[test]
    fn sinusoids_begin_as_the_paper_says() {
        let x = sinusoids(3, 4);
        assert_eq!(&x[..4], [0.0, 1.0, 0.0, 1.0]);
        assert!((x[10] - 0.02f32.sin()).abs() < 1e-7 && (x[9] - 2f32.cos()).abs() < 1e-7);
    }
}
