//! Fused attention over a block list: `o = softmax(scale q k^T + bias) v` on the allowed pairs, by an online softmax over the
//! visited blocks, so that no N×M buffer exists. Dao et al., 2022, "FlashAttention", arXiv:2205.14135; the backward pass
//! recomputes the weights from the log-sum-exp (appendix B). Rows with nothing to attend to are zero.

mod backward;
mod cpu;
mod distances;
mod lower;
mod rows;
pub mod wgsl;

pub(super) use lower::{has_quads, workgroup};
pub(super) use rows::{add, dot};

use crate::graph::{
    Cost, Data, Dtype, Float, GradContext, Graph, LowerContext, Lowered, Node, Op, ShapeError, TensorType, Tunable,
};
use crate::pattern::{BlockList, Rule};
use std::rc::Rc;

/// Floating-point operations of the softmax for each scored pair: maximum, subtraction, exp, sum, scaling.
const SOFTMAX_FLOPS: u64 = 5;

/// What [`Graph::block_attention`] needs besides q, k and v.
#[derive(Clone, Debug)]
pub struct BlockAttentionOptions {
    /// Which blocks are visited, for N queries and M keys, with one list for all heads or one for each.
    pub list: Rc<BlockList>,
    /// Which pairs of a partial block are allowed.
    pub rule: Rule,
    /// Factor of the scores; 1 / sqrt(D) if none.
    pub scale: Option<f64>,
    /// u32 `[B, M]`: 0 where a key is padding.
    pub padding: Option<Node>,
    /// f32 `[B or 1, H or 1, N, M]`, added to the scaled scores.
    pub bias: Option<Node>,
    /// f32 `[H, 1 + P]`, not together with a bias: of each head how far a query looks at all, then the factor of its weights at
    /// each distance |position - key| from 0 on, with P more than the rule allows. A factor of 0 leaves a pair out, and so they
    /// must be beyond the reach: what lies there is not visited, and cost follows it.
    pub distances: Option<Node>,
}

impl BlockAttentionOptions {
    pub fn new(list: Rc<BlockList>, rule: Rule) -> Self {
        Self { list, rule, scale: None, padding: None, bias: None, distances: None }
    }
}

/// Inputs: q `[B, H, N, D]`, k and v `[B, H, M, D]`, all in f32 or all in f16, the packed list, then padding, bias and distances where there are. Outputs: o like
/// q, and the log-sum-exp of each row `[B, H, N]` (-1e30 for an empty row).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlockAttention {
    pub list: Rc<BlockList>,
    pub rule: Rule,
    pub scale: f64,
    pub padding: bool,
    pub bias: bool,
    pub distances: bool,
}

impl Graph {
    /// Attention of q `[B, H, N, D]` to k and v `[B, H, M, D]` over a block list. Returns o `[B, H, N, D]` and the log-sum-exp
    /// of each row's scores `[B, H, N]`, -1e30 where a row is empty. Both can be differentiated with respect to q,
    /// k, v, the bias and the factors of distances.
    pub fn block_attention(&mut self, q: Node, k: Node, v: Node, options: &BlockAttentionOptions) -> (Node, Node) {
        let dim = *self.shape(q).last().expect("q has dimensions");
        let op = BlockAttention {
            list: options.list.clone(),
            rule: options.rule.clone(),
            scale: options.scale.unwrap_or(1.0 / (dim as f64).sqrt()),
            padding: options.padding.is_some(),
            bias: options.bias.is_some(),
            distances: options.distances.is_some(),
        };
        let is_known = !matches!(op.rule, Rule::Listed { causal: false, .. }) || op.list.runs.iter().all(|r| r.full);
        assert!(is_known, "a pattern that is only listed has no rule to ask in partial blocks");
        let list = op.list_constant(self, false);
        let optional = [options.padding, options.bias, options.distances].into_iter().flatten();
        let inputs: Vec<Node> = [q, k, v, list].into_iter().chain(optional).collect();
        let out = self.apply(op, &inputs);
        (out[0], out[1])
    }

    /// Attention in which every query has a list of keys of its own, for patterns too thin for blocks: `keys` holds one
    /// ascending list for each query, of one head for all or of each head in turn. Otherwise like
    /// [`Graph::block_attention`], which does the same for a list of blocks of one query and one key.
    pub fn gather_attention(&mut self, q: Node, k: Node, v: Node, keys: &[Vec<u32>]) -> (Node, Node) {
        let (n, m) = (self.shape(q)[2], self.shape(k)[2]);
        let list = Rc::new(BlockList::of_keys(keys, n, m));
        self.block_attention(q, k, v, &BlockAttentionOptions::new(list, Rule::All { causal: false }))
    }
}

impl BlockAttention {
    /// Blocks of one query and one key: the kernels then read plain lists of rows.
    fn gathers(&self) -> bool {
        (self.list.block_q, self.list.block_k) == (1, 1)
    }

    /// The list as a tensor, by query blocks or transposed: offsets, then runs or single rows. In one tensor, because WebGPU
    /// promises no more than eight storage buffers.
    fn list_constant(&self, g: &mut Graph, transposed: bool) -> Node {
        let other;
        let list = if transposed {
            other = self.list.transposed();
            &other
        } else {
            &*self.list
        };
        let (mut words, runs) = list.pack();
        if self.gathers() {
            let mut rows = Vec::new();
            for (at, bounds) in list.offsets.windows(2).enumerate() {
                words[at] = rows.len() as u32;
                let owner = at % list.n;
                for run in &list.runs[bounds[0] as usize..bounds[1] as usize] {
                    let may = |&other: &u32| {
                        let (i, j) = if transposed { (other as usize, owner) } else { (owner, other as usize) };
                        run.full || self.rule.may_in(at / list.n, i, j, self.list.n, self.list.m)
                    };
                    rows.extend((run.first..run.first + run.count).filter(may));
                }
            }
            words[list.offsets.len() - 1] = rows.len() as u32;
            words.extend(rows);
        } else {
            words.extend(runs);
            if let Rule::Bits { bits } = &self.rule {
                words.extend(&bits.words);
            }
        }
        g.constant(&[words.len()], Data::Index(words))
    }

    /// Where the factors of distances are among the inputs, of which padding and bias begin at `rest`.
    fn distances_at(&self, rest: usize) -> usize {
        rest + usize::from(self.padding) + usize::from(self.bias)
    }

    /// Pairs scored over all heads; with distances, whose reach the device knows, the most that may be.
    fn pairs(&self, q: &TensorType) -> u64 {
        self.list.pairs() * (q.shape[0] * q.shape[1] / self.list.heads) as u64
    }

    /// Checks q, k and v, and what follows from `rest` on.
    fn check(&self, inputs: &[&TensorType], rest: usize) -> Result<(), ShapeError> {
        let fail = |reason: String| Err(ShapeError(reason));
        let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
        if q.shape.len() != 4 || k.shape != v.shape || k.shape.len() != 4 {
            return fail(format!(
                "takes q [B, H, N, D], k and v [B, H, M, D], not {:?} {:?} {:?}",
                q.shape, k.shape, v.shape
            ));
        }
        let (b, h, n, m) = (q.shape[0], q.shape[1], q.shape[2], k.shape[2]);
        if k.shape != [b, h, m, q.shape[3]] || q.is_empty() || k.is_empty() {
            return fail(format!("q {:?} and k {:?} do not fit, or are empty", q.shape, k.shape));
        }
        if (self.list.n, self.list.m) != (n, m) || ![1, h, b * h].contains(&self.list.heads) {
            let list = &self.list;
            return fail(format!("the list is for {} heads, N {} and M {}", list.heads, list.n, list.m));
        }
        if q.dtype == Dtype::U32 || k.dtype != q.dtype || v.dtype != q.dtype {
            return fail(format!(
                "q, k and v must all be f32 or all f16, not {:?} {:?} {:?}",
                q.dtype, k.dtype, v.dtype
            ));
        }
        let mut rest = inputs[rest..].iter();
        if self.padding && rest.next().is_none_or(|t| **t != TensorType::u32(&[b, m])) {
            return fail(format!("key padding must be u32 [{b}, {m}]"));
        }
        let fits = |t: &TensorType| {
            let s = &t.shape;
            t.dtype == Dtype::F32
                && s.len() == 4
                && [1, b].contains(&s[0])
                && [1, h].contains(&s[1])
                && s[2..] == [n, m]
        };
        if self.bias && rest.next().is_none_or(|t| !fits(t)) {
            return fail(format!("the bias must be f32 [{b} or 1, {h} or 1, {n}, {m}]"));
        }
        let of_heads =
            |t: &TensorType| t.dtype == Dtype::F32 && t.shape.len() == 2 && t.shape[0] == h && t.shape[1] > 1;
        if self.distances && (self.bias || self.gathers() || rest.next().is_none_or(|t| !of_heads(t))) {
            return fail(format!("distances must be f32 [{h}, 1 + P], without a bias and with blocks"));
        }
        Ok(())
    }

    /// The call for the CPU; padding and bias are found from `rest` on.
    fn call<'a, R: Float>(&'a self, inputs: &[(&TensorType, &'a Data<R>)], rest: usize) -> cpu::Call<'a, R> {
        let shape = &inputs[0].0.shape;
        let padding = self.padding.then(|| inputs[rest].1.index());
        let bias = self.bias.then(|| &inputs[rest + usize::from(self.padding)]);
        let distances = self.distances.then(|| &inputs[self.distances_at(rest)]);
        cpu::Call {
            op: self,
            batch: shape[0],
            heads: shape[1],
            n: shape[2],
            m: inputs[1].0.shape[2],
            dim: shape[3],
            q: inputs[0].1.real(),
            k: inputs[1].1.real(),
            v: inputs[2].1.real(),
            padding,
            bias: bias.map(|(_, data)| data.real()),
            bias_strides: bias.map_or((0, 0), |(ty, _)| bias_strides(ty)),
            distances: distances.map(|(ty, data)| (ty.shape[1], data.real())),
        }
    }

    fn eval<R: Float>(&self, inputs: &[(&TensorType, &Data<R>)], _: &[TensorType]) -> Vec<Data<R>> {
        let (o, lse) = self.call(inputs, 4).forward();
        vec![Data::Real(o), Data::Real(lse)]
    }
}

/// How many N×M planes to step for a batch entry and for a head.
fn bias_strides(ty: &TensorType) -> (usize, usize) {
    let (b, h) = (ty.shape[0], ty.shape[1]);
    (if b == 1 { 0 } else { h }, usize::from(h > 1))
}

impl Op for BlockAttention {
    fn name(&self) -> &'static str {
        "block_attention"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        self.check(inputs, 4)?;
        Ok(vec![inputs[0].clone(), TensorType::f32(&inputs[0].shape[..3])])
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let dim = inputs[0].shape[3] as u64;
        Cost::streaming(self.pairs(inputs[0]) * (4 * dim + SOFTMAX_FLOPS), inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, g: &mut Graph, c: &GradContext) -> Vec<Option<Node>> {
        backward::gradients(self, g, c)
    }

    fn tunable(&self, context: &LowerContext, inputs: &[&TensorType]) -> Option<Tunable> {
        lower::tunable(self.name(), self, context, inputs)
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        lower::forward(self, context, inputs)
    }
}
