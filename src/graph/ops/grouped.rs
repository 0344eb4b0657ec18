//! Products of rows with the table of the group that each row belongs to: what a gather of whole tables for every row would
//! give, without the copies.
//!
//! With rows x `[T, N, D]`, groups' tables `[T, C, K, D]`, weights w `[T, N, K]` and a group number for each row: `dot` gives
//! `y[n, s] = x[n] · table[group(n), s]`, `mix` gives `y[n] = Σ_s w[n, s] table[group(n), s]`, `outer` gives
//! `y[c, s] = Σ over rows n of group c of w[n, s] x[n]`. Each one's gradients are the other two. A row whose number is beyond the
//! last group has none: zeros.

use super::kernel::{invocations, uniform, vec4};
use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot, TensorType,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// x, table, groups.
    Dot,
    /// w, table, groups.
    Mix,
    /// w, x, groups and their order.
    Outer { count: usize },
}

#[derive(Clone, Debug, PartialEq)]
struct Grouped {
    kind: Kind,
}

struct Sizes {
    total: usize,
    rows: usize,
    groups: usize,
    slots: usize,
    len: usize,
}

impl Grouped {
    fn sizes(&self, inputs: &[&TensorType]) -> Result<Sizes, ShapeError> {
        let sizes = match (self.kind, &inputs[0].shape[..], &inputs[1].shape[..]) {
            (Kind::Dot, &[total, rows, len], &[same, groups, slots, width]) if (total, len) == (same, width) => {
                Sizes { total, rows, groups, slots, len }
            }
            (Kind::Mix, &[total, rows, slots], &[same, groups, count, len]) if (total, slots) == (same, count) => {
                Sizes { total, rows, groups, slots, len }
            }
            (Kind::Outer { count }, &[total, rows, slots], &[same, same_rows, len])
                if (total, rows) == (same, same_rows) =>
            {
                Sizes { total, rows, groups: count, slots, len }
            }
            _ => return Err(ShapeError(format!("{inputs:?} do not fit {:?}", self.kind))),
        };
        if inputs[2..].iter().all(|t| **t == TensorType::u32(&[sizes.total, sizes.rows])) {
            Ok(sizes)
        } else {
            Err(ShapeError(format!("{:?} is not one group for each row", &inputs[2..])))
        }
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let types: Vec<&TensorType> = inputs.iter().map(|(ty, _)| *ty).collect();
        let Ok(s) = self.sizes(&types) else { unreachable!("checked by the shape rule") };
        let (a, b, groups) = (inputs[0].1.real(), inputs[1].1.real(), inputs[2].1.index());
        let mut y = vec![R::zero(); outputs[0].len()];
        for (row, &group) in groups.iter().enumerate() {
            let group = group as usize;
            if group >= s.groups {
                continue;
            }
            for slot in 0..s.slots {
                let at = ((row / s.rows * s.groups + group) * s.slots + slot) * s.len;
                let (narrow, wide) = (row * s.slots + slot, row * s.len);
                for d in 0..s.len {
                    match self.kind {
                        Kind::Dot => y[narrow] += a[wide + d] * b[at + d],
                        Kind::Mix => y[wide + d] += a[narrow] * b[at + d],
                        Kind::Outer { .. } => y[at + d] += a[narrow] * b[wide + d],
                    }
                }
            }
        }
        vec![Data::Real(y)]
    }
}

impl Op for Grouped {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Dot => "grouped_dot",
            Kind::Mix => "grouped_mix",
            Kind::Outer { .. } => "grouped_outer",
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let s = self.sizes(inputs)?;
        Ok(vec![TensorType::f32(&match self.kind {
            Kind::Dot => vec![s.total, s.rows, s.slots],
            Kind::Mix => vec![s.total, s.rows, s.len],
            Kind::Outer { .. } => vec![s.total, s.groups, s.slots, s.len],
        })])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = self.sizes(inputs).map_or(0, |s| 2 * s.total * s.rows * s.slots * s.len);
        Cost::streaming(flops as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let (a, table, groups, d) = (c.inputs[0], c.inputs[1], c.inputs[2], c.douts[0].expect("the only output"));
        let count = g.shape(table)[1];
        match self.kind {
            Kind::Dot => {
                let da = g.grouped_mix(d, table, groups);
                vec![Some(da), Some(g.grouped_outer(d, a, groups, count)), None]
            }
            Kind::Mix => {
                let da = g.grouped_dot(d, table, groups);
                vec![Some(da), Some(g.grouped_outer(a, d, groups, count)), None]
            }
            Kind::Outer { .. } => {
                let (w, x) = (a, table);
                let dw = g.grouped_dot(x, d, groups);
                vec![Some(dw), Some(g.grouped_mix(w, d, groups)), None, None]
            }
        }
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let Ok(s) = self.sizes(inputs) else { unreachable!("checked by the shape rule") };
        let fours = vec4(s.len);
        let name = |one, four| if fours { four } else { one };
        let (x, table, y) = (name("x", "x4"), name("table", "table4"), name("y", "y4"));
        let groups = ("groups", Slot::In(2));
        let (entry, bindings) = match self.kind {
            Kind::Dot => {
                (name("dot_one", "dot_four"), vec![(x, Slot::In(0)), (table, Slot::In(1)), groups, ("y", Slot::Out(0))])
            }
            Kind::Mix => {
                (name("mix_one", "mix_four"), vec![("w", Slot::In(0)), (table, Slot::In(1)), groups, (y, Slot::Out(0))])
            }
            Kind::Outer { .. } => (
                name("outer_one", "outer_four"),
                vec![("w", Slot::In(0)), (x, Slot::In(1)), groups, ("order", Slot::In(3)), (y, Slot::Out(0))],
            ),
        };
        let each = if fours && self.kind != Kind::Dot { 4 } else { 1 };
        Lowered {
            dispatches: vec![Dispatch {
                source: Source::Table("ops/grouped"),
                entry,
                consts: vec![],
                uniform: uniform(&[s.total, s.rows, s.groups, s.slots, s.len].map(|x| x as u32)),
                bindings,
                groups: invocations(outputs[0].len() / each),
                flops: self.cost(inputs, outputs).flops,
            }],
            scratch: vec![],
        }
    }
}

impl Graph {
    /// `y[t, n, s] = x[t, n] · table[t, groups[t, n], s]`: x `[T, N, D]`, table `[T, C, K, D]`, groups u32 `[T, N]`; `[T, N, K]`.
    pub fn grouped_dot(&mut self, x: Node, table: Node, groups: Node) -> Node {
        self.apply1(Grouped { kind: Kind::Dot }, &[x, table, groups])
    }

    /// `y[t, n] = Σ_s w[t, n, s] table[t, groups[t, n], s]`: w `[T, N, K]`, table `[T, C, K, D]`; `[T, N, D]`.
    pub fn grouped_mix(&mut self, w: Node, table: Node, groups: Node) -> Node {
        self.apply1(Grouped { kind: Kind::Mix }, &[w, table, groups])
    }

    /// `y[t, c, s] = Σ w[t, n, s] x[t, n]` over the rows n of group c, in their order: w `[T, N, K]`, x `[T, N, D]`;
    /// `[T, count, K, D]`.
    pub fn grouped_outer(&mut self, w: Node, x: Node, groups: Node, count: usize) -> Node {
        let order = self.argsort(groups, false);
        self.apply1(Grouped { kind: Kind::Outer { count } }, &[w, x, groups, order])
    }
}
