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

/// `exp(x)` to two units in the last place: `2^n exp(r)` with |r| <= ln 2 / 2 and the coefficients of Cephes' expf. Zero below
/// the smallest normal number, NaN for NaN.
#[inline(always)]
pub(super) fn exp_f32(x: f32) -> f32 {
    // Adding and subtracting it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.3 { -87.3 } else { x };
    let clamped = if clamped > 88.3 { 88.3 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4;
    let r = r - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127).wrapping_shl(23));
    if x < -87.3 { 0.0 } else { p * power }
}

/// `tanh(x)` to three units in the last place, by the polynomial of Cephes' tanhf near 0; NaN for NaN. It runs in vector
/// registers, and the C library's took a third of a training step.
#[inline(always)]
fn tanh_f32(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3;
    let p = p * z + 2.063_909e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let near = p * z * x + x;
    let far = 1.0 - 2.0 / (exp_f32(2.0 * x) + 1.0);
    if x.abs() < 0.625 { near } else { far }
}

macro_rules! real {
    ($t:ty, $tanh:path) => {
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
                $tanh(self)
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

real!(f32, tanh_f32);
real!(f64, f64::tanh);
float!(f32, eval_f32);
#[cfg(not(target_arch = "wasm32"))]
float!(f64, eval_f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_exp_is_close_and_keeps_nan() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            assert!((f64::from(exp_f32(x)) / want - 1.0).abs() < 2.5e-7, "exp({x})");
        }
        assert_eq!(exp_f32(-2e30), 0.0);
        assert_eq!(exp_f32(0.0), 1.0);
        assert!(exp_f32(f32::NAN).is_nan());
    }

    #[test]
    fn fast_tanh_is_close_and_keeps_nan() {
        for i in -200_000..200_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).tanh();
            let error = (f64::from(tanh_f32(x)) - want).abs();
            assert!(error <= 4e-7 * want.abs(), "tanh({x})");
        }
        assert_eq!([tanh_f32(f32::INFINITY), tanh_f32(f32::NEG_INFINITY), tanh_f32(1e30)], [1.0, -1.0, 1.0]);
        assert_eq!(tanh_f32(0.0), 0.0);
        assert!(tanh_f32(f32::NAN).is_nan());
    }
}
