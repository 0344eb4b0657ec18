//! A picture of what is read: the choice itself follows the data, and is drawn by lot here.

use super::*;
use crate::attention::draw::Stream;
use crate::pattern::Bits;
use std::sync::Arc;

/// Blocks that are neither the first nor among the last two, of those that a query reads.
const OTHERS: usize = 2;

/// What queries may read: the first block, the last two, in which the window lies, some others, and of every block before them
/// one key that stands for it. Blocks are large enough to be seen: with the parameters' own sizes so few tokens have no more
/// blocks than are read.
pub fn sketch(s: &Setup) -> Rule {
    let (n, block) = (s.length, (s.length / 11).max(2));
    let row = |_: usize, i: usize| {
        let own = i / block;
        // Neighbours mostly choose alike.
        let mut lots = Stream::new(s.seed, "nsa", &[2 * i / block]);
        let mut chosen = vec![0, own, own.saturating_sub(1)];
        chosen.extend((0..OTHERS).filter(|_| own > 2).map(|_| 1 + lots.below(own - 2)));
        let stands_for_its_block = |j: usize| j % block == block / 2;
        (0..n).map(|j| j <= i && (chosen.contains(&(j / block)) || stands_for_its_block(j))).collect()
    };
    Rule::Bits { bits: Arc::new(Bits::from_rows(1, n, n, row)) }
}
