//! Every op: CPU in both precisions, gradients against central differences, kernels against the CPU.

#[path = "common/backends.rs"]
mod backends;
#[path = "common/check.rs"]
mod check;
#[path = "ops/chunk_linear.rs"]
mod chunk_linear;
mod common;
#[path = "common/device.rs"]
mod device;
#[path = "ops/half.rs"]
mod half;
#[path = "ops/recurrent.rs"]
mod recurrent;
#[path = "ops/selected.rs"]
mod selected;
#[path = "ops/sorted.rs"]
mod sorted;
#[path = "ops/strips.rs"]
mod strips;

use attention_lab::gpu::Category;
use attention_lab::graph::{BinaryKind, Data, Distribution, Dtype, Graph, IGNORED, TensorType, UnaryKind};
use check::Check;
use std::collections::BTreeMap;

#[test]
fn unary() {
    use UnaryKind as K;
    let anywhere = [
        K::Neg,
        K::Abs,
        K::Exp,
        K::Tanh,
        K::Sigmoid,
        K::Sin,
        K::Cos,
        K::Square,
        K::Relu,
        K::Step,
        K::Sign,
        K::Gelu,
        K::GeluErf,
        K::EluPlusOne,
        K::Scale(-1.7),
        K::AddScalar(0.3),
        K::Powi(3),
    ];
    for kind in anywhere {
        for shape in [&[1][..], &[7], &[2, 3, 20]] {
            // WGSL asks no more than 2^-11 of sine and cosine.
            let trigonometric = matches!(kind, K::Sin | K::Cos);
            let tolerance = if trigonometric { (1e-3, 1e-3) } else { (1e-5, 1e-4) };
            let check = Check::new(&format!("{kind:?} {shape:?}")).tolerance(tolerance.0, tolerance.1);
            let check = match kind {
                // Of derivative zero.
                K::Step | K::Sign => check.fixed(shape, |r| r.unit() - 0.5),
                _ => check.real(shape),
            };
            check.run(|g, x| vec![g.unary(kind, x[0])]);
        }
    }
    for kind in [K::Ln, K::Sqrt, K::Reciprocal, K::Powi(-2)] {
        Check::new(&format!("{kind:?}")).between(&[3, 11], 0.2, 3.0).run(|g, x| vec![g.unary(kind, x[0])]);
    }
}

#[test]
fn binary_broadcasts() {
    use BinaryKind as K;
    let shapes: [(&[usize], &[usize]); 8] = [
        (&[1], &[1]),
        (&[5, 7], &[5, 7]),
        (&[4, 8], &[8]),
        (&[4, 8], &[4, 1]),
        (&[3, 1, 5], &[4, 1]),
        (&[2, 1, 4, 8], &[3, 1, 8]),
        (&[2, 3], &[]),
        (&[1, 3, 1, 6], &[5, 1, 2, 1]),
    ];
    for kind in [K::Add, K::Sub, K::Mul, K::Div, K::Max, K::Min] {
        for (a, b) in shapes {
            Check::new(&format!("{kind:?} {a:?} {b:?}"))
                .real(a)
                .between(b, 0.4, 2.0)
                .run(|g, x| vec![g.binary(kind, x[0], x[1])]);
        }
    }
    for kind in [K::Greater, K::GreaterEqual, K::Equal] {
        Check::new(&format!("{kind:?}"))
            .index(&[3, 5], 3)
            .index(&[5], 3)
            .fixed(&[4], |r| r.below(3) as f64)
            .fixed(&[4, 1], |r| r.below(3) as f64)
            .run(|g, x| vec![g.binary(kind, x[0], x[1]), g.binary(kind, x[2], x[3])]);
    }
    for kind in [K::Add, K::Sub, K::Mul, K::Div, K::Max, K::Min] {
        Check::new(&format!("{kind:?} of indices"))
            .index(&[3, 4], 9)
            .index(&[4], 9)
            .run(|g, x| vec![g.binary(kind, x[0], x[1])]);
    }
}

#[test]
fn select_cast_and_broadcast() {
    Check::new("select by indices")
        .index(&[3, 1, 4], 2)
        .real(&[5, 4])
        .real(&[1])
        .run(|g, x| vec![g.select(x[0], x[1], x[2])]);
    Check::new("select by reals")
        .fixed(&[7], |r| r.below(2) as f64)
        .real(&[2, 7])
        .real(&[2, 1])
        .run(|g, x| vec![g.select(x[0], x[1], x[2])]);
    Check::new("cast")
        .index(&[9], 100)
        .fixed(&[9], |r| 50.0 * r.unit())
        .run(|g, x| vec![g.cast(x[0], Dtype::F32), g.cast(x[1], Dtype::U32)]);
    Check::new("broadcast").real(&[3, 1, 4]).run(|g, x| vec![g.broadcast_to(x[0], &[2, 3, 5, 4])]);
}

#[test]
fn reduce() {
    let cases: [(&[usize], &[usize]); 13] = [
        (&[1], &[0]),
        (&[7], &[0]),
        (&[3, 5], &[0]),
        (&[3, 5], &[1]),
        (&[6, 8], &[1]),
        (&[6, 8], &[0]),
        (&[2, 3, 4, 5], &[1, 2]),
        (&[2, 3, 4, 5], &[0, 2]),
        (&[2, 3, 4, 5], &[0, 1, 2, 3]),
        (&[5, 1, 3], &[1]),
        (&[1000], &[0]),
        (&[700, 8], &[0]),
        (&[3, 1031], &[1]),
    ];
    for (shape, axes) in cases {
        for keepdim in [false, true] {
            Check::new(&format!("reduce {shape:?} over {axes:?} {keepdim}"))
                .real(shape)
                .run(|g, x| vec![g.sum(x[0], axes, keepdim), g.mean(x[0], axes, keepdim), g.max(x[0], axes, keepdim)]);
        }
    }
}

#[test]
fn reshape_and_transpose() {
    let orders: [(&[usize], &[usize]); 7] = [
        (&[3, 5], &[1, 0]),
        (&[1, 5], &[1, 0]),
        (&[2, 3, 4], &[0, 2, 1]),
        (&[2, 7, 3, 8], &[0, 2, 1, 3]),
        (&[2, 3, 4, 5], &[3, 1, 0, 2]),
        (&[2, 3, 2, 3, 4], &[4, 2, 0, 3, 1]),
        (&[9], &[0]),
    ];
    for (shape, order) in orders {
        Check::new(&format!("transpose {shape:?} {order:?}")).real(shape).run(|g, x| vec![g.transpose(x[0], order)]);
    }
    Check::new("transpose of indices").index(&[3, 8], 50).run(|g, x| vec![g.swap_axes(x[0], 0, 1)]);
    Check::new("reshape").real(&[3, 4]).run(|g, x| {
        let y = g.reshape(x[0], &[2, 6]);
        vec![g.exp(y)]
    });
}

#[test]
fn slice_pad_and_concat() {
    for (shape, axis, from, to) in [
        (&[10][..], 0, 3, 7),
        (&[1], 0, 0, 1),
        (&[4, 6, 8], 1, 1, 5),
        (&[4, 6, 8], 2, 4, 8),
        (&[4, 6, 7], 2, 2, 3),
        (&[5, 3], 0, 4, 5),
    ] {
        Check::new(&format!("slice {shape:?} {axis} {from}..{to}")).real(shape).run(|g, x| {
            let y = g.slice(x[0], axis, from..to);
            vec![y, g.pad(x[0], axis, from, 2, 0.5)]
        });
    }
    Check::new("concat of rows").real(&[2, 3]).real(&[1, 3]).real(&[4, 3]).run(|g, x| vec![g.concat(x, 0)]);
    Check::new("concat of columns").real(&[2, 5, 4]).real(&[2, 5, 8]).run(|g, x| vec![g.concat(x, 2)]);
    Check::new("concat of odd columns").real(&[3, 1]).real(&[3, 5]).run(|g, x| vec![g.concat(x, 1)]);
    Check::new("slice, pad, concat of indices").index(&[3, 5], 90).run(|g, x| {
        let a = g.slice(x[0], 1, 1..4);
        let b = g.pad(x[0], 0, 1, 2, 7.0);
        vec![g.concat(&[x[0], a], 1), b]
    });
}

#[test]
fn softmax() {
    for shape in [&[1][..], &[3, 1], &[5, 7], &[6, 64], &[2, 3, 100], &[3, 129], &[2, 1000]] {
        Check::new(&format!("softmax {shape:?}")).between(shape, -6.0, 6.0).run(|g, x| vec![g.softmax(x[0])]);
        Check::new(&format!("log softmax {shape:?}")).between(shape, -6.0, 6.0).run(|g, x| vec![g.log_softmax(x[0])]);
        Check::new(&format!("log-sum-exp {shape:?}")).between(shape, -6.0, 6.0).run(|g, x| vec![g.log_sum_exp(x[0])]);
    }
}

#[test]
fn layer_norm() {
    for shape in [&[1, 1][..], &[1, 5], &[3, 7], &[2, 3, 64], &[70, 12], &[5, 129]] {
        let n = shape[shape.len() - 1];
        Check::new(&format!("layer norm {shape:?}"))
            .real(shape)
            .between(&[n], 0.5, 1.5)
            .real(&[n])
            .run(|g, x| vec![g.layer_norm(x[0], x[1], x[2], 1e-3)]);
    }
}

#[test]
fn gather_and_scatter() {
    Check::new("gather from one table").real(&[9, 5]).index(&[2, 7], 9).run(|g, x| vec![g.gather_rows(x[0], x[1])]);
    Check::new("gather one row").real(&[1, 1]).index(&[1], 1).run(|g, x| vec![g.gather_rows(x[0], x[1])]);
    Check::new("embedding").real(&[40, 16]).index(&[3, 21], 40).run(|g, x| vec![g.embedding(x[0], x[1])]);
    Check::new("embedding of many equal tokens")
        .real(&[3, 8])
        .index(&[700], 3)
        .run(|g, x| vec![g.embedding(x[0], x[1])]);
    Check::new("gather from many tables")
        .real(&[2, 3, 10, 6])
        .index(&[2, 3, 4], 10)
        .run(|g, x| vec![g.gather_rows(x[0], x[1])]);
    Check::new("gather of indices").index(&[5, 3], 99).index(&[4], 5).run(|g, x| vec![g.gather_rows(x[0], x[1])]);
    Check::new("scatter").real(&[2, 9, 4]).index(&[2, 9], 5).run(|g, x| vec![g.scatter_add_rows(x[0], x[1], 5)]);
    Check::new("scatter of odd rows, some beyond the table")
        .real(&[1, 30, 3])
        .index(&[1, 30], 9)
        .run(|g, x| vec![g.scatter_add_rows(x[0], x[1], 8)]);
}

#[test]
fn cumsum() {
    for (shape, axis) in
        [(&[1][..], 0), (&[7], 0), (&[3, 5], 1), (&[3, 5], 0), (&[2, 100, 3], 1), (&[1000], 0), (&[2, 513, 2], 1)]
    {
        for (reverse, exclusive) in [(false, false), (true, false), (false, true), (true, true)] {
            Check::new(&format!("cumsum {shape:?} {axis} {reverse} {exclusive}"))
                .real(shape)
                .run(|g, x| vec![g.cumsum(x[0], axis, reverse, exclusive)]);
        }
    }
}

#[test]
fn argsort_and_top_k() {
    for shape in [&[1][..], &[2], &[3, 7], &[2, 512], &[2, 513], &[1, 1025], &[3, 2000]] {
        for descending in [false, true] {
            Check::new(&format!("argsort {shape:?} {descending}"))
                .fixed(shape, |r| r.unit() * 4.0 - 2.0)
                .index(shape, 50)
                .fixed(shape, |r| r.below(7) as f64 - 3.0)
                .run(|g, x| x.iter().map(|&x| g.argsort(x, descending)).collect());
        }
    }
    Check::new("argsort of numbers that are none")
        .fixed(&[4, 300], |r| match r.below(6) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            4 => 0.0,
            _ => r.unit() - 0.5,
        })
        .run(|g, x| vec![g.argsort(x[0], false), g.argsort(x[0], true)]);
    for (shape, k) in [(&[5][..], 2), (&[1], 1), (&[9], 9), (&[2, 3, 17], 4), (&[3, 700], 9), (&[2, 1001], 400)] {
        Check::new(&format!("largest {shape:?} {k}"))
            .fixed(shape, |r| r.unit() * 4.0 - 2.0)
            .index(shape, 5000)
            .fixed(shape, |r| r.below(7) as f64 - 3.0)
            .fixed(shape, |r| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0][r.below(5) as usize])
            .run(|g, x| x.iter().map(|&x| g.largest(x, k)).collect());
        Check::new(&format!("top-k {shape:?} {k}")).real(shape).run(|g, x| {
            let (values, index) = g.top_k(x[0], k);
            vec![values, index]
        });
    }
}

#[test]
fn depthwise_conv() {
    for causal in [false, true] {
        for (shape, filter) in [
            (&[1, 1][..], &[1, 1, 1][..]),
            (&[9, 5], &[1, 3, 5]),
            (&[2, 31, 8], &[1, 5, 8]),
            (&[2, 3, 40, 4], &[3, 7, 1]),
            (&[2, 3, 6, 5], &[3, 9, 5]),
            (&[1, 2, 600, 2], &[2, 3, 1]),
            (&[2, 2, 301, 12], &[2, 33, 12]),
            (&[1, 1, 5, 4], &[1, 21, 4]),
        ] {
            Check::new(&format!("depthwise conv {shape:?} {filter:?} {causal}"))
                .real(shape)
                .real(filter)
                .run(|g, x| vec![g.depthwise_conv(x[0], x[1], causal)]);
        }
    }
}

#[test]
fn cross_entropy() {
    for (rows, classes) in [(1, 1), (1, 9), (7, 64), (33, 100), (5, 257)] {
        Check::new(&format!("cross-entropy {rows} {classes}"))
            .real(&[rows, classes])
            .index(&[rows], classes as u32)
            .run(|g, x| vec![g.cross_entropy(x[0], x[1]), g.cross_entropy_rows(x[0], x[1])]);
    }
    Check::new("cross-entropy with ignored rows")
        .real(&[2, 3, 5])
        .indices(&[2, 3], vec![0, IGNORED, 4, IGNORED, IGNORED, 2])
        .run(|g, x| vec![g.cross_entropy(x[0], x[1])]);
    Check::new("cross-entropy of nothing")
        .real(&[2, 5])
        .indices(&[2], vec![IGNORED; 2])
        .run(|g, x| vec![g.cross_entropy(x[0], x[1])]);
}

#[test]
fn random_and_dropout() {
    for shape in [&[1][..], &[7], &[3, 40], &[2, 3, 333]] {
        Check::new(&format!("random {shape:?}"))
            .indices(&[2], vec![12345, 67])
            .tolerance(0.0, 0.0)
            .run(|g, x| vec![g.random(shape, Distribution::Uniform, x[0], 3)]);
        Check::new(&format!("normal {shape:?}"))
            .indices(&[2], vec![5, 4_000_000_000])
            // WGSL asks no more than 2^-11 of the cosine.
            .tolerance(1e-3, 1e-3)
            .run(|g, x| vec![g.random(shape, Distribution::Normal, x[0], 4)]);
        Check::new(&format!("dropout {shape:?}"))
            .real(shape)
            .indices(&[2], vec![99, 1])
            .run(|g, x| vec![g.dropout(x[0], 0.3, x[1], 5)]);
    }
}

#[test]
fn gaps_come_out_as_nan() {
    let mut g = Graph::new();
    let table = g.input("table", TensorType::f32(&[3, 2]), Category::Activations);
    let rows = g.input("rows", TensorType::u32(&[2]), Category::Activations);
    let picked = g.gather_rows(table, rows);
    g.output("picked", picked);
    let loss = g.cross_entropy_rows(picked, rows);
    g.output("loss", loss);
    let largest = g.max(picked, &[1], false);
    g.output("largest", largest);
    let relu = g.relu(picked);
    g.output("relu", relu);
    let inputs = BTreeMap::from([
        ("table".to_string(), Data::Real(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("rows".to_string(), Data::Index(vec![3, 1])),
    ]);
    let check = |how: &str, got: &BTreeMap<String, Data<f32>>| {
        for (name, bad) in [("picked", 2), ("loss", 1), ("largest", 1), ("relu", 2)] {
            let got = got[name].real();
            assert!(got[..bad].iter().all(|x| x.is_nan()), "{name} on {how}: {got:?}");
            assert!(got[bad..].iter().all(|x| x.is_finite()), "{name} on {how}: {got:?}");
        }
    };
    check("CPU", &attention_lab::graph::cpu::run(&g, &inputs, &|| false).unwrap());
    device::check("gaps", &g, &inputs, check);
}

#[test]
fn chains_of_elementwise_ops() {
    for shape in [&[1, 1, 1][..], &[3, 5, 7], &[2, 6, 8]] {
        let n = shape[2];
        Check::new(&format!("chain {shape:?}"))
            .real(shape)
            .between(&[n], 0.5, 2.0)
            .between(&[shape[1], 1], 0.5, 2.0)
            .index(shape, 2)
            .real(shape)
            .run(|g, x| {
                let a = g.mul(x[0], x[1]);
                let b = g.gelu(a);
                let c = g.select(x[3], b, x[4]);
                let d = g.div(c, x[2]);
                let e = g.mul(d, d);
                let f = g.add(e, x[0]);
                // Between two kernels of other kinds, so that the chain may write over its operand.
                let g0 = g.softmax(f);
                let g1 = g.scale(g0, 2.0);
                let g2 = g.add_scalar(g1, 0.5);
                let g3 = g.mul(g2, x[1]);
                vec![g.cumsum(g3, 1, false, false)]
            });
    }
}

#[test]
fn half_precision_storage() {
    if !device::gpu().is_some_and(|gpu| gpu.caps().f16) {
        eprintln!("no f16 on this adapter: skipped");
        return;
    }
    for shape in [&[1, 1][..], &[3, 7], &[6, 8], &[5, 12]] {
        // Eleven significant bits.
        Check::new(&format!("half {shape:?}")).real(shape).real(&[shape[1]]).tolerance(5e-3, 5e-3).halves().run(
            |g, x| {
                let [a, row] = [x[0], x[1]].map(|x| g.cast(x, Dtype::F16));
                let turned = g.transpose(a, &[1, 0]);
                let back = g.transpose(turned, &[1, 0]);
                let both = g.concat(&[back, a], 0);
                let padded = g.pad(both, 1, 1, 2, 0.5);
                let cut = g.slice(padded, 1, 1..1 + shape[1]);
                let sum = g.mul(cut, row);
                let wide = g.cast(sum, Dtype::F32);
                vec![g.exp(wide), g.cast(padded, Dtype::F32)]
            },
        );
    }
}

#[test]
fn grouped_products() {
    for len in [8, 5] {
        let (rows, groups, slots) = (11, 3, 4);
        // One number more than there are groups: a row of none.
        let check = |name: &str| Check::new(&format!("{name}, D {len}"));
        check("grouped dot")
            .real(&[2, rows, len])
            .real(&[2, groups, slots, len])
            .index(&[2, rows], 4)
            .run(|g, x| vec![g.grouped_dot(x[0], x[1], x[2])]);
        check("grouped mix")
            .real(&[2, rows, slots])
            .real(&[2, groups, slots, len])
            .index(&[2, rows], 4)
            .run(|g, x| vec![g.grouped_mix(x[0], x[1], x[2])]);
        check("grouped outer")
            .real(&[2, rows, slots])
            .real(&[2, rows, len])
            .index(&[2, rows], 4)
            .run(|g, x| vec![g.grouped_outer(x[0], x[1], x[2], groups)]);
    }
}

#[test]
fn clusters_of_bit_strings() {
    for (rows, bits, codes, rounds) in [(1, 1, 1, 0), (70, 40, 7, 3), (130, 32, 9, 5)] {
        for padded in [false, true] {
            let mut check = Check::new(&format!("{rows} rows of {bits} bits, padded {padded}"))
                .fixed(&[2, 3, rows, bits], |r| r.unit() - 0.5)
                .fixed(&[codes, bits], |r| r.unit() - 0.5);
            if padded {
                check = check.index(&[2, rows], 2);
            }
            check.run(|g, x| vec![g.hamming_clusters(x[0], x[1], x.get(2).copied(), rounds)]);
        }
    }
}
