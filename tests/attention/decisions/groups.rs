//! Tokens put into groups: clusters, landmarks, pools, and the members of centroids.

use super::{Told, dot, each};
use attention_lab::attention::Form;

/// The first of the numbers below `count` for which `key` is least.
fn first_least(count: usize, key: impl Fn(usize) -> usize) -> usize {
    (0..count).fold(0, |best, c| if key(c) < key(best) { c } else { best })
}

#[test]
fn clusters_are_those_of_k_means_on_bits() {
    each("clustered", "groups", |told| {
        let (s, bits) = (&told.case.setup, told.int("bits"));
        let (n, dim) = (s.length, s.dim);
        let count = told.int("clusters").min(n);
        let planes = told.case.real("planes");
        let first: Vec<Vec<bool>> =
            told.case.real("codes").chunks(bits).map(|code| code.iter().map(|&x| x > 0.0).collect()).collect();
        told.each(|b, h| {
            let hashes: Vec<Vec<bool>> = (0..n)
                .map(|i| {
                    let plane = |r: usize| &planes[r * (dim + 1)..][..dim + 1];
                    (0..bits).map(|r| dot(&plane(r)[..dim], told.token("q", b, h, i)) > plane(r)[dim]).collect()
                })
                .collect();
            let assign = |codes: &[Vec<bool>]| -> Vec<usize> {
                let distance = |hash: &[bool], c: usize| codes[c].iter().zip(hash).filter(|(a, b)| a != b).count();
                hashes.iter().map(|hash| first_least(count, |c| distance(hash, c))).collect()
            };
            let mut codes = first.clone();
            for _ in 0..told.int("iterations") {
                let of = assign(&codes);
                for c in 0..count {
                    let members: Vec<usize> = (0..n).filter(|&i| of[i] == c).collect();
                    codes[c] = if members.is_empty() {
                        first[c].clone()
                    } else {
                        let ones = |bit: usize| members.iter().filter(|&&i| hashes[i][bit]).count();
                        (0..bits).map(|bit| 2 * ones(bit) > members.len()).collect()
                    };
                }
            }
            assert_eq!(told.whole(b, h), [assign(&codes)]);
        });
    });
}

/// The group of each token: all of them, or of each group the one with the largest lot.
fn check_groups(told: &Told, is_random: bool, group_of: impl Fn(usize) -> usize) {
    let n = told.case.setup.length;
    let count = group_of(n - 1) + 1;
    assert!(matches!(told.form, Form::Labels { count: of_form, .. } if of_form == count), "{:?}", told.form);
    let want: Vec<usize> = (0..n)
        .map(|i| {
            let wins = |lots: &[f64]| (0..n).all(|j| group_of(j) != group_of(i) || lots[j] <= lots[i]);
            if !is_random || wins(told.case.real("lots")) { group_of(i) } else { count }
        })
        .collect();
    told.each(|b, h| assert_eq!(told.whole(b, h), std::slice::from_ref(&want)));
}

#[test]
fn landmarks_are_segments_or_one_token_of_each() {
    each("nystromformer", "landmarks", |told| {
        let n = told.case.setup.length;
        let size = n.div_ceil(told.int("landmarks").min(n));
        check_groups(told, told.choice("choose") == "random", |i| i / size);
    });
}

#[test]
fn funnel_pools_hold_two_to_the_poolings_and_are_counted() {
    let of_token = |told: &Told, i: usize| {
        let size = 1 << told.int("poolings");
        let param = told.case.variant.params.iter().find(|p| p.name == "separate_first").expect("a parameter");
        if told.case.setup.bool(param) { i.div_ceil(size) } else { i / size }
    };
    each("funnel", "pools", |told| check_groups(told, told.choice("pool") == "random", |i| of_token(told, i)));
    each("funnel", "lengths", |told| {
        let n = told.case.setup.length;
        told.each(|b, h| assert_eq!(told.whole(b, h), [[n], [of_token(told, n - 1) + 1]]));
    });
}

/// The tokens whose affinity to each centroid is largest, in order.
fn check_members(told: &Told, tensor: &str, lots: &str) {
    let s = &told.case.setup;
    let (k, rows) = (told.int("clusters"), if tensor == "q" { s.length } else { s.keys });
    told.each(|b, h| {
        let got = told.whole(b, h);
        assert_eq!(got.len(), k);
        for (c, got) in got.iter().enumerate() {
            let affinity = |i: usize| -> f64 {
                if told.choice("choose") == "random" {
                    return told.case.real(lots)[(h * k + c) * rows + i];
                }
                let x = told.token(tensor, b, h, i);
                let mean = x.iter().sum::<f64>() / s.dim as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / s.dim as f64;
                let normal: Vec<f64> = x.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt()).collect();
                dot(&normal, &told.case.real("centroids")[(h * k + c) * s.dim..][..s.dim])
            };
            assert_eq!(got.len(), told.int("window").min(rows));
            assert!(got.is_sorted_by(|a, b| a < b) && got.iter().all(|&i| i < rows));
            let least = got.iter().map(|&i| affinity(i)).fold(f64::INFINITY, f64::min);
            let most = (0..rows).filter(|i| !got.contains(i)).map(affinity).fold(f64::NEG_INFINITY, f64::max);
            // Rounding may swap what lies as near.
            assert!(least >= most - 1e-4, "centroid {c} took {least} and left {most}");
        }
    });
}

#[test]
fn routing_members_have_the_largest_affinities() {
    each("routing", "queries", |told| check_members(told, "q", "query_lots"));
    each("routing", "keys", |told| check_members(told, "k", "key_lots"));
    each("routing", "tokens", |told| {
        assert!(told.case.setup.causal);
        check_members(told, "q", "query_lots");
    });
}
