//! Sums, means and maxima over axes.
//!
//! One op reduces a range of neighbouring axes, so that its input is a `[outer, middle, inner]`; any other set of axes is
//! made of several. A long middle over few results is cut into parts, reduced apart and then together, always in the same
//! order.

use crate::gpu::Source;
use crate::graph::layout::split;
use crate::graph::ops::kernel::{invocations, shares_rows, uniform, vec4};
use crate::graph::{
    BinaryKind, Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError,
    Slot, TensorType,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceKind {
    Sum,
    Max,
}

/// Reduces the axes `from..to` and drops them from the shape; a sum is then multiplied by `scale`.
#[derive(Clone, Debug, PartialEq)]
struct Reduce {
    kind: ReduceKind,
    from: usize,
    to: usize,
    scale: f64,
}

/// Partial results that a device is kept busy by: below that, a long reduction is cut.
const BUSY_SOFTWARE: usize = 512;
const BUSY_GPU: usize = 16384;
/// Elements of a part at least.
const SHORTEST_PART: usize = 64;

impl Reduce {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let x = inputs[0].1.real();
        let [outer, middle, inner] = split(&inputs[0].0.shape, self.from, self.to);
        let mut y = Vec::with_capacity(outer * inner);
        for block in x.chunks_exact(middle * inner).take(outer) {
            let first = y.len();
            if inner == 1 {
                y.push(self.reduce_row(block));
            } else {
                y.extend_from_slice(&block[..inner]);
                for row in block.chunks_exact(inner).skip(1) {
                    for (y, &x) in y[first..].iter_mut().zip(row) {
                        *y = self.combine(*y, x);
                    }
                }
            }
        }
        if self.scale != 1.0 {
            y.iter_mut().for_each(|y| *y = *y * R::from_f64(self.scale));
        }
        vec![Data::Real(y)]
    }

    fn combine<R: Real>(&self, a: R, b: R) -> R {
        match self.kind {
            ReduceKind::Sum => a + b,
            ReduceKind::Max => a.maximum(b),
        }
    }

    /// Eight running results, so that sums of long rows stay exact and quick in f32.
    fn reduce_row<R: Real>(&self, row: &[R]) -> R {
        if row.len() < 16 {
            return row[1..].iter().fold(row[0], |a, &b| self.combine(a, b));
        }
        let mut lanes: [R; 8] = std::array::from_fn(|i| row[i]);
        let chunks = row[8..].chunks_exact(8);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = self.combine(*lane, x);
            }
        }
        lanes.iter().chain(rest).skip(1).fold(lanes[0], |a, &b| self.combine(a, b))
    }

    /// One pass: `[outer, middle, inner]` to `[outer, parts, inner]`.
    fn pass(&self, context: &LowerContext, p: &Pass, from: Slot, to: Slot) -> Dispatch {
        let groups_pay = p.inner == 1 && shares_rows(context, p.chunk);
        let partials = p.outer * p.parts;
        let (entry, bindings, groups) = if groups_pay {
            ("forward_groups", [("x", from), ("y", to)], [partials as u32, 1, 1])
        } else if p.inner == 1 && vec4(p.middle) && vec4(p.chunk) {
            ("forward_row4", [("x4", from), ("y", to)], invocations(partials))
        } else if vec4(p.inner) {
            ("forward_columns4", [("x4", from), ("y4", to)], invocations(partials * p.inner / 4))
        } else {
            ("forward_columns", [("x", from), ("y", to)], invocations(partials * p.inner))
        };
        let is_max = (self.kind == ReduceKind::Max) as u32;
        let scale = (p.scale as f32).to_bits();
        Dispatch {
            source: Source::Table("ops/reduce"),
            entry,
            consts: vec![],
            uniform: uniform(&[
                p.outer as u32,
                p.middle as u32,
                p.inner as u32,
                p.chunk as u32,
                p.parts as u32,
                is_max,
                scale,
            ]),
            bindings: bindings.into(),
            groups,
            flops: (p.outer * p.middle * p.inner) as u64,
        }
    }
}

struct Pass {
    outer: usize,
    middle: usize,
    inner: usize,
    /// Elements of the middle in one part.
    chunk: usize,
    parts: usize,
    scale: f64,
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "sum",
            ReduceKind::Max => "max",
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        if inputs[0].dtype != Dtype::F32 || self.from >= self.to || self.to > inputs[0].shape.len() {
            return Err(ShapeError(format!("axes {}..{} of {:?}", self.from, self.to, inputs[0])));
        }
        let mut shape = inputs[0].shape.clone();
        shape.drain(self.from..self.to);
        Ok(vec![TensorType::f32(&shape)])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let x = c.inputs[0];
        let shape = g.shape(x).to_vec();
        let mut kept = shape.clone();
        kept[self.from..self.to].fill(1);
        let d = g.reshape(c.douts[0].expect("the only output"), &kept);
        vec![Some(match self.kind {
            ReduceKind::Sum => {
                let d = g.scale(d, self.scale);
                g.broadcast_to(d, &shape)
            }
            // Equal maxima share the gradient.
            ReduceKind::Max => {
                let y = g.reshape(c.outputs[0], &kept);
                let hit = g.binary(BinaryKind::Equal, x, y);
                let axes: Vec<usize> = (self.from..self.to).collect();
                let hits = g.sum(hit, &axes, true);
                let share = g.div(d, hits);
                g.mul(hit, share)
            }
        })]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let [outer, middle, inner] = split(&inputs[0].shape, self.from, self.to);
        let busy = if context.software { BUSY_SOFTWARE } else { BUSY_GPU };
        let wanted = (busy / (outer * inner)).clamp(1, middle.div_ceil(SHORTEST_PART));
        let chunk = middle.div_ceil(wanted).next_multiple_of(4);
        let parts = middle.div_ceil(chunk);
        let once = Pass { outer, middle, inner, chunk, parts, scale: self.scale };
        if parts == 1 {
            return Lowered { dispatches: vec![self.pass(context, &once, Slot::In(0), Slot::Out(0))], scratch: vec![] };
        }
        let first = Pass { scale: 1.0, ..once };
        let second = Pass { outer, middle: parts, inner, chunk: parts, parts: 1, scale: self.scale };
        Lowered {
            dispatches: vec![
                self.pass(context, &first, Slot::In(0), Slot::Scratch(0)),
                self.pass(context, &second, Slot::Scratch(0), Slot::Out(0)),
            ],
            scratch: vec![(outer * parts * inner * 4) as u64],
        }
    }
}

impl Graph {
    /// Reduces any set of axes; `keepdim` leaves them in the shape with size 1. The result of f16 is f32.
    fn reduce(&mut self, x: Node, kind: ReduceKind, axes: &[usize], keepdim: bool, scale: f64) -> Node {
        let shape = self.shape(x).to_vec();
        let reduced = |axis: usize| axes.contains(&axis);
        let mut y = if self.ty(x).dtype == Dtype::F16 { self.cast(x, Dtype::F32) } else { x };
        let mut scale = scale;
        // From the last axis down, so that the axes in front keep their numbers. Axes of size 1 join any range.
        let mut to = shape.len();
        while to > 0 {
            if !reduced(to - 1) {
                to -= 1;
                continue;
            }
            let mut from = to - 1;
            while from > 0 && reduced(from - 1) {
                from -= 1;
            }
            y = self.apply1(Reduce { kind, from, to, scale }, &[y]);
            scale = 1.0;
            to = from;
        }
        let kept = shape.iter().enumerate().filter(|(axis, _)| keepdim || !reduced(*axis));
        let result: Vec<usize> = kept.map(|(axis, &n)| if reduced(axis) { 1 } else { n }).collect();
        self.reshape(y, &result)
    }

    /// Sum over `axes`.
    pub fn sum(&mut self, x: Node, axes: &[usize], keepdim: bool) -> Node {
        self.reduce(x, ReduceKind::Sum, axes, keepdim, 1.0)
    }

    /// Mean over `axes`.
    pub fn mean(&mut self, x: Node, axes: &[usize], keepdim: bool) -> Node {
        let count: usize = axes.iter().map(|&axis| self.shape(x)[axis]).product();
        self.reduce(x, ReduceKind::Sum, axes, keepdim, 1.0 / count as f64)
    }

    /// Largest element over `axes`; NaN where there is one.
    pub fn max(&mut self, x: Node, axes: &[usize], keepdim: bool) -> Node {
        self.reduce(x, ReduceKind::Max, axes, keepdim, 1.0)
    }

    /// Sum of all elements, of shape `[]`.
    pub fn sum_all(&mut self, x: Node) -> Node {
        let axes: Vec<usize> = (0..self.shape(x).len()).collect();
        self.sum(x, &axes, false)
    }

    /// Sums `x` over the axes along which a tensor of `shape` is repeated to get `x`'s: the gradient of broadcasting.
    pub fn sum_to(&mut self, x: Node, shape: &[usize]) -> Node {
        let full = self.shape(x).to_vec();
        let missing = full.len() - shape.len();
        let axes: Vec<usize> =
            (0..full.len()).filter(|&a| a < missing || (shape[a - missing] == 1 && full[a] != 1)).collect();
        let dtype = self.ty(x).dtype;
        let y = if axes.is_empty() { x } else { self.sum(x, &axes, false) };
        let y = self.cast(y, dtype);
        self.reshape(y, shape)
    }
}
