//! Causal linear attention in chunks: CPU in both precisions, gradients against central differences, kernels against the CPU.

use super::check::{Check, Random, assert_near};
use attention_lab::gpu::Category;
use attention_lab::graph::plan::plan;
use attention_lab::graph::{Data, Graph, LowerContext, TensorType, cpu};
use std::collections::BTreeMap;

/// q, k `[B, H, N, R]`, v `[B, H, N, D]`.
fn check(batch: usize, heads: usize, n: usize, features: usize, dim: usize) -> Check {
    let shape = |width| [batch, heads, n, width];
    // Features are not negative; a few of either sign do no harm here.
    Check::new(&format!("chunk_linear {batch} {heads} {n} {features} {dim}"))
        .between(&shape(features), -0.2, 1.0)
        .between(&shape(features), -0.2, 1.0)
        .real(&shape(dim))
}

#[test]
fn lengths_around_a_chunk() {
    for n in [1, 7, 63, 64, 65, 100, 129, 200] {
        check(2, 2, n, 8, 12).run(|g, x| {
            let (mix, sums) = g.causal_linear(x[0], x[1], x[2]);
            vec![mix, sums]
        });
    }
}

#[test]
fn sizes_that_do_not_divide_a_tile() {
    for (features, dim) in [(3, 5), (20, 36), (33, 70), (72, 68)] {
        check(1, 2, 140, features, dim).run(|g, x| {
            let (mix, sums) = g.causal_linear(x[0], x[1], x[2]);
            vec![mix, sums]
        });
    }
}

#[test]
fn either_output_alone_has_its_gradient() {
    check(1, 2, 133, 8, 4).run(|g, x| vec![g.causal_linear(x[0], x[1], x[2]).0]);
    // They do not depend on v.
    Check::new("sums alone")
        .between(&[1, 1, 20, 8], 0.0, 1.0)
        .between(&[1, 1, 20, 8], 0.0, 1.0)
        .fixed(&[1, 1, 20, 4], |r| r.unit())
        .run(|g, x| vec![g.causal_linear(x[0], x[1], x[2]).1]);
}

#[test]
fn it_is_the_masked_quadratic_form() {
    let (n, features, dim) = (150, 5, 3);
    let mut random = Random(0x11ea4);
    let mut g = Graph::new();
    let mut inputs = BTreeMap::new();
    let nodes = [("q", features), ("k", features), ("v", dim)].map(|(name, width)| {
        let ty = TensorType::f32(&[1, 1, n, width]);
        inputs.insert(name.to_string(), Data::Real((0..ty.len()).map(|_| random.unit() - 0.3).collect::<Vec<f64>>()));
        g.input(name, ty, Category::Activations)
    });
    let (mix, sums) = g.causal_linear(nodes[0], nodes[1], nodes[2]);
    g.output("mix", mix);
    g.output("sums", sums);
    let [q, k, v] = ["q", "k", "v"].map(|name| inputs[name].real());
    let (mut want_mix, mut want_sums) = (vec![0.0; n * dim], vec![0.0; n]);
    for i in 0..n {
        for j in 0..=i {
            let weight: f64 = (0..features).map(|r| q[i * features + r] * k[j * features + r]).sum();
            want_sums[i] += weight;
            (0..dim).for_each(|d| want_mix[i * dim + d] += weight * v[j * dim + d]);
        }
    }
    let got = cpu::run(&g, &inputs, &|| false).unwrap();
    assert_near("mix", &want_mix, got["mix"].real(), 1e-13);
    assert_near("sums", &want_sums, got["sums"].real(), 1e-13);
}

#[test]
fn nothing_of_the_length_squared_is_held() {
    for software in [false, true] {
        let context = LowerContext { software, ..LowerContext::default() };
        let bytes = |chunks: usize| {
            let mut g = Graph::new();
            let [q, k, v] = ["q", "k", "v"]
                .map(|name| g.input(name, TensorType::f32(&[1, 2, 64 * chunks, 16]), Category::Activations));
            let (mix, sums) = g.causal_linear(q, k, v);
            g.output("mix", mix);
            g.output("sums", sums);
            plan(&g, &context).peak_bytes()
        };
        assert_eq!(bytes(200) - bytes(100), bytes(300) - bytes(200));
    }
}
