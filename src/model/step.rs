//! One training step as one graph, and the judgement of a batch.

use super::config::{Architecture, ModelConfig};
use super::network::{Network, Tokens, network};
use super::optimiser::{self, Learned, OptimiserConfig};
use super::parameters::Parameter;
use crate::gpu::Category;
use crate::graph::{BinaryKind, Data, Graph, Node, TensorType, grad};
use std::collections::BTreeMap;

/// A graph that changes its own weights.
#[derive(Clone, Debug)]
pub struct TrainingStep {
    /// Reads `tokens` and `targets` u32 `[B, N]`, `judged` f32 `[B, N]`, `source` u32 `[B, N]` of an encoder–decoder, `seed` u32
    /// `[2]` where there is dropout, the [`optimiser::NUMBERS`], weights and memories. Gives `loss` and `norm`, the norm of
    /// the gradient before clipping, both `[]`.
    pub graph: Graph,
    pub parameters: Vec<Parameter>,
}

/// A graph that says how well a network does.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Reads what [`TrainingStep::graph`] reads but of the optimiser and dropout. Gives `losses` in nats and `hits`, 1 where no
    /// token is given a higher logit than the right one, both f32 `[B, N]` and 0 where nothing is judged.
    pub graph: Graph,
    pub parameters: Vec<Parameter>,
}

struct Batch {
    tokens: Tokens,
    targets: Node,
    judged: Node,
}

fn batch(g: &mut Graph, config: &ModelConfig, size: usize, dropout: bool) -> Batch {
    let shape = [size, config.length];
    let mut tokens = |name: &str| g.input(name, TensorType::u32(&shape), Category::Activations);
    let (input, targets) = (tokens("tokens"), tokens("targets"));
    let source = (config.architecture == Architecture::EncoderDecoder).then(|| tokens("source"));
    let judged = g.input("judged", TensorType::f32(&shape), Category::Activations);
    let seed = dropout.then(|| g.input("seed", TensorType::u32(&[2]), Category::Activations));
    Batch { tokens: Tokens { tokens: input, source, seed }, targets, judged }
}

/// The mean of the cross-entropies of judged positions, of shape `[]`; 0 where there is none.
fn loss(g: &mut Graph, net: &Network, batch: &Batch) -> Node {
    g.stage("loss", |g| {
        let part = g.enter_part("loss");
        let rows = g.cross_entropy_rows(net.logits, batch.targets);
        let weighted = g.mul(rows, batch.judged);
        let total = g.sum_all(weighted);
        let count = g.sum_all(batch.judged);
        let one = g.constant(&[], Data::Real(vec![1.0]));
        let count = g.maximum(count, one);
        let mean = g.div(total, count);
        g.set_part(part);
        mean
    })
}

/// Forward, backward, clipping and update for `size` sequences.
///
/// # Panics
/// Where [`ModelConfig::check`] complains.
pub fn training_step(config: &ModelConfig, rule: &OptimiserConfig, size: usize, seed: u64) -> TrainingStep {
    let Whole { mut graph, parameters, loss, norm, .. } = whole(config, rule, size, seed);
    graph.output("loss", loss);
    graph.output("norm", norm);
    TrainingStep { graph, parameters }
}

/// A training step without outputs.
struct Whole {
    graph: Graph,
    parameters: Vec<Parameter>,
    loss: Node,
    norm: Node,
    changes: Vec<Change>,
}

/// What becomes of a weight.
struct Change {
    part: String,
    weight: Node,
    gradient: Node,
    new: Node,
}

fn whole(config: &ModelConfig, rule: &OptimiserConfig, size: usize, seed: u64) -> Whole {
    let Forward { graph: mut g, network: net, loss, objective } = forward(config, size, seed);
    let nodes: Vec<Node> = net.parameters.iter().filter(|(p, _)| p.learned).map(|(_, node)| *node).collect();
    let one = g.constant(&[], Data::Real(vec![1.0]));
    let gradients = grad::gradients(&mut g, &[(objective, one)], &nodes);
    let parameters = net.parameters.iter().filter(|(p, _)| p.learned);
    let learned: Vec<Learned> = parameters
        .zip(gradients)
        .filter_map(|((parameter, node), gradient)| Some(Learned { parameter, node: *node, gradient: gradient? }))
        .collect();
    let (norm, new) = optimiser::update(&mut g, rule, &learned);
    let changes = (learned.iter().zip(new))
        .map(|(one, new)| {
            let part = one.parameter.part().to_owned();
            Change { part, weight: one.node, gradient: one.gradient, new }
        })
        .collect();
    let parameters = net.parameters.into_iter().map(|(p, _)| p).collect();
    Whole { graph: g, parameters, loss, norm, changes }
}

/// A graph that says what a step would do to each part of a model, and changes nothing.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Reads what [`TrainingStep::graph`] reads. Gives `gradients`, `weights` and `updates`, f32 `[parts]`: of each part the norm
    /// of the gradient before clipping, of the weights before the step, and of what the step would add to them.
    pub graph: Graph,
    /// Names, in the order of the weights.
    pub parts: Vec<String>,
}

/// What a training step of `size` sequences would do.
///
/// # Panics
/// Where [`ModelConfig::check`] complains.
pub fn inspection(config: &ModelConfig, rule: &OptimiserConfig, size: usize, seed: u64) -> Inspection {
    let Whole { graph, changes, .. } = whole(config, rule, size, seed);
    let mut g = graph.without_updates();
    let mut parts: Vec<String> = Vec::new();
    let mut of_part: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    for change in changes {
        if !parts.contains(&change.part) {
            parts.push(change.part.clone());
        }
        of_part.entry(change.part.clone()).or_default().push(change);
    }
    let mut norms = |name: &str, value: &dyn Fn(&mut Graph, &Change) -> Node| {
        let norms: Vec<Node> = (parts.iter())
            .map(|part| {
                let squares: Vec<Node> = (of_part[part].iter())
                    .map(|change| {
                        let value = value(&mut g, change);
                        let square = g.square(value);
                        g.sum_all(square)
                    })
                    .collect();
                let total = squares[1..].iter().fold(squares[0], |total, &square| g.add(total, square));
                let norm = g.sqrt(total);
                g.reshape(norm, &[1])
            })
            .collect();
        let norms = if norms.len() == 1 { norms[0] } else { g.concat(&norms, 0) };
        g.output(name, norms);
    };
    norms("gradients", &|_, change| change.gradient);
    norms("weights", &|_, change| change.weight);
    norms("updates", &|g, change| g.sub(change.new, change.weight));
    Inspection { graph: g, parts }
}

/// A graph that reads, with the weights that it takes.
#[derive(Clone, Debug)]
pub struct Reader {
    pub graph: Graph,
    pub parameters: Vec<Parameter>,
}

/// A graph that reads and says what it expects: `logits`, f32 `[B, N, V]`, of `tokens` u32 `[B, N]` and, of an encoder–decoder,
/// `source`; without dropout.
pub fn reader(config: &ModelConfig, size: usize, seed: u64) -> Reader {
    let mut g = Graph::new();
    let read = tokens(&mut g, config, size);
    let net = network(&mut g, config, &read, seed);
    g.output("logits", net.logits);
    Reader { graph: g, parameters: net.parameters.into_iter().map(|(p, _)| p).collect() }
}

/// What a network that is only read with takes.
pub(super) fn tokens(g: &mut Graph, config: &ModelConfig, size: usize) -> Tokens {
    let mut tokens = |name: &str| g.input(name, TensorType::u32(&[size, config.length]), Category::Activations);
    let input = tokens("tokens");
    let source = (config.architecture == Architecture::EncoderDecoder).then(|| tokens("source"));
    Tokens { tokens: input, source, seed: None }
}

/// A network in training with its loss, which is not yet an output.
#[derive(Clone)]
pub struct Forward {
    pub graph: Graph,
    pub network: Network,
    /// Mean cross-entropy of judged positions, `[]`.
    pub loss: Node,
    /// What gradients are taken of: the loss, and what methods add of their own.
    pub objective: Node,
}

/// The forward part of a training step.
pub fn forward(config: &ModelConfig, size: usize, seed: u64) -> Forward {
    let mut g = Graph::new();
    let batch = batch(&mut g, config, size, config.dropout > 0.0);
    let network = network(&mut g, config, &batch.tokens, seed);
    let loss = loss(&mut g, &network, &batch);
    let mut objective = loss;
    for mixing in &network.mixings {
        let Some(own) = mixing.variant.loss else { continue };
        objective = g.stage("loss", |g| {
            let added = (own.graph)(g, &mixing.inputs, &mixing.setup);
            let added = g.reshape(added, &[]);
            let added = g.scale(added, own.weight.into());
            g.add(objective, added)
        });
    }
    Forward { graph: g, network, loss, objective }
}

/// Losses and hits of `size` sequences, without dropout.
pub fn judgement(config: &ModelConfig, size: usize, seed: u64) -> Judgement {
    let mut g = Graph::new();
    let batch = batch(&mut g, config, size, false);
    let net = network(&mut g, config, &batch.tokens, seed);
    let (losses, hits) = g.stage("judge", |g| {
        let losses = g.cross_entropy_rows(net.logits, batch.targets);
        let rows = size * config.length;
        let table = g.reshape(net.logits, &[rows, config.vocabulary, 1]);
        let targets = g.reshape(batch.targets, &[rows, 1]);
        let right = g.gather_rows(table, targets);
        let right = g.reshape(right, &[size, config.length]);
        let best = g.max(net.logits, &[2], false);
        let hits = g.binary(BinaryKind::GreaterEqual, right, best);
        (g.mul(losses, batch.judged), g.mul(hits, batch.judged))
    });
    g.output("losses", losses);
    g.output("hits", hits);
    Judgement { graph: g, parameters: net.parameters.into_iter().map(|(p, _)| p).collect() }
}
