//! A factor of the weights for each distance, and how far a query looks at all: `distances` `[H, reserved_a]`, of each head its
//! reach, then the factors from distance 0 on.

use super::text::Text;
use super::{Kernel, LOWEST, Spec};
use std::fmt::Write;

/// Invocations of a workgroup of [`backward_distances`].
pub const DISTANCE_LANES: usize = 64;

impl Text {
    /// Where the head's numbers begin, and its reach.
    pub(super) fn distances_of_head(&mut self) {
        if self.spec.distances {
            line!(self, "    let distances_at = bh % u.heads * u.reserved_a;");
            line!(self, "    let reach_of_head = i32(clamp(distances[distances_at], 0.0, 1.0e9));");
        }
    }

    /// Cuts off what of a run is beyond the reach of every row of the workgroup.
    pub(super) fn within_reach(&mut self, last: &str) {
        if !self.spec.distances {
            return;
        }
        let shift = if self.queries { "+ bitcast<i32>(u.rule.shift)" } else { "- bitcast<i32>(u.rule.shift)" };
        line!(self, "        let nearest = u32(max(i32(first_row) {shift} - reach_of_head, 0));");
        line!(self, "        start += (max(start, nearest) - start) / 4u * 4u;");
        line!(self, "        stop = min(stop, u32(max(i32({last}) {shift} + reach_of_head + 1, 0)));");
    }

    /// `w{r}`, the factors of four pairs; those of factor 0 are taken out of the scores. Rows of an invocation are neighbours, and
    /// so are the streamed ones, so that most pairs share their distances.
    pub(super) fn distances(&mut self) {
        if !self.spec.distances {
            return;
        }
        let rows = self.spec.rows;
        let (ahead, before) = if self.queries {
            ("i32(i0) + bitcast<i32>(u.rule.shift) - i32(j)", 3)
        } else {
            ("i32(j) + bitcast<i32>(u.rule.shift) - i32(i0)", rows - 1)
        };
        line!(self, "            let ahead = {ahead};");
        for t in 0..rows + 3 {
            line!(
                self,
                "            let f{t} = distances[distances_at + 1u + min(u32(abs(ahead + {t} - {before})), u.reserved_a - 2u)];"
            );
        }
        for r in 0..rows {
            let at = |s: usize| if self.queries { before + r - s } else { before + s - r };
            let factors: Vec<String> = (0..4).map(|s| format!("f{}", at(s))).collect();
            line!(self, "            let w{r} = vec4<f32>({});", factors.join(", "));
            line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, w{r} > vec4<f32>());");
        }
    }

    /// What a weight of row `r` is multiplied by, before the exponential.
    pub(super) fn factor(&self, r: usize) -> String {
        if self.spec.distances || self.spec.words() > 0 { format!("w{r} * ") } else { String::new() }
    }
}

/// `ddistances[h, 1 + d] = Σ exp(s - lse) (dout v^T - delta)` over the pairs at distance d of head h in all batch entries; 0 where
/// the factor is 0, and for the reach. One invocation for each number, so that nothing is added atomically.
pub fn backward_distances(spec: &Spec, may: &str) -> Kernel {
    let mut t = Text::bare(spec);
    t.entry = "backward_distances";
    for name in ["q", "k", "v", "dout"] {
        t.declare(name, "read", spec.element());
    }
    t.declare("stats", "read", "f32");
    t.declare("distances", "read", "f32");
    t.declare("ddistances", "read_write", "f32");
    line!(t, "@group(1) @binding(0) var<uniform> u: Params;");
    line!(t, "@compute @workgroup_size({DISTANCE_LANES})");
    line!(
        t,
        "fn backward_distances(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{"
    );
    line!(t, "    let group = id + u.origin.xyz;\n    let at = group.x * {DISTANCE_LANES}u + lane;");
    line!(t, "    if at >= u.reserved_a {{\n        return;\n    }}");
    line!(t, "    let own = group.y * u.reserved_a;\n    let distance = i32(at) - 1;\n    var sum = 0.0;");
    line!(t, "    let is_read = at > 0u && f32(distance) <= distances[own] && distances[own + at] > 0.0;");
    line!(t, "    for (var bh = group.y; is_read && bh < u.heads_total; bh += u.heads) {{");
    line!(t, "        for (var at_i = 0u; at_i < u.n * 2u; at_i += 1u) {{");
    // Each query looks back and ahead.
    line!(t, "            let i = at_i / 2u;\n            let ahead = at_i % 2u == 1u;");
    line!(t, "            let j = i32(i) + bitcast<i32>(u.rule.shift) - select(distance, -distance, ahead);");
    line!(t, "            let twice = ahead && distance == 0;");
    line!(
        t,
        "            if twice || j < 0 || j >= i32(u.m) || !{may}(u.rule, i, u32(max(j, 0))) {{\n                continue;\n            }}"
    );
    if spec.padding {
        line!(t, "            if stats[u.heads_total * u.n * 2u + bh / u.heads * u.m + u32(j)] == 0.0 {{");
        line!(t, "                continue;\n            }}");
    }
    line!(t, "            let row = bh * u.n + i;");
    line!(t, "            let query_at = {};", t.row_address("row"));
    line!(t, "            let key_at = {};", t.row_address("bh * u.m + u32(j)"));
    line!(t, "            var s = 0.0;\n            var dp = 0.0;");
    for c in 0..t.chunks {
        let [q, dout] = ["q", "dout"].map(|name| t.chunk(name, "query_at", c));
        let [k, v] = ["k", "v"].map(|name| t.chunk(name, "key_at", c));
        line!(t, "            s += dot({q}, {k});\n            dp += dot({dout}, {v});");
    }
    line!(
        t,
        "            sum += exp(s * u.scale - stats[row * 2u]) * (dp - stats[row * 2u + 1u]);\n        }}\n    }}"
    );
    line!(t, "    ddistances[own + at] = sum;");
    t.end()
}
