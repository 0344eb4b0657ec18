//! Block lists and counts of rules against the predicate itself, pair by pair.

use attention_lab::pattern::{Bits, BlockList, Part, Rule, Run};
use std::sync::Arc;

/// A small seeded generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn random_rule(random: &mut Random) -> Rule {
    let causal = random.below(2) == 1;
    let part = [Part::Merged, Part::Local, Part::Far, Part::ByHead { odd: true }][random.below(4) as usize];
    match random.below(14) {
        13 => return Rule::Pooled { length: 1 + random.below(20) as u32, stride: 1 + random.below(9) as u32 },
        12 => {
            let (length, memory) = (1 + random.below(25) as u32, random.below(40) as u32);
            return Rule::Segments { length, memory, own: causal };
        }
        0 | 1 => return Rule::All { causal },
        2 => return Rule::Beyond { radius: random.below(30) as u32, causal },
        3 | 4 => {
            let (stride, reach) = (1 + random.below(20) as u32, random.below(30) as u32);
            return Rule::Strided { stride, reach, part, causal };
        }
        5 | 6 => {
            let (block, columns) = (1 + random.below(20) as u32, 1 + random.below(9) as u32);
            let (place, places) = (random.below(3) as u32, 1 + random.below(3) as u32);
            return Rule::Fixed { block, columns, place, places, part, causal };
        }
        7 | 8 => {
            let [local, kernel, base, levels] = [9, 5, 4, 8].map(|end| 1 + random.below(end) as u32);
            let period = if random.below(2) == 0 { 0 } else { random.below(40) as u32 };
            return Rule::Log { local, kernel, base, levels, period, causal };
        }
        _ => {}
    }
    let dilation = if random.below(2) == 0 { 1 } else { 1 + random.below(40) as u32 };
    let global = if random.below(2) == 0 { 0 } else { random.below(20) as u32 };
    Rule::Window { radius: random.below(30) as u32, dilation, global, causal }
}

/// Sizes, with as many keys as queries, more, and (rarely meant, still defined) fewer.
fn random_sizes(random: &mut Random) -> (usize, usize) {
    let n = 1 + random.below(90) as usize;
    match random.below(3) {
        0 => (n, n),
        1 => (n, n + random.below(40) as usize),
        _ => (n, 1 + random.below(90) as usize),
    }
}

/// The list of a rule by looking at every pair.
fn brute_force(rule: &Rule, n: usize, m: usize, block_q: usize, block_k: usize) -> BlockList {
    let mut offsets = vec![0];
    let mut runs: Vec<Run> = Vec::new();
    for first_row in (0..n).step_by(block_q) {
        let begin = runs.len();
        for (block, first_key) in (0..m).step_by(block_k).enumerate() {
            let rows = first_row..(first_row + block_q).min(n);
            let keys = first_key..(first_key + block_k).min(m);
            let size = rows.len() * keys.len();
            let allowed = rows.flat_map(|i| keys.clone().map(move |j| (i, j))).filter(|&(i, j)| rule.may(i, j, n, m));
            let allowed = allowed.count();
            if allowed == 0 {
                continue;
            }
            let full = allowed == size;
            match runs[begin..].last() {
                Some(r) if r.full == full && (r.first + r.count) as usize == block => {
                    runs.last_mut().unwrap().count += 1;
                }
                _ => runs.push(Run { first: block as u32, count: 1, full }),
            }
        }
        offsets.push(runs.len() as u32);
    }
    BlockList { block_q, block_k, n, m, heads: 1, offsets, runs }
}

#[test]
fn lists_of_random_rules_equal_brute_force() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3000 {
        let rule = random_rule(&mut random);
        let (n, m) = random_sizes(&mut random);
        let (block_q, block_k) = (1 + random.below(20) as usize, 1 + random.below(20) as usize);
        let want = brute_force(&rule, n, m, block_q, block_k);
        let got = BlockList::new(&rule, n, m, block_q, block_k);
        assert_eq!(got, want, "{rule:?}, {n} queries, {m} keys");
    }
}

#[test]
fn transposing_lists_the_same_blocks() {
    let mut random = Random(7);
    for _ in 0..500 {
        let rule = random_rule(&mut random);
        let (n, m) = random_sizes(&mut random);
        let list = BlockList::new(&rule, n, m, 1 + random.below(9) as usize, 1 + random.below(9) as usize);
        let transposed = list.transposed();
        assert_eq!(transposed.visited(), list.visited());
        assert_eq!(transposed.pairs(), list.pairs());
        assert_eq!(transposed.total(), list.total());
        let blocks = |list: &BlockList| -> Vec<(u32, u32, bool)> {
            let mut blocks = Vec::new();
            for row in 0..list.query_blocks() {
                for run in list.runs_of(0, row) {
                    blocks.extend((run.first..run.first + run.count).map(|b| (row as u32, b, run.full)));
                }
            }
            blocks
        };
        let mut back: Vec<_> = blocks(&transposed).into_iter().map(|(k, q, full)| (q, k, full)).collect();
        back.sort_unstable();
        assert_eq!(back, blocks(&list), "{rule:?}");
        assert_eq!(transposed.transposed(), list, "{rule:?}");
    }
}

#[test]
fn counts_of_random_rules_equal_brute_force() {
    let mut random = Random(11);
    for _ in 0..2000 {
        let rule = random_rule(&mut random);
        let (n, m) = random_sizes(&mut random);
        for i in 0..n {
            let want = (0..m).filter(|&j| rule.may(i, j, n, m)).count() as u64;
            assert_eq!(rule.keys(0, i, n, m), want, "{rule:?}, row {i} of {n}, {m} keys");
        }
        let from = random.below(n as u64) as usize;
        let mut set = vec![false; n];
        set[from] = true;
        let want: Vec<u64> = (0..4)
            .map(|_| {
                set = (0..n).map(|j| set[j] || (0..n).any(|i| set[i] && rule.may(i, j, n, n))).collect();
                set.iter().filter(|&&r| r).count() as u64
            })
            .collect();
        assert_eq!(rule.reach(1, n, from, 4), want, "{rule:?}, from {from} of {n}");
    }
}

#[test]
fn long_lists_hold_no_more_than_they_visit() {
    let n = 1 << 20;
    let dense = BlockList::new(&Rule::All { causal: true }, n, n, 64, 64);
    assert!(dense.runs.len() <= 2 * n / 64, "a dense list is linear in the query blocks");
    // Far-apart dilated keys: the blocks between them are never looked at.
    let rule = Rule::Window { radius: 3, dilation: 100_000, global: 0, causal: false };
    let sparse = BlockList::new(&rule, n, n, 64, 64);
    assert!(sparse.visited() <= 14 * (n as u64 / 64), "{}", sparse.visited());
}

/// A list of some blocks, drawn for two heads.
fn random_blocks(random: &mut Random) -> BlockList {
    let (n, m) = random_sizes(random);
    let (block_q, block_k) = (1 + random.below(20) as usize, 1 + random.below(20) as usize);
    let blocks: Vec<Vec<u32>> = (0..2 * n.div_ceil(block_q))
        .map(|_| (0..random.below(4)).map(|_| random.below(m.div_ceil(block_k) as u64 + 2) as u32).collect())
        .collect();
    BlockList::of_blocks(&blocks, n, m, block_q, block_k)
}

#[test]
fn listed_blocks_are_what_their_rule_allows() {
    let mut random = Random(23);
    for _ in 0..500 {
        let list = random_blocks(&mut random);
        let (n, m) = (list.n, list.m);
        let rule = Rule::Listed { list: Arc::new(list.clone()), causal: false };
        assert_eq!(BlockList::of_heads(&rule, 2, n, m, list.block_q, list.block_k), list);
        let causal = Rule::Listed { list: Arc::new(list.clone()), causal: true };
        assert_eq!(rule.pairs(2, n, m), list.pairs());
        for head in 0..2 {
            assert_eq!(brute_force(&rule.of_head(head), n, m, list.block_q, list.block_k), list.of_head(head));
            let cut = BlockList::of_heads(&causal, 2, n, m, list.block_q, list.block_k).of_head(head);
            assert_eq!(brute_force(&causal.of_head(head), n, m, list.block_q, list.block_k), cut);
            let bits = rule.bits(head);
            for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
                let at = i / list.block_q * list.key_blocks() + j / list.block_k;
                let listed = bits[at / 32] >> (at % 32) & 1 == 1;
                assert_eq!(rule.may_in(head, i, j, n, m), listed);
                assert_eq!(causal.may_in(head, i, j, n, m), listed && j + n <= i + m);
            }
        }
    }
}

#[test]
fn bits_are_what_their_rule_allows() {
    let mut random = Random(37);
    for _ in 0..300 {
        let (n, m) = random_sizes(&mut random);
        let share = 1 + random.below(8);
        let bits = Bits::from_rows(2, n, m, |_, _| (0..m).map(|_| random.below(8) < share).collect());
        let rule = Rule::Bits { bits: Arc::new(bits.clone()) };
        for head in 0..2 {
            let list = BlockList::of_heads(&rule, 2, n, m, 6, 4);
            assert_eq!(brute_force(&rule.of_head(head), n, m, 6, 4), list.of_head(head));
            let set = (0..n).flat_map(|i| (0..m).map(move |j| (i, j))).filter(|&(i, j)| bits.test(head, i, j)).count();
            assert_eq!(rule.of_head(head).pairs(1, n, m), set as u64);
        }
    }
}

#[test]
fn heads_take_their_part_of_a_rule() {
    let mut random = Random(29);
    for _ in 0..500 {
        let rule = random_rule(&mut random);
        let (n, m) = random_sizes(&mut random);
        let lists = BlockList::of_heads(&rule, 3, n, m, 7, 5);
        assert_eq!(lists.heads, if rule.by_head() { 3 } else { 1 });
        let mut pairs = 0;
        for head in 0..3 {
            let own = rule.of_head(head);
            assert_eq!(lists.of_head(head), BlockList::new(&own, n, m, 7, 5), "{rule:?}, head {head}");
            pairs += own.pairs(1, n, m);
            for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
                assert_eq!(rule.may_in(head, i, j, n, m), own.may(i, j, n, m), "{rule:?}, head {head}");
            }
        }
        assert_eq!(rule.pairs(3, n, m), pairs);
        let none = lists.of_head(0).only_in(&[false, true]);
        assert!(none.of_head(0).runs.is_empty() && none.of_head(1) == lists.of_head(0));
    }
}

#[test]
fn closed_forms_of_two_part_patterns() {
    // E = N(2s + N/s - 2) - s(s-1) for the bidirectional union; N l - l(l-1)/2 and l n(n+1)/2 for its causal halves.
    let rule = |part, causal| Rule::Strided { stride: 8, reach: 7, part, causal };
    assert_eq!(rule(Part::Merged, false).pairs(1, 64, 64), 1352);
    assert_eq!(rule(Part::Local, true).pairs(1, 64, 64), 64 * 8 - 8 * 7 / 2);
    assert_eq!(rule(Part::Far, true).pairs(1, 64, 64), 8 * 8 * 9 / 2);
    // n l(l+1)/2, and c l n(n-1)/2 + n c(c+1)/2.
    let rule = |part| Rule::Fixed { block: 8, columns: 3, place: 0, places: 1, part, causal: true };
    assert_eq!(rule(Part::Local).pairs(1, 64, 64), 8 * 8 * 9 / 2);
    assert_eq!(rule(Part::Far).pairs(1, 64, 64), 3 * 8 * 8 * 7 / 2 + 8 * 3 * 4 / 2);
    // N log2 N + 1, and full reach in log2 N + 1 layers at most.
    let rule = Rule::Log { local: 1, kernel: 2, base: 2, levels: 32, period: 0, causal: true };
    assert_eq!(rule.pairs(1, 64, 64), 64 * 6 + 1);
    assert_eq!(rule.reach(1, 64, 63, 6)[5], 64);
    // Two hops lead everywhere.
    for part in [Part::Merged, Part::ByHead { odd: false }] {
        let rule = Rule::Strided { stride: 8, reach: 7, part, causal: true };
        assert_eq!(rule.reach(2, 64, 63, 2)[1], 64);
    }
}
