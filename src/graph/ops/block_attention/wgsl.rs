//! WGSL of the fused attention kernels, written out for one head dimension.
//!
//! All of them have one shape: an invocation *owns* a few rows (queries in the forward pass and for dq, keys for dk and dv),
//! keeps them and their accumulators in registers, and *streams* the rows of the other side past them, four at a time. What
//! differs between adapters is how a streamed row reaches the invocation:
//! - [`Staging::Direct`]: every invocation loads it from storage.
//! - [`Staging::Quad`]: each of four neighbouring invocations loads one of the four rows, and hands it round.
//! - [`Staging::Tiled`]: a workgroup loads a tile of rows into workgroup memory together.
//!
//! Software adapters want the first two: a load is a slow, lane-by-lane affair there and a barrier dearer still, so that what
//! counts is the arithmetic done per load. GPUs want the third. The text is unrolled because registers can't be indexed: where
//! a compiler leaves a loop over a private array alone, the array goes to memory.

use std::fmt::Write;

/// How streamed rows reach the invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staging {
    Direct,
    Quad,
    /// Rows of a tile in workgroup memory, a multiple of four.
    Tiled(usize),
}

/// Which pairs of a partial block are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masking {
    /// All, or those up to the diagonal: one comparison.
    Diagonal,
    /// What `may` of `shaders/lib/mask.wesl` says.
    Rule,
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
    /// Workgroups for each owned block of the list.
    pub parts: usize,
    pub staging: Staging,
    pub masking: Masking,
    /// There is a key padding mask.
    pub padding: bool,
    /// There is an additive bias on the scores.
    pub bias: bool,
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

const MASK: &str = include_str!("../../../../shaders/lib/mask.wesl");

/// Below every score; what a masked pair scores, so that its weight is exactly zero whatever the row's maximum.
const LOWEST: &str = "-2e30";
/// Where maxima start. Also the log-sum-exp of a row with nothing to attend to.
const EMPTY: &str = "-1e30";

struct Text {
    wgsl: String,
    entry: &'static str,
    bindings: Vec<&'static str>,
    spec: Spec,
    /// Groups of four components in a row.
    chunks: usize,
    /// The owned rows are queries, the streamed ones keys.
    queries: bool,
    forward: bool,
}

macro_rules! line {
    ($t:expr, $($arg:tt)*) => { writeln!($t.wgsl, $($arg)*).expect("writing to a string") };
}

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
            for r in 0..rows {
                line!(t, "            let new{r} = max(top{r}, max(max(s{r}.x, s{r}.y), max(s{r}.z, s{r}.w)));");
                line!(t, "            let keep{r} = exp(top{r} - new{r});");
                line!(t, "            top{r} = new{r};");
                line!(t, "            let p{r} = exp(s{r} - new{r});");
                line!(t, "            sum{r} = sum{r} * keep{r} + ((p{r}.x + p{r}.y) + (p{r}.z + p{r}.w));");
            }
            t.open_rows(&["v"]);
            t.accumulate("o", "p", "v", Some("keep"));
        });
    });
    for r in 0..rows {
        line!(t, "    if row + {r}u < u.n {{");
        line!(t, "        let share = select(1.0 / sum{r}, 0.0, sum{r} == 0.0);");
        t.store_owned("o", r, "share");
        line!(t, "        lse[bh * u.n + row + {r}u] = select(top{r} + log(sum{r}), {EMPTY}, sum{r} == 0.0);\n    }}");
    }
    t.end()
}

/// `dq = scale ds k` with `ds = p (dout v^T - delta)`.
pub fn backward_dq(spec: &Spec) -> Kernel {
    let mut t = Text::new(spec, &["q", "k", "v", "dout"], &["dq"], &[], false);
    let rows = spec.rows;
    t.begin("backward_dq", "n");
    for r in 0..rows {
        t.load_owned(&[("q", "u.scale"), ("dout", "")], r);
        t.zero(&["dq"], r);
        line!(t, "    let at{r} = (bh * u.n + min(row + {r}u, u.n - 1u)) * 2u;");
        line!(t, "    let lse{r} = stats[at{r}];\n    let delta{r} = stats[at{r} + 1u];");
    }
    t.runs("m", |t| {
        t.stage(&["k", "v"]);
        t.steps(|t| {
            t.open_rows(&["k"]);
            t.scores("s", "q", "k");
            t.bias();
            t.mask();
            t.open_rows(&["v"]);
            t.scores("dp", "dout", "v");
            for r in 0..rows {
                line!(t, "            let ds{r} = exp(s{r} - lse{r}) * (dp{r} - delta{r});");
            }
            t.accumulate("dq", "ds", "k", None);
        });
    });
    for r in 0..rows {
        line!(t, "    if row + {r}u < u.n {{");
        t.store_owned("dq", r, "u.scale");
        line!(t, "    }}");
    }
    t.end()
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
                line!(t, "            let at{s} = (bh * u.n + min(j + {s}u, u.n - 1u)) * 2u;");
            }
            line!(t, "            let lse = vec4<f32>(stats[at0], stats[at1], stats[at2], stats[at3]);");
            t.open_rows(&["q"]);
            t.scores("s", "k", "q");
            t.bias();
            t.mask();
            for r in 0..rows {
                line!(t, "            let p{r} = exp(s{r} - lse);");
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
                    line!(t, "            let ds{r} = p{r} * (dp{r} - delta);");
                }
                t.accumulate("dk", "ds", "q", None);
            }
        });
    });
    for r in 0..rows {
        line!(t, "    if row + {r}u < u.m {{");
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

impl Text {
    /// The parameters, and what they need.
    fn bare(spec: &Spec) -> Self {
        let chunks = spec.dim.div_ceil(4);
        let (wgsl, bindings) = (String::new(), Vec::new());
        let mut t = Text { wgsl, entry: "", bindings, spec: spec.clone(), chunks, queries: true, forward: false };
        if spec.staging == Staging::Quad && cfg!(target_arch = "wasm32") {
            // Browsers require the directive; naga, which reads the text elsewhere, rejects it.
            line!(t, "enable subgroups;");
        }
        t.wgsl.push_str(MASK);
        line!(t, "struct Params {{\n    origin: vec4<u32>,\n    rule: Mask,");
        for field in ["n", "m", "heads", "heads_total", "list_heads", "list_blocks", "block", "runs_at"] {
            line!(t, "    {field}: u32,");
        }
        line!(t, "    scale: f32,\n    bias_batch: u32,\n    bias_head: u32,\n    reserved: u32,\n}}");
        t
    }

    /// Declarations of a kernel: the tensors `inputs` and `outputs` of rows of D, `scalars` with one element for a row, and the
    /// list, statistics, padding and bias in between.
    fn new(
        spec: &Spec,
        inputs: &[&'static str],
        outputs: &[&'static str],
        scalars: &[&'static str],
        forward: bool,
    ) -> Self {
        let mut t = Self::bare(spec);
        t.forward = forward;
        let element = if spec.dim.is_multiple_of(4) { "vec4<f32>" } else { "f32" };
        for name in inputs {
            t.declare(name, "read", element);
        }
        t.declare("list", "read", "u32");
        if !forward {
            t.declare("stats", "read", "f32");
        } else if spec.padding {
            t.declare("padding", "read", "u32");
        }
        if spec.bias {
            t.declare("bias", "read", "f32");
        }
        for name in outputs {
            t.declare(name, "read_write", element);
        }
        for name in scalars {
            t.declare(name, "read_write", "f32");
        }
        line!(t, "@group(1) @binding(0) var<uniform> u: Params;");
        if let Staging::Tiled(tile) = spec.staging {
            line!(t, "var<workgroup> tile_a: array<vec4<f32>, {}>;", tile * t.chunks);
            line!(t, "var<workgroup> tile_b: array<vec4<f32>, {}>;", tile * t.chunks);
        }
        t
    }

    fn end(mut self) -> Kernel {
        line!(self, "}}");
        Kernel { wgsl: self.wgsl, entry: self.entry, bindings: self.bindings }
    }

    /// Declares the next storage binding.
    fn declare(&mut self, name: &'static str, access: &str, element: &str) {
        let binding = self.bindings.len();
        line!(self, "@group(0) @binding({binding}) var<storage, {access}> {name}: array<{element}>;");
        self.bindings.push(name);
    }

    /// The entry point: `bh` is the head among all, `row` the first of the rows owned by this invocation, `own` and `other`
    /// the lengths of the owned and the streamed side.
    fn begin(&mut self, entry: &'static str, own: &str) {
        self.entry = entry;
        let Spec { rows, lanes, parts, staging, .. } = self.spec;
        self.queries = own == "n";
        self.mask_function();
        let quad = if staging == Staging::Quad { ", @builtin(subgroup_invocation_id) place: u32" } else { "" };
        line!(self, "@compute @workgroup_size({lanes})");
        line!(
            self,
            "fn {entry}(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32{quad}) {{"
        );
        line!(self, "    let group = id + u.origin.xyz;\n    let bh = group.y;");
        line!(self, "    let first_row = group.x * {}u;\n    let row = first_row + lane * {rows}u;", rows * lanes);
        line!(self, "    let own = bh * u.{own};");
        for r in 0..rows {
            line!(self, "    let i{r} = row + {r}u;");
        }
        line!(self, "    let entry = (bh % u.heads) % u.list_heads * u.list_blocks + group.x / {parts}u;");
    }

    /// Address of a row, in elements of the array.
    fn row_address(&self, row: &str) -> String {
        let width = if self.spec.dim.is_multiple_of(4) { self.chunks } else { self.spec.dim };
        format!("({row}) * {width}u")
    }

    /// Four components of a row that starts at `base`; those beyond D are zero.
    fn chunk(&self, array: &str, base: &str, c: usize) -> String {
        if self.spec.dim.is_multiple_of(4) {
            return format!("{array}[{base} + {c}u]");
        }
        let parts: Vec<String> = (c * 4..c * 4 + 4)
            .map(|d| if d < self.spec.dim { format!("{array}[{base} + {d}u]") } else { "0.0".into() })
            .collect();
        format!("vec4<f32>({})", parts.join(", "))
    }

    fn load_owned(&mut self, tensors: &[(&str, &str)], r: usize) {
        let side = if matches!(tensors[0].0, "q" | "dout") { "n" } else { "m" };
        for (name, scale) in tensors {
            let base = self.row_address(&format!("own + min(i{r}, u.{side} - 1u)"));
            line!(self, "    let {name}{r}_at = {base};");
            let scale = if scale.is_empty() { String::new() } else { format!(" * {scale}") };
            for c in 0..self.chunks {
                let chunk = self.chunk(name, &format!("{name}{r}_at"), c);
                line!(self, "    let {name}{r}_{c} = {chunk}{scale};");
            }
        }
    }

    fn zero(&mut self, names: &[&str], r: usize) {
        for name in names {
            for c in 0..self.chunks {
                line!(self, "    var {name}{r}_{c} = vec4<f32>();");
            }
        }
    }

    fn store_owned(&mut self, name: &str, r: usize, factor: &str) {
        let base = self.row_address(&format!("own + i{r}"));
        for c in 0..self.chunks {
            if self.spec.dim.is_multiple_of(4) {
                line!(self, "        {name}[{base} + {c}u] = {name}{r}_{c} * {factor};");
                continue;
            }
            for (d, component) in (c * 4..self.spec.dim).zip(["x", "y", "z", "w"]) {
                line!(self, "        {name}[{base} + {d}u] = {name}{r}_{c}.{component} * {factor};");
            }
        }
    }

    /// The loop over the runs of this block: streamed rows `start..stop`. The part of a run that lies beyond the diagonal for
    /// every row of the workgroup is cut off.
    fn runs(&mut self, streamed: &str, body: impl FnOnce(&mut Self)) {
        let last = format!("i32(first_row + {}u)", self.spec.rows * self.spec.lanes);
        line!(self, "    let other = bh * u.{streamed};\n    let last_run = list[entry + 1u];");
        line!(self, "    for (var run = list[entry]; run < last_run; run += 1u) {{");
        line!(
            self,
            "        let first = list[u.runs_at + 2u * run];\n        let packed = list[u.runs_at + 2u * run + 1u];"
        );
        line!(self, "        let whole = (packed & 1u) != 0u;");
        line!(self, "        var start = first * u.block;");
        line!(self, "        var stop = min((first + (packed >> 1u)) * u.block, u.{streamed});");
        line!(self, "        if u.rule.causal != 0u {{");
        if streamed == "m" {
            line!(self, "            stop = min(stop, u32(max({last} + bitcast<i32>(u.rule.shift), 0)));");
        } else {
            line!(self, "            let seen = i32(first_row) - bitcast<i32>(u.rule.shift) - i32(start);");
            line!(self, "            start += u32(max(seen, 0)) / 4u * 4u;");
        }
        line!(self, "        }}");
        body(self);
        line!(self, "    }}");
    }

    /// Opens the loop over tiles and fills them with rows of both streamed tensors.
    fn stage(&mut self, names: &[&str]) {
        let Staging::Tiled(tile) = self.spec.staging else { return };
        let (chunks, lanes) = (self.chunks, self.spec.lanes);
        line!(self, "        for (var tile = start; tile < stop; tile += {tile}u) {{\n        workgroupBarrier();");
        line!(self, "        for (var e = lane; e < {}u; e += {lanes}u) {{", tile * chunks);
        let row = self.row_address(&format!("other + min(tile + e / {chunks}u, stop - 1u)"));
        line!(self, "            let at = {row};\n            let c = e % {chunks}u;");
        for (name, tile) in names.iter().zip(["tile_a", "tile_b"]) {
            if self.spec.dim.is_multiple_of(4) {
                line!(self, "            {tile}[e] = {name}[at + c];");
                continue;
            }
            let parts: Vec<String> = (0..4)
                .map(|d| {
                    let index = format!("c * 4u + {d}u");
                    format!("select(0.0, {name}[at + min({index}, {0}u - 1u)], {index} < {0}u)", self.spec.dim)
                })
                .collect();
            line!(self, "            {tile}[e] = vec4<f32>({});", parts.join(", "));
        }
        line!(self, "        }}\n        workgroupBarrier();");
    }

    /// The loop over groups of four streamed rows `j..j + 4`.
    fn steps(&mut self, body: impl FnOnce(&mut Self)) {
        match self.spec.staging {
            Staging::Tiled(tile) => {
                line!(self, "        let end = min(tile + {tile}u, stop);");
                line!(self, "        for (var j = tile; j < end; j += 4u) {{");
                body(self);
                line!(self, "        }}\n        }}");
            }
            _ => {
                line!(self, "        for (var j = start; j < stop; j += 4u) {{");
                body(self);
                line!(self, "        }}");
            }
        }
    }

    /// Makes the four streamed rows of tensors available to [`Text::row`].
    fn open_rows(&mut self, names: &[&str]) {
        let side = if matches!(names[0], "q" | "dout") { "n" } else { "m" };
        for name in names {
            match self.spec.staging {
                Staging::Direct => {
                    for s in 0..4 {
                        let row = self.row_address(&format!("other + min(j + {s}u, u.{side} - 1u)"));
                        line!(self, "            let {name}_at{s} = {row};");
                        for c in 0..self.chunks {
                            let chunk = self.chunk(name, &format!("{name}_at{s}"), c);
                            line!(self, "            let {name}_{s}_{c} = {chunk};");
                        }
                    }
                }
                Staging::Quad => {
                    let row = self.row_address(&format!("other + min(j + (place & 3u), u.{side} - 1u)"));
                    line!(self, "            let {name}_at = {row};");
                    for c in 0..self.chunks {
                        let chunk = self.chunk(name, &format!("{name}_at"), c);
                        line!(self, "            let {name}_{c} = {chunk};");
                    }
                }
                Staging::Tiled(_) => {}
            }
        }
    }

    /// Declares `x0`..`x3`, chunk `c` of the four streamed rows of `name`.
    fn rows(&mut self, name: &str, c: usize) {
        for s in 0..4 {
            let value = match self.spec.staging {
                Staging::Direct => format!("{name}_{s}_{c}"),
                Staging::Quad => format!("quadBroadcast({name}_{c}, {s}u)"),
                Staging::Tiled(_) => {
                    let tile = if matches!(name, "k" | "q") { "tile_a" } else { "tile_b" };
                    format!("{tile}[(j - tile + {s}u) * {}u + {c}u]", self.chunks)
                }
            };
            line!(self, "                let x{s} = {value};");
        }
    }

    /// `result{r}`: the scores of owned row r of `owned` with the four streamed rows.
    fn scores(&mut self, result: &str, owned: &str, streamed: &str) {
        for r in 0..self.spec.rows {
            line!(self, "            var {result}{r} = vec4<f32>();");
        }
        for c in 0..self.chunks {
            line!(self, "            {{");
            self.rows(streamed, c);
            for r in 0..self.spec.rows {
                let dots: Vec<String> = (0..4).map(|s| format!("dot({owned}{r}_{c}, x{s})")).collect();
                line!(self, "                {result}{r} += vec4<f32>({});", dots.join(", "));
            }
            line!(self, "            }}");
        }
    }

    /// `result{r} += weight{r} x` over the four streamed rows x; `result{r}` is scaled by `keep{r}` before, if given.
    fn accumulate(&mut self, result: &str, weight: &str, streamed: &str, keep: Option<&str>) {
        for c in 0..self.chunks {
            line!(self, "            {{");
            self.rows(streamed, c);
            for r in 0..self.spec.rows {
                let keep = keep.map_or(String::new(), |keep| format!(" * {keep}{r}"));
                let terms: Vec<String> =
                    ["x", "y", "z", "w"].iter().enumerate().map(|(s, d)| format!("{weight}{r}.{d} * x{s}")).collect();
                line!(self, "                {result}{r}_{c} = {result}{r}_{c}{keep} + {};", terms.join(" + "));
            }
            line!(self, "            }}");
        }
    }

    /// Adds the bias to the scores.
    fn bias(&mut self) {
        if !self.spec.bias {
            return;
        }
        line!(self, "            let plane = bh / u.heads * u.bias_batch + bh % u.heads * u.bias_head;");
        for r in 0..self.spec.rows {
            let terms: Vec<String> = (0..4)
                .map(|s| {
                    let (i, j) = (format!("i{r}"), format!("j + {s}u"));
                    let (i, j) = if self.queries { (i, j) } else { (j, i) };
                    format!("bias[(plane * u.n + min({i}, u.n - 1u)) * u.m + min({j}, u.m - 1u)]")
                })
                .collect();
            line!(self, "            s{r} += vec4<f32>({});", terms.join(", "));
        }
    }

    /// Takes disallowed pairs out of the scores. A rule is asked pair by pair in a loop that is not entered where a whole block
    /// is allowed: software adapters skip loops but no branches, and take very long to compile many inlined copies of it.
    fn mask(&mut self) {
        let rows = self.spec.rows;
        if self.spec.masking == Masking::Diagonal {
            line!(self, "            if !whole || j + 4u > stop {{");
            for r in 0..rows {
                line!(self, "                s{r} = masked(s{r}, i{r}, j, stop);");
            }
            line!(self, "            }}");
        } else {
            let (i, j) = if self.queries { ("row + e / 4u", "other_row") } else { ("other_row", "row + e / 4u") };
            line!(self, "            let asked = select({}u, 0u, whole && j + 4u <= stop);", 4 * rows);
            line!(self, "            var allowed = select(0u, 0xffffffffu, asked == 0u);");
            line!(
                self,
                "            for (var e = 0u; e < asked; e += 1u) {{\n                let other_row = j + e % 4u;"
            );
            line!(self, "                let ok = other_row < stop && may(u.rule, {i}, {j});");
            line!(self, "                allowed |= select(0u, 1u << e, ok);\n            }}");
            for r in 0..rows {
                line!(
                    self,
                    "            let ok{r} = (vec4<u32>(allowed >> {}u) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>();",
                    4 * r
                );
                line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, ok{r});");
            }
        }
        if !self.spec.padding {
            return;
        }
        for r in 0..self.spec.rows {
            if !self.queries {
                line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, real{r} != 0.0);");
                continue;
            }
            if r == 0 {
                let (array, base, zero) = match self.forward {
                    true => ("padding", "", "0u"),
                    false => ("stats", "u.heads_total * u.n * 2u + ", "0.0"),
                };
                let real: Vec<String> = (0..4)
                    .map(|s| format!("{array}[{base}bh / u.heads * u.m + min(j + {s}u, u.m - 1u)] != {zero}"))
                    .collect();
                line!(self, "            let real = vec4<bool>({});", real.join(", "));
            }
            line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, real);");
        }
    }

    /// `masked(scores, owned row, first streamed row, end of the streamed rows)`, where one comparison decides.
    fn mask_function(&mut self) {
        if self.spec.masking == Masking::Rule {
            return;
        }
        line!(self, "fn masked(s: vec4<f32>, i: u32, j: u32, stop: u32) -> vec4<f32> {{");
        line!(self, "    let others = vec4<u32>(j, j + 1u, j + 2u, j + 3u);");
        if self.queries {
            line!(self, "    let seen = u32(max(i32(i) + bitcast<i32>(u.rule.shift) + 1, 0));");
            line!(self, "    let limit = select(stop, min(stop, seen), u.rule.causal != 0u);");
            line!(self, "    let ok = others < vec4<u32>(limit);");
        } else {
            line!(self, "    let seeing = u32(max(i32(i) - bitcast<i32>(u.rule.shift), 0));");
            line!(self, "    let least = select(0u, seeing, u.rule.causal != 0u);");
            line!(self, "    let ok = (others < vec4<u32>(stop)) & (others >= vec4<u32>(least));");
        }
        line!(self, "    return select(vec4<f32>({LOWEST}), s, ok);\n}}");
    }
}

/// The first backward pass: `stats[row] = (log-sum-exp, delta)` with `delta = dout . o - dlse`; behind them the key padding as
/// floats, so that the kernels that follow need no binding for it. One invocation for each row or key.
pub fn backward_pre(spec: &Spec, dlse: bool) -> Kernel {
    let mut t = Text::bare(spec);
    t.entry = "backward_pre";
    let element = if spec.dim.is_multiple_of(4) { "vec4<f32>" } else { "f32" };
    t.declare("o", "read", element);
    t.declare("dout", "read", element);
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
        true => (spec.dim / 4, "dot(o[at], dout[at])"),
        false => (spec.dim, "o[at] * dout[at]"),
    };
    line!(t, "    var delta = 0.0;\n    for (var at = row * {width}u; at < (row + 1u) * {width}u; at += 1u) {{");
    line!(t, "        delta += {product};\n    }}");
    line!(t, "    stats[row * 2u] = lse[row];");
    line!(t, "    stats[row * 2u + 1u] = delta{};", if dlse { " - dlse[row]" } else { "" });
    t.end()
}
