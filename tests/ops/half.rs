//! Ops on tensors stored in half precision: results near the interpreter's from the same rounded operands, in half the bytes.

use super::check::Check;
use super::device;
use attention_lab::gpu::Category;
use attention_lab::graph::ops::block_attention::BlockAttentionOptions;
use attention_lab::graph::ops::matmul::Matmul;
use attention_lab::graph::plan::plan;
use attention_lab::graph::{Dtype, Graph, LowerContext, Node, TensorType};
use attention_lab::pattern::{BlockList, Rule};
use std::rc::Rc;

/// Eleven significant bits, of operands, results and gradients.
const TOLERANCE: f64 = 5e-3;

fn on_device() -> bool {
    let has = device::gpu().is_some_and(|gpu| gpu.caps().f16);
    if !has {
        eprintln!("no f16 on this adapter: skipped");
    }
    has
}

fn halves(g: &mut Graph, x: &[Node]) -> Vec<Node> {
    x.iter().map(|&x| g.cast(x, Dtype::F16)).collect()
}

#[test]
fn products() {
    if !on_device() {
        return;
    }
    for (m, k, n) in [(1, 1, 1), (7, 5, 3), (12, 20, 36), (70, 64, 68), (65, 131, 18)] {
        for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let a = if trans_a { [2, k, m] } else { [2, m, k] };
            let b = if trans_b { [n, k] } else { [k, n] };
            Check::new(&format!("half matmul {m} {k} {n} {trans_a} {trans_b}"))
                .real(&a)
                .real(&b)
                .tolerance(TOLERANCE, TOLERANCE)
                .halves()
                .run(|g, x| {
                    let x = halves(g, x);
                    let c = g.matmul_with(Matmul { trans_a, trans_b, alpha: 0.5, batch: None }, x[0], x[1]);
                    vec![g.cast(c, Dtype::F32)]
                });
        }
    }
}

#[test]
fn rows() {
    if !on_device() {
        return;
    }
    for shape in [&[1, 1][..], &[3, 7], &[70, 12], &[2, 3, 100], &[5, 65]] {
        let check = || Check::new(&format!("half rows {shape:?}")).real(shape).tolerance(TOLERANCE, TOLERANCE).halves();
        check().run(|g, x| {
            let x = halves(g, x);
            let y = g.softmax(x[0]);
            vec![g.cast(y, Dtype::F32)]
        });
        check().run(|g, x| {
            let x = halves(g, x);
            let y = g.log_softmax(x[0]);
            vec![g.cast(y, Dtype::F32)]
        });
        let len = shape[shape.len() - 1];
        // One element has no variance: its norm is rounding and nothing else.
        if len > 1 {
            check().between(&[len], 0.5, 2.0).real(&[len]).run(|g, x| {
                let half = g.cast(x[0], Dtype::F16);
                let y = g.layer_norm(half, x[1], x[2], 1e-5);
                vec![g.cast(y, Dtype::F32)]
            });
        }
    }
}

#[test]
fn attention() {
    if !on_device() {
        return;
    }
    for (n, dim, causal) in [(1, 8, false), (70, 12, true), (65, 6, false)] {
        let rule = Rule::All { causal };
        let check = Check::new(&format!("half attention {n} {dim} {causal}"));
        let shape = [1, 2, n, dim];
        check.real(&shape).real(&shape).real(&shape).tolerance(TOLERANCE, TOLERANCE).halves().run(|g, x| {
            let x = halves(g, x);
            let list = Rc::new(BlockList::new(&rule, n, n, 64, 64));
            let (o, lse) = g.block_attention(x[0], x[1], x[2], &BlockAttentionOptions::new(list, rule.clone()));
            vec![g.cast(o, Dtype::F32), lse]
        });
    }
}

#[test]
fn bytes_halve() {
    let bytes = |dtype: Dtype| {
        let mut g = Graph::new();
        let [a, b] =
            ["a", "b"].map(|name| g.input(name, TensorType { dtype, shape: vec![2, 64, 64] }, Category::Activations));
        let c = g.matmul(a, b);
        let y = g.softmax(c);
        g.output("y", y);
        plan(&g, &LowerContext { f16: true, ..LowerContext::default() }).peak_bytes()
    };
    assert_eq!(2 * bytes(Dtype::F16), bytes(Dtype::F32));
}
