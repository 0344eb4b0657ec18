//! From cells to one value for each pixel, in bands of rows so that a caller can look for messages in between.

use super::super::experiment::{Pool, View};
use super::super::matrix::{Columns, Matrix};
use super::{ABSENT, Scene};
use crate::attention::EffectiveKind;
use std::ops::Range;

/// Rows whose products are computed together: enough that the keys are not read anew from memory for each.
const TOGETHER: usize = 16;

/// How many lines of pixels ahead such rows are looked for.
const MOST_LINES: usize = 64;

/// One value for each pixel, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    pub width: usize,
    pub cells: Vec<f32>,
    /// 0 to 1, or symmetric around 0 for signed views.
    pub domain: [f64; 2],
    /// The largest size of a finite value.
    pub largest: f64,
    pub non_finite: u64,
}

/// A picture being computed, one band of pixel rows at a time.
pub struct Raster<'a> {
    scene: Scene<'a>,
    rows: Vec<Range<usize>>,
    columns: Vec<Range<usize>>,
    values: Vec<f32>,
    next: usize,
    products: Products,
    full_products: Products,
}

/// Products of some neighbouring rows of a matrix with the columns under the viewport.
#[derive(Default)]
struct Products {
    rows: Range<usize>,
    values: Vec<f32>,
}

impl Products {
    /// Those of row `i`; where they are not at hand, they are computed with the rows up to `end`.
    fn row(&mut self, matrix: &Matrix, head: usize, i: usize, end: usize, columns: Columns) -> &[f32] {
        if !self.rows.contains(&i) {
            self.rows = i..end;
            self.values.resize(self.rows.len() * columns.count, 0.0);
            matrix.products(head, self.rows.clone(), columns, &mut self.values);
        }
        &self.values[(i - self.rows.start) * columns.count..][..columns.count]
    }
}

impl<'a> Raster<'a> {
    /// Every cell under each pixel takes part.
    pub fn exact(scene: Scene<'a>) -> Self {
        let (rows, columns) = (scene.area().rows(), scene.area().columns());
        let values = vec![ABSENT; scene.width * scene.height];
        let (products, full_products) = Default::default();
        Self { scene, rows, columns, values, next: 0, products, full_products }
    }

    /// One cell stands for all under a pixel.
    pub fn coarse(scene: Scene<'a>) -> Self {
        let mut raster = Self::exact(scene);
        for range in raster.rows.iter_mut().chain(&mut raster.columns) {
            let middle = range.start + range.len() / 2;
            *range = middle..middle + 1;
        }
        raster
    }

    /// Whether the exact picture is the coarse one, as when no pixel holds more than one cell.
    pub fn is_cheap(&self) -> bool {
        self.cells() <= 1 << 20
    }

    /// Cells that take part.
    fn cells(&self) -> usize {
        let rows: usize = distinct(&self.rows).map(|(range, _)| range.len()).sum();
        let columns: usize = distinct(&self.columns).map(|(range, _)| range.len()).sum();
        rows * columns
    }

    /// Computes the next band; false when the picture is complete.
    pub fn step(&mut self) -> bool {
        let Some(range) = self.rows.get(self.next).cloned() else { return false };
        let width = self.scene.width;
        let line = self.line(range.clone());
        // Zoomed in, neighbouring pixel rows show the same cells.
        while self.rows.get(self.next) == Some(&range) {
            self.values[self.next * width..(self.next + 1) * width].copy_from_slice(&line);
            self.next += 1;
        }
        self.next < self.rows.len()
    }

    /// The picture; what was not computed is absent.
    pub fn finish(self) -> Values {
        let non_finite = self.values.iter().filter(|x| !x.is_finite() && **x != ABSENT).count() as u64;
        let largest = self.values.iter().filter(|x| x.is_finite()).fold(0.0f32, |a, x| a.max(x.abs()));
        let domain = super::colour::domain(self.scene.view, largest);
        Values { width: self.scene.width, cells: self.values, domain, largest: f64::from(largest), non_finite }
    }

    /// One line of pixels over these rows of cells.
    fn line(&mut self, rows: Range<usize>) -> Vec<f32> {
        match self.scene.view {
            View::Blocks => self.block_line(rows),
            View::Mask => self.cell_line(rows, |cells| {
                let may = cells.filter(|(i, j)| self.scene.matrix.may(self.scene.head, *i, *j)).count();
                may as f32
            }),
            _ => self.value_line(rows),
        }
    }

    /// A line of shares or presences: `count` says how many cells of a pixel are set.
    fn cell_line(
        &self,
        rows: Range<usize>,
        count: impl Fn(&mut dyn Iterator<Item = (usize, usize)>) -> f32,
    ) -> Vec<f32> {
        let pixel = |columns: &Range<usize>| {
            let size = (rows.len() * columns.len()) as f32;
            let mut cells = rows.clone().flat_map(|i| columns.clone().map(move |j| (i, j)));
            let set = count(&mut cells);
            match self.scene.pool {
                Pool::Max => f32::from(set > 0.0),
                Pool::Mean => set / size,
            }
        };
        let mut line = Vec::with_capacity(self.columns.len());
        for (range, times) in distinct(&self.columns) {
            line.extend(std::iter::repeat_n(pixel(range), times));
        }
        line
    }

    /// 1 for full blocks, 1/2 for partial ones, 0 for absent ones; full where the method has no block list.
    fn block_line(&self, rows: Range<usize>) -> Vec<f32> {
        let Some(blocks) = self.scene.blocks else { return vec![1.0; self.columns.len()] };
        let query_blocks = rows.start / blocks.block_q..(rows.end - 1) / blocks.block_q + 1;
        let mut kinds = vec![0.0f32; blocks.key_blocks()];
        for query_block in query_blocks {
            for run in blocks.runs_of(self.scene.head, query_block) {
                let value = if run.full { 1.0 } else { 0.5 };
                for kind in &mut kinds[run.first as usize..(run.first + run.count) as usize] {
                    *kind = kind.max(value);
                }
            }
        }
        let pixel = |columns: &Range<usize>| {
            let range = columns.start / blocks.block_k..(columns.end - 1) / blocks.block_k + 1;
            kinds[range].iter().fold(0.0f32, |a, &b| a.max(b))
        };
        self.columns.iter().map(pixel).collect()
    }

    /// Weights, scores or differences.
    fn value_line(&mut self, rows: Range<usize>) -> Vec<f32> {
        let Scene { head, matrix, full, view, .. } = self.scene;
        let columns = self.span();
        let full = full.filter(|_| view == View::Difference);
        let mut pooled = Pooled::new(distinct(&self.columns).count(), self.scene.pool);
        let (mut products, mut full_products) =
            (std::mem::take(&mut self.products), std::mem::take(&mut self.full_products));
        for i in rows {
            let end = self.last_needed(i);
            let own = products.row(matrix, head, i, end, columns);
            let full = full.map(|full| (full, full_products.row(full, head, i, end, columns)));
            self.row(i, columns, own, full, &mut pooled);
        }
        (self.products, self.full_products) = (products, full_products);
        let mut line = Vec::with_capacity(self.columns.len());
        for (value, (_, times)) in pooled.finish().into_iter().zip(distinct(&self.columns)) {
            line.extend(std::iter::repeat_n(value, times));
        }
        line
    }

    /// The end of the rows that follow `i` without a gap and are drawn too, a few at most.
    fn last_needed(&self, i: usize) -> usize {
        let follows = |end: usize, range: &Range<usize>| if range.start <= end { end.max(range.end) } else { end };
        let ahead = &self.rows[self.next..(self.next + MOST_LINES).min(self.rows.len())];
        ahead.iter().fold(i + 1, follows).min(i + TOGETHER)
    }

    /// Adds the cells of row `i` to the pixels.
    fn row(&self, i: usize, columns: Columns, products: &[f32], full: Option<(&Matrix, &[f32])>, pooled: &mut Pooled) {
        let scene = &self.scene;
        let x = scene.matrix;
        // The largest weight of a softmax row belongs to the largest score: one exponential for each pixel, not each cell.
        let by_score = scene.view == View::Weights && scene.pool == Pool::Max && x.kind == EffectiveKind::Softmax;
        for (pixel, (range, _)) in distinct(&self.columns).enumerate() {
            let mut largest = ABSENT;
            for j in range.clone() {
                let product = products[j - columns.first];
                let may = x.may(scene.head, i, j);
                match (scene.view, full) {
                    (View::Difference, Some((full, full_products))) => {
                        let mine = if may { x.weight(scene.head, i, j, product) } else { 0.0 };
                        let its = full_products[j - columns.first];
                        let its = if full.may(scene.head, i, j) { full.weight(scene.head, i, j, its) } else { 0.0 };
                        pooled.add(pixel, mine - its);
                    }
                    _ if !may => {}
                    (View::Scores, _) => pooled.add(pixel, product),
                    _ if by_score && (product > largest || product.is_nan()) => largest = product,
                    _ if by_score => {}
                    _ => pooled.add(pixel, x.weight(scene.head, i, j, product)),
                }
            }
            if by_score && largest != ABSENT {
                pooled.add(pixel, x.weight(scene.head, i, range.start, largest));
            }
        }
    }

    /// The columns under the viewport.
    fn span(&self) -> Columns {
        let (first, last) = match (self.columns.first(), self.columns.last()) {
            (Some(a), Some(b)) => (a.start, b.end),
            _ => return Columns { first: 0, count: 0, step: 1 },
        };
        Columns { first, count: last - first, step: 1 }
    }
}

/// Runs of equal neighbours, and how many there are.
fn distinct(ranges: &[Range<usize>]) -> impl Iterator<Item = (&Range<usize>, usize)> {
    ranges.chunk_by(|a, b| a == b).map(|run| (&run[0], run.len()))
}

/// Pixels that collect values: the largest by size, or the mean.
struct Pooled {
    pool: Pool,
    values: Vec<f32>,
    counts: Vec<u32>,
}

impl Pooled {
    fn new(pixels: usize, pool: Pool) -> Self {
        Self { pool, values: vec![0.0; pixels], counts: vec![0; pixels] }
    }

    fn add(&mut self, pixel: usize, x: f32) {
        let value = &mut self.values[pixel];
        *value = match self.pool {
            Pool::Mean => *value + x,
            // NaN wins, so that it is seen.
            Pool::Max if value.is_nan() || (!x.is_nan() && x.abs() <= value.abs()) => *value,
            Pool::Max => x,
        };
        self.counts[pixel] += 1;
    }

    /// The mean is over the cells that the pattern allows.
    fn finish(self) -> Vec<f32> {
        let one = |(&x, &count): (&f32, &u32)| match (count, self.pool) {
            (0, _) => ABSENT,
            (_, Pool::Max) => x,
            (count, Pool::Mean) => x / count as f32,
        };
        self.values.iter().zip(&self.counts).map(one).collect()
    }
}

#[cfg(test)]
mod tests;
