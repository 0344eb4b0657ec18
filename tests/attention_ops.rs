//! The fused attention ops against plain loops over the definition, in f64: values, gradients, odd sizes, masks.

use attention_lab::gpu::Category;
use attention_lab::graph::grad::gradients;
use attention_lab::graph::ops::block_attention::BlockAttentionOptions;
use attention_lab::graph::{Data, Float, Graph, TensorType, cpu};
use attention_lab::pattern::{BlockList, Rule};
use std::collections::BTreeMap;
use std::rc::Rc;

type Values<R> = BTreeMap<String, Data<R>>;

/// A small generator for test data (xorshift), seeded so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Roughly normal, rounded to f32 so that every precision starts from the same numbers.
    fn normal(&mut self) -> f64 {
        let sum: f64 = (0..6).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5).sum();
        (sum * 2f64.sqrt()) as f32 as f64
    }
}

/// One call of fused attention.
#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    heads: usize,
    n: usize,
    m: usize,
    dim: usize,
    rule: Rule,
    block: usize,
    padding: bool,
    /// Batch and head dimension of the bias.
    bias: Option<(usize, usize)>,
    /// The log-sum-exp takes part in the loss as well.
    lse_grad: bool,
}

impl Case {
    fn new(n: usize, dim: usize, rule: Rule) -> Self {
        Self { batch: 1, heads: 2, n, m: n, dim, rule, block: 64, padding: false, bias: None, lse_grad: false }
    }

    fn graph(&self) -> Graph {
        let mut g = Graph::new();
        let Case { batch: b, heads: h, n, m, dim, .. } = *self;
        let mut input = |name: &str, ty| g.input(name, ty, Category::Activations);
        let q = input("q", TensorType::f32(&[b, h, n, dim]));
        let k = input("k", TensorType::f32(&[b, h, m, dim]));
        let v = input("v", TensorType::f32(&[b, h, m, dim]));
        let dout = input("dout", TensorType::f32(&[b, h, n, dim]));
        let dlse = self.lse_grad.then(|| input("dlse", TensorType::f32(&[b, h, n])));
        let list = BlockList::new(&self.rule, n, m, self.block, self.block);
        let mut options = BlockAttentionOptions::new(Rc::new(list), self.rule.clone());
        options.padding = self.padding.then(|| input("padding", TensorType::u32(&[b, m])));
        options.bias = self.bias.map(|(b, h)| input("bias", TensorType::f32(&[b, h, n, m])));
        let (o, lse) = g.block_attention(q, k, v, &options);
        let seeds: Vec<_> = [(o, dout)].into_iter().chain(dlse.map(|d| (lse, d))).collect();
        for (name, dx) in ["dq", "dk", "dv"].iter().zip(gradients(&mut g, &seeds, &[q, k, v])) {
            g.output(name, dx.expect("q, k and v have gradients"));
        }
        g.output("o", o);
        g.output("lse", lse);
        g
    }

    fn inputs(&self) -> Values<f64> {
        let seed = format!("{self:?}")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        println!("{self:?}, seed {seed:#x}");
        let mut random = Random(seed | 1);
        let Case { batch: b, heads: h, n, m, dim, .. } = *self;
        let mut inputs = Values::new();
        for (name, len) in [("q", n * dim), ("k", m * dim), ("v", m * dim), ("dout", n * dim), ("dlse", n)] {
            inputs.insert(name.into(), Data::Real((0..b * h * len).map(|_| random.normal()).collect()));
        }
        inputs.insert(
            "padding".into(),
            Data::Index((0..b * m).map(|_| u32::from(!random.next().is_multiple_of(4))).collect()),
        );
        let planes = self.bias.map_or(0, |(b, h)| b * h);
        inputs.insert("bias".into(), Data::Real((0..planes * n * m).map(|_| random.normal()).collect()));
        inputs
    }

    /// The definition in loops, and its gradients from the N×M weights.
    fn naive(&self, x: &Values<f64>) -> Values<f64> {
        let Case { batch, heads, n, m, dim, .. } = *self;
        let scale = 1.0 / (dim as f64).sqrt();
        let (q, k, v, dout) = (x["q"].real(), x["k"].real(), x["v"].real(), x["dout"].real());
        let zeros = |x: &[f64]| vec![0.0; x.len()];
        let (mut o, mut dq, mut dk, mut dv) = (zeros(q), zeros(q), zeros(k), zeros(v));
        let mut lse = vec![-1e30; batch * heads * n];
        for (bh, i) in (0..batch * heads).flat_map(|bh| (0..n).map(move |i| (bh, i))) {
            let (b, h, row) = (bh / heads, bh % heads, bh * n + i);
            let dot = |x: &[f64], i: usize, y: &[f64], j: usize| -> f64 {
                (0..dim).map(|d| x[i * dim + d] * y[j * dim + d]).sum()
            };
            let allowed: Vec<usize> = (0..m)
                .filter(|&j| self.rule.may(i, j, n, m) && !(self.padding && x["padding"].index()[b * m + j] == 0))
                .collect();
            if allowed.is_empty() {
                continue;
            }
            let score = |j: usize| {
                let bias = self.bias.map_or(0.0, |(bb, bh)| {
                    let plane = if bb == 1 { 0 } else { b * bh } + if bh == 1 { 0 } else { h };
                    x["bias"].real()[(plane * n + i) * m + j]
                });
                scale * dot(q, row, k, bh * m + j) + bias
            };
            let scores: Vec<f64> = allowed.iter().map(|&j| score(j)).collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            lse[row] = top + scores.iter().map(|s| (s - top).exp()).sum::<f64>().ln();
            let p: Vec<f64> = scores.iter().map(|s| (s - lse[row]).exp()).collect();
            for (&j, p) in allowed.iter().zip(&p) {
                for d in 0..dim {
                    o[row * dim + d] += p * v[(bh * m + j) * dim + d];
                }
            }
            let delta = dot(&o, row, dout, row) - if self.lse_grad { x["dlse"].real()[row] } else { 0.0 };
            for (&j, p) in allowed.iter().zip(&p) {
                let key = bh * m + j;
                let ds = p * (dot(dout, row, v, key) - delta);
                for d in 0..dim {
                    dq[row * dim + d] += scale * ds * k[key * dim + d];
                    dk[key * dim + d] += scale * ds * q[row * dim + d];
                    dv[key * dim + d] += p * dout[row * dim + d];
                }
            }
        }
        [("o", o), ("lse", lse), ("dq", dq), ("dk", dk), ("dv", dv)].map(|(k, v)| (k.into(), Data::Real(v))).into()
    }

    /// Both precisions of the interpreter, and every kernel family, against the definition.
    fn check(&self) {
        let inputs = self.inputs();
        let g = self.graph();
        let want = self.naive(&inputs);
        let f64_values = cpu::run(&g, &inputs, &|| false).expect("inputs fit");
        compare("CPU f64", &want, &f64_values, 1e-12, 1e-12);
        let f32_inputs: Values<f32> = inputs
            .iter()
            .map(|(name, data)| {
                let data = match data {
                    Data::Real(x) => Data::Real(x.iter().map(|&x| x as f32).collect()),
                    Data::Index(x) => Data::Index(x.clone()),
                };
                (name.clone(), data)
            })
            .collect();
        compare("CPU f32", &want, &cpu::run(&g, &f32_inputs, &|| false).expect("inputs fit"), 1e-5, 1e-4);
    }
}

fn compare<R: Float>(how: &str, want: &Values<f64>, got: &Values<R>, forward: f64, gradient: f64) {
    for (name, want) in want {
        let got: Vec<f64> = got[name].real().iter().map(|x| x.to_f64()).collect();
        // The log-sum-exp of empty rows is a stand-in and far from all others.
        let want = want.real();
        let pairs: Vec<(f64, f64)> = want.iter().copied().zip(got.iter().copied()).filter(|p| p.0 > -1e29).collect();
        let empty = want.iter().zip(&got).filter(|p| *p.0 <= -1e29);
        assert!(empty.clone().all(|(_, &got)| got < -0.9e30 && got > -1.1e30), "{how}: {name} of an empty row");
        let rms = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let error = rms(&mut pairs.iter().map(|(a, b)| a - b));
        let scale = rms(&mut pairs.iter().map(|(a, _)| *a));
        let tolerance = if name.starts_with('d') { gradient } else { forward };
        // Where the true value is zero (one key: dq and dk), only rounding is left.
        let ratio = if error == 0.0 { 0.0 } else { error / scale.max(1e-2 * (pairs.len() as f64).sqrt()) };
        assert!(ratio <= tolerance, "{how}: {name} is off by {ratio:e}\n{:?}", &pairs[..pairs.len().min(6)]);
    }
}

const FULL: Rule = Rule::All { causal: false };
const CAUSAL: Rule = Rule::All { causal: true };

fn window(radius: u32, dilation: u32, global: u32, causal: bool) -> Rule {
    Rule::Window { radius, dilation, global, causal }
}

#[test]
fn full_and_causal_at_odd_sizes() {
    for n in [1, 7, 63, 64, 65, 100, 129] {
        for rule in [FULL, CAUSAL] {
            Case::new(n, 20, rule).check();
        }
    }
}

#[test]
fn head_dimensions() {
    for dim in [1, 3, 4, 32, 64, 80, 128] {
        Case { batch: 2, heads: 3, ..Case::new(70, dim, CAUSAL) }.check();
    }
}

#[test]
fn a_thousand_tokens() {
    Case::new(1000, 64, CAUSAL).check();
    Case::new(1000, 64, FULL).check();
}

#[test]
fn windows_with_dilation_and_global_tokens() {
    for causal in [false, true] {
        for (radius, dilation, global) in [(0, 1, 0), (5, 1, 0), (20, 1, 3), (9, 7, 0), (9, 7, 2), (300, 1, 0)] {
            Case::new(130, 20, window(radius, dilation, global, causal)).check();
        }
    }
}

#[test]
fn more_keys_than_queries_and_fewer() {
    for (n, m) in [(1, 200), (70, 131), (131, 70), (5, 3)] {
        for rule in [FULL, CAUSAL, window(11, 2, 1, true)] {
            Case { m, ..Case::new(n, 20, rule) }.check();
        }
    }
}

#[test]
fn key_padding_and_bias() {
    for rule in [FULL, CAUSAL, window(3, 2, 0, true)] {
        Case { batch: 2, padding: true, ..Case::new(100, 20, rule.clone()) }.check();
        for bias in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            Case { batch: 2, padding: bias == (2, 2), bias: Some(bias), ..Case::new(66, 8, rule.clone()) }.check();
        }
    }
}

#[test]
fn other_block_sizes() {
    for block in [1, 6, 16, 32, 100, 128] {
        Case { block, ..Case::new(100, 12, window(13, 1, 2, false)) }.check();
    }
}

#[test]
fn the_log_sum_exp_has_a_gradient() {
    Case { lse_grad: true, padding: true, ..Case::new(100, 20, CAUSAL) }.check();
}
