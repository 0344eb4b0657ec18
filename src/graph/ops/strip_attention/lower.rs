//! The dispatches of attention by strips.

use super::backward::{Grad, StripBackward};
use super::{Score, Sizes, Span, StripAttention};
use crate::gpu::Source;
use crate::graph::ops::kernel::{invocations, uniform};
use crate::graph::{Dispatch, Lowered, Slot, TensorType};

/// Most queries of one head in a strip: where it is causal, a longer one scores more pairs in vain.
const ROWS: usize = 256;
/// Most queries of all its heads: a dispatch should have much to do, and a strip still fit everywhere.
const ROWS_OF_HEADS: usize = 1024;

/// Some queries of some heads, whose scores are in memory at the same time.
struct Strip {
    span: Span,
    first_head: usize,
    heads: usize,
}

impl Strip {
    /// Groups of four queries; an even number, since one kernel takes eight queries at a time.
    fn quads(&self) -> usize {
        self.span.count.div_ceil(8) * 2
    }

    fn bytes(&self) -> u64 {
        (self.heads * self.span.keys() * self.quads() * 16) as u64
    }

    /// Pairs of the strip, allowed or not.
    fn pairs(&self) -> u64 {
        (self.heads * self.span.keys() * self.span.count) as u64
    }
}

fn strips(op: &StripAttention, s: &Sizes) -> Vec<Strip> {
    let instances = s.batch * s.heads;
    let mut strips = Vec::new();
    for span in op.keys.spans(s.n, s.rows) {
        for from in (0..span.count).step_by(ROWS) {
            let part = span.part(from, ROWS.min(span.count - from));
            let heads = (ROWS_OF_HEADS / part.count).clamp(1, instances);
            for first_head in (0..instances).step_by(heads) {
                strips.push(Strip { span: part, first_head, heads: heads.min(instances - first_head) });
            }
        }
    }
    strips
}

/// What the dispatches of one call have in common.
struct Call<'a> {
    op: &'a StripAttention,
    s: Sizes,
}

/// What one dispatch does to a strip.
struct Work<'a> {
    entry: &'static str,
    bindings: &'a [(&'static str, Slot)],
    /// Elements of four of the rows that it reads or writes.
    width: usize,
    scale: f64,
    invocations: usize,
    flops_of_pair: u64,
}

impl Call<'_> {
    fn words(&self, strip: &Strip) -> Vec<u32> {
        let (s, span) = (&self.s, &strip.span);
        let words = [
            [s.n, s.rows, s.heads, strip.first_head],
            [span.first, span.count, strip.quads(), span.keys()],
            [span.prefix.0, span.prefix.1, span.body.0, span.offset],
        ];
        words.as_flattened().iter().map(|&x| x as u32).collect()
    }

    fn products(&self, strip: &Strip, work: Work) -> Dispatch {
        let mut words = self.words(strip);
        words.extend([strip.span.own, self.s.distances, work.width / 4, usize::from(self.op.padded)].map(|x| x as u32));
        words.push((work.scale as f32).to_bits());
        let [x, ..] = invocations(work.invocations);
        Dispatch {
            source: Source::Table("attention/strip"),
            entry: work.entry,
            consts: vec![],
            uniform: uniform(&words),
            bindings: work.bindings.to_vec(),
            groups: [x, 1, strip.heads as u32],
            flops: strip.pairs() * work.flops_of_pair,
        }
    }

    fn rows(
        &self,
        strip: &Strip,
        entry: &'static str,
        bindings: &[(&'static str, Slot)],
        groups: usize,
        flops_of_pair: u64,
    ) -> Dispatch {
        Dispatch {
            source: Source::Table("attention/strip_rows"),
            entry,
            consts: vec![],
            uniform: uniform(&self.words(strip)),
            bindings: bindings.to_vec(),
            groups: [groups as u32, 1, strip.heads as u32],
            flops: strip.pairs() * flops_of_pair,
        }
    }

    /// Scores of a strip.
    fn score(&self, strip: &Strip, scores: Slot) -> Dispatch {
        let op = self.op;
        // Without padding nobody reads `real`; another tensor stands in, since a binding cannot be empty.
        let real = Slot::In(if op.padded { op.real_at() } else { 0 });
        let mut bindings = vec![("left", Slot::In(0)), ("right", Slot::In(1)), ("real", real), ("scores", scores)];
        let entry = match op.score {
            Score::Dot { .. } => "score_dot",
            Score::Relative { .. } => {
                bindings.extend([("second", Slot::In(op.second_at())), ("positions", Slot::In(op.positions_at()))]);
                "score_relative"
            }
            Score::Additive => {
                bindings.push(("weights", Slot::In(op.weights_at())));
                "score_additive"
            }
        };
        let work = Work {
            entry,
            bindings: &bindings,
            width: self.s.width,
            scale: op.scale(),
            invocations: strip.quads() * strip.span.keys().div_ceil(4),
            flops_of_pair: op.score_flops(&self.s),
        };
        self.products(strip, work)
    }

    /// A score kernel's result becomes weights.
    fn normalise(&self, strip: &Strip, scores: Slot, stats: Slot) -> Dispatch {
        let mut bindings = vec![("scores", scores), ("stats", stats)];
        let mut entry = "softmax";
        if self.op.is_entmax() {
            bindings.push(("alpha", Slot::In(self.op.alpha_at())));
            entry = "entmax";
        }
        self.rows(strip, entry, &bindings, strip.quads().div_ceil(4), self.op.normaliser_flops())
    }

    /// Sums of rows over keys, by query.
    fn mix(&self, strip: &Strip, from: (Slot, Slot), to: Slot, width: usize, scale: f64) -> Dispatch {
        let bindings = [("strip", from.0), ("right", from.1), ("by_query", to)];
        let invocations = strip.quads() / 2 * (width / 4);
        let flops_of_pair = 2 * width as u64;
        self.products(strip, Work { entry: "mix", bindings: &bindings, width, scale, invocations, flops_of_pair })
    }

    /// Sums of rows over queries, added to rows of keys.
    fn mix_rows(&self, strip: &Strip, from: (Slot, Slot), to: Slot, width: usize, scale: f64) -> Dispatch {
        let bindings = [("strip", from.0), ("left", from.1), ("by_row", to)];
        let keys = strip.span.keys() - strip.span.own.min(strip.span.keys());
        let invocations = keys.div_ceil(4) * (width / 4);
        let flops_of_pair = 2 * width as u64;
        self.products(strip, Work { entry: "mix_rows", bindings: &bindings, width, scale, invocations, flops_of_pair })
    }
}

/// A dispatch that fills a tensor of `len` elements with zeros.
fn zeros(slot: Slot, len: usize) -> Dispatch {
    Dispatch {
        source: Source::Table("ops/fill"),
        entry: "forward",
        consts: vec![],
        uniform: uniform(&[len as u32, 0]),
        bindings: vec![("out", slot)],
        groups: invocations(len.div_ceil(4)),
        flops: 0,
    }
}

fn largest(strips: &[Strip]) -> u64 {
    strips.iter().map(Strip::bytes).max().unwrap_or(0)
}

pub fn forward(op: &StripAttention, inputs: &[&TensorType]) -> Lowered {
    let call = Call { op, s: op.sizes(inputs) };
    let strips = strips(op, &call.s);
    let scores = Slot::Scratch(0);
    let dispatches = strips.iter().flat_map(|strip| {
        [
            call.score(strip, scores),
            call.normalise(strip, scores, Slot::Out(1)),
            call.mix(strip, (scores, Slot::In(2)), Slot::Out(0), call.s.dim, 1.0),
        ]
    });
    Lowered { dispatches: dispatches.collect(), scratch: vec![largest(&strips)] }
}

/// The weights, written out: output 0.
pub fn matrix(op: &StripAttention, inputs: &[&TensorType], len: usize) -> Lowered {
    let call = Call { op, s: op.sizes(inputs) };
    let strips = strips(op, &call.s);
    let (scores, stats) = (Slot::Scratch(0), Slot::Scratch(1));
    let mut dispatches = vec![zeros(Slot::Out(0), len)];
    for strip in &strips {
        let groups = (strip.quads() * strip.span.keys()).div_ceil(64);
        let bindings = [("strip", scores), ("matrix", Slot::Out(0))];
        dispatches.push(call.score(strip, scores));
        dispatches.push(call.normalise(strip, scores, stats));
        dispatches.push(call.rows(strip, "spread", &bindings, groups, 0));
    }
    let stats = call.s.batch * call.s.heads * call.s.n * 16;
    Lowered { dispatches, scratch: vec![largest(&strips), stats as u64] }
}

pub fn backward(op: &StripBackward, inputs: &[&TensorType]) -> Lowered {
    let attention = &op.attention;
    let call = Call { op: attention, s: attention.sizes(inputs) };
    let Sizes { batch, heads, rows, width, dim, distances, .. } = call.s;
    let strips = strips(attention, &call.s);
    let (scores, slopes) = (Slot::Scratch(0), Slot::Scratch(1));
    let (stats, dout) = (Slot::In(attention.count()), Slot::In(attention.count() + 1));
    let out = |grad| Slot::Out(attention.port(grad).expect("this kind of score has that gradient"));
    let (dleft, dright, dvalues) = (out(Grad::Left), out(Grad::Right), out(Grad::Values));
    let scale = attention.scale();

    let instances = batch * heads;
    let mut dispatches = vec![zeros(dright, instances * rows * width), zeros(dvalues, instances * rows * dim)];
    if attention.is_relative() {
        dispatches.push(zeros(out(Grad::Positions), instances * distances * width));
    }
    for strip in &strips {
        dispatches.push(call.score(strip, scores));
        let real = Slot::In(if attention.padded { attention.real_at() } else { 0 });
        let bindings = [("left", dout), ("right", Slot::In(2)), ("real", real), ("scores", slopes)];
        dispatches.push(call.products(
            strip,
            Work {
                entry: "score_dot",
                bindings: &bindings,
                width: dim,
                scale: 1.0,
                invocations: strip.quads() * strip.span.keys().div_ceil(4),
                flops_of_pair: 2 * dim as u64,
            },
        ));
        let mut bindings = vec![("scores", scores), ("slopes", slopes), ("kept", stats)];
        let mut entry = "softmax_backward";
        if attention.is_entmax() {
            entry = "entmax_backward";
            bindings.extend([("alpha", Slot::In(attention.alpha_at())), ("dalpha", out(Grad::Alpha))]);
        }
        dispatches.push(call.rows(
            strip,
            entry,
            &bindings,
            strip.quads().div_ceil(4),
            2 * attention.normaliser_flops(),
        ));
        dispatches.push(call.mix_rows(strip, (scores, dout), dvalues, dim, 1.0));
        if attention.is_additive() {
            additive(&call, strip, slopes, [dleft, out(Grad::Second), dright], &mut dispatches);
            continue;
        }
        dispatches.push(call.mix(strip, (slopes, Slot::In(1)), dleft, width, scale));
        dispatches.push(call.mix_rows(strip, (slopes, Slot::In(0)), dright, width, scale));
        if attention.is_relative() {
            relative(&call, strip, slopes, [out(Grad::Second), out(Grad::Positions)], &mut dispatches);
        }
    }
    let strip = largest(&strips);
    Lowered { dispatches, scratch: vec![strip, strip] }
}

/// Gradients of left and, by query, of the weights; then of right.
fn additive(call: &Call, strip: &Strip, slopes: Slot, to: [Slot; 3], dispatches: &mut Vec<Dispatch>) {
    let width = call.s.width;
    let weights = Slot::In(call.op.weights_at());
    let read = [("strip", slopes), ("left", Slot::In(0)), ("right", Slot::In(1)), ("weights", weights)];
    let flops_of_pair = 7 * width as u64;
    let bindings = [&read[..], &[("by_query", to[0]), ("by_query_too", to[1])]].concat();
    let invocations = strip.quads() * (width / 4);
    let entry = "additive_queries";
    let work = Work { entry, bindings: &bindings, width, scale: 1.0, invocations, flops_of_pair };
    dispatches.push(call.products(strip, work));
    let bindings = [&read[..], &[("by_row", to[2])]].concat();
    let invocations = strip.span.keys().div_ceil(2) * (width / 4);
    let entry = "additive_rows";
    let work = Work { entry, bindings: &bindings, width, scale: 1.0, invocations, flops_of_pair };
    dispatches.push(call.products(strip, work));
}

/// Gradients of the second vectors and of the positions.
fn relative(call: &Call, strip: &Strip, slopes: Slot, to: [Slot; 2], dispatches: &mut Vec<Dispatch>) {
    let (width, scale, flops_of_pair) = (call.s.width, call.op.scale(), 2 * call.s.width as u64);
    let bindings = [("strip", slopes), ("positions", Slot::In(call.op.positions_at())), ("by_query", to[0])];
    let invocations = strip.quads() * (width / 4);
    let entry = "mix_positions";
    dispatches
        .push(call.products(strip, Work { entry, bindings: &bindings, width, scale, invocations, flops_of_pair }));
    let bindings = [("strip", slopes), ("second", Slot::In(call.op.second_at())), ("by_distance", to[1])];
    let invocations = (strip.span.count + strip.span.offset).div_ceil(4) * (width / 4);
    let entry = "mix_distances";
    dispatches
        .push(call.products(strip, Work { entry, bindings: &bindings, width, scale, invocations, flops_of_pair }));
}
