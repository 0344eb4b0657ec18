//! What trains the compression: the difference between what is read from old tokens and from their slots.

use super::{Remembered, compress, real_slots, shares, sizes, slots};
use crate::attention::transformer_xl::{constant, softmax_mix};
use crate::attention::{Inputs, OwnLoss, Reference, Setup, full};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Data, Dtype, Graph, Node, Real};
use crate::pattern::Rule;
use crate::reference::{At, is_real_key, is_real_query};
use std::rc::Rc;

pub(super) static LOSS: OwnLoss = OwnLoss {
    meaning: "How far what a segment reads from compressed tokens lies from what it would read from the tokens themselves: the \
              mean square of the difference. It trains the compression, which the output's gradient does not reach.",
    weight: 1.0,
    graph,
    reference: Reference::new(naive, naive),
};

/// The attention-reconstruction loss of section 3.2, by content alone: each segment is compressed when it leaves the memory,
/// and read by the segment that has just been read. Everything but the compression is constant. The mean of squares, where
/// the paper takes a norm, which has no gradient at nothing.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    let z = sizes(s);
    if z.slots.total == 0 {
        return g.constant(&[1], Data::Real(vec![0.0]));
    }
    let (segments, first) = (z.evicted, z.memory);
    let real = x.real_keys(g, s);
    let [q, mut k, mut v] = [x.q, x.k, x.v].map(|x| g.detach(x));
    if let Some(real) = real {
        (k, v) = (g.mul(k, real), g.mul(v, real));
    }
    let shares = shares(g, x, s, &z);
    // Segments become batch entries, `[B E, heads, rows, last]`.
    let apart = |g: &mut Graph, x: Node, rows: usize| {
        let &[batch, heads, _, last] = g.shape(x) else { panic!("rows are [B, H, rows, last]") };
        let x = g.reshape(x, &[batch, heads, segments, rows, last]);
        let x = g.transpose(x, &[0, 2, 1, 3, 4]);
        g.reshape(x, &[batch * segments, heads, rows, last])
    };
    let (rows, each) = (z.segment, z.slots.each);
    let readers = |g: &mut Graph, x: Node| {
        let x = g.slice(x, 2, first..first + segments * rows);
        apart(g, x, rows)
    };
    let asking = readers(g, q);
    let [old_k, old_v] = [k, v].map(|x| {
        let x = g.slice(x, 2, 0..segments * rows);
        apart(g, x, rows)
    });
    let [new_k, new_v] = [k, v].map(|x| {
        let x = slots(g, x, shares, &z);
        apart(g, x, each)
    });
    let paddings = real.map(|real| {
        let tokens = g.slice(real, 2, 0..segments * rows);
        let slots = real_slots(g, real, &z);
        [(tokens, rows), (slots, each)].map(|(x, rows)| {
            let x = apart(g, x, rows);
            let x = g.reshape(x, &[s.batch * segments, rows]);
            g.cast(x, Dtype::U32)
        })
    });
    let attend = |g: &mut Graph, k: Node, v: Node, padding: Option<Node>| {
        let rule = Rule::All { causal: false };
        let list = Rc::new(full::blocks_of(rows, g.shape(k)[2], &rule));
        let options = BlockAttentionOptions { padding, ..BlockAttentionOptions::new(list, rule) };
        g.block_attention(asking, k, v, &options).0
    };
    let old = attend(g, old_k, old_v, paddings.map(|p| p[0]));
    let new = attend(g, new_k, new_v, paddings.map(|p| p[1]));
    let mut difference = g.sub(new, old);
    if let Some(real) = real {
        let real = readers(g, real);
        difference = g.mul(difference, real);
    }
    let square = g.mul(difference, difference);
    let mean = g.mean(square, &[0, 1, 2, 3], false);
    g.reshape(mean, &[1])
}

/// The same loss, segment by segment.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> R {
    let z = sizes(s);
    let tokens = At { heads: s.heads, rows: s.length, cols: s.dim };
    let scale = R::one() / R::from_f64(s.dim as f64).sqrt();
    let (mut sum, mut count) = (R::zero(), 0);
    for (b, h) in (0..s.batch).flat_map(|b| (0..s.heads).map(move |h| (b, h))) {
        let row = |x: &[R], j: usize| x[tokens.index(b, h, j, 0)..][..s.dim].iter().map(|&x| constant(x)).collect::<Vec<R>>();
        for old in (0..z.evicted).map(|segment| segment * z.segment) {
            let group: Vec<Remembered<R>> = (old..old + z.segment)
                .map(|j| is_real_key(x, s, b, j).then(|| (row(&x.k, j), row(&x.v, j))))
                .collect();
            let chunks = group.chunks_exact(z.rate).enumerate();
            let new: Vec<Remembered<R>> = chunks.map(|(at, group)| compress(group, x, h, old + at * z.rate)).collect();
            for i in old + z.memory..old + z.memory + z.segment {
                count += s.dim;
                if !is_real_query(x, s, b, i) {
                    continue;
                }
                let query = row(&x.q, i);
                let read = |seen: &[Remembered<R>]| {
                    let mut out = vec![R::zero(); s.dim];
                    let dot = |key: &[R]| query.iter().zip(key).fold(R::zero(), |dot, (&q, &k)| dot + q * k) * scale;
                    let scores: Vec<R> = seen.iter().flatten().map(|(key, _)| dot(key)).collect();
                    let values: Vec<Vec<R>> = seen.iter().flatten().map(|(_, value)| value.clone()).collect();
                    softmax_mix(&scores, &values, &mut out);
                    out
                };
                for (new, old) in read(&new).into_iter().zip(read(&group)) {
                    sum += (new - old) * (new - old);
                }
            }
        }
    }
    if count == 0 { sum } else { sum / R::from_f64(count as f64) }
}
