//! Attention by strips: the scores of a few hundred queries are written out at a time, for methods that online softmax does not
//! serve because a row's normaliser needs the whole row (α-entmax), or because a score is more than one product (additive
//! scores, relative positions). The strip is used again for the next queries, so memory stays linear in the length.
//!
//! The backward pass recomputes each strip from what the forward pass kept of every row.

mod backward;
mod cpu;
mod lower;
mod spans;
mod weights;

pub use cpu::SMALLEST;
pub use spans::{Keys, Slots, Span};

use crate::graph::{
    Cost, Data, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, TensorType,
};

/// Floating-point operations of a softmax for each scored pair.
const SOFTMAX_FLOPS: u64 = 5;
/// And of α-entmax: some six Newton steps with a power each.
const ENTMAX_FLOPS: u64 = 40;

/// What a score is.
#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// `scale · left_i · right_j`.
    Dot { scale: f64 },
    /// `scale · (left_i · right_j + second_i · positions_δ)` with δ the distance from the key to the query.
    Relative { scale: f64 },
    /// `Σ_a weights_a tanh(x_ia + y_ja)` less `Σ_a weights_a`, where left is `exp(2x)` and right is `exp(2y)`: the tanh of a
    /// sum is `1 - 2 / (1 + exp(2x) exp(2y))`, which needs no exponential for each pair.
    Additive,
}

/// How scores become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normaliser {
    Softmax,
    /// α-entmax with an α for each head: `[(α - 1) s - τ]_+ ^ (1 / (α - 1))`.
    Entmax,
}

/// The tensors of a call. A and D are multiples of 4 after [`Graph::strip_attention`] has filled them up.
#[derive(Clone, Copy, Debug)]
pub struct StripInputs {
    /// `[B, H, N, A]`.
    pub left: Node,
    /// `[B, H, R, A]`, R rows of keys.
    pub right: Node,
    /// `[B, H, R, D]`.
    pub values: Node,
    /// For additive scores `[H, A]`.
    pub weights: Option<Node>,
    /// For relative ones `[B, H, N, A]`.
    pub second: Option<Node>,
    /// For relative ones `[H, P, A]`, by distance.
    pub positions: Option<Node>,
    /// For α-entmax `[H]`.
    pub alpha: Option<Node>,
    /// f32 `[B, R]`, 0 where a row is no key.
    pub real: Option<Node>,
}

impl StripInputs {
    pub fn new(left: Node, right: Node, values: Node) -> Self {
        Self { left, right, values, weights: None, second: None, positions: None, alpha: None, real: None }
    }

    /// In the order in which the ops take them.
    fn nodes(&self) -> Vec<Node> {
        let optional = [self.weights, self.second, self.positions, self.alpha, self.real];
        [self.left, self.right, self.values].into_iter().chain(optional.into_iter().flatten()).collect()
    }
}

/// Which input is which, for the forward op and, behind its inputs, the others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StripAttention {
    pub score: Score,
    pub normaliser: Normaliser,
    pub keys: Keys,
    pub padded: bool,
}

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    heads: usize,
    n: usize,
    rows: usize,
    /// A, of the score's vectors.
    width: usize,
    dim: usize,
    /// P, distances.
    distances: usize,
}

impl Graph {
    /// Attention over the keys that `keys` says. Returns o `[B, H, N, D]`; padded keys and, where a row has no key, whole rows
    /// are zero.
    pub fn strip_attention(&mut self, x: StripInputs, score: Score, normaliser: Normaliser, keys: Keys) -> Node {
        let dim = *self.shape(x.values).last().expect("values have dimensions");
        let x = self.filled_up(x);
        let op = StripAttention { score, normaliser, keys, padded: x.real.is_some() };
        let out = self.apply(op, &x.nodes())[0];
        self.slice_last(out, dim)
    }

    /// The weights themselves, `[B, H, N, R]`, for pictures: the one tensor here that is quadratic. Without a gradient.
    pub fn strip_weights(&mut self, x: StripInputs, score: Score, normaliser: Normaliser, keys: Keys) -> Node {
        let x = self.filled_up(x);
        let attention = StripAttention { score, normaliser, keys, padded: x.real.is_some() };
        self.apply(weights::StripWeights { attention }, &x.nodes())[0]
    }

    /// What a weight is made of, of every row `[B, H, N, 4]`: its largest score, τ beyond it, the share of a weight, and 0.
    /// Without a gradient.
    pub fn strip_statistics(&mut self, x: StripInputs, score: Score, normaliser: Normaliser, keys: Keys) -> Node {
        let x = self.filled_up(x);
        let op = StripAttention { score, normaliser, keys, padded: x.real.is_some() };
        self.apply(op, &x.nodes())[1]
    }

    /// Vectors filled up with zeros to a multiple of 4, which changes neither a score nor the values' own columns.
    fn filled_up(&mut self, x: StripInputs) -> StripInputs {
        let mut fill = |x: Node| {
            let axis = self.shape(x).len() - 1;
            let size = self.shape(x)[axis];
            match size.next_multiple_of(4) - size {
                0 => x,
                missing => self.pad(x, axis, 0, missing, 0.0),
            }
        };
        StripInputs {
            left: fill(x.left),
            right: fill(x.right),
            values: fill(x.values),
            weights: x.weights.map(&mut fill),
            second: x.second.map(&mut fill),
            positions: x.positions.map(&mut fill),
            ..x
        }
    }

    fn slice_last(&mut self, x: Node, size: usize) -> Node {
        let axis = self.shape(x).len() - 1;
        if self.shape(x)[axis] == size { x } else { self.slice(x, axis, 0..size) }
    }
}

impl StripAttention {
    fn is_additive(&self) -> bool {
        self.score == Score::Additive
    }

    fn is_relative(&self) -> bool {
        matches!(self.score, Score::Relative { .. })
    }

    fn is_entmax(&self) -> bool {
        self.normaliser == Normaliser::Entmax
    }

    /// Factor of the products in a score.
    fn scale(&self) -> f64 {
        match self.score {
            Score::Dot { scale } | Score::Relative { scale } => scale,
            Score::Additive => 1.0,
        }
    }

    /// Input of each kind; see [`StripInputs::nodes`].
    fn weights_at(&self) -> usize {
        3
    }

    fn second_at(&self) -> usize {
        3
    }

    fn positions_at(&self) -> usize {
        4
    }

    fn alpha_at(&self) -> usize {
        3 + usize::from(self.is_additive()) + 2 * usize::from(self.is_relative())
    }

    fn real_at(&self) -> usize {
        self.alpha_at() + usize::from(self.is_entmax())
    }

    /// How many inputs there are.
    fn count(&self) -> usize {
        self.real_at() + usize::from(self.padded)
    }

    fn sizes(&self, inputs: &[&TensorType]) -> Sizes {
        let (left, values) = (&inputs[0].shape, &inputs[2].shape);
        let distances = if self.is_relative() { inputs[self.positions_at()].shape[1] } else { 1 };
        let (n, rows) = (left[2], values[2]);
        Sizes { batch: left[0], heads: left[1], n, rows, width: left[3], dim: values[3], distances }
    }

    /// Pairs scored over all heads.
    fn pairs(&self, s: &Sizes) -> u64 {
        let spans = self.keys.spans(s.n, s.rows);
        let of_span = |span: &Span| (0..span.count).map(|i| span.visible(i) as u64).sum::<u64>();
        (s.batch * s.heads) as u64 * spans.iter().map(of_span).sum::<u64>()
    }

    /// Floating-point operations of scoring one pair.
    fn score_flops(&self, s: &Sizes) -> u64 {
        s.width as u64 * if self.is_additive() || self.is_relative() { 4 } else { 2 }
    }

    fn normaliser_flops(&self) -> u64 {
        if self.is_entmax() { ENTMAX_FLOPS } else { SOFTMAX_FLOPS }
    }

    fn check(&self, inputs: &[&TensorType]) -> Result<(), ShapeError> {
        let fail = || Err(ShapeError(format!("{self:?} does not take {inputs:?}")));
        if inputs.len() < self.count() || inputs[..3].iter().any(|t| t.shape.len() != 4 || t.dtype != Dtype::F32) {
            return fail();
        }
        let (left, right, values) = (&inputs[0].shape, &inputs[1].shape, &inputs[2].shape);
        let [b, h, n, width] = left[..] else { return fail() };
        let fours = width.is_multiple_of(4) && values[3].is_multiple_of(4);
        if !fours || right[..] != [b, h, values[2], width] || values[..2] != [b, h] || inputs[0].is_empty() {
            return fail();
        }
        let rows = values[2];
        let mut wanted = Vec::new();
        if self.is_additive() {
            wanted.push((self.weights_at(), vec![h, width]));
        }
        if self.is_relative() {
            let reach = self.keys.spans(n, rows).iter().map(|span| span.keys()).max().unwrap_or(0);
            wanted.push((self.second_at(), left.clone()));
            wanted.push((self.positions_at(), vec![h, inputs[self.positions_at()].shape[1].max(reach), width]));
        }
        if self.is_entmax() {
            wanted.push((self.alpha_at(), vec![h]));
        }
        if self.padded {
            wanted.push((self.real_at(), vec![b, rows]));
        }
        match wanted.iter().all(|(at, shape)| *inputs[*at] == TensorType::f32(shape)) {
            true => Ok(()),
            false => fail(),
        }
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (out, stats) = cpu::Call::new(self, inputs).forward();
        vec![Data::Real(out), Data::Real(stats)]
    }
}

impl Op for StripAttention {
    fn name(&self) -> &'static str {
        "strip_attention"
    }

    /// o `[B, H, N, D]`, and of every row `[B, H, N, 4]`: its largest score, τ beyond it, the share of a weight, and 0.
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.check(inputs)?;
        let s = self.sizes(inputs);
        Ok([s.dim, 4].map(|last| TensorType::f32(&[s.batch, s.heads, s.n, last])).to_vec())
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let s = self.sizes(inputs);
        let of_pair = self.score_flops(&s) + self.normaliser_flops() + 2 * s.dim as u64;
        Cost::streaming(self.pairs(&s) * of_pair, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        backward::gradients(self, g, c)
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::forward(self, inputs)
    }
}
