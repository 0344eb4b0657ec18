//! Sparse Transformer, strided: attention to the nearest ℓ tokens, and to every ℓ-th token.
//!
//! Local: `{ j : |i - j| < ℓ }`, or `<= ℓ`. Strided: `{ j : (i - j) mod ℓ = 0 }`. Causal: only `j <= i`. Merged, a head attends
//! to the union; by head, heads take the two sets in turn; local and strided alone are the layers of an alternating stack.
//!
//! Child et al., 2019, "Generating Long Sequences with Sparse Transformers", arXiv:1904.10509, section 4.3. Time O(N √N D) at
//! ℓ = √N, memory O(N). A strided set touches every block of ℓ keys, so its tokens are put in another order first,
//! t → (t mod ℓ, ⌊t/ℓ⌋): each of the ℓ classes is then an ordinary sequence of N/ℓ tokens with dense attention. Merged, the
//! window and the classes (without what the window has seen) are two attentions whose outputs are weighted by their shares
//! of the softmax sum. The price is one copy of q, k, v and the output each way.
//! Differs from the paper: a bidirectional form. The paper's text has ℓ + 1 local keys when causal, its code ℓ; both are there.

use super::setup::product;
use super::restricted::{BLOCK, Pattern, merge, merge_sums, near_root, weights};
use super::links::{self, LINKS};
use super::{Causal, Effective, Family, Inputs, Paper, Param, ParamKind, Reference, Setup, Variant};
use crate::graph::ops::block_attention::BlockAttentionOptions;
use crate::graph::{Data, Graph, Node, Real};
use crate::pattern::{BlockList, Part, Rule};
use crate::reference::softmax_attention_by_head;
use std::rc::Rc;

const STRIDE: Param = Param {
    name: "stride",
    kind: ParamKind::Int { min: 0, max: 4096, default: |_| 0 },
    meaning: "Distance between the far keys, and how far the near ones reach; 0 takes the power of two nearest to the square \
              root of the length, where the cost is lowest.",
};

const PART: Param = Param {
    name: "part",
    kind: ParamKind::Choice { options: &["merged", "by_head", "local", "strided"], default: "merged" },
    meaning: "What a head sees: merged near and far keys, by_head one kind in turn, local or strided only that, as layers in \
              turn do.",
};

const WINDOW: Param = Param {
    name: "window",
    kind: ParamKind::Choice { options: &["open", "closed"], default: "open" },
    meaning: "Whether the near keys end before the stride, as in the paper's code, or include it, as in its text.",
};

pub static VARIANT: Variant = Variant {
    id: "sparse_strided",
    name: "Sparse Transformer, strided",
    family: Family::FixedPattern,
    paper: Paper {
        title: "Generating Long Sequences with Sparse Transformers",
        authors: "Child et al.",
        year: 2019,
        arxiv: "1904.10509",
    },
    summary: "Each token looks at its neighbours up to a stride away, and beyond them at every token that is a whole number of \
              strides away. With a stride about the square root of the length, time grows with N√N, and two steps lead from \
              any token to any other. It fits data with a period, such as the rows of an image or the bars of music, when \
              the stride is that period. For text, which has none, the fixed form does better.",
    complexity: "O(N sqrt(N) D) time, O(N) memory",
    exponent: 1.5,
    exact: false,
    causal: Causal::Both,
    params: &[STRIDE, PART, WINDOW, LINKS],
    extras: |s| links::extras(s, &rule(s)),
    check: |_| Ok(()),
    largest: |s| product(&[s.batch, s.heads, Classes::of(s).rows(), s.dim]),
    graph,
    effective,
    rule: |s| Some(drawn(s).map_or_else(|| rule(s), |drawn| drawn.rule)),
    blocks: |s| Some(blocks(s)),
    loss: None,
    decide: None,
    reference: Reference::new(naive, naive),
};

/// ℓ.
fn stride(s: &Setup) -> usize {
    match s.int(&STRIDE) {
        0 => near_root(s.length) as usize,
        given => given,
    }
}

/// Farthest near key.
fn reach(s: &Setup) -> usize {
    stride(s) - usize::from(s.choice(&WINDOW) == "open")
}

fn part(s: &Setup) -> Part {
    match s.choice(&PART).as_str() {
        "by_head" => Part::ByHead { odd: s.structure.first_head % 2 == 1 },
        "local" => Part::Local,
        "strided" => Part::Far,
        _ => Part::Merged,
    }
}

fn rule(s: &Setup) -> Rule {
    Rule::Strided { stride: stride(s) as u32, reach: reach(s) as u32, part: part(s), causal: s.causal }
}

/// Links by lot in place of the pattern.
fn drawn(s: &Setup) -> Option<Pattern> {
    links::pattern(s, &rule(s))
}

fn blocks(s: &Setup) -> BlockList {
    match drawn(s) {
        Some(drawn) => drawn.list.as_ref().clone(),
        // In the order of the text, what the classes visit is single pairs.
        None => BlockList::of_heads(&rule(s), s.heads, s.length, s.keys, 1, 1),
    }
}

/// The order t → (t mod ℓ, ⌊t/ℓ⌋). Rows are put in front of shorter sides, so that all sides end together and have whole
/// classes; those rows are padding.
struct Classes {
    stride: usize,
    /// Rows of a class.
    length: usize,
}

impl Classes {
    fn of(s: &Setup) -> Self {
        let stride = stride(s);
        Self { stride, length: s.length.max(s.keys).div_ceil(stride) }
    }

    fn rows(&self) -> usize {
        self.stride * self.length
    }

    /// `[B, H, R, D]` to `[B ℓ, H, length, D]`.
    fn split(&self, g: &mut Graph, x: Node) -> Node {
        let [b, h, rows, d] = g.shape(x)[..] else { unreachable!("attention takes [B, H, N, D]") };
        let x = if rows < self.rows() { g.pad(x, 2, self.rows() - rows, 0, 0.0) } else { x };
        let x = g.reshape(x, &[b, h, self.length, self.stride, d]);
        let x = g.transpose(x, &[0, 3, 1, 2, 4]);
        g.reshape(x, &[b * self.stride, h, self.length, d])
    }

    /// Back again: the last `rows` rows.
    fn join(&self, g: &mut Graph, x: Node, rows: usize) -> Node {
        let [classes, h, _, d] = g.shape(x)[..] else { unreachable!("attention gives [B, H, N, D]") };
        let b = classes / self.stride;
        let x = g.reshape(x, &[b, self.stride, h, self.length, d]);
        let x = g.transpose(x, &[0, 2, 3, 1, 4]);
        let x = g.reshape(x, &[b, h, self.rows(), d]);
        if rows < self.rows() { g.slice(x, 2, self.rows() - rows..self.rows()) } else { x }
    }

    /// Which keys are real, `[B ℓ, length]`; none where all are.
    fn padding(&self, g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Option<Node> {
        let front = self.rows() - s.keys;
        let real = match x.key_padding {
            Some(real) => real,
            None if front == 0 => return None,
            None => g.constant(&[s.batch, s.keys], Data::Index(vec![1; s.batch * s.keys])),
        };
        let real = if front > 0 { g.pad(real, 1, front, 0, 0.0) } else { real };
        let real = g.reshape(real, &[s.batch, self.length, self.stride]);
        let real = g.transpose(real, &[0, 2, 1]);
        Some(g.reshape(real, &[s.batch * self.stride, self.length]))
    }
}

/// The same list for the heads that take part, and nothing for the others.
fn for_heads(list: BlockList, s: &Setup, takes_part: impl Fn(Part) -> bool) -> Rc<BlockList> {
    let part = part(s);
    if !matches!(part, Part::ByHead { .. }) {
        return Rc::new(list);
    }
    let heads: Vec<bool> = (0..s.heads).map(|h| takes_part(part.of_head(h))).collect();
    Rc::new(list.only_in(&heads))
}

/// The window: o `[B, H, N, D]` and the log-sum-exp `[B, H, N]`.
fn near(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let rule = Rule::Window { radius: reach(s) as u32, dilation: 1, global: 0, causal: s.causal };
    let list = BlockList::new(&rule, s.length, s.keys, BLOCK, BLOCK);
    Pattern { rule, list: for_heads(list, s, Part::is_local) }.attend(g, x)
}

/// The classes: what the window has not seen, or all of them where there is none.
fn far(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> (Node, Node) {
    let classes = Classes::of(s);
    let causal = s.causal;
    let rule = match part(s) {
        Part::Merged => Rule::Beyond { radius: (reach(s) / classes.stride) as u32, causal },
        _ => Rule::All { causal },
    };
    let list = BlockList::new(&rule, classes.length, classes.length, BLOCK, BLOCK);
    let (q, k, v, padding) = g.stage("reorder", |g| {
        (classes.split(g, x.q), classes.split(g, x.k), classes.split(g, x.v), classes.padding(g, x, s))
    });
    let list = for_heads(list, s, Part::is_far);
    let options = BlockAttentionOptions { padding, ..BlockAttentionOptions::new(list, rule) };
    let (o, lse) = g.stage("attend to classes", |g| g.block_attention(q, k, v, &options));
    g.stage("reorder", |g| {
        let [b, h, n] = g.shape(lse)[..] else { unreachable!("one number for each row") };
        let lse = g.reshape(lse, &[b, h, n, 1]);
        let (o, lse) = (classes.join(g, o, s.length), classes.join(g, lse, s.length));
        (o, g.reshape(lse, &[s.batch, s.heads, s.length]))
    })
}

/// q `[B, H, N, D]`, k and v `[B, H, M, D]`; returns `[B, H, N, D]`.
fn graph(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Node {
    if let Some(drawn) = drawn(s) {
        return drawn.graph(g, x, s);
    }
    let out = match part(s) {
        Part::Local => g.stage("attend to neighbours", |g| near(g, x, s)).0,
        Part::Far => far(g, x, s).0,
        Part::Merged | Part::ByHead { .. } => {
            let near = g.stage("attend to neighbours", |g| near(g, x, s));
            let far = far(g, x, s);
            g.stage("merge", |g| merge(g, near, far))
        }
    };
    x.without_padded_queries(g, out, s)
}

fn effective(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Effective {
    if let Some(drawn) = drawn(s) {
        return drawn.effective(g, x, s);
    }
    let lse = match part(s) {
        Part::Local => near(g, x, s).1,
        Part::Far => far(g, x, s).1,
        Part::Merged | Part::ByHead { .. } => {
            let (near, far) = (near(g, x, s).1, far(g, x, s).1);
            merge_sums(g, near, far)
        }
    };
    weights(g, x, s, lse, rule(s))
}

/// The sets of the paper, A(1) and A(2) of section 4.3.
fn naive<R: Real>(x: &Inputs<Vec<R>>, s: &Setup) -> Vec<R> {
    if let Some(out) = links::naive(x, s, &rule(s)) {
        return out;
    }
    let (l, part, open) = (stride(s) as i64, s.choice(&PART), s.choice(&WINDOW) == "open");
    softmax_attention_by_head(x, s, |h, i, j| {
        let behind = i as i64 + s.keys as i64 - s.length as i64 - j as i64;
        let near = behind.abs() < l || (behind.abs() == l && !open);
        let strided = behind % l == 0;
        let listed = match part.as_str() {
            "by_head" if (s.structure.first_head + h).is_multiple_of(2) => near,
            "by_head" | "strided" => strided,
            "local" => near,
            _ => near || strided,
        };
        listed && (behind >= 0 || !s.causal)
    })
}
