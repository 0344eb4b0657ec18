//! Tokens sorted by bucket and position, by counting, and in which bucket and chunk each token is.

use super::Chunks;
use crate::gpu::Source;
use crate::graph::ops::block_attention::wgsl::MOST_BUCKETS;
use crate::graph::ops::kernel::{invocations, uniform};
use crate::graph::{
    Cost, Data, Dispatch, Dtype, GradContext, Graph, LowerContext, Lowered, Node, Op, Real, ShapeError, Slot,
    TensorType,
};
use crate::sort::Arrange;

/// Tokens that one invocation counts and places.
const SEGMENT: usize = 128;

/// Input: buckets u32 `[T, rounds, N]` up to `buckets`, which is that of tokens that are never seen. Output: u32, the tokens of
/// each round in order `[T, rounds, N]`, and from [`slots_at`] on each token's slots `[T, N, 4 words]`:
/// bucket times chunks plus chunk in every round, all bits where it is never seen.
#[derive(Clone, Debug, PartialEq)]
struct ChunkOrder {
    chunks: Chunks,
    buckets: usize,
}

/// Where the slots begin; what is before them and behind the tokens says nothing.
pub fn slots_at(chunks: &Chunks, total: usize, n: usize) -> usize {
    (total * chunks.rounds * n).next_multiple_of(4)
}

/// Numbers of an order.
pub(super) fn len(chunks: &Chunks, total: usize, n: usize) -> usize {
    slots_at(chunks, total, n) + total * n * 4 * chunks.words()
}

impl ChunkOrder {
    fn eval<R: Real>(&self, inputs: &[(&TensorType, &Data<R>)], outputs: &[TensorType]) -> Vec<Data<R>> {
        let [total, rounds, n] = inputs[0].0.shape[..] else { unreachable!("checked by the shape rule") };
        let (chunks, mut out) = (&self.chunks, vec![u32::MAX; outputs[0].len()]);
        let slots_at = slots_at(chunks, total, n);
        for (row, buckets) in inputs[0].1.index().chunks_exact(n).enumerate() {
            let mut tokens: Vec<u32> = (0..n as u32).collect();
            tokens.arrange_by_key(|&token| buckets[token as usize]);
            for (place, &token) in tokens.iter().enumerate() {
                let bucket = buckets[token as usize];
                let own = if chunks.across { 0 } else { bucket as usize * n.div_ceil(chunks.size) };
                if (bucket as usize) < self.buckets {
                    let of_token = (row / rounds * n + token as usize) * 4 * chunks.words();
                    out[slots_at + of_token + row % rounds] = (own + place / chunks.size) as u32;
                }
            }
            out[row * n..(row + 1) * n].copy_from_slice(&tokens);
        }
        vec![Data::Index(out)]
    }
}

impl Op for ChunkOrder {
    fn name(&self) -> &'static str {
        "chunk_order"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        match inputs[0].shape[..] {
            [total, rounds, n] if inputs[0].dtype == Dtype::U32 && rounds == self.chunks.rounds => {
                Ok(vec![TensorType::u32(&[len(&self.chunks, total, n)])])
            }
            _ => Err(ShapeError(format!("takes u32 [T, {}, N], not {:?}", self.chunks.rounds, inputs[0]))),
        }
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(0, inputs, outputs)
    }

    crate::eval_both!();

    fn grad(&self, _: &mut Graph, _: &GradContext) -> Vec<Option<Node>> {
        vec![None]
    }

    fn lower(&self, context: &LowerContext, inputs: &[&TensorType], _: &[TensorType]) -> Lowered {
        let [total, rounds, n] = inputs[0].shape[..] else { unreachable!("checked by the shape rule") };
        let sort = CountingSort { total, rounds, n, buckets: self.buckets + 1, chunks: Some(self.chunks) };
        let dispatches = sort.dispatches(context, [Slot::In(0), Slot::Scratch(0), Slot::Out(0)]);
        Lowered { dispatches, scratch: vec![4 * sort.counters() as u64] }
    }
}

/// Rows sorted by small numbers, equal ones as they were.
pub struct CountingSort {
    total: usize,
    rounds: usize,
    n: usize,
    buckets: usize,
    /// Where slots are written too.
    chunks: Option<Chunks>,
}

impl CountingSort {
    /// Of `total` sequences of `n` numbers below `buckets` each the order alone.
    pub fn of_rows(total: usize, n: usize, buckets: usize) -> Self {
        Self { total, rounds: 1, n, buckets, chunks: None }
    }

    /// Parts of a sequence that are counted apart.
    pub fn segments(&self) -> usize {
        self.n.div_ceil(SEGMENT)
    }

    /// Words of the scratch buffer `[total · rounds, buckets, segments]`. After the dispatches they say where in the order the
    /// numbers of a bucket and a segment end.
    pub fn counters(&self) -> usize {
        self.total * self.rounds * self.buckets * self.segments()
    }

    /// The dispatches that sort; `slots` are the numbers, the counters, and the order.
    pub fn dispatches(&self, context: &LowerContext, [buckets, counts, order]: [Slot; 3]) -> Vec<Dispatch> {
        let &Self { total, rounds, n, chunks, .. } = self;
        let slots_at = chunks.map_or(0, |chunks| slots_at(&chunks, total, n));
        let (size, words, across) = chunks.map_or((1, 0, false), |c| (c.size, c.words(), c.across));
        let numbers = [total, rounds, n, self.segments(), SEGMENT, self.buckets, size, slots_at, words];
        let numbers: Vec<u32> = numbers.into_iter().chain([usize::from(across)]).map(|x| x as u32).collect();
        // A barrier among many is dear on a software adapter.
        let lanes = if context.software { 8 } else { 128.min(context.max_invocations) };
        let dispatch = |entry, bindings: &[(&'static str, Slot)], groups, items: usize| Dispatch {
            source: Source::Table("attention/chunk_order"),
            entry,
            consts: vec![("LANES", f64::from(lanes))],
            uniform: uniform(&numbers),
            bindings: bindings.to_vec(),
            groups,
            flops: 4 * items as u64,
        };
        let (buckets, counts) = (("buckets", buckets), ("counts", counts));
        let (rows, counters) = (total * rounds, self.counters());
        let each = invocations(rows * self.segments());
        vec![
            dispatch("count", &[buckets, counts], each, rows * n + counters),
            dispatch("scan", &[counts], [rows as u32, 1, 1], counters),
            dispatch("place", &[buckets, counts, ("order", order)], each, rows * n),
        ]
    }
}

impl Graph {
    /// For [`Graph::sorted_attention`]: the tokens of each round sorted by `buckets` (u32 `[T, rounds, N]`, below `count`, or equal to
    /// it where a token is never seen) and position, and each token's bucket and chunk in every round. No gradient.
    pub fn chunk_order(&mut self, buckets: Node, chunks: Chunks, count: usize) -> Node {
        assert!(chunks.rounds <= 8 && chunks.size > 0 && count < MOST_BUCKETS, "bounded by the parameters");
        self.apply1(ChunkOrder { chunks, buckets: count }, &[buckets])
    }
}
