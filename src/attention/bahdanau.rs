//! Bahdanau's additive attention: the score of a query and a key is a small network of both.
//!
//! `e_ij = v_aᵀ tanh(W_a q_i + U_a k_j)`, `α_i = softmax(e_i)`, `o_i = Σ_j α_ij v_j`; there is no 1/√D.
//!
//! Bahdanau, Cho and Bengio, 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", arXiv:1409.0473,
//! section 3.1 and appendix A.1.2. Time O(N² A), with A units of the network; memory O(N), since scores are made for a strip of
//! queries at a time and again in the backward pass. Differs from the paper: all queries are known, where the paper's decoder
//! makes one after the other, so that it is comparable with the other methods; each head has a network; causal as an option.
//! Computed as `tanh(a + b) = 1 - 2 / (1 + e^2a e^2b)`, which needs an exponential for each token in place of each pair, and
//! with W_a q and U_a k held within ±21, beyond which a tanh of either alone is ±1 in this precision.

use super::{
    Causal, Effective, Extra, Family, Init, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant, strips,
};
use crate::graph::ops::strip_attention::{Keys, Normaliser, Score, StripInputs};
use crate::graph::{Data, Graph, Node, Real};
use crate::reference::{At, is_real_key, is_real_query};

const UNITS: Param = Param {
    name: "units",
    kind: ParamKind::Int { min: 1, max: 1024, default: |_| 64 },
    meaning: "Units A of the network that scores a pair; cost grows with it as that of dot products does with D.",
};

/// Largest size of W_a q and of U_a k: the product of two exponentials must stay a number.
const LARGEST: f32 = 21.0;

pub static VARIANT: Variant = Variant {
    id: "bahdanau",
    name: "Additive attention",
    family: Family::Full,
    paper: Paper {
        title: "Neural Machine Translation by Jointly Learning to Align and Translate",
        authors: "Bahdanau et al.",
        year: 2015,
        arxiv: "1409.0473",
    },
    summary: "The first attention: a decoder that writes a translation looks back at every word of the source and weighs it \
              by a small network with one hidden layer. Every pair of a query and a key goes through that network, one tanh \
              for each unit, which costs far more than the dot product that transformers use in its place, and grows with \
              the square of the length alike. Use it to see where attention came from; dot products do as well for less.",
    complexity: "O(N^2 A) time, O(N) memory",
    exponent: 2.0,
    exact: false,
    causal: Causal::Both,
    params: &[UNITS],
    extras,
    check: |_| Ok(()),
    largest: |s| strips::largest(s, s.keys),
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};


fn extras(s: &Setup) -> Vec<Extra> {
    let (h, d, units) = (s.heads, s.dim, s.int(&UNITS));
    let learned = |name, shape, role, fan_in: usize| {
        let init = Init::Normal(1.0 / (fan_in as f32).sqrt());
        Extra { name, shape, role, differentiable: true, optional: false, init }
    };
    vec![
        learned("W_a", vec![h, units, d], "what the network reads of a query", d),
        learned("U_a", vec![h, units, d], "what it reads of a key", d),
        learned("v_a", vec![h, units], "makes a score of its units", units),
    ]
}

/// e^2x of both sides of the network.
fn inputs(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> StripInputs {
    let (left, right) = g.stage("project", |g| {
        let sides = [(x.q, "W_a"), (x.k, "U_a")].map(|(tokens, weights)| {
            let units = g.matmul_nt(tokens, x.extras[weights], 1.0);
            let [least, most] = [-LARGEST, LARGEST].map(|x| g.constant(&[1], Data::Real(vec![x])));
            let units = g.maximum(units, least);
            let units = g.minimum(units, most);
            let twice = g.scale(units, 2.0);
            g.exp(twice)
        });
        (sides[0], sides[1])
    });
    let real = strips::real(g, x, s);
    StripInputs { weights: Some(x.extras["v_a"]), real, ..StripInputs::new(left, right, x.v) }
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let inputs = inputs(g, x, s);
    let keys = Keys::All { causal: s.causal };
    let out = g.stage("attend", |g| g.strip_attention(inputs, Score::Additive, Normaliser::Softmax, keys));
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let inputs = inputs(g, x, s);
    let keys = Keys::All { causal: s.causal };
    let weights = g.strip_weights(inputs, Score::Additive, Normaliser::Softmax, keys);
    strips::cells(x, s, weights)
}

/// Straight from section 3.1 and appendix A.1.2.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let units = s.int(&UNITS);
    let queries = At { heads: s.heads, rows: s.length, cols: s.dim };
    let keys = At { heads: s.heads, rows: s.keys, cols: s.dim };
    // What the network reads of one token.
    let read = |weights: &[R], h: usize, token: &[R]| -> Vec<R> {
        let rows = weights[h * units * s.dim..][..units * s.dim].chunks(s.dim);
        rows.map(|row| row.iter().zip(token).fold(R::zero(), |sum, (&w, &x)| sum + w * x)).collect()
    };
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            let scale = &x.extras["v_a"][h * units..][..units];
            let of_keys: Vec<Vec<R>> = (0..s.keys)
                .map(|j| read(&x.extras["U_a"], h, &x.k[keys.index(b, h, j, 0)..][..s.dim]))
                .collect();
            for i in (0..s.length).filter(|&i| is_real_query(x, s, b, i)) {
                let of_query = read(&x.extras["W_a"], h, &x.q[queries.index(b, h, i, 0)..][..s.dim]);
                let allowed = |j: usize| !s.causal || j + s.length <= i + s.keys;
                let visible: Vec<usize> = (0..s.keys).filter(|&j| allowed(j) && is_real_key(x, s, b, j)).collect();
                let energies: Vec<R> = visible
                    .iter()
                    .map(|&j| {
                        (0..units).fold(R::zero(), |sum, a| {
                            sum + scale[a] * (of_query[a] + of_keys[j][a]).tanh()
                        })
                    })
                    .collect();
                let largest = R::from_f64(energies.iter().map(|e| e.to_f64()).fold(f64::NEG_INFINITY, f64::max));
                let weights: Vec<R> = energies.iter().map(|&e| (e - largest).exp()).collect();
                let sum = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                for (&j, &weight) in visible.iter().zip(&weights) {
                    for d in 0..s.dim {
                        out[queries.index(b, h, i, d)] += weight / sum * x.v[keys.index(b, h, j, d)];
                    }
                }
            }
        }
    }
    out
}
