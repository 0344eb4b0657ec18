//! Cumulative sum over an axis, from either end, with or without the element itself.

use super::kernel::{invocations, uniform};
use crate::gpu::Source;
use crate::graph::layout::split;
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};

/// Columns and parts that keep a device busy: below that, a long axis is cut.
const BUSY_SOFTWARE: usize = 256;
const BUSY_GPU: usize = 8192;

#[derive(Clone, Debug, PartialEq)]
struct Cumsum {
    axis: usize,
    reverse: bool,
    exclusive: bool,
}

impl Cumsum {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let [outer, middle, inner] = split(&inputs[0].0.shape, self.axis, self.axis + 1);
        let x = inputs[0].1.real();
        let mut y = vec![R::zero(); x.len()];
        for o in 0..outer {
            let mut total = vec![R::zero(); inner];
            for t in 0..middle {
                let m = if self.reverse { middle - 1 - t } else { t };
                let at = (o * middle + m) * inner;
                for (i, total) in total.iter_mut().enumerate() {
                    let before = *total;
                    *total += x[at + i];
                    y[at + i] = if self.exclusive { before } else { *total };
                }
            }
        }
        vec![Data::Real(y)]
    }
}

impl Op for Cumsum {
    fn name(&self) -> &'static str {
        "cumsum"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        if inputs[0].dtype != Dtype::F32 || self.axis >= inputs[0].shape.len() {
            return Err(ShapeError(format!("axis {} of {:?}", self.axis, inputs[0])));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let back = Self { reverse: !self.reverse, ..*self };
        vec![c.douts[0].map(|d| g.apply1(back, &[d]))]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let [outer, middle, inner] = split(&inputs[0].shape, self.axis, self.axis + 1);
        let busy = if context.software { BUSY_SOFTWARE } else { BUSY_GPU };
        let parts = (busy / (outer * inner)).clamp(1, middle.isqrt());
        let chunk = middle.div_ceil(parts);
        let parts = middle.div_ceil(chunk);
        let words = [outer, middle, inner, chunk, parts, self.reverse as usize, self.exclusive as usize];
        let dispatch = |entry, bindings: &[(&'static str, Slot)]| Dispatch {
            source: Source::Table("ops/cumsum"),
            entry,
            consts: vec![],
            uniform: uniform(&words.map(|w| w as u32)),
            bindings: bindings.to_vec(),
            groups: invocations(outer * parts * inner),
            flops: inputs[0].len() as u64,
        };
        let (x, y) = (("x", Slot::In(0)), ("y", Slot::Out(0)));
        if parts == 1 {
            return Lowered { dispatches: vec![dispatch("forward", &[x, y])], scratch: vec![] };
        }
        Lowered {
            dispatches: vec![
                dispatch("totals", &[x, ("sums", Slot::Scratch(0))]),
                dispatch("forward_parts", &[x, ("part_sums", Slot::Scratch(0)), y]),
            ],
            scratch: vec![(outer * parts * inner * 4) as u64],
        }
    }
}

impl Graph {
    /// Sums of the elements up to and with each one along `axis`; `reverse` sums from the end, `exclusive` leaves the
    /// element itself out.
    pub fn cumsum(&mut self, x: Node, axis: usize, reverse: bool, exclusive: bool) -> Node {
        self.apply1(Cumsum { axis, reverse, exclusive }, &[x])
    }
}
