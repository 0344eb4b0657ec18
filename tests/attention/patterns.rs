//! Fixed patterns at the ends of their parameters, where they must become full attention, a window, or nothing at all.

use crate::case::{Case, Shape, params};
use crate::close::assert_close;
use crate::limits::{TIGHT, assert_equals_full, case, out};
use attention_lab::attention::{DEFAULT_TENSOR_BYTES, NONE, Request, Value};
use attention_lab::graph::{LowerContext, plan};
use attention_lab::pattern::Rule;

/// The same q, k, v through another variant or with other parameters.
fn assert_equals(a: &Case, id: &str, json: &str, label: &str) {
    let s = &a.setup;
    let mut b = case(id, s.length, s.causal, json);
    for name in ["q", "k", "v"] {
        b.set(name, a.real(name).to_vec());
    }
    assert_close(label, &out(&b), &out(a), TIGHT);
}

#[test]
fn patterns_over_everything_are_full_attention() {
    for causal in [false, true] {
        for (id, json) in [
            ("sparse_strided", r#"{"stride": 1}"#),
            ("sparse_strided", r#"{"stride": 90}"#),
            ("sparse_fixed", r#"{"block": 90}"#),
            ("sparse_fixed", r#"{"block": 11, "columns": 11}"#),
            ("cascade", r#"{"layer": 5, "window": 4}"#),
            ("logsparse", r#"{"local": 90}"#),
            ("longformer", r#"{"window": 1, "global_tokens": 90}"#),
            ("longformer", r#"{"window": 180}"#),
        ] {
            assert_equals_full(&case(id, 90, causal, json), &format!("{id} {json}"));
        }
    }
    // Distances 0, 1 and 2 are all there are among three tokens.
    assert_equals_full(&case("logsparse", 3, true, r#"{"local": 1}"#), "logsparse of 3");
    assert_equals_full(&case("blockbert", 90, false, r#"{"blocks": 1}"#), "one block");
    assert_equals_full(&case("bigbird", 90, false, r#"{"block": 16, "window": 11}"#), "a window over all blocks");
    assert_equals_full(&case("bigbird", 90, false, r#"{"block": 16, "global_blocks": 6}"#), "all blocks are global");
    assert_equals_full(&case("bigbird", 90, false, r#"{"block": 16, "random": 6}"#), "all blocks are drawn");
}

#[test]
fn patterns_without_their_idea_are_windows() {
    for causal in [false, true] {
        let plain = case("longformer", 90, causal, r#"{"window": 9, "dilation": 2, "global_tokens": 0}"#);
        assert_equals(&plain, "sliding_window", r#"{"window": 9, "dilation": 2}"#, "no global tokens");
        let local = case("sparse_strided", 90, causal, r#"{"stride": 8, "part": "local"}"#);
        let window = if causal { r#"{"window": 8}"# } else { r#"{"window": 14}"# };
        assert_equals(&local, "sliding_window", window, "nearer than the stride");
        // A growth of 1 is the first layer's window in every layer.
        let layer = case("cascade", 90, causal, r#"{"layer": 7, "window": 6, "growth": 1}"#);
        assert_equals(&layer, "cascade", r#"{"layer": 0, "window": 6}"#, "no growth");
        let restart = case("logsparse", 90, causal, r#"{"local": 3, "restart": 90}"#);
        assert_equals(&restart, "logsparse", r#"{"local": 3}"#, "no restart");
    }
    let alone = case("blockbert", 90, false, r#"{"blocks": 90, "order": "local"}"#);
    assert_close("blocks of one", alone.real("v"), &out(&alone), TIGHT);
}

#[test]
fn a_given_permutation_pairs_blocks() {
    let (n, blocks) = (60, 3);
    let mut given = case("blockbert", n, false, r#"{"blocks": 3}"#);
    let rows = [[1u32, 2, 0], [0, 2, 1]];
    given.setup.structure.given.insert("permutations".into(), rows.concat().into());
    // Permuting keys and values instead, each block looks at its own.
    let mut own = case("blockbert", n, false, r#"{"blocks": 3, "order": "local"}"#);
    let (dim, block) = (given.setup.dim, n / blocks);
    own.set("q", given.real("q").to_vec());
    for name in ["k", "v"] {
        let of_head = |(head, x): (usize, &[f64])| -> Vec<f64> {
            let size = block * dim;
            rows[head % 2].iter().flat_map(|&from| x[from as usize * size..][..size].to_vec()).collect()
        };
        own.set(name, given.real(name).chunks(n * dim).enumerate().flat_map(of_head).collect());
    }
    assert_close("permuted keys", &out(&own), &out(&given), TIGHT);
    given.setup.structure.given.insert("permutations".into(), [0u32, 0, 1, 0, 1, 2].into());
    let refusal = given.variant.refusal(&given.setup, DEFAULT_TENSOR_BYTES).expect("block 2 is never seen");
    assert!(refusal.reason.contains("permutation"), "{refusal}");
}

#[test]
fn given_random_blocks_are_visited() {
    let json = r#"{"block": 10, "window": 1, "global_blocks": 0, "random": 2}"#;
    let mut given = case("bigbird", 60, false, json);
    // Block u looks at block 5 - u and at nothing else but itself.
    let rows: Vec<u32> = (0..12).flat_map(|row| [5 - row % 6, NONE]).collect();
    given.setup.structure.given.insert("random_blocks".into(), rows.into());
    let rule = (given.variant.rule)(&given.setup).expect("a pattern");
    for (i, j) in (0..60).flat_map(|i| (0..60).map(move |j| (i, j))) {
        assert_eq!(rule.may_in(1, i, j, 60, 60), i / 10 == j / 10 || i / 10 + j / 10 == 5, "({i}, {j})");
    }
    let want = given.naive();
    assert_close("given blocks", &want, &out(&given), 1e-5);
}

#[test]
fn big_bird_rows_have_as_many_blocks_as_stated() {
    let setup = |seed| {
        let mut setup = case("bigbird", 640, false, r#"{"block": 10}"#).setup;
        setup.seed = seed;
        setup
    };
    let bird = case("bigbird", 640, false, "{}").variant;
    let list = (bird.blocks)(&setup(3)).expect("blocks");
    for head in 0..2 {
        for u in 2..62 {
            let blocks: u32 = list.runs_of(head, u).iter().map(|r| r.count).sum();
            // Three in the window, two global and three random ones.
            assert_eq!(blocks, 8, "block {u}");
        }
    }
    assert_ne!(list.of_head(0), list.of_head(1), "heads draw for themselves");
    assert_eq!(list, (bird.blocks)(&setup(3)).expect("blocks"));
    assert_ne!(list, (bird.blocks)(&setup(4)).expect("blocks"));
    let rule = (bird.rule)(&setup(3)).expect("a pattern");
    assert_eq!(rule.reach(2, 640, 320, 2)[1], 640, "global blocks lead everywhere in two steps");
}

#[test]
fn global_tokens_work_with_projections_of_their_own() {
    let request = Request { optional: true, ..Request::default() };
    let mut case = Case::new("longformer", Shape::of(50), false, r#"{"window": 4, "global_tokens": 3}"#, request);
    let size = case.real("v_global").len();
    case.set("v_global", vec![2.0; size]);
    case.set("v", vec![1.0; size]);
    let dim = case.setup.dim;
    let want: Vec<f64> = (0..size).map(|i| if i / dim % 50 < 3 { 2.0 } else { 1.0 }).collect();
    assert_close("values by kind of row", &want, &out(&case), TIGHT);
}

/// Operations of a call, as the graph counts them.
fn flops(id: &str, n: usize, json: &str) -> f64 {
    let mut setup = case(id, 8, false, "{}").setup;
    let variant = case(id, 8, false, "{}").variant;
    (setup.length, setup.keys, setup.dim, setup.params) = (n, n, 64, params(variant, json));
    variant.build(&setup, Request::default()).0.cost().flops as f64
}

#[test]
fn no_pattern_is_full_attention_under_a_mask() {
    for (id, json, most) in [
        ("sparse_strided", "{}", 1.8),
        ("sparse_fixed", "{}", 1.8),
        ("cascade", "{}", 1.1),
        ("cascade", r#"{"form": "dilated_memory"}"#, 1.1),
        ("logsparse", "{}", 1.2),
        ("longformer", r#"{"window": 128}"#, 1.1),
        ("bigbird", r#"{"block": 64}"#, 1.1),
    ] {
        let (short, long) = (flops(id, 4096, json), flops(id, 16_384, json));
        let exponent = (long / short).log2() / 2.0;
        assert!(exponent < most, "{id} {json}: operations grow with N^{exponent:.2}");
        assert!(long < flops("full", 16_384, "{}") / 8.0, "{id} {json}: {long:e}");
    }
    let half = flops("blockbert", 4096, "{}") / flops("full", 4096, "{}");
    assert!((half - 0.5).abs() < 1e-3, "two blocks take half of the work, not {half}");
}

#[test]
fn what_is_visited_is_what_is_counted() {
    // Lists of single keys, and blocks that are the method's own, hold the allowed pairs and no others.
    for (id, json) in
        [("logsparse", "{}"), ("blockbert", r#"{"blocks": 3}"#), ("bigbird", "{}"), ("sparse_strided", "{}")]
    {
        let s = case(id, 300, false, json).setup;
        let variant = case(id, 300, false, json).variant;
        let (list, rule): (_, Rule) = ((variant.blocks)(&s).expect("a list"), (variant.rule)(&s).expect("a rule"));
        assert_eq!(list.pairs(), rule.pairs(list.heads, 300, 300), "{id}");
    }
}

#[test]
fn plans_of_long_patterns_stay_small() {
    for id in ["sparse_strided", "sparse_fixed", "cascade", "logsparse", "longformer", "bigbird"] {
        let mut setup = case(id, 8, false, "{}").setup;
        let variant = case(id, 8, false, "{}").variant;
        (setup.length, setup.keys, setup.dim, setup.batch) = (16_384, 16_384, 64, 1);
        let (graph, _) = variant.build(&setup, Request::default());
        let bytes = plan::plan(&graph, &LowerContext::default()).peak_bytes();
        // q, k, v and the output of two heads are 32 MiB.
        assert!(bytes < 160 << 20, "{id}: {bytes}");
    }
}

#[test]
fn a_rule_of_ones_own_is_the_pattern_that_it_describes() {
    for causal in [false, true] {
        let all = case("custom", 70, causal, r#"{"rule": "i == i"}"#);
        assert_equals_full(&all, "every pair");
        let band = case("custom", 70, causal, r#"{"rule": "abs(i - j) <= 3 && (i - j) % 2 == 0 || j < 1 || i < 1"}"#);
        let window = if causal { 2 } else { 3 };
        let same = format!(r#"{{"window": {window}, "dilation": 2, "global_tokens": 1}}"#);
        assert_equals(&band, "sliding_window", &same, "a band");
        // Whatever visits the pairs, they are the same.
        let rule = r#""rule": "rand(i, j) < 0.3 || (j + h) % 9 == 0""#;
        let blocks = case("custom", 70, causal, &format!("{{{rule}, \"block\": 8}}"));
        for form in ["gather", "masked"] {
            assert_equals(&blocks, "custom", &format!("{{{rule}, \"form\": \"{form}\"}}"), form);
        }
    }
    let nothing = case("custom", 40, false, r#"{"rule": "i < 0"}"#);
    assert!(out(&nothing).iter().all(|&x| x == 0.0), "a row with nothing to attend to gives zeros");
}

#[test]
fn a_given_mask_takes_the_rules_place() {
    for planes in [1, 2, 4] {
        let mut given = case("custom", 50, false, r#"{"block": 16}"#);
        let mask: Vec<u32> = (0..planes * 2500).map(|at| u32::from(at * 7 % 5 < 2)).collect();
        given.setup.structure.given.insert("mask".into(), mask.clone().into());
        let shown = given.effective();
        for (at, weight) in shown.iter().enumerate() {
            assert_eq!(*weight > 0.0, mask[at % mask.len()] == 1, "cell {at} of {planes} planes");
        }
        assert_close("mask", &given.naive(), &out(&given), 1e-5);
    }
}

#[test]
fn a_rule_is_refused_where_it_would_be_tried_too_often() {
    let mut s = case("custom", 8, false, "{}").setup;
    (s.length, s.keys) = (16_384, 16_384);
    let custom = case("custom", 8, false, "{}").variant;
    assert_eq!(custom.refusal(&s, DEFAULT_TENSOR_BYTES).expect("too long").nearest.as_deref(), Some("length 8192"));
    let wrong = Value::Choice("i <".into());
    let error = custom.params[0].accept(&wrong).expect_err("no rule");
    assert!(error.to_string().contains("column 4"), "{error}");
}
