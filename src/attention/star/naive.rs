//! One cycle of the Star-Transformer by its definition.

use super::{NEIGHBOURS, RADIUS, RELAY, slots};
use crate::attention::{Inputs, Setup};
use crate::graph::Real;
use crate::reference::{At, is_real_key};

/// Attention of one query to some keys and values, by the definition.
fn attend<R: Real>(q: &[R], context: &[(Vec<R>, Vec<R>)]) -> Vec<R> {
    let scale = R::one() / R::from_f64(q.len() as f64).sqrt();
    let dot = |k: &[R]| q.iter().zip(k).fold(R::zero(), |sum, (&a, &b)| sum + a * b) * scale;
    let scores: Vec<R> = context.iter().map(|(k, _)| dot(k)).collect();
    let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
    let weights: Vec<R> = scores.iter().map(|&s| (s - largest).exp()).collect();
    let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
    let mix = |d: usize| context.iter().zip(&weights).fold(R::zero(), |mixed, ((_, v), &w)| mixed + w / sum * v[d]);
    (0..context[0].1.len()).map(mix).collect()
}

/// The relay's update, then the satellites'.
pub fn star<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let at = At { heads: s.heads, rows: s.length, cols: s.dim };
    let one = At { rows: 1, ..at };
    let (radius, kind) = (s.int(&RADIUS), s.choice(&RELAY));
    let drawn = (s.choice(&NEIGHBOURS) == "random").then(|| slots(s));
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        let real: Vec<usize> = (0..s.length).filter(|&j| is_real_key(x, s, b, j)).collect();
        let count = R::from_f64(real.len().max(1) as f64);
        for h in 0..s.heads {
            let row = |t: &[R], i: usize| t[at.index(b, h, i, 0)..][..s.dim].to_vec();
            let state = |name: &str, tokens: &[R]| match x.extras.get(name) {
                Some(given) => given[one.index(b, h, 0, 0)..][..s.dim].to_vec(),
                None => (0..s.dim)
                    .map(|d| real.iter().fold(R::zero(), |sum, &j| sum + tokens[at.index(b, h, j, d)]) / count)
                    .collect(),
            };
            let relay = (kind != "none").then(|| {
                let before = (state("k_relay", &x.k), state("v_relay", &x.v));
                if kind == "mean" {
                    return before;
                }
                // Key and value are both mixes by the same weights.
                let both = |(k, v): &(Vec<R>, Vec<R>)| (k.clone(), [k.clone(), v.clone()].concat());
                let mut context = vec![both(&before)];
                context.extend(real.iter().map(|&j| both(&(row(&x.k, j), row(&x.v, j)))));
                let mixed = attend(&state("q_relay", &x.q), &context);
                (mixed[..s.dim].to_vec(), mixed[s.dim..].to_vec())
            });
            for (place, &i) in real.iter().enumerate() {
                let mut ring: Vec<usize> = match &drawn {
                    Some(slots) => slots[h * s.length + i].iter().map(|&j| j as usize).filter(|j| real.contains(j)).collect(),
                    None => (0..=2 * radius).map(|t| real[(place + t + radius * (real.len() - 1)) % real.len()]).collect(),
                };
                ring.sort_unstable();
                ring.dedup();
                let mut context: Vec<_> = ring.into_iter().map(|j| (row(&x.k, j), row(&x.v, j))).collect();
                let embedding = |name: &str, own| row(x.extras.get(name).unwrap_or(own), i);
                context.push((embedding("k_embedding", &x.k), embedding("v_embedding", &x.v)));
                context.extend(relay.clone());
                let mixed = attend(&row(&x.q, i), &context);
                out[at.index(b, h, i, 0)..][..s.dim].copy_from_slice(&mixed);
            }
        }
    }
    out
}
