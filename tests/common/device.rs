//! Runs a graph's plan on the device, in every kernel family, and hands the results to a comparison.

use attention_lab::gpu::{Gpu, Replay};
use attention_lab::graph::plan::{Plan, plan};
use attention_lab::graph::{Data, Dtype, Graph, LowerContext, TensorType};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;

thread_local! {
    // Never dropped: the locks of the driver's library use thread-locals that may be gone before this one.
    static GPU: OnceCell<ManuallyDrop<Option<Gpu>>> = const { OnceCell::new() };
}

/// The test's device, made once for each thread.
pub fn gpu() -> Option<Gpu> {
    GPU.with(|gpu| Option::clone(gpu.get_or_init(|| ManuallyDrop::new(super::common::gpu()))))
}

/// Plans and runs `g` in each kernel family, from poisoned buffers; a second run must repeat the first bit for bit.
pub fn check(
    name: &str,
    g: &Graph,
    inputs: &BTreeMap<String, Data<f32>>,
    compare: impl Fn(&str, &BTreeMap<String, Data<f32>>),
) {
    let Some(gpu) = gpu() else { return };
    println!("{name} on {}", gpu.caps().name);
    let caps = LowerContext::from_caps(gpu.caps());
    let family = |software: bool, rows: &str, fusion: &str| {
        let choices = [("rows", rows), ("fusion", fusion)].map(|(key, value)| (key.to_string(), value.to_string()));
        plan(g, &LowerContext { software, choices: choices.into(), ..caps.clone() })
    };
    let alone = family(true, "alone", "on");
    let unfused = family(true, "alone", "off");
    let fuses = unfused.program.steps.len() > alone.program.steps.len();
    let mut families = vec![("GPU, rows alone", alone), ("GPU, rows by groups", family(false, "group", "on"))];
    if fuses {
        families.push(("GPU, unfused", unfused));
    }
    for (how, plan) in families {
        pollster::block_on(async {
            let replay = Replay::new(&gpu, &plan.program).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            let first = run(&replay, &plan, inputs).await;
            let second = run(&replay, &plan, inputs).await;
            assert_eq!(first, second, "{name}: {how} does not repeat");
            compare(how, &first.iter().map(|(k, (ty, bytes))| (k.clone(), decode(ty, bytes))).collect());
        });
    }
}

/// One run; every buffer that is not given is full of NaN before it.
async fn run(
    replay: &Replay,
    plan: &Plan,
    inputs: &BTreeMap<String, Data<f32>>,
) -> BTreeMap<String, (TensorType, Vec<u8>)> {
    for (index, spec) in plan.program.buffers.iter().enumerate().filter(|(_, spec)| spec.initial.is_none()) {
        let poison = vec![0xff; spec.bytes as usize];
        replay.write(attention_lab::gpu::BufferId(index), &poison).expect("a buffer takes its own size");
    }
    for (name, (id, _)) in &plan.inputs {
        match &inputs[name] {
            Data::Real(x) => replay.write(*id, bytemuck::cast_slice(x)),
            Data::Index(x) => replay.write(*id, bytemuck::cast_slice(x)),
        }
        .expect("an input fits its buffer");
    }
    replay.submit().expect("the device is there");
    let mut outputs = BTreeMap::new();
    for (name, (id, ty)) in &plan.outputs {
        let bytes = replay.read_range(*id, 0, ty.bytes()).await.expect("an output is read");
        outputs.insert(name.clone(), (ty.clone(), bytes));
    }
    outputs
}

fn decode(ty: &TensorType, bytes: &[u8]) -> Data<f32> {
    match ty.dtype {
        Dtype::U32 => Data::Index(bytemuck::pod_collect_to_vec(bytes)),
        _ => Data::Real(bytemuck::pod_collect_to_vec(bytes)),
    }
}
