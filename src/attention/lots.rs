//! One token out of several by lot, where a method would take their mean: to see whether the mean matters.

use super::{Extra, Init, Setup};
use crate::graph::{BinaryKind, Data, Graph, Node};

/// What decides: a number for each token, the same for all texts and heads.
pub(super) const LOTS: &str = "lots";

pub(super) fn extra(s: &Setup) -> Extra {
    Extra {
        name: LOTS,
        shape: vec![s.length],
        role: "lot of each token: of those that stand together, the real one with the largest is taken",
        differentiable: false,
        optional: false,
        init: Init::Normal(1.0),
    }
}

/// 1 for the token whose lot is the largest along an axis and 0 for others, of those whose `share` is 1 and not 0. `lots`
/// and `share` have shapes that broadcast to each other.
pub(super) fn winners(g: &mut Graph, lots: Node, share: Node, axis: usize) -> Node {
    let lowest = g.constant(&[], Data::Real(vec![-1e30]));
    let drawn = g.select(share, lots, lowest);
    let largest = g.max(drawn, &[axis], true);
    let wins = g.binary(BinaryKind::Equal, drawn, largest);
    g.mul(wins, share)
}

/// Of each token the number of the group that it has a `share` in, `count` where it has none: `[batch, 1, 1, tokens]` of `share`
/// `[batch, 1, count, tokens of a group, 1]`, cut to the tokens in `range`.
pub(super) fn numbered(g: &mut Graph, share: Node, count: usize, range: std::ops::Range<usize>) -> Node {
    let &[batch, _, _, size, _] = g.shape(share) else { panic!("shares are [B, 1, groups, tokens, 1]") };
    let numbers = g.constant(&[1, 1, count, 1, 1], Data::Real((0..count).map(|group| group as f32).collect()));
    let numbers = g.broadcast_to(numbers, &[batch, 1, count, size, 1]);
    let none = g.constant(&[], Data::Real(vec![count as f32]));
    let numbers = g.select(share, numbers, none);
    let numbers = g.reshape(numbers, &[batch, 1, 1, count * size]);
    g.slice(numbers, 3, range)
}

/// The naive definition of [`winners`]: of some tokens, the one with the largest lot.
pub(super) fn winner<R: PartialOrd>(tokens: impl IntoIterator<Item = usize>, lots: &[R]) -> Option<usize> {
    tokens.into_iter().reduce(|a, b| if lots[b] > lots[a] { b } else { a })
}
