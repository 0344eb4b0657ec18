//! Parts of a network as graphs of their own, so that a large model can be run with the weights of one part on the device at a
//! time.

use super::layers::{Builder, Sequences};
use super::{ModelConfig, Parameter};
use crate::gpu::Category;
use crate::graph::{Dtype, Graph, Node, TensorType};
use crate::model::config::{NormPlace, Stack};

/// A part, and the weights that it reads by their names.
pub struct Alone {
    pub graph: Graph,
    pub parameters: Vec<Parameter>,
}

/// What of a layer is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `y` f32 `[N, d]`: what the next layer reads.
    Output,
    /// `q`, `k`, `v` f32 `[1, H, N, D]`.
    Inside,
}

/// In which precision the matrix of a product is stored, by its name.
pub type Stored<'a> = &'a dyn Fn(&str) -> Dtype;

/// A layer of a decoder or an encoder on one sequence: reads `x` f32 `[N, d]`. `seed` is what a variant draws from.
pub fn layer(config: &ModelConfig, layer: usize, n: usize, seed: u64, wanted: Wanted, stored: Stored) -> Alone {
    build(config, n, seed, stored, |b, x| {
        let one = Sequences { batch: 1, length: n, real: None };
        let y = b.layer(&format!("layers.{layer}"), Stack::Only, layer, x, one, None);
        if wanted == Wanted::Output {
            return b.g.output("y", y);
        }
        let inputs = b.mixings[0].inputs.clone();
        for (name, node) in [("q", inputs.q), ("k", inputs.k), ("v", inputs.v)] {
            b.g.output(name, node);
        }
    })
}

/// What stands between the embedding and the first layer: reads `x` and gives `y`, both f32 `[N, d]`. None where nothing does.
pub fn first(config: &ModelConfig, n: usize, stored: Stored) -> Option<Alone> {
    let norms = config.norm == NormPlace::Post;
    norms.then(|| {
        build(config, n, 0, stored, |b, x| {
            let y = b.norm("embedding.norm", x);
            b.g.output("y", y);
        })
    })
}

/// What stands between the last layer and the product with the words: reads `x` and gives `y`, both f32 `[N, d]`. None where
/// nothing does.
pub fn last(config: &ModelConfig, n: usize, stored: Stored) -> Option<Alone> {
    let norms = config.norm == NormPlace::Pre;
    (norms || config.says_words).then(|| {
        build(config, n, 0, stored, |b, x| {
            let x = if norms { b.norm("norm", x) } else { x };
            let y = if config.says_words { b.before_words(x) } else { x };
            b.g.output("y", y);
        })
    })
}

fn build(config: &ModelConfig, n: usize, seed: u64, stored: Stored, fill: impl FnOnce(&mut Builder, Node)) -> Alone {
    let mut graph = Graph::new();
    let x = graph.input("x", TensorType::f32(&[n, config.d_model]), Category::Activations);
    let mut b = Builder::new(&mut graph, config, None, seed);
    b.stored = Some(stored);
    fill(&mut b, x);
    let parameters = b.parameters.into_iter().map(|(parameter, _)| parameter).collect();
    Alone { graph, parameters }
}
