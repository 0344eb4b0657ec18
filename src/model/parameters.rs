//! Weights by name: shapes, first values, and which of them learn.

use crate::attention::Extra;
use crate::random;

/// How a weight begins.
#[derive(Clone, Debug)]
pub enum Beginning {
    Zeros,
    Ones,
    /// Uniform on ±bound.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// As a variant draws its own tensors, from the layer's seed.
    Drawn(Extra, u64),
}

/// One weight.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// In files and graphs, e.g. `layers.0.attention.query.weight`.
    pub name: String,
    /// Products are stored `[in, out]`.
    pub shape: Vec<usize>,
    pub beginning: Beginning,
    /// Changed by training; a variant's hash directions and random features are drawn once and stay.
    pub learned: bool,
}

impl Parameter {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part of a model that it belongs to, by its name: `layers.0.attention`, `embedding`, `head`.
    pub fn part(&self) -> &str {
        part(&self.name)
    }

    /// Whether weight decay pulls at it: at matrices, not at biases and gains.
    pub fn decays(&self) -> bool {
        self.shape.len() >= 2
    }

    /// First values: a pure function of the seed, the name and the element's index.
    pub fn draw(&self, seed: u64) -> Vec<f32> {
        let stream = random::stream(&self.name);
        let indices = 0..self.len() as u64;
        match &self.beginning {
            Beginning::Zeros => vec![0.0; self.len()],
            Beginning::Ones => vec![1.0; self.len()],
            Beginning::Uniform(bound) => {
                indices.map(|i| ((2.0 * random::uniform(seed, stream, i) - 1.0) * bound) as f32).collect()
            }
            Beginning::Normal(deviation) => {
                indices.map(|i| (random::normal(seed, stream, i) * deviation) as f32).collect()
            }
            Beginning::Drawn(extra, seed) => extra.draw(*seed),
        }
    }
}

/// The part of a model that a weight of this name belongs to; see [`crate::graph::Graph::part`].
pub fn part(name: &str) -> &str {
    let end = match name.find("layers.") {
        // Number and branch behind the word.
        Some(at) => name[at..].match_indices('.').nth(2).map(|(dot, _)| at + dot),
        None => name.rfind('.'),
    };
    &name[..end.unwrap_or(name.len())]
}

/// Numbers that are learned.
pub fn count<'a>(parameters: impl IntoIterator<Item = &'a Parameter>) -> u64 {
    parameters.into_iter().filter(|p| p.learned).map(|p| p.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_are_layers_with_their_branch() {
        for (name, want) in [
            ("layers.0.attention.query.weight", "layers.0.attention"),
            ("encoder.layers.11.feed_forward.norm.gain", "encoder.layers.11.feed_forward"),
            ("layers.2.attention.W", "layers.2.attention"),
            ("embedding.weight", "embedding"),
            ("decoder.norm.bias", "decoder.norm"),
            ("head", "head"),
        ] {
            assert_eq!(part(name), want);
        }
    }
}
