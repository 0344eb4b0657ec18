//! Rates of single kernels: the matrix product, and multiply-adds that touch no memory, which is the most that any kernel
//! could reach.

use super::device::{Device, Fault};
use super::inbox::{Handle, Watch};
use super::prepared::Prepared;
use super::shared::Shared;
use super::timing::Stopwatch;
use crate::gpu::{BufferId, BufferSpec, Category, Gpu, Options, Program, Replay, Source, Step, Timer};
use crate::graph::plan::plan;
use crate::graph::{Graph, TensorType};
use crate::lab::protocol::{Backend, Command};
use crate::measure::Timing;
use crate::random::normal;

/// A measured rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    pub what: String,
    pub flops: u64,
    pub time: Timing,
}

impl Rate {
    /// Billions of floating-point operations a second, at the median.
    pub fn gflops(&self) -> f64 {
        self.flops as f64 / self.time.median / 1e6
    }
}

const SPANS: usize = 7;

/// Times square f32 matrix products of these sizes and, on a GPU, pure multiply-adds.
pub async fn rates(backend: Backend, options: &Options, sizes: &[usize]) -> Result<Vec<Rate>, Fault> {
    let (device, _) = Device::open(backend, options, &Shared::default()).await?;
    let watch = Handle::default().watch(&Command::Cancel);
    let mut rates = Vec::new();
    if let Device::Gpu(gpu) = &device {
        rates.push(multiply_adds(gpu).await?);
    }
    let stopwatch = Stopwatch::new(&device).await?;
    for &size in sizes {
        rates.push(product(&device, &stopwatch, size, &watch).await?);
    }
    Ok(rates)
}

async fn product(device: &Device, stopwatch: &Stopwatch, size: usize, watch: &Watch) -> Result<Rate, Fault> {
    let mut graph = Graph::new();
    let [a, b] = ["a", "b"].map(|name| graph.input(name, TensorType::f32(&[size, size]), Category::Activations));
    let c = graph.matmul(a, b);
    graph.output("c", c);
    let flops = 2 * (size as u64).pow(3);
    let plan = plan(&graph, &device.context());
    let mut x = Prepared::of_graph(device, graph, plan).await?;
    for (stream, name) in ["a", "b"].into_iter().enumerate() {
        let values: Vec<f32> = (0..(size * size) as u64).map(|i| normal(1, stream as u64, i) as f32).collect();
        x.write(name, &values)?;
    }
    let time = stopwatch.time(&mut x, SPANS, watch).await?;
    let time = time.ok_or_else(|| Fault::refused("the clock gave no time"))?;
    Ok(Rate { what: format!("matmul {size}"), flops, time })
}

/// Independent chains of vec4 multiply-adds, as many as hide the latency of one.
const CHAINS: u64 = 8;
const ROUNDS: u64 = 512;
const INVOCATIONS: u64 = 64;
const GROUPS: u64 = 2048;

async fn multiply_adds(gpu: &Gpu) -> Result<Rate, Fault> {
    let mut body = String::new();
    let mut sum = String::new();
    for c in 0..CHAINS {
        body += &format!("        x{c} = fma(x{c}, m, a);\n");
        sum += &format!(" + x{c}");
    }
    let start: String = (0..CHAINS).map(|c| format!("    var x{c} = vec4<f32>(f32(at) * {}.0e-3);\n", c + 1)).collect();
    let wgsl = format!(
        "struct Dims {{ origin: vec4<u32> }}\n\
         @group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;\n\
         @group(1) @binding(0) var<uniform> dims: Dims;\n\
         @compute @workgroup_size({INVOCATIONS})\n\
         fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{\n    \
         let at = (group.x + dims.origin.x) * {INVOCATIONS}u + lane;\n{start}    \
         let m = vec4<f32>(0.999);\n    let a = vec4<f32>(1.0e-3);\n    \
         for (var i = 0u; i < {ROUNDS}u; i++) {{\n{body}    }}\n    \
         out[at] = vec4<f32>(0.0){sum};\n}}\n"
    );
    let flops = GROUPS * INVOCATIONS * ROUNDS * CHAINS * 4 * 2;
    let what = "multiply-add";
    let program = Program {
        buffers: vec![BufferSpec {
            label: what.into(),
            category: Category::Workspace,
            bytes: GROUPS * INVOCATIONS * 16,
            initial: None,
        }],
        steps: vec![Step {
            source: Source::Generated { name: "multiply_add".into(), wgsl: wgsl.into() },
            entry: "forward",
            consts: vec![],
            uniform: vec![],
            bindings: vec![("out", BufferId(0))],
            groups: [GROUPS as u32, 1, 1],
            label: what.into(),
            stage: 0,
            flops,
        }],
        stages: vec![String::new()],
    };
    let replay = Replay::new(gpu, &program).await?;
    let samples = Timer::new(gpu).await?.measure(&replay, None, SPANS).await?;
    let time = Timing::new(&samples.ms, samples.how.id()).ok_or_else(|| Fault::refused("the clock gave no time"))?;
    Ok(Rate { what: what.into(), flops, time })
}
