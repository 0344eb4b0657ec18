//! Limit cases of Native Sparse Attention: each branch alone, and what is chosen.

use crate::case::{Case, Shape};
use crate::close::assert_close;
use crate::device;
use crate::limits::{TIGHT, assert_equals_full, case, out};
use attention_lab::attention::Request;
use attention_lab::gpu::Category;
use attention_lab::graph::ops::choose_blocks::{Choice, NONE};
use attention_lab::graph::{Data, Dtype, Graph, TensorType, cpu};
use std::collections::BTreeMap;

/// With these gates for all tokens, 0 or 1.
fn gated(mut case: Case, open: [bool; 3]) -> Case {
    let logits = open.map(|open| if open { 90.0 } else { -90.0 });
    case.set("gates", (0..case.real("gates").len()).map(|i| logits[i % 3]).collect());
    case
}

#[test]
fn every_block_selected_is_full_attention() {
    let json = r#"{"block": 4, "stride": 2, "select_block": 8, "select_count": 12, "window": 1}"#;
    assert_equals_full(&gated(case("nsa", 90, true, json), [false, true, false]), "all of twelve blocks");
}

#[test]
fn a_window_over_everything_is_full_attention() {
    let json = r#"{"block": 4, "stride": 2, "select_block": 8, "window": 90}"#;
    assert_equals_full(&gated(case("nsa", 90, true, json), [false, false, true]), "w = N");
}

#[test]
fn compressed_blocks_of_one_token_are_full_attention() {
    let json = r#"{"block": 1, "stride": 1, "select_block": 4, "window": 1}"#;
    assert_equals_full(&gated(case("nsa", 90, true, json), [true, false, false]), "l = d = 1");
}

#[test]
fn learned_weights_that_are_equal_are_the_mean() {
    let json = |compress: &str| {
        format!(r#"{{"block": 6, "stride": 3, "select_block": 12, "window": 5, "compress": "{compress}"}}"#)
    };
    let mean = case("nsa", 100, true, &json("mean"));
    let mut learned = case("nsa", 100, true, &json("learned"));
    for name in ["phi_k", "phi_v"] {
        learned.set(name, vec![1.0 / 6.0; 2 * 6]);
    }
    for name in ["q", "k", "v", "gates"] {
        learned.set(name, mean.real(name).to_vec());
    }
    assert_close("equal weights", &out(&mean), &out(&learned), TIGHT);
}

#[test]
fn branches_read_their_own_keys_and_values() {
    let json = r#"{"block": 6, "stride": 3, "select_block": 6, "select_count": 3, "window": 5, "group": 1}"#;
    let request = Request { optional: true, ..Request::default() };
    let whole = Case::new("nsa", Shape::of(60), true, json, request);
    for (branch, (k, v)) in [("k_cmp", "v_cmp"), ("k_slc", "v_slc"), ("k_win", "v_win")].into_iter().enumerate() {
        let open = [0, 1, 2].map(|c| c == branch);
        let own = gated(whole.clone(), open);
        let mut shared = gated(case("nsa", 60, true, json), open);
        shared.set("q", own.real("q").to_vec());
        shared.set("k", own.real(k).to_vec());
        shared.set("v", own.real(v).to_vec());
        // Of three blocks none is left to the scores, which follow the keys of compression.
        assert_close(k, &out(&shared), &out(&own), TIGHT);
    }
}

/// The lists `[B, lists, N, n]` on the CPU and on the GPU, with the weights of pooled keys `[B, H, N, C]`.
fn choose(choice: Choice, [b, h, n, dim]: [usize; 4]) -> (Vec<Vec<u32>>, Vec<f64>) {
    let pooled = (n - choice.length) / choice.stride + 1;
    let mut g = Graph::new();
    let mut input = |name: &str, shape: &[usize]| g.input(name, TensorType::f32(shape), Category::Activations);
    let (q, k, lse) = (input("q", &[b, h, n, dim]), input("k", &[b, h, pooled, dim]), input("lse", &[b, h, n]));
    let blocks = g.choose_blocks(q, k, lse, None, choice);
    let blocks = g.cast(blocks, Dtype::F32);
    g.output("blocks", blocks);

    let mut random = crate::close::Random(41);
    let mut draw = |len: usize| -> Vec<f32> { (0..len).map(|_| random.normal() as f32).collect() };
    let (q, k) = (draw(b * h * n * dim), draw(b * h * pooled * dim));
    let mut weights = Vec::new();
    let mut lse = Vec::new();
    for row in 0..b * h * n {
        let score = |c: usize| -> f64 {
            let key = &k[(row / n * pooled + c) * dim..][..dim];
            let dot: f64 = q[row * dim..][..dim].iter().zip(key).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            dot / (dim as f64).sqrt()
        };
        let seen = |c: &usize| c * choice.stride + choice.length <= row % n + 1;
        let sum: f64 = (0..pooled).filter(seen).map(|c| score(c).exp()).sum();
        weights.extend((0..pooled).map(|c| if seen(&c) { score(c).exp() / sum } else { 0.0 }));
        lse.push(if sum > 0.0 { sum.ln() as f32 } else { -1e30 });
    }
    let inputs = BTreeMap::from([("q", q), ("k", k), ("lse", lse)].map(|(name, x)| (name.to_owned(), Data::Real(x))));
    // What stands for none is the largest number, rounded up and cut again.
    let on_cpu = cpu::run(&g, &inputs, &|| false).expect("inputs fit")["blocks"].real().to_vec();
    let mut all = vec![on_cpu.into_iter().map(|x| x as u32).collect()];
    if let Some(gpu) = device::gpu() {
        all.push(device::run(&gpu, &g, &inputs)["blocks"].iter().map(|&x| x as u32).collect());
    }
    (all, weights)
}

#[test]
fn the_first_block_and_the_last_two_are_always_chosen() {
    let choice = Choice { length: 4, stride: 2, block: 8, count: 5, group: 2 };
    let (n, lists) = (130, 2);
    let (all, _) = choose(choice, [2, 3, n, 5]);
    for blocks in all {
        assert_eq!(blocks.len(), 2 * lists * n * 5);
        for (row, list) in blocks.chunks(5).enumerate() {
            let own = (row % n / 8) as u32;
            let chosen: Vec<u32> = list.iter().copied().take_while(|&u| u != NONE).collect();
            assert_eq!(chosen.len(), 5.min(own as usize + 1), "{list:?}");
            assert!(chosen.is_sorted_by(|a, b| a < b) && list[chosen.len()..].iter().all(|&u| u == NONE), "{list:?}");
            for must in [0, own.saturating_sub(1), own] {
                assert!(chosen.contains(&must), "{list:?} of row {row}");
            }
        }
    }
}

#[test]
fn blocks_of_the_size_of_pooled_keys_score_their_weights() {
    // Of the others, those with the largest weights: no one left out weighs more than one taken.
    let choice = Choice { length: 4, stride: 4, block: 4, count: 6, group: 2 };
    let (h, n) = (4, 101);
    let pooled = (n - 4) / 4 + 1;
    let (all, weights) = choose(choice, [1, h, n, 6]);
    let weight = |list: usize, i: usize, u: usize| -> f64 {
        (2 * list..2 * list + 2).map(|head| weights[(head * n + i) * pooled + u]).sum()
    };
    for blocks in all {
        for (row, chosen) in blocks.chunks(6).enumerate() {
            let (list, i) = (row / n, row % n);
            let between = 1..(i / 4).saturating_sub(1);
            let (taken, left): (Vec<usize>, Vec<usize>) = between.partition(|&u| chosen.contains(&(u as u32)));
            let least = taken.iter().map(|&u| weight(list, i, u)).fold(f64::INFINITY, f64::min);
            let most = left.iter().map(|&u| weight(list, i, u)).fold(0.0, f64::max);
            assert!(most <= least * (1.0 + 1e-4), "row {row}: {most} left out, {least} taken");
        }
    }
}

#[test]
fn blocks_by_lot_are_the_largest_lots() {
    let json = r#"{"block": 4, "stride": 2, "select_block": 4, "select_count": 4, "window": 1, "selection": "random"}"#;
    // Lots that fall with the block's number leave the first ones, and rising ones the last.
    for (rising, block) in [(false, 1), (true, 17)] {
        let mut case = gated(case("nsa", 80, true, json), [false, true, false]);
        let sign = if rising { 1.0 } else { -1.0 };
        case.set("lots", (0..case.real("lots").len()).map(|i| sign * (i % 20) as f64).collect());
        let last = &case.effective()[79 * 80..80 * 80];
        let read: Vec<usize> = (0..20).filter(|u| last[u * 4..u * 4 + 4].iter().any(|&w| w > 0.0)).collect();
        assert_eq!(read, [0, block, 18, 19]);
    }
}
