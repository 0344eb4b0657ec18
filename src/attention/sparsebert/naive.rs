//! Attention under a tossed or a fixed mask by the definition.

use super::{DIAGONAL, EPSILON, FORM, TEMPERATURE, by_pair, distances, is_deployed, keys};
use crate::attention::{Inputs, Setup};
use crate::graph::Real;
use crate::reference::{At, is_real_key, is_real_query, softmax_attention_by_head};

/// Weights `M e^s` where the mask is hard, `(M + ε) e^s` in the log form; each M has the value of the toss and the slope of
/// the soft mask. Where it is 0 in the additive form, `e^(-10⁴)` is 0 as well.
pub fn sparsebert<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    if is_deployed(s) {
        let keys = keys(s);
        return softmax_attention_by_head(x, s, |h, i, j| keys[h * s.length + i].contains(&(j as u32)));
    }
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let rows = At { heads: s.heads, rows: s.keys, cols: s.dim };
    let scale = R::one() / R::from_f64(s.dim as f64).sqrt();
    let is_log = s.choice(&FORM) == "log";
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let position = i as i64 + s.keys as i64 - s.length as i64;
                let mut terms = Vec::new();
                for j in (0..s.keys).filter(|&j| is_real_key(x, s, b, j)) {
                    let behind = position - j as i64;
                    if (s.causal && behind < 0) || (behind == 0 && !s.bool(&DIAGONAL)) {
                        continue;
                    }
                    let at = if by_pair(s) { i * s.keys + j } else { behind.unsigned_abs() as usize };
                    let count = if by_pair(s) { s.length * s.keys } else { distances(s) };
                    let mask = tossed(x, s, h * count + at);
                    let factor = if is_log {
                        mask + R::from_f64(EPSILON)
                    } else {
                        ((mask - R::one()) * R::from_f64(1e4)).exp()
                    };
                    if factor.to_f64() == 0.0 {
                        continue;
                    }
                    let dot = (0..s.dim).fold(R::zero(), |dot, d| {
                        dot + x.q[queries.index(b, h, i, d)] * x.k[rows.index(b, h, j, d)]
                    });
                    terms.push((j, factor, dot * scale));
                }
                let largest = terms.iter().map(|t| t.2.to_f64()).fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<R> =
                    terms.iter().map(|&(_, factor, score)| factor * (score - R::from_f64(largest)).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                for (&(j, ..), &w) in terms.iter().zip(&weights) {
                    for d in 0..s.dim {
                        out[queries.index(b, h, i, d)] += w / sum * x.v[rows.index(b, h, j, d)];
                    }
                }
            }
        }
    }
    out
}

/// One number of the mask: the value of the toss, with the slope of the soft mask.
fn tossed<R: Real>(x: &Inputs<Vec<R>>, s: &Setup, at: usize) -> R {
    let temperature = R::from_f64(s.int(&TEMPERATURE) as f64 / 100.0);
    let lot = (x.extras["logits"][at] + x.extras["noise"][at]) / temperature;
    let soft = R::one() / (R::one() + (-lot).exp());
    let hard = if soft.to_f64() > 0.5 { 1.0 } else { 0.0 };
    soft + R::from_f64(hard - soft.to_f64())
}

/// |M|₁.
pub fn kept_pairs<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> R {
    let count = x.extras.get("logits").map_or(0, Vec::len);
    (0..count).fold(R::zero(), |sum, at| sum + tossed(x, s, at))
}
