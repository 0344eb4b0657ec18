//! Elementwise functions of one tensor.

use crate::graph::fuse::{Chain, literal};
use crate::graph::op::Elementwise;
use crate::graph::{
    Cost, Data, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

/// sqrt(2 / pi), of the tanh form of GELU.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044715;
/// `erf(x) = 1 - (a1 t + ... + a5 t^5) exp(-x^2)` with `t = 1 / (1 + p x)`, x >= 0, to 1.5e-7 (Abramowitz and Stegun, 1964,
/// 7.1.26): WGSL has no error function.
const ERF_P: f64 = 0.327_591_1;
const ERF_A: [f64; 5] = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
/// 1 / sqrt(2 pi)
const NORMAL_DENSITY: f64 = 0.398_942_280_401_432_7;

/// An elementwise function. Those that end in `Derivative` serve gradients and have none of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnaryKind {
    Neg,
    Abs,
    Exp,
    Ln,
    Sqrt,
    Reciprocal,
    Tanh,
    Sigmoid,
    Sin,
    Cos,
    Square,
    Relu,
    /// 1 where x > 0, else 0: the derivative of `Relu`, itself of derivative 0.
    Step,
    /// -1, 0 or 1: the derivative of `Abs`, itself of derivative 0.
    Sign,
    /// The tanh form: `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))` (Hendrycks and Gimpel, 2016, arXiv:1606.08415).
    Gelu,
    GeluDerivative,
    /// `x Φ(x)` with the normal distribution itself, as in BERT (Hendrycks and Gimpel, 2016).
    GeluErf,
    GeluErfDerivative,
    /// `x + 1` where x > 0, else `exp(x)`: a positive feature map (Katharopoulos et al., 2020, arXiv:2006.16236, eq. 7).
    EluPlusOne,
    EluPlusOneDerivative,
    /// Times a constant.
    Scale(f64),
    /// Plus a constant.
    AddScalar(f64),
    /// An integer power.
    Powi(i32),
}

#[derive(Clone, Debug, PartialEq)]
struct Unary {
    kind: UnaryKind,
}

impl UnaryKind {
    fn name(self) -> &'static str {
        match self {
            Self::Neg => "neg",
            Self::Abs => "abs",
            Self::Exp => "exp",
            Self::Ln => "ln",
            Self::Sqrt => "sqrt",
            Self::Reciprocal => "reciprocal",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::Sin => "sin",
            Self::Cos => "cos",
            Self::Square => "square",
            Self::Relu => "relu",
            Self::Step => "step",
            Self::Sign => "sign",
            Self::Gelu => "gelu",
            Self::GeluDerivative => "gelu_derivative",
            Self::GeluErf => "gelu_erf",
            Self::GeluErfDerivative => "gelu_erf_derivative",
            Self::EluPlusOne => "elu_plus_one",
            Self::EluPlusOneDerivative => "elu_plus_one_derivative",
            Self::Scale(_) => "scale",
            Self::AddScalar(_) => "add_scalar",
            Self::Powi(_) => "powi",
        }
    }

    /// WGSL of one element. A NaN comes out as NaN: `select` is used where `max` might drop it.
    fn wgsl(self) -> String {
        // Some drivers overflow inside tanh.
        let tanh = |x: &str| format!("select(tanh({x}), sign({x}), abs({x}) > 10.0)");
        let gelu_inner = format!("({GELU_SCALE:?} * {{0}} * (1.0 + {GELU_CUBIC:?} * {{0}} * {{0}}))");
        match self {
            Self::Neg => "-{0}".into(),
            Self::Abs => "abs({0})".into(),
            Self::Exp => "exp({0})".into(),
            Self::Ln => "log({0})".into(),
            Self::Sqrt => "sqrt({0})".into(),
            Self::Reciprocal => "1.0 / {0}".into(),
            Self::Tanh => tanh("{0}"),
            Self::Sigmoid => "1.0 / (1.0 + exp(-{0}))".into(),
            Self::Sin => "sin({0})".into(),
            Self::Cos => "cos({0})".into(),
            Self::Square => "{0} * {0}".into(),
            Self::Relu => "select({0}, 0.0, {0} < 0.0)".into(),
            Self::Step => "select(0.0, 1.0, {0} > 0.0)".into(),
            Self::Sign => "sign({0})".into(),
            Self::Gelu => format!("0.5 * {{0}} * (1.0 + {})", tanh(&gelu_inner)),
            Self::GeluDerivative => {
                let t = tanh(&gelu_inner);
                let slope = format!("({GELU_SCALE:?} * (1.0 + {:?} * {{0}} * {{0}}))", 3.0 * GELU_CUBIC);
                format!("0.5 * (1.0 + {t}) + 0.5 * {{0}} * (1.0 - {t} * {t}) * {slope}")
            }
            Self::GeluErf => format!("{{0}} * {}", normal_wgsl()),
            Self::GeluErfDerivative => {
                format!("{} + {{0}} * {NORMAL_DENSITY:?} * exp(-0.5 * {{0}} * {{0}})", normal_wgsl())
            }
            Self::EluPlusOne => "select(exp({0}), {0} + 1.0, {0} > 0.0)".into(),
            Self::EluPlusOneDerivative => "select(exp({0}), 1.0, {0} > 0.0)".into(),
            Self::Scale(c) => format!("{{0}} * {}", literal(c)),
            Self::AddScalar(c) => format!("{{0}} + {}", literal(c)),
            Self::Powi(0) => "1.0".into(),
            Self::Powi(n) => {
                let product = vec!["{0}"; n.unsigned_abs() as usize].join(" * ");
                if n > 0 { product } else { format!("1.0 / ({product})") }
            }
        }
    }

    fn eval<R: Real>(self, x: &[R]) -> Vec<R> {
        fn map<R: Real>(x: &[R], f: impl Fn(R) -> R) -> Vec<R> {
            x.iter().map(|&x| f(x)).collect()
        }
        let (zero, one, half) = (R::zero(), R::one(), R::from_f64(0.5));
        let gelu_tanh = |x: R| (R::from_f64(GELU_SCALE) * x * (one + R::from_f64(GELU_CUBIC) * x * x)).tanh();
        match self {
            Self::Neg => map(x, |x| -x),
            Self::Abs => map(x, |x| if x < zero { -x } else { x }),
            Self::Exp => map(x, R::exp),
            Self::Ln => map(x, R::ln),
            Self::Sqrt => map(x, R::sqrt),
            Self::Reciprocal => map(x, |x| one / x),
            Self::Tanh => map(x, R::tanh),
            Self::Sigmoid => map(x, |x| one / (one + (-x).exp())),
            Self::Sin => map(x, |x| R::from_f64(x.to_f64().sin())),
            Self::Cos => map(x, |x| R::from_f64(x.to_f64().cos())),
            Self::Square => map(x, |x| x * x),
            Self::Relu => map(x, |x| if x < zero { zero } else { x }),
            Self::Step => map(x, |x| if x > zero { one } else { zero }),
            Self::Sign => map(x, |x| match x {
                x if x > zero => one,
                x if x < zero => -one,
                _ => x,
            }),
            Self::Gelu => map(x, |x| half * x * (one + gelu_tanh(x))),
            Self::GeluDerivative => map(x, |x| {
                let t = gelu_tanh(x);
                let slope = R::from_f64(GELU_SCALE) * (one + R::from_f64(3.0 * GELU_CUBIC) * x * x);
                half * (one + t) + half * x * (one - t * t) * slope
            }),
            Self::GeluErf => map(x, |x| x * normal(x)),
            Self::GeluErfDerivative => map(x, |x| normal(x) + x * R::from_f64(NORMAL_DENSITY) * (-half * x * x).exp()),
            Self::EluPlusOne => map(x, |x| if x > zero { x + one } else { x.exp() }),
            Self::EluPlusOneDerivative => map(x, |x| if x > zero { one } else { x.exp() }),
            Self::Scale(c) => map(x, |x| x * R::from_f64(c)),
            Self::AddScalar(c) => map(x, |x| x + R::from_f64(c)),
            Self::Powi(n) => map(x, |x| {
                let product = (0..n.unsigned_abs()).fold(one, |product, _| product * x);
                if n < 0 { one / product } else { product }
            }),
        }
    }
}

/// The normal distribution function, `(1 + erf(x / sqrt 2)) / 2`.
fn normal<R: Real>(x: R) -> R {
    let size = if x < R::zero() { -x } else { x };
    let t = R::one() / (R::one() + R::from_f64(ERF_P * std::f64::consts::FRAC_1_SQRT_2) * size);
    let sum = ERF_A.iter().rev().fold(R::zero(), |sum, &a| (sum + R::from_f64(a)) * t);
    let upper = R::from_f64(0.5) * sum * (-R::from_f64(0.5) * x * x).exp();
    if x < R::zero() { upper } else { R::one() - upper }
}

/// The same of `{0}` in WGSL.
fn normal_wgsl() -> String {
    let t = format!("(1.0 / (1.0 + {:?} * abs({{0}})))", ERF_P * std::f64::consts::FRAC_1_SQRT_2);
    let sum = ERF_A.iter().rev().fold("0.0".to_owned(), |sum, a| format!("({sum} + {a:?}) * {t}"));
    let upper = format!("(0.5 * {sum} * exp(-0.5 * {{0}} * {{0}}))");
    format!("select(1.0 - {upper}, {upper}, {{0}} < 0.0)")
}

impl Unary {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        vec![Data::Real(self.kind.eval(inputs[0].1.real()))]
    }
}

impl Op for Unary {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match inputs[0].dtype {
            Dtype::U32 => Err(ShapeError("takes real numbers, not indices".into())),
            _ => Ok(vec![inputs[0].clone()]),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(outputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let (x, y, d) = (c.inputs[0], c.outputs[0], c.douts[0].expect("the only output"));
        use UnaryKind as K;
        let dx = match self.kind {
            K::Neg => g.neg(d),
            K::Abs => times(g, d, K::Sign, x),
            K::Exp => g.mul(d, y),
            K::Ln => g.div(d, x),
            K::Sqrt => {
                let half = g.scale(d, 0.5);
                g.div(half, y)
            }
            K::Reciprocal => {
                let square = g.square(y);
                let product = g.mul(d, square);
                g.neg(product)
            }
            K::Tanh => {
                let square = g.square(y);
                let product = g.mul(d, square);
                g.sub(d, product)
            }
            K::Sigmoid => {
                let square = g.square(y);
                let slope = g.sub(y, square);
                g.mul(d, slope)
            }
            K::Sin => times(g, d, K::Cos, x),
            K::Cos => {
                let product = times(g, d, K::Sin, x);
                g.neg(product)
            }
            K::Square => {
                let product = g.mul(d, x);
                g.scale(product, 2.0)
            }
            K::Relu => times(g, d, K::Step, x),
            K::Gelu => times(g, d, K::GeluDerivative, x),
            K::GeluErf => times(g, d, K::GeluErfDerivative, x),
            K::EluPlusOne => times(g, d, K::EluPlusOneDerivative, x),
            K::Scale(s) => g.scale(d, s),
            K::AddScalar(_) => d,
            K::Step | K::Sign | K::Powi(0) => return vec![None],
            K::Powi(n) => {
                let slope = g.powi(x, n - 1);
                let product = g.mul(d, slope);
                g.scale(product, n as f64)
            }
            K::GeluDerivative | K::GeluErfDerivative | K::EluPlusOneDerivative => {
                panic!("{} has no gradient", self.kind.name())
            }
        };
        vec![Some(dx)]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        Chain::single(self.name(), self.kind.wgsl(), inputs, &outputs[0]).lower(&[Slot::In(0)])
    }

    fn elementwise(&self) -> Option<Elementwise> {
        Some(Elementwise { wgsl: self.kind.wgsl() })
    }
}

/// `d * kind(x)`
fn times(g: &mut Graph, d: Node, kind: UnaryKind, x: Node) -> Node {
    let slope = g.unary(kind, x);
    g.mul(d, slope)
}

impl Graph {
    /// An elementwise function of `x`.
    pub fn unary(&mut self, kind: UnaryKind, x: Node) -> Node {
        self.apply1(Unary { kind }, &[x])
    }

    pub fn neg(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Neg, x)
    }

    pub fn abs(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Abs, x)
    }

    pub fn exp(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Exp, x)
    }

    /// Natural logarithm.
    pub fn ln(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Ln, x)
    }

    pub fn sqrt(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Sqrt, x)
    }

    pub fn reciprocal(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Reciprocal, x)
    }

    pub fn tanh(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Tanh, x)
    }

    pub fn sigmoid(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Sigmoid, x)
    }

    pub fn sin(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Sin, x)
    }

    pub fn cos(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Cos, x)
    }

    pub fn square(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Square, x)
    }

    pub fn relu(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Relu, x)
    }

    /// GELU in its tanh form, see [`UnaryKind::Gelu`].
    pub fn gelu(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::Gelu, x)
    }

    /// `elu(x) + 1`, see [`UnaryKind::EluPlusOne`].
    pub fn elu_plus_one(&mut self, x: Node) -> Node {
        self.unary(UnaryKind::EluPlusOne, x)
    }

    /// `factor * x`; a factor of 1 adds nothing to the graph.
    pub fn scale(&mut self, x: Node, factor: f64) -> Node {
        if factor == 1.0 { x } else { self.unary(UnaryKind::Scale(factor), x) }
    }

    /// `x + constant`.
    pub fn add_scalar(&mut self, x: Node, constant: f64) -> Node {
        self.unary(UnaryKind::AddScalar(constant), x)
    }

    /// `x^n`.
    pub fn powi(&mut self, x: Node, n: i32) -> Node {
        self.unary(UnaryKind::Powi(n), x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_their_known_values() {
        let at = |kind: UnaryKind, x: f64| kind.eval(&[x])[0];
        assert!((at(UnaryKind::Gelu, 1.0) - 0.841_191_990_6).abs() < 1e-9);
        assert_eq!(at(UnaryKind::EluPlusOne, 2.0), 3.0);
        assert_eq!(at(UnaryKind::EluPlusOne, -1.0), (-1.0f64).exp());
        assert_eq!(at(UnaryKind::Powi(-2), 4.0), 1.0 / 16.0);
        assert!(at(UnaryKind::Relu, f64::NAN).is_nan() && at(UnaryKind::Sign, f64::NAN).is_nan());
    }
}
