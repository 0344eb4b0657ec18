//! Sorting and filling maps with little code. The standard library's sort is compiled anew for every type and every comparison,
//! six kilobytes each, and so is the one with which a `BTreeMap` is collected; there were forty, a sixteenth of what a visitor
//! loads. Here a comparison is a call, and one sort of indices serves them all.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Stable sorting of a slice.
pub trait Arrange<T> {
    fn arrange_by(&mut self, compare: impl Fn(&T, &T) -> Ordering);

    fn arrange_by_key<K: Ord>(&mut self, key: impl Fn(&T) -> K) {
        self.arrange_by(|a, b| key(a).cmp(&key(b)));
    }
}

impl<T> Arrange<T> for [T] {
    fn arrange_by(&mut self, compare: impl Fn(&T, &T) -> Ordering) {
        let mut order = sorted(self.len(), &|a, b| compare(&self[a], &self[b]));
        // Each cycle of the permutation is walked once.
        for start in 0..self.len() {
            let mut at = start;
            loop {
                let from = std::mem::replace(&mut order[at], at);
                if from == start || from == at {
                    break;
                }
                self.swap(at, from);
                at = from;
            }
        }
    }
}

/// The numbers below `count` in order, equal ones as they stood.
fn sorted(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| compare(a, b));
    order
}

/// Pairs into a map; of equal keys the last one counts.
pub trait IntoMap<K, V>: Iterator<Item = (K, V)> + Sized {
    fn into_map(self) -> BTreeMap<K, V>
    where
        K: Ord,
    {
        let mut map = BTreeMap::new();
        map.extend(self);
        map
    }
}

impl<K, V, I: Iterator<Item = (K, V)>> IntoMap<K, V> for I {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::bits;

    #[test]
    fn everything_is_sorted_and_equals_keep_their_order() {
        for round in 0..200 {
            let count = bits(1, round, 0) % 40;
            let mut items: Vec<(u64, u64)> = (1..=count).map(|i| (bits(1, round, i) % 7, i)).collect();
            let mut want = items.clone();
            want.sort_by_key(|item| item.0);
            items.arrange_by_key(|item| item.0);
            assert_eq!(items, want);
            want.sort_by(|a, b| b.cmp(a));
            items.arrange_by(|a, b| b.cmp(a));
            assert_eq!(items, want);
        }
    }
}
