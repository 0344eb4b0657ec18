//! Rows of a table by their numbers, and its transpose: the sum of rows into a table.
//!
//! The sum sorts the numbers first, then every element of the table adds up its own rows in their order: no atomics, so
//! that runs repeat bit for bit.

use super::kernel::{invocations, uniform, vec4};
use crate::gpu::Source;
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};

/// table `[batch, rows, len]`, index `[batch, picks]` to `[batch, picks, len]`.
#[derive(Clone, Debug, PartialEq)]
struct Gather {
    /// A number beyond the last row gives zeros and not NaN.
    forgiving: bool,
}

/// updates `[batch, picks, len]`, index and its order `[batch, picks]` to `[batch, rows, len]`.
#[derive(Clone, Debug, PartialEq)]
struct ScatterAdd {
    rows: usize,
}

/// Sizes of one of the two ops.
struct Sizes {
    batch: usize,
    picks: usize,
    rows: usize,
    len: usize,
}

impl Sizes {
    fn dispatch(
        &self,
        entry: &'static str,
        missing: u32,
        bindings: Vec<(&'static str, Slot)>,
        count: usize,
    ) -> Lowered {
        let words = [self.batch, self.picks, self.rows, self.len].map(|n| n as u32);
        Lowered {
            dispatches: vec![Dispatch {
                source: Source::Table("ops/gather"),
                entry,
                consts: vec![],
                uniform: uniform(&[words[0], words[1], words[2], words[3], missing]),
                bindings,
                groups: invocations(count),
                flops: (self.batch * self.picks * self.len) as u64,
            }],
            scratch: vec![],
        }
    }
}

impl Gather {
    fn sizes(&self, inputs: &[&TensorType]) -> Sizes {
        let [batch, rows, len] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        Sizes { batch, picks: inputs[1].shape[1], rows, len }
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let s = self.sizes(&[inputs[0].0, inputs[1].0]);
        fn pick<T: Copy>(s: &Sizes, x: &[T], index: &[u32], missing: T, total: usize) -> Vec<T> {
            let mut y = Vec::with_capacity(total);
            for (pick, &row) in index.iter().enumerate() {
                if (row as usize) < s.rows {
                    let at = (pick / s.picks * s.rows + row as usize) * s.len;
                    y.extend_from_slice(&x[at..at + s.len]);
                } else {
                    y.resize(y.len() + s.len, missing);
                }
            }
            y
        }
        let (index, total) = (inputs[1].1.index(), outputs[0].len());
        vec![match inputs[0].1 {
            Data::Real(x) => {
                let missing = if self.forgiving { 0.0 } else { f64::NAN };
                Data::Real(pick(&s, x, index, R::from_f64(missing), total))
            }
            Data::Index(x) => Data::Index(pick(&s, x, index, u32::MAX, total)),
        }]
    }
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match (&inputs[0].shape[..], &inputs[1].shape[..], inputs[1].dtype) {
            (&[batch, _, len], &[same, picks], Dtype::U32) if batch == same && inputs[0].dtype != Dtype::F16 => {
                Ok(vec![TensorType { dtype: inputs[0].dtype, shape: vec![batch, picks, len] }])
            }
            _ => Err(ShapeError(format!("{inputs:?} are not a table [.., rows, n] and indices [.., picks]"))),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, &[&outputs[0], inputs[1]], outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        let rows = g.shape(c.inputs[0])[1];
        if g.ty(c.inputs[0]).dtype == Dtype::U32 {
            return vec![None, None];
        }
        vec![c.douts[0].map(|d| g.scatter_add_rows(d, c.inputs[1], rows)), None]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let sizes = self.sizes(inputs);
        let missing = match inputs[0].dtype {
            Dtype::U32 => u32::MAX,
            _ if self.forgiving => 0,
            _ => f32::NAN.to_bits(),
        };
        let (entry, x, y, lanes) = if vec4(sizes.len) { ("forward4", "x4", "y4", 4) } else { ("forward", "x", "y", 1) };
        let bindings = vec![(x, Slot::In(0)), ("index", Slot::In(1)), (y, Slot::Out(0))];
        sizes.dispatch(entry, missing, bindings, outputs[0].len() / lanes)
    }
}

impl ScatterAdd {
    fn sizes(&self, inputs: &[&TensorType]) -> Sizes {
        let [batch, picks, len] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        Sizes { batch, picks, rows: self.rows, len }
    }

    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let s = self.sizes(&[inputs[0].0]);
        let (updates, index) = (inputs[0].1.real(), inputs[1].1.index());
        let mut x = vec![R::zero(); outputs[0].len()];
        for (pick, (&row, update)) in index.iter().zip(updates.chunks_exact(s.len)).enumerate() {
            if (row as usize) < s.rows {
                let at = (pick / s.picks * s.rows + row as usize) * s.len;
                x[at..at + s.len].iter_mut().zip(update).for_each(|(x, &u)| *x += u);
            }
        }
        vec![Data::Real(x)]
    }
}

impl Op for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match (&inputs[0].shape[..], inputs[1]) {
            (&[batch, picks, len], index) if *index == TensorType::u32(&[batch, picks]) && index == inputs[2] => {
                Ok(vec![TensorType::f32(&[batch, self.rows, len])])
            }
            _ => Err(ShapeError(format!("{inputs:?} are not rows [.., picks, n] and indices [.., picks]"))),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(inputs[0].len() as u64, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        // What was left out had no effect.
        vec![c.douts[0].map(|d| g.apply1(Gather { forgiving: true }, &[d, c.inputs[1]])), None, None]
    }

    fn lower(&self, _: &LowerContext, inputs: &[&TensorType], outputs: &[TensorType]) -> Lowered {
        let sizes = self.sizes(inputs);
        let (entry, dy, dx, lanes) =
            if vec4(sizes.len) { ("scatter_add4", "dy4", "dx4", 4) } else { ("scatter_add", "dy", "dx", 1) };
        let bindings = vec![(dy, Slot::In(0)), ("index", Slot::In(1)), ("order", Slot::In(2)), (dx, Slot::Out(0))];
        sizes.dispatch(entry, 0, bindings, outputs[0].len() / lanes)
    }
}

impl Graph {
    /// Rows of `table` by their numbers. One table `[rows, n]` with `index` of any shape gives `[index.., n]`; tables
    /// `[batch.., rows, n]` with `index` `[batch.., picks]` give `[batch.., picks, n]`. A number beyond the last row gives
    /// NaN (u32: all ones).
    pub fn gather_rows(&mut self, table: Node, index: Node) -> Node {
        let (table_shape, index_shape) = (self.shape(table).to_vec(), self.shape(index).to_vec());
        let [tables @ .., rows, len] = &table_shape[..] else { panic!("gather_rows: {table_shape:?} has no rows") };
        let batch: usize = tables.iter().product();
        assert!(
            tables.is_empty() || index_shape.starts_with(tables),
            "gather_rows: one list of numbers for each table"
        );
        let picks = index_shape.iter().product::<usize>() / batch;
        let table = self.reshape(table, &[batch, *rows, *len]);
        let index = self.reshape(index, &[batch, picks]);
        let y = self.apply1(Gather { forgiving: false }, &[table, index]);
        self.reshape(y, &[&index_shape[..], &[*len]].concat())
    }

    /// Sums rows into tables of `rows` rows: `updates` `[batch, picks, n]` by `index` `[batch, picks]` to
    /// `[batch, rows, n]`. Numbers beyond the last row are left out. Equal numbers are summed in their order.
    pub fn scatter_add_rows(&mut self, updates: Node, index: Node, rows: usize) -> Node {
        let order = self.argsort(index, false);
        self.apply1(ScatterAdd { rows }, &[updates, index, order])
    }

    /// Rows of `table` `[V, n]` for the tokens `ids`: `[ids.., n]`.
    pub fn embedding(&mut self, table: Node, ids: Node) -> Node {
        assert_eq!(self.shape(table).len(), 2, "embedding: the table is [V, n]");
        self.gather_rows(table, ids)
    }
}
