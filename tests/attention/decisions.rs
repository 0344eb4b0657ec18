//! What methods decide about a text, against definitions of it that are written here from the papers, on each interpreter.

use crate::case::{Case, Shape, causalities, configurations_for, variant};
use crate::close::assert_close;
use crate::device::on_each;
use attention_lab::attention::{Built, Decision, Form, Request};
use std::collections::VecDeque;

mod choices;
mod groups;

/// One decision of one case, by batch and head.
struct Told<'a> {
    case: &'a Case,
    form: Form,
    shape: [usize; 4],
    values: &'a [f64],
}

impl Told<'_> {
    /// The rows of a head.
    fn rows(&self, batch: usize, head: usize) -> Vec<Vec<f64>> {
        let [batches, heads, rows, columns] = self.shape;
        let at = (if batches == 1 { 0 } else { batch }) * heads + if heads == 1 { 0 } else { head };
        self.values[at * rows * columns..][..rows * columns].chunks(columns).map(<[f64]>::to_vec).collect()
    }

    /// The same as whole numbers.
    fn whole(&self, batch: usize, head: usize) -> Vec<Vec<usize>> {
        let whole = |x: f64| {
            assert_eq!(x.fract(), 0.0);
            x as usize
        };
        self.rows(batch, head).into_iter().map(|row| row.into_iter().map(whole).collect()).collect()
    }

    /// Hands `check` each batch and head.
    fn each(&self, check: impl Fn(usize, usize)) {
        let s = &self.case.setup;
        (0..s.instances()).for_each(|at| check(at / s.heads, at % s.heads));
    }

    fn int(&self, name: &str) -> usize {
        let param = self.case.variant.params.iter().find(|p| p.name == name).expect("a parameter");
        self.case.setup.int(param)
    }

    fn choice(&self, name: &str) -> String {
        let param = self.case.variant.params.iter().find(|p| p.name == name).expect("a parameter");
        self.case.setup.choice(param)
    }

    /// A row of q, k or v.
    fn token(&self, tensor: &str, batch: usize, head: usize, i: usize) -> &[f64] {
        let s = &self.case.setup;
        let rows = if tensor == "q" { s.length } else { s.keys };
        &self.case.real(tensor)[((batch * s.heads + head) * rows + i) * s.dim..][..s.dim]
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Hands `check` what a variant decides under this name, in all its configurations and on each interpreter.
fn each(id: &str, name: &str, check: impl Fn(&Told)) {
    let request = Request { decisions: true, ..Request::default() };
    let told = std::cell::Cell::new(0);
    for causal in causalities(variant(id)) {
        for json in configurations_for(id, causal) {
            for n in [1, 37, 100] {
                let case = Case::new(id, Shape::of(n), causal, json, request);
                let Built { graph, decisions, .. } = case.variant.build_all(&case.setup, request);
                let Some(Decision { form, node, .. }) = decisions.into_iter().find(|d| d.name == name) else {
                    continue;
                };
                let shape: [usize; 4] = graph.shape(node).try_into().expect("four axes");
                on_each(|how, run| {
                    println!("{how}");
                    let outputs = run(&case);
                    let values = &outputs[&format!("decided_{name}")];
                    check(&Told { case: &case, form, shape, values });
                    told.set(told.get() + 1);
                });
            }
        }
    }
    assert!(told.get() > 0, "{id} decides no {name}");
}

#[test]
fn reformer_buckets_are_the_largest_of_rotations() {
    each("reformer", "buckets", |told| {
        let (rounds, count) = (told.int("rounds"), told.int("buckets"));
        let (n, dim, half) = (told.case.setup.length, told.case.setup.dim, count / 2);
        told.each(|b, h| {
            let got = told.whole(b, h);
            assert_eq!(got.len(), rounds);
            for (round, got) in got.iter().enumerate() {
                for (i, &got) in got.iter().enumerate() {
                    let products: Vec<f64> = (0..half)
                        .map(|c| match told.choice("hash").as_str() {
                            "random" => told.case.real("lots")[(round * n + i) * half + c],
                            _ => {
                                let rotation = |d: usize| told.case.real("rotations")[(round * dim + d) * half + c];
                                (0..dim).map(|d| told.token("q", b, h, i)[d] * rotation(d)).sum()
                            }
                        })
                        .collect();
                    let both: Vec<f64> = products.iter().copied().chain(products.iter().map(|x| -x)).collect();
                    let best = (0..count).fold(0, |best, c| if both[c] > both[best] { c } else { best });
                    assert_eq!(got, best, "round {round}, token {i}");
                }
            }
        });
    });
}

#[test]
fn reformer_order_is_by_bucket_and_stable() {
    let request = Request { decisions: true, ..Request::default() };
    for causal in [false, true] {
        for json in configurations_for("reformer", causal) {
            let case = Case::new("reformer", Shape::of(53), causal, json, request);
            on_each(|how, run| {
                let outputs = run(&case);
                let (buckets, order) = (&outputs["decided_buckets"], &outputs["decided_order"]);
                for (buckets, order) in buckets.chunks(53).zip(order.chunks(53)) {
                    let mut want: Vec<usize> = (0..53).collect();
                    want.sort_by_key(|&i| buckets[i] as usize);
                    let got: Vec<usize> = order.iter().map(|&i| i as usize).collect();
                    assert_eq!(got, want, "{how}");
                }
            });
        }
    }
}

#[test]
fn transformer_xl_memory_is_what_a_queue_holds() {
    each("transformer_xl", "memory", |told| {
        let (segment, most) = (told.int("segment"), told.int("memory"));
        let mut memory = VecDeque::new();
        for (row, at) in told.whole(0, 0).into_iter().zip((0..told.case.setup.length).step_by(segment)) {
            let end = (at + segment).min(told.case.setup.length);
            assert_eq!(row, [memory.front().copied().unwrap_or(at), at, end]);
            memory.extend(at..end);
            memory.drain(..memory.len().saturating_sub(most));
        }
    });
}

#[test]
fn compressive_memories_are_what_two_queues_hold() {
    each("compressive", "memory", |told| {
        let (segment, rate, kept) = (told.int("segment"), told.int("rate"), told.int("compressed"));
        let most = segment * told.int("memory_segments");
        let (mut memory, mut slots) = (VecDeque::new(), VecDeque::new());
        for (row, at) in told.whole(0, 0).into_iter().zip((0..told.case.setup.length).step_by(segment)) {
            let end = (at + segment).min(told.case.setup.length);
            let newest = memory.front().copied().unwrap_or(at);
            assert_eq!(row, [slots.front().copied().unwrap_or(newest), newest, at, end]);
            memory.extend(at..end);
            while memory.len() > most {
                let old: Vec<usize> = memory.drain(..segment.min(memory.len())).collect();
                // A slot is known by the first token that it was made of.
                slots.extend(old.chunks_exact(rate).map(|group| group[0]));
            }
            slots.drain(..slots.len().saturating_sub(kept));
        }
    });
}

#[test]
fn adaptive_spans_are_the_learned_ones_cut_to_what_may_be() {
    each("adaptive_span", "spans", |told| {
        let (longest, ramp) = (told.int("max_span") as f64, told.int("ramp") as f64);
        let rows = told.rows(0, 0);
        for (head, row) in rows.iter().enumerate() {
            let span = match told.choice("spans").as_str() {
                "random" => told.case.real("lot")[head].abs() * longest,
                _ => told.case.real("span")[head],
            };
            assert!((row[0] - span.clamp(0.0, longest)).abs() < 1e-4 && row[1] == ramp, "{row:?} for {span}");
        }
        assert_eq!(rows.len(), told.case.setup.heads);
    });
}

#[test]
fn performer_features_in_use_are_counted_by_their_part_of_the_keys() {
    each("performer", "features", |told| {
        let (count, s) = (told.int("features"), &told.case.setup);
        let w = told.case.real("projection");
        told.each(|b, h| {
            let shrunk: Vec<Vec<f64>> = (0..s.keys)
                .map(|j| told.token("k", b, h, j).iter().map(|x| x / (s.dim as f64).sqrt().sqrt()).collect())
                .collect();
            let product = |k: &[f64], r: usize| dot(&w[r * s.dim..][..s.dim], k);
            let largest =
                shrunk.iter().flat_map(|k| (0..count).map(|r| product(k, r))).fold(f64::NEG_INFINITY, f64::max);
            let shift = if s.causal { 0.0 } else { largest };
            let feature = |k: &Vec<f64>, r: usize| match told.choice("feature_map").as_str() {
                "relu" => product(k, r).max(0.0) + 1e-3,
                _ => (product(k, r) - dot(k, k) / 2.0 - shift).exp() + 1e-4,
            };
            let mass: Vec<f64> = (0..count).map(|r| shrunk.iter().map(|k| feature(k, r)).sum()).collect();
            let total: f64 = mass.iter().sum();
            let used = 1.0 / mass.iter().map(|m| (m / total).powi(2)).sum::<f64>();
            let got = told.rows(b, h);
            assert_eq!(got[0], [count as f64]);
            assert_close("features in use", &[used], &got[1], 1e-4);
            assert!(used >= 1.0 && used <= count as f64);
        });
    });
}
