//! The fused attention ops against plain loops over the definition, in f64: values, gradients, odd sizes, masks. Each on the
//! interpreter in both precisions, and on the device in every kernel family, with all its buffers poisoned before.

mod common;

use attention_lab::gpu::{Category, Gpu, Replay};
use attention_lab::graph::grad::gradients;
use attention_lab::graph::ops::block_attention::BlockAttentionOptions;
use attention_lab::graph::plan::plan;
use attention_lab::graph::{Data, Float, Graph, LowerContext, TensorType, cpu};
use attention_lab::pattern::{Bits, BlockList, Part, Rule};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

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
    /// Lists of random keys, one for each query of each head, in place of the rule.
    keys: Option<Vec<Vec<u32>>>,
}

impl Case {
    fn new(n: usize, dim: usize, rule: Rule) -> Self {
        Self {
            batch: 1,
            heads: 2,
            n,
            m: n,
            dim,
            rule,
            block: 64,
            padding: false,
            bias: None,
            lse_grad: false,
            keys: None,
        }
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
        let list = match &self.keys {
            Some(keys) => BlockList::of_keys(keys, n, m),
            None => {
                let heads = if let Rule::Bits { bits } = &self.rule { bits.heads } else { self.heads };
                BlockList::of_heads(&self.rule, heads, n, m, self.block, self.block)
            }
        };
        let mut options = BlockAttentionOptions::new(Rc::new(list), self.rule.clone());
        options.padding = self.padding.then(|| input("padding", TensorType::u32(&[b, m])));
        options.bias = self.bias.map(|(b, h)| input("bias", TensorType::f32(&[b, h, n, m])));
        let (o, lse) = match &self.keys {
            Some(keys) if !self.padding => g.gather_attention(q, k, v, keys),
            _ => g.block_attention(q, k, v, &options),
        };
        let seeds: Vec<_> = [(o, dout)].into_iter().chain(dlse.map(|d| (lse, d))).collect();
        let wrt: Vec<_> = [q, k, v].into_iter().chain(options.bias).collect();
        for (name, dx) in ["dq", "dk", "dv", "dbias"].iter().zip(gradients(&mut g, &seeds, &wrt)) {
            g.output(name, dx.expect("q, k, v and the bias have gradients"));
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
        let mut dbias = zeros(x["bias"].real());
        let mut lse = vec![-1e30; batch * heads * n];
        for (bh, i) in (0..batch * heads).flat_map(|bh| (0..n).map(move |i| (bh, i))) {
            let (b, h, row) = (bh / heads, bh % heads, bh * n + i);
            let dot = |x: &[f64], i: usize, y: &[f64], j: usize| -> f64 {
                (0..dim).map(|d| x[i * dim + d] * y[j * dim + d]).sum()
            };
            let listed = |j: usize| match &self.keys {
                Some(keys) => keys[(h * n + i) % keys.len()].contains(&(j as u32)),
                None => self.rule.may_in(self.rule.head_of(bh, heads), i, j, n, m),
            };
            let allowed: Vec<usize> =
                (0..m).filter(|&j| listed(j) && !(self.padding && x["padding"].index()[b * m + j] == 0)).collect();
            if allowed.is_empty() {
                continue;
            }
            let bias_at = |j: usize| {
                let (bb, bh) = self.bias.unwrap_or((1, 1));
                let plane = if bb == 1 { 0 } else { b * bh } + if bh == 1 { 0 } else { h };
                (plane * n + i) * m + j
            };
            let score = |j: usize| {
                let bias = if self.bias.is_some() { x["bias"].real()[bias_at(j)] } else { 0.0 };
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
                if self.bias.is_some() {
                    dbias[bias_at(j)] += ds;
                }
                for d in 0..dim {
                    dq[row * dim + d] += scale * ds * k[key * dim + d];
                    dk[key * dim + d] += scale * ds * q[row * dim + d];
                    dv[key * dim + d] += p * dout[row * dim + d];
                }
            }
        }
        let mut all = vec![("o", o), ("lse", lse), ("dq", dq), ("dk", dk), ("dv", dv)];
        all.extend(self.bias.map(|_| ("dbias", dbias)));
        all.into_iter().map(|(k, v)| (k.into(), Data::Real(v))).collect()
    }

    /// Both precisions of the interpreter, and these kernel families, against the definition.
    fn check(&self, device: &Option<Gpu>, families: &[&str]) {
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
        for (gpu, family) in device.iter().flat_map(|gpu| families.iter().map(move |f| (gpu, f))) {
            compare(family, &want, &run(gpu, &g, &f32_inputs, family), 1e-5, 1e-4);
        }
    }
}

/// Runs a plan twice, the second time over the leavings of the first, which must not change a bit.
fn run(gpu: &Gpu, g: &Graph, inputs: &Values<f32>, family: &str) -> Values<f32> {
    let mut context = LowerContext::from_caps(gpu.caps());
    context.choices.insert("block_attention".into(), family.into());
    let plan = plan(g, &context);
    let replay = pollster::block_on(Replay::new(gpu, &plan.program)).expect("the plan fits the device");
    let mut results: Vec<Values<f32>> = Vec::new();
    for round in 0..2 {
        for (id, spec) in plan.program.buffers.iter().enumerate().filter(|(_, b)| round == 0 && b.initial.is_none()) {
            let poison = vec![0xffu8; spec.bytes as usize];
            replay.write(attention_lab::gpu::BufferId(id), &poison).expect("a buffer can be written");
        }
        for (name, (id, _)) in &plan.inputs {
            let bytes: &[u8] = match &inputs[name] {
                Data::Real(x) => bytemuck::cast_slice(x),
                Data::Index(x) => bytemuck::cast_slice(x),
            };
            replay.write(*id, bytes).expect("an input can be written");
        }
        replay.submit().expect("a plan can be submitted");
        let read = |id| pollster::block_on(replay.read(id)).expect("an output can be read");
        let floats =
            |bytes: Vec<u8>| bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        results
            .push(plan.outputs.iter().map(|(name, (id, _))| (name.clone(), Data::Real(floats(read(*id))))).collect());
    }
    let (second, first) = (results.pop(), results.pop());
    let bits = |values: &Option<Values<f32>>| -> Vec<u32> {
        values.iter().flat_map(|v| v.values()).flat_map(|x| x.real().iter().map(|x| x.to_bits())).collect()
    };
    assert_eq!(bits(&first), bits(&second), "{family}: the same step twice gives the same bits");
    second.expect("two rounds")
}

/// Small register tiles, since large ones take software adapters long to compile.
const FAMILIES: [&str; 3] = ["quad 2", "direct 2", "tiled"];

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
    let gpu = common::gpu();
    for n in [1, 7, 63, 64, 65, 100, 129] {
        for rule in [FULL, CAUSAL] {
            Case::new(n, 20, rule).check(&gpu, &FAMILIES);
        }
    }
}

#[test]
fn head_dimensions() {
    let gpu = common::gpu();
    for dim in [1, 3, 36] {
        Case { batch: 2, heads: 3, ..Case::new(70, dim, CAUSAL) }.check(&gpu, &["tiled"]);
    }
    for (dim, family) in [(1, "quad"), (3, "direct 3"), (6, "quad 5")] {
        Case { batch: 2, heads: 3, ..Case::new(70, dim, CAUSAL) }.check(&gpu, &[family]);
    }
}

#[test]
fn a_thousand_tokens() {
    let gpu = common::gpu();
    for rule in [CAUSAL, FULL] {
        // No family of that name: the choice made for this adapter.
        Case::new(1000, 64, rule).check(&gpu, &["default"]);
    }
}

#[test]
fn windows_with_dilation_and_global_tokens() {
    let gpu = common::gpu();
    for causal in [false, true] {
        for (radius, dilation, global) in [(0, 1, 0), (5, 1, 0), (20, 1, 3), (9, 7, 0), (9, 7, 2), (300, 1, 0)] {
            Case::new(130, 8, window(radius, dilation, global, causal)).check(&gpu, &FAMILIES);
        }
    }
}

#[test]
fn more_keys_than_queries_and_fewer() {
    let gpu = common::gpu();
    for (n, m) in [(1, 200), (70, 131), (131, 70), (5, 3)] {
        for rule in [FULL, CAUSAL, window(11, 2, 1, true)] {
            Case { m, ..Case::new(n, 8, rule) }.check(&gpu, &FAMILIES);
        }
    }
}

#[test]
fn key_padding_and_bias() {
    let gpu = common::gpu();
    for rule in [FULL, window(3, 2, 0, true)] {
        Case { batch: 2, padding: true, ..Case::new(100, 8, rule.clone()) }.check(&gpu, &FAMILIES);
        for bias in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            let case = Case { batch: 2, padding: bias == (2, 2), bias: Some(bias), ..Case::new(66, 8, rule.clone()) };
            case.check(&gpu, if bias == (2, 1) { &FAMILIES } else { &["tiled"] });
        }
    }
}

#[test]
fn other_block_sizes() {
    let gpu = common::gpu();
    for block in [1, 6, 16, 32, 100, 128] {
        Case { block, ..Case::new(100, 4, window(13, 1, 2, false)) }.check(&gpu, &["quad 2", "tiled"]);
    }
}

#[test]
fn blocks_that_no_workgroup_divides() {
    let gpu = common::gpu();
    for (block, family) in [(37, "quad 2"), (37, "tiled"), (53, "direct 2")] {
        Case { block, ..Case::new(130, 4, window(13, 1, 2, true)) }.check(&gpu, &[family]);
    }
}

#[test]
fn heads_with_rules_of_their_own() {
    let gpu = common::gpu();
    let part = Part::ByHead { odd: true };
    let rule = Rule::Fixed { block: 12, columns: 4, place: 1, places: 3, part, causal: true };
    Case { heads: 3, block: 16, ..Case::new(100, 4, rule) }.check(&gpu, &["quad 2", "tiled"]);
    let rule = Rule::Strided { stride: 9, reach: 8, part, causal: false };
    Case { heads: 3, block: 16, ..Case::new(100, 4, rule) }.check(&gpu, &["direct 2"]);
}

#[test]
fn pairs_by_bits() {
    let gpu = common::gpu();
    for (heads, n, m, block, family) in
        [(1, 100, 90, 16, "quad 2"), (2, 70, 131, 13, "tiled"), (4, 65, 65, 64, "direct 2")]
    {
        let mut random = Random(31);
        let row = |_: usize, _: usize| (0..m).map(|j| j < 20 || random.next().is_multiple_of(3)).collect();
        let rule = Rule::Bits { bits: Arc::new(Bits::from_rows(heads, n, m, row)) };
        Case { batch: 2, m, block, padding: heads == 2, ..Case::new(n, 4, rule) }.check(&gpu, &[family]);
    }
}

#[test]
fn lists_of_keys_for_each_query() {
    let gpu = common::gpu();
    let mut random = Random(99);
    for (n, m, dim, heads, padding) in
        [(1, 1, 8, 1, false), (33, 90, 20, 1, true), (100, 60, 8, 2, false), (129, 129, 3, 2, true)]
    {
        // Some queries get no key at all, some every one.
        let share: Vec<u64> = (0..heads * n).map(|_| [0, 1, 3, 8][random.next() as usize % 4]).collect();
        let keys = share.iter().map(|s| (0..m as u32).filter(|_| random.next() % 8 < *s).collect()).collect();
        Case { batch: 2, m, padding, keys: Some(keys), ..Case::new(n, dim, FULL) }.check(&gpu, &["gather"]);
    }
}

#[test]
fn the_log_sum_exp_has_a_gradient() {
    let gpu = common::gpu();
    Case { lse_grad: true, padding: true, ..Case::new(100, 8, CAUSAL) }.check(&gpu, &FAMILIES);
}

#[test]
fn a_nan_is_never_hidden() {
    let gpu = common::gpu();
    let case = Case::new(70, 8, CAUSAL);
    for name in ["q", "k", "v"] {
        let mut inputs = case.inputs();
        let Some(Data::Real(x)) = inputs.get_mut(name) else { unreachable!("{name} is real") };
        // Query or key 30 of the first head: row 30 is concerned in each case, row 29 in none.
        x[30 * 8 + 3] = f64::NAN;
        let inputs: Values<f32> = ["q", "k", "v", "dout"]
            .map(|n| (n.to_string(), Data::Real(inputs[n].real().iter().map(|&x| x as f32).collect())))
            .into();
        let g = case.graph();
        let mut results = vec![cpu::run(&g, &inputs, &|| false).expect("inputs fit")];
        results.extend(gpu.iter().flat_map(|gpu| FAMILIES.map(|family| run(gpu, &g, &inputs, family))));
        for result in results {
            let o = result["o"].real();
            assert!(o[30 * 8 + 3].is_nan(), "{name}: a NaN in the input must show");
        }
    }
}
