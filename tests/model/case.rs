//! Small models with seeded inputs, and running a graph that changes its own state.

use attention_lab::attention::DEFAULT_TENSOR_BYTES;
use attention_lab::gpu::{BufferId, Gpu, Replay};
use attention_lab::graph::plan::{Plan, plan};
use attention_lab::graph::{Data, Float, Graph, Kind, LowerContext};
use attention_lab::model::{Architecture, Mixer, ModelConfig, Parameter};
use attention_lab::random;
use pollster::block_on;
use std::collections::BTreeMap;

pub const BATCH: usize = 2;

pub type Values<R> = BTreeMap<String, Data<R>>;

/// A model of odd sizes with these variants, a layer each.
pub fn config(architecture: Architecture, variants: &[&str]) -> ModelConfig {
    let config = ModelConfig {
        architecture,
        layers: variants.len(),
        d_model: 12,
        heads: 2,
        d_ff: Some(10),
        vocabulary: 7,
        length: 9,
        attention: variants.iter().map(|id| Mixer::of(id)).collect(),
        ..ModelConfig::default()
    };
    config.check(BATCH, DEFAULT_TENSOR_BYTES).unwrap_or_else(|e| panic!("{e}"));
    config
}

/// Tokens to be copied behind a separator, row by row: inputs, targets, and 1 where the target can be known.
pub fn copy_batch(config: &ModelConfig, batch: usize, index: u64) -> [Vec<u32>; 3] {
    let n = config.length;
    let half = n.div_ceil(2);
    let separator = config.vocabulary as u32 - 1;
    let [mut tokens, mut targets, mut judged] = [Vec::new(), Vec::new(), Vec::new()];
    for row in 0..batch {
        let symbol = |i: usize| random::below(5, index, (row * half + i) as u64, separator as usize) as u32;
        let text: Vec<u32> = (0..=n).map(|i| if i == half { separator } else { symbol(i % (half + 1)) }).collect();
        tokens.extend(&text[..n]);
        targets.extend(&text[1..]);
        judged.extend((0..n).map(|i| u32::from(i >= half)));
    }
    [tokens, targets, judged]
}

/// What a step reads of a batch.
pub fn batch_values<R: Float>(config: &ModelConfig, batch: usize, index: u64) -> Values<R> {
    let [tokens, targets, judged] = copy_batch(config, batch, index);
    let judged = judged.into_iter().map(|x| R::from_f64(x.into())).collect();
    let seed = [index as u32, 77];
    BTreeMap::from([
        ("source".to_owned(), Data::Index(tokens.clone())),
        ("tokens".to_owned(), Data::Index(tokens)),
        ("targets".to_owned(), Data::Index(targets)),
        ("judged".to_owned(), Data::Real(judged)),
        ("seed".to_owned(), Data::Index(seed.to_vec())),
    ])
}

/// First values of all weights; with `noise`, moved so that no bias is 0 and no gain is 1.
pub fn weights<'a, R: Float>(parameters: impl Iterator<Item = &'a Parameter>, noise: f64) -> Values<R> {
    let values = |p: &Parameter| {
        let stream = random::stream(&p.name);
        let moved = |(i, x): (usize, f32)| f64::from(x) + noise * random::normal(3, stream, i as u64);
        // Rounded to f32, so that every precision starts from the same numbers.
        p.draw(1).into_iter().enumerate().map(|x| R::from_f64(f64::from(moved(x) as f32))).collect()
    };
    parameters.map(|p| (p.name.clone(), Data::Real(values(p)))).collect()
}

/// Names of a graph's inputs, with their sizes.
pub fn inputs(g: &Graph) -> impl Iterator<Item = (&str, usize)> {
    g.entries().iter().filter_map(|e| match &e.kind {
        Kind::Input { name } => Some((name.as_str(), e.types[0].len())),
        _ => None,
    })
}

/// A graph on the device.
pub struct Device {
    pub plan: Plan,
    pub replay: Replay,
}

impl Device {
    /// Whatever is not an input or a constant holds NaN before the first run.
    pub fn new(gpu: &Gpu, g: &Graph) -> Self {
        let plan = plan(g, &LowerContext::from_caps(gpu.caps()));
        let replay = block_on(Replay::new(gpu, &plan.program)).unwrap_or_else(|e| panic!("{e}"));
        for (index, buffer) in plan.program.buffers.iter().enumerate().filter(|(_, b)| b.initial.is_none()) {
            replay.write(BufferId(index), &vec![0xff; buffer.bytes as usize]).unwrap();
        }
        Self { plan, replay }
    }

    /// Writes those values that the graph reads.
    pub fn write(&self, values: &Values<f32>) {
        for (name, (buffer, _)) in &self.plan.inputs {
            match values.get(name) {
                Some(Data::Real(x)) => self.replay.write(*buffer, bytemuck::cast_slice(x)).unwrap(),
                Some(Data::Index(x)) => self.replay.write(*buffer, bytemuck::cast_slice(x)).unwrap(),
                None => {}
            }
        }
    }

    pub fn output(&self, name: &str) -> Vec<f64> {
        let (buffer, ty) = &self.plan.outputs[name];
        let bytes = block_on(self.replay.read_range(*buffer, 0, ty.bytes())).unwrap_or_else(|e| panic!("{name}: {e}"));
        bytemuck::pod_collect_to_vec::<_, f32>(&bytes).into_iter().map(f64::from).collect()
    }
}
