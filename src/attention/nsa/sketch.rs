//! A picture of what is read: the choice itself depends on the data, and is drawn by lot here.

use super::*;
use crate::attention::draw::Stream;
use crate::pattern::Bits;
use std::sync::Arc;

/// What some query may read: its window, the blocks that are always chosen, some others, and of the compressed past the middle of
/// every block.
pub fn sketch(s: &Setup) -> Rule {
    let Choice { length, stride, block, count, .. } = choice(s);
    let (n, near) = (s.length, s.int(&WINDOW) / 4);
    let row = |_: usize, i: usize| {
        let own = i / block;
        // Neighbours mostly choose alike.
        let mut lots = Stream::new(s.seed, "nsa", &[i / (block / 2).max(1)]);
        let mut chosen = vec![0, own];
        while own > 2 && chosen.len() < count.min(own) {
            chosen.push(1 + lots.below(own - 1));
        }
        let summary = |j: usize| j % stride == length / 2 % stride && j + length <= i;
        (0..n).map(|j| j <= i && (i - j < near || chosen.contains(&(j / block)) || summary(j))).collect()
    };
    Rule::Bits { bits: Arc::new(Bits::from_rows(1, n, n, row)) }
}
