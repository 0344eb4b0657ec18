//! Holds an op's CPU evaluation, gradient rule and kernels against each other.
//!
//! The oracle is the interpreter in f64: f32 must be near it, gradients must agree with central differences in it, and
//! every kernel family must be near both. Inputs are fresh, seeded and random.

use super::backends::again;
use attention_lab::gpu::Category;
use attention_lab::graph::grad::gradients;
use attention_lab::graph::{Data, Dtype, Float, Graph, Node, TensorType, cpu};
use std::collections::BTreeMap;

/// Elements of each input whose derivative is compared with a central difference.
const PROBES: usize = 24;

/// A named input with its data.
struct Given {
    name: String,
    ty: TensorType,
    data: Data<f64>,
    differentiable: bool,
}

/// One check of one graph.
pub struct Check {
    name: String,
    given: Vec<Given>,
    random: Random,
    forward_tolerance: f64,
    gradient_tolerance: f64,
    /// Half of the mantissa is lost on the way, so that central differences see steps.
    halves: bool,
}

impl Check {
    pub fn new(name: &str) -> Self {
        let seed = name.bytes().fold(1469598103934665603u64, |h, b| (h ^ b as u64).wrapping_mul(1099511628211));
        Self {
            name: name.into(),
            given: Vec::new(),
            random: Random(seed),
            forward_tolerance: 1e-5,
            gradient_tolerance: 1e-4,
            halves: false,
        }
    }

    fn give(mut self, ty: TensorType, differentiable: bool, mut element: impl FnMut(&mut Random) -> f64) -> Self {
        // Rounded to f32, so that every precision starts from the same numbers.
        let data = (0..ty.len()).map(|_| element(&mut self.random) as f32 as f64).collect();
        let name = format!("x{}", self.given.len());
        self.given.push(Given { name, ty, data: Data::Real(data), differentiable });
        self
    }

    /// A differentiable input, uniform in -2..2.
    pub fn real(self, shape: &[usize]) -> Self {
        self.between(shape, -2.0, 2.0)
    }

    /// A differentiable input, uniform between two numbers.
    pub fn between(self, shape: &[usize], low: f64, high: f64) -> Self {
        self.give(TensorType::f32(shape), true, |r| low + (high - low) * r.unit())
    }

    /// An input that no gradient is asked for.
    pub fn fixed(self, shape: &[usize], element: impl FnMut(&mut Random) -> f64) -> Self {
        self.give(TensorType::f32(shape), false, element)
    }

    /// Indices below `bound`.
    pub fn index(mut self, shape: &[usize], bound: u32) -> Self {
        let ty = TensorType::u32(shape);
        let data = (0..ty.len()).map(|_| self.random.below(bound)).collect();
        self.indices(shape, data)
    }

    /// These indices.
    pub fn indices(mut self, shape: &[usize], data: Vec<u32>) -> Self {
        let name = format!("x{}", self.given.len());
        self.given.push(Given { name, ty: TensorType::u32(shape), data: Data::Index(data), differentiable: false });
        self
    }

    /// Largest RMS ratio of the forward and of the gradients, where the usual ones do not fit.
    pub fn tolerance(mut self, forward: f64, gradient: f64) -> Self {
        (self.forward_tolerance, self.gradient_tolerance) = (forward, gradient);
        self
    }

    /// Leaves gradients out, for inputs at which there is none.
    pub fn without_gradients(mut self) -> Self {
        self.given.iter_mut().for_each(|x| x.differentiable = false);
        self
    }

    /// Leaves central differences out: they see the steps of numbers stored in half precision.
    pub fn halves(mut self) -> Self {
        self.halves = true;
        self
    }

    /// Runs the check on what `build` makes of the inputs' nodes.
    pub fn run(mut self, build: impl Fn(&mut Graph, &[Node]) -> Vec<Node>) {
        println!("{}: seed {:#x}", self.name, self.random.0);
        let mut g = Graph::new();
        let nodes: Vec<Node> =
            self.given.iter().map(|x| g.input(&x.name, x.ty.clone(), Category::Activations)).collect();
        let outputs = build(&mut g, &nodes);
        for (i, &y) in outputs.iter().enumerate() {
            g.output(&format!("y{i}"), y);
        }
        let forward_only = g.clone();

        let wrt: Vec<usize> = (0..nodes.len()).filter(|&i| self.given[i].differentiable).collect();
        let mut seeds = Vec::new();
        for (i, &y) in outputs.iter().enumerate().filter(|_| !wrt.is_empty()) {
            if g.ty(y).dtype == Dtype::U32 {
                continue;
            }
            let name = format!("seed{i}");
            let ty = g.ty(y).clone();
            let data = (0..ty.len()).map(|_| (self.random.unit() * 2.0 - 1.0) as f32 as f64).collect();
            seeds.push((y, g.input(&name, ty.clone(), Category::Activations)));
            self.given.push(Given { name, ty, data: Data::Real(data), differentiable: false });
        }
        let wrt_nodes: Vec<Node> = wrt.iter().map(|&i| nodes[i]).collect();
        for (&i, dx) in wrt.iter().zip(gradients(&mut g, &seeds, &wrt_nodes)) {
            let dx = dx.unwrap_or_else(|| panic!("{}: no gradient of x{i}", self.name));
            g.output(&format!("dx{i}"), dx);
        }

        let want = run(&g, &self.data::<f64>());
        if !again() {
            let got = run(&g, &self.data::<f32>());
            self.compare("CPU f32", &want, &got);
            if !self.halves {
                self.central_differences(&forward_only, &wrt, &want);
            }
        }
        super::device::check(&self.name, &g, &self.data::<f32>(), |how, got| self.compare(how, &want, got));
    }

    fn data<R: Float>(&self) -> BTreeMap<String, Data<R>> {
        self.given.iter().map(|x| (x.name.clone(), convert(&x.data))).collect()
    }

    /// Every output against the oracle's.
    fn compare<R: Float>(&self, how: &str, want: &BTreeMap<String, Data<f64>>, got: &BTreeMap<String, Data<R>>) {
        for (name, want) in want {
            let label = format!("{} {name} on {how}", self.name);
            let tolerance = if name.starts_with('d') { self.gradient_tolerance } else { self.forward_tolerance };
            match (want, &got[name]) {
                (Data::Index(want), Data::Index(got)) => assert_eq!(want, got, "{label}"),
                (want, got) => {
                    let got: Vec<f64> = got.real().iter().map(|x| x.to_f64()).collect();
                    assert_near(&label, want.real(), &got, tolerance);
                }
            }
        }
    }

    /// The gradients of the oracle against central differences of `sum(y * seed)`.
    fn central_differences(&mut self, g: &Graph, wrt: &[usize], want: &BTreeMap<String, Data<f64>>) {
        let mut inputs = self.data::<f64>();
        let loss = |inputs: &BTreeMap<String, Data<f64>>| -> f64 {
            let y = run(g, inputs);
            let term = |(name, y): (&String, &Data<f64>)| match y {
                Data::Real(y) => {
                    let seed = inputs[&name.replace('y', "seed")].real();
                    y.iter().zip(seed).map(|(a, b)| a * b).sum::<f64>()
                }
                Data::Index(_) => 0.0,
            };
            y.iter().map(term).sum()
        };
        for &i in wrt {
            let name = format!("x{i}");
            let len = self.given[i].ty.len();
            let probes: Vec<usize> = if len <= PROBES {
                (0..len).collect()
            } else {
                (0..PROBES).map(|_| self.random.below(len as u32) as usize).collect()
            };
            let all = want[&format!("dx{i}")].real();
            let mut differences = Vec::new();
            for &at in &probes {
                let mut at_shifted = |shift: f64| {
                    let Some(Data::Real(x)) = inputs.get_mut(&name) else { unreachable!("differentiable is real") };
                    let before = x[at];
                    x[at] = before + shift;
                    let value = loss(&inputs);
                    let Some(Data::Real(x)) = inputs.get_mut(&name) else { unreachable!("differentiable is real") };
                    x[at] = before;
                    value
                };
                const STEP: f64 = 1e-5;
                differences.push((at_shifted(STEP) - at_shifted(-STEP)) / (2.0 * STEP));
            }
            let got: Vec<f64> = probes.iter().map(|&at| all[at]).collect();
            // Differences carry rounding errors of the loss; the scale of the whole gradient keeps zeros comparable.
            let scale = (all.iter().map(|x| x * x).sum::<f64>() / all.len() as f64).sqrt();
            let label = format!("{} dx{i} against central differences", self.name);
            assert_near_scaled(&label, &differences, &got, 1e-5, scale);
        }
    }
}

fn run<R: Float>(g: &Graph, inputs: &BTreeMap<String, Data<R>>) -> BTreeMap<String, Data<R>> {
    cpu::run(g, inputs, &|| false).expect("inputs fit their graph")
}

fn convert<R: Float>(data: &Data<f64>) -> Data<R> {
    match data {
        Data::Real(x) => Data::Real(x.iter().map(|&x| R::from_f64(x)).collect()),
        Data::Index(x) => Data::Index(x.clone()),
    }
}

/// RMS of the error over RMS of `want` is at most `tolerance`; a NaN that is not wanted fails.
pub fn assert_near(name: &str, want: &[f64], got: &[f64], tolerance: f64) {
    let rms = (want.iter().map(|x| x * x).sum::<f64>() / want.len().max(1) as f64).sqrt();
    assert_near_scaled(name, want, got, tolerance, rms);
}

fn assert_near_scaled(name: &str, want: &[f64], got: &[f64], tolerance: f64, scale: f64) {
    assert_eq!(want.len(), got.len(), "{name}: length");
    let error = (want.iter().zip(got).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / want.len().max(1) as f64).sqrt();
    let ratio = if error == 0.0 { 0.0 } else { error / scale.max(1e-12) };
    assert!(
        ratio <= tolerance,
        "{name}: RMS ratio {ratio:e} over {tolerance:e}\nwant {:?}\ngot  {:?}",
        head(want),
        head(got)
    );
}

fn head(x: &[f64]) -> &[f64] {
    &x[..x.len().min(8)]
}

/// A small generator for test data (SplitMix64).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, bound: u32) -> u32 {
        (self.next() % bound as u64) as u32
    }
}
