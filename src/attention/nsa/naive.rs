//! The paper's equations, query by query.

use super::*;
use crate::graph::Real;
use crate::reference::{At, is_real_key, is_real_query};

type Row<R> = Vec<R>;

/// Sections 3.1 to 3.3.
pub fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let (n, dim) = (s.length, s.dim);
    let at = At { heads: s.heads, rows: n, cols: dim };
    let Choice { length, stride, block, count, group } = choice(s);
    let tensor = |name: &str, shared: &Vec<R>| x.extras.get(name).unwrap_or(shared).clone();
    let keys = BRANCHES.map(|[k, _]| tensor(k, &x.k));
    let values = BRANCHES.map(|[_, v]| tensor(v, &x.v));
    let row = |of: &[R], b: usize, h: usize, i: usize| of[at.index(b, h, i, 0)..][..dim].to_vec();
    let mut out = vec![R::zero(); s.instances() * n * dim];
    for b in 0..s.batch {
        let is_real = |j: usize| is_real_key(x, s, b, j);
        // Block c of l tokens from c d on: nothing where all of them are padding.
        let compress = |of: &[R], phi: &str, h: usize, c: usize| -> Option<Row<R>> {
            let mut sum = vec![R::zero(); dim];
            for t in (0..length).filter(|&t| is_real(c * stride + t)) {
                let weight = match x.extras.get(phi) {
                    Some(phi) => phi[h * length + t],
                    None => R::one() / R::from_f64(length as f64),
                };
                let token = row(of, b, h, c * stride + t);
                sum.iter_mut().zip(token).for_each(|(sum, x)| *sum += weight * x);
            }
            (0..length).any(|t| is_real(c * stride + t)).then_some(sum)
        };
        let summaries: Vec<Vec<Option<[Row<R>; 2]>>> = (0..s.heads)
            .map(|h| {
                let ends = (0..).map(|c| c * stride + length).take_while(|&end| end <= n);
                let both = |c| Some([compress(&keys[0], "phi_k", h, c)?, compress(&values[0], "phi_v", h, c)?]);
                ends.enumerate().map(|(c, _)| both(c)).collect()
            })
            .collect();
        for (list, first) in (0..s.heads).step_by(group).enumerate() {
            let members = first..(first + group).min(s.heads);
            for i in (0..n).filter(|&i| is_real_query(x, s, b, i)) {
                let mut importance = vec![0.0; n];
                for h in members.clone() {
                    let q = row(&x.q, b, h, i);
                    let seen: Vec<(usize, &[Row<R>; 2])> = (summaries[h].iter().enumerate())
                        .filter(|(c, _)| c * stride + length - 1 <= i)
                        .filter_map(|(c, summary)| Some((c, summary.as_ref()?)))
                        .collect();
                    let weights = softmax(&q, seen.iter().map(|(_, [k, _])| k));
                    for ((c, _), weight) in seen.iter().zip(&weights) {
                        importance[*c] += weight.to_f64();
                    }
                    let gate = sigmoid(x.extras["gates"][(at.index(b, h, i, 0) / dim) * 3]);
                    mix(&mut out[at.index(b, h, i, 0)..][..dim], gate, &weights, seen.iter().map(|(_, [_, v])| v));
                }
                // Tokens that a compressed block and a block to choose have in common, over the stride.
                let score = |u: usize| -> f64 {
                    if let Some(lots) = x.extras.get("lots") {
                        return lots[(list * n + i) * n.div_ceil(block) + u].to_f64();
                    }
                    let common = |c: usize| {
                        let tokens = (c * stride..c * stride + length).filter(|t| t / block == u).count();
                        tokens as f64 / stride as f64
                    };
                    (0..summaries[first].len()).map(|c| importance[c] * common(c)).sum()
                };
                let own = i / block;
                let mut chosen: Vec<usize> = (0..=own).filter(|&u| u == 0 || u + 1 >= own).collect();
                let mut others: Vec<usize> = (0..=own).filter(|u| !chosen.contains(u)).collect();
                let scores: Vec<f64> = (0..=own).map(score).collect();
                others.sort_by(|&u, &v| scores[v].total_cmp(&scores[u]));
                others.truncate(count - chosen.len().min(count));
                chosen.extend(others);
                let in_block = |j: &usize| chosen.contains(&(j / block));
                let in_window = |j: &usize| j + s.int(&WINDOW) > i;
                for h in members.clone() {
                    let q = row(&x.q, b, h, i);
                    let tests: [&dyn Fn(&usize) -> bool; 2] = [&in_block, &in_window];
                    for (branch, test) in (1..).zip(tests) {
                        let seen: Vec<usize> = (0..=i).filter(|j| is_real(*j) && test(j)).collect();
                        let of = |from: &[R]| -> Vec<Row<R>> { seen.iter().map(|&j| row(from, b, h, j)).collect() };
                        let weights = softmax(&q, of(&keys[branch]).iter());
                        let gate = sigmoid(x.extras["gates"][(at.index(b, h, i, 0) / dim) * 3 + branch]);
                        mix(&mut out[at.index(b, h, i, 0)..][..dim], gate, &weights, of(&values[branch]).iter());
                    }
                }
            }
        }
    }
    out
}

fn sigmoid<R: Real>(x: R) -> R {
    R::one() / (R::one() + (-x).exp())
}

/// Weights of some keys: `softmax(q·k / √D)`.
fn softmax<'a, R: Real>(q: &[R], keys: impl Iterator<Item = &'a Row<R>>) -> Vec<R> {
    let scale = R::one() / R::from_f64(q.len() as f64).sqrt();
    let dot = |k: &Row<R>| q.iter().zip(k).fold(R::zero(), |dot, (&a, &b)| dot + a * b) * scale;
    let scores: Vec<R> = keys.map(dot).collect();
    let largest = R::from_f64(scores.iter().map(|s| s.to_f64()).fold(f64::NEG_INFINITY, f64::max));
    let weights: Vec<R> = scores.into_iter().map(|score| (score - largest).exp()).collect();
    let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
    weights.into_iter().map(|w| w / sum).collect()
}

/// `out += gate Σ weight v`.
fn mix<'a, R: Real>(out: &mut [R], gate: R, weights: &[R], values: impl Iterator<Item = &'a Row<R>>) {
    for (&weight, value) in weights.iter().zip(values) {
        out.iter_mut().zip(value).for_each(|(out, &v)| *out += gate * weight * v);
    }
}
