//! Limit cases of α-entmax, of additive attention, of segments with memories, and of recurrent networks.

use crate::case::{Case, Shape};
use crate::close::{assert_close, rms};
use crate::limits::{TIGHT, assert_equals_full, case, out};
use attention_lab::attention::Request;

/// A case whose parameters are those of `from`, by name, where it has them.
fn with_tensors_of(mut to: Case, from: &Case) -> Case {
    for (name, values) in &from.values {
        if to.values.get(name).is_some_and(|own| own.len() == values.len()) {
            to.set(name, values.real().to_vec());
        }
    }
    to
}

/// α of every head.
fn with_alpha(mut case: Case, alpha: f64) -> Case {
    case.set("a", vec![-(1.0 / (alpha - 1.0) - 1.0).ln(); 2]);
    case
}

#[test]
fn entmax_of_alpha_1_is_softmax_and_is_neared_linearly() {
    for causal in [false, true] {
        assert_equals_full(&case("entmax", 70, causal, r#"{"alpha": "1"}"#), "α = 1");
    }
    let learned = case("entmax", 70, false, "{}");
    let full = out(&with_tensors_of(case("full", 70, false, "{}"), &learned));
    let distance = |alpha| {
        let near = out(&with_alpha(learned.clone(), alpha));
        rms(&near.iter().zip(&full).map(|(a, b)| a - b).collect::<Vec<_>>())
    };
    let (far, near) = (distance(1.08), distance(1.02));
    assert!(near > 0.0 && (3.0..5.0).contains(&(far / near)), "{far} at 1.08, {near} at 1.02");
}

#[test]
fn entmax_of_a_fixed_alpha_is_that_of_a_learned_one() {
    let learned = case("entmax", 65, true, "{}");
    let fixed = with_tensors_of(case("entmax", 65, true, r#"{"alpha": "1.5"}"#), &learned);
    assert_close("α = 1.5", &out(&fixed), &out(&with_alpha(learned, 1.5)), 1e-5);
}

/// Cells of a matrix that are not zero.
fn support(case: &Case) -> usize {
    case.effective().iter().filter(|&&x| x != 0.0).count()
}

#[test]
fn entmax_attends_to_fewer_keys_as_alpha_grows() {
    let learned = case("entmax", 90, false, "{}");
    let supports: Vec<usize> =
        [1.1, 1.3, 1.6, 1.9].iter().map(|&alpha| support(&with_alpha(learned.clone(), alpha))).collect();
    assert!(supports.is_sorted_by(|a, b| a > b), "{supports:?}");
    let sparsest = with_tensors_of(case("entmax", 90, false, r#"{"alpha": "2"}"#), &learned);
    assert!(support(&sparsest) <= supports[3] && support(&sparsest) * 3 < 4 * 90 * 90);
}

#[test]
fn entmax_of_one_far_largest_score_takes_its_value() {
    // Scores differ by more than 1 / (α - 1) = 2.
    let mut case = case("entmax", 20, false, r#"{"alpha": "1.5"}"#);
    let (n, dim) = (20, case.setup.dim);
    case.set("q", vec![3.0; case.real("q").len()]);
    let best = 7;
    case.set("k", (0..4 * n * dim).map(|i| if i / dim % n == best { 1.0 } else { 0.0 }).collect());
    let values = case.real("v").to_vec();
    let want: Vec<f64> = (0..4 * n * dim).map(|i| values[(i / dim / n * n + best) * dim + i % dim]).collect();
    assert_close("one-hot", &want, &out(&case), 0.0);
}

#[test]
fn equal_scores_give_equal_weights() {
    for (id, name) in [("entmax", "q"), ("bahdanau", "v_a")] {
        let mut case = case(id, 50, false, "{}");
        case.set(name, vec![0.0; case.real(name).len()]);
        let mut full = with_tensors_of(self::case("full", 50, false, "{}"), &case);
        full.set("q", vec![0.0; full.real("q").len()]);
        assert_close(id, &out(&full), &out(&case), TIGHT);
    }
}

#[test]
fn a_source_token_that_is_there_twice_shares_its_weight() {
    let n = 30;
    let mut twice = case("bahdanau", n, false, r#"{"units": 7}"#);
    let dim = twice.setup.dim;
    for name in ["k", "v"] {
        let mut values = twice.real(name).to_vec();
        for head in values.chunks_mut(n * dim) {
            head.copy_within(4 * dim..5 * dim, 9 * dim);
        }
        twice.set(name, values);
    }
    let matrix = twice.effective();
    let column = |j: usize| matrix.chunks(n).map(|row| row[j]).collect::<Vec<_>>();
    assert_close("equal shares", &column(4), &column(9), 1e-6);
}

fn zeroed(mut case: Case, names: &[&str]) -> Case {
    for name in names {
        case.set(name, vec![0.0; case.real(name).len()]);
    }
    case
}

#[test]
fn one_segment_without_positions_is_causal_attention() {
    for (id, json) in [("transformer_xl", r#"{"segment": 90, "memory": 0}"#), ("compressive", r#"{"segment": 90}"#)] {
        assert_equals_full(&zeroed(case(id, 80, true, json), &["u", "v_r", "W_r"]), id);
    }
    // A memory that nothing leaves does as well, whatever the segments.
    let json = r#"{"segment": 16, "memory": 200}"#;
    assert_equals_full(&zeroed(case("transformer_xl", 80, true, json), &["u", "v_r", "W_r"]), "memory of everything");
}

#[test]
fn segments_do_not_matter_while_nothing_leaves_the_memory() {
    let first = case("transformer_xl", 70, true, r#"{"segment": 10, "memory": 70}"#);
    for json in [r#"{"segment": 7, "memory": 70}"#, r#"{"segment": 70, "memory": 0}"#] {
        let other = with_tensors_of(case("transformer_xl", 70, true, json), &first);
        assert_close(json, &out(&first), &out(&other), 1e-5);
    }
}

#[test]
fn without_memory_segments_are_apart() {
    let (n, length) = (60, 20);
    let whole = case("transformer_xl", n, true, r#"{"segment": 20, "memory": 0}"#);
    let all = out(&whole);
    let dim = whole.setup.dim;
    for segment in 0..n / length {
        let rows = |values: &[f64]| -> Vec<f64> {
            let heads = values.chunks(n * dim);
            heads.flat_map(|head| head[segment * length * dim..][..length * dim].to_vec()).collect()
        };
        let json = r#"{"segment": 20, "memory": 0}"#;
        let mut alone = with_tensors_of(case("transformer_xl", length, true, json), &whole);
        for name in ["q", "k", "v"] {
            alone.set(name, rows(whole.real(name)));
        }
        assert_close("one segment", &rows(&all), &out(&alone), TIGHT);
    }
}

#[test]
fn what_is_not_compressed_is_a_longer_memory() {
    let longer = case("transformer_xl", 90, true, r#"{"segment": 10, "memory": 40}"#);
    // One token to a slot, and as many slots as tokens.
    let json = r#"{"segment": 10, "memory_segments": 1, "compressed": 30, "rate": 1}"#;
    let compressed = with_tensors_of(case("compressive", 90, true, json), &longer);
    assert_close("rate 1", &out(&longer), &out(&compressed), 1e-5);
    // No slots at all.
    let shorter = with_tensors_of(case("transformer_xl", 90, true, r#"{"segment": 10, "memory": 20}"#), &longer);
    let json = r#"{"segment": 10, "memory_segments": 2, "compressed": 0}"#;
    let compressed = with_tensors_of(case("compressive", 90, true, json), &longer);
    assert_close("no slots", &out(&shorter), &out(&compressed), 1e-5);
}

#[test]
fn a_kernel_of_equal_weights_is_the_mean() {
    let json = |compress: &str| {
        format!(r#"{{"segment": 12, "memory_segments": 1, "compressed": 20, "rate": 3, "compress": "{compress}"}}"#)
    };
    let mean = case("compressive", 80, true, &json("mean"));
    let mut conv = with_tensors_of(case("compressive", 80, true, &json("conv")), &mean);
    conv.set("kernel", vec![1.0 / 3.0; 6]);
    assert_close("equal weights", &out(&mean), &out(&conv), 1e-5);
}

#[test]
fn a_network_without_recurrent_weights_maps_each_token_by_itself() {
    for id in ["rnn", "gru"] {
        let n = 20;
        let whole = zeroed(case(id, n, true, "{}"), &["U"]);
        // The tokens in the opposite order.
        let dim = whole.setup.dim;
        let reversed = |values: &[f64]| -> Vec<f64> {
            let heads = values.chunks(n * dim);
            heads.flat_map(|head| head.chunks(dim).rev().flatten().copied().collect::<Vec<_>>()).collect()
        };
        let mut other = whole.clone();
        for name in ["q", "k", "v"] {
            other.set(name, reversed(whole.real(name)));
        }
        let same = reversed(&out(&other));
        if id == "rnn" {
            assert_close(id, &out(&whole), &same, TIGHT);
        } else {
            // Its update gate still mixes the state in.
            assert!(rms(&out(&whole).iter().zip(&same).map(|(a, b)| a - b).collect::<Vec<_>>()) > 1e-3);
        }
    }
}

/// Sets the bias of one gate, of as many as the network has, and closes its inputs and its recurrent weights.
fn with_gate(case: Case, gates: usize, biases: &[(usize, f64)]) -> Case {
    let mut case = zeroed(case, &["W", "U"]);
    let dim = case.setup.dim;
    let value = |i: usize| biases.iter().find(|(gate, _)| i / dim % gates == *gate).map_or(0.3, |(_, bias)| *bias);
    case.set("b", (0..2 * gates * dim).map(value).collect());
    case
}

#[test]
fn a_closed_network_keeps_its_state_of_nothing() {
    // A GRU that keeps everything, and an LSTM that lets nothing in.
    for (id, gates, biases) in [("gru", 3, [(1, 90.0)]), ("lstm", 4, [(0, -90.0)])] {
        let kept = out(&with_gate(case(id, 40, true, "{}"), gates, &biases));
        assert!(kept.iter().all(|x| x.abs() < 1e-6), "{id}: {:?}", &kept[..3]);
        // Open, it does not.
        let open = out(&with_gate(case(id, 40, true, "{}"), gates, &[(biases[0].0, 0.5)]));
        assert!(rms(&open) > 1e-2, "{id}");
    }
}

#[test]
fn influence_fades_where_recurrent_weights_are_small() {
    let n = 30;
    let mut base = Case::new("rnn", Shape { batch: 1, heads: 1, ..Shape::of(n) }, true, "{}", Request::default());
    let dim = base.setup.dim;
    base.set("U", (0..dim * dim).map(|i| if i / dim == i % dim { 0.5 } else { 0.0 }).collect());
    let mut changed = base.clone();
    let mut q = base.real("q").to_vec();
    q[..dim].iter_mut().for_each(|x| *x += 0.5);
    changed.set("q", q);
    let (a, b) = (out(&base), out(&changed));
    let influence = |t: usize| rms(&(0..dim).map(|d| a[t * dim + d] - b[t * dim + d]).collect::<Vec<_>>());
    assert!(influence(0) > 1e-3, "{}", influence(0));
    // |tanh'| <= 1, so a step leaves at most half.
    assert!((1..20).all(|t| influence(t) <= 0.5001 * influence(t - 1) + 1e-6));
}
