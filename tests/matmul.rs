//! The matrix product on the device, every kernel and form of it, against the CPU interpreter in f64.

mod common;

use attention_lab::gpu::{BufferId, Category, Error, Gpu, Replay, Timer};
use attention_lab::graph::ops::matmul::{Family, Matmul, Tile};
use attention_lab::graph::plan::plan;
use attention_lab::graph::{Data, Dtype, Graph, LowerContext, TensorType, cpu, grad};
use attention_lab::measure::tune::{Open, Tuned};
use std::collections::BTreeMap;

const SEED: u64 = 20_261;

/// Numbers in -1..1, rounded to f32 so that every precision starts from the same.
fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    };
    (0..len).map(|_| next() as f32 as f64).collect()
}

/// To what a tensor holds.
fn rounded(x: Vec<f64>, dtype: Dtype) -> Vec<f64> {
    if dtype == Dtype::F16 { x.iter().map(|&x| half::f16::from_f64(x).to_f64()).collect() } else { x }
}

/// A product with the batch axes of its operands, and what is asked of it.
struct Case {
    op: Matmul,
    batch_a: &'static [usize],
    batch_b: &'static [usize],
    size: [usize; 3],
    gradient: bool,
    /// B is stored in half precision.
    packed: bool,
}

impl Case {
    fn new(form: usize, size: [usize; 3]) -> Self {
        let op = Matmul { trans_a: form & 1 == 1, trans_b: form & 2 == 2, alpha: 0.75, batch: None };
        Self { op, batch_a: &[], batch_b: &[], size, gradient: false, packed: false }
    }

    fn graph(&self) -> Graph {
        let [m, n, k] = self.size;
        let a = if self.op.trans_a { [k, m] } else { [m, k] };
        let b = if self.op.trans_b { [n, k] } else { [k, n] };
        let mut g = Graph::new();
        let a = g.input("a", TensorType::f32(&[self.batch_a, &a].concat()), Category::Activations);
        let dtype = if self.packed { Dtype::F16 } else { Dtype::F32 };
        let b = TensorType { dtype, shape: [self.batch_b, &b].concat() };
        let b = g.input("b", b, Category::Activations);
        let c = g.matmul_with(self.op.clone(), a, b);
        g.output("c", c);
        if self.gradient {
            let seed = g.input("seed", g.ty(c).clone(), Category::Activations);
            let d = grad::gradients(&mut g, &[(c, seed)], &[a, b]);
            g.output("da", d[0].expect("c depends on a"));
            if !self.packed {
                g.output("db", d[1].expect("c depends on b"));
            }
        }
        g
    }

    /// Compares the device's results with the interpreter's; all buffers hold NaN before the run.
    fn check(&self, gpu: &Gpu, context: &LowerContext) {
        let g = self.graph();
        let plan = plan(&g, context);
        let inputs: BTreeMap<String, Vec<f64>> = (plan.inputs.iter().enumerate())
            .map(|(i, (name, (_, ty)))| (name.clone(), rounded(numbers(ty.len(), SEED + i as u64), ty.dtype)))
            .collect();
        let what = format!("{:?} {:?} {:?} {:?}", self.op, self.size, self.batch_a, context.choices);
        let real = inputs.iter().map(|(n, x)| (n.clone(), Data::Real(x.clone()))).collect();
        let want = cpu::run::<f64>(&g, &real, &|| false).expect("inputs fit");
        pollster::block_on(async {
            let replay = Replay::new(gpu, &plan.program).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            for (i, buffer) in plan.program.buffers.iter().enumerate() {
                replay.write(BufferId(i), &vec![0xff; buffer.bytes as usize]).expect("a buffer takes its size");
            }
            for (name, (id, ty)) in &plan.inputs {
                let x: Vec<f32> = inputs[name].iter().map(|&x| x as f32).collect();
                replay.write(*id, &ty.stored(&x)).expect("an input fits");
            }
            replay.submit().expect("the device is there");
            for (name, (id, ty)) in &plan.outputs {
                let bytes = replay.read_range(*id, 0, ty.bytes()).await.expect("an output is read");
                let got: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
                let want = want[name].real();
                let square = |x: f64| x * x;
                let error: f64 = want.iter().zip(&got).map(|(&w, &g)| square(w - g as f64)).sum();
                let ratio = (error / want.iter().copied().map(square).sum::<f64>()).sqrt();
                assert!(ratio <= 2e-6, "{what}: {name} is off by {ratio:e} (seed {SEED})");
            }
        });
    }
}

fn forced(gpu: &Gpu, tile: &Tile) -> LowerContext {
    let mut context = LowerContext::from_caps(gpu.caps());
    context.choices.insert("matmul".into(), tile.to_string());
    context
}

fn register_tiles(family: Family) -> Vec<Tile> {
    [(4, 4), (8, 8), (16, 8), (16, 16)].map(|(rows, cols)| Tile::new(family, rows, cols)).to_vec()
}

/// Sizes that a tile fits, exceeds and does not divide, with and without whole vectors. The tiles of a family share their
/// loads, so the smallest is tried in all four forms and the others in two; compiling is what takes the time here.
fn check_tiles(gpu: &Gpu, tiles: &[Tile]) {
    for (i, tile) in tiles.iter().enumerate() {
        let context = forced(gpu, tile);
        assert!(tile.is_known(&context), "{tile} has a kernel here");
        for form in if i == 0 { 0..4 } else { 0..2 } {
            // Forms 0 and 3 (nn and tt) for the larger tiles.
            let form = if i == 0 { form } else { form * 3 };
            for size in [[5, 3, 7], [36, 12, 8]] {
                Case::new(form, size).check(gpu, &context);
            }
        }
        Case { batch_a: &[3], batch_b: &[2, 3], ..Case::new(0, [9, 8, 12]) }.check(gpu, &context);
        Case::new(0, [33, 270, 29]).check(gpu, &context);
    }
}

#[test]
fn direct_tiles() {
    let Some(gpu) = common::gpu() else { return };
    check_tiles(&gpu, &register_tiles(Family::Direct));
}

#[test]
fn subgroup_tiles_at_the_width_of_the_adapter() {
    let Some(gpu) = common::gpu() else { return };
    let Some((width, _)) = gpu.caps().subgroups else {
        println!("{} has no subgroups: nothing to test", gpu.caps().name);
        return;
    };
    println!("subgroups of {width} on {}", gpu.caps().name);
    check_tiles(&gpu, &register_tiles(Family::Subgroup));
}

#[test]
fn workgroup_tiles() {
    let Some(gpu) = common::gpu() else { return };
    let shapes = [(32, 32), (64, 64), (128, 64), (128, 128)];
    check_tiles(&gpu, &shapes.map(|(rows, cols)| Tile::new(Family::Tiled, rows, cols)));
}

#[test]
fn weights_in_half_precision() {
    let Some(gpu) = common::gpu() else { return };
    let mut tiles = vec![Tile::new(Family::Direct, 8, 8), Tile::new(Family::Tiled, 32, 32)];
    if gpu.caps().subgroups.is_some() {
        tiles.push(Tile::new(Family::Subgroup, 8, 8));
    }
    tiles.push(Tile { splits: 3, ..tiles[0] });
    for tile in tiles {
        let context = forced(&gpu, &tile);
        for form in 0..4 {
            for size in [[1, 1, 1], [5, 3, 7], [36, 12, 8], [33, 70, 500]] {
                Case { packed: true, ..Case::new(form, size) }.check(&gpu, &context);
            }
        }
        let odd = Case { packed: true, gradient: true, batch_a: &[3], batch_b: &[2, 3], ..Case::new(0, [9, 7, 13]) };
        odd.check(&gpu, &context);
    }
    let plan = plan(&Case { packed: true, ..Case::new(0, [5, 7, 3]) }.graph(), &LowerContext::from_caps(gpu.caps()));
    assert_eq!(plan.program.buffers.iter().map(|b| b.bytes).sum::<u64>(), 4 * 5 * 3 + 44 + 4 * 5 * 7);
}

#[test]
fn splits_of_k_and_of_contracted_axes_add_up() {
    let Some(gpu) = common::gpu() else { return };
    for family in [Family::Direct, Family::Tiled] {
        {
            let splits = 5;
            let (rows, cols) = if family == Family::Tiled { (32, 32) } else { (8, 8) };
            let context = forced(&gpu, &Tile { splits, ..Tile::new(family, rows, cols) });
            for form in [0, 1] {
                for size in [[12, 8, 300], [7, 9, 257], [3, 4, 5]] {
                    Case { batch_a: &[2], batch_b: &[2], ..Case::new(form, size) }.check(&gpu, &context);
                }
                let mut summed = Case { batch_a: &[3, 2], batch_b: &[3, 2], ..Case::new(form, [6, 8, 36]) };
                summed.op.batch = Some(vec![2]);
                summed.check(&gpu, &context);
                summed.op.batch = Some(vec![]);
                summed.check(&gpu, &context);
            }
        }
    }
}

#[test]
fn gradients_with_broadcast_operands() {
    let Some(gpu) = common::gpu() else { return };
    for software in [true, false] {
        let context = LowerContext { software, ..LowerContext::from_caps(gpu.caps()) };
        for form in 0..4 {
            for (batch_a, batch_b) in [(&[2, 3][..], &[][..]), (&[3], &[2, 1]), (&[], &[4]), (&[2, 2], &[2, 2])] {
                for size in [[5, 6, 7], [12, 8, 16], [1, 1, 1]] {
                    Case { batch_a, batch_b, gradient: true, ..Case::new(form, size) }.check(&gpu, &context);
                }
            }
        }
    }
}

#[test]
fn built_in_choices_at_the_shapes_of_attention() {
    let Some(gpu) = common::gpu() else { return };
    for software in [true, false] {
        let context = LowerContext { software, ..LowerContext::from_caps(gpu.caps()) };
        // Scores, mix, a projection over the length, k^T v, a head of one.
        for (form, size) in
            [(2, [100, 100, 64]), (0, [129, 64, 129]), (0, [32, 64, 1000]), (1, [64, 64, 1001]), (2, [256, 256, 64])]
        {
            Case { batch_a: &[1, 2], batch_b: &[1, 2], ..Case::new(form, size) }.check(&gpu, &context);
        }
        Case { batch_a: &[2, 3], ..Case::new(0, [65, 128, 32]) }.check(&gpu, &context);
    }
}

#[test]
fn measuring_chooses_the_fastest_and_lowering_follows() {
    let Some(gpu) = common::gpu() else { return };
    let base = LowerContext::from_caps(gpu.caps());
    let g = Case { gradient: true, ..Case::new(0, [64, 48, 32]) }.graph();
    pollster::block_on(async {
        let timer = Timer::new(&gpu).await.expect("a clock");
        let mut tuned = Tuned::new(gpu.caps());
        let open = tuned.open(&g, &base);
        let classes: Vec<&str> = open.iter().map(Open::class).collect();
        assert_eq!(classes, ["matmul/nn/6.6.5.0", "matmul/nt/6.5.6.0", "matmul/tn/5.6.6.0"]);
        let refused = tuned.measure(&gpu, &timer, &open[0], &base, &|| true).await;
        assert_eq!(refused, Err(Error::Cancelled));
        assert!(tuned.classes.is_empty());
        tuned.measure(&gpu, &timer, &open[0], &base, &|| false).await.expect("it is measured");
        let measured = &tuned.classes[open[0].class()];
        assert_eq!(measured.choice, measured.figures[0].candidate);
        assert!(measured.figures.windows(2).all(|w| w[0].ms <= w[1].ms) && measured.figures[0].ms > 0.0);
        assert_eq!(tuned.open(&g, &base).len(), 2, "what is known is not measured again");

        // The last of the candidates stands in for a choice that differs from the built-in one.
        let other = measured.figures.last().expect("several").candidate.clone();
        tuned.classes.get_mut("matmul/nn/6.6.5.0").expect("just measured").choice = other.clone();
        let kept: Tuned = serde_json::from_str(&serde_json::to_string(&tuned).expect("plain data")).expect("the same");
        assert_eq!(kept, tuned);
        Tuned::restore(Some(kept.clone()), gpu.caps()).apply(&gpu);
        let context = LowerContext::on(&gpu);
        assert_eq!(context.choices["matmul/nn/6.6.5.0"], other);
        Case::new(0, [64, 48, 32]).check(&gpu, &context);
        let elsewhere = Tuned { adapter: "another".into(), ..kept };
        assert!(Tuned::restore(Some(elsewhere), gpu.caps()).classes.is_empty());
    });
}
