//! Star-Transformer: a token sees its neighbours on a ring, its own embedding, and a relay; the relay sees every token.
//!
//! One call is one cycle, cut where the relay is updated: first the relay reads itself and all satellites,
//! `r = MultiHead(r', [r'; h_1 ... h_N])`, then each satellite reads `C_i = [h_(i-ρ) ... h_(i+ρ); e_i; r]`, and the output is what
//! the satellites make of it. q, k, v are the projections of h. The relay of the cycle before, r', is the mean of the real
//! tokens as in the paper's beginning, and e_i is h_i as in the first cycle; both may be given as extra tensors, for later cycles.
//! A projection of a mix is the mix of the projections, so that r's key and value are the relay's weights times all keys and
//! values, and token i reads token j through the relay with the weight `p_ir ρ_j`: [`effective`] adds it to the ring's weights.
//!
//! Guo et al., 2019, "Star-Transformer", arXiv:1902.09113, section 3. Time O(6 N D) for a ring of three, memory O(N): the ring
//! is a list of keys for each token, the relay one query over N + 1 keys. With padding the ring closes over the real tokens.
//! Differs from the paper: normalisation, ReLU, the second set of projections and the stack of cycles belong to a model;
//! neighbours that are the same token, in rings shorter than 2ρ + 1, count once; choices replace the ring by tokens drawn by
//! lot, and the relay by the mean or by nothing.

mod naive;

use super::draw::Stream;
use super::restricted::{merge, merge_sums};
use super::setup::product;
use super::{
    Causal, Effective, Extra, Family, Init, Inputs, NONE, Paper, Param, ParamKind, Reference, Refusal, Setup, Variant, strips,
};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{BinaryKind, Data, Dtype, Graph, Node};
use crate::pattern::{BlockList, Rule};
use std::rc::Rc;

const RADIUS: Param = Param {
    name: "radius",
    kind: ParamKind::Int { min: 1, max: 64, default: |_| 1 },
    meaning: "How many neighbours on the ring a token sees to each side; the paper takes one.",
};

const NEIGHBOURS: Param = Param {
    name: "neighbours",
    kind: ParamKind::Choice { options: &["ring", "random"], default: "ring" },
    meaning: "Which tokens are a token's neighbours: those beside it on the ring, or as many drawn by lot, to see whether \
              nearness matters.",
};

const RELAY: Param = Param {
    name: "relay",
    kind: ParamKind::Choice { options: &["attention", "mean", "none"], default: "attention" },
    meaning: "What the relay hands to every token: what it attends to, the plain mean of all tokens, or nothing, so that only \
              the ring is left.",
};

pub static VARIANT: Variant = Variant {
    id: "star",
    name: "Star-Transformer",
    family: Family::FixedPattern,
    paper: Paper { title: "Star-Transformer", authors: "Guo et al.", year: 2019, arxiv: "1902.09113" },
    summary: "Tokens sit on a ring and see only the one before and the one after, beside their own embedding; a relay in the \
              middle reads all of them, and each of them reads the relay. Any two tokens are two steps apart, and a token \
              costs six products, however long the text. All that is far away must go through one vector, the same for every \
              token. Use it to classify or tag modest amounts of text cheaply; not where a token has to look up a particular \
              distant one, and not for generating, since the relay has read the future.",
    complexity: "O(6 N D) time, O(N) memory",
    exponent: 1.0,
    exact: false,
    causal: Causal::Never("the relay has read every token before any token reads the relay, and the ring looks ahead and closes \
                           from the last token to the first: the future would leak"),
    params: &[RADIUS, NEIGHBOURS, RELAY],
    extras,
    check,
    largest: |s| product(&[s.batch, s.heads, s.length, s.dim, 2 * s.int(&RADIUS) + 2]),
    graph,
    effective,
    rule: |_| None,
    blocks: |s| Some(BlockList::of_keys(&distinct(&slots(s)), s.length, s.keys)),
    loss: None,
    decide: None,
    reference: Reference::new(naive::star, naive::star),
};

/// The tokens drawn in place of a ring.
const TENSOR: &str = "neighbours";

fn extras(s: &Setup) -> Vec<Extra> {
    let tensor = |name, rows, role| Extra {
        name,
        shape: vec![s.batch, s.heads, rows, s.dim],
        role,
        differentiable: true,
        optional: true,
        init: Init::Normal(1.0),
    };
    let mut extras = vec![
        tensor("k_embedding", s.length, "keys of the tokens' embeddings e; those of the tokens where not given"),
        tensor("v_embedding", s.length, "values of the tokens' embeddings e; those of the tokens where not given"),
    ];
    if s.choice(&RELAY) != "none" {
        extras.extend([
            tensor("k_relay", 1, "key of the relay of the cycle before; the mean of the tokens' where not given"),
            tensor("v_relay", 1, "value of the relay of the cycle before; the mean of the tokens' where not given"),
        ]);
    }
    if s.choice(&RELAY) == "attention" {
        extras.push(tensor("q_relay", 1, "query of the relay of the cycle before; the mean of the tokens' where not given"));
    }
    if s.choice(&NEIGHBOURS) == "random" {
        extras.push(Extra {
            name: TENSOR,
            shape: vec![s.heads, s.length, 2 * s.int(&RADIUS)],
            role: "the tokens that each token of a head has in place of neighbours",
            differentiable: false,
            optional: false,
            init: Init::Structure { below: s.length as u32 },
        });
    }
    extras
}

fn check(s: &Setup) -> Result<(), Refusal> {
    if s.keys == s.length {
        return Ok(());
    }
    let reason = format!(
        "the tokens on the ring are queries and keys at once; there are {} queries and {} keys",
        s.length, s.keys
    );
    Err(Refusal::new(reason, format!("{} keys", s.length)))
}

/// Neighbours of each token of a head, the token itself among them, [`NONE`] where one is there already: `2ρ + 1` for a
/// token, of one head for all or of each.
fn slots(s: &Setup) -> Vec<Vec<u32>> {
    let (n, radius) = (s.length, s.int(&RADIUS));
    let once = |mut row: Vec<u32>| {
        for at in 1..row.len() {
            if row[..at].contains(&row[at]) {
                row[at] = NONE;
            }
        }
        row
    };
    if s.choice(&NEIGHBOURS) == "ring" {
        let on_ring = |i: usize| (0..=2 * radius).map(|t| ((i + t + radius * n - radius) % n) as u32).collect();
        return (0..n).map(|i| once(on_ring(i))).collect();
    }
    let given = s.structure.given.get(TENSOR).filter(|given| given.len() == s.heads * n * 2 * radius);
    let drawn = |head: usize, i: usize| -> Vec<u32> {
        if let Some(given) = given {
            return given[(head * n + i) * 2 * radius..][..2 * radius].to_vec();
        }
        let mut stream = Stream::new(s.seed, TENSOR, &[s.structure.first_head + head, i]);
        (0..2 * radius).map(|_| stream.below(n) as u32).collect()
    };
    let rows = (0..s.heads).flat_map(|head| (0..n).map(move |i| (head, i)));
    rows.map(|(head, i)| once([vec![i as u32], drawn(head, i)].concat())).collect()
}

/// The neighbours that there are, in order.
fn distinct(slots: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let row = |row: &Vec<u32>| {
        let mut row: Vec<u32> = row.iter().copied().filter(|&j| j != NONE).collect();
        row.sort_unstable();
        row
    };
    slots.iter().map(row).collect()
}

/// The t-th neighbour of each token, u32 `[B, H, N]`, and 1 where there is one, f32 of that shape.
fn neighbours(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Vec<(Node, Node)> {
    let (n, radius) = (s.length, s.int(&RADIUS));
    let all = [s.batch, s.heads, n];
    if let (Some(padding), "ring") = (x.key_padding, s.choice(&NEIGHBOURS).as_str()) {
        // Real tokens in order, and the place of each among them.
        let real = g.cast(padding, Dtype::F32);
        let order = g.argsort(real, true);
        let order = g.reshape(order, &[s.batch, n, 1]);
        let place = g.cumsum(real, 1, false, true);
        let count = g.sum(real, &[1], true);
        let zero = g.constant(&[], Data::Real(vec![0.0]));
        return (0..=2 * radius)
            .map(|t| {
                let ahead = g.add_scalar(place, t as f64 - radius as f64);
                let before = g.add(ahead, count);
                let after = g.sub(ahead, count);
                let is_before = g.binary(BinaryKind::Greater, zero, ahead);
                let is_after = g.binary(BinaryKind::GreaterEqual, ahead, count);
                let wrapped = g.select(is_after, after, ahead);
                let wrapped = g.select(is_before, before, wrapped);
                // A short ring is round before the last neighbours; they are there already.
                let limit = g.constant(&[], Data::Real(vec![t as f32]));
                let is_new = g.binary(BinaryKind::Greater, count, limit);
                let there = g.mul(is_new, real);
                let place = g.select(there, wrapped, zero);
                let place = g.cast(place, Dtype::U32);
                let index = g.gather_rows(order, place);
                let [index, there] = [index, there].map(|x| g.reshape(x, &[s.batch, 1, n]));
                (g.broadcast_to(index, &all), g.broadcast_to(there, &all))
            })
            .collect();
    }
    let slots = slots(s);
    let heads = slots.len() / n;
    (0..=2 * radius)
        .map(|t| {
            let index: Vec<u32> = slots.iter().map(|row| if row[t] == NONE { 0 } else { row[t] }).collect();
            let there = slots.iter().map(|row| f32::from(row[t] != NONE)).collect();
            let index = g.constant(&[1, heads, n], Data::Index(index));
            let there = g.constant(&[1, heads, n], Data::Real(there));
            let [index, there] = [index, there].map(|x| g.broadcast_to(x, &all));
            let Some(padding) = x.key_padding else { return (index, there) };
            let real = g.reshape(padding, &[s.batch, 1, n, 1]);
            let real = g.broadcast_to(real, &[s.batch, s.heads, n, 1]);
            let real = g.gather_rows(real, index);
            let real = g.reshape(real, &all);
            let real = g.cast(real, Dtype::F32);
            (index, g.mul(there, real))
        })
        .collect()
}

/// Attention to the neighbours and the embeddings: o and the log-sum-exp.
fn satellites(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let n = s.length;
    let embedding = |name: &str, own| x.extras.get(name).copied().unwrap_or(own);
    let (k_e, v_e) = (embedding("k_embedding", x.k), embedding("v_embedding", x.v));
    let (k, v, keys, padding) = match (x.key_padding, s.choice(&NEIGHBOURS).as_str()) {
        // Where the ring closes is known on the device only, so neighbours are brought beside each other.
        (Some(padding), "ring") => {
            let neighbours = neighbours(g, x, s);
            let mut bring = |x, last| {
                let mut parts: Vec<Node> = neighbours.iter().map(|(index, _)| g.gather_rows(x, *index)).collect();
                parts.push(last);
                g.concat(&parts, 2)
            };
            let (k, v) = (bring(x.k, k_e), bring(x.v, v_e));
            let mut there: Vec<Node> = Vec::new();
            for (_, is_there) in &neighbours {
                let first = g.slice(*is_there, 1, 0..1);
                let first = g.reshape(first, &[s.batch, n]);
                there.push(g.cast(first, Dtype::U32));
            }
            there.push(padding);
            let slots = there.len();
            let keys: Vec<Vec<u32>> = (0..n).map(|i| (0..slots).map(|t| (t * n + i) as u32).collect()).collect();
            (k, v, keys, Some(g.concat(&there, 1)))
        }
        _ => {
            let mut keys = distinct(&slots(s));
            keys.iter_mut().enumerate().for_each(|(row, keys)| keys.push((n + row % n) as u32));
            let padding = x.key_padding.map(|real| g.concat(&[real, real], 1));
            (g.concat(&[x.k, k_e], 2), g.concat(&[x.v, v_e], 2), keys, padding)
        }
    };
    let list = Rc::new(BlockList::of_keys(&keys, n, g.shape(k)[2]));
    let options = BlockAttentionOptions { padding, ..BlockAttentionOptions::new(list, Rule::All { causal: false }) };
    g.block_attention(x.q, k, v, &options)
}

/// The relay after it has read: key and value `[B, H, 1, D]`, and its weights on the tokens `[B, H, 1, N]`.
struct Relay {
    key: Node,
    value: Node,
    weights: Node,
}

fn relay(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Option<Relay> {
    let kind = s.choice(&RELAY);
    if kind == "none" {
        return None;
    }
    let (n, scale) = (s.length, strips::scale(s));
    let real = x.real_keys(g, s);
    // Share of each token in the mean, [B, 1, 1, N] or [1, 1, 1, N].
    let shares = match real {
        None => g.constant(&[1, 1, 1, n], Data::Real(vec![1.0 / n as f32; n])),
        Some(real) => {
            let row = g.reshape(real, &[s.batch, 1, 1, n]);
            let count = g.sum(row, &[3], true);
            let one = g.constant(&[], Data::Real(vec![1.0]));
            let count = g.maximum(count, one);
            g.div(row, count)
        }
    };
    let state = |g: &mut Graph, name: &str, tokens: Node| {
        x.extras.get(name).copied().unwrap_or_else(|| match real {
            None => g.mean(tokens, &[2], true),
            Some(_) => {
                let column = g.reshape(shares, &[s.batch, 1, n, 1]);
                let shared = g.mul(tokens, column);
                g.sum(shared, &[2], true)
            }
        })
    };
    let (key, value) = (state(g, "k_relay", x.k), state(g, "v_relay", x.v));
    if kind == "mean" {
        let weights = g.broadcast_to(shares, &[s.batch, s.heads, 1, n]);
        return Some(Relay { key, value, weights });
    }
    let query = state(g, "q_relay", x.q);
    let own = g.matmul_nt(query, key, 1.0);
    let others = g.matmul_nt(query, x.k, 1.0);
    let scores = g.concat(&[own, others], 3);
    let scores = g.scale(scores, scale);
    let padding = x.key_padding.map(|real| {
        let one = g.constant(&[s.batch, 1], Data::Index(vec![1; s.batch]));
        g.concat(&[one, real], 1)
    });
    let p = g.masked_softmax(scores, padding, Rule::All { causal: false });
    let own = g.slice(p, 3, 0..1);
    let others = g.slice(p, 3, 1..n + 1);
    let mut mix = |state, tokens| {
        let kept = g.mul(own, state);
        let read = g.matmul(others, tokens);
        g.add(kept, read)
    };
    let (key, value) = (mix(key, x.k), mix(value, x.v));
    // What it kept of itself is the mean of the tokens.
    let kept = g.mul(own, shares);
    let weights = g.add(others, kept);
    Some(Relay { key, value, weights })
}

/// Scores of the tokens with the relay, `[B, H, N]`.
fn radial(g: &mut Graph, x: &Inputs<Node>, s: &Setup, relay: &Relay) -> Node {
    let scores = g.matmul_nt(x.q, relay.key, 1.0);
    let scores = g.scale(scores, strips::scale(s));
    g.reshape(scores, &[s.batch, s.heads, s.length])
}

/// q, k, v `[B, H, N, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let relay = g.stage("relay", |g| relay(g, x, s));
    let (o, lse) = g.stage("ring", |g| satellites(g, x, s));
    let out = match relay {
        None => o,
        Some(relay) => g.stage("read relay", |g| {
            let scores = radial(g, x, s, &relay);
            merge(g, (o, lse), (relay.value, scores))
        }),
    };
    x.without_padded_queries(g, out, s)
}

/// Weights on neighbours and on the token's own embedding, and through the relay on all tokens. They mix v alone where
/// embeddings and relay are the tokens' own.
fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    let (n, all) = (s.length, [s.batch, s.heads, s.length]);
    let relay = relay(g, x, s);
    let (_, ring) = satellites(g, x, s);
    let radial = relay.as_ref().map(|relay| radial(g, x, s, relay));
    let lse = radial.map_or(ring, |radial| merge_sums(g, ring, radial));
    let column = |g: &mut Graph, x| g.reshape(x, &[s.batch, s.heads, n, 1]);
    let share = |g: &mut Graph, scores| {
        let below = g.sub(scores, lse);
        g.exp(below)
    };
    let score = |g: &mut Graph, keys| {
        let products = g.mul(x.q, keys);
        let sum = g.sum(products, &[3], false);
        g.scale(sum, strips::scale(s))
    };
    let tokens = g.constant(&[1, 1, 1, n], Data::Real((0..n).map(|j| j as f32).collect()));
    let at = |g: &mut Graph, index, weight| {
        let [index, weight] = [index, weight].map(|x| column(g, x));
        let hit = g.binary(BinaryKind::Equal, tokens, index);
        g.mul(hit, weight)
    };
    let scores = score(g, x.extras.get("k_embedding").copied().unwrap_or(x.k));
    let weight = share(g, scores);
    let own = g.constant(&[1, 1, n], Data::Real((0..n).map(|i| i as f32).collect()));
    let own = g.broadcast_to(own, &all);
    let mut cells = at(g, own, weight);
    for (index, there) in neighbours(g, x, s) {
        let keys = g.gather_rows(x.k, index);
        let scores = score(g, keys);
        let weight = share(g, scores);
        let weight = g.mul(weight, there);
        let index = g.cast(index, Dtype::F32);
        let part = at(g, index, weight);
        cells = g.add(cells, part);
    }
    if let (Some(relay), Some(radial)) = (relay, radial) {
        let weight = share(g, radial);
        let weight = column(g, weight);
        let through = g.mul(weight, relay.weights);
        cells = g.add(cells, through);
    }
    strips::cells(x, s, cells)
}
