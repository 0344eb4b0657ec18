//! Bytes of plans: linear in N where the method promises it, and refused where they would not fit.

use crate::case::{Shape, causalities, configurations, params, variant};
use attention_lab::attention::{DEFAULT_TENSOR_BYTES, Request, Setup};
use attention_lab::graph::{LowerContext, plan};
use attention_lab::pattern::{BlockList, Rule};

fn setup(id: &str, shape: Shape, causal: bool) -> Setup {
    let variant = variant(id);
    let Shape { batch, heads, n, m, dim } = shape;
    Setup {
        batch,
        heads,
        length: n,
        keys: m,
        dim,
        causal,
        params: params(variant, configurations(id)[0]),
        seed: 1,
        structure: Default::default(),
    }
}

/// Lengths 2k, 4k, 6k: the second difference of the bytes of a plan is that of its block lists exactly (none for dense lists and
/// bands, which are linear) for every variant but the naive one, whose matrices make it that of N².
pub fn grows_as_stated(id: &str) {
    let step = 2048;
    for causal in causalities(variant(id)) {
        for grad in [false, true] {
            let bytes = |n: usize| {
                let setup = setup(id, Shape { batch: 1, heads: 2, n, m: n, dim: 16 }, causal);
                let (graph, _) = variant(id).build(&setup, Request { grad, ..Request::default() });
                plan::plan(&graph, &LowerContext::default()).peak_bytes() as i64 - list_bytes(id, &setup, grad)
            };
            let second_difference = bytes(3 * step) - 2 * bytes(2 * step) + bytes(step);
            if id == "full_naive" {
                // Whole matrices of 2 heads: f32 scores and weights at least, each with a second difference of 2 step².
                let matrix = 2 * 2 * (step * step) as i64 * 4;
                assert!(second_difference >= 2 * matrix, "{second_difference}");
            } else if id == "sinkhorn" {
                // The sorting of blocks of 8 tokens, some tens of times, and the mask of its past.
                let matrix = 2 * 2 * (step / 8 * (step / 8)) as i64 * 4;
                assert!(second_difference <= 64 * matrix, "{second_difference}");
            } else {
                assert_eq!(second_difference, 0, "{id}, causal {causal}, gradients {grad}");
            }
        }
    }
}

/// Bytes of the lists that a variant's kernels walk: two words for each run of blocks, one for each single key, and where
/// each row begins, and bits behind blocks; the transposed list too, where there are gradients.
fn list_bytes(id: &str, setup: &Setup, grad: bool) -> i64 {
    // The classes of the strided pattern are dense: what is listed for the plates is never on the device.
    let list = match (variant(id).blocks)(setup) {
        Some(list) if id != "sparse_strided" && id != "longformer" => list,
        _ => return 0,
    };
    let bits = match (variant(id).rule)(setup) {
        Some(Rule::Bits { bits }) => bits.words.len() as u64,
        _ => 0,
    };
    let words = |list: &BlockList| match (list.block_q, list.block_k) {
        (1, 1) => list.offsets.len() as u64 + list.visited(),
        _ => (list.offsets.len() + 2 * list.runs.len().max(1)) as u64 + bits,
    };
    4 * (words(&list) + if grad { words(&list.transposed()) } else { 0 }) as i64
}

#[test]
fn what_does_not_fit_is_refused_with_the_nearest_length() {
    let shape = |n| Shape { batch: 1, heads: 2, n, m: n, dim: 64 };
    let refusal = variant("full_naive").refusal(&setup("full_naive", shape(16_384), false), DEFAULT_TENSOR_BYTES);
    assert_eq!(refusal.expect("2 GiB do not fit").nearest.as_deref(), Some("length 4096"));
    assert_eq!(variant("full_naive").refusal(&setup("full_naive", shape(4096), false), DEFAULT_TENSOR_BYTES), None);
    for id in [
        "full",
        "sliding_window",
        "linformer",
        "nystromformer",
        "linear",
        "performer",
        "entmax",
        "bahdanau",
        "clustered",
        "funnel",
    ] {
        let refusal = variant(id).refusal(&setup(id, shape(16_384), false), DEFAULT_TENSOR_BYTES);
        assert_eq!(refusal, None, "{id}");
    }
    for id in ["transformer_xl", "compressive", "nsa", "rnn", "lstm", "gru"] {
        let refusal = variant(id).refusal(&setup(id, shape(16_384), true), DEFAULT_TENSOR_BYTES);
        assert_eq!(refusal, None, "{id}");
    }
}

#[test]
fn what_a_method_cannot_do_is_refused_with_the_reason() {
    let refused = |id: &str, shape: Shape, causal: bool| {
        variant(id).refusal(&setup(id, shape, causal), DEFAULT_TENSOR_BYTES).map(|r| r.reason).unwrap_or_default()
    };
    assert!(refused("linformer", Shape::of(64), true).contains("leak"));
    assert!(refused("full", Shape { m: 30, ..Shape::of(64) }, true).contains("at least as many keys"));
    assert!(refused("nystromformer", Shape::of(64), true).contains("leak"));
    for id in ["sinkhorn", "reformer"] {
        assert!(refused(id, Shape { m: 80, ..Shape::of(64) }, false).contains("64 queries and 80 keys"));
    }
    assert!(refused("routing", Shape { m: 80, ..Shape::of(64) }, true).contains("there are 80 keys"));
    assert!(refused("clustered", Shape::of(64), true).contains("leak"));
    assert!(refused("funnel", Shape::of(64), true).contains("leak"));
    assert!(refused("nystromformer", Shape { m: 80, ..Shape::of(64) }, false).contains("64 queries and 80 keys"));
    assert!(refused("performer", Shape { m: 80, ..Shape::of(64) }, true).contains("one key for each query"));
    assert!(refused("linear", Shape { m: 80, ..Shape::of(64) }, true).contains("one key for each query"));
    assert!(refused("rnn", Shape::of(64), false).contains("always causal"));
    assert!(refused("lstm", Shape { m: 80, ..Shape::of(64) }, true).contains("64 queries and 80 keys"));
    assert!(refused("gru", Shape { dim: 513, ..Shape::of(64) }, true).contains("up to 512"));
    assert!(refused("compressive", Shape { m: 80, ..Shape::of(64) }, true).contains("64 queries and 80 keys"));
    assert!(refused("nsa", Shape::of(64), false).contains("always causal"));
    assert!(refused("nsa", Shape { m: 80, ..Shape::of(64) }, true).contains("64 queries and 80 keys"));
    for (json, nearest) in [
        (r#"{"block": 10, "stride": 4, "select_block": 40}"#, "block 8"),
        (r#"{"block": 8, "stride": 4, "select_block": 30}"#, "select_block 24"),
        (r#"{"block": 8, "stride": 4, "select_block": 6}"#, "select_block 8"),
    ] {
        let setup = Setup { params: params(variant("nsa"), json), ..setup("nsa", Shape::of(64), true) };
        let refusal = variant("nsa").refusal(&setup, DEFAULT_TENSOR_BYTES).expect("blocks must divide each other");
        assert_eq!(refusal.nearest.as_deref(), Some(nearest), "{refusal}");
    }
    assert!(refused("full", Shape { n: 0, ..Shape::of(64) }, false).contains("length is 0"));
    let huge = usize::MAX / 2;
    assert!(refused("full", Shape { batch: huge, heads: huge, n: huge, m: huge, dim: huge }, false).contains("MiB"));
}
