//! WGSL of the fused attention kernels, written out for one head dimension.
//!
//! All of them have one shape: an invocation *owns* a few rows (queries in the forward pass and for dq, keys for dk and dv),
//! keeps them and their accumulators in registers, and *streams* the rows of the other side past them, four at a time. What
//! differs between adapters is how a streamed row reaches the invocation:
//! - [`Staging::Direct`]: every invocation loads it from storage.
//! - [`Staging::Quad`]: each of four neighbouring invocations loads one of the four rows, and hands it round.
//! - [`Staging::Tiled`]: a workgroup loads a tile of rows into workgroup memory together.
//! - [`Staging::Gather`]: for lists of single rows instead of blocks, like `Direct`.
//! - [`Staging::Chosen`] and [`Staging::Readers`]: for blocks that the device itself has chosen, like `Direct`; see `chosen.rs`.
//!
//! Software adapters want the first two: a load is a slow, lane-by-lane affair there and a barrier dearer still, so that what
//! counts is the arithmetic done per load. GPUs want the third. The text is unrolled because registers can't be indexed: where
//! a compiler leaves a loop over a private array alone, the array goes to memory.

/// Appends a line to a [`Text`].
macro_rules! line {
    ($t:expr, $($arg:tt)*) => { writeln!($t.wgsl, $($arg)*).expect("writing to a string") };
}

mod chosen;
mod distances;
mod pairs;
mod rounds;
mod text;

pub use chosen::weigh;
pub use distances::{DISTANCE_LANES, backward_distances};
pub use rounds::MOST_BUCKETS;
use std::fmt::Write;
use text::Text;

/// How streamed rows reach the invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staging {
    Direct,
    Quad,
    /// Rows of a tile in workgroup memory, a multiple of four.
    Tiled(usize),
    /// Each owned row has a list of streamed rows of its own, and every invocation loads what its one row needs.
    Gather,
    /// Each owned query has an ascending list of key blocks, made on the device. An invocation walks through the union of
    /// its queries' lists, so that what neighbours have in common is loaded once.
    Chosen,
    /// The other side of that: each block of owned keys has a list of the queries that chose it.
    Readers,
}

/// Which pairs of a partial block are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masking {
    /// All, or those up to the diagonal: one comparison.
    Diagonal,
    /// Those at most `reach` tokens away, only backwards when causal: two comparisons.
    Band,
    /// Those of a band, and all of the first tokens, as queries and as keys; never ahead when causal: some comparisons.
    BandAndGlobal,
    /// What this function of `shaders/lib/mask.wesl` says, with a rule for each head where heads differ.
    Rule { function: &'static str, by_head: bool },
    /// Those whose bit is set behind the list.
    Bits,
    /// Rows are reached through an order in which they were sorted, and pairs meet by their buckets and chunks in several such
    /// orders, of which four fit in one of so many `words`; see `rounds.rs`.
    Rounds { words: usize },
}

/// Everything that the text of a kernel depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Head dimension D.
    pub dim: usize,
    /// Rows that one invocation owns.
    pub rows: usize,
    /// Invocations of a workgroup.
    pub lanes: usize,
    pub staging: Staging,
    pub masking: Masking,
    /// There is a key padding mask.
    pub padding: bool,
    /// There is an additive bias on the scores.
    pub bias: bool,
    /// Weights have a factor by distance.
    pub distances: bool,
    /// Tensors of rows are stored in half precision; arithmetic is in f32.
    pub half: bool,
}

impl Spec {
    /// One element of a tensor of rows as it is stored, and four of them.
    pub(super) fn scalar(&self) -> &'static str {
        if self.half { "f16" } else { "f32" }
    }

    fn vector(&self) -> &'static str {
        if self.half { "vec4<f16>" } else { "vec4<f32>" }
    }

    /// What arrays of rows are made of.
    fn element(&self) -> &'static str {
        if self.dim.is_multiple_of(4) { self.vector() } else { self.scalar() }
    }

    /// Words of four rounds for each token, where rows are reached through a sorted order; 0 elsewhere.
    fn words(&self) -> usize {
        if let Masking::Rounds { words } = self.masking { words } else { 0 }
    }
}

/// Which gradients a backward kernel over key rows writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Both,
    Keys,
    Values,
}

/// A kernel's text, its entry point, and the names of its storage bindings in order.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub wgsl: String,
    pub entry: &'static str,
    pub bindings: Vec<&'static str>,
}

const MASK: &str = include_str!("../../../../../shaders/lib/mask.wesl");

/// Below every score; what a masked pair scores, so that its weight is exactly zero whatever the row's maximum.
const LOWEST: &str = "-2e30";
/// Where maxima start. Also the log-sum-exp of a row with nothing to attend to.
const EMPTY: &str = "-1e30";

/// `o = softmax(scale q k^T) v` and the log-sum-exp of each row.
pub fn forward(spec: &Spec) -> Kernel {
    let mut t = Text::new(spec, &["q", "k", "v"], &["o"], &["lse"], true);
    let rows = spec.rows;
    t.begin("forward", "n");
    for r in 0..rows {
        t.load_owned(&[("q", "u.scale")], r);
        t.zero(&["o"], r);
        line!(t, "    var top{r} = {EMPTY};\n    var sum{r} = 0.0;");
    }
    t.runs("m", |t| {
        t.stage(&["k", "v"]);
        t.steps(|t| {
            t.open_rows(&["k"]);
            t.scores("s", "q", "k");
            t.bias();
            t.mask();
            t.distances();
            for r in 0..rows {
                line!(t, "            let new{r} = max(top{r}, max(max(s{r}.x, s{r}.y), max(s{r}.z, s{r}.w)));");
                line!(t, "            let keep{r} = exp(top{r} - new{r});");
                line!(t, "            top{r} = new{r};");
                line!(t, "            let p{r} = {}exp(s{r} - new{r});", t.factor(r));
                line!(t, "            sum{r} = sum{r} * keep{r} + ((p{r}.x + p{r}.y) + (p{r}.z + p{r}.w));");
            }
            t.open_rows(&["v"]);
            t.accumulate("o", "p", "v", Some("keep"));
        });
    });
    for r in 0..rows {
        line!(t, "    if row + {r}u < end_row {{");
        line!(t, "        var total = select(top{r} + log(sum{r}), {EMPTY}, sum{r} == 0.0);");
        line!(t, "        var share = select(1.0 / sum{r}, 0.0, sum{r} == 0.0);");
        t.join_rounds(r);
        t.store_owned("o", r, "share");
        line!(t, "        lse[own + i{r}] = total;\n    }}");
    }
    t.end()
}

/// `dq = scale ds k` with `ds = p (dout v^T - delta)`.
pub fn backward_dq(spec: &Spec) -> Kernel {
    let mut t = Text::new(spec, &["q", "k", "v", "dout"], &["dq"], &[], false);
    let rows = spec.rows;
    t.begin("backward_dq", "n");
    (0..rows).for_each(|r| t.zero(&["dq"], r));
    score_gradients(&mut t, |t| t.accumulate("dq", "ds", "k", None));
    for r in 0..rows {
        line!(t, "    if row + {r}u < end_row {{");
        t.store_owned("dq", r, "u.scale");
        line!(t, "    }}");
    }
    t.end()
}

/// `dbias = ds` of every head, `[B, H, N, M]`, at the pairs of visited blocks: the others must be zero before.
pub fn backward_bias(spec: &Spec) -> Kernel {
    let mut t = Text::new(spec, &["q", "k", "v", "dout"], &[], &["dbias"], false);
    t.begin("backward_bias", "n");
    score_gradients(&mut t, |t| {
        for r in 0..t.spec.rows {
            line!(t, "            if i{r} < end_row {{\n                let to = (own + i{r}) * u.m;");
            for (s, component) in ["x", "y", "z", "w"].iter().enumerate() {
                line!(t, "                if j + {s}u < stop {{ dbias[to + id{s}] = ds{r}.{component}; }}");
            }
            line!(t, "            }}");
        }
    });
    t.end()
}

/// Loads the owned queries and goes over the keys with `ds{r}`, the gradients of four scores.
fn score_gradients(t: &mut Text, step: impl Fn(&mut Text)) {
    for r in 0..t.spec.rows {
        t.load_owned(&[("q", "u.scale"), ("dout", "")], r);
        line!(t, "    let at{r} = (own + min(i{r}, u.n - 1u)) * 2u;");
        line!(t, "    let lse{r} = stats[at{r}];\n    let delta{r} = stats[at{r} + 1u];");
    }
    t.runs("m", |t| {
        t.stage(&["k", "v"]);
        t.steps(|t| {
            t.open_rows(&["k"]);
            t.scores("s", "q", "k");
            t.bias();
            t.mask();
            t.distances();
            t.open_rows(&["v"]);
            t.scores("dp", "dout", "v");
            for r in 0..t.spec.rows {
                let ds = t.of_scores(r, format!("{}exp(s{r} - lse{r}) * (dp{r} - delta{r})", t.factor(r)));
                line!(t, "            let ds{r} = {ds};");
            }
            step(t);
        });
    });
}

/// `dk = scale ds^T q` and `dv = p^T dout`, over the transposed list.
pub fn backward_dkv(spec: &Spec, part: Part) -> Kernel {
    let (inputs, outputs): (&[_], &[_]) = match part {
        Part::Both => (&["q", "k", "v", "dout"], &["dk", "dv"]),
        Part::Keys => (&["q", "k", "v", "dout"], &["dk"]),
        Part::Values => (&["q", "k", "dout"], &["dv"]),
    };
    let mut t = Text::new(spec, inputs, outputs, &[], false);
    let rows = spec.rows;
    let (keys, values) = (part != Part::Values, part != Part::Keys);
    t.begin("backward_dkv", "m");
    for r in 0..rows {
        t.load_owned(&[("k", "u.scale")], r);
        if keys {
            t.load_owned(&[("v", "")], r);
        }
        t.zero(outputs, r);
        if spec.padding {
            line!(
                t,
                "    let real{r} = stats[u.heads_total * u.n * 2u + bh / u.heads * u.m + min(row + {r}u, u.m - 1u)];"
            );
        }
    }
    t.runs("n", |t| {
        t.stage(&["q", "dout"]);
        t.steps(|t| {
            for s in 0..4 {
                line!(t, "            let at{s} = (bh * u.n + id{s}) * 2u;");
            }
            line!(t, "            let lse = vec4<f32>(stats[at0], stats[at1], stats[at2], stats[at3]);");
            t.open_rows(&["q"]);
            t.scores("s", "k", "q");
            t.bias();
            t.mask();
            t.distances();
            for r in 0..rows {
                line!(t, "            let p{r} = {}exp(s{r} - lse);", t.factor(r));
            }
            t.open_rows(&["dout"]);
            if values {
                t.accumulate("dv", "p", "dout", None);
            }
            if keys {
                line!(
                    t,
                    "            let delta = vec4<f32>(stats[at0 + 1u], stats[at1 + 1u], stats[at2 + 1u], stats[at3 + 1u]);"
                );
                t.scores("dp", "v", "dout");
                for r in 0..rows {
                    let ds = t.of_scores(r, format!("p{r} * (dp{r} - delta)"));
                    line!(t, "            let ds{r} = {ds};");
                }
                t.accumulate("dk", "ds", "q", None);
            }
        });
    });
    for r in 0..rows {
        line!(t, "    if row + {r}u < end_row {{");
        if keys {
            t.store_owned("dk", r, "u.scale");
        }
        if values {
            t.store_owned("dv", r, "1.0");
        }
        line!(t, "    }}");
    }
    t.end()
}

/// The first backward pass: `stats[row] = (log-sum-exp, delta)` with `delta = dout . o - dlse`; behind them the key padding as
/// floats, so that the kernels that follow need no binding for it. One invocation for each row or key.
pub fn backward_pre(spec: &Spec, dlse: bool) -> Kernel {
    let mut t = Text::bare(spec);
    t.entry = "backward_pre";
    t.declare("o", "read", spec.element());
    t.declare("dout", "read", spec.element());
    t.declare("lse", "read", "f32");
    if dlse {
        t.declare("dlse", "read", "f32");
    }
    if spec.padding {
        t.declare("padding", "read", "u32");
    }
    t.declare("stats", "read_write", "f32");
    line!(t, "@group(1) @binding(0) var<uniform> u: Params;");
    line!(t, "@compute @workgroup_size(64)");
    line!(t, "fn backward_pre(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{");
    line!(t, "    let row = (id.x + u.origin.x) * 64u + lane;\n    let rows = u.heads_total * u.n;");
    if spec.padding {
        line!(t, "    if row >= rows && row - rows < u.heads_total / u.heads * u.m {{");
        line!(t, "        stats[rows + row] = f32(padding[row - rows]);\n    }}");
    }
    line!(t, "    if row >= rows {{\n        return;\n    }}");
    let (width, product) = match spec.dim.is_multiple_of(4) {
        true => (spec.dim / 4, "dot(vec4<f32>(o[at]), vec4<f32>(dout[at]))"),
        false => (spec.dim, "f32(o[at]) * f32(dout[at])"),
    };
    line!(t, "    var delta = 0.0;\n    for (var at = row * {width}u; at < (row + 1u) * {width}u; at += 1u) {{");
    line!(t, "        delta += {product};\n    }}");
    line!(t, "    stats[row * 2u] = lse[row];");
    line!(t, "    stats[row * 2u + 1u] = delta{};", if dlse { " - dlse[row]" } else { "" });
    t.end()
}
