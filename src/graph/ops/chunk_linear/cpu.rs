//! Chunked linear attention on the CPU: matrix products of a chunk, and a running state.

use super::{ChunkLinear, Extra, Sizes, TILE};
use crate::graph::{Float, Matrix};

/// y and, where they are asked for, the sums; `inputs` are a, b, c and perhaps e.
pub(super) fn run<R: Float>(op: &ChunkLinear, sizes: &Sizes, inputs: &[&[R]]) -> (Vec<R>, Option<Vec<R>>) {
    let Sizes { heads, length, features, dim, .. } = *sizes;
    let mut y = vec![R::zero(); heads * length * dim];
    let mut z = op.sums.then(|| vec![R::zero(); heads * length]);
    for head in 0..heads {
        let part = |x: usize, width: usize| &inputs[x][head * length * width..][..length * width];
        let call = Call {
            op,
            features,
            dim,
            a: part(0, features),
            b: part(1, features),
            c: part(2, dim),
            e: if inputs.len() > 3 { part(3, 1) } else { &[] },
        };
        let z = z.as_mut().map(|z| &mut z[head * length..][..length]);
        call.head(length, &mut y[head * length * dim..][..length * dim], z);
    }
    (y, z)
}

/// The operands of one head.
struct Call<'a, R> {
    op: &'a ChunkLinear,
    features: usize,
    dim: usize,
    a: &'a [R],
    b: &'a [R],
    c: &'a [R],
    e: &'a [R],
}

impl<R: Float> Call<'_, R> {
    /// Chunk after chunk, from the end where the sums are over what follows.
    fn head(&self, length: usize, y: &mut [R], mut z: Option<&mut [R]>) {
        let Self { features, dim, .. } = *self;
        let mut state = vec![R::zero(); features * dim];
        // Beside it the sum of b for the sums, or of c (times e) for the extra.
        let mut beside = vec![R::zero(); if self.op.sums { features } else { dim }];
        let mut weights = Vec::new();
        for chunk in 0..length.div_ceil(TILE) {
            let (first, last) = (chunk * TILE, ((chunk + 1) * TILE).min(length));
            let rows = if self.op.reverse { length - last..length - first } else { first..last };
            let [a, b, c] = [(self.a, features), (self.b, features), (self.c, dim)]
                .map(|(x, width)| Matrix::new(&x[rows.start * width..rows.end * width], rows.len(), width));
            self.weights(&rows, a, b, &mut weights);
            let out = &mut y[rows.start * dim..rows.end * dim];
            R::gemm(Matrix::new(&weights, rows.len(), rows.len()), c, out, R::one(), false);
            R::gemm(a, Matrix::new(&state, features, dim), out, R::one(), true);
            if self.op.extra != Extra::Nothing {
                for (row, i) in out.chunks_exact_mut(dim).zip(rows.clone()) {
                    let factor = if self.op.extra == Extra::Own { self.e[i] } else { R::one() };
                    row.iter_mut().zip(&beside).for_each(|(y, &x)| *y += factor * x);
                }
            }
            if let Some(z) = &mut z {
                for ((z, weights), a) in
                    z[rows.clone()].iter_mut().zip(weights.chunks_exact(rows.len())).zip(a.data.chunks_exact(features))
                {
                    let inside = weights.iter().fold(R::zero(), |sum, &w| sum + w);
                    *z = a.iter().zip(&beside).fold(inside, |sum, (&a, &b)| sum + a * b);
                }
            }
            R::gemm(b.t(), c, &mut state, R::one(), true);
            let summed = if self.op.sums { b } else { c };
            for (row, j) in summed.data.chunks_exact(summed.cols).zip(rows) {
                let factor = if self.op.extra == Extra::Other { self.e[j] } else { R::one() };
                beside.iter_mut().zip(row).for_each(|(sum, &x)| *sum += factor * x);
            }
        }
    }

    /// `a_i·b_j` and the extra inside a chunk, zero where row i does not see token j.
    fn weights(&self, rows: &std::ops::Range<usize>, a: Matrix<R>, b: Matrix<R>, weights: &mut Vec<R>) {
        let count = rows.len();
        weights.resize(count * count, R::zero());
        R::gemm(a, b.t(), weights, R::one(), false);
        for (i, row) in weights.chunks_exact_mut(count).enumerate() {
            match self.op.extra {
                Extra::Nothing => {}
                Extra::Own => row.iter_mut().for_each(|w| *w += self.e[rows.start + i]),
                Extra::Other => row.iter_mut().zip(&self.e[rows.clone()]).for_each(|(w, &e)| *w += e),
            }
            let hidden = if self.op.reverse { 0..i } else { i + 1..count };
            row[hidden].fill(R::zero());
        }
    }
}
