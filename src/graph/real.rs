//! Scalars: what the interpreter and the naive references compute in.

use super::{Data, Op, TensorType};
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A real scalar: f32, f64, or the recording scalar of the naive references.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + 'static
{
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;

    fn zero() -> Self {
        Self::from_f64(0.0)
    }

    fn one() -> Self {
        Self::from_f64(1.0)
    }

    /// The larger one; a NaN on either side is returned, so that it is never hidden.
    fn maximum(self, other: Self) -> Self {
        if self > other || self.to_f64().is_nan() { self } else { other }
    }
}

/// A machine float, with the matrix product that the CPU interpreter uses.
pub trait Float: Real + Default + Send + Sync + bytemuck::Pod {
    /// Evaluates an op in this precision.
    fn eval(op: &dyn Op, inputs: &[(&TensorType, &Data<Self>)], outputs: &[TensorType]) -> Vec<Data<Self>>;

    /// `c[m, n] = alpha * a[m, k] b[k, n]`, or added to `c` when `accumulate`. Strides in elements, so that transposes need
    /// no copy. Slices start at element (0, 0).
    fn gemm(a: Matrix<'_, Self>, b: Matrix<'_, Self>, c: &mut [Self], alpha: Self, accumulate: bool);
}

/// A strided matrix in a slice.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, R> {
    pub data: &'a [R],
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a, R> Matrix<'a, R> {
    /// A row-major matrix.
    pub fn new(data: &'a [R], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn fits(&self) -> bool {
        self.rows == 0
            || self.cols == 0
            || (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride < self.data.len()
    }
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
        }
    };
}

macro_rules! float {
    ($t:ty, $eval:ident) => {
        impl Float for $t {
            fn eval(op: &dyn Op, inputs: &[(&TensorType, &Data<$t>)], outputs: &[TensorType]) -> Vec<Data<$t>> {
                op.$eval(inputs, outputs)
            }

            fn gemm(a: Matrix<'_, $t>, b: Matrix<'_, $t>, c: &mut [$t], alpha: $t, accumulate: bool) {
                assert_eq!(a.cols, b.rows, "inner sizes of a matrix product");
                assert!(a.fits() && b.fits() && c.len() >= a.rows * b.cols, "matrix outside its slice");
                if a.rows == 0 || b.cols == 0 {
                    return;
                }
                // SAFETY: the three matrices were just checked to lie inside their slices, and `c` is borrowed mutably.
                unsafe {
                    gemm::gemm(
                        a.rows,
                        b.cols,
                        a.cols,
                        c.as_mut_ptr(),
                        1,
                        b.cols as isize,
                        accumulate,
                        a.data.as_ptr(),
                        a.col_stride as isize,
                        a.row_stride as isize,
                        b.data.as_ptr(),
                        b.col_stride as isize,
                        b.row_stride as isize,
                        1.0,
                        alpha,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            }
        }
    };
}

real!(f32);
real!(f64);
float!(f32, eval_f32);
#[cfg(not(target_arch = "wasm32"))]
float!(f64, eval_f64);
