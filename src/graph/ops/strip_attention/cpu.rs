//! Attention by strips on the CPU: one row of scores at a time.

use super::{Score, Sizes, Span, StripAttention};
use crate::graph::{Data, Real, TensorType};

/// Below this α - 1 a row is a softmax: the powers 1 / (α - 1) leave what a number can hold.
pub const SMALLEST: f64 = 0.01;
const MOST_STEPS: usize = 60;

/// The tensors of a call.
pub struct Call<'a, R> {
    op: &'a StripAttention,
    s: Sizes,
    spans: Vec<Span>,
    inputs: Vec<&'a [R]>,
}

/// What is kept of a row: its largest score, τ with scores counted from that one, and the share of a weight.
#[derive(Clone, Copy)]
struct Stats<R> {
    top: R,
    tau: R,
    share: R,
}

/// `a · b` of two rows.
fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::zero(), |sum, (&a, &b)| sum + a * b)
}

/// `x += factor · y`.
fn add_scaled<R: Real>(x: &mut [R], factor: R, y: &[R]) {
    x.iter_mut().zip(y).for_each(|(x, &y)| *x += factor * y);
}

impl<'a, R: Real> Call<'a, R> {
    pub fn new(op: &'a StripAttention, inputs: &[(&TensorType, &'a Data<R>)]) -> Self {
        let types: Vec<&TensorType> = inputs.iter().map(|(ty, _)| *ty).collect();
        let s = op.sizes(&types);
        let inputs = inputs.iter().map(|(_, data)| data.real()).collect();
        Self { op, s, spans: op.keys.spans(s.n, s.rows), inputs }
    }

    fn left(&self, head: usize, i: usize) -> &'a [R] {
        &self.inputs[0][(head * self.s.n + i) * self.s.width..][..self.s.width]
    }

    fn right(&self, head: usize, row: usize) -> &'a [R] {
        &self.inputs[1][(head * self.s.rows + row) * self.s.width..][..self.s.width]
    }

    fn values(&self, head: usize, row: usize) -> &'a [R] {
        &self.inputs[2][(head * self.s.rows + row) * self.s.dim..][..self.s.dim]
    }

    fn weights(&self, head: usize) -> &'a [R] {
        &self.inputs[self.op.weights_at()][head % self.s.heads * self.s.width..][..self.s.width]
    }

    fn second(&self, head: usize, i: usize) -> &'a [R] {
        &self.inputs[self.op.second_at()][(head * self.s.n + i) * self.s.width..][..self.s.width]
    }

    fn position(&self, head: usize, distance: usize) -> &'a [R] {
        let at = (head % self.s.heads * self.s.distances + distance) * self.s.width;
        &self.inputs[self.op.positions_at()][at..][..self.s.width]
    }

    /// α - 1 of a head, 0 for softmax.
    fn epsilon(&self, head: usize) -> R {
        if !self.op.is_entmax() {
            return R::zero();
        }
        let epsilon = self.inputs[self.op.alpha_at()][head % self.s.heads] - R::one();
        if epsilon.to_f64() < SMALLEST { R::zero() } else { epsilon }
    }

    fn is_key(&self, head: usize, row: usize) -> bool {
        let at = head / self.s.heads * self.s.rows + row;
        !self.op.padded || self.inputs[self.op.real_at()][at] != R::zero()
    }

    /// The keys that the i-th query of a span sees, with their scores.
    fn scores(&self, head: usize, span: &Span, i: usize) -> Vec<(usize, R)> {
        let query = span.first + i;
        let scale = R::from_f64(self.op.scale());
        let score = |key: usize| {
            let (left, right) = (self.left(head, query), self.right(head, span.row(key)));
            match self.op.score {
                Score::Dot { .. } => scale * dot(left, right),
                Score::Relative { .. } => {
                    let position = self.position(head, i + span.offset - key);
                    scale * (dot(left, right) + dot(self.second(head, query), position))
                }
                Score::Additive => {
                    let terms = left.iter().zip(right).zip(self.weights(head));
                    terms.fold(R::zero(), |sum, ((&x, &y), &w)| sum + w * -saturation(x, y).0)
                }
            }
        };
        (0..span.visible(i)).filter(|&key| self.is_key(head, span.row(key))).map(|key| (key, score(key))).collect()
    }

    /// Replaces the scores by weights.
    fn normalise(&self, head: usize, scores: &mut [(usize, R)]) -> Stats<R> {
        let epsilon = self.epsilon(head);
        let top = scores.iter().fold(R::from_f64(-3.0e38), |top, &(_, score)| top.maximum(score));
        let mut tau = R::zero();
        if epsilon != R::zero() {
            let shifted: Vec<R> = scores.iter().map(|&(_, score)| epsilon * (score - top)).collect();
            tau = threshold(&shifted, epsilon);
        }
        let mut total = R::zero();
        for (_, score) in scores.iter_mut() {
            *score = weight(epsilon, *score - top, tau);
            total += *score;
        }
        let share = if total == R::zero() { total } else { R::one() / total };
        scores.iter_mut().for_each(|(_, weight)| *weight = *weight * share);
        Stats { top, tau, share }
    }

    /// o and what is kept of the rows.
    pub fn forward(&self) -> (Vec<R>, Vec<R>) {
        let rows = self.s.batch * self.s.heads * self.s.n;
        let mut out = vec![R::zero(); rows * self.s.dim];
        let mut stats = vec![R::zero(); rows * 4];
        self.each_row(|head, span, i| {
            let mut weights = self.scores(head, span, i);
            let kept = self.normalise(head, &mut weights);
            let at = head * self.s.n + span.first + i;
            stats[at * 4..][..3].copy_from_slice(&[kept.top, kept.tau, kept.share]);
            let out = &mut out[at * self.s.dim..][..self.s.dim];
            for (key, weight) in weights {
                add_scaled(out, weight, self.values(head, span.row(key)));
            }
        });
        (out, stats)
    }

    /// The weights, `[B, H, N, R]`.
    pub fn matrix(&self) -> Vec<R> {
        let mut matrix = vec![R::zero(); self.s.batch * self.s.heads * self.s.n * self.s.rows];
        self.each_row(|head, span, i| {
            let mut weights = self.scores(head, span, i);
            self.normalise(head, &mut weights);
            for (key, weight) in weights {
                matrix[(head * self.s.n + span.first + i) * self.s.rows + span.row(key)] = weight;
            }
        });
        matrix
    }

    fn each_row(&self, mut row: impl FnMut(usize, &Span, usize)) {
        for head in 0..self.s.batch * self.s.heads {
            for span in &self.spans {
                (0..span.count).for_each(|i| row(head, span, i));
            }
        }
    }

    /// The gradients in the order of [`super::backward`]; `stats` and `dout` are the last two inputs.
    pub fn backward(&self) -> Vec<Vec<R>> {
        let Sizes { batch, heads, n, rows, width, dim, distances } = self.s;
        let instances = batch * heads;
        let zeros = |len: usize| vec![R::zero(); len];
        let [stats, dout] = [0, 1].map(|behind| self.inputs[self.op.count() + behind]);
        let (mut dleft, mut dright) = (zeros(instances * n * width), zeros(instances * rows * width));
        let mut dvalues = zeros(instances * rows * dim);
        // For additive scores of the weights, for relative ones of the second vectors: both a row for each query.
        let has_dsecond = self.op.is_additive() || self.op.is_relative();
        let mut dsecond = zeros(if has_dsecond { instances * n * width } else { 0 });
        let mut dpositions = zeros(if self.op.is_relative() { instances * distances * width } else { 0 });
        let mut dalpha = zeros(if self.op.is_entmax() { instances * n } else { 0 });
        let scale = R::from_f64(self.op.scale());
        self.each_row(|head, span, i| {
            let query = head * n + span.first + i;
            let mut weights = self.scores(head, span, i);
            let (top, tau, share) = (stats[query * 4], stats[query * 4 + 1], stats[query * 4 + 2]);
            let epsilon = self.epsilon(head);
            weights.iter_mut().for_each(|(_, x)| *x = weight(epsilon, *x - top, tau) * share);
            let dout = &dout[query * dim..][..dim];
            let dweights: Vec<R> =
                weights.iter().map(|&(key, _)| dot(dout, self.values(head, span.row(key)))).collect();
            let (dscores, slope) = through_normaliser(epsilon, &weights, &dweights);
            if let Some(dalpha) = dalpha.get_mut(query) {
                *dalpha = slope;
            }
            for (&(key, weight), dscore) in weights.iter().zip(dscores) {
                let row = head * rows + span.row(key);
                let (left, right) = (self.left(head, span.first + i), self.right(head, span.row(key)));
                let is_own = key >= span.own;
                if is_own {
                    add_scaled(&mut dvalues[row * dim..][..dim], weight, dout);
                }
                if self.op.is_additive() {
                    for (a, (&x, &y)) in left.iter().zip(right).enumerate() {
                        let w = self.weights(head)[a];
                        let (twice, slope) = saturation(x, y);
                        // 2 / (1 + x y) falls by twice x's or y's share of its square.
                        dleft[query * width + a] += dscore * w * slope * y;
                        dright[row * width + a] += dscore * w * slope * x;
                        dsecond[query * width + a] += dscore * -twice;
                    }
                    continue;
                }
                add_scaled(&mut dleft[query * width..][..width], dscore * scale, right);
                if is_own {
                    add_scaled(&mut dright[row * width..][..width], dscore * scale, left);
                }
                if self.op.is_relative() {
                    let distance = i + span.offset - key;
                    let position = self.position(head, distance);
                    add_scaled(&mut dsecond[query * width..][..width], dscore * scale, position);
                    let second = self.second(head, span.first + i);
                    let at = (head * distances + distance) * width;
                    add_scaled(&mut dpositions[at..][..width], dscore * scale, second);
                }
            }
        });
        let all = [dleft, dright, dvalues, dsecond, dpositions, dalpha];
        all.into_iter().filter(|x| !x.is_empty()).collect()
    }
}

/// `2 / (1 + x y)`, and what it falls by with `x y`: `2 / (1 + x y)²`.
fn saturation<R: Real>(x: R, y: R) -> (R, R) {
    let half = R::one() / (R::one() + x * y);
    let twice = half + half;
    (twice, twice * half)
}

/// A weight before it is divided by the row's sum, from the score less the largest one.
fn weight<R: Real>(epsilon: R, score: R, tau: R) -> R {
    if epsilon == R::zero() {
        return score.exp();
    }
    let above = epsilon * score - tau;
    if above.to_f64() > 0.0 { (above.ln() / epsilon).exp() } else { R::zero() }
}

/// τ for which `Σ [x - τ]_+^(1/ε)` is 1, where x has its largest element at 0. Newton's method on the norm
/// `(Σ [x - τ]_+^(1/ε))^ε - 1`, which is convex and falls: from the left it never steps over the solution.
fn threshold<R: Real>(x: &[R], epsilon: R) -> R {
    let mut tau = R::from_f64(-1.0);
    for _ in 0..MOST_STEPS {
        let (mut sum, mut slope) = (R::zero(), R::zero());
        for &x in x {
            let above = x - tau;
            if above.to_f64() > 0.0 {
                let power = (above.ln() * (R::one() / epsilon - R::one())).exp();
                sum += power * above;
                slope += power;
            }
        }
        if x.is_empty() || sum.to_f64().is_nan() {
            break;
        }
        let norm = (sum.ln() * epsilon).exp();
        let step = (norm - R::one()) * sum / (norm * slope);
        let before = tau;
        tau += step;
        // Once rounding errors are all that is left, steps go back as often as on.
        if step.to_f64() <= 1e-16 || tau == before {
            break;
        }
    }
    tau
}

/// Gradients of the scores from those of the weights, and the row's part of the gradient of α.
///
/// With `u = p^(2-α)`: `dz = u (g - Σ u g / Σ u)`. With `l = -ln p`, `r = (e^(ε l) - 1 - ε l) / ε²`, `H = Σ p l`, `R = Σ p r`:
/// `∂p/∂α = p (R - r + ε (l R - r H)) / Σ u`, which is the textbook form without its cancellation at α = 1.
fn through_normaliser<R: Real>(epsilon: R, weights: &[(usize, R)], dweights: &[R]) -> (Vec<R>, R) {
    let zero = R::zero();
    let (mut sum_u, mut sum_ug) = (zero, zero);
    let (mut entropy, mut rest, mut pg, mut plg, mut prg) = (zero, zero, zero, zero, zero);
    let mut u = Vec::with_capacity(weights.len());
    for (&(_, p), &g) in weights.iter().zip(dweights) {
        if p == zero {
            u.push(zero);
            continue;
        }
        let l = -p.ln();
        let own = if epsilon == zero { p } else { (l * (epsilon - R::one())).exp() };
        let r = l * l * exponential_rest(epsilon * l);
        sum_u += own;
        sum_ug += own * g;
        entropy += p * l;
        rest += p * r;
        pg += p * g;
        plg += p * l * g;
        prg += p * r * g;
        u.push(own);
    }
    if sum_u == zero {
        return (u, zero);
    }
    let mean = sum_ug / sum_u;
    let dscores = u.iter().zip(dweights).map(|(&u, &g)| u * (g - mean)).collect();
    (dscores, (rest * pg - prg + epsilon * (rest * plg - entropy * prg)) / sum_u)
}

/// `(e^y - 1 - y) / y²` for y >= 0.
fn exponential_rest<R: Real>(y: R) -> R {
    if y.to_f64() > 0.3 {
        return (y.exp() - R::one() - y) / (y * y);
    }
    let coefficients = [1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    coefficients.iter().fold(R::zero(), |sum, &c| sum * y + R::from_f64(c))
}
