//! Pictures computed on the device against the matrix written out: values of every pixel, and colours.

mod common;

use attention_lab::attention::EffectiveKind;
use attention_lab::gpu::heat::{Colours, PALETTE, Scale};
use attention_lab::gpu::plate::{Content, Factors, Kind, Plate, Scene};
use attention_lab::gpu::{BufferId, BufferSpec, Category, Gpu, Program, Replay};
use attention_lab::lab::experiment::{self as lab, Pool, View};
use attention_lab::lab::protocol::Viewport;
use attention_lab::lab::{matrix, picture};
use attention_lab::pattern::{BlockList, Rule};
use attention_lab::random::normal;
use pollster::block_on;
use std::ops::Range;
use std::sync::Arc;

const HEADS: usize = 3;
const HEAD: usize = 2;

/// A matrix in factors, on the host and on the device.
struct Matrix {
    left: Vec<f32>,
    right: Vec<f32>,
    row: Vec<f32>,
    kind: Kind,
    rule: Rule,
    n: usize,
    m: usize,
    rank: usize,
}

impl Matrix {
    fn random(seed: u64, kind: Kind, rule: Rule, n: usize, m: usize, rank: usize) -> Self {
        let draw = |stream, count| (0..count as u64).map(|i| normal(seed, stream, i) as f32).collect::<Vec<f32>>();
        // Far enough from zero to divide by.
        let row_len = match kind {
            Kind::Filtered { taps } => taps as usize,
            Kind::Entmax => 4 * n + 1,
            Kind::Spanned { distances } => n + distances as usize,
            Kind::Chunked { rounds, .. } => n * (1 + rounds as usize) + 1,
            _ => n,
        };
        let rank = if kind == Kind::Cells { m } else { rank };
        let shaped = |(at, x): (usize, f32)| match (kind, at % row_len) {
            (Kind::Ratio, _) => 2.0 + x.abs(),
            // Softmax in every other one.
            (Kind::Entmax, at) if at == 4 * n => [0.0, 0.5][seed as usize % 2],
            (Kind::Entmax, at) => [3.0 + x, -x.abs(), x.abs(), x][at % 4],
            (Kind::Spanned { .. }, at) if at >= n => x.max(0.0),
            // Slots of two buckets, and some that are never met.
            (Kind::Chunked { .. }, at) if at >= n && at + 1 < row_len && x > 1.0 => u32::MAX as f32,
            (Kind::Chunked { chunks, .. }, at) if at >= n && at + 1 < row_len => {
                (x.abs() * 1000.0).floor() % (2 * chunks) as f32
            }
            _ => x,
        };
        let row = draw(2, HEADS * row_len).into_iter().enumerate().map(shaped).collect();
        Self { left: draw(0, HEADS * n * rank), right: draw(1, HEADS * m * rank), row, kind, rule, n, m, rank }
    }

    fn product(&self, i: usize, j: usize) -> f64 {
        let (l, r) = ((HEAD * self.n + i) * self.rank, (HEAD * self.m + j) * self.rank);
        let dot = || (0..self.rank).map(|k| f64::from(self.left[l + k]) * f64::from(self.right[r + k])).sum();
        match self.kind {
            Kind::Cells => self.left[l + j].into(),
            Kind::Filtered { taps } => {
                let tap = j as i64 - i as i64 + i64::from(taps / 2);
                let inside = (0..i64::from(taps)).contains(&tap);
                dot() + if inside { f64::from(self.row[HEAD * taps as usize + tap as usize]) } else { 0.0 }
            }
            _ => dot(),
        }
    }

    fn may(&self, i: usize, j: usize) -> bool {
        self.rule.may(i, j, self.n, self.m)
    }

    fn weight(&self, i: usize, j: usize) -> f64 {
        let row = || f64::from(self.row[HEAD * self.n + i]);
        let of_head = self.row.len() / HEADS;
        let own: Vec<f64> = self.row[HEAD * of_head..][..of_head].iter().map(|&x| f64::from(x)).collect();
        match self.kind {
            Kind::Entmax => {
                let (top, tau, share, epsilon) = (own[4 * i], own[4 * i + 1], own[4 * i + 2], own[4 * self.n]);
                let below = self.product(i, j) - top;
                let above = (epsilon * below - tau).max(0.0);
                share * if epsilon == 0.0 { below.exp() } else { above.powf(1.0 / epsilon) }
            }
            Kind::Spanned { distances } => {
                let distance = (j as i64 - i as i64 - (self.m as i64 - self.n as i64)).unsigned_abs();
                let factor = if distance < distances.into() { own[self.n + distance as usize] } else { 0.0 };
                factor * (self.product(i, j) - own[i]).exp()
            }
            Kind::Chunked { rounds, chunks } => {
                let place = |round: usize, token: usize| {
                    let slot = own[self.n * (round + 1) + token];
                    (slot < 1e9).then_some((slot as u32 / chunks, slot as u32 % chunks))
                };
                let meets = |round| match (place(round, i), place(round, j)) {
                    (Some((a, own)), Some((b, other))) => a == b && (other == own || (other + 1) % chunks == own),
                    _ => false,
                };
                let score = if i == j { own[of_head - 1] } else { self.product(i, j) };
                if (0..rounds as usize).any(meets) { (score - own[i]).exp() } else { 0.0 }
            }
            Kind::Softmax => (self.product(i, j) - row()).exp(),
            Kind::Ratio => self.product(i, j) / row(),
            Kind::Plain | Kind::Filtered { .. } | Kind::Cells => self.product(i, j),
        }
    }

    fn upload(&self, gpu: &Gpu) -> Factors {
        let spec = |label: &str, data: &[f32]| BufferSpec {
            label: label.into(),
            category: Category::Activations,
            bytes: data.len() as u64 * 4,
            initial: Some(bytemuck::cast_slice(data).into()),
        };
        let buffers = vec![spec("left", &self.left), spec("right", &self.right), spec("row", &self.row)];
        let replay = block_on(Replay::new(gpu, &Program { buffers, ..Default::default() })).unwrap();
        let buffer = |i| replay.buffer(BufferId(i)).clone();
        let row = (!matches!(self.kind, Kind::Plain | Kind::Cells)).then(|| buffer(2));
        let (rank, kind, mask) = (self.rank, self.kind, self.rule.encode(self.n, self.m));
        Factors { left: buffer(0), right: buffer(1), row, rank, kind, mask }
    }
}

/// Pixel ranges over `start..start + extent` cells.
fn ranges(start: f64, extent: f64, pixels: usize, count: usize) -> Vec<Range<usize>> {
    let edge = |x: usize| (start + extent * x as f64 / pixels as f64).floor() as usize;
    (0..pixels).map(|x| edge(x).min(count - 1)..edge(x + 1).clamp(edge(x).min(count - 1) + 1, count)).collect()
}

/// The picture written out: `cell` gives a value, or none where it does not take part.
fn wanted(
    rows: &[Range<usize>],
    columns: &[Range<usize>],
    mean: bool,
    cell: impl Fn(usize, usize) -> Option<f64>,
) -> Vec<f64> {
    let pixel = |r: &Range<usize>, c: &Range<usize>| {
        let cells: Vec<f64> =
            r.clone().flat_map(|i| c.clone().map(move |j| (i, j))).filter_map(|(i, j)| cell(i, j)).collect();
        match cells.len() {
            0 => f64::NEG_INFINITY,
            _ if cells.iter().any(|x| x.is_nan()) => f64::NAN,
            n if mean => cells.iter().sum::<f64>() / n as f64,
            _ => cells.iter().copied().fold(0.0, |a: f64, x| if x.abs() > a.abs() { x } else { a }),
        }
    };
    rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c))).map(|(r, c)| pixel(r, c)).collect()
}

fn show(plate: &mut Plate, scene: &Scene<'_>) -> Vec<f32> {
    block_on(plate.set(scene)).unwrap();
    let mut last = None;
    while let Some(progress) = block_on(plate.step()).unwrap() {
        last = Some(progress);
    }
    assert!(last.is_some_and(|p| p.exact && p.done == p.total), "{last:?}");
    block_on(plate.values()).unwrap()
}

fn assert_same(name: &str, got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{name}");
    let (mut error, mut size) = (0.0, 0.0);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        if w == f64::NEG_INFINITY {
            assert_eq!(g, f32::NEG_INFINITY, "{name}: pixel {i} is absent");
        } else {
            assert!(g.is_finite(), "{name}: pixel {i} is {g}, wanted {w}");
            error += (f64::from(g) - w).powi(2);
            size += w * w;
        }
    }
    // A picture in which nothing is allowed is to be zero everywhere.
    assert!(error <= 1e-10 * size, "{name}: squares of errors sum to {error}, of values to {size}");
}

/// Viewports: all of it, an odd part, single cells over many pixels.
fn viewports(n: usize, m: usize) -> Vec<[Vec<Range<usize>>; 2]> {
    vec![
        [ranges(0.0, n as f64, 37, n), ranges(0.0, m as f64, 53, m)],
        [ranges(11.3, 40.9, 40, n), ranges(3.7, 71.2, 35, m)],
        [ranges(5.5, 2.25, 40, n), ranges(7.0, 3.0, 50, m)],
        [ranges(0.0, n as f64, n, n), ranges(0.0, m as f64, m, m)],
    ]
}

#[test]
fn scores_weights_and_differences_are_the_matrix() {
    let Some(gpu) = common::gpu() else { return };
    let mut plate = block_on(Plate::new(&gpu)).unwrap();
    let (n, m) = (101, 117);
    let window = Rule::Window { radius: 9, dilation: 2, global: 1, causal: false };
    let cases = [
        (Kind::Softmax, Rule::All { causal: true }, 6),
        (Kind::Ratio, window.clone(), 8),
        (Kind::Plain, Rule::All { causal: false }, 5),
        (Kind::Softmax, window, 12),
        (Kind::Filtered { taps: 33 }, Rule::All { causal: false }, 8),
        (Kind::Filtered { taps: 233 }, Rule::All { causal: false }, 3),
        (Kind::Cells, Rule::All { causal: true }, 0),
        (Kind::Entmax, Rule::All { causal: false }, 4),
        (Kind::Entmax, Rule::All { causal: true }, 3),
        (Kind::Spanned { distances: 31 }, Rule::All { causal: false }, 2),
        (Kind::Chunked { rounds: 3, chunks: 5 }, Rule::All { causal: true }, 4),
        (Kind::Chunked { rounds: 1, chunks: 1 }, Rule::All { causal: false }, 2),
    ];
    for (seed, (kind, rule, rank)) in cases.into_iter().enumerate() {
        // Only there are queries and keys the same tokens.
        let m = if matches!(kind, Kind::Chunked { .. }) { n } else { m };
        let x = Matrix::random(seed as u64, kind, rule, n, m, rank);
        // Full attention, or in its place another of the same kind.
        let other = if rank < 4 { kind } else { Kind::Softmax };
        let y = Matrix::random(seed as u64 + 50, other, Rule::All { causal: true }, n, m, rank);
        let (factors, other) = (x.upload(&gpu), y.upload(&gpu));
        for [rows, columns] in viewports(n, m) {
            for mean in [false, true] {
                let name = format!("{kind:?} rank {rank} {}x{} pixels, mean {mean}", rows.len(), columns.len());
                let scene =
                    |content| Scene { content, n, m, head: HEAD, mean, listed: &[], rows: &rows, columns: &columns };
                let score = |i, j| x.may(i, j).then(|| x.product(i, j));
                let weight = |i, j| x.may(i, j).then(|| x.weight(i, j));
                let at = |a: &Matrix, i, j| if a.may(i, j) { a.weight(i, j) } else { 0.0 };
                let difference = |i, j| Some(at(&x, i, j) - at(&y, i, j));
                let got = show(&mut plate, &scene(Content::Scores(&factors)));
                assert_same(&format!("scores {name}"), &got, &wanted(&rows, &columns, mean, score));
                let got = show(&mut plate, &scene(Content::Weights(&factors)));
                assert_same(&format!("weights {name}"), &got, &wanted(&rows, &columns, mean, weight));
                let got = show(&mut plate, &scene(Content::Difference(&factors, &other)));
                assert_same(&format!("difference {name}"), &got, &wanted(&rows, &columns, mean, difference));
            }
        }
    }
}

#[test]
fn masks_and_blocks_are_the_rule_and_the_list() {
    let Some(gpu) = common::gpu() else { return };
    let mut plate = block_on(Plate::new(&gpu)).unwrap();
    let (n, m) = (131, 131);
    let rule = Rule::Window { radius: 3, dilation: 4, global: 2, causal: true };
    let list = BlockList::new(&rule, n, m, 16, 32);
    let mut kinds = vec![0u32; list.query_blocks() * list.key_blocks()];
    for q in 0..list.query_blocks() {
        for run in list.runs_of(0, q) {
            let at = q * list.key_blocks() + run.first as usize;
            kinds[at..at + run.count as usize].fill(1 + u32::from(run.full));
        }
    }
    assert!(kinds.contains(&0) && kinds.contains(&1));
    for [rows, columns] in viewports(n, m) {
        for mean in [false, true] {
            let scene =
                |content| Scene { content, n, m, head: HEAD, mean, listed: &[], rows: &rows, columns: &columns };
            let share = wanted(&rows, &columns, mean, |i, j| Some(f64::from(u8::from(rule.may(i, j, n, m)))));
            let got = show(&mut plate, &scene(Content::Pattern(rule.encode(n, m))));
            assert_same("pattern", &got, &share);
            let kind = |i: usize, j: usize| Some(0.5 * f64::from(kinds[i / 16 * list.key_blocks() + j / 32]));
            let blocks = Content::Visited { kinds: &kinds, block_q: 16, block_k: 32 };
            assert_same("visited", &show(&mut plate, &scene(blocks)), &wanted(&rows, &columns, false, kind));
        }
    }
}

#[test]
fn a_pattern_that_is_only_listed_is_drawn_from_its_blocks() {
    let Some(gpu) = common::gpu() else { return };
    let mut plate = block_on(Plate::new(&gpu)).unwrap();
    let (n, m) = (131, 121);
    let blocks: Vec<Vec<u32>> = (0..n as u32).step_by(7).map(|u| vec![(u * 5) % 11, (u * 3) % 7]).collect();
    for causal in [false, true] {
        let rule = Rule::Listed { list: Arc::new(BlockList::of_blocks(&blocks, n, m, 7, 11)), causal };
        let x = Matrix::random(5, Kind::Softmax, rule.clone(), n, m, 3);
        let factors = x.upload(&gpu);
        let listed = rule.bits(0);
        for [rows, columns] in viewports(n, m) {
            let scene = |content| Scene {
                content,
                n,
                m,
                head: HEAD,
                mean: true,
                listed: &listed,
                rows: &rows,
                columns: &columns,
            };
            let share = wanted(&rows, &columns, true, |i, j| Some(f64::from(u8::from(x.may(i, j)))));
            assert_same("pattern", &show(&mut plate, &scene(Content::Pattern(rule.encode(n, m)))), &share);
            let weight = wanted(&rows, &columns, true, |i, j| x.may(i, j).then(|| x.weight(i, j)));
            assert_same("weights", &show(&mut plate, &scene(Content::Weights(&factors))), &weight);
        }
    }
}

#[test]
fn a_long_picture_comes_coarse_first_and_then_in_tiles() {
    let Some(gpu) = common::gpu() else { return };
    let mut plate = block_on(Plate::new(&gpu)).unwrap();
    // So slow a device that everything must be cut.
    gpu.note_rate(1.0);
    let n = 300;
    let x = Matrix::random(9, Kind::Softmax, Rule::All { causal: true }, n, n, 128);
    let factors = x.upload(&gpu);
    let pixels = ranges(0.0, n as f64, 97, n);
    let content = Content::Weights(&factors);
    let scene = Scene { content, n, m: n, head: HEAD, mean: false, listed: &[], rows: &pixels, columns: &pixels };
    block_on(plate.set(&scene)).unwrap();
    let first = block_on(plate.step()).unwrap().unwrap();
    assert!(!first.exact, "{first:?}");
    let mut progress = first;
    while !progress.exact {
        // The coarse picture is that of the middle cells.
        progress = block_on(plate.step()).unwrap().unwrap();
    }
    assert!(progress.total > 4 && progress.done < progress.total, "{progress:?}");
    while let Some(next) = block_on(plate.step()).unwrap() {
        assert!(next.exact && next.done > progress.done);
        progress = next;
    }
    let weight = |i, j| x.may(i, j).then(|| x.weight(i, j));
    assert_same("tiles", &block_on(plate.values()).unwrap(), &wanted(&pixels, &pixels, false, weight));
    // Another scene may be set in the middle of one.
    block_on(plate.set(&scene)).unwrap();
    block_on(plate.step()).unwrap();
    let pattern = Content::Pattern(x.rule.encode(n, n));
    let got = show(&mut plate, &Scene { content: pattern, ..scene });
    assert!(got.iter().all(|v| *v == 0.0 || *v == 1.0));
}

#[test]
fn what_is_not_finite_is_counted_and_loud() {
    let Some(gpu) = common::gpu() else { return };
    let mut plate = block_on(Plate::new(&gpu)).unwrap();
    let n = 40;
    let mut x = Matrix::random(3, Kind::Softmax, Rule::All { causal: true }, n, n, 4);
    x.left[(HEAD * n + 7) * 4] = f32::NAN;
    let factors = x.upload(&gpu);
    let pixels = ranges(0.0, n as f64, n, n);
    let content = Content::Weights(&factors);
    let scene = Scene { content, n, m: n, head: HEAD, mean: false, listed: &[], rows: &pixels, columns: &pixels };
    let got = show(&mut plate, &scene);
    let loud: Vec<usize> = (0..n * n).filter(|&i| got[i].is_nan()).collect();
    assert_eq!(loud, (0..8).map(|j| 7 * n + j).collect::<Vec<_>>());
    let summary = block_on(plate.summary()).unwrap();
    let largest = got.iter().copied().filter(|v| v.is_finite()).fold(0.0, f32::max);
    assert_eq!((summary.largest, summary.non_finite), (largest, 8));

    let mut palette: Vec<[u8; 3]> = (0..=255).map(|i| [i, 10, 255 - i]).collect();
    palette.extend([[1, 2, 3], [4, 5, 6], [255, 0, 180]]);
    assert_eq!(palette.len(), PALETTE);
    for (scale, curve) in [(Scale::Linear, 1.0), (Scale::Sqrt, 0.5)] {
        let colours = Colours {
            palette: palette.clone(),
            scale,
            signed: false,
            top: summary.largest,
            floor: 1e-6,
            hatch: 6,
            hatch_zero: false,
        };
        let image = block_on(plate.image(&colours)).unwrap();
        assert_eq!(image.len(), n * n * 4);
        for (i, value) in got.iter().enumerate() {
            let rgb = &image[i * 4..i * 4 + 3];
            if value.is_nan() {
                assert_eq!(rgb, [255, 0, 180], "pixel {i}");
            } else if *value == f32::NEG_INFINITY {
                assert!(rgb == [1, 2, 3] || rgb == [4, 5, 6], "pixel {i}: {rgb:?}");
            } else {
                let level = f64::from(value / summary.largest).powf(curve) * 255.0;
                assert!((f64::from(rgb[0]) - level).abs() <= 0.6, "pixel {i}: {rgb:?}, wanted level {level}");
            }
        }
    }
}

/// The device's picture and the host's, of the same scene: one colour for every pixel.
#[test]
fn host_and_device_paint_the_same_picture() {
    let Some(gpu) = common::gpu() else { return };
    let mut plate = block_on(Plate::new(&gpu)).unwrap();
    let (n, m, rule) = (90, 90, Rule::Window { radius: 7, dilation: 1, global: 3, causal: true });
    let x = Matrix::random(21, Kind::Softmax, rule.clone(), n, m, 8);
    let y = Matrix::random(22, Kind::Softmax, Rule::All { causal: true }, n, m, 8);
    let (factors, other) = (x.upload(&gpu), y.upload(&gpu));
    let host = |a: &Matrix| matrix::Matrix {
        left: a.left.clone(),
        right: a.right.clone(),
        row: a.row.clone(),
        kind: EffectiveKind::Softmax,
        rule: a.rule.clone(),
        n,
        m,
        rank: a.rank,
    };
    let (on_host, full) = (host(&x), host(&y));
    let viewport = Viewport { row: 3.3, col: 1.7, rows: 71.0, cols: 64.5 };
    for view in [View::Mask, View::Scores, View::Weights, View::Difference] {
        for (pool, colour_scale, dark) in [(Pool::Max, lab::Scale::Sqrt, false), (Pool::Mean, lab::Scale::Log, true)] {
            let scene = picture::Scene {
                view,
                matrix: &on_host,
                full: Some(&full),
                blocks: None,
                head: HEAD,
                pool,
                scale: colour_scale,
                viewport,
                width: 49,
                height: 55,
                dark,
            };
            let mut raster = picture::Raster::exact(scene);
            while raster.step() {}
            let values = raster.finish();
            let want = picture::colour::paint(&values, view, colour_scale, dark);

            let content = match view {
                View::Mask => Content::Pattern(factors.mask),
                View::Scores => Content::Scores(&factors),
                View::Difference => Content::Difference(&factors, &other),
                _ => Content::Weights(&factors),
            };
            let (rows, columns) = (scene.area().rows(), scene.area().columns());
            let mean = pool == Pool::Mean;
            show(&mut plate, &Scene { content, n, m, head: HEAD, mean, listed: &[], rows: &rows, columns: &columns });
            let domain = picture::colour::domain(view, block_on(plate.summary()).unwrap().largest);
            let colours = picture::colour::on_device(view, colour_scale, dark, domain);
            let got = block_on(plate.image(&colours)).unwrap();
            assert_eq!(got.len(), want.len());
            let off = got.iter().zip(&want).filter(|&(a, b)| a.abs_diff(*b) > 3).count();
            assert_eq!(off, 0, "{view:?} {pool:?}: {off} of {} bytes differ", want.len());
        }
    }
}

#[test]
fn a_plate_gives_its_memory_back() {
    let Some(gpu) = common::gpu() else { return };
    let mut plate = block_on(Plate::new(&gpu)).unwrap();
    let pixels = ranges(0.0, 64.0, 64, 64);
    let content = Content::Pattern(Rule::All { causal: true }.encode(64, 64));
    let scene = Scene { content, n: 64, m: 64, head: 0, mean: false, listed: &[], rows: &pixels, columns: &pixels };
    show(&mut plate, &scene);
    let before = gpu.ledger().allocations();
    block_on(plate.set(&scene)).unwrap();
    block_on(plate.step()).unwrap();
    assert_eq!(gpu.ledger().allocations(), before, "a second picture of the same size allocates nothing");
    drop(plate);
    assert!(gpu.ledger().alive().is_empty(), "{:?}", gpu.ledger().alive());
}
