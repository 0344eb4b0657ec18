//! Every op: CPU in both precisions, gradients against central differences, kernels against the CPU.

#[path = "common/check.rs"]
mod check;
#[path = "common/device.rs"]
mod device;

use attention_lab::graph::{BinaryKind, UnaryKind};
use check::Check;

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
        K::EluPlusOne,
        K::Scale(-1.7),
        K::AddScalar(0.3),
        K::Powi(3),
    ];
    for kind in anywhere {
        for shape in [&[1][..], &[7], &[2, 3, 20]] {
            let check = Check::new(&format!("{kind:?} {shape:?}")).tolerance(2e-5, 1e-4);
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
    Check::new("cast").index(&[9], 100).fixed(&[9], |r| 50.0 * r.unit()).run(|g, x| {
        vec![g.cast(x[0], attention_lab::graph::Dtype::F32), g.cast(x[1], attention_lab::graph::Dtype::U32)]
    });
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
