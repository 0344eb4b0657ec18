//! How a scene becomes dispatches: which kernel, in which tiles, with which uniforms.

use super::scene::{Content, Factors, Kind, Scene};
use crate::gpu::split::{Part, split};
use crate::gpu::{Gpu, Source, Step, replay};
use crate::pattern::LISTED;
use std::ops::Range;

/// Bins on each axis of a workgroup.
const BINS: u32 = 32;
/// Share of the longest dispatch that one step may take, so that a caller hears of messages soon.
const STEP_SHARE: f64 = 0.25;
pub(super) fn budget(gpu: &Gpu) -> u64 {
    (replay::budget(gpu) as f64 * STEP_SHARE) as u64
}

/// A step that names one of the kernels, for the pipeline cache.
pub(super) fn step_of(entry: &'static str) -> Step {
    Step {
        source: Source::Table("view/plate"),
        entry,
        consts: vec![],
        uniform: vec![],
        bindings: vec![],
        groups: [1; 3],
        label: entry.into(),
        stage: 0,
        flops: 0,
    }
}

pub(super) fn entry_of(content: &Content<'_>) -> &'static str {
    let in_fours = |f: &Factors| f.rank.is_multiple_of(4) && f.kind != Kind::Cells;
    match content {
        Content::Pattern(_) => "pattern",
        Content::Visited { .. } => "visited",
        Content::Scores(f) | Content::Weights(f) => {
            if in_fours(f) {
                "show4"
            } else {
                "show"
            }
        }
        Content::Difference(a, b) => {
            if in_fours(a) && in_fours(b) {
                "difference4"
            } else {
                "difference"
            }
        }
    }
}

/// How a scene is cut into dispatches: first the coarse ones.
pub(super) struct Tiling {
    pub parts: Vec<(Part, u64)>,
    pub coarse: usize,
}

impl Tiling {
    pub fn new(gpu: &Gpu, scene: &Scene<'_>, entry: &str, rows: &[Range<usize>], columns: &[Range<usize>]) -> Self {
        let bins = if entry == "visited" { 8 } else { BINS };
        let groups = [(columns.len() as u32).div_ceil(bins), (rows.len() as u32).div_ceil(bins), 1];
        let product = |f: &Factors| if f.kind == Kind::Cells { 1 } else { 2 * f.rank };
        let per_cell = match scene.content {
            Content::Pattern(_) | Content::Visited { .. } => 8,
            Content::Scores(f) | Content::Weights(f) => product(f) + 16,
            Content::Difference(a, b) => product(a) + product(b) + 32,
        };
        let bins = u64::from(groups[0]) * u64::from(groups[1]) * u64::from(bins * bins);
        let cells = (most(rows) * most(columns)) as u64;
        let flops = |cells: u64| bins * cells * per_cell as u64;
        let budget = budget(gpu);
        let cut = |flops: u64| {
            let parts = split(groups, flops, gpu.caps().max_groups_per_axis, budget);
            let each = flops / parts.len().max(1) as u64;
            parts.into_iter().map(move |part| (part, each))
        };
        let mut parts = Vec::new();
        if cells > 1 && flops(cells) > budget {
            parts.extend(cut(flops(1)));
        }
        let coarse = parts.len();
        parts.extend(cut(flops(cells)));
        Self { parts, coarse }
    }

    /// The uniform struct of every part, `align` bytes apart, and one for the summary.
    pub fn uniforms(
        &self,
        scene: &Scene<'_>,
        rows: &[Range<usize>],
        columns: &[Range<usize>],
        align: usize,
    ) -> Vec<u8> {
        let (what, mut mask, a, b) = match scene.content {
            Content::Pattern(mask) => (0, mask, None, None),
            Content::Visited { .. } => (0, [0; 8], None, None),
            Content::Scores(f) => (0, f.mask, Some(f), None),
            Content::Weights(f) => (1, f.mask, Some(f), None),
            Content::Difference(a, b) => (1, a.mask, Some(a), Some(b)),
        };
        if mask[0] == LISTED {
            // Its bits lie behind the ranges.
            mask[4] = 2 * (rows.len() + columns.len()) as u32;
        }
        let (block_q, block_k) = match scene.content {
            Content::Visited { block_q, block_k, .. } => (block_q, block_k),
            _ => (1, 1),
        };
        let kind = |f: Option<&Factors>| f.map_or(0, |f| f.kind.encode());
        let rank = |f: Option<&Factors>| f.map_or(0, |f| f.rank as u32);
        let whole = (Part { origin: [0; 3], groups: [0; 3] }, 0);
        let mut bytes = Vec::with_capacity((self.parts.len() + 1) * align);
        for (index, (part, _)) in self.parts.iter().chain([&whole]).enumerate() {
            let coarse = index < self.coarse;
            let [x, y, z] = part.origin;
            let (most_rows, most_columns) = if coarse { (1, 1) } else { (most(rows), most(columns)) };
            let mut words = vec![x, y, z, 0];
            words.extend([scene.n as u32, scene.m as u32, scene.head as u32, coarse.into()]);
            words.extend([rows.len() as u32, columns.len() as u32, most_rows as u32, most_columns as u32]);
            words.extend([what, scene.mean.into(), kind(a), kind(b)]);
            words.extend([rank(a), rank(b), block_q as u32, block_k as u32]);
            words.extend(mask);
            words.extend(b.map_or([0; 8], |f| f.mask));
            words.push(scene.m.div_ceil(block_k) as u32);
            bytes.extend_from_slice(bytemuck::cast_slice(&words));
            bytes.resize((index + 1) * align, 0);
        }
        bytes
    }
}

/// Most cells in one range.
fn most(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(Range::len).max().unwrap_or(0)
}

/// Ranges without equal neighbours, and for each pixel which of them it shows.
pub(super) fn distinct(ranges: &[Range<usize>]) -> (Vec<Range<usize>>, Vec<u32>) {
    let mut bins: Vec<Range<usize>> = Vec::new();
    let mut bin_of = Vec::with_capacity(ranges.len());
    for range in ranges {
        if bins.last() != Some(range) {
            bins.push(range.clone());
        }
        bin_of.push(bins.len() as u32 - 1);
    }
    (bins, bin_of)
}
