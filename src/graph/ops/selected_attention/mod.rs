//! Attention to blocks of keys that were chosen for each query on the device: `o_i = softmax(scale q_i k_j^T) v_j` over the keys
//! j of the blocks in its list, and not ahead of it where causal.
//!
//! Time and memory are those of what is listed: keys and values are read where they lie, and nothing is gathered. An invocation
//! has a few neighbouring queries and walks through the union of their lists. The gradients of keys and values walk the other
//! way round, from a block to the queries that chose it (`readers`). The choice itself has no gradient.

mod backward;
mod cpu;
mod lower;
mod readers;

use crate::graph::{
    Cost, Data, Dtype, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, TensorType,
};

/// Floating-point operations of the softmax for each scored pair.
const SOFTMAX_FLOPS: u64 = 5;

/// What [`Graph::selected_attention`] needs besides q, k and v.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// u32 `[B, lists, N, n]`: the numbers of each query's key blocks, ascending, and numbers beyond the last block behind them.
    pub blocks: Node,
    /// Heads that share a list; the last ones may be fewer.
    pub group: usize,
    /// Keys of a block.
    pub block: usize,
    /// No key behind a query's own position, both sequences ending together.
    pub causal: bool,
    /// u32 `[B, M]`: 0 where a key is padding.
    pub padding: Option<Node>,
}

/// Inputs: q `[B, H, N, D]`, k and v `[B, H, M, D]`, the blocks, then padding where there is one. Outputs: o like q, and the
/// log-sum-exp of each row `[B, H, N]` (-1e30 for an empty row).
#[derive(Clone, Debug, PartialEq)]
struct SelectedAttention {
    group: usize,
    block: usize,
    causal: bool,
    scale: f64,
    padding: bool,
}

/// Sizes of a call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    heads: usize,
    n: usize,
    m: usize,
    dim: usize,
    /// Lists of a batch entry.
    lists: usize,
    /// Most blocks of a query.
    chosen: usize,
}

impl SelectedAttention {
    fn sizes(&self, inputs: &[&TensorType], blocks: usize) -> Sizes {
        let [batch, heads, n, dim] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        let [_, lists, _, chosen] = inputs[blocks].shape[..] else { unreachable!("checked by the shape rule") };
        Sizes { batch, heads, n, m: inputs[1].shape[2], dim, lists, chosen }
    }

    /// Checks q, k and v, the blocks at one place, and what follows at another.
    fn check(&self, inputs: &[&TensorType], blocks: usize, rest: usize) -> Result<(), ShapeError> {
        let fail = |reason: String| Err(ShapeError(reason));
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        let (&[b, h, n, d], &[b_k, h_k, m, d_k]) = (&q.shape[..], &k.shape[..]) else {
            return fail(format!("takes q [B, H, N, D], k and v [B, H, M, D], not {:?} {:?}", q.shape, k.shape));
        };
        if [q, k, v].iter().any(|t| t.dtype != Dtype::F32) || k != v || [b, h, d] != [b_k, h_k, d_k] || q.is_empty() {
            return fail(format!("q {q:?}, k {k:?} and v {v:?} do not fit, or are empty"));
        }
        if k.is_empty() || (self.causal && m < n) {
            return fail(format!("{m} keys are too few for {n} queries"));
        }
        let lists = h.div_ceil(self.group);
        match inputs[blocks].shape[..] {
            [b_l, l, n_l, chosen] if [b_l, l, n_l] == [b, lists, n] && chosen > 0 => {}
            _ => return fail(format!("blocks {:?} are not [{b}, {lists}, {n}, n]", inputs[blocks])),
        }
        if inputs[blocks].dtype != Dtype::U32 {
            return fail("blocks must be u32".into());
        }
        if self.padding && inputs.get(rest).is_none_or(|t| **t != TensorType::u32(&[b, m])) {
            return fail(format!("key padding must be u32 [{b}, {m}]"));
        }
        Ok(())
    }

    /// Pairs that are scored over all heads if every list is as full as it may be.
    fn pairs(&self, s: &Sizes) -> u64 {
        let all = s.m.div_ceil(self.block);
        let visible = |i: usize| if self.causal { (i + s.m - s.n) / self.block + 1 } else { all };
        let keys = |i: usize| (visible(i).min(s.chosen) * self.block).min(s.m) as u64;
        (s.batch * s.heads) as u64 * (0..s.n).map(keys).sum::<u64>()
    }

    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (o, lse) = cpu::Call::new(self, inputs, 3, 4).forward();
        vec![Data::Real(o), Data::Real(lse)]
    }
}

impl Op for SelectedAttention {
    fn name(&self) -> &'static str {
        "selected_attention"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.check(inputs, 3, 4)?;
        Ok(vec![inputs[0].clone(), TensorType::f32(&inputs[0].shape[..3])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let s = self.sizes(inputs, 3);
        Cost::streaming(self.pairs(&s) * (4 * s.dim as u64 + SOFTMAX_FLOPS), inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        backward::gradients(self, g, c)
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::forward(self, context, inputs)
    }
}

impl Graph {
    /// Attention of q `[B, H, N, D]` to k and v `[B, H, M, D]` over the key blocks in each query's list. Returns o
    /// `[B, H, N, D]` and the log-sum-exp of each row's scores `[B, H, N]`, -1e30 where a row is empty. Both can be
    /// differentiated with respect to q, k and v. Scores are divided by √D.
    pub fn selected_attention(&mut self, q: Node, k: Node, v: Node, selection: &Selection) -> (Node, Node) {
        let &Selection { blocks, group, block, causal, padding } = selection;
        assert!(group > 0 && block > 0, "lists are shared by heads, and blocks have keys");
        let dim = *self.shape(q).last().expect("q has dimensions");
        let scale = 1.0 / (dim as f64).sqrt();
        let op = SelectedAttention { group, block, causal, scale, padding: padding.is_some() };
        let inputs: Vec<Node> = [q, k, v, blocks].into_iter().chain(padding).collect();
        let out = self.apply(op, &inputs);
        (out[0], out[1])
    }
}
