//! Native Sparse Attention: every query reads the past three times, as summaries of all of it, as the few blocks of tokens whose
//! summaries weigh most, and as a window of its neighbours; gates mix the three.
//!
//! `o_i = Σ_c γ^c_i Attn(q_i, K^c, V^c)` with c one of compression, selection and window, `γ = sigmoid` of the gates.
//! - Compression: keys and values of l tokens, at every d-th token, become one each, their mean or weighed by a kernel; a query
//!   sees those whose last token is not ahead.
//! - Selection: a block of l' tokens scores what the compressed keys that it overlaps weigh, times the overlap over d, summed over
//!   the heads of a group; all of them read the first block, the query's own, the one before, and the best, n together.
//! - Window: the last w tokens.
//!
//! Yuan et al., 2025, "Native Sparse Attention: Hardware-Aligned and Natively Trainable Sparse Attention", arXiv:2502.11089, section
//! 3. Time O(N (N / d + n l' + w) D), memory O(N): weights of compressed keys are never kept as a whole. Each branch may have keys
//! and values of its own (`k_cmp` and so on, as the paper has them); where they are not given, k and v serve for all three. The
//! choice has no gradient; scores learn through the compression branch. Differs from the paper: the heads of a group choose
//! together but each has keys and values of its own, which in the paper are equal; the learned compression is one weight for each
//! place in the block and not a network, so that it stays a weighted sum of tokens; gates are given for each token, and not the
//! network that makes them. Padded tokens count as zeros in compression, and a block of nothing else is no key.

use super::setup::product;
use super::strips;
use super::{
    Causal, Decision, Effective, Extra, Family, Form, Init, Inputs, Of, Paper, Param, ParamKind, Reference, Refusal,
    Setup, Variant,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::ops::choose_blocks::Choice;
use crate::graph::ops::selected_attention::Selection;
use crate::graph::{Dtype, Graph, Node};
use crate::pattern::{BlockList, Rule};
use std::rc::Rc;

mod matrix;
mod naive;
mod sketch;

pub use sketch::sketch;

const BLOCK: Param = Param {
    name: "block",
    kind: ParamKind::Int { min: 1, max: 512, default: |n| by_length(n, [8, 16, 32]) },
    meaning: "Tokens l that are compressed to one key and value; a multiple of the stride.",
};

const STRIDE: Param = Param {
    name: "stride",
    kind: ParamKind::Int { min: 1, max: 512, default: |n| by_length(n, [4, 8, 16]) },
    meaning: "Tokens d from one compressed block to the next; the compressed keys of a query are one in d of all.",
};

const SELECT_BLOCK: Param = Param {
    name: "select_block",
    kind: ParamKind::Int { min: 1, max: 512, default: |n| by_length(n, [16, 32, 64]) },
    meaning: "Tokens l' of a block that is chosen as a whole; a multiple of the compressed block.",
};

const SELECT_COUNT: Param = Param {
    name: "select_count",
    kind: ParamKind::Int { min: 3, max: 64, default: |n| by_length(n, [4, 8, 16]) },
    meaning: "Blocks n that a query reads: the first, its own, the one before, and those whose summaries weigh most.",
};

const WINDOW: Param = Param {
    name: "window",
    kind: ParamKind::Int { min: 1, max: 65_536, default: |n| (n / 8).clamp(32, 512) as u32 },
    meaning: "Last tokens w, its own among them, that a query sees in the third branch.",
};

const GROUP: Param = Param {
    name: "group",
    kind: ParamKind::Int { min: 1, max: 64, default: |_| 16 },
    meaning: "Neighbouring heads that choose their blocks together, as many as there are at most.",
};

const COMPRESS: Param = Param {
    name: "compress",
    kind: ParamKind::Choice { options: &["mean", "learned"], default: "mean" },
    meaning: "How l tokens become one: mean takes their average, learned weighs each place by a number of its own.",
};

const SELECTION: Param = Param {
    name: "selection",
    kind: ParamKind::Choice { options: &["scores", "random"], default: "scores" },
    meaning: "Whether blocks are chosen by what their summaries weigh or by lot, to see whether the choice matters.",
};

pub static VARIANT: Variant = Variant {
    id: "nsa",
    name: "Native Sparse Attention",
    family: Family::LearnedPattern,
    paper: Paper {
        title: "Native Sparse Attention: Hardware-Aligned and Natively Trainable Sparse Attention",
        authors: "Yuan et al.",
        year: 2025,
        arxiv: "2502.11089",
    },
    summary: "Each query skims the whole past through summaries of some tokens each, reads in full the few blocks whose summaries \
              drew most attention, and always sees its neighbours; learned gates mix the three. What it reads in full no longer \
              grows with the length, and what it skims is one key in sixteen, so the cost still grows as the square, but with a \
              small factor: from some thousand tokens on its arithmetic is a fraction of full attention's, and its time follows \
              later. It is trained from the start, since gates and keys have to learn their parts. Use it for language models with very long contexts; not for short texts, for \
              which three branches cost more than they save, and not where the future must be seen.",
    complexity: "O(N (N / d + n l' + w) D) time, O(N) memory",
    exponent: 2.0,
    exact: false,
    causal: Causal::Always,
    params: &[BLOCK, STRIDE, SELECT_BLOCK, SELECT_COUNT, WINDOW, GROUP, COMPRESS, SELECTION],
    extras,
    check,
    largest,
    graph,
    effective: matrix::effective,
    rule: |_| None,
    blocks: |_| None,
    loss: None,
    decide: Some(decide),
    reference: Reference::new(naive::naive, naive::naive),
};

/// The paper's value for long sequences, and smaller ones for short.
fn by_length(n: usize, [short, middle, long]: [u32; 3]) -> u32 {
    match n {
        0..=256 => short,
        257..=1024 => middle,
        _ => long,
    }
}

/// Heads that choose together.
fn group(s: &Setup) -> usize {
    s.int(&GROUP).min(s.heads)
}

fn choice(s: &Setup) -> Choice {
    let [length, stride, block, count] = [&BLOCK, &STRIDE, &SELECT_BLOCK, &SELECT_COUNT].map(|param| s.int(param));
    Choice { length, stride, block, count, group: group(s) }
}

/// Compressed blocks of `n` tokens; what is left at the end makes none.
fn compressed_blocks(s: &Setup, n: usize) -> usize {
    let Choice { length, stride, .. } = choice(s);
    if n < length { 0 } else { (n - length) / stride + 1 }
}

/// The three branches, as the names of their tensors end and in the order of their gates.
const BRANCHES: [[&str; 2]; 3] = [["k_cmp", "v_cmp"], ["k_slc", "v_slc"], ["k_win", "v_win"]];

fn extras(s: &Setup) -> Vec<Extra> {
    let Choice { length, block, .. } = choice(s);
    let tensor = |name, shape: &[usize], role, differentiable, optional, init| Extra {
        name,
        shape: shape.to_vec(),
        role,
        differentiable,
        optional,
        init,
    };
    let role = "gates of compression, selection and window for each token, before the sigmoid";
    let mut extras = vec![tensor("gates", &[s.batch, s.heads, s.length, 3], role, true, false, Init::Zeros)];
    if s.choice(&COMPRESS) == "learned" {
        let init = Init::Uniform(1.0 / (length as f32).sqrt());
        let role = ["weights of the tokens of a compressed key", "weights of the tokens of a compressed value"];
        extras.push(tensor("phi_k", &[s.heads, length], role[0], true, false, init));
        extras.push(tensor("phi_v", &[s.heads, length], role[1], true, false, init));
    }
    if s.choice(&SELECTION) == "random" {
        let shape = [s.heads.div_ceil(group(s)), s.length, s.length.div_ceil(block)];
        let role = "lots of the N / select_block blocks, for each group of heads and each query";
        extras.push(tensor("lots", &shape, role, false, false, Init::Normal(1.0)));
    }
    let roles = [
        ["keys that are compressed", "values that are compressed"],
        ["keys of chosen blocks", "values of chosen blocks"],
        ["keys of the window", "values of the window"],
    ];
    let own = BRANCHES.iter().zip(roles).flat_map(|(names, roles)| names.iter().zip(roles).collect::<Vec<_>>());
    extras.extend(
        own.map(|(name, role)| {
            tensor(name, &[s.batch, s.heads, s.keys, s.dim], role, true, true, Init::Normal(1.0))
        }),
    );
    extras
}

fn check(s: &Setup) -> Result<(), Refusal> {
    if s.keys != s.length {
        let reason = format!("it is self-attention; there are {} queries and {} keys", s.length, s.keys);
        return Err(Refusal::new(reason, format!("{} keys", s.length)));
    }
    let Choice { length, stride, block, .. } = choice(s);
    let divides = |part: usize, whole: usize, what: &str, nearest: &str| {
        if whole.is_multiple_of(part) {
            return Ok(());
        }
        Err(Refusal::new(format!("{what}; they are {part} and {whole}"), format!("{nearest} {}", (whole / part).max(1) * part)))
    };
    divides(stride, length, "the stride must divide the compressed block", "block")?;
    divides(length, block, "the compressed block must divide the chosen one", "select_block")
}

fn largest(s: &Setup) -> u128 {
    let Choice { block, count, .. } = choice(s);
    let lists = s.heads.div_ceil(group(s));
    let strip = product(&[2048.max(64 * s.batch * lists), compressed_blocks(s, s.length)]);
    let lots = if s.choice(&SELECTION) == "random" { product(&[lists, s.length, s.length.div_ceil(block)]) } else { 0 };
    strip.max(product(&[s.batch, lists, s.length, count])).max(lots)
}

/// Keys and values of a branch.
fn own(x: &Inputs<Node>, branch: usize) -> [Node; 2] {
    let [k, v] = BRANCHES[branch];
    [(k, x.k), (v, x.v)].map(|(name, shared)| x.extras.get(name).copied().unwrap_or(shared))
}

/// The tokens of compressed blocks in strides: `[B, H, strides, d, C]` of `x` `[B, H, N, C]`, and how many of them a block has.
fn strides(g: &mut Graph, x: Node, s: &Setup) -> (Node, usize) {
    let Choice { length, stride, .. } = choice(s);
    let [b, h, n, columns] = g.shape(x)[..] else { panic!("tokens are [B, H, N, C]") };
    let of_block = length / stride;
    let count = compressed_blocks(s, n) + of_block - 1;
    let tokens = g.slice(x, 2, 0..count * stride);
    (g.reshape(tokens, &[b, h, count, stride, columns]), of_block)
}

/// What blocks of tokens become, `[B, H, C, D]`: their mean, or weighed by `phi` `[H, l]`.
fn compress(g: &mut Graph, x: Node, phi: Option<Node>, s: &Setup) -> Node {
    let Choice { length, stride, .. } = choice(s);
    let (strides, of_block) = strides(g, x, s);
    let blocks = g.shape(strides)[2] + 1 - of_block;
    let sums = if phi.is_none() { Some(g.sum(strides, &[3], false)) } else { None };
    let mut total: Option<Node> = None;
    for part in 0..of_block {
        let term = match (phi, sums) {
            (Some(phi), _) => {
                let heads = g.shape(phi)[0];
                let weights = g.slice(phi, 1, part * stride..(part + 1) * stride);
                let weights = g.reshape(weights, &[heads, 1, stride, 1]);
                let tokens = g.slice(strides, 2, part..part + blocks);
                let weighed = g.mul(tokens, weights);
                g.sum(weighed, &[3], false)
            }
            (None, Some(sums)) => g.slice(sums, 2, part..part + blocks),
            (None, None) => unreachable!("without weights there are sums"),
        };
        total = Some(total.map_or(term, |total| g.add(total, term)));
    }
    let total = total.expect("a block has at least one stride");
    if phi.is_some() { total } else { g.scale(total, 1.0 / length as f64) }
}

/// Which compressed blocks have a real token, u32 `[B, C]`.
fn real_blocks(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Option<Node> {
    let real = x.real_keys(g, s)?;
    let (strides, of_block) = strides(g, real, s);
    let blocks = g.shape(strides)[2] + 1 - of_block;
    let any = g.max(strides, &[3], false);
    let parts: Vec<Node> = (0..of_block).map(|part| g.slice(any, 2, part..part + blocks)).collect();
    let any = parts.into_iter().reduce(|a, b| g.maximum(a, b)).expect("a block has at least one stride");
    let any = g.reshape(any, &[s.batch, blocks]);
    Some(g.cast(any, Dtype::U32))
}

/// Compressed keys and values.
struct Compressed {
    k: Node,
    v: Node,
    real: Option<Node>,
    rule: Rule,
}

/// None where there are too few tokens for a block.
fn compressed(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Option<Compressed> {
    let Choice { length, stride, .. } = choice(s);
    (compressed_blocks(s, s.length) > 0).then(|| {
        g.stage("compress", |g| {
            let [mut k, mut v] = own(x, 0);
            if let Some(real) = x.real_keys(g, s) {
                (k, v) = (g.mul(k, real), g.mul(v, real));
            }
            let [phi_k, phi_v] = ["phi_k", "phi_v"].map(|name| x.extras.get(name).copied());
            let (k, v) = (compress(g, k, phi_k, s), compress(g, v, phi_v, s));
            let rule = Rule::Pooled { length: length as u32, stride: stride as u32 };
            Compressed { k, v, real: real_blocks(g, x, s), rule }
        })
    })
}

/// Output of the compression branch, and the log-sum-exp of its scores.
fn skim(g: &mut Graph, x: &Inputs<Node>, c: &Compressed) -> (Node, Node) {
    g.stage("score", |g| {
        let (n, blocks) = (g.shape(x.q)[2], g.shape(c.k)[2]);
        let tile = super::restricted::BLOCK;
        let list = Rc::new(BlockList::new(&c.rule, n, blocks, tile, tile));
        let options = BlockAttentionOptions { padding: c.real, ..BlockAttentionOptions::new(list, c.rule.clone()) };
        g.block_attention(x.q, c.k, c.v, &options)
    })
}

/// The blocks that each query reads, u32 `[B, lists, N, n]`. Where nothing is compressed every block is read: there is one.
fn select(g: &mut Graph, x: &Inputs<Node>, s: &Setup, skimmed: Option<(&Compressed, Node)>) -> Node {
    g.stage("select", |g| match (x.extras.get("lots"), skimmed) {
        (Some(&lots), _) => g.choose_blocks_by_lot(lots, s.batch, choice(s)),
        (None, Some((c, lse))) => {
            let (q, k, lse) = (g.detach(x.q), g.detach(c.k), g.detach(lse));
            g.choose_blocks(q, k, lse, c.real, choice(s))
        }
        (None, None) => {
            let mut lists = vec![u32::MAX; s.batch * s.heads.div_ceil(group(s)) * s.length * choice(s).count];
            lists.chunks_exact_mut(choice(s).count).for_each(|list| list[0] = 0);
            let shape = [s.batch, s.heads.div_ceil(group(s)), s.length, choice(s).count];
            g.constant(&shape, crate::graph::Data::Index(lists))
        }
    })
}

/// What has a gate: `[B, H, N, 1]`, in the order of the branches.
fn gates(g: &mut Graph, x: &Inputs<Node>) -> [Node; 3] {
    let gates = g.sigmoid(x.extras["gates"]);
    [0, 1, 2].map(|branch| g.slice(gates, 3, branch..branch + 1))
}

/// q, k and v `[B, H, N, D]`, gates `[B, H, N, 3]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    g.reusing(|g| forward(g, x, s))
}

fn forward(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let compressed = compressed(g, x, s);
    let skimmed = compressed.as_ref().map(|c| skim(g, x, c));
    let blocks = select(g, x, s, compressed.as_ref().zip(skimmed.map(|(_, lse)| lse)));
    let selected = g.stage("attend selected", |g| {
        let [k, v] = own(x, 1);
        let Choice { block, group, .. } = choice(s);
        let selection = Selection { blocks, group, block, causal: true, padding: x.key_padding };
        g.selected_attention(x.q, k, v, &selection).0
    });
    let near = g.stage("window", |g| {
        let [k, v] = own(x, 2);
        let rule = window(s);
        let tile = super::restricted::BLOCK;
        let list = Rc::new(BlockList::new(&rule, s.length, s.keys, tile, tile));
        let options = BlockAttentionOptions { padding: x.key_padding, ..BlockAttentionOptions::new(list, rule) };
        g.block_attention(x.q, k, v, &options).0
    });
    let out = g.stage("combine", |g| {
        let [gate_cmp, gate_slc, gate_win] = gates(g, x);
        let (selected, near) = (g.mul(selected, gate_slc), g.mul(near, gate_win));
        let out = g.add(selected, near);
        match skimmed {
            Some((skimmed, _)) => {
                let skimmed = g.mul(skimmed, gate_cmp);
                g.add(out, skimmed)
            }
            None => out,
        }
    });
    x.without_padded_queries(g, out, s)
}

fn window(s: &Setup) -> Rule {
    Rule::Window { radius: s.int(&WINDOW) as u32 - 1, dilation: 1, global: 0, causal: true }
}

/// The blocks that each query reads in full, `[B, H, N, n]`.
fn decide(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<Decision> {
    let compressed = compressed(g, x, s);
    let skimmed = compressed.as_ref().map(|c| skim(g, x, c).1);
    let lists = select(g, x, s, compressed.as_ref().zip(skimmed));
    let Choice { block, count, group, .. } = choice(s);
    // The heads of a group share their list.
    let groups = s.heads.div_ceil(group);
    let lists = g.reshape(lists, &[s.batch, groups, 1, s.length, count]);
    let lists = g.broadcast_to(lists, &[s.batch, groups, group, s.length, count]);
    let lists = g.reshape(lists, &[s.batch, groups * group, s.length, count]);
    let lists = g.slice(lists, 1, 0..s.heads);
    let form = Form::Members { count: s.keys.div_ceil(block), tokens: block, row_tokens: 1, of: Of::Keys };
    vec![Decision::new(g, "blocks", form, lists)]
}
