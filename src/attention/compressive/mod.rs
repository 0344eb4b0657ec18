//! Compressive Transformer: what leaves the memory of Transformer-XL is not forgotten but compressed, c tokens to one slot.
//!
//! A segment of n_s tokens sees the newest n_cm compressed slots, the last n_m tokens, and itself up to each query. Behind it,
//! the n_s oldest tokens of the memory become ⌊n_s / c⌋ slots, the newest at the end. Scores are those of Transformer-XL, with
//! distances counted in keys: a slot is one step. Everything that is remembered is constant.
//!
//! Rae et al., 2020, "Compressive Transformers for Long-Range Sequence Modelling", arXiv:1911.05507, section 3 and algorithm 1.
//! Time O(N (n_s + n_m + n_cm) D), memory O(N). Differs from the paper: memories begin empty and not full of zeros; keys and
//! values are compressed, not a layer's inputs; the convolution has one kernel for a head, the same for all components, so that
//! a slot stays a weighted sum of tokens; the other compressions of the paper are left out. Padded tokens count as zeros, and a
//! slot of nothing else is no key.

mod reconstruction;

use super::transformer_xl::{self, constant};
use super::{
    Causal, Decision, Effective, Extra, Family, Form, Init, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant,
    lots, strips,
};
use crate::graph::ops::strip_attention::{Keys, Normaliser, Score, Slots, StripInputs};
use crate::graph::{Data, Graph, Node, Real};
use crate::reference::{At, is_real_key, is_real_query};
use std::collections::VecDeque;

pub(super) const SEGMENT: Param = Param {
    name: "segment",
    kind: ParamKind::Int { min: 1, max: 4096, default: |n| (n / 8).clamp(16, 512) as u32 },
    meaning: "Tokens n_s of a segment; the paper takes 512 to 768.",
};

const MEMORY: Param = Param {
    name: "memory_segments",
    kind: ParamKind::Int { min: 0, max: 32, default: |_| 1 },
    meaning: "Segments in front that are remembered token by token; n_m is that many times n_s, one in the paper.",
};

const COMPRESSED: Param = Param {
    name: "compressed",
    kind: ParamKind::Int { min: 0, max: 8192, default: |n| (n / 8).clamp(16, 512) as u32 },
    meaning: "Compressed slots n_cm that are remembered; the paper takes as many as a segment has tokens, or some more.",
};

const RATE: Param = Param {
    name: "rate",
    kind: ParamKind::Int { min: 1, max: 64, default: |_| 3 },
    meaning: "Tokens c that become one slot; the paper takes 2 to 4.",
};

const COMPRESS: Param = Param {
    name: "compress",
    kind: ParamKind::Choice { options: &["mean", "conv", "random"], default: "mean" },
    meaning: "How c tokens become one: mean takes their average, conv weighs them by a kernel, random takes one of them by lot, to \
              see whether mixing matters.",
};

pub static VARIANT: Variant = Variant {
    id: "compressive",
    name: "Compressive Transformer",
    family: Family::Recurrent,
    paper: Paper {
        title: "Compressive Transformers for Long-Range Sequence Modelling",
        authors: "Rae et al.",
        year: 2020,
        arxiv: "1911.05507",
    },
    summary: "Transformer-XL with a second memory: tokens that are too old for the first are compressed, a few to one slot, \
              and kept for much longer. Recent things are remembered exactly and old things roughly, as people do. Cost \
              grows with the length times segment and memories. Use it for books and other texts in which something from \
              long ago still matters; where exact words from long ago matter, the compression has lost them, and it only \
              looks backwards.",
    complexity: "O(N (n_s + n_m + n_cm) D) time, O(n_m + n_cm) state",
    exponent: 1.0,
    exact: false,
    causal: Causal::Always,
    params: &[SEGMENT, MEMORY, COMPRESSED, RATE, COMPRESS],
    extras,
    check: transformer_xl::check,
    largest: |s| strips::largest(s, sizes(s).reach),
    graph,
    effective,
    rule: |_| None,
    blocks: |_| None,
    loss: Some(&reconstruction::LOSS),
    decide: Some(decide),
    reference: Reference::new(naive, naive),
};

fn extras(s: &Setup) -> Vec<Extra> {
    let mut extras = transformer_xl::extras(s);
    if s.choice(&COMPRESS) == "conv" {
        let rate = s.int(&RATE);
        extras.push(Extra {
            name: "kernel",
            shape: vec![s.heads, rate],
            role: "weights of the tokens that become one slot, oldest first",
            differentiable: true,
            optional: false,
            init: Init::Uniform(1.0 / (rate as f32).sqrt()),
        });
    }
    if s.choice(&COMPRESS) == "random" {
        extras.push(lots::extra(s));
    }
    extras
}

/// Sizes of the memories.
struct Sizes {
    segment: usize,
    memory: usize,
    rate: usize,
    slots: Slots,
    /// Segments that are compressed before the last one is read.
    evicted: usize,
    /// Most keys that a query sees.
    reach: usize,
}

fn sizes(s: &Setup) -> Sizes {
    let (segment, rate) = (s.int(&SEGMENT), s.int(&RATE));
    let memory = segment * s.int(&MEMORY);
    let (each, kept) = (segment / rate, s.int(&COMPRESSED));
    let last = (s.length - 1) / segment * segment;
    let evicted = if each * kept == 0 { 0 } else { last.saturating_sub(memory) / segment };
    let total = evicted * each;
    let slots = if total == 0 { Slots::default() } else { Slots { each, kept, total } };
    let reach = (segment + memory).min(s.length) + kept.min(total);
    Sizes { segment, memory, rate, slots, evicted, reach }
}

/// The c tokens of each slot, `[B, H, slots, c, last]`, of `x` `[B, H, N, last]`.
fn groups(g: &mut Graph, x: Node, z: &Sizes) -> Node {
    let [b, h, _, last] = g.shape(x)[..] else { panic!("tokens are [B, H, N, D]") };
    let tokens = g.slice(x, 2, 0..z.evicted * z.segment);
    let segments = g.reshape(tokens, &[b, h, z.evicted, z.segment, last]);
    let used = g.slice(segments, 3, 0..z.slots.each * z.rate);
    g.reshape(used, &[b, h, z.slots.total, z.rate, last])
}

/// How much of each of its tokens a slot is, of a shape that broadcasts to `[B, H, slots, c, 1]`; none where it is their mean.
fn shares(g: &mut Graph, x: &Inputs<Node>, s: &Setup, z: &Sizes) -> Option<Node> {
    if let Some(&kernel) = x.extras.get("kernel") {
        return Some(g.reshape(kernel, &[1, s.heads, 1, z.rate, 1]));
    }
    let &lots = x.extras.get(lots::LOTS)?;
    let ones = g.constant(&[1, 1, s.length, 1], Data::Real(vec![1.0; s.length]));
    let lots = g.reshape(lots, &[1, 1, s.length, 1]);
    let real = x.real_keys(g, s).unwrap_or(ones);
    let [lots, real] = [lots, real].map(|x| groups(g, x, z));
    Some(lots::winners(g, lots, real, 3))
}

/// The slots of tokens `x` `[B, H, N, last]`: `[B, H, slots, last]`.
fn slots(g: &mut Graph, x: Node, shares: Option<Node>, z: &Sizes) -> Node {
    let groups = groups(g, x, z);
    match shares {
        None => g.mean(groups, &[3], false),
        Some(shares) => {
            let weighed = g.mul(groups, shares);
            g.sum(weighed, &[3], false)
        }
    }
}

/// Slots, then tokens.
fn with_slots(g: &mut Graph, x: Node, shares: Option<Node>, z: &Sizes) -> Node {
    let slots = slots(g, x, shares, z);
    g.concat(&[slots, x], 2)
}

/// Which slots are made of anything real, of `tokens` `[B, 1, N, 1]`: `[B, 1, slots, 1]`.
fn real_slots(g: &mut Graph, tokens: Node, z: &Sizes) -> Node {
    let groups = groups(g, tokens, z);
    g.max(groups, &[3], false)
}

fn call(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (StripInputs, Score, Keys) {
    let z = sizes(s);
    let mut real = x.real_keys(g, s);
    let [mut k, mut v] = [x.k, x.v];
    if z.slots.total > 0 {
        (k, v) = g.stage("compress", |g| {
            if let Some(real) = real {
                (k, v) = (g.mul(k, real), g.mul(v, real));
            }
            let shares = shares(g, x, s, &z);
            (with_slots(g, k, shares, &z), with_slots(g, v, shares, &z))
        });
        real = real.map(|tokens| {
            let slots = real_slots(g, tokens, &z);
            g.concat(&[slots, tokens], 2)
        });
    }
    let real = real.map(|real| g.reshape(real, &[s.batch, z.slots.total + s.length]));
    let inputs = StripInputs { real, ..transformer_xl::relative(g, x, s, [k, v], z.reach) };
    let keys = Keys::Segments { length: z.segment, memory: z.memory, slots: z.slots };
    (inputs, Score::Relative { scale: strips::scale(s) }, keys)
}

/// q, k and v `[B, H, N, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let (inputs, score, keys) = call(g, x, s);
    let out = g.stage("attend", |g| g.strip_attention(inputs, score, Normaliser::Softmax, keys));
    x.without_padded_queries(g, out, s)
}

/// Weights of tokens, and those of slots handed on to what each was made of.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (inputs, score, keys) = call(g, x, s);
    let z = sizes(s);
    let weights = g.strip_weights(inputs, score, Normaliser::Softmax, keys);
    if z.slots.total == 0 {
        return strips::cells(x, s, weights);
    }
    let (b, h, n, total) = (s.batch, s.heads, s.length, z.slots.total);
    let tokens = g.slice(weights, 3, total..total + n);
    let slots = g.slice(weights, 3, 0..total);
    let slots = g.reshape(slots, &[b, h, n, total, 1]);
    let shares = match shares(g, x, s, &z) {
        Some(shares) => {
            let &[batches, heads, lists, rate, _] = g.shape(shares) else { panic!("one share for each token") };
            let shares = g.reshape(shares, &[batches, heads, 1, lists, rate]);
            g.mul(slots, shares)
        }
        None => {
            let share = g.scale(slots, 1.0 / z.rate as f64);
            g.broadcast_to(share, &[b, h, n, total, z.rate])
        }
    };
    let used = g.reshape(shares, &[b, h, n * z.evicted, z.slots.each * z.rate]);
    let segments = g.pad(used, 3, 0, z.segment - z.slots.each * z.rate, 0.0);
    let evicted = g.reshape(segments, &[b, h, n, z.evicted * z.segment]);
    let evicted = g.pad(evicted, 3, 0, n - z.evicted * z.segment, 0.0);
    let cells = g.add(tokens, evicted);
    strips::cells(x, s, cells)
}

/// A key that is remembered: none where it is padding.
type Remembered<R> = Option<(Vec<R>, Vec<R>)>;

/// Where the compressed memory of each segment begins, where its memory does, where the segment does, and where it ends: as the
/// tokens that slots were made of; and how many of those and slots the last segment has.
fn decide(g: &mut Graph, _: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let z = sizes(s);
    let starts = (0..s.length).step_by(z.segment);
    let edges = starts.clone().flat_map(|at| {
        let memory = at.saturating_sub(z.memory);
        let made = memory / z.segment * z.slots.each;
        let oldest = made - z.slots.kept.min(made);
        let compressed = if made == 0 {
            memory
        } else {
            (oldest / z.slots.each * z.segment + oldest % z.slots.each * z.rate).min(memory)
        };
        [compressed, memory, at, (at + z.segment).min(s.length)]
    });
    let last = (s.length - 1) / z.segment * z.segment;
    let lengths = [z.slots.kept.min(z.slots.total), z.memory.min(last), s.length - last];
    vec![
        Decision::known(g, "memory", Form::Spans, [1, starts.len(), 4], edges),
        Decision::known(g, "lengths", Form::Lengths, [1, 3, 1], lengths),
    ]
}

/// Algorithm 1 with two queues, segment by segment.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    let tokens = At { heads: s.heads, rows: s.length, cols: s.dim };
    let (segment, rate) = (s.int(&SEGMENT), s.int(&RATE));
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            let token = |j: usize| -> Remembered<R> {
                let row = tokens.index(b, h, j, 0)..tokens.index(b, h, j, 0) + s.dim;
                is_real_key(x, s, b, j).then(|| (x.k[row.clone()].to_vec(), x.v[row].to_vec()))
            };
            let (mut memory, mut compressed) = (VecDeque::new(), VecDeque::new());
            let mut forgotten = 0;
            for start in (0..s.length).step_by(segment) {
                let end = (start + segment).min(s.length);
                for i in (start..end).filter(|&i| is_real_query(x, s, b, i)) {
                    let own = (start..=i).map(token);
                    let seen: Vec<Remembered<R>> = compressed.iter().chain(&memory).cloned().chain(own).collect();
                    let (mut scores, mut values) = (Vec::new(), Vec::new());
                    for (at, (key, value)) in seen.iter().enumerate().filter_map(|(at, x)| Some((at, x.as_ref()?))) {
                        scores.push(transformer_xl::score(x, s, [b, h, i], key, (seen.len() - 1 - at) as i64));
                        values.push(value.clone());
                    }
                    let out = &mut out[tokens.index(b, h, i, 0)..][..s.dim];
                    transformer_xl::softmax_mix(&scores, &values, out);
                }
                let forget = |x: &[R]| x.iter().map(|&x| constant(x)).collect::<Vec<R>>();
                memory.extend((start..end).map(|j| token(j).map(|(k, v)| (forget(&k), forget(&v)))));
                // What does not fit the memory leaves it, a segment at a time; only the text's last segment may be shorter.
                while memory.len() > segment * s.int(&MEMORY) && memory.len() >= segment {
                    let old: Vec<Remembered<R>> = memory.drain(..segment).collect();
                    let slots = old.chunks_exact(rate).enumerate();
                    compressed.extend(slots.map(|(at, group)| {
                        let (k, v) = compress(group, x, h, forgotten + at * rate)?;
                        Some((forget(&k), forget(&v)))
                    }));
                    forgotten += segment;
                }
                while compressed.len() > s.int(&COMPRESSED) {
                    compressed.pop_front();
                }
            }
        }
    }
    out
}

/// One slot of some tokens, of which the first is `first`.
fn compress<R: Real>(group: &[Remembered<R>], x: &Inputs<Vec<R>>, h: usize, first: usize) -> Remembered<R> {
    let rate = group.len();
    let real = || (0..rate).filter(|&at| group[at].is_some());
    if let Some(lots) = x.extras.get(lots::LOTS) {
        return group[lots::winner(real(), &lots[first..])?].clone();
    }
    let weight = |at: usize| match x.extras.get("kernel") {
        Some(kernel) => kernel[h * rate + at],
        None => R::one() / R::from_f64(rate as f64),
    };
    let dim = group.iter().flatten().next()?.0.len();
    let (mut key, mut value) = (vec![R::zero(); dim], vec![R::zero(); dim]);
    for (at, (k, v)) in group.iter().enumerate().filter_map(|(at, x)| Some((at, x.as_ref()?))) {
        for d in 0..dim {
            key[d] += weight(at) * k[d];
            value[d] += weight(at) * v[d];
        }
    }
    Some((key, value))
}
