//! The device layer on a real adapter: ledger, replay, splitting, timing, refusal and loss of the device.

mod common;

use attention_lab::gpu::{BufferId, BufferSpec, Category, Error, Gpu, How, Program, Replay, Source, Step, Timer};
use pollster::block_on;
use std::rc::Rc;

const LEN: usize = 100_003;

fn spec(label: &str, bytes: u64) -> BufferSpec {
    BufferSpec { label: label.into(), category: Category::Activations, bytes, initial: None }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Fills `LEN` elements with `value` by groups of 64 invocations with `items` elements each.
fn fill(value: f32, items: u32, groups: [u32; 3], flops: u64) -> Step {
    Step {
        source: Source::Table("ops/fill"),
        entry: "forward",
        consts: vec![("ITEMS", f64::from(items))],
        uniform: words(&[LEN as u32, value.to_bits()]),
        bindings: vec![("out", BufferId(0))],
        groups,
        label: "fill.forward".into(),
        stage: 0,
        flops,
    }
}

fn filling(value: f32, items: u32, flops: u64) -> Program {
    let groups = (LEN as u32).div_ceil(64 * items);
    Program {
        buffers: vec![spec("filled", LEN as u64 * 4)],
        steps: vec![fill(value, items, [groups, 1, 1], flops)],
        stages: vec!["fill".into()],
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Two rounds of `y[i] = a * x[i] + i`, over two buffers in turn, by a generated kernel.
fn chained() -> Program {
    let wgsl: Rc<str> = "struct U { origin: vec4<u32>, len: u32, a: f32 }
        @group(0) @binding(0) var<storage, read> x: array<f32>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @group(1) @binding(0) var<uniform> u: U;
        @compute @workgroup_size(32)
        fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
            let i = ((wg.x + u.origin.x) + (wg.y + u.origin.y) * 40u) * 32u + lane;
            if i < u.len { y[i] = u.a * x[i] + f32(i); }
        }"
    .into();
    let step = |a: f32, from, to, label: &str| Step {
        source: Source::Generated { name: "affine".into(), wgsl: wgsl.clone() },
        entry: "forward",
        consts: vec![],
        uniform: words(&[LEN as u32, a.to_bits()]),
        bindings: vec![("", BufferId(from)), ("", BufferId(to))],
        groups: [40, (LEN as u32).div_ceil(32 * 40), 1],
        label: label.into(),
        stage: 0,
        flops: 2 * LEN as u64,
    };
    Program {
        buffers: vec![spec("x", LEN as u64 * 4), spec("y", LEN as u64 * 4)],
        steps: vec![step(0.5, 0, 1, "affine.first"), step(-2.0, 1, 0, "affine.second")],
        stages: vec!["affine".into()],
    }
}

fn chained_input() -> Vec<f32> {
    (0..LEN).map(|i| ((i * 7919) % 1000) as f32 * 0.01).collect()
}

fn chained_wanted() -> Vec<f32> {
    let step = |a: f32, x: &[f32]| -> Vec<f32> { x.iter().enumerate().map(|(i, v)| a * v + i as f32).collect() };
    step(-2.0, &step(0.5, &chained_input()))
}

fn run_chained(gpu: &Gpu, program: &Program) -> Vec<f32> {
    let replay = block_on(Replay::new(gpu, program)).unwrap();
    replay.write(BufferId(1), bytemuck::cast_slice(&vec![f32::NAN; LEN])).unwrap();
    replay.write(BufferId(0), bytemuck::cast_slice(&chained_input())).unwrap();
    block_on(replay.run(&|| false)).unwrap();
    floats(&block_on(replay.read(BufferId(0))).unwrap())
}

fn assert_close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    let square = |x: f64| x * x;
    let error: f64 = got.iter().zip(want).map(|(g, w)| square(f64::from(*g) - f64::from(*w))).sum();
    let size: f64 = want.iter().map(|w| square(f64::from(*w))).sum();
    let ratio = (error / size).sqrt();
    assert!(ratio < 1e-6, "rms ratio {ratio}");
}

#[test]
fn replay_writes_runs_and_reads() {
    let Some(gpu) = common::gpu() else { return };
    let program = filling(0.25, 4, 1);
    let replay = block_on(Replay::new(&gpu, &program)).unwrap();
    replay.write(BufferId(0), bytemuck::cast_slice(&vec![f32::NAN; LEN])).unwrap();
    replay.submit().unwrap();
    assert!(floats(&block_on(replay.read(BufferId(0))).unwrap()).iter().all(|&v| v == 0.25));
    let tail = block_on(replay.read_range(BufferId(0), 4 * (LEN as u64 - 3), 12)).unwrap();
    assert_eq!(floats(&tail), [0.25; 3]);
    assert_close(&run_chained(&gpu, &chained()), &chained_wanted());
}

#[test]
fn a_dispatch_is_split_where_it_would_take_long_and_gives_the_same() {
    let Some(gpu) = common::gpu() else { return };
    let whole = run_chained(&gpu, &chained());
    let mut long = chained();
    for step in &mut long.steps {
        step.flops = (gpu.rate() * 5.0) as u64;
    }
    let replay = block_on(Replay::new(&gpu, &long)).unwrap();
    assert!(replay.dispatches() >= 2 * 25, "{} dispatches", replay.dispatches());
    assert_eq!(run_chained(&gpu, &long), whole);
}

#[test]
fn more_groups_than_an_axis_takes_are_split() {
    let Some(gpu) = common::gpu() else { return };
    let mut program = filling(3.0, 1, 1);
    // All but the first groups lie behind the end of the buffer: what counts is that none is refused or run twice.
    program.steps[0].groups = [200_000, 1, 1];
    let replay = block_on(Replay::new(&gpu, &program)).unwrap();
    assert_eq!(replay.dispatches(), 4);
    replay.write(BufferId(0), bytemuck::cast_slice(&vec![f32::NAN; LEN])).unwrap();
    replay.submit().unwrap();
    assert!(floats(&block_on(replay.read(BufferId(0))).unwrap()).iter().all(|&v| v == 3.0));
}

#[test]
fn initial_data_is_there_and_buffers_can_be_shared() {
    let Some(gpu) = common::gpu() else { return };
    let mut program = chained();
    program.buffers[0].initial = Some(bytemuck::cast_slice(&chained_input()).into());
    let replay = block_on(Replay::new(&gpu, &program)).unwrap();
    assert_eq!(floats(&block_on(replay.read(BufferId(0))).unwrap()), chained_input());
    replay.submit().unwrap();
    let given = [(BufferId(0), replay.buffer(BufferId(0)).clone())].into();
    let other = block_on(Replay::sharing(&gpu, &filling(7.0, 4, 1), &given)).unwrap();
    other.submit().unwrap();
    assert_eq!(floats(&block_on(replay.read(BufferId(0))).unwrap())[LEN - 1], 7.0);
}

#[test]
fn the_ledger_counts_what_is_alive_and_a_step_allocates_nothing() {
    let Some(gpu) = common::gpu() else { return };
    let ledger = gpu.ledger().clone();
    assert_eq!(ledger.current(), 0);
    let program = chained();
    let replay = block_on(Replay::new(&gpu, &program)).unwrap();
    let staging = ledger.by_category()[&Category::Staging];
    assert_eq!(ledger.current() - staging, program.bytes());
    assert_eq!(ledger.by_category()[&Category::Activations], program.bytes());

    let before = (ledger.allocations(), ledger.current());
    for _ in 0..5 {
        replay.submit().unwrap();
    }
    block_on(gpu.wait()).unwrap();
    assert_eq!((ledger.allocations(), ledger.current()), before, "a step allocates nothing");

    block_on(replay.read(BufferId(1))).unwrap();
    assert_eq!(ledger.current(), before.1, "reading gives its staging buffer back");
    assert!(ledger.peak() >= before.1 + LEN as u64 * 4);
    drop(replay);
    assert!(ledger.alive().is_empty(), "leaked: {:?}", ledger.alive());
    assert_eq!(ledger.current(), 0);
}

#[test]
fn what_exceeds_a_limit_is_refused_before_anything_is_allocated() {
    let Some(gpu) = common::gpu() else { return };
    let limit = gpu.caps().max_binding_bytes.min(gpu.caps().max_buffer_bytes);
    let mut program = filling(1.0, 4, 1);
    program.buffers.push(spec("scores", limit + 4));
    let error = block_on(Replay::new(&gpu, &program)).err();
    match error {
        Some(Error::TooLarge { what, needs, limit: at, .. }) => {
            assert_eq!((what.as_str(), needs, at), ("scores", limit + 4, limit));
        }
        other => panic!("{other:?}"),
    }
    let endless = filling(1.0, 4, u64::MAX);
    assert!(matches!(block_on(Replay::new(&gpu, &endless)).err(), Some(Error::TooLarge { .. })));
    assert_eq!((gpu.ledger().allocations(), gpu.ledger().peak()), (0, 0));
}

#[test]
fn errors_name_what_is_wrong() {
    let Some(gpu) = common::gpu() else { return };
    let refuse = |change: &dyn Fn(&mut Step)| {
        let mut program = filling(1.0, 4, 1);
        change(&mut program.steps[0]);
        block_on(Replay::new(&gpu, &program)).map(|_| ()).expect_err("refused").to_string()
    };
    assert!(refuse(&|s| s.source = Source::Table("ops/none")).contains("ops/none.forward"));
    assert!(refuse(&|s| s.entry = "backward").contains("only forward"));
    assert!(refuse(&|s| s.consts = vec![("TILES", 1.0)]).contains("`TILES`"));
    assert!(refuse(&|s| s.bindings = vec![]).contains("`out`"));
    assert!(refuse(&|s| s.bindings.push(("extra", BufferId(0)))).contains("`extra`"));
    assert!(refuse(&|s| s.uniform.extend([0; 16])).contains("32 bytes"));
    let broken: Rc<str> = "@compute @workgroup_size(1) fn forward() { let x: u32 = 1.5; }".into();
    let message = refuse(&|s| s.source = Source::Generated { name: "broken".into(), wgsl: broken.clone() });
    assert!(message.contains("broken.forward"), "{message}");
    // And the device is none the worse for it.
    gpu.check().unwrap();
    assert_close(&run_chained(&gpu, &chained()), &chained_wanted());
}

#[test]
fn a_run_can_be_cancelled_between_submissions() {
    let Some(gpu) = common::gpu() else { return };
    let replay = block_on(Replay::new(&gpu, &filling(1.0, 1, (gpu.rate() * 10.0) as u64))).unwrap();
    let asked = std::cell::Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    assert_eq!(block_on(replay.run(&cancelled)), Err(Error::Cancelled));
    assert_eq!(asked.get(), 3);
}

#[test]
fn pipelines_are_made_once_and_with_progress() {
    let Some(gpu) = common::gpu() else { return };
    let mut heard = Vec::new();
    let mut program = chained();
    program.steps.push(fill(1.0, 4, [1, 1, 1], 1));
    program.steps.push(fill(1.0, 8, [1, 1, 1], 1));
    block_on(gpu.prepare(&program, &mut |done, total| heard.push((done, total)))).unwrap();
    // Both rounds of the chain are one kernel; another constant is another pipeline.
    assert_eq!(heard, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    heard.clear();
    block_on(gpu.prepare(&program, &mut |done, total| heard.push((done, total)))).unwrap();
    assert_eq!(heard, [(0, 0)]);
}

#[test]
fn timing_returns_positive_times_and_says_how() {
    let Some(gpu) = common::gpu() else { return };
    let timer = block_on(Timer::new(&gpu)).unwrap();
    assert_eq!(timer.how() == How::Timestamp, gpu.caps().timestamps);
    assert!(timer.quantum_ns() > 0.0 && timer.quantum_ns() < 1e7, "{} ns", timer.quantum_ns());
    let replay = block_on(Replay::new(&gpu, &chained())).unwrap();
    let before = gpu.ledger().allocations();
    let samples = block_on(timer.measure(&replay, None, 5)).unwrap();
    assert_eq!(gpu.ledger().allocations(), before, "timing allocates nothing");
    assert_eq!(samples.ms.len(), 5);
    assert!(samples.min() > 0.0 && samples.min() <= samples.median() && samples.median() <= samples.max());
    assert!(samples.median() * f64::from(samples.repeats) > 0.5, "{samples:?}");
    let stages = block_on(timer.measure_stages(&replay, 3)).unwrap();
    assert_eq!(stages.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), ["affine"]);
    eprintln!("{}: quantum {} ns, {samples:?}", gpu.caps().name, timer.quantum_ns());
}

#[test]
fn the_wall_clock_agrees_with_the_timestamps() {
    let Some(gpu) = common::gpu() else { return };
    let replay = block_on(Replay::new(&gpu, &chained())).unwrap();
    let (timer, clock) = (block_on(Timer::new(&gpu)).unwrap(), Timer::by_clock(&gpu));
    assert_eq!(clock.how(), How::Wall);
    let by_clock = block_on(clock.measure(&replay, None, 5)).unwrap();
    let by_stamps = block_on(timer.measure(&replay, None, 5)).unwrap();
    // Long spans hold the submission's own cost many times over; the rest is the same work.
    assert!(by_clock.median() * f64::from(by_clock.repeats) > 10.0, "{by_clock:?}");
    let ratio = by_clock.min() / by_stamps.min();
    assert!((0.2..20.0).contains(&ratio), "{by_clock:?} {by_stamps:?}");
}

#[test]
fn a_destroyed_device_is_an_error_and_a_new_one_gives_the_same_bits() {
    let Some(gpu) = common::gpu() else { return };
    let program = chained();
    let wanted = run_chained(&gpu, &program);
    let replay = block_on(Replay::new(&gpu, &program)).unwrap();
    replay.write(BufferId(0), bytemuck::cast_slice(&chained_input())).unwrap();
    replay.submit().unwrap();
    gpu.destroy();
    assert!(matches!(replay.submit(), Err(Error::Lost { .. })));
    assert!(matches!(block_on(replay.read(BufferId(0))), Err(Error::Lost { .. })));
    assert!(matches!(block_on(gpu.wait()), Err(Error::Lost { .. })));
    assert!(matches!(block_on(Replay::new(&gpu, &program)), Err(Error::Lost { .. })));
    assert!(gpu.lost().is_some());
    drop(replay);
    assert_eq!(gpu.ledger().current(), 0, "what a lost device held is given back");

    let again = block_on(gpu.recreate()).unwrap();
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&run_chained(&again, &program)), bits(&wanted));
}

#[test]
fn software_adapters_are_recognised() {
    let Some(gpu) = common::gpu() else { return };
    let caps = gpu.caps();
    let name = caps.name.to_lowercase();
    assert_eq!(caps.software, name.contains("llvmpipe") || name.contains("swiftshader"), "{caps:?}");
    assert!(caps.max_binding_bytes >= 128 << 20 && caps.max_storage_buffers >= 8, "{caps:?}");
}
