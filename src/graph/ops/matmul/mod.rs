//! Batched matrix product `C = alpha · op(A) · op(B)`, where `op` is nothing or a transpose.
//!
//! Axes before the last two are a batch and broadcast like NumPy's. A batch axis that the result lacks is contracted as
//! well, `C = alpha · Σ_p op(A)_p op(B)_p`: that is the gradient of a broadcast operand, so that it needs no second pass
//! and no batch of intermediate products.
//!
//! A and B are stored alike, or A in single and B in half precision: weights that take half the memory, on every adapter.

mod lower;
mod shape;
#[cfg(test)]
mod tests;
pub mod tile;

pub use shape::{Axis, Geometry};
pub use tile::{Family, Tile};

use crate::eval_both;
use crate::graph::{
    Cost, Data, Dtype, Float, GradContext, Graph, LowerContext, Lowered, Matrix, Node, Op, ShapeError, TensorType,
    Tunable,
};
use lower::Storage;

/// The product's settings; see the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Matmul {
    /// A is stored `[..., K, M]` instead of `[..., M, K]`.
    pub trans_a: bool,
    /// B is stored `[..., N, K]` instead of `[..., K, N]`.
    pub trans_b: bool,
    pub alpha: f32,
    /// Batch axes of the result, where they are not those of A and B broadcast together: an axis of extent 1 (or absent)
    /// is summed over.
    pub batch: Option<Vec<usize>>,
}

impl Default for Matmul {
    fn default() -> Self {
        Self { trans_a: false, trans_b: false, alpha: 1.0, batch: None }
    }
}

impl Graph {
    /// `a · b`: `[..., M, K]` times `[..., K, N]`.
    pub fn matmul(&mut self, a: Node, b: Node) -> Node {
        self.matmul_with(Matmul::default(), a, b)
    }

    /// `alpha · a · bᵀ`: `[..., M, K]` times the transpose of `[..., N, K]`.
    pub fn matmul_nt(&mut self, a: Node, b: Node, alpha: f32) -> Node {
        self.matmul_with(Matmul { trans_b: true, alpha, ..Matmul::default() }, a, b)
    }

    /// `alpha · aᵀ · b`: the transpose of `[..., K, M]` times `[..., K, N]`.
    pub fn matmul_tn(&mut self, a: Node, b: Node, alpha: f32) -> Node {
        self.matmul_with(Matmul { trans_a: true, alpha, ..Matmul::default() }, a, b)
    }

    /// A product with these settings.
    pub fn matmul_with(&mut self, op: Matmul, a: Node, b: Node) -> Node {
        self.apply1(op, &[a, b])
    }
}

impl Matmul {
    /// Sizes and strides of the product of these operands.
    ///
    /// # Errors
    /// When the operands do not fit each other, or have more batch axes than the kernels count.
    pub fn geometry(&self, a: &[usize], b: &[usize]) -> Result<Geometry, ShapeError> {
        Geometry::new(self, a, b)
    }

    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let geometry =
            self.geometry(&inputs[0].0.shape, &inputs[1].0.shape).expect("the shape rule has passed").folded();
        let Geometry { m, n, k, .. } = geometry;
        let (a, b) = (inputs[0].1.real(), inputs[1].1.real());
        let alpha = R::from_f64(self.alpha as f64);
        let mut c = vec![R::zero(); outputs[0].len()];
        for (batch, (a_free, b_free)) in geometry.free_offsets().into_iter().enumerate() {
            let c = &mut c[batch * m * n..][..m * n];
            for (a_inner, b_inner) in geometry.inner_offsets() {
                let (a, b) = (&a[a_free + a_inner..], &b[b_free + b_inner..]);
                let a = if self.trans_a { Matrix::new(a, k, m).t() } else { Matrix::new(a, m, k) };
                let b = if self.trans_b { Matrix::new(b, n, k).t() } else { Matrix::new(b, k, n) };
                R::gemm(a, b, c, alpha, true);
            }
        }
        vec![Data::Real(c)]
    }
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let [a, b] = inputs else {
            return Err(ShapeError(format!("takes two tensors, got {}", inputs.len())));
        };
        if a.dtype == Dtype::U32 || !(b.dtype == a.dtype || b.dtype == Dtype::F16) {
            return Err(ShapeError(format!(
                "takes two of f32, two of f16, or f32 and f16, got {:?} and {:?}",
                a.dtype, b.dtype
            )));
        }
        let geometry = self.geometry(&a.shape, &b.shape)?;
        Ok(vec![TensorType { dtype: a.dtype, shape: geometry.out }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = self.geometry(&inputs[0].shape, &inputs[1].shape).map(|g| g.flops()).unwrap_or_default();
        Cost::streaming(flops, inputs, outputs)
    }

    eval_both!();

    fn grad(&self, g: &mut Graph, context: &GradContext) -> Vec<Option<Node>> {
        let Some(dc) = context.douts[0] else { return vec![None, None] };
        let [a, b] = [context.inputs[0], context.inputs[1]];
        let stored = [a, b].map(|x| g.ty(x).dtype);
        let batch_of = |g: &Graph, node: Node| {
            let shape = g.shape(node);
            Some(shape[..shape.len() - 2].to_vec())
        };
        let product = |trans_a, trans_b, batch| Matmul { trans_a, trans_b, alpha: self.alpha, batch };
        // dA = dC op(B)^T as A is stored, dB = op(A)^T dC as B is stored, each with the batch axes of its operand.
        let batch_a = batch_of(g, a);
        let da = match self.trans_a {
            false => g.matmul_with(product(false, !self.trans_b, batch_a), dc, b),
            true => {
                // Where precisions differ, the first is the single one.
                let b = g.cast(b, stored[0]);
                g.matmul_with(product(self.trans_b, true, batch_a), b, dc)
            }
        };
        let batch_b = batch_of(g, b);
        let db = match self.trans_b {
            false => g.matmul_with(product(!self.trans_a, false, batch_b), a, dc),
            true => g.matmul_with(product(true, self.trans_a, batch_b), dc, a),
        };
        vec![Some(da), Some(g.cast(db, stored[1]))]
    }

    fn tunable(&self, context: &LowerContext, inputs: &[&TensorType]) -> Option<Tunable> {
        let geometry = self.geometry(&inputs[0].shape, &inputs[1].shape).ok()?.folded();
        let candidates = Tile::candidates(&geometry, context).iter().map(Tile::to_string).collect();
        Some(Tunable { class: geometry.class(), candidates })
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let geometry = self.geometry(&inputs[0].shape, &inputs[1].shape).expect("the shape rule has passed");
        let storage = match [inputs[0].dtype, inputs[1].dtype] {
            [Dtype::F16, _] => Storage::Half,
            [_, Dtype::F16] => Storage::Packed,
            _ => Storage::Single,
        };
        lower::lower(self, &geometry.folded(), storage, context)
    }
}
