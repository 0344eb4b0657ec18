//! Block lists and counts of rules against the predicate itself, pair by pair.

use attention_lab::pattern::{BlockList, Rule, Run};

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
    if random.below(5) == 0 {
        return Rule::All { causal };
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
            assert_eq!(rule.keys(i, n, m), want, "{rule:?}, row {i} of {n}, {m} keys");
        }
        let from = random.below(n as u64) as usize;
        let mut set = vec![false; n];
        set[from] = true;
        let want: Vec<u64> = (0..4)
            .map(|_| {
                set = (0..n).map(|j| (0..n).any(|i| set[i] && rule.may(i, j, n, n))).collect();
                set.iter().filter(|&&r| r).count() as u64
            })
            .collect();
        assert_eq!(rule.reach(n, from, 4), want, "{rule:?}, from {from} of {n}");
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
