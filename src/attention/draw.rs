//! Extra tensors: what a variant reads besides q, k and v, and how it is drawn when nobody gives it.

use crate::random;
use std::sync::Arc;

/// How an extra tensor is drawn when the caller does not give it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Zeros,
    /// Uniform on ±bound.
    Uniform(f32),
    /// Normal with this standard deviation.
    Normal(f32),
    /// The difference of two Gumbel numbers: standard logistic.
    Logistic,
    /// Rows of standard normal length whose directions are uniform on the sphere and, in each run of as many rows as a row
    /// has elements, orthogonal to each other.
    Orthogonal,
    /// Not an input of the graph but what it is built from ([`super::Structure::given`]): whole numbers below this one, or -1
    /// for none ([`NONE`]). Drawn by the variant where it is not given.
    Structure {
        below: u32,
    },
    /// The same of 1 and 0, bytes in files: which query may look at which key. What heads or texts share may be left out in
    /// front. A parameter stands in for it where it is not given.
    Mask,
}

/// What stands for -1 in a structure.
pub const NONE: u32 = u32::MAX;

/// A tensor that a variant reads besides q, k and v: whatever would be learned or drawn.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Also its name in files; its gradient is `d<name>`.
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub role: &'static str,
    pub differentiable: bool,
    /// Only read where it is given; otherwise it is drawn.
    pub optional: bool,
    pub init: Init,
}

impl Extra {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_structure(&self) -> bool {
        matches!(self.init, Init::Structure { .. } | Init::Mask)
    }

    /// The type of its elements in files.
    pub fn file_dtype(&self) -> &'static str {
        if self.init == Init::Mask { "U8" } else { "F32" }
    }

    /// Whether it is taken in this shape.
    pub fn takes_shape(&self, shape: &[usize]) -> bool {
        let shared = self.init == Init::Mask && (2..=4).contains(&shape.len()) && self.shape.ends_with(shape);
        shared || self.shape == shape
    }

    /// Whether it is taken with so many values.
    fn takes_count(&self, count: usize) -> bool {
        let shapes = (0..self.shape.len()).map(|front| &self.shape[front..]);
        shapes.into_iter().any(|shape| self.takes_shape(shape) && shape.iter().product::<usize>() == count)
    }

    /// The values of a structure as they are kept, from those of a file.
    ///
    /// # Errors
    /// What is not taken, in words.
    pub fn structure_of(&self, values: &[f32]) -> Result<Arc<[u32]>, String> {
        let below = match self.init {
            Init::Structure { below } => below,
            Init::Mask => 2,
            _ => return Err(format!("{} is no structure", self.name)),
        };
        if !self.takes_count(values.len()) {
            return Err(format!("{} holds {} numbers; it takes the shape {:?}", self.name, values.len(), self.shape));
        }
        let none = self.init != Init::Mask;
        let word = |&x: &f32| match x {
            -1.0 if none => Ok(NONE),
            x if x >= 0.0 && x.fract() == 0.0 && x < below as f32 => Ok(x as u32),
            x if none => Err(format!("{} holds {x}; it takes whole numbers below {below}, or -1 for none", self.name)),
            x => Err(format!("{} holds {x}; it takes 1 and 0", self.name)),
        };
        values.iter().map(word).collect()
    }

    /// Values from the seed: a pure function of seed, name and element index, so that every back end and every run gets the
    /// same tensor.
    pub fn draw(&self, seed: u64) -> Vec<f32> {
        let stream = random::stream(self.name);
        let indices = 0..self.len() as u64;
        match self.init {
            Init::Zeros | Init::Structure { .. } | Init::Mask => vec![0.0; self.len()],
            Init::Uniform(bound) => {
                indices.map(|i| (2.0 * random::uniform(seed, stream, i) - 1.0) as f32 * bound).collect()
            }
            Init::Normal(deviation) => indices.map(|i| random::normal(seed, stream, i) as f32 * deviation).collect(),
            Init::Logistic => {
                let logit = |u: f64| (u / (1.0 - u)).ln();
                indices.map(|i| logit(random::uniform(seed, stream, i)) as f32).collect()
            }
            Init::Orthogonal => self.draw_orthogonal(seed, stream),
        }
    }

    fn draw_orthogonal(&self, seed: u64, stream: u64) -> Vec<f32> {
        let dim = self.shape.last().copied().unwrap_or(1).max(1);
        // The lengths are those of other normal vectors: a row's own length and direction are independent.
        let lengths = !stream;
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for row in 0..self.len() / dim {
            let at = |column: usize| (row * dim + column) as u64;
            let mut direction: Vec<f64> = (0..dim).map(|c| random::normal(seed, stream, at(c))).collect();
            // Gram and Schmidt, twice: once leaves rounding errors where little remains.
            for _ in 0..2 {
                for other in &rows[row / dim * dim..] {
                    let dot: f64 = other.iter().zip(&direction).map(|(a, b)| a * b).sum();
                    direction.iter_mut().zip(other).for_each(|(x, o)| *x -= dot * o);
                }
            }
            let norm = length(direction.iter().copied());
            rows.push(direction.into_iter().map(|x| x / norm).collect());
        }
        let scaled = rows.iter().enumerate().flat_map(|(row, direction)| {
            let length = length((0..dim).map(|c| random::normal(seed, lengths, (row * dim + c) as u64)));
            direction.iter().map(move |x| (x * length) as f32)
        });
        scaled.collect()
    }
}

/// Euclidean length.
fn length(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// A stream of whole numbers, a pure function of a seed and what else it is made from.
pub(super) struct Stream {
    seed: u64,
    stream: u64,
    counter: u64,
}

impl Stream {
    pub fn new(seed: u64, name: &str, parts: &[usize]) -> Self {
        let seed = parts.iter().fold(seed, |seed, &part| random::bits(seed, part as u64, 0));
        Self { seed, stream: random::stream(name), counter: 0 }
    }

    /// The next number, uniform on `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.counter += 1;
        random::below(self.seed, self.stream, self.counter, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(name: &'static str, init: Init, seed: u64) -> Vec<f32> {
        Extra { name, shape: vec![100, 100], role: "", differentiable: false, optional: false, init }.draw(seed)
    }

    #[test]
    fn moments_fit_the_distribution() {
        for (init, deviation) in [
            (Init::Uniform(0.5), 0.5 / 3f64.sqrt()),
            (Init::Normal(2.0), 2.0),
            (Init::Logistic, std::f64::consts::PI / 3f64.sqrt()),
        ] {
            let x = drawn("E", init, 3);
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / x.len() as f64;
            assert!(mean.abs() < 0.04 * deviation, "{mean}");
            assert!((variance.sqrt() / deviation - 1.0).abs() < 0.03, "{variance}");
        }
    }

    #[test]
    fn orthogonal_rows_are_so_and_as_long_as_normal_ones() {
        let (rows, dim) = (600, 20);
        let init = Init::Orthogonal;
        let x =
            Extra { name: "W", shape: vec![rows, dim], role: "", differentiable: false, optional: false, init }.draw(5);
        let row = |r: usize| &x[r * dim..(r + 1) * dim];
        let dot = |a: usize, b: usize| row(a).iter().zip(row(b)).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        for (a, b) in [(0, 1), (3, 19), (20, 39), (595, 598)] {
            assert!(dot(a, b).abs() < 1e-5, "rows {a} and {b}: {}", dot(a, b));
        }
        let moment = (0..rows).map(|r| dot(r, r)).sum::<f64>() / (rows * dim) as f64;
        assert!((moment - 1.0).abs() < 0.05, "{moment}");
        // Directions without a preferred side: the published package's have a mean of -0.05 here.
        for column in 0..dim {
            let mean = (0..rows).map(|r| f64::from(row(r)[column])).sum::<f64>() / rows as f64;
            assert!(mean.abs() < 4.0 / (rows as f64).sqrt(), "column {column}: {mean}");
        }
    }

    #[test]
    fn seed_and_name_make_the_tensor() {
        let x = drawn("E", Init::Normal(1.0), 3);
        assert_eq!(x, drawn("E", Init::Normal(1.0), 3));
        assert_ne!(x, drawn("F", Init::Normal(1.0), 3));
        assert_ne!(x, drawn("E", Init::Normal(1.0), 4));
    }
}
