//! Elementwise functions of two tensors, broadcast against each other.

use crate::graph::fuse::Chain;
use crate::graph::layout::{Walk, broadcast};
use crate::graph::op::Elementwise;
use crate::graph::{
    Cost, Data, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// An elementwise function of two tensors. Comparisons give 1 or 0 in f32, also of indices; the others keep the dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryKind {
    Add,
    Sub,
    Mul,
    Div,
    /// Of two equal ones, and to the gradient, the first.
    Max,
    Min,
    Greater,
    GreaterEqual,
    Equal,
}

#[derive(Clone, Debug, PartialEq)]
struct Binary {
    kind: BinaryKind,
}

impl BinaryKind {
    fn compares(self) -> bool {
        matches!(self, Self::Greater | Self::GreaterEqual | Self::Equal)
    }

    /// WGSL of one element. `max` and `min` of WGSL may drop a NaN, so they are spelled out.
    fn wgsl(self) -> &'static str {
        match self {
            Self::Add => "{0} + {1}",
            Self::Sub => "{0} - {1}",
            Self::Mul => "{0} * {1}",
            Self::Div => "{0} / {1}",
            Self::Max => "select(select({0}, {1}, {1} > {0}), {1}, {1} != {1})",
            Self::Min => "select(select({0}, {1}, {1} < {0}), {1}, {1} != {1})",
            Self::Greater => "f32({0} > {1})",
            Self::GreaterEqual => "f32({0} >= {1})",
            Self::Equal => "f32({0} == {1})",
        }
    }

    fn compare<T: PartialOrd + Copy, R: Real>(self, walk: &Walk, a: &[T], b: &[T]) -> Vec<R> {
        let truth = |x: bool| if x { R::one() } else { R::zero() };
        match self {
            Self::Greater => map(walk, a, b, |a, b| truth(a > b)),
            Self::GreaterEqual => map(walk, a, b, |a, b| truth(a >= b)),
            _ => map(walk, a, b, |a, b| truth(a == b)),
        }
    }
}

/// `f` of every pair of elements that meet.
fn map<T: Copy, U>(walk: &Walk, a: &[T], b: &[T], f: impl Fn(T, T) -> U) -> Vec<U> {
    let n = walk.inner();
    let mut out = Vec::with_capacity(walk.dims.iter().product());
    walk.each_row(|offset| {
        let (a, b) = (&a[offset[0]..], &b[offset[1]..]);
        match (walk.inner_stride(0), walk.inner_stride(1)) {
            (1, 1) => out.extend(a[..n].iter().zip(&b[..n]).map(|(&a, &b)| f(a, b))),
            (1, 0) => out.extend(a[..n].iter().map(|&a| f(a, b[0]))),
            (0, 1) => out.extend(b[..n].iter().map(|&b| f(a[0], b))),
            _ => out.extend((0..n).map(|_| f(a[0], b[0]))),
        }
    });
    out
}

impl Binary {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        use BinaryKind as K;
        let walk = Walk::broadcast(&outputs[0].shape, &[&inputs[0].0.shape, &inputs[1].0.shape]);
        let result = match (inputs[0].1, inputs[1].1) {
            (Data::Index(a), Data::Index(b)) => match self.kind {
                kind if kind.compares() => Data::Real(kind.compare(&walk, a, b)),
                K::Add => Data::Index(map(&walk, a, b, u32::wrapping_add)),
                K::Sub => Data::Index(map(&walk, a, b, u32::wrapping_sub)),
                K::Mul => Data::Index(map(&walk, a, b, u32::wrapping_mul)),
                // As in WGSL, division by zero gives the dividend.
                K::Div => Data::Index(map(&walk, a, b, |a, b| a.checked_div(b).unwrap_or(a))),
                K::Max => Data::Index(map(&walk, a, b, u32::max)),
                _ => Data::Index(map(&walk, a, b, u32::min)),
            },
            (a, b) => {
                let (a, b) = (a.real(), b.real());
                Data::Real(match self.kind {
                    kind if kind.compares() => kind.compare(&walk, a, b),
                    K::Add => map(&walk, a, b, |a, b| a + b),
                    K::Sub => map(&walk, a, b, |a, b| a - b),
                    K::Mul => map(&walk, a, b, |a, b| a * b),
                    K::Div => map(&walk, a, b, |a, b| a / b),
                    K::Max => map(&walk, a, b, |a, b| a.maximum(b)),
                    _ => map(&walk, a, b, |a, b| -(-a).maximum(-b)),
                })
            }
        };
        vec![result]
    }
}

impl Op for Binary {
    fn name(&self) -> &'static str {
        match self.kind {
            BinaryKind::Add => "add",
            BinaryKind::Sub => "sub",
            BinaryKind::Mul => "mul",
            BinaryKind::Div => "div",
            BinaryKind::Max => "maximum",
            BinaryKind::Min => "minimum",
            BinaryKind::Greater => "greater",
            BinaryKind::GreaterEqual => "greater_equal",
            BinaryKind::Equal => "equal",
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let shape = broadcast(&inputs[0].shape, &inputs[1].shape)?;
        let dtype = match (inputs[0].dtype, inputs[1].dtype) {
            (Dtype::U32, Dtype::U32) if self.kind.compares() => Dtype::F32,
            (a, b) if a == b => a,
            (Dtype::U32, _) | (_, Dtype::U32) => {
                return Err(ShapeError("indices and real numbers do not mix; cast one".into()));
            }
            _ => Dtype::F32,
        };
        Ok(vec![TensorType { dtype, shape }])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(outputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let (a, b, y, d) = (c.inputs[0], c.inputs[1], c.outputs[0], c.douts[0].expect("the only output"));
        use BinaryKind as K;
        let (da, db) = match self.kind {
            K::Add => (d, d),
            K::Sub => (d, g.neg(d)),
            K::Mul => (g.mul(d, b), g.mul(d, a)),
            K::Div => {
                let da = g.div(d, b);
                let product = g.mul(da, y);
                (da, g.neg(product))
            }
            K::Max | K::Min => {
                let first =
                    if self.kind == K::Max { g.binary(K::GreaterEqual, a, b) } else { g.binary(K::GreaterEqual, b, a) };
                let da = g.mul(d, first);
                (da, g.sub(d, da))
            }
            K::Greater | K::GreaterEqual | K::Equal => return vec![None, None],
        };
        let (a_shape, b_shape) = (g.shape(a).to_vec(), g.shape(b).to_vec());
        vec![Some(g.sum_to(da, &a_shape)), Some(g.sum_to(db, &b_shape))]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        Chain::single(self.name(), self.kind.wgsl().into(), inputs, &outputs[0]).lower(&[Slot::In(0), Slot::In(1)])
    }

    fn elementwise(&self) -> Option<Elementwise> {
        Some(Elementwise { wgsl: self.kind.wgsl().into() })
    }
}

impl Graph {
    /// An elementwise function of `a` and `b`, broadcast against each other as in NumPy.
    pub fn binary(&mut self, kind: BinaryKind, a: Node, b: Node) -> Node {
        self.apply1(Binary { kind }, &[a, b])
    }

    pub fn add(&mut self, a: Node, b: Node) -> Node {
        self.binary(BinaryKind::Add, a, b)
    }

    pub fn sub(&mut self, a: Node, b: Node) -> Node {
        self.binary(BinaryKind::Sub, a, b)
    }

    pub fn mul(&mut self, a: Node, b: Node) -> Node {
        self.binary(BinaryKind::Mul, a, b)
    }

    pub fn div(&mut self, a: Node, b: Node) -> Node {
        self.binary(BinaryKind::Div, a, b)
    }

    /// The larger one of each pair; a NaN on either side is the result.
    pub fn maximum(&mut self, a: Node, b: Node) -> Node {
        self.binary(BinaryKind::Max, a, b)
    }

    /// The smaller one of each pair; a NaN on either side is the result.
    pub fn minimum(&mut self, a: Node, b: Node) -> Node {
        self.binary(BinaryKind::Min, a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_on_either_side_is_never_hidden() {
        let ty = TensorType::f32(&[2]);
        let a = Data::Real(vec![f64::NAN, 1.0]);
        let b = Data::Real(vec![1.0, f64::NAN]);
        for kind in [BinaryKind::Max, BinaryKind::Min] {
            let y = Binary { kind }.eval(&[(&ty, &a), (&ty, &b)], std::slice::from_ref(&ty));
            assert!(y[0].real().iter().all(|x| x.is_nan()), "{kind:?}");
        }
    }

    #[test]
    fn indices_and_real_numbers_do_not_mix() {
        let op = Binary { kind: BinaryKind::Add };
        assert!(op.infer(&[&TensorType::f32(&[2]), &TensorType::u32(&[2])]).is_err());
        let equal = Binary { kind: BinaryKind::Equal };
        assert_eq!(equal.infer(&[&TensorType::u32(&[2, 1]), &TensorType::u32(&[3])]).unwrap()[0].shape, [2, 3]);
    }
}
