//! Attention by strips.

use crate::check::{self, Check};
use attention_lab::graph::ops::strip_attention::{Keys, Normaliser, Score, Slots, StripInputs};
use attention_lab::graph::{Graph, Node};

/// Sizes of a call: B, H, N, R, A, D.
type Sizes = [usize; 6];

fn check(name: &str, [b, h, n, rows, a, d]: Sizes) -> Check {
    let name = format!("{name} {b} {h} {n} {rows} {a} {d}");
    Check::new(&name).real(&[b, h, n, a]).real(&[b, h, rows, a]).real(&[b, h, rows, d])
}

fn attend(g: &mut Graph, x: StripInputs, score: Score, normaliser: Normaliser, keys: Keys) -> Vec<Node> {
    vec![g.strip_attention(x, score, normaliser, keys)]
}

const DOT: Score = Score::Dot { scale: 0.7 };

#[test]
fn dot_products_and_a_softmax() {
    for (sizes, causal) in [
        ([1, 1, 1, 1, 1, 1], true),
        ([2, 3, 7, 7, 3, 5], true),
        ([2, 2, 65, 70, 4, 4], true),
        ([1, 2, 9, 4, 6, 3], false),
    ] {
        check("dot", sizes)
            .run(|g, x| attend(g, StripInputs::new(x[0], x[1], x[2]), DOT, Normaliser::Softmax, Keys::All { causal }));
    }
}

#[test]
fn several_strips_of_one_head() {
    // More queries than a strip has on any adapter.
    let keys = |causal| Keys::All { causal };
    for causal in [false, true] {
        check("long", [1, 2, 1100, 1100, 4, 4])
            .without_gradients()
            .run(|g, x| attend(g, StripInputs::new(x[0], x[1], x[2]), DOT, Normaliser::Softmax, keys(causal)));
    }
    check("long, with gradients", [1, 1, 270, 270, 4, 4])
        .run(|g, x| attend(g, StripInputs::new(x[0], x[1], x[2]), DOT, Normaliser::Softmax, keys(true)));
}

#[test]
fn entmax_with_an_alpha_for_each_head() {
    for (sizes, causal) in [([2, 2, 1, 1, 3, 2], true), ([2, 3, 13, 13, 3, 5], true), ([1, 2, 66, 40, 4, 4], false)] {
        check("entmax", sizes).between(&[sizes[1]], 1.15, 1.9).run(|g, x| {
            let inputs = StripInputs { alpha: Some(x[3]), ..StripInputs::new(x[0], x[1], x[2]) };
            attend(g, inputs, DOT, Normaliser::Entmax, Keys::All { causal })
        });
    }
}

#[test]
fn padded_rows_have_no_weight() {
    let sizes = [2, 2, 11, 17, 3, 5];
    let real = |r: &mut check::Random| if r.below(3) == 0 { 0.0 } else { 1.0 };
    check("padded", sizes).between(&[2], 1.2, 1.8).fixed(&[2, 17], real).run(|g, x| {
        let inputs = StripInputs { alpha: Some(x[3]), real: Some(x[4]), ..StripInputs::new(x[0], x[1], x[2]) };
        attend(g, inputs, DOT, Normaliser::Entmax, Keys::All { causal: false })
    });
    // Nothing but padding: zeros, and no gradient.
    check("all padded", sizes).fixed(&[2, 17], |_| 0.0).run(|g, x| {
        let inputs = StripInputs { real: Some(x[3]), ..StripInputs::new(x[0], x[1], x[2]) };
        attend(g, inputs, DOT, Normaliser::Softmax, Keys::All { causal: true })
    });
}

#[test]
fn additive_scores() {
    for (sizes, causal) in [([1, 1, 1, 1, 1, 1], false), ([2, 2, 9, 9, 5, 3], true), ([1, 2, 30, 45, 8, 4], false)] {
        check("additive", sizes).real(&[sizes[1], sizes[4]]).run(|g, x| {
            let [left, right] = [x[0], x[1]].map(|x| {
                let twice = g.scale(x, 2.0);
                g.exp(twice)
            });
            let inputs = StripInputs { weights: Some(x[3]), ..StripInputs::new(left, right, x[2]) };
            attend(g, inputs, Score::Additive, Normaliser::Softmax, Keys::All { causal })
        });
    }
}

fn relative(sizes: Sizes, distances: usize, length: usize, memory: usize, slots: Slots) {
    let [b, h, n, _, a, _] = sizes;
    let name = format!("relative, segments of {length}, memory {memory}, {slots:?}");
    let check = check(&name, sizes).real(&[b, h, n, a]).real(&[h, distances, a]);
    // Central differences see what is remembered as well, so they hold only where nothing is.
    let check = if memory + slots.kept > 0 { check.halves() } else { check };
    check.run(|g, x| {
        let inputs = StripInputs { second: Some(x[3]), positions: Some(x[4]), ..StripInputs::new(x[0], x[1], x[2]) };
        let keys = Keys::Segments { length, memory, slots };
        attend(g, inputs, Score::Relative { scale: 0.5 }, Normaliser::Softmax, keys)
    });
}

#[test]
fn relative_positions_in_segments() {
    let none = Slots::default();
    relative([1, 1, 1, 1, 2, 1], 1, 4, 0, none);
    relative([2, 2, 23, 23, 3, 5], 23, 23, 0, none);
    relative([2, 2, 23, 23, 4, 4], 9, 9, 0, none);
    relative([2, 2, 23, 23, 3, 5], 17, 9, 8, none);
    relative([1, 2, 70, 70, 4, 3], 40, 16, 24, none);
}

#[test]
fn compressed_memory_lies_in_front() {
    // Segments of 6 become 2 slots each; the newest 3 are seen.
    relative([2, 2, 33, 33 + 10, 3, 5], 6 + 6 + 3, 6, 6, Slots { each: 2, kept: 3, total: 10 });
}
