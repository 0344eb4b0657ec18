//! Cases in which an approximation must become exact, and how its error falls.

use crate::case::{Case, Shape};
use crate::close::{Random, assert_close, rms};
use crate::limits::{assert_near_full, case, out};
use attention_lab::attention::Request;

/// Relative error of a Performer's matrix to the softmax's, over some draws of its directions, for small queries and keys: the
/// variance of the estimate grows with exp(|q' + k'|²).
fn performer_error(features: usize, orthogonal: bool, draws: u64) -> f64 {
    let shape = Shape { batch: 1, heads: 1, n: 32, m: 32, dim: 16 };
    let mut full = Case::new("full", shape, false, "{}", Request::default());
    let json = format!(r#"{{"features": {features}, "orthogonal": {orthogonal}}}"#);
    let mut case = Case::new("performer", shape, false, &json, Request::default());
    let mut random = Random(7);
    for name in ["q", "k"] {
        let values: Vec<f64> = (0..32 * 16).map(|_| 0.25 * random.normal()).collect();
        full.set(name, values.clone());
        case.set(name, values);
    }
    let want = full.effective();
    let errors = (0..draws).map(|seed| {
        case.setup.seed = seed;
        let drawn = case.variant.drawn(&case.setup);
        case.set("projection", drawn["projection"].iter().map(|&x| x.into()).collect());
        let difference: Vec<f64> = case.effective().iter().zip(&want).map(|(a, b)| a - b).collect();
        (rms(&difference) / rms(&want)).powi(2)
    });
    (errors.sum::<f64>() / draws as f64).sqrt()
}

#[test]
fn a_performers_error_falls_with_the_root_of_its_features() {
    let (few, many) = (performer_error(16, false, 40), performer_error(256, false, 40));
    let slope = (many / few).log2() / 4.0;
    println!("16 features {few}, 256 features {many}, slope {slope}");
    assert!((-0.6..-0.4).contains(&slope), "{slope}");
    assert!(many < 0.1, "{many}");
}

#[test]
fn orthogonal_directions_are_no_worse_than_independent_ones() {
    let (orthogonal, independent) = (performer_error(64, true, 40), performer_error(64, false, 40));
    assert!(orthogonal < 1.02 * independent, "{orthogonal} and {independent}");
}

#[test]
fn a_performers_mean_of_constant_values_is_their_value() {
    for causal in [false, true] {
        let mut case = case("performer", 130, causal, r#"{"features": 16}"#);
        let want = vec![2.0; case.real("v").len()];
        case.set("v", want.clone());
        assert_close("constant values", &want, &out(&case), 1e-5);
    }
}

#[test]
fn nystrom_landmarks_of_one_token_each_give_full_attention() {
    let case = case("nystromformer", 48, false, r#"{"landmarks": 48, "iterations": 20, "conv_kernel": 0}"#);
    assert_near_full(&case, "m = N", 1e-3);
}

#[test]
fn nystrom_is_exact_where_segments_are_constant() {
    let n = 60;
    let mut case = case("nystromformer", n, false, r#"{"landmarks": 10, "iterations": 20, "conv_kernel": 0}"#);
    let dim = case.setup.dim;
    for name in ["q", "k"] {
        let values = case.real(name).to_vec();
        // The first token of each segment of six.
        let first = |i: usize| (i / dim / 6 * 6) * dim + i % dim;
        case.set(name, (0..values.len()).map(|i| values[first(i)]).collect());
    }
    assert_near_full(&case, "constant segments", 1e-3);
}

#[test]
fn rows_of_a_converged_nystrom_matrix_sum_to_one() {
    let n = 60;
    let mut case = case("nystromformer", n, false, r#"{"landmarks": 6, "iterations": 20, "conv_kernel": 0}"#);
    // Landmarks along the six directions of the axes, so that their matrix is well conditioned.
    let direction = |i: usize| {
        let segment = i / 3 % n / 10;
        if i % 3 != segment % 3 {
            0.0
        } else if segment < 3 {
            2.0
        } else {
            -2.0
        }
    };
    for name in ["q", "k"] {
        let values = case.real(name).iter().enumerate().map(|(i, x)| direction(i) + 0.3 * x).collect();
        case.set(name, values);
    }
    let sums: Vec<f64> = case.effective().chunks(n).map(|row| row.iter().sum()).collect();
    assert_close("row sums", &vec![1.0; sums.len()], &sums, 1e-4);
}

#[test]
fn a_nystrom_filter_of_zeros_adds_nothing() {
    let mut with = case("nystromformer", 65, false, r#"{"landmarks": 8, "conv_kernel": 7}"#);
    let mut without = case("nystromformer", 65, false, r#"{"landmarks": 8, "conv_kernel": 0}"#);
    with.set("conv", vec![0.0; 2 * 7]);
    for name in ["q", "k", "v"] {
        without.set(name, with.real(name).to_vec());
    }
    assert_eq!(out(&without), out(&with));
    // One tap in the middle adds the values themselves.
    with.set("conv", (0..14).map(|i| f64::from(u8::from(i % 7 == 3))).collect());
    let want: Vec<f64> = out(&without).iter().zip(with.real("v")).map(|(a, b)| a + b).collect();
    assert_close("one tap", &want, &out(&with), 1e-6);
}

#[test]
fn a_random_synthesizer_has_the_weights_that_its_matrix_says() {
    let n = 33;
    let mut case = case("synthesizer", n, false, r#"{"kind": "random"}"#);
    let mut random = Random(3);
    let target: Vec<f64> = (0..2 * n)
        .flat_map(|_| {
            let row: Vec<f64> = (0..n).map(|_| 0.1 + random.unit()).collect();
            let sum: f64 = row.iter().sum();
            row.into_iter().map(move |x| x / sum).collect::<Vec<_>>()
        })
        .collect();
    case.set("R", target.iter().map(|x| x.ln()).collect());
    // The same in both batch entries, whatever the tokens are.
    assert_close("the target", &[&target[..], &target[..]].concat(), &case.effective(), 1e-5);
    case.set("R", vec![0.0; 2 * n * n]);
    assert_close("mean pooling", &vec![1.0 / n as f64; 4 * n * n], &case.effective(), 1e-5);
}

#[test]
fn a_factorized_synthesizer_with_an_identity_is_the_random_one() {
    let n = 24;
    for causal in [false, true] {
        let random = case("synthesizer", n, causal, r#"{"kind": "random"}"#);
        let mut factorized = case("synthesizer", n, causal, r#"{"kind": "factorized_random", "rank": 24}"#);
        factorized.set("v", random.real("v").to_vec());
        factorized.set("R1", random.real("R").to_vec());
        factorized.set("R2", (0..2 * n * n).map(|i| f64::from(u8::from(i / n % n == i % n))).collect());
        assert_close("R2 = I", &out(&random), &out(&factorized), 1e-5);
    }
}

#[test]
fn a_synthesizers_mixture_of_dot_products_alone_is_full_attention() {
    for causal in [false, true] {
        let mut case = case("synthesizer", 70, causal, r#"{"kind": "mixture"}"#);
        case.set("alpha", [200.0, 0.0, 0.0].repeat(2));
        assert_near_full(&case, "all weight on dot products", 1e-5);
    }
}

/// A call with one batch entry and one head.
fn alone(id: &str, n: usize, causal: bool, json: &str) -> Case {
    Case::new(id, Shape { batch: 1, heads: 1, ..Shape::of(n) }, causal, json, Request::default())
}

#[test]
fn a_cluster_for_each_query_gives_full_attention() {
    let n = 24;
    let mut case = alone("clustered", n, false, r#"{"clusters": 24, "bits": 64, "iterations": 0}"#);
    // Each code is the hash of one query.
    let (planes, q) = (case.real("planes").to_vec(), case.real("q").to_vec());
    let value = |i: usize, r: usize| {
        let plane = &planes[r * 4..][..4];
        (0..3).map(|d| plane[d] * q[i * 3 + d]).sum::<f64>() - plane[3]
    };
    case.set("codes", (0..n * 64).map(|at| value(at / 64, at % 64)).collect());
    let mut full = alone("full", n, false, "{}");
    for name in ["q", "k", "v"] {
        full.set(name, case.real(name).to_vec());
    }
    assert_close("C = N", &out(&full), &out(&case), 2e-6);
}

#[test]
fn equal_queries_are_served_exactly_by_one_cluster() {
    let mut case = case("clustered", 65, false, r#"{"clusters": 1}"#);
    let first = case.real("q")[..3].to_vec();
    case.set("q", first.repeat(4 * 65));
    assert_near_full(&case, "one cluster", 1e-5);
}

#[test]
fn improved_clusters_with_every_key_are_full_attention() {
    let case = case("clustered", 50, false, r#"{"clusters": 4, "improved": true, "top": 50}"#);
    assert_near_full(&case, "k = N", 1e-5);
}

#[test]
fn improving_clusters_brings_every_row_nearer() {
    let n = 65;
    let plain = case("clustered", n, false, r#"{"clusters": 6}"#);
    let mut improved = case("clustered", n, false, r#"{"clusters": 6, "improved": true, "top": 8}"#);
    let mut full = case("full", n, false, "{}");
    for name in ["q", "k", "v"] {
        full.set(name, plain.real(name).to_vec());
        improved.set(name, plain.real(name).to_vec());
    }
    for name in ["planes", "codes"] {
        improved.set(name, plain.real(name).to_vec());
    }
    let exact = full.effective();
    let distances = |case: &Case| -> Vec<f64> {
        let cells: Vec<f64> = case.effective().iter().zip(&exact).map(|(a, b)| (a - b).abs()).collect();
        cells.chunks(n).map(|row| row.iter().sum()).collect()
    };
    let (before, after) = (distances(&plain), distances(&improved));
    assert!(before.iter().zip(&after).all(|(before, after)| *after <= before + 1e-6));
    assert!(rms(&after) < 0.9 * rms(&before), "{} and {}", rms(&after), rms(&before));
}

#[test]
fn a_funnel_without_pooling_is_full_attention() {
    assert_near_full(&case("funnel", 65, false, r#"{"poolings": 0}"#), "no pooling", 2e-6);
}

#[test]
fn a_funnel_is_exact_where_pooled_queries_are_equal() {
    let mut case = case("funnel", 66, false, r#"{"separate_first": false}"#);
    let values = case.real("q").to_vec();
    case.set("q", (0..values.len()).map(|i| values[i / 6 * 6 + i % 3]).collect());
    assert_near_full(&case, "constant pairs", 2e-6);
}

/// The same queries for keys, normalised, through full attention in which no token sees itself.
fn assert_is_shared_full(case: &Case, label: &str) {
    let s = &case.setup;
    let (n, dim) = (s.length, s.dim);
    let mut full = Case::new("full", Shape::of(n), s.causal, "{}", Request { optional: true, ..Request::default() });
    let q = case.real("q").to_vec();
    let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    full.set("k", q.chunks(dim).flat_map(|row| row.iter().map(|x| x / length(row)).collect::<Vec<_>>()).collect());
    full.set("q", q);
    full.set("v", case.real("v").to_vec());
    // The first token has only itself when causal.
    full.set("bias", (0..4 * n * n).map(|i| if i % n == i / n % n { -60.0 } else { 0.0 }).collect());
    assert_close(label, &out(&full), &out(case), 1e-5);
}

#[test]
fn a_reformer_with_two_chunks_is_full_attention_with_shared_keys() {
    for causal in [false, true] {
        let json = r#"{"rounds": 1, "chunk": 20, "buckets": 4, "across_buckets": true}"#;
        assert_is_shared_full(&case("reformer", 40, causal, json), "two chunks");
        let json = r#"{"rounds": 3, "chunk": 64, "buckets": 2, "across_buckets": true}"#;
        assert_is_shared_full(&case("reformer", 50, causal, json), "one chunk, seen three times");
    }
}

#[test]
fn more_hash_rounds_find_more_of_the_largest_weights() {
    let n = 128;
    let kept = |rounds: usize| -> f64 {
        let json = format!(r#"{{"rounds": {rounds}, "chunk": 8, "buckets": 16}}"#);
        let case = case("reformer", n, false, &json);
        let found = case.effective();
        let q = case.real("q");
        let rows = 4 * n;
        let hits = (0..rows).filter(|&row| {
            let head = row / n * n;
            let score = |j: usize| {
                let key = &q[(head + j) * 3..][..3];
                let dot: f64 = q[row * 3..][..3].iter().zip(key).map(|(a, b)| a * b).sum();
                dot / key.iter().map(|x| x * x).sum::<f64>().sqrt()
            };
            let others = (0..n).filter(|&j| j != row % n);
            let best = others.max_by(|&a, &b| score(a).total_cmp(&score(b))).expect("two tokens");
            found[row * n + best] > 0.0
        });
        hits.count() as f64 / rows as f64
    };
    let (once, often) = (kept(1), kept(6));
    assert!(once > 0.2 && often > once + 0.1, "{once} and {often}");
}

#[test]
fn routing_through_one_centroid_is_full_attention() {
    for causal in [false, true] {
        assert_near_full(&case("routing", 65, causal, r#"{"clusters": 1, "window": 65}"#), "one centroid", 2e-6);
    }
}

#[test]
fn rows_of_a_routing_matrix_sum_to_one_or_nothing() {
    for causal in [false, true] {
        let case = case("routing", 64, causal, r#"{"clusters": 4, "window": 16}"#);
        let sums: Vec<f64> = case.effective().chunks(64).map(|row| row.iter().sum()).collect();
        assert!(sums.iter().all(|sum| *sum == 0.0 || (sum - 1.0).abs() < 1e-5), "{sums:?}");
        let unrouted = sums.iter().filter(|sum| **sum == 0.0).count();
        assert!(0 < unrouted && unrouted < 192, "{unrouted} of 256 tokens are in no cluster");
    }
}

#[test]
fn sinkhorn_with_one_block_is_full_attention() {
    assert_near_full(&case("sinkhorn", 40, false, r#"{"block": 64}"#), "one block, its keys twice", 1e-5);
    assert_near_full(&case("sinkhorn", 40, true, r#"{"block": 64}"#), "one block has nothing before it", 1e-5);
}

#[test]
fn a_sinkhorn_sorting_that_moves_nothing_is_attention_within_blocks() {
    let (n, size) = (40, 8);
    let mut local = case("sinkhorn", n, false, r#"{"block": 8, "sort": "random", "temperature": 1}"#);
    local.set("lots", (0..2 * 25).map(|i| if i / 5 % 5 == i % 5 { 9.0 } else { 0.0 }).collect());
    // Blocks as batch entries of their own.
    let mut full = Case::new("full", Shape { batch: 20, heads: 1, ..Shape::of(size) }, false, "{}", Request::default());
    for name in ["q", "k", "v"] {
        full.set(name, local.real(name).to_vec());
    }
    assert_close("identity", &out(&full), &out(&local), 1e-5);
    // All blocks, sorted by a permutation, for everyone.
    let mut all = case("sinkhorn", n, false, r#"{"block": 8, "sort": "random", "temperature": 1, "cut": 5}"#);
    all.set("lots", (0..2 * 25).map(|i| if (i / 5 % 5 + 2) % 5 == i % 5 { 9.0 } else { 0.0 }).collect());
    assert_near_full(&all, "SortCut of everything", 1e-5);
}
