//! Causal linear attention in chunks: `o_i = Σ_{j<=i} (q_i·k_j) v_j` and `z_i = Σ_{j<=i} q_i·k_j`, where q and k are
//! features of queries and keys.
//!
//! Katharopoulos et al., 2020, "Transformers are RNNs", arXiv:2006.16236, eq. 8-12. Quadratic inside a chunk; what lies in
//! front of a chunk comes from a running sum `S = Σ_j k_j v_jᵀ`. Besides its operands it holds one S for each chunk but the
//! first, `[B, H, chunks - 1, R, D]`. A chunk has the smallest multiple of 64 tokens that is not below both R and D, so that
//! all S together are never larger than the largest operand: shorter chunks would save work and cost memory.
//!
//! Its gradients are sums of the same form, some of them over `j >= i`, with what reaches z added to the weights:
//! `dq_i = Σ_{j<=i} (do_i·v_j + dz_i) k_j`, `dk_j = Σ_{i>=j} (v_j·do_i + dz_i) q_i`, `dv_j = Σ_{i>=j} (k_j·q_i) do_i`. So one
//! op serves all: `y_i = Σ_j (a_i·b_j + e) c_j`.

mod cpu;
mod lower;

use crate::eval_both;
use crate::graph::{Cost, Data, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, TensorType};

/// Tokens of a chunk are a multiple of it: the rows of the largest tile.
const TILE: usize = 64;

/// Tokens of a chunk, for rows of so many elements in a and b, and in c.
pub fn chunk(features: usize, dim: usize) -> usize {
    features.min(dim).next_multiple_of(TILE)
}

/// What is added to every weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extra {
    Nothing,
    /// e of the row.
    Own,
    /// e of the token summed over.
    Other,
}

/// Inputs: a and b `[B, H, N, R]`, c `[B, H, N, D]`, and e `[B, H, N, 1]` where there is an extra. Outputs: y `[B, H, N, D]`,
/// and with `sums` the row sums of the weights `[B, H, N, 1]`.
#[derive(Clone, Debug, PartialEq)]
struct ChunkLinear {
    /// Over j >= i.
    reverse: bool,
    sums: bool,
    extra: Extra,
}

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Heads of all texts.
    heads: usize,
    length: usize,
    /// Elements of a row of a and b, and of c.
    features: usize,
    dim: usize,
    /// Tokens of a chunk, and how many chunks.
    chunk: usize,
    chunks: usize,
}

impl Sizes {
    fn new(a: &TensorType, c: &TensorType) -> Self {
        let [batch, heads, length, features] = a.shape[..] else { unreachable!("the shape rule has passed") };
        let dim = c.shape[3];
        let chunk = chunk(features, dim);
        Self { heads: batch * heads, length, features, dim, chunk, chunks: length.div_ceil(chunk) }
    }

    /// Chunks whose sums another one needs.
    fn slots(&self) -> usize {
        self.chunks - 1
    }

    /// Floating-point operations of the states, and of the rows.
    fn flops(&self) -> (u64, u64) {
        let Self { heads, length, features, dim, chunk, .. } = *self;
        let before = self.slots() * chunk;
        let triangle = |tokens: usize| tokens * (tokens + 1) / 2;
        let pairs = self.slots() * triangle(chunk) + triangle(length - before);
        let states = 2 * heads * before * features * dim;
        let rows = 2 * heads * (pairs * (features + dim) + (length - chunk.min(length)) * features * dim);
        (states as u64, rows as u64)
    }
}

impl Graph {
    /// The mix `Σ_{j<=i} (q_i·k_j) v_j` `[B, H, N, D]` of causal linear attention, not normalised, and the sums
    /// `Σ_{j<=i} q_i·k_j` `[B, H, N, 1]` to divide it by. q and k are features `[B, H, N, R]`, v is `[B, H, N, D]`.
    pub fn causal_linear(&mut self, q: Node, k: Node, v: Node) -> (Node, Node) {
        let op = ChunkLinear { reverse: false, sums: true, extra: Extra::Nothing };
        let out = self.apply(op, &[q, k, v]);
        (out[0], out[1])
    }
}

impl ChunkLinear {
    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let sizes = Sizes::new(inputs[0].0, inputs[2].0);
        let (y, z) = cpu::run(self, &sizes, &inputs.iter().map(|(_, data)| data.real()).collect::<Vec<_>>());
        [Data::Real(y)].into_iter().chain(z.map(Data::Real)).collect()
    }
}

impl Op for ChunkLinear {
    fn name(&self) -> &'static str {
        match (self.reverse, self.extra) {
            (false, Extra::Nothing) => "chunk_linear",
            (false, _) => "chunk_linear_backward_dq",
            (true, Extra::Nothing) => "chunk_linear_backward_dv",
            (true, _) => "chunk_linear_backward_dk",
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let [a, b, c, rest @ ..] = inputs else {
            return Err(ShapeError(format!("takes three tensors, got {}", inputs.len())));
        };
        let [batch, heads, length, _] = a.shape[..] else {
            return Err(ShapeError(format!("takes [B, H, N, R], not {:?}", a.shape)));
        };
        let column = TensorType::f32(&[batch, heads, length, 1]);
        let extras: &[&TensorType] = if self.extra == Extra::Nothing { &[] } else { &[&column] };
        let fits = **a == TensorType::f32(&a.shape)
            && a == b
            && c.shape.len() == 4
            && **c == TensorType::f32(&[batch, heads, length, c.shape[3]])
            && rest == extras
            && !a.is_empty()
            && !c.is_empty();
        if !fits {
            return Err(ShapeError(format!("q and k [B, H, N, R] and v [B, H, N, D] do not fit: {inputs:?}")));
        }
        Ok([TensorType::f32(&c.shape)].into_iter().chain(self.sums.then_some(column)).collect())
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let (states, rows) = Sizes::new(inputs[0], inputs[2]).flops();
        Cost::streaming(states + rows, inputs, outputs)
    }

    eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let [q, k, v] = c.inputs else { panic!("{} has no gradient", self.name()) };
        let dout = c.douts[0].unwrap_or_else(|| {
            let shape = g.shape(*v).to_vec();
            g.constant(&shape, Data::Real(vec![0.0; shape.iter().product()]))
        });
        let dsums = c.douts.get(1).copied().flatten();
        let mut sum = |reverse: bool, extra: Extra, operands: [Node; 3]| {
            let extra = if dsums.is_some() { extra } else { Extra::Nothing };
            let inputs: Vec<Node> = operands.into_iter().chain(dsums.filter(|_| extra != Extra::Nothing)).collect();
            Some(g.apply1(ChunkLinear { reverse, sums: false, extra }, &inputs))
        };
        vec![
            sum(self.reverse, Extra::Own, [dout, *v, *k]),
            sum(!self.reverse, Extra::Other, [*v, dout, *q]),
            sum(!self.reverse, Extra::Nothing, [*k, *q, dout]),
        ]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::lower(self, &Sizes::new(inputs[0], inputs[2]), context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_never_larger_than_the_largest_operand() {
        for (features, dim) in [(3, 5), (64, 64), (266, 64), (64, 266), (65, 66), (300, 300)] {
            let a = TensorType::f32(&[2, 3, 5000, features]);
            let c = TensorType::f32(&[2, 3, 5000, dim]);
            let sizes = Sizes::new(&a, &c);
            let states = sizes.heads * sizes.slots() * features * dim;
            assert!(states <= a.len().max(c.len()), "{features} {dim}: {sizes:?}");
        }
    }
}
