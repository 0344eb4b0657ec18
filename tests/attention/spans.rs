//! Limit cases of the star's ring and relay, and of learned spans.

use crate::case::{Case, Shape, params};
use crate::close::assert_close;
use crate::limits::{TIGHT, assert_equals_full, case, out};
use attention_lab::attention::Request;

/// The same q, k, v through another variant.
fn assert_equals(a: &Case, id: &str, json: &str, label: &str) {
    let mut b = case(id, a.setup.length, a.setup.causal, json);
    for name in ["q", "k", "v"] {
        b.set(name, a.real(name).to_vec());
    }
    assert_close(label, &out(&b), &out(a), 1e-5);
}

#[test]
fn a_span_of_everything_is_full_attention() {
    let mut all = case("adaptive_span", 90, true, r#"{"max_span": 90, "ramp": 7}"#);
    all.set("span", vec![90.0; 2]);
    assert_equals_full(&all, "spans of 90");
}

#[test]
fn a_short_ramp_is_a_hard_window() {
    let mut hard = case("adaptive_span", 90, true, r#"{"max_span": 50, "ramp": 1}"#);
    // With a ramp of one token, whole spans leave nobody on it.
    hard.set("span", vec![12.0; 2]);
    assert_equals(&hard, "sliding_window", r#"{"window": 13}"#, "spans of 12 and the token itself");
    let mut longest = case("adaptive_span", 90, true, r#"{"max_span": 20, "ramp": 9}"#);
    longest.set("span", vec![1000.0; 2]);
    assert_equals(&longest, "sliding_window", r#"{"window": 21}"#, "the longest span");
}

#[test]
fn spans_of_their_own_keep_heads_apart_and_have_gradients() {
    let request = Request { grad: true, ..Request::default() };
    let mut case = Case::new("adaptive_span", Shape::of(150), true, r#"{"max_span": 140, "ramp": 8}"#, request);
    case.set("span", vec![3.4, 70.3]);
    let want = case.naive_gradients();
    crate::device::on_each(|how, run| {
        let got = run(&case);
        assert_close(&format!("out, {how}"), &case.naive(), &got["out"], 1e-5);
        for name in ["dspan", "dq", "dk", "dv"] {
            assert_close(&format!("{name}, {how}"), &want[name], &got[name], 1e-4);
        }
    });
    assert!(want["dspan"].iter().all(|d| *d != 0.0));
}

/// SparseBERT with the same q, k, v as a window and logits that keep or drop what `keeps` says of their index.
fn tossed(json: &str, like: &Case, keeps: impl Fn(usize) -> bool) -> Case {
    let mut case = case("sparsebert", like.setup.length, like.setup.causal, json);
    for name in ["q", "k", "v"] {
        case.set(name, like.real(name).to_vec());
    }
    let logits = (0..case.real("logits").len()).map(|at| if keeps(at) { 40.0 } else { -40.0 }).collect();
    case.set("logits", logits);
    case
}

#[test]
fn a_mask_of_ones_is_full_attention_and_a_hard_one_a_pattern() {
    let n = 50;
    for causal in [false, true] {
        let like = case("sparsebert", n, causal, "{}");
        for json in ["{}", r#"{"form": "log"}"#, r#"{"structure": "pair"}"#, r#"{"structure": "pair", "form": "log"}"#]
        {
            assert_equals_full(&tossed(json, &like, |_| true), json);
        }
        let window = if causal { r#"{"window": 6}"# } else { r#"{"window": 10}"# };
        let by_distance = tossed("{}", &like, |at| at % n <= 5);
        assert_equals(&by_distance, "sliding_window", window, "distances up to 5");
        let by_pair = tossed(r#"{"structure": "pair"}"#, &like, |at| (at / n % n).abs_diff(at % n) <= 5);
        assert_equals(&by_pair, "sliding_window", window, "pairs up to 5 apart");
        // Fixed, the same distances give the same.
        let mut fixed = case("sparsebert", n, causal, r#"{"phase": "deployed", "sparsity": 88}"#);
        for name in ["q", "k", "v"] {
            fixed.set(name, like.real(name).to_vec());
        }
        fixed.setup.structure.given.insert("kept".into(), [0u32, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5].into());
        assert_close("deployed", &out(&by_distance), &out(&fixed), 1e-5);
    }
}

#[test]
fn leaving_out_the_diagonal_renormalises_the_rest() {
    let n = 30;
    let with = case("sparsebert", n, false, "{}");
    let with = tossed("{}", &with, |_| true);
    let without = tossed(r#"{"diagonal": false}"#, &with, |_| true);
    let (p, left) = (with.effective(), without.effective());
    for (row, (p, left)) in p.chunks(n).zip(left.chunks(n)).enumerate() {
        let own = p[row % n];
        for (j, (p, left)) in p.iter().zip(left).enumerate() {
            let want = if j == row % n { 0.0 } else { p / (1.0 - own) };
            assert!((want - left).abs() < 1e-5, "row {row}, key {j}: {want} {left}");
        }
    }
}

#[test]
fn a_deployed_mask_has_the_sparsity_that_was_asked_for() {
    for structure in ["distance", "pair"] {
        let json = format!(r#"{{"phase": "deployed", "sparsity": 75, "structure": "{structure}"}}"#);
        let case = case("sparsebert", 80, false, &json);
        let list = (case.variant.blocks)(&case.setup).expect("a list");
        let share = list.pairs() as f64 / (2.0 * 80.0 * 80.0);
        // By distance, near ones are more pairs than far ones.
        assert!((0.25..0.46).contains(&share), "{structure}: {share}");
    }
}

#[test]
fn turning_the_ring_turns_what_it_gives() {
    let n = 30;
    let plain = case("star", n, false, "{}");
    let mut turned = plain.clone();
    let dim = plain.setup.dim;
    let turn = |x: &[f64]| -> Vec<f64> {
        x.chunks(n * dim).flat_map(|head| [&head[7 * dim..], &head[..7 * dim]].concat()).collect()
    };
    for name in ["q", "k", "v"] {
        turned.set(name, turn(plain.real(name)));
    }
    assert_close("turned by seven", &turn(&out(&plain)), &out(&turned), TIGHT);
}

#[test]
fn a_ring_of_three_without_relay_is_full_attention() {
    // Each token twice: itself and its embedding, whose key is moved out of sight.
    let request = Request { optional: true, ..Request::default() };
    let mut ring = Case::new("star", Shape::of(3), false, r#"{"relay": "none"}"#, request);
    let far: Vec<f64> = ring.real("q").iter().map(|q| -1e4 * q).collect();
    ring.set("k_embedding", far);
    assert_equals_full(&ring, "three tokens");
}

#[test]
fn equal_tokens_are_read_equally_by_the_relay() {
    let n = 24;
    let mut equal = case("star", n, false, "{}");
    equal.set("k", vec![0.5; equal.real("k").len()]);
    equal.set("q", vec![1.0; equal.real("q").len()]);
    let mut mean = case("star", n, false, r#"{"relay": "mean"}"#);
    for name in ["q", "k", "v"] {
        mean.set(name, equal.real(name).to_vec());
    }
    assert_close("the mean", &out(&mean), &out(&equal), TIGHT);
    mean.setup.params = params(mean.variant, r#"{"relay": "none"}"#);
    assert!(out(&mean) != out(&equal), "the relay adds something");
}
