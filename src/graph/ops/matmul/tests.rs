//! The shape rule and CPU evaluation against loops over the definition.

use super::*;
use crate::gpu::Category;
use crate::graph::{cpu, grad};
use std::collections::BTreeMap;

/// A sequence of numbers in -1..1 that never repeats here.
fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as f64 / (1u64 << 30) as f64 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Element of a tensor at a batch index of another rank, broadcasting, and a row and column of the stored matrix.
fn at(data: &[f64], shape: &[usize], batch: &[usize], row: usize, col: usize) -> f64 {
    let own = &shape[..shape.len() - 2];
    let skip = batch.len() - own.len();
    let index = own.iter().zip(&batch[skip..]).fold(0, |i, (&e, &b)| i * e + if e == 1 { 0 } else { b });
    data[(index * shape[shape.len() - 2] + row) * shape[shape.len() - 1] + col]
}

/// The definition in loops over batch axes that both operands have or broadcast.
fn naive(op: &Matmul, a: (&[usize], &[f64]), b: (&[usize], &[f64]), full: &[usize], out: &[usize]) -> Vec<f64> {
    let (m, n) = (out[out.len() - 2], out[out.len() - 1]);
    let k = if op.trans_a { a.0[a.0.len() - 2] } else { a.0[a.0.len() - 1] };
    let mut c = vec![0.0; out.iter().product()];
    for flat in 0..full.iter().product() {
        let mut rest: usize = flat;
        let mut batch = vec![0; full.len()];
        for (i, &extent) in full.iter().enumerate().rev() {
            (batch[i], rest) = (rest % extent, rest / extent);
        }
        let own = &out[..out.len() - 2];
        let skip = full.len() - own.len();
        let to = own.iter().zip(&batch[skip..]).fold(0, |i, (&e, &b)| i * e + if e == 1 { 0 } else { b });
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k)
                    .map(|p| {
                        let (ra, ca) = if op.trans_a { (p, i) } else { (i, p) };
                        let (rb, cb) = if op.trans_b { (j, p) } else { (p, j) };
                        at(a.1, a.0, &batch, ra, ca) * at(b.1, b.0, &batch, rb, cb)
                    })
                    .sum();
                c[(to * m + i) * n + j] += op.alpha as f64 * sum;
            }
        }
    }
    c
}

fn shapes(op: &Matmul, batch_a: &[usize], batch_b: &[usize], m: usize, n: usize, k: usize) -> (Vec<usize>, Vec<usize>) {
    let a = if op.trans_a { [k, m] } else { [m, k] };
    let b = if op.trans_b { [n, k] } else { [k, n] };
    ([batch_a, &a].concat(), [batch_b, &b].concat())
}

/// Batch axes of A, of B, of both together, and of the result where they are given.
type Batches<'a> = (&'a [usize], &'a [usize], &'a [usize], Option<&'a [usize]>);

#[test]
fn every_form_equals_the_definition() {
    let batches: [Batches; 7] = [
        (&[], &[], &[], None),
        (&[3], &[], &[3], None),
        (&[2, 1], &[3], &[2, 3], None),
        (&[2, 3], &[2, 3], &[2, 3], None),
        (&[2, 3], &[2, 3], &[2, 3], Some(&[])),
        (&[2, 3], &[1, 3], &[2, 3], Some(&[2, 1])),
        (&[2, 3], &[2, 3], &[2, 3], Some(&[1, 3])),
    ];
    for form in 0..4 {
        for (case, (batch_a, batch_b, full, batch)) in batches.iter().enumerate() {
            let op = Matmul {
                trans_a: form & 1 == 1,
                trans_b: form & 2 == 2,
                alpha: 0.5,
                batch: batch.map(<[usize]>::to_vec),
            };
            let (a, b) = shapes(&op, batch_a, batch_b, 5, 3, 7);
            let (x, y) = (numbers(a.iter().product(), 1), numbers(b.iter().product(), 2));
            let mut g = Graph::new();
            let node_a = g.input("a", TensorType::f32(&a), Category::Activations);
            let node_b = g.input("b", TensorType::f32(&b), Category::Activations);
            let c = g.matmul_with(op.clone(), node_a, node_b);
            g.output("c", c);
            let out = g.shape(c).to_vec();
            let want = naive(&op, (&a, &x), (&b, &y), full, &out);
            let inputs = BTreeMap::from([("a".into(), Data::Real(x)), ("b".into(), Data::Real(y))]);
            let got = cpu::run::<f64>(&g, &inputs, &|| false).unwrap();
            let error = want.iter().zip(got["c"].real()).map(|(w, g)| (w - g).abs()).fold(0.0, f64::max);
            assert!(error < 1e-12, "form {form}, case {case}: {error}");
        }
    }
}

#[test]
fn a_gradient_has_the_shape_of_its_operand_and_its_value() {
    // C = A B summed against a seed is linear in A, so that <dA, A> = <seed, C>, and likewise for B.
    for (batch_a, batch_b) in [(&[2, 3][..], &[3][..]), (&[2, 1], &[3]), (&[], &[4, 2])] {
        for form in 0..4 {
            let op = Matmul { trans_a: form & 1 == 1, trans_b: form & 2 == 2, alpha: -1.5, batch: None };
            let (a, b) = shapes(&op, batch_a, batch_b, 4, 6, 5);
            let mut g = Graph::new();
            let node_a = g.input("a", TensorType::f32(&a), Category::Activations);
            let node_b = g.input("b", TensorType::f32(&b), Category::Activations);
            let c = g.matmul_with(op.clone(), node_a, node_b);
            let seed = g.input("seed", g.ty(c).clone(), Category::Activations);
            let d = grad::gradients(&mut g, &[(c, seed)], &[node_a, node_b]);
            for (name, node) in [("c", c), ("da", d[0].unwrap()), ("db", d[1].unwrap())] {
                g.output(name, node);
            }
            let x = numbers(a.iter().product(), 3);
            let y = numbers(b.iter().product(), 4);
            let s = numbers(g.shape(c).iter().product(), 5);
            let given = [("a", &x), ("b", &y), ("seed", &s)];
            let inputs = given.iter().map(|(n, v)| (n.to_string(), Data::Real(v.to_vec()))).collect();
            let got = cpu::run::<f64>(&g, &inputs, &|| false).unwrap();
            let dot = |u: &[f64], v: &[f64]| u.iter().zip(v).map(|(u, v)| u * v).sum::<f64>();
            let want = dot(&s, got["c"].real());
            for (name, operand) in [("da", &x), ("db", &y)] {
                assert!((dot(operand, got[name].real()) - want).abs() < 1e-9, "form {form}, {name}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_shapes() {
    let refused = |op: Matmul, a: &[usize], b: &[usize]| op.geometry(a, b).unwrap_err().to_string();
    assert!(refused(Matmul::default(), &[3, 4], &[5, 6]).contains("inner sizes"));
    assert!(refused(Matmul::default(), &[4], &[4, 6]).contains("two axes"));
    assert!(refused(Matmul::default(), &[2, 3, 4], &[3, 4, 6]).contains("batch axes"));
    assert!(refused(Matmul::default(), &[3, 0], &[0, 6]).contains("empty"));
    let batch = Some(vec![5]);
    assert!(refused(Matmul { batch, ..Matmul::default() }, &[2, 3, 4], &[4, 6]).contains("batch axes"));
}

#[test]
fn a_linear_layer_is_one_product_and_so_are_its_gradients() {
    let forward = Matmul::default().geometry(&[2, 8, 100, 16], &[16, 32]).unwrap().folded();
    assert_eq!((forward.m, forward.axes.len()), (1600, 0));
    let weights = Matmul { trans_a: true, batch: Some(vec![]), ..Matmul::default() };
    let backward = weights.geometry(&[2, 8, 100, 16], &[2, 8, 100, 32]).unwrap().folded();
    assert_eq!((backward.m, backward.n, backward.k, backward.axes.len()), (16, 32, 1600, 0));
}
