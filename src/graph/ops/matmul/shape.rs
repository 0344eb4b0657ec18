//! Sizes and strides of a product: broadcasting, contraction, and how much of the batch folds into M or K.

use super::Matmul;
use crate::graph::ShapeError;

/// How many batch axes the kernels can count after neighbouring ones are merged: of the result, and contracted.
pub const FREE_AXES: usize = 4;
pub const INNER_AXES: usize = 2;

/// One batch axis: its extent, and the elements from one entry to the next in A, B and C; 0 where the operand has the
/// axis not at all or with extent 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    pub extent: usize,
    pub a: usize,
    pub b: usize,
    /// 0 where the axis is contracted.
    pub c: usize,
}

/// Sizes and strides of one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Shape of the result.
    pub out: Vec<usize>,
    /// Batch axes, outermost first, none of extent 1.
    pub axes: Vec<Axis>,
    trans_a: bool,
    trans_b: bool,
}

impl Geometry {
    pub(super) fn new(op: &Matmul, a: &[usize], b: &[usize]) -> Result<Self, ShapeError> {
        let refuse = |why: &str| Err(ShapeError(format!("{why}: A {a:?}, B {b:?}, {op:?}")));
        if a.len() < 2 || b.len() < 2 {
            return refuse("matrices have two axes at least");
        }
        let (batch_a, matrix_a) = a.split_at(a.len() - 2);
        let (batch_b, matrix_b) = b.split_at(b.len() - 2);
        let (m, k) = if op.trans_a { (matrix_a[1], matrix_a[0]) } else { (matrix_a[0], matrix_a[1]) };
        let (n, k_b) = if op.trans_b { (matrix_b[0], matrix_b[1]) } else { (matrix_b[1], matrix_b[0]) };
        if k != k_b {
            return refuse("the inner sizes differ");
        }
        if a.iter().chain(b).any(|&extent| extent == 0) {
            return refuse("an operand is empty");
        }
        let rank = batch_a.len().max(batch_b.len()).max(op.batch.as_ref().map_or(0, Vec::len));
        let (ea, eb) = (padded(batch_a, rank), padded(batch_b, rank));
        let broadcast: Vec<usize> = ea.iter().zip(&eb).map(|(&x, &y)| if x == 1 { y } else { x }).collect();
        let batch_c = op.batch.clone().unwrap_or_else(|| broadcast.clone());
        let ec = padded(&batch_c, rank);
        let mut axes = Vec::new();
        let (mut a_step, mut b_step, mut c_step) = (m * k, k * n, m * n);
        for i in (0..rank).rev() {
            let extent = if broadcast[i] == 1 { ec[i] } else { broadcast[i] };
            if [ea[i], eb[i], ec[i]].iter().any(|&e| e != 1 && e != extent) {
                return refuse("the batch axes do not fit");
            }
            let step = |e: usize, step: usize| if e == 1 { 0 } else { step };
            if extent != 1 {
                axes.push(Axis { extent, a: step(ea[i], a_step), b: step(eb[i], b_step), c: step(ec[i], c_step) });
            }
            (a_step, b_step, c_step) = (a_step * ea[i], b_step * eb[i], c_step * ec[i]);
        }
        axes.reverse();
        let out = batch_c.iter().copied().chain([m, n]).collect();
        let geometry = Self { m, n, k, out, axes, trans_a: op.trans_a, trans_b: op.trans_b };
        let folded = geometry.clone().folded();
        if folded.free().count() > FREE_AXES || folded.inner().count() > INNER_AXES {
            return refuse("too many batch axes");
        }
        Ok(geometry)
    }

    /// Multiply-adds counted as two.
    pub fn flops(&self) -> u64 {
        let batch: usize = self.axes.iter().map(|x| x.extent).product();
        2 * (self.m * self.n * self.k) as u64 * batch as u64
    }

    /// The same product with fewer axes: neighbours merged, rows of a batch under one B made rows of one A, and a
    /// contracted batch of stored rows made more of K.
    pub fn folded(mut self) -> Self {
        self.merge();
        while let Some(&axis) = self.axes.last() {
            if axis.c != 0 && axis.b == 0 && axis.a == self.m * self.k && axis.c == self.m * self.n && !self.trans_a {
                self.m *= axis.extent;
            } else if axis.c == 0
                && axis.a == self.m * self.k
                && axis.b == self.k * self.n
                && self.trans_a
                && !self.trans_b
            {
                self.k *= axis.extent;
            } else {
                break;
            }
            self.axes.pop();
        }
        self
    }

    fn merge(&mut self) {
        let mut merged: Vec<Axis> = Vec::new();
        for axis in self.axes.drain(..) {
            match merged.last_mut() {
                Some(outer)
                    if outer.a == axis.a * axis.extent
                        && outer.b == axis.b * axis.extent
                        && outer.c == axis.c * axis.extent =>
                {
                    *outer = Axis { extent: outer.extent * axis.extent, ..axis };
                }
                _ => merged.push(axis),
            }
        }
        self.axes = merged;
    }

    /// Batch axes of the result.
    pub fn free(&self) -> impl Iterator<Item = &Axis> {
        self.axes.iter().filter(|x| x.c != 0)
    }

    /// Contracted batch axes.
    pub fn inner(&self) -> impl Iterator<Item = &Axis> {
        self.axes.iter().filter(|x| x.c == 0)
    }

    /// Number of products in the result's batch.
    pub fn batch(&self) -> usize {
        self.free().map(|x| x.extent).product()
    }

    /// Where A and B begin for each entry of the result's batch, in order.
    pub fn free_offsets(&self) -> Vec<(usize, usize)> {
        offsets(self.free())
    }

    /// What is added to that for each contracted entry.
    pub fn inner_offsets(&self) -> Vec<(usize, usize)> {
        offsets(self.inner())
    }

    /// Whether every stored row of A, B and C begins at a multiple of four elements and ends at one.
    pub fn is_aligned(&self) -> bool {
        self.k.is_multiple_of(4) && self.n.is_multiple_of(4) && (!self.trans_a || self.m.is_multiple_of(4))
    }

    /// `nn`, `nt`, `tn` or `tt`.
    pub fn form(&self) -> &'static str {
        match (self.trans_a, self.trans_b) {
            (false, false) => "nn",
            (false, true) => "nt",
            (true, false) => "tn",
            (true, true) => "tt",
        }
    }

    /// What a measured choice is remembered under: products alike in form and in the powers of two of their sizes.
    pub fn class(&self) -> String {
        let log = |x: usize| x.max(1).next_power_of_two().trailing_zeros();
        let aligned = if self.is_aligned() { "" } else { "/odd" };
        let (m, n, k, batch) = (log(self.m), log(self.n), log(self.k), log(self.batch()));
        format!("matmul/{}/{m}.{n}.{k}.{batch}{aligned}", self.form())
    }
}

fn padded(shape: &[usize], rank: usize) -> Vec<usize> {
    let mut padded = vec![1; rank - shape.len()];
    padded.extend(shape);
    padded
}

fn offsets<'a>(axes: impl Iterator<Item = &'a Axis>) -> Vec<(usize, usize)> {
    axes.fold(vec![(0, 0)], |all, axis| {
        all.iter().flat_map(|&(a, b)| (0..axis.extent).map(move |i| (a + i * axis.a, b + i * axis.b))).collect()
    })
}
