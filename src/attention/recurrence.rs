//! What the recurrent baselines share: each head is a network of its own, with a state of D numbers.
//!
//! At each step a network reads `x_t = [q_t; k_t; v_t]`, the three vectors that a head of attention reads of a token, and its
//! output is its state. Weights lie gate by gate. Padded steps carry the state on unchanged.

use super::setup::product;
use super::{Effective, Extra, Init, Inputs, Refusal, Setup, Variant, lstm};
use crate::graph::ops::recurrent::{Cell, LARGEST_STATE};
use crate::graph::{Graph, Node, Real};
use crate::reference::is_real_key;

/// What the chain needs.
pub fn check(s: &Setup) -> Result<(), Refusal> {
    if s.keys != s.length {
        let reason = format!(
            "a recurrent network reads its tokens one after the other; there are {} queries and {} keys",
            s.length, s.keys
        );
        return Err(Refusal::new(reason, format!("{} keys", s.length)));
    }
    if s.dim > LARGEST_STATE {
        let reason = format!("one workgroup keeps the state of a head, up to {LARGEST_STATE} numbers; D is {}", s.dim);
        return Err(Refusal::new(reason, format!("dim {LARGEST_STATE}")));
    }
    Ok(())
}

/// Elements of the inputs' part of all gates, or of the inputs together.
pub fn largest(s: &Setup, cell: Cell) -> u128 {
    product(&[s.batch, s.heads, s.length, s.dim, cell.gates().max(3)])
}

/// The weights of both sides and the bias, uniform on ±1/√D as is usual.
pub fn extras(s: &Setup, cell: Cell) -> Vec<Extra> {
    let (h, d, gates) = (s.heads, s.dim, cell.gates() * s.dim);
    let bound = Init::Uniform(1.0 / (d as f32).sqrt());
    let learned = |name, shape, role, init| Extra { name, shape, role, differentiable: true, optional: false, init };
    let mut extras = vec![
        learned("W", vec![h, gates, 3 * d], "weights of the input [q; k; v], gate by gate", bound),
        learned("U", vec![h, gates, d], "weights of the state, gate by gate", bound),
        learned("b", vec![h, gates], "bias of the gates", Init::Zeros),
    ];
    if cell == Cell::Gru {
        extras.push(learned(
            "b_n",
            vec![h, d],
            "bias of the candidate's state part, inside the reset gate",
            Init::Zeros,
        ));
    }
    extras
}

/// q, k, v `[B, H, N, D]`; returns the states `[B, H, N, D]`. `forget` is added to the forget gates of an LSTM.
pub fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup, cell: Cell, forget: f64) -> Node {
    let (h, gates) = (s.heads, cell.gates() * s.dim);
    let projected = g.stage("project", |g| {
        let tokens = g.concat(&[x.q, x.k, x.v], 3);
        let projected = g.matmul_nt(tokens, x.extras["W"], 1.0);
        let bias = g.reshape(x.extras["b"], &[h, 1, gates]);
        let bias = with_forget_bias(g, bias, forget);
        g.add(projected, bias)
    });
    let real = x.real_keys(g, s).map(|real| g.reshape(real, &[s.batch, s.keys]));
    let bias = x.extras.get("b_n").copied();
    let states = g.stage("recur", |g| g.recurrent(cell, projected, x.extras["U"], bias, real));
    x.without_padded_queries(g, states, s)
}

/// The bias of an LSTM's gates, which lie along the last axis, with a constant added to the second quarter.
pub fn with_forget_bias(g: &mut Graph, bias: Node, forget: f64) -> Node {
    if forget == 0.0 {
        return bias;
    }
    let axis = g.shape(bias).len() - 1;
    let d = g.shape(bias)[axis] / 4;
    let parts = [0..d, d..2 * d, 2 * d..4 * d].map(|range| g.slice(bias, axis, range));
    let raised = g.add_scalar(parts[1], forget);
    g.concat(&[parts[0], raised, parts[2]], axis)
}

/// The cell of a recurrent network, and what is added to the input of its forget gates; none of any other method.
pub fn cell(variant: &Variant, s: &Setup) -> Option<(Cell, f64)> {
    match variant.id {
        "rnn" => Some((Cell::Rnn, 0.0)),
        "lstm" => Some((Cell::Lstm, s.int(&lstm::FORGET_BIAS) as f64)),
        "gru" => Some((Cell::Gru, 0.0)),
        _ => None,
    }
}

/// There is none; nobody asks, see [`super::Variant::no_matrix`].
pub fn effective(_: &mut Graph, _: &Inputs<Node>, _: &Setup) -> Effective {
    unreachable!("the output of a recurrent network is no matrix times the values")
}

pub fn sigmoid<R: Real>(x: R) -> R {
    R::one() / (R::one() + (-x).exp())
}

/// `W x + b` of one step, all gates.
fn of_input<R: Real>(x: &Inputs<Vec<R>>, s: &Setup, gates: usize, head: usize, at: usize) -> Vec<R> {
    let token: Vec<R> = [&x.q, &x.k, &x.v].iter().flat_map(|x| x[at * s.dim..][..s.dim].to_vec()).collect();
    let rows = x.extras["W"][head * gates * token.len()..].chunks(token.len());
    let sums = rows.zip(&x.extras["b"][head * gates..][..gates]);
    sums.map(|(row, &bias)| row.iter().zip(&token).fold(bias, |sum, (&w, &x)| sum + w * x)).collect()
}

/// `U h`, all gates.
pub fn of_state<R: Real>(u: &[R], gates: usize, head: usize, h: &[R]) -> Vec<R> {
    let rows = u[head * gates * h.len()..][..gates * h.len()].chunks(h.len());
    rows.map(|row| row.iter().zip(h).fold(R::zero(), |sum, (&u, &h)| sum + u * h)).collect()
}

/// The naive loop: for each head, `step(head, W x + b, state)` at each real token, beginning with a state of `size` zeros, whose
/// first D numbers are the output.
pub fn naive<R: Real>(
    x: &Inputs<Vec<R>>,
    s: &Setup,
    gates: usize,
    size: usize,
    step: impl Fn(usize, &[R], &mut [R]),
) -> Vec<R> {
    let mut out = vec![R::zero(); s.instances() * s.length * s.dim];
    for b in 0..s.batch {
        for h in 0..s.heads {
            let mut state = vec![R::zero(); size];
            for t in (0..s.length).filter(|&t| is_real_key(x, s, b, t)) {
                let at = (b * s.heads + h) * s.length + t;
                step(h, &of_input(x, s, gates, h, at), &mut state);
                out[at * s.dim..][..s.dim].copy_from_slice(&state[..s.dim]);
            }
        }
    }
    out
}
