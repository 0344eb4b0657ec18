//! The parts of a layer; each declares its weights as it is built.
//!
//! Between the parts, tokens of all sequences are the rows of one matrix `[M, d]`, M = B N, so that products are large; heads
//! are taken apart for the attention alone.

use super::config::{Activation, Initialisation, Mixer, ModelConfig, NormPlace, Stack};
use super::network::Mixing;
use super::parameters::{Beginning, Parameter};
use crate::attention::{Inputs, Request, Setup};
use crate::gpu::Category;
use crate::graph::{Dtype, Graph, Node, TensorType, UnaryKind};
use std::collections::BTreeMap;

/// What the rows of a matrix are.
#[derive(Clone, Copy)]
pub(super) struct Sequences {
    pub batch: usize,
    pub length: usize,
    /// u32 `[B, N]`, 0 where there is padding; none where there never is.
    pub real: Option<Node>,
}

/// What an encoder leaves for a decoder, `[B S, d]`.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub rows: Node,
    pub of: Sequences,
}

/// A graph under way, with the weights declared so far.
pub(super) struct Builder<'a> {
    pub g: &'a mut Graph,
    pub config: &'a ModelConfig,
    pub parameters: Vec<(Parameter, Node)>,
    pub mixings: Vec<Mixing>,
    /// Of dropout; none where nothing is dropped.
    dropout_seed: Option<Node>,
    /// Dropouts so far: each has a stream of its own.
    dropouts: u32,
    pub seed: u64,
    /// How the matrix of a product with this name is stored; none where all are in single precision.
    pub stored: Option<&'a dyn Fn(&str) -> Dtype>,
}

impl<'a> Builder<'a> {
    pub fn new(g: &'a mut Graph, config: &'a ModelConfig, dropout_seed: Option<Node>, seed: u64) -> Self {
        Self { g, config, parameters: Vec::new(), mixings: Vec::new(), dropout_seed, dropouts: 0, seed, stored: None }
    }

    /// What is built inside belongs to a part of the model.
    pub fn part<T>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.g.enter_part(name);
        let result = build(self);
        self.g.set_part(before);
        result
    }

    /// A learned weight.
    pub fn weight(&mut self, name: &str, shape: &[usize], beginning: Beginning) -> Node {
        self.declare(Parameter { name: name.into(), shape: shape.into(), beginning, learned: true }, Dtype::F32)
    }

    fn declare(&mut self, parameter: Parameter, dtype: Dtype) -> Node {
        let ty = TensorType { dtype, shape: parameter.shape.clone() };
        let node = self.g.input(&parameter.name, ty, Category::Parameters);
        self.parameters.push((parameter, node));
        node
    }

    /// `x W + b` of rows `[M, in]`: `[M, out]`. `ends_branch` tells the last product of a residual branch.
    pub fn linear(&mut self, stage: &str, name: &str, x: Node, [from, to]: [usize; 2], ends_branch: bool) -> Node {
        let layers = self.config.layers as f64;
        let beginning = match self.config.initialisation {
            Initialisation::Gpt2 if ends_branch => Beginning::Normal(0.02 / (2.0 * layers).sqrt()),
            Initialisation::Gpt2 => Beginning::Normal(0.02),
            Initialisation::Xavier => {
                // Of deep stacks the branches are made smaller, so that their sum keeps its size.
                let smaller = if ends_branch && layers > 6.0 { (2.0 * layers).sqrt() } else { 1.0 };
                Beginning::Uniform((6.0 / (from + to) as f64).sqrt() / smaller)
            }
        };
        let matrix = Parameter { name: format!("{name}.weight"), shape: vec![from, to], beginning, learned: true };
        let dtype = self.stored.map_or(Dtype::F32, |stored| stored(&matrix.name));
        let weight = self.declare(matrix, dtype);
        let bias = self.weight(&format!("{name}.bias"), &[to], Beginning::Zeros);
        self.g.stage(stage, |g| {
            let product = g.matmul(x, weight);
            g.add(product, bias)
        })
    }

    pub fn norm(&mut self, name: &str, x: Node) -> Node {
        let d = self.config.d_model;
        let gain = self.weight(&format!("{name}.gain"), &[d], Beginning::Ones);
        let bias = self.weight(&format!("{name}.bias"), &[d], Beginning::Zeros);
        let epsilon = self.config.norm_epsilon;
        self.g.stage("norm", |g| g.layer_norm(x, gain, bias, epsilon))
    }

    pub fn dropout(&mut self, x: Node) -> Node {
        let Some(seed) = self.dropout_seed else { return x };
        self.dropouts += 1;
        let (p, stream) = (self.config.dropout, self.dropouts);
        self.g.stage("dropout", |g| g.dropout(x, p, seed, stream))
    }

    /// One layer, `[B N, d]` to `[B N, d]`.
    pub fn layer(
        &mut self,
        name: &str,
        stack: Stack,
        layer: usize,
        x: Node,
        of: Sequences,
        memory: Option<Memory>,
    ) -> Node {
        let config = self.config;
        let x = self.branch(&format!("{name}.attention"), x, |b, name, x| {
            let setup = config.setup(stack, layer, of.batch, of.length, b.seed);
            b.attention(name, (stack, layer, false), config.mixer(stack, layer), &setup, [x, x], of.real)
        });
        let x = match memory {
            Some(memory) => self.branch(&format!("{name}.cross"), x, |b, name, x| {
                b.cross_attention(name, (stack, layer), [x, memory.rows], of, memory.of)
            }),
            None => x,
        };
        self.branch(&format!("{name}.feed_forward"), x, |b, name, x| b.feed_forward(name, x))
    }

    /// A residual branch with its layer norm, before or behind.
    fn branch(&mut self, name: &str, x: Node, build: impl FnOnce(&mut Self, &str, Node) -> Node) -> Node {
        self.part(name, |b| {
            let norm = format!("{name}.norm");
            let pre = b.config.norm == NormPlace::Pre;
            let input = if pre { b.norm(&norm, x) } else { x };
            let added = build(b, name, input);
            let added = b.dropout(added);
            let sum = b.g.stage("residual", |g| g.add(x, added));
            if pre { sum } else { b.norm(&norm, sum) }
        })
    }

    fn feed_forward(&mut self, name: &str, x: Node) -> Node {
        let (d, inner) = (self.config.d_model, self.config.inner());
        let h = self.linear("feed forward", &format!("{name}.up"), x, [d, inner], false);
        let h = self.activation("feed forward", h);
        self.linear("feed forward", &format!("{name}.down"), h, [inner, d], true)
    }

    pub fn activation(&mut self, stage: &str, x: Node) -> Node {
        let kind = match self.config.activation {
            Activation::Gelu => UnaryKind::Gelu,
            Activation::GeluErf => UnaryKind::GeluErf,
            Activation::Relu => UnaryKind::Relu,
        };
        self.g.stage(stage, |g| g.unary(kind, x))
    }

    /// What a model that says words does with rows `[M, d]` before their product with the words.
    pub fn before_words(&mut self, x: Node) -> Node {
        let x = self.linear("head", "words.transform", x, [self.config.d_model; 2], false);
        let x = self.activation("head", x);
        self.norm("words.norm", x)
    }

    /// A decoder's attention to what its encoder leaves, `[B N, d]` to `[B S, d]`.
    pub fn cross_attention(
        &mut self,
        name: &str,
        (stack, layer): (Stack, usize),
        rows: [Node; 2],
        of: Sequences,
        memory: Sequences,
    ) -> Node {
        let mixer = &self.config.cross;
        let setup = self.config.cross_setup(layer, of.batch, of.length, memory.length, self.seed);
        // A method that takes another number of keys keeps both texts apart. One that does not sorts or pools queries together
        // with the keys of their places, and would leave out queries whose place is padding in the other text.
        let apart = Setup { keys: setup.keys + 1, ..setup.clone() };
        let real = memory.real.filter(|_| mixer.variant().refusal(&apart, u64::MAX).is_none());
        self.attention(name, (stack, layer, true), mixer, &setup, rows, real)
    }

    /// Multi-head attention of rows `[B N, d]` to rows `[B M, d]` by a variant; keys are left out where `real` `[B, M]` is 0.
    fn attention(
        &mut self,
        name: &str,
        (stack, layer, cross): (Stack, usize, bool),
        mixer: &Mixer,
        setup: &Setup,
        [queries, keys]: [Node; 2],
        real: Option<Node>,
    ) -> Node {
        let d = self.config.d_model;
        let heads = |b: &mut Self, part: &str, x: Node, rows: usize| {
            let x = b.linear("project", &format!("{name}.{part}"), x, [d, d], false);
            b.g.stage("project", |g| {
                let x = g.reshape(x, &[setup.batch, rows, setup.heads, setup.dim]);
                g.swap_axes(x, 1, 2)
            })
        };
        let q = heads(self, "query", queries, setup.length);
        let k = heads(self, "key", keys, setup.keys);
        let v = heads(self, "value", keys, setup.keys);
        let inputs = Inputs { q, k, v, key_padding: real, extras: self.extras(name, mixer, setup, queries) };
        let out = (mixer.variant().graph)(self.g, &inputs, setup);
        self.mixings.push(Mixing { stack, layer, cross, variant: mixer.variant(), inputs, setup: setup.clone() });
        let out = self.g.stage("project", |g| {
            let rows = g.swap_axes(out, 1, 2);
            g.reshape(rows, &[setup.batch * setup.length, d])
        });
        self.linear("project", &format!("{name}.out"), out, [d, d], true)
    }

    /// A variant's own tensors: learned ones are weights of the layer, others are drawn and stay. What is learned for each token,
    /// `[B, H, N, k]`, is made of the token: `x W + b` of rows `[B N, d]`.
    fn extras(&mut self, name: &str, mixer: &Mixer, setup: &Setup, x: Node) -> BTreeMap<&'static str, Node> {
        let of = |setup: &Setup| mixer.variant().extras_read(setup, Request::default());
        let extras = of(setup);
        let of_more = of(&Setup { batch: setup.batch + 1, ..setup.clone() });
        let mut nodes = BTreeMap::new();
        for (extra, of_more) in extras.into_iter().zip(of_more) {
            let own = format!("{name}.{}", extra.name);
            let node = if extra.differentiable && extra.shape != of_more.shape {
                self.for_each_token(&own, x, &extra.shape, setup)
            } else {
                let drawn = Parameter {
                    name: own,
                    shape: extra.shape.clone(),
                    learned: extra.differentiable,
                    beginning: Beginning::Drawn(extra.clone(), setup.seed),
                };
                self.declare(drawn, Dtype::F32)
            };
            nodes.insert(extra.name, node);
        }
        nodes
    }

    fn for_each_token(&mut self, name: &str, x: Node, shape: &[usize], setup: &Setup) -> Node {
        let &[batch, heads, length, each] = shape else { panic!("{name}: {shape:?} is not of each token") };
        assert_eq!([batch, heads, length], [setup.batch, setup.heads, setup.length], "{name} is of each query");
        let made = self.linear("project", name, x, [self.config.d_model, heads * each], false);
        self.g.stage("project", |g| {
            let made = g.reshape(made, &[batch, length, heads, each]);
            g.swap_axes(made, 1, 2)
        })
    }
}
