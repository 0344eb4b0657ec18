//! What must hold of every variant, whatever it computes.

use crate::backends::again;
use crate::case::{
    Case, Shape, causalities, configurations, configurations_for, configurations_for_invariants, follows_data,
    padded_parameters, sums_to_one, tolerance, variant,
};
use crate::close::{Random, assert_close};
use crate::device::{self, on_each};
use attention_lab::attention::{Request, Value};
use attention_lab::graph::Data;

/// Values taken from columns of the identity give columns of the matrix that mixes them: all of it, in ⌈M / D⌉ runs. It must be
/// the matrix that the plates show, and its rows must sum to what ones as values give.
pub fn effective_matrix(id: &str) {
    if again() {
        return;
    }
    if let Some(reason) = variant(id).no_matrix() {
        println!("{id}: {reason}");
        let request = Request { effective: true, ..Request::default() };
        let case = Case::new(id, Shape::of(9), causalities(variant(id))[0], configurations(id)[0], request);
        assert!(case.variant.build(&case.setup, request).1.is_none(), "{id} gives a matrix that it does not have");
        return;
    }
    for causal in causalities(variant(id)) {
        for json in configurations_for(id, causal) {
            for (n, key_padding) in [(1, false), (19, false), (65, false), (33, true)] {
                let request = Request { key_padding, optional: key_padding, ..Request::default() };
                let mut case = Case::new(id, Shape::of(n), causal, json, request);
                let (rows, dim) = (case.setup.instances() * n, case.setup.dim);
                let shown = case.effective();
                let mut probed = vec![0.0; shown.len()];
                for first in (0..n).step_by(dim) {
                    let is_one = |i: usize| i / dim % n == first + i % dim;
                    set_values(&mut case, (0..rows * dim).map(|i| f64::from(u8::from(is_one(i)))).collect());
                    let out = &case.on_cpu::<f64>()["out"];
                    for row in 0..rows {
                        for d in 0..dim.min(n - first) {
                            probed[row * n + first + d] = out[row * dim + d];
                        }
                    }
                }
                assert_close(&format!("{} effective matrix", case.label()), &probed, &shown, tolerance(id).forward);

                set_values(&mut case, vec![1.0; rows * dim]);
                let sums: Vec<f64> = case.naive().chunks(dim).map(|row| row[0]).collect();
                let shown_sums: Vec<f64> = shown.chunks(n).map(|row| row.iter().sum()).collect();
                assert_close(&format!("{} row sums", case.label()), &sums, &shown_sums, tolerance(id).forward);
                if sums_to_one(id) {
                    assert_sums_are_one_or_zero(&case, &shown_sums);
                }
            }
        }
    }
}

/// The values, of all kinds that a variant mixes.
fn set_values(case: &mut Case, data: Vec<f64>) {
    for name in ["v_global", "v_cmp", "v_slc", "v_win", "v_embedding"] {
        if case.values.contains_key(name) {
            case.set(name, data.clone());
        }
    }
    if case.values.contains_key("v_relay") {
        case.set("v_relay", means_of_real_tokens(case, &data));
    }
    case.set("v", data);
}

/// The mean of the real rows of each head.
fn means_of_real_tokens(case: &Case, data: &[f64]) -> Vec<f64> {
    let (n, dim) = (case.setup.length, case.setup.dim);
    let of_head = |(head, rows): (usize, &[f64])| -> Vec<f64> {
        let is_real = |i: &usize| {
            case.values.get("key_padding").is_none_or(|real| real.index()[head / case.setup.heads * n + i] != 0)
        };
        let real: Vec<usize> = (0..n).filter(is_real).collect();
        (0..dim).map(|d| real.iter().map(|i| rows[i * dim + d]).sum::<f64>() / real.len().max(1) as f64).collect()
    };
    data.chunks(n * dim).enumerate().flat_map(of_head).collect()
}

/// 1 for a row with something to attend to, 0 for one without. ReLU features may be orthogonal, and ε weighs little but
/// something.
fn assert_sums_are_one_or_zero(case: &Case, sums: &[f64]) {
    let one = |sum: f64| (sum - 1.0).abs() < 1e-4;
    let may_be_less = case.variant.id == "linear";
    for (row, &sum) in sums.iter().enumerate() {
        let fine = one(sum) || sum == 0.0 || (may_be_less && (0.0..1.0).contains(&sum));
        assert!(fine, "{} row {row} sums to {sum}", case.label());
        if !case.request.key_padding && !may_be_less && sees_something(case, row) {
            assert!(one(sum), "{} row {row} sums to {sum}", case.label());
        }
    }
}

/// Whether the pattern gives a row (counted over all heads) any key at all.
fn sees_something(case: &Case, row: usize) -> bool {
    let (s, i) = (&case.setup, row % case.setup.length);
    let instance = row / s.length;
    // The first token has nobody but itself.
    let alone = case.variant.id == "adaptive_span" && i == 0 && s.params.0.get("itself") == Some(&Value::Bool(false));
    if alone && s.keys == s.length {
        return false;
    }
    (case.variant.rule)(s).is_none_or(|rule| rule.keys(rule.head_of(instance, s.heads), i, s.length, s.keys) > 0)
}

/// Changing keys and values of token j must leave bit for bit what has no weight on it; changing everything from token t on
/// must leave causal outputs before t.
pub fn reads_only_what_it_may(id: &str) {
    for causal in causalities(variant(id)) {
        for json in configurations_for_invariants(id, causal) {
            let case = Case::new(id, Shape::of(70), causal, json, Request::default());
            on_each(|how, run| {
                let mut random = Random(99);
                let before = &run(&case)["out"];
                if let Some(rule) = (case.variant.rule)(&case.setup) {
                    let changed = disturb(&case, &["k", "v"], 40..41, &mut random);
                    let after = &run(&changed)["out"];
                    for i in 0..70 {
                        let (instances, heads) = (case.setup.instances(), case.setup.heads);
                        let may = (0..instances).any(|h| rule.may_in(rule.head_of(h, heads), i, 40, 70, 70));
                        let label = case.label();
                        assert_eq!(rows_differ(&case, before, after, i), may, "{label} output {i}, token 40, {how}");
                    }
                }
                if causal {
                    let first = 31;
                    let names: &[_] = if follows_data(id) { &["v"] } else { &["q", "k", "v"] };
                    let changed = disturb(&case, names, first..70, &mut random);
                    let after = &run(&changed)["out"];
                    for i in 0..70 {
                        let label = case.label();
                        let differs = rows_differ(&case, before, after, i);
                        // A row that sees nothing is zero whatever changes.
                        let sees = (0..case.setup.instances()).any(|head| sees_something(&case, head * 70 + i));
                        let must = i >= first && sees && !follows_data(id);
                        assert!(differs || !must, "{label} output {i} takes no notice from {first} on, {how}");
                        assert!(!differs || i >= first, "{label} output {i}, future {first}, {how}");
                    }
                }
            });
        }
    }
}

/// Whether any head's output of token `i` differs by a bit.
fn rows_differ(case: &Case, a: &[f64], b: &[f64], i: usize) -> bool {
    let (n, dim) = (case.setup.length, case.setup.dim);
    (0..case.setup.instances()).any(|head| {
        let row = (head * n + i) * dim..(head * n + i + 1) * dim;
        a[row.clone()] != b[row]
    })
}

/// New values for some tokens of some inputs.
fn disturb(case: &Case, names: &[&str], tokens: std::ops::Range<usize>, random: &mut Random) -> Case {
    let mut changed = case.clone();
    let (n, dim) = (case.setup.length, case.setup.dim);
    for name in names {
        let mut values = case.real(name).to_vec();
        for (i, value) in values.iter_mut().enumerate().filter(|(i, _)| tokens.contains(&(i / dim % n))) {
            *value = 3.0 * random.normal() + 0.01 * i as f64;
        }
        changed.set(name, values);
    }
    changed
}

/// Appending padded tokens of any content leaves the real outputs as they were.
pub fn padded_tokens_change_nothing(id: &str) {
    let (short, long) = (37, 70);
    for causal in causalities(variant(id)) {
        for json in configurations_for_invariants(id, causal) {
            // What is cut from, counted from the end of, or drawn from the whole length is another in a longer one.
            let is_drawn = ["links", "project", "positions", "neighbours"]
                .iter()
                .any(|name| json.contains(&format!(r#""{name}": "random""#)));
            if id == "blockbert" || is_drawn || json.contains("deployed") || (id == "bigbird" && !json.contains("etc"))
            {
                continue;
            }
            let case = Case::new(id, Shape::of(short), causal, json, Request::default());
            let padded = Request { key_padding: true, ..Request::default() };
            let mut longer = Case::new(id, Shape::of(long), causal, padded_parameters(id, json), padded);
            longer
                .values
                .insert("key_padding".into(), Data::Index((0..2 * long).map(|i| (i % long < short).into()).collect()));
            let dim = case.setup.dim;
            for name in ["q", "k", "v"] {
                let mut values = longer.real(name).to_vec();
                for (head, rows) in case.real(name).chunks(short * dim).enumerate() {
                    values[head * long * dim..][..short * dim].copy_from_slice(rows);
                }
                longer.set(name, values);
            }
            // What belongs to positions keeps its values for the real tokens.
            let wider = longer.variant.extras_read(&longer.setup, longer.request);
            for (extra, wider) in case.variant.extras_read(&case.setup, case.request).iter().zip(&wider) {
                let mut values = longer.real(extra.name).to_vec();
                copy_corner(case.real(extra.name), &extra.shape, &mut values, &wider.shape);
                longer.set(extra.name, values);
            }
            on_each(|how, run| {
                let want = &run(&case)["out"];
                let all = &run(&longer)["out"];
                let got: Vec<f64> = all.chunks(long * dim).flat_map(|head| head[..short * dim].to_vec()).collect();
                assert_close(&format!("{} padded, {how}", case.label()), want, &got, tolerance(id).alike);
                let rest: Vec<f64> = all.chunks(long * dim).flat_map(|head| head[short * dim..].to_vec()).collect();
                assert!(rest.iter().all(|&x| x == 0.0), "{}: rows of padded queries are zero, {how}", case.label());
            });
        }
    }
}

/// Copies a tensor into the corner of one that is as large or larger on each axis.
fn copy_corner(from: &[f64], shape: &[usize], to: &mut [f64], wider: &[usize]) {
    for (index, &value) in from.iter().enumerate() {
        let (mut rest, mut at, mut stride) = (index, 0, 1);
        for (&size, &wide) in shape.iter().zip(wider).rev() {
            at += rest % size * stride;
            (rest, stride) = (rest / size, stride * wide);
        }
        to[at] = value;
    }
}

/// Each head of each batch entry alone gives what it gives among others.
pub fn batches_and_heads_are_independent(id: &str) {
    for causal in causalities(variant(id)) {
        for json in configurations_for_invariants(id, causal) {
            // A rule may ask for the batch entry, and a lone one is the first. Heads of a group choose together.
            if json.contains("== b") || json.contains(r#""group": 2"#) {
                continue;
            }
            let case = Case::new(id, Shape::of(41), causal, json, Request::default());
            let size = 41 * case.setup.dim;
            let alone = |head: usize| {
                let mut alone =
                    Case::new(id, Shape { batch: 1, heads: 1, ..Shape::of(41) }, causal, json, Request::default());
                alone.setup.structure.first_head = head % 2;
                for name in ["q", "k", "v"] {
                    alone.set(name, case.real(name)[head * size..][..size].to_vec());
                }
                for extra in alone.variant.extras_read(&alone.setup, alone.request) {
                    let values = case.real(extra.name);
                    // One for each head of each batch entry, for each head, or for all.
                    let first = head % (values.len() / extra.len()) * extra.len();
                    alone.set(extra.name, values[first..][..extra.len()].to_vec());
                }
                alone
            };
            on_each(|how, run| {
                let all = &run(&case)["out"];
                for head in 0..4 {
                    let got = &run(&alone(head))["out"];
                    let label = format!("{} head {head} alone, {how}", case.label());
                    assert_close(&label, &all[head * size..][..size], got, tolerance(id).alike);
                }
            });
        }
    }
}

/// The same inputs give the same bits.
pub fn repeats_bit_for_bit(id: &str) {
    let request =
        Request { grad: true, loss: true, effective: true, key_padding: true, optional: true, decisions: true };
    for causal in causalities(variant(id)) {
        let case = Case::new(id, Shape::of(66), causal, configurations(id)[0], request);
        if !again() {
            assert_eq!(case.on_cpu::<f32>(), case.on_cpu::<f32>(), "{}", case.label());
        }
        if let Some(gpu) = device::gpu() {
            let run = || device::run(&gpu, &case.graph(), &case.values_in::<f32>());
            assert_eq!(run(), run(), "{}", case.label());
        }
        let (a, b) = (case.variant.drawn(&case.setup), case.variant.drawn(&case.setup));
        assert_eq!(a, b, "drawn tensors depend on the seed alone");
    }
}
