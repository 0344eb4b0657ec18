//! Cases in which a method must become another one.

use crate::case::{Case, Shape, tolerance};
use crate::close::assert_close;
use crate::device::on_each;
use attention_lab::attention::Request;
use std::cell::RefCell;

pub(crate) const TIGHT: f64 = 2e-6;

pub(crate) fn case(id: &str, n: usize, causal: bool, json: &str) -> Case {
    Case::new(id, Shape::of(n), causal, json, Request::default())
}

/// The output on the CPU; a GPU's must be the same, since limits are where kernels go wrong.
pub(crate) fn out(case: &Case) -> Vec<f64> {
    let first = RefCell::new(None);
    on_each(|how, run| {
        let out = run(case).remove("out").expect("every graph has it");
        let want = first.borrow().clone().unwrap_or_else(|| out.clone());
        assert_close(&format!("{} on {how}", case.label()), &want, &out, tolerance(case.variant.id).forward);
        first.borrow_mut().get_or_insert(out);
    });
    first.into_inner().expect("there is always the CPU")
}

/// The same q, k, v through another variant.
pub(crate) fn assert_equals_full(case: &Case, label: &str) {
    assert_near_full(case, label, TIGHT);
}

pub(crate) fn assert_near_full(case: &Case, label: &str, tolerance: f64) {
    let mut full = Case::new("full", Shape::of(case.setup.length), case.setup.causal, "{}", Request::default());
    for name in ["q", "k", "v"] {
        full.set(name, case.real(name).to_vec());
    }
    assert_close(label, &out(&full), &out(case), tolerance);
}

#[test]
fn naive_and_fused_full_attention_are_one() {
    for causal in [false, true] {
        for n in [1, 64, 130] {
            assert_equals_full(&case("full_naive", n, causal, "{}"), "full_naive");
        }
    }
}

#[test]
fn a_window_over_everything_is_full_attention() {
    for causal in [false, true] {
        assert_equals_full(&case("sliding_window", 90, causal, r#"{"window": 180}"#), "window 2N");
        assert_equals_full(&case("sliding_window", 90, causal, r#"{"window": 1, "global_tokens": 90}"#), "all global");
    }
}

#[test]
fn a_window_of_one_returns_the_values() {
    for causal in [false, true] {
        let case = case("sliding_window", 77, causal, r#"{"window": 1}"#);
        assert_close("window 1", case.real("v"), &out(&case), TIGHT);
    }
}

#[test]
fn a_dilated_window_is_a_plain_one_on_each_interleaved_sequence() {
    let (n, dilation) = (60, 3);
    let dilated = case("sliding_window", n, false, r#"{"window": 6, "dilation": 3}"#);
    let mixed = out(&dilated);
    let dim = dilated.setup.dim;
    for residue in 0..dilation {
        let pick = |values: &[f64]| -> Vec<f64> {
            let rows = values.chunks(dim).enumerate();
            rows.filter(|(row, _)| row % n % dilation == residue).flat_map(|(_, row)| row.to_vec()).collect()
        };
        let mut plain = case("sliding_window", n / dilation, false, r#"{"window": 6}"#);
        for name in ["q", "k", "v"] {
            plain.set(name, pick(dilated.real(name)));
        }
        assert_close("one residue class", &out(&plain), &pick(&mixed), TIGHT);
    }
}

#[test]
fn linformer_with_identity_projections_is_full_attention() {
    let n = 48;
    let mut case = case("linformer", n, false, r#"{"k": 48}"#);
    let identity: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    case.set("E", identity.clone());
    case.set("F", identity.clone());
    assert_equals_full(&case, "E = F = I");
    // Any order of the keys is as good.
    let permuted: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from((i / n * 5 + 3) % n == i % n))).collect();
    case.set("E", permuted.clone());
    case.set("F", permuted);
    assert_equals_full(&case, "E = F = a permutation");
}

#[test]
fn linformer_with_block_means_attends_to_pooled_keys() {
    let (n, k) = (40, 8);
    let mut case = case("linformer", n, false, r#"{"k": 8, "sharing": "key_value"}"#);
    let block = n / k;
    case.set("E", (0..k * n).map(|i| if i % n / block == i / n { 1.0 / block as f64 } else { 0.0 }).collect());
    let dim = case.setup.dim;
    let pool = |values: &[f64]| -> Vec<f64> {
        let mean = |rows: &[f64], d: usize| rows.chunks(dim).map(|row| row[d]).sum::<f64>() / block as f64;
        values.chunks(block * dim).flat_map(|rows| (0..dim).map(|d| mean(rows, d)).collect::<Vec<_>>()).collect()
    };
    let mut pooled = Case::new("full", Shape { m: k, ..Shape::of(n) }, false, "{}", Request::default());
    pooled.set("q", case.real("q").to_vec());
    pooled.set("k", pool(case.real("k")));
    pooled.set("v", pool(case.real("v")));
    assert_close("block means", &out(&pooled), &out(&case), TIGHT);
}

#[test]
fn linear_attention_of_constant_values_returns_them() {
    for causal in [false, true] {
        let mut case = case("linear", 130, causal, "{}");
        case.set("v", vec![2.0; case.real("v").len()]);
        let want = vec![2.0; case.real("v").len()];
        assert_close("constant values", &want, &out(&case), 1e-5);
    }
}

#[test]
fn the_last_row_of_causal_linear_attention_sees_everything() {
    let causal = case("linear", 130, true, "{}");
    let mut both = case("linear", 130, false, "{}");
    for name in ["q", "k", "v"] {
        both.set(name, causal.real(name).to_vec());
    }
    let last = |case: &Case| -> Vec<f64> {
        let dim = case.setup.dim;
        out(case).chunks(130 * dim).flat_map(|head| head[129 * dim..].to_vec()).collect()
    };
    assert_close("last row", &last(&both), &last(&causal), 1e-5);
}

#[test]
fn zero_queries_average_what_they_see() {
    let mut case = case("full", 50, true, "{}");
    case.set("q", vec![0.0; case.real("q").len()]);
    let dim = case.setup.dim;
    let mut want = Vec::new();
    for head in case.real("v").chunks(50 * dim) {
        let mut sum = vec![0.0; dim];
        for (i, row) in head.chunks(dim).enumerate() {
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            want.extend(sum.iter().map(|s| s / (i + 1) as f64));
        }
    }
    assert_close("running mean", &want, &out(&case), 1e-5);
}
