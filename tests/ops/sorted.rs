//! Attention within chunks of sorted orders, and how the orders come about.

use crate::check::{Check, Random};
use attention_lab::graph::Dtype;
use attention_lab::graph::ops::sorted_attention::Chunks;

/// The score of a token with itself, near enough to others that it counts.
const ITSELF: f64 = -0.5;

/// B, H, N, D of a call, its chunks, and how many buckets there are.
fn check([b, h, n, d]: [usize; 4], chunks: Chunks, count: usize, causal: bool) {
    let mut random = Random((b + 3 * h + 7 * n + 31 * chunks.size) as u64);
    // Some are in the bucket of those that are never seen.
    let buckets = (0..b * h * chunks.rounds * n).map(|_| random.below(count as u32 + 1)).collect();
    Check::new(&format!("sorted attention {b} {h} {n} {d} {chunks:?} {count} causal {causal}"))
        .real(&[b, h, n, d])
        .real(&[b, h, n, d])
        .real(&[b, h, n, d])
        .indices(&[b * h, chunks.rounds, n], buckets)
        .run(|g, x| {
            let order = g.chunk_order(x[3], chunks, count);
            let (o, lse) = g.sorted_attention([x[0], x[1], x[2]], order, chunks, causal, ITSELF);
            // That of an empty row stands far below all others.
            let lse = g.tanh(lse);
            vec![o, lse]
        });
}

#[test]
fn chunks_of_every_kind() {
    let chunks = |size, rounds, across| Chunks { size, rounds, across };
    check([1, 1, 1, 1], chunks(4, 1, false), 2, true);
    check([2, 3, 13, 3], chunks(13, 2, false), 2, false);
    check([2, 2, 37, 4], chunks(5, 4, false), 4, false);
    check([2, 2, 37, 4], chunks(5, 4, false), 4, true);
    check([1, 2, 50, 8], chunks(16, 3, true), 6, true);
    check([1, 2, 33, 5], chunks(17, 6, false), 2, true);
    check([2, 1, 7, 4], chunks(1, 8, false), 2, false);
}

#[test]
fn orders_keep_equal_buckets_as_they_are() {
    for (n, count) in [(3, 1), (130, 4), (700, 256)] {
        let chunks = Chunks { size: 7, rounds: 3, across: false };
        let check = Check::new(&format!("chunk order of {n}")).index(&[2, 3, n], count as u32 + 1).without_gradients();
        check.run(|g, x| {
            let order = g.chunk_order(x[0], chunks, count);
            let tokens = g.slice(order, 0, 0..2 * 3 * n);
            vec![g.cast(tokens, Dtype::F32)]
        });
    }
}

#[test]
fn signed_argmax() {
    for padded in [false, true] {
        let check = Check::new(&format!("signed argmax, padded {padded}")).fixed(&[2, 3, 13, 2, 5], |r| {
            // Few values, so that there are ties.
            f64::from(r.below(5)) - 2.0
        });
        let check = if padded { check.index(&[2, 13], 2) } else { check };
        check.without_gradients().run(|g, x| {
            let found = g.signed_argmax(x[0], x.get(1).copied());
            vec![g.cast(found, Dtype::F32)]
        });
    }
}
