//! A scalar that records its own computation, for reverse-mode gradients in f64.

use crate::graph::Real;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A value, and where it stands in this thread's record. Constants are not recorded.
#[derive(Clone, Copy, Debug)]
pub struct Tape {
    value: f64,
    index: u32,
}

/// Index of what does not depend on any variable.
const CONSTANT: u32 = u32::MAX;

/// One recorded operation: up to two operands and the derivative with respect to each.
struct Step {
    operands: [u32; 2],
    slopes: [f64; 2],
}

thread_local! {
    static RECORD: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
}

/// Gradients of `sum(f(inputs) * seed)` with respect to every element of every input.
///
/// The record of this thread is emptied before and after: calls do not nest.
///
/// # Panics
/// When `f` returns another number of elements than `seed` has.
pub fn gradients(inputs: &[&[f64]], seed: &[f64], f: impl FnOnce(&[Vec<Tape>]) -> Vec<Tape>) -> Vec<Vec<f64>> {
    RECORD.with_borrow_mut(Vec::clear);
    let variables: Vec<Vec<Tape>> = inputs.iter().map(|x| x.iter().map(|&x| variable(x)).collect()).collect();
    let outputs = f(&variables);
    assert_eq!(outputs.len(), seed.len(), "one seed for each output");
    let record = RECORD.take();
    let mut slopes = vec![0.0; record.len()];
    for (output, seed) in outputs.iter().zip(seed) {
        if output.index != CONSTANT {
            slopes[output.index as usize] += seed;
        }
    }
    for (index, step) in record.iter().enumerate().rev() {
        let slope = slopes[index];
        for (&operand, local) in step.operands.iter().zip(step.slopes) {
            if operand != CONSTANT {
                slopes[operand as usize] += slope * local;
            }
        }
    }
    variables.iter().map(|x| x.iter().map(|x| slopes[x.index as usize]).collect()).collect()
}

fn variable(value: f64) -> Tape {
    record(value, [CONSTANT; 2], [0.0; 2])
}

fn record(value: f64, operands: [u32; 2], slopes: [f64; 2]) -> Tape {
    RECORD.with_borrow_mut(|record| {
        let index = u32::try_from(record.len()).ok().filter(|&i| i != CONSTANT).expect("a record of 2^32 steps");
        record.push(Step { operands, slopes });
        Tape { value, index }
    })
}

impl Tape {
    fn unary(self, value: f64, slope: f64) -> Self {
        self.binary(Self { value: 0.0, index: CONSTANT }, value, [slope, 0.0])
    }

    fn binary(self, other: Self, value: f64, slopes: [f64; 2]) -> Self {
        if self.index == CONSTANT && other.index == CONSTANT {
            return Self { value, index: CONSTANT };
        }
        record(value, [self.index, other.index], slopes)
    }
}

impl PartialEq for Tape {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialOrd for Tape {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl Add for Tape {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        self.binary(b, self.value + b.value, [1.0, 1.0])
    }
}

impl Sub for Tape {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        self.binary(b, self.value - b.value, [1.0, -1.0])
    }
}

impl Mul for Tape {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        self.binary(b, self.value * b.value, [b.value, self.value])
    }
}

impl Div for Tape {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        let value = self.value / b.value;
        self.binary(b, value, [1.0 / b.value, -value / b.value])
    }
}

impl Neg for Tape {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(-self.value, -1.0)
    }
}

impl AddAssign for Tape {
    fn add_assign(&mut self, b: Self) {
        *self = *self + b;
    }
}

impl Real for Tape {
    fn from_f64(value: f64) -> Self {
        Self { value, index: CONSTANT }
    }

    fn to_f64(self) -> f64 {
        self.value
    }

    fn exp(self) -> Self {
        let value = self.value.exp();
        self.unary(value, value)
    }

    fn ln(self) -> Self {
        self.unary(self.value.ln(), 1.0 / self.value)
    }

    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        self.unary(value, 0.5 / value)
    }

    fn tanh(self) -> Self {
        let value = self.value.tanh();
        self.unary(value, 1.0 - value * value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses every operation once or more; `x` and `y` positive.
    fn formula<R: Real>(x: R, y: R) -> R {
        let mut sum = (x * y).exp() / (x + y.sqrt()) - y.ln() * x.tanh();
        sum += -x / R::from_f64(3.0);
        sum.maximum(R::from_f64(-100.0))
    }

    #[test]
    fn slopes_equal_central_differences() {
        let (x, y) = (0.7, 1.9);
        let got = gradients(&[&[x], &[y]], &[2.5], |v| vec![formula(v[0][0], v[1][0])]);
        let h = 1e-6;
        let dx = 2.5 * (formula(x + h, y) - formula(x - h, y)) / (2.0 * h);
        let dy = 2.5 * (formula(x, y + h) - formula(x, y - h)) / (2.0 * h);
        assert!((got[0][0] - dx).abs() < 1e-7 * dx.abs(), "{} {dx}", got[0][0]);
        assert!((got[1][0] - dy).abs() < 1e-7 * dy.abs(), "{} {dy}", got[1][0]);
    }

    #[test]
    fn what_is_not_used_has_slope_zero() {
        let got = gradients(&[&[1.0, 2.0]], &[1.0], |v| vec![v[0][1] * v[0][1]]);
        assert_eq!(got, [[0.0, 4.0]]);
    }
}
