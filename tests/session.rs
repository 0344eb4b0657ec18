//! What the JavaScript API stands on, natively: single variants and ops on both back ends.

mod common;

use attention_lab::gpu::Options;
use attention_lab::lab::protocol::Backend;
use attention_lab::lab::session::{Code, OpRequest, Run, RunRequest, Session};
use serde_json::json;

fn open(backend: Backend) -> Session {
    pollster::block_on(Session::open(backend, &Options::default())).expect("a device")
}

/// The back ends of this machine.
fn sessions() -> Vec<Session> {
    let mut all = vec![open(Backend::Cpu)];
    if common::gpu().is_some() {
        all.push(open(Backend::Gpu));
    }
    all
}

fn op(session: &Session, name: &str, sizes: serde_json::Value) -> Run {
    let request = OpRequest::parse(name, sizes).expect("a sound request");
    pollster::block_on(session.prepare_op(&request)).expect("it fits")
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn run(run: &mut Run, inputs: &[(&str, &[f32])], output: &str) -> Vec<f32> {
    for (name, values) in inputs {
        run.write(name, values).expect("an input of this size");
    }
    pollster::block_on(run.execute()).expect("it runs");
    pollster::block_on(run.read(output)).expect("it has run")
}

fn assert_near(what: &str, want: &[f64], got: &[f32]) {
    assert_eq!(want.len(), got.len(), "{what}");
    let square = |x: f64| x * x;
    let error: f64 = want.iter().zip(got).map(|(&w, &g)| square(w - f64::from(g))).sum();
    let ratio = (error / want.iter().copied().map(square).sum::<f64>()).sqrt();
    assert!(ratio <= 1e-5, "{what} is off by {ratio:e}");
}

#[test]
fn ops_compute_what_they_say() {
    let (m, n, k) = (7, 20, 12);
    let (a, b) = (numbers(m * k), numbers(k * n));
    let product: Vec<f64> = (0..m * n)
        .map(|at| (0..k).map(|p| f64::from(a[at / n * k + p]) * f64::from(b[p * n + at % n])).sum())
        .collect();
    let (rows, cols) = (5, 33);
    let x = numbers(rows * cols);
    let softmax: Vec<f64> = x
        .chunks(cols)
        .flat_map(|row| {
            let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
            row.iter().map(move |&v| f64::from(v).exp() / sum)
        })
        .collect();
    let (gain, bias) = (numbers(cols), numbers(2 * cols)[cols..].to_vec());
    let normal: Vec<f64> = x
        .chunks(cols)
        .flat_map(|row| {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / cols as f64;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / cols as f64;
            let scaled = move |v: f32| (f64::from(v) - mean) / (variance + 1e-5).sqrt();
            let (gain, bias) = (&gain, &bias);
            row.iter().enumerate().map(move |(i, &v)| scaled(v) * f64::from(gain[i]) + f64::from(bias[i]))
        })
        .collect();
    for session in sessions() {
        let mut matmul = op(&session, "matmul", json!({ "m": m, "n": n, "k": k }));
        assert_eq!(matmul.flops(), 2 * (m * n * k) as u64);
        assert!(matmul.bytes() >= 4 * (m * k + k * n + m * n) as u64);
        assert_near("matmul", &product, &run(&mut matmul, &[("a", &a), ("b", &b)], "c"));
        let mut rows_of = op(&session, "softmax", json!({ "rows": rows, "cols": cols }));
        assert_near("softmax", &softmax, &run(&mut rows_of, &[("x", &x)], "y"));
        let mut norm = op(&session, "layernorm", json!({ "rows": rows, "cols": cols }));
        assert_near("layernorm", &normal, &run(&mut norm, &[("x", &x), ("gain", &gain), ("bias", &bias)], "y"));
        let timing = pollster::block_on(norm.time(3)).expect("it is timed");
        assert!(timing.median > 0.0 && timing.min <= timing.median && timing.repeats == 3, "{timing:?}");
    }
}

#[test]
fn a_variant_runs_forward_and_backward_alike_on_both() {
    let request: RunRequest = serde_json::from_value(json!({
        "variant": "full", "causal": true, "heads": 2, "length": 33, "dim": 16, "backward": true,
    }))
    .expect("a sound request");
    let x = numbers(4 * 2 * 33 * 16);
    let parts: Vec<&[f32]> = x.chunks(2 * 33 * 16).collect();
    let mut results = Vec::new();
    for session in sessions() {
        let mut full = pollster::block_on(session.prepare(&request)).expect("full serves this");
        let names: Vec<String> = full.outputs().into_iter().map(|t| t.name).collect();
        assert_eq!(names, ["dk", "dq", "dv", "out"]);
        assert!(full.flops() > 0 && !full.bytes_by_category().is_empty());
        run(&mut full, &[("q", parts[0]), ("k", parts[1]), ("v", parts[2]), ("g", parts[3])], "out");
        results.push(names.iter().map(|n| pollster::block_on(full.read(n)).expect("it has run")).collect::<Vec<_>>());
    }
    for other in &results[1..] {
        for (want, got) in results[0].iter().zip(other) {
            let want: Vec<f64> = want.iter().map(|&x| f64::from(x)).collect();
            assert_near("gpu against cpu", &want, got);
        }
    }
}

#[test]
fn tuning_keeps_what_it_knows() {
    for session in sessions() {
        let run = op(&session, "matmul", json!({ "m": 8, "n": 8, "k": 8 }));
        let tuned = pollster::block_on(session.tune(&run, None)).expect("it is measured");
        let measured = session.info().backend == Backend::Gpu;
        assert_eq!(tuned.classes.len(), usize::from(measured));
        let again = pollster::block_on(session.tune(&run, Some(tuned.clone()))).expect("nothing is left to measure");
        assert_eq!(again, tuned);
        let mut run_again = op(&session, "matmul", json!({ "m": 8, "n": 8, "k": 8 }));
        let c = self::run(&mut run_again, &[("a", &[1.0; 64]), ("b", &[0.5; 64])], "c");
        assert_eq!(c, [4.0; 64]);
    }
}

#[test]
fn what_cannot_be_served_says_why() {
    let session = open(Backend::Cpu);
    let prepare = |value: serde_json::Value| -> attention_lab::lab::session::LabError {
        let request: RunRequest = serde_json::from_value(value).expect("a request by form");
        pollster::block_on(session.prepare(&request)).err().expect("it is refused")
    };
    let error = prepare(json!({ "variant": "no_such", "length": 64 }));
    assert!(error.code == Code::Invalid && error.message.contains("no_such") && error.message.contains("full"));
    let error = prepare(json!({ "variant": "full", "length": 64, "params": { "window": 3 } }));
    assert!(error.code == Code::Invalid && error.message.contains("window"), "{error}");
    let error = prepare(json!({ "variant": "full_naive", "length": 1_000_000 }));
    assert!(error.code == Code::Refused && error.nearest.is_some_and(|n| n.contains("length")));

    for (name, sizes) in [
        ("conv", json!({})),
        ("matmul", json!({ "m": 1, "n": 2 })),
        ("matmul", json!({ "m": 1, "n": 2, "k": 3, "q": 4 })),
        ("softmax", json!([1, 2])),
    ] {
        assert_eq!(OpRequest::parse(name, sizes.clone()).unwrap_err().code, Code::Invalid, "{name} {sizes}");
    }
    let huge = OpRequest::parse("softmax", json!({ "rows": u64::MAX, "cols": 2 })).expect("by form");
    assert_eq!(pollster::block_on(session.prepare_op(&huge)).err().expect("too much").code, Code::Invalid);

    let mut softmax = op(&session, "softmax", json!({ "rows": 2, "cols": 3 }));
    assert_eq!(softmax.write("x", &[0.0; 5]).unwrap_err().code, Code::Invalid);
    assert_eq!(softmax.write("z", &[0.0; 6]).unwrap_err().code, Code::Invalid);
    assert!(pollster::block_on(softmax.execute()).unwrap_err().message.contains('x'), "an input is missing");
    assert_eq!(pollster::block_on(softmax.read("y")).unwrap_err().code, Code::Invalid);
}

#[test]
fn a_mask_can_be_given_in_place_of_a_rule() {
    let (length, dim, heads) = (9, 4, 2);
    let tokens = heads * length * dim;
    let (q, k, v) =
        (numbers(tokens), numbers(2 * tokens)[tokens..].to_vec(), numbers(3 * tokens)[2 * tokens..].to_vec());
    let prepare = |session: &Session, extra: serde_json::Value| {
        let mut request = json!({ "variant": "custom", "heads": heads, "length": length, "dim": dim });
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let request: RunRequest = serde_json::from_value(request).expect("a sound request");
        pollster::block_on(session.prepare(&request))
    };
    let mask: Vec<u8> = (0..length * length).map(|at| u8::from((at / length + 2 * (at % length)) % 5 < 2)).collect();
    for session in sessions() {
        let inputs: [(&str, &[f32]); 3] = [("q", &q), ("k", &k), ("v", &v)];
        let rule = json!({ "params": { "rule": "(i + 2 * j) % 5 < 2" } });
        let want = run(&mut prepare(&session, rule).expect("a rule"), &inputs, "out");
        let want: Vec<f64> = want.into_iter().map(f64::from).collect();
        // One for all heads, or each its own.
        for mask in [mask.clone(), mask.repeat(heads)] {
            let given = json!({ "tensors": { "mask": mask } });
            let got = run(&mut prepare(&session, given).expect("a mask"), &inputs, "out");
            assert_near("a given mask", &want, &got);
        }
        for (tensors, says) in [
            (json!({ "mask": [1, 0, 1] }), "3 numbers"),
            (json!({ "mask": vec![2; length * length] }), "1 and 0"),
            (json!({ "masks": [1] }), "mask"),
        ] {
            let error = prepare(&session, json!({ "tensors": tensors })).err().expect("a refusal");
            assert_eq!(error.code, Code::Invalid);
            assert!(error.message.contains(says), "{error}");
        }
    }
}
