//! Blocks that are sorted, drawn or chosen.

use super::{Told, dot, each};
use crate::close::assert_close;

/// Π by its definition: blocks' means, normalised in turn.
fn sorting(told: &Told, b: usize, h: usize) -> Vec<Vec<f64>> {
    let s = &told.case.setup;
    let size = told.int("block");
    let blocks = s.length.div_ceil(size);
    let mean = |tensor: &str, tokens: std::ops::Range<usize>| -> Vec<f64> {
        let len = tokens.len() as f64;
        (0..s.dim).map(|d| tokens.clone().map(|i| told.token(tensor, b, h, i)[d]).sum::<f64>() / len).collect()
    };
    let place = |name: &str, u: usize| &told.case.real(name)[(h * blocks + u) * s.dim..][..s.dim];
    let plus = |a: Vec<f64>, b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let logit = |u: usize, v: usize| {
        let raw = if told.choice("sort") == "random" {
            told.case.real("lots")[(h * blocks + u) * blocks + v]
        } else {
            let seen = if s.causal { 0..u * size + 1 } else { u * size..((u + 1) * size).min(s.length) };
            let query = plus(mean("q", seen), place("query_blocks", u));
            let key = plus(mean("k", v * size..((v + 1) * size).min(s.length)), place("key_blocks", v));
            dot(&query, &key) / (s.dim as f64).sqrt()
        };
        raw * 100.0 / told.int("temperature") as f64
    };
    let mut pi: Vec<Vec<f64>> = (0..blocks)
        .map(|u| (0..blocks).map(|v| if s.causal && v >= u { 0.0 } else { logit(u, v).exp() }).collect())
        .collect();
    let by_rows = |pi: &mut [Vec<f64>]| {
        for row in pi {
            let sum: f64 = row.iter().sum();
            row.iter_mut().filter(|_| sum > 0.0).for_each(|x| *x /= sum);
        }
    };
    if s.causal {
        by_rows(&mut pi);
        return pi;
    }
    for _ in 0..told.int("iterations") {
        by_rows(&mut pi);
        for v in 0..blocks {
            let sum: f64 = pi.iter().map(|row| row[v]).sum();
            pi.iter_mut().for_each(|row| row[v] /= sum);
        }
    }
    pi
}

#[test]
fn sinkhorn_sorting_is_nearly_a_permutation() {
    each("sinkhorn", "sorting", |told| {
        told.each(|b, h| {
            let got = told.rows(b, h);
            let want = sorting(told, b, h);
            assert_close("sorting", &want[..got.len()].concat(), &got.concat(), 1e-4);
            // Columns were normalised last; of SortCut only the first rows are kept.
            if !told.case.setup.causal && got.len() == got[0].len() {
                for v in 0..got.len() {
                    let sum: f64 = got.iter().map(|row| row[v]).sum();
                    assert!((sum - 1.0).abs() < 1e-4, "column {v} sums to {sum}");
                }
            }
        });
    });
}

#[test]
fn bigbird_blocks_are_what_its_rule_adds_by_chance() {
    each("bigbird", "random", |told| {
        let s = &told.case.setup;
        let size = told.int("block");
        let count = s.length.div_ceil(size);
        let rule = (told.case.variant.rule)(s).expect("a pattern");
        let globals = told.int("global_blocks").min(count);
        let back = if told.choice("globals") == "itc" { globals / 2 } else { 0 };
        let is_global = |block: usize| block < globals - back || block >= count - back;
        told.each(|b, h| {
            for (u, drawn) in told.whole(b, h).iter().enumerate() {
                for v in 0..count {
                    let always = is_global(u) || is_global(v) || u.abs_diff(v) <= told.int("window") / 2;
                    let times = drawn.iter().filter(|&&d| d == v).count();
                    assert!(times <= usize::from(!always), "block {v} was drawn {times} times for {u}");
                    let sees = rule.may_in(h, u * size, v * size, s.length, s.keys);
                    assert_eq!(sees, always || times == 1, "blocks {u} and {v} of head {h}");
                }
            }
        });
    });
}

#[test]
fn blockbert_blocks_are_those_of_its_rule() {
    each("blockbert", "blocks", |told| {
        let s = &told.case.setup;
        let size = s.length.div_ceil(told.int("blocks"));
        let rule = (told.case.variant.rule)(s).expect("a pattern");
        told.each(|b, h| {
            for (u, seen) in told.whole(b, h).iter().enumerate() {
                for j in 0..s.keys {
                    assert_eq!(
                        rule.may_in(h, u * size, j, s.length, s.keys),
                        seen[0] == j / size,
                        "block {u}, key {j}"
                    );
                }
            }
        });
    });
}

/// What the compressed keys that a block overlaps weigh for a query, over the heads of a group, or the blocks' lots.
fn block_scores(told: &Told, b: usize, group: usize, i: usize, blocks: usize) -> Vec<f64> {
    let s = &told.case.setup;
    let [length, stride, block] = ["block", "stride", "select_block"].map(|name| told.int(name));
    if told.choice("selection") == "random" {
        return told.case.real("lots")[(group * s.length + i) * blocks..][..blocks].to_vec();
    }
    let heads = told.int("group").min(s.heads);
    let mut scores = vec![0.0; blocks];
    for h in group * heads..((group + 1) * heads).min(s.heads) {
        let seen: Vec<usize> = (0..s.length).step_by(stride).filter(|start| start + length <= i + 1).collect();
        let weights: Vec<f64> = seen
            .iter()
            .map(|&start| {
                let key: Vec<f64> = (0..s.dim)
                    .map(|d| {
                        let place = |t: usize| match told.choice("compress").as_str() {
                            "learned" => told.case.real("phi_k")[h * length + t],
                            _ => 1.0 / length as f64,
                        };
                        (0..length).map(|t| told.token("k", b, h, start + t)[d] * place(t)).sum()
                    })
                    .collect();
                (dot(told.token("q", b, h, i), &key) / (s.dim as f64).sqrt()).exp()
            })
            .collect();
        let total: f64 = weights.iter().sum();
        for (start, weight) in seen.iter().zip(&weights) {
            for (u, score) in scores.iter_mut().enumerate() {
                let overlap = (start + length).min((u + 1) * block).saturating_sub(*start.max(&(u * block)));
                *score += weight / total * overlap as f64 / stride as f64;
            }
        }
    }
    scores
}

#[test]
fn nsa_blocks_are_the_fixed_ones_and_those_of_the_most_weight() {
    each("nsa", "blocks", |told| {
        let s = &told.case.setup;
        let (block, count) = (told.int("select_block"), told.int("select_count"));
        let blocks = s.length.div_ceil(block);
        let heads = told.int("group").min(s.heads);
        told.each(|b, h| {
            for (i, got) in told.whole(b, h).iter().enumerate() {
                let own = i / block;
                let got: Vec<usize> = got.iter().copied().filter(|&u| u < blocks).collect();
                assert_eq!(got.len(), count.min(own + 1), "query {i} reads {got:?}");
                let mut sorted = got.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert!(sorted.len() == got.len() && got.iter().all(|&u| u <= own), "query {i} reads {got:?}");
                for fixed in [0, own, own.saturating_sub(1)] {
                    assert!(got.contains(&fixed), "query {i} reads {got:?} and not {fixed}");
                }
                let scores = block_scores(told, b, h / heads, i, blocks);
                let is_fixed = |u: usize| u == 0 || u == own || u + 1 == own;
                let least = got.iter().filter(|&&u| !is_fixed(u)).map(|&u| scores[u]).fold(f64::INFINITY, f64::min);
                let left = (0..=own).filter(|u| !got.contains(u)).map(|u| scores[u]).fold(f64::NEG_INFINITY, f64::max);
                assert!(least >= left - 1e-5, "query {i} took {least} and left {left}");
            }
        });
    });
}
