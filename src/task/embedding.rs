//! Queries, keys and values from tokens without a trained model: a seeded embedding of each token, the sinusoidal positions
//! of Vaswani et al., 2017 (arXiv:1706.03762, 3.5), and seeded projections for each head.
//!
//! Nothing here is learned, and a face that shows the result says so. To make a picture in which something can be seen, a
//! head's key projection is correlated with its query projection: equal words then attend to each other, and near positions
//! somewhat, as they do in many trained heads.

use crate::graph::{Float, Matrix};
use crate::random::{bits, normal};
use std::collections::HashMap;

/// Width of the embedding. Fixed, so that the cost of the projections is linear in heads and head dimension.
pub const WIDTH: usize = 64;

/// Correlation of key and query projection.
const ALIKE: f64 = 0.5;

/// Root mean square of q and k: scores of unlike tokens then have a standard deviation of its square.
const SPREAD: f64 = 1.25;

/// q, k, v, each `[B, H, N, D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Qkv {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// Shapes of [`embed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub batch: usize,
    pub heads: usize,
    pub dim: usize,
    /// Layers differ in their projections.
    pub layer: usize,
}

/// Queries, keys and values of tokens given by id; N is their number. Element b of the batch reads the tokens from the
/// 17·b-th on, begun again at the end.
pub fn embed(ids: &[u32], shape: Shape, seed: u64) -> Qkv {
    embed_heads(ids, shape, 0..shape.heads, seed)
}

/// The same of some of the heads only, `[B, chosen heads, N, D]`.
pub fn embed_heads(ids: &[u32], shape: Shape, chosen: std::ops::Range<usize>, seed: u64) -> Qkv {
    let Shape { batch, dim, layer, .. } = shape;
    let (n, heads) = (ids.len(), chosen.len());
    let size = batch * heads * n * dim;
    let mut out = Qkv { q: vec![0.0; size], k: vec![0.0; size], v: vec![0.0; size] };
    if size == 0 {
        return out;
    }
    let projections: Vec<[Vec<f32>; 3]> = chosen.map(|h| projections(seed, layer, h, dim)).collect();
    for b in 0..batch {
        let x = states(ids, 17 * b % n, seed);
        let x = Matrix::new(&x, n, WIDTH);
        for (h, [wq, wk, wv]) in projections.iter().enumerate() {
            let at = (b * heads + h) * n * dim;
            for (w, c) in [(wq, &mut out.q), (wk, &mut out.k), (wv, &mut out.v)] {
                f32::gemm(x, Matrix::new(w, WIDTH, dim), &mut c[at..at + n * dim], 1.0, false);
            }
        }
    }
    out
}

/// Token and position, `[N, WIDTH]`, elements of mean square 1.
fn states(ids: &[u32], start: usize, seed: u64) -> Vec<f32> {
    let n = ids.len();
    let mut vectors: HashMap<u32, Vec<f32>> = HashMap::new();
    let mut x = Vec::with_capacity(n * WIDTH);
    for i in 0..n {
        let id = ids[(i + start) % n];
        let token = vectors.entry(id).or_insert_with(|| {
            let key = bits(seed, 1, id.into());
            (0..WIDTH).map(|c| (normal(key, 2, c as u64) * std::f64::consts::FRAC_1_SQRT_2) as f32).collect()
        });
        for (c, &t) in token.iter().enumerate() {
            let angle = i as f64 / 10_000f64.powf((c / 2 * 2) as f64 / WIDTH as f64);
            // A sine has mean square 1/2, the share of a position.
            let position = if c % 2 == 0 { angle.sin() } else { angle.cos() };
            x.push(t + position as f32);
        }
    }
    x
}

/// Query, key and value projection of one head, each `[WIDTH, D]`.
fn projections(seed: u64, layer: usize, head: usize, dim: usize) -> [Vec<f32>; 3] {
    let key = bits(seed, 3, (layer as u64) << 32 | head as u64);
    let scale = 1.0 / (WIDTH as f64).sqrt();
    let draw = |stream: u64, i: usize| normal(key, stream, i as u64) * scale;
    let other = (1.0 - ALIKE * ALIKE).sqrt();
    let entries = 0..WIDTH * dim;
    [
        entries.clone().map(|i| (SPREAD * draw(0, i)) as f32).collect(),
        entries.clone().map(|i| (SPREAD * (ALIKE * draw(0, i) + other * draw(1, i))) as f32).collect(),
        entries.map(|i| draw(2, i) as f32).collect(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::text::{Split, Tokens};

    const SHAPE: Shape = Shape { batch: 2, heads: 3, dim: 32, layer: 0 };

    fn rms(x: &[f32]) -> f64 {
        (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
    }

    #[test]
    fn embed_is_deterministic_and_of_the_stated_size() {
        let ids = Tokens::of_length(None, Split::Words, 200).ids;
        let x = embed(&ids, SHAPE, 1);
        assert_eq!(x.q.len(), 2 * 3 * 200 * 32);
        assert_eq!(x, embed(&ids, SHAPE, 1));
        assert_ne!(x, embed(&ids, SHAPE, 2));
        assert_ne!(x, embed(&ids, Shape { layer: 1, ..SHAPE }, 1));
        for (name, t, want) in [("q", &x.q, SPREAD), ("k", &x.k, SPREAD), ("v", &x.v, 1.0)] {
            let ratio = rms(t) / want;
            assert!((0.8..1.25).contains(&ratio), "{name}: rms {}", rms(t));
        }
    }

    #[test]
    fn equal_words_score_higher_than_others() {
        let tokens = Tokens::of_length(None, Split::Words, 256);
        let shape = Shape { batch: 1, heads: 4, dim: 64, layer: 0 };
        let x = embed(&tokens.ids, shape, 1);
        let (mut same, mut other) = ((0.0, 0), (0.0, 0));
        for h in 0..4 {
            for i in 0..256 {
                for j in (0..256).filter(|&j| j != i) {
                    let at = |t: usize| (h * 256 + t) * 64..(h * 256 + t + 1) * 64;
                    let dot: f32 = x.q[at(i)].iter().zip(&x.k[at(j)]).map(|(a, b)| a * b).sum();
                    let sum = if tokens.ids[i] == tokens.ids[j] { &mut same } else { &mut other };
                    sum.0 += f64::from(dot) / 8.0;
                    sum.1 += 1;
                }
            }
        }
        let (same, other) = (same.0 / same.1 as f64, other.0 / other.1 as f64);
        assert!(same > other + 1.0, "equal words score {same}, others {other}");
    }

    #[test]
    fn a_head_alone_is_the_same_as_among_all() {
        let ids: Vec<u32> = (0..40).collect();
        let shape = Shape { batch: 1, ..SHAPE };
        let (all, one) = (embed(&ids, shape, 1), embed_heads(&ids, shape, 2..3, 1));
        let size = 40 * 32;
        assert_eq!((&all.q[2 * size..], &all.k[2 * size..], &all.v[2 * size..]), (&one.q[..], &one.k[..], &one.v[..]));
    }

    #[test]
    fn batches_read_on_and_no_tokens_give_nothing() {
        let ids: Vec<u32> = (0..50).collect();
        let x = embed(&ids, SHAPE, 1);
        assert_ne!(x.q[..3 * 50 * 32], x.q[3 * 50 * 32..]);
        assert!(embed(&[], SHAPE, 1).q.is_empty());
    }
}
