//! The frame of a kernel: declarations, the entry point, owned rows, the loops over streamed rows, and how those are reached.

use super::{Kernel, MASK, Masking, Spec, Staging};
use std::fmt::Write;

/// A kernel being written.
pub(super) struct Text {
    pub wgsl: String,
    pub entry: &'static str,
    pub bindings: Vec<&'static str>,
    pub spec: Spec,
    /// Groups of four components in a row.
    pub chunks: usize,
    /// The owned rows are queries, the streamed ones keys.
    pub queries: bool,
    pub forward: bool,
}

impl Text {
    /// The parameters, and what they need.
    pub(super) fn bare(spec: &Spec) -> Self {
        let chunks = spec.dim.div_ceil(4);
        let (wgsl, bindings) = (String::new(), Vec::new());
        let mut t = Text { wgsl, entry: "", bindings, spec: spec.clone(), chunks, queries: true, forward: false };
        if spec.half {
            line!(t, "enable f16;");
        }
        if spec.staging == Staging::Quad && cfg!(target_arch = "wasm32") {
            // Browsers require the directive; naga, which reads the text elsewhere, rejects it.
            line!(t, "enable subgroups;");
        }
        t.wgsl.push_str(MASK);
        line!(t, "struct Params {{\n    origin: vec4<u32>,\n    rule: Mask,");
        for field in ["n", "m", "heads", "heads_total", "list_heads", "list_blocks", "block", "runs_at"] {
            line!(t, "    {field}: u32,");
        }
        line!(t, "    scale: f32,\n    bias_batch: u32,\n    bias_head: u32,");
        // Rows of an owned block, and how many workgroups share one.
        line!(
            t,
            "    own_block: u32,\n    parts: u32,\n    reserved_a: u32,\n    reserved_b: u32,\n    reserved_c: u32,\n}}"
        );
        t
    }

    /// Declarations of a kernel: the tensors `inputs` and `outputs` of rows of D, `scalars` with one element for a row, and the
    /// list, statistics, padding and bias in between.
    pub(super) fn new(
        spec: &Spec,
        inputs: &[&'static str],
        outputs: &[&'static str],
        scalars: &[&'static str],
        forward: bool,
    ) -> Self {
        let mut t = Self::bare(spec);
        t.forward = forward;
        for name in inputs {
            t.declare(name, "read", spec.element());
        }
        t.declare("list", "read", if spec.words() > 0 { "vec4<u32>" } else { "u32" });
        if !forward {
            t.declare("stats", "read", "f32");
        } else if spec.padding {
            t.declare("padding", "read", "u32");
        }
        if spec.bias {
            t.declare("bias", "read", "f32");
        }
        if spec.distances {
            t.declare("distances", "read", "f32");
        }
        for name in outputs {
            t.declare(name, "read_write", spec.element());
        }
        for name in scalars {
            t.declare(name, "read_write", "f32");
        }
        t.uniforms_and_tiles();
        t
    }

    /// What is declared behind the tensors.
    pub(super) fn uniforms_and_tiles(&mut self) {
        line!(self, "@group(1) @binding(0) var<uniform> u: Params;");
        if let Staging::Tiled(tile) = self.spec.staging {
            line!(self, "var<workgroup> tile_a: array<vec4<f32>, {}>;", tile * self.chunks);
            line!(self, "var<workgroup> tile_b: array<vec4<f32>, {}>;", tile * self.chunks);
        }
    }

    pub(super) fn end(mut self) -> Kernel {
        line!(self, "}}");
        Kernel { wgsl: self.wgsl, entry: self.entry, bindings: self.bindings }
    }

    /// Declares the next storage binding.
    pub(super) fn declare(&mut self, name: &'static str, access: &str, element: &str) {
        let binding = self.bindings.len();
        line!(self, "@group(0) @binding({binding}) var<storage, {access}> {name}: array<{element}>;");
        self.bindings.push(name);
    }

    /// The entry point: `bh` is the head among all, `row` the first of the rows owned by this invocation, `own` and `other`
    /// the lengths of the owned and the streamed side.
    pub(super) fn begin(&mut self, entry: &'static str, own: &str) {
        self.entry = entry;
        let Spec { rows, lanes, staging, masking, .. } = self.spec;
        self.queries = own == "n";
        self.mask_function();
        let quad = if staging == Staging::Quad { ", @builtin(subgroup_invocation_id) place: u32" } else { "" };
        line!(self, "@compute @workgroup_size({lanes})");
        line!(
            self,
            "fn {entry}(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32{quad}) {{"
        );
        line!(self, "    let group = id + u.origin.xyz;\n    let bh = group.y;");
        let gathers = staging == Staging::Gather;
        if gathers {
            line!(self, "    let first_row = group.x * {lanes}u;\n    let end_row = u.{own};");
        } else {
            // The last workgroup of a block may stand over its end.
            line!(self, "    let block = group.x / u.parts;");
            line!(self, "    let first_row = block * u.own_block + group.x % u.parts * {}u;", rows * lanes);
            line!(self, "    let end_row = min((block + 1u) * u.own_block, u.{own});");
        }
        line!(self, "    let row = first_row + lane * {rows}u;");
        line!(self, "    let own = bh * u.{own};");
        match masking {
            Masking::Rounds { .. } => self.sorted_rows(),
            _ => (0..rows).for_each(|r| line!(self, "    let i{r} = row + {r}u;")),
        }
        match masking {
            Masking::Rule { by_head: true, .. } => line!(self, "    let rule = of_head(u.rule, bh % u.heads);"),
            Masking::Rule { .. } => line!(self, "    let rule = u.rule;"),
            Masking::Bits => {
                line!(self, "    let bits_at = u.rule.reach + bh % u.rule.part * u.n * (u.rule.slot / 32u);");
            }
            Masking::Diagonal | Masking::Band | Masking::BandAndGlobal | Masking::Rounds { .. } => {}
        }
        self.distances_of_head();
        let place = if gathers { format!("min(i0, u.{own} - 1u)") } else { "block".to_owned() };
        line!(self, "    let entry = bh % u.list_heads * u.list_blocks + {place};");
    }

    /// Address of a row, in elements of the array.
    pub(super) fn row_address(&self, row: &str) -> String {
        let width = if self.spec.dim.is_multiple_of(4) { self.chunks } else { self.spec.dim };
        format!("({row}) * {width}u")
    }

    /// Four components of a row that starts at `base`; those beyond D are zero.
    pub(super) fn chunk(&self, array: &str, base: &str, c: usize) -> String {
        if self.spec.dim.is_multiple_of(4) {
            return format!("vec4<f32>({array}[{base} + {c}u])");
        }
        let parts: Vec<String> = (c * 4..c * 4 + 4)
            .map(|d| if d < self.spec.dim { format!("f32({array}[{base} + {d}u])") } else { "0.0".into() })
            .collect();
        format!("vec4<f32>({})", parts.join(", "))
    }

    pub(super) fn load_owned(&mut self, tensors: &[(&str, &str)], r: usize) {
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

    pub(super) fn zero(&mut self, names: &[&str], r: usize) {
        for name in names {
            for c in 0..self.chunks {
                line!(self, "    var {name}{r}_{c} = vec4<f32>();");
            }
        }
    }

    pub(super) fn store_owned(&mut self, name: &str, r: usize, factor: &str) {
        let base = self.row_address(&format!("own + i{r}"));
        let before = |at: &str, zero: &str| match self.spec.words() {
            0 => String::new(),
            _ => format!(" + select({zero}, {name}[{at}] * {}, later)", if self.forward { "kept" } else { "1.0" }),
        };
        let mut lines = Vec::new();
        for c in 0..self.chunks {
            if self.spec.dim.is_multiple_of(4) {
                let vector = self.spec.vector();
                let at = format!("{base} + {c}u");
                let before = before(&at, "vec4<f32>()");
                lines.push(format!("        {name}[{at}] = {vector}({name}{r}_{c} * {factor}{before});"));
                continue;
            }
            for (d, component) in (c * 4..self.spec.dim).zip(["x", "y", "z", "w"]) {
                let scalar = self.spec.scalar();
                let at = format!("{base} + {d}u");
                let before = before(&at, "0.0");
                lines.push(format!("        {name}[{at}] = {scalar}({name}{r}_{c}.{component} * {factor}{before});"));
            }
        }
        lines.iter().for_each(|text| line!(self, "{text}"));
    }

    /// The loop over the runs of this block: streamed rows `start..stop`. What of a run lies beyond the diagonal or
    /// outside the band for every row of the workgroup is cut off.
    pub(super) fn runs(&mut self, streamed: &str, body: impl FnOnce(&mut Self)) {
        line!(self, "    let other = bh * u.{streamed};");
        if self.spec.words() > 0 {
            return self.runs_of_chunks(body);
        }
        match self.spec.staging {
            Staging::Chosen => return self.chosen_blocks(body),
            Staging::Readers => return self.readers_of_block(body),
            _ => {}
        }
        if self.spec.staging == Staging::Gather {
            line!(self, "    let start = list[entry];\n    let stop = list[entry + 1u];");
            return body(self);
        }
        line!(self, "    let last_run = list[entry + 1u];");
        line!(self, "    for (var run = list[entry]; run < last_run; run += 1u) {{");
        line!(
            self,
            "        let first = list[u.runs_at + 2u * run];\n        let packed = list[u.runs_at + 2u * run + 1u];"
        );
        line!(self, "        let whole = (packed & 1u) != 0u;");
        line!(self, "        var start = first * u.block;");
        line!(self, "        var stop = min((first + (packed >> 1u)) * u.block, u.{streamed});");
        let last = format!("(first_row + {}u)", self.spec.rows * self.spec.lanes - 1);
        let (low, high) = self.range_of("first_row", &last);
        if let Some(low) = low {
            line!(self, "        start += (max(start, {low}) - start) / 4u * 4u;");
        }
        if let Some(high) = high {
            line!(self, "        stop = min(stop, {high});");
        }
        if self.spec.masking == Masking::BandAndGlobal {
            self.skip_between(&last);
        }
        self.within_reach(&last);
        body(self);
        line!(self, "    }}");
    }

    /// Opens the loop over tiles and fills them with rows of both streamed tensors.
    pub(super) fn stage(&mut self, names: &[&str]) {
        let Staging::Tiled(tile) = self.spec.staging else { return };
        let (chunks, lanes) = (self.chunks, self.spec.lanes);
        line!(self, "        for (var tile = start; tile < stop; tile += {tile}u) {{\n        workgroupBarrier();");
        line!(self, "        for (var e = lane; e < {}u; e += {lanes}u) {{", tile * chunks);
        let streamed = self.streamed(&format!("min(tile + e / {chunks}u, stop - 1u)"));
        let row = self.row_address(&format!("other + {streamed}"));
        line!(self, "            let at = {row};\n            let c = e % {chunks}u;");
        for (name, tile) in names.iter().zip(["tile_a", "tile_b"]) {
            if self.spec.dim.is_multiple_of(4) {
                line!(self, "            {tile}[e] = vec4<f32>({name}[at + c]);");
                continue;
            }
            let parts: Vec<String> = (0..4)
                .map(|d| {
                    let index = format!("c * 4u + {d}u");
                    format!("select(0.0, f32({name}[at + min({index}, {0}u - 1u)]), {index} < {0}u)", self.spec.dim)
                })
                .collect();
            line!(self, "            {tile}[e] = vec4<f32>({});", parts.join(", "));
        }
        line!(self, "        }}\n        workgroupBarrier();");
    }

    /// The loop over groups of four streamed rows `id0`..`id3`, which are `j..j + 4` but for lists of single rows.
    pub(super) fn steps(&mut self, body: impl FnOnce(&mut Self)) {
        let (first, end) = if self.tiled() { ("tile", "end") } else { ("start", "stop") };
        if let Staging::Tiled(tile) = self.spec.staging {
            line!(self, "        let end = min(tile + {tile}u, stop);");
        }
        line!(self, "        for (var j = {first}; j < {end}; j += 4u) {{");
        if self.spec.words() > 0 {
            self.sorted_step();
        }
        for s in 0..4 {
            let id = match self.spec.staging {
                Staging::Gather => format!("list[u.runs_at + min(j + {s}u, stop - 1u)]"),
                Staging::Readers => format!("list[min(j + {s}u, stop - 1u)]"),
                Staging::Quad if self.spec.words() > 0 => format!("quadBroadcast(mine, {s}u)"),
                _ if self.spec.words() > 0 => self.streamed(&format!("min(j + {s}u, stop - 1u)")),
                _ => format!("min(j + {s}u, stop - 1u)"),
            };
            line!(self, "            let id{s} = {id};");
        }
        body(self);
        line!(self, "        }}");
        if self.tiled() {
            line!(self, "        }}");
        }
    }

    pub(super) fn tiled(&self) -> bool {
        matches!(self.spec.staging, Staging::Tiled(_))
    }

    /// Makes the four streamed rows of tensors available to [`Text::row`].
    pub(super) fn open_rows(&mut self, names: &[&str]) {
        for name in names {
            match self.spec.staging {
                Staging::Direct | Staging::Gather | Staging::Chosen | Staging::Readers => {
                    for s in 0..4 {
                        let row = self.row_address(&format!("other + id{s}"));
                        line!(self, "            let {name}_at{s} = {row};");
                        for c in 0..self.chunks {
                            let chunk = self.chunk(name, &format!("{name}_at{s}"), c);
                            line!(self, "            let {name}_{s}_{c} = {chunk};");
                        }
                    }
                }
                Staging::Quad => {
                    let mine = if self.spec.words() > 0 { "mine" } else { "min(j + (place & 3u), stop - 1u)" };
                    let row = self.row_address(&format!("other + {mine}"));
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
    pub(super) fn rows(&mut self, name: &str, c: usize) {
        for s in 0..4 {
            let value = match self.spec.staging {
                Staging::Direct | Staging::Gather | Staging::Chosen | Staging::Readers => {
                    format!("{name}_{s}_{c}")
                }
                Staging::Quad => format!("quadBroadcast({name}_{c}, {s}u)"),
                Staging::Tiled(_) => {
                    let tile = if matches!(name, "k" | "q") { "tile_a" } else { "tile_b" };
                    format!("{tile}[(j - tile + {s}u) * {}u + {c}u]", self.chunks)
                }
            };
            line!(self, "                let x{s} = {value};");
        }
    }
}
