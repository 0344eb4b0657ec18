//! What happens to four streamed rows: scores, bias, mask, and the weighted sum.

use super::text::Text;
use super::{LOWEST, Masking, Staging};
use std::fmt::Write;

impl Text {
    /// `result{r}`: the scores of owned row r of `owned` with the four streamed rows.
    pub(super) fn scores(&mut self, result: &str, owned: &str, streamed: &str) {
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
    pub(super) fn accumulate(&mut self, result: &str, weight: &str, streamed: &str, keep: Option<&str>) {
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
    pub(super) fn bias(&mut self) {
        if !self.spec.bias {
            return;
        }
        line!(self, "            let plane = bh / u.heads * u.bias_batch + bh % u.heads * u.bias_head;");
        for r in 0..self.spec.rows {
            let terms: Vec<String> = (0..4)
                .map(|s| {
                    let (i, j) = (format!("i{r}"), format!("id{s}"));
                    let (i, j) = if self.queries { (i, j) } else { (j, i) };
                    format!("bias[(plane * u.n + min({i}, u.n - 1u)) * u.m + min({j}, u.m - 1u)]")
                })
                .collect();
            line!(self, "            s{r} += vec4<f32>({});", terms.join(", "));
        }
    }

    /// Takes disallowed pairs out of the scores.
    pub(super) fn mask(&mut self) {
        let rows = self.spec.rows;
        match self.spec.masking {
            _ if self.spec.staging == Staging::Gather => {
                line!(self, "            let listed = vec4<u32>(j, j + 1u, j + 2u, j + 3u) < vec4<u32>(stop);");
                line!(self, "            s0 = select(vec4<f32>({LOWEST}), s0, listed);");
            }
            _ if matches!(self.spec.staging, Staging::Chosen | Staging::Readers) => self.mask_chosen(),
            Masking::Diagonal | Masking::Band | Masking::BandAndGlobal => {
                line!(self, "            if !whole || j + 4u > stop {{");
                for r in 0..rows {
                    line!(self, "                s{r} = masked(s{r}, i{r}, j, stop);");
                }
                line!(self, "            }}");
            }
            Masking::Rule { function, .. } => self.mask_by_rule(|i, j| format!("{function}(rule, {i}, {j})")),
            Masking::Rounds { .. } => self.mask_rounds(),
            Masking::Bits => {
                let word = |i: &str, j: &str| format!("list[bits_at + ({i}) * (u.rule.slot / 32u) + {j} / 32u]");
                self.mask_by_rule(|i, j| format!("(({} >> ({j} % 32u)) & 1u) != 0u", word(i, j)));
            }
        }
        self.mask_padding();
    }

    /// Asks a rule pair by pair, in a loop that is not entered where a whole block is allowed: software adapters skip loops
    /// but no branches, and take very long to compile many inlined copies of it.
    fn mask_by_rule(&mut self, may: impl Fn(&str, &str) -> String) {
        let rows = self.spec.rows;
        let (i, j) = if self.queries { ("(row + e / 4u)", "other_row") } else { ("other_row", "(row + e / 4u)") };
        line!(self, "            let asked = select({}u, 0u, whole && j + 4u <= stop);", 4 * rows);
        line!(self, "            var allowed = select(0u, 0xffffffffu, asked == 0u);");
        line!(self, "            for (var e = 0u; e < asked; e += 1u) {{\n                let other_row = j + e % 4u;");
        line!(self, "                let ok = other_row < stop && {};", may(i, j));
        line!(self, "                allowed |= select(0u, 1u << e, ok);\n            }}");
        for r in 0..rows {
            let bits = format!("vec4<u32>(allowed >> {}u) & vec4<u32>(1u, 2u, 4u, 8u)", 4 * r);
            line!(self, "            let ok{r} = ({bits}) != vec4<u32>();");
            line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, ok{r});");
        }
    }

    /// Takes padded keys out of the scores.
    pub(super) fn mask_padding(&mut self) {
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
                let real: Vec<String> =
                    (0..4).map(|s| format!("{array}[{base}bh / u.heads * u.m + id{s}] != {zero}")).collect();
                line!(self, "            let real = vec4<bool>({});", real.join(", "));
            }
            line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, real);");
        }
    }

    /// `masked(scores, owned row, first streamed row, end of the streamed rows)`, where comparisons with the ends of a few ranges
    /// decide.
    pub(super) fn mask_function(&mut self) {
        if self.spec.words() > 0 {
            return self.order_functions();
        }
        let by_list = matches!(self.spec.staging, Staging::Gather | Staging::Chosen | Staging::Readers);
        if matches!(self.spec.masking, Masking::Rule { .. } | Masking::Bits) || by_list {
            return;
        }
        self.reach_function();
        line!(self, "fn masked(s: vec4<f32>, i: u32, j: u32, stop: u32) -> vec4<f32> {{");
        line!(self, "    let others = vec4<u32>(j, j + 1u, j + 2u, j + 3u);");
        if self.spec.masking == Masking::BandAndGlobal {
            return self.band_or_global();
        }
        let (low, high) = self.range_of("i", "i");
        line!(self, "    let high = min(stop, {});", high.as_deref().unwrap_or("stop"));
        let behind = if low.is_some() { " & (others >= vec4<u32>(low))" } else { "" };
        if let Some(low) = low {
            line!(self, "    let low = {low};");
        }
        line!(self, "    return select(vec4<f32>({LOWEST}), s, (others < vec4<u32>(high)){behind});\n}}");
    }

    /// The rest of `masked` where the first tokens see all and are seen by all, besides a band.
    fn band_or_global(&mut self) {
        let others_in = |low: &str, high: &str| format!("(others >= vec4<u32>({low})) & (others < vec4<u32>({high}))");
        let (band, order) = (self.bounds(true, "i", "i"), self.bounds(false, "i", "i"));
        let or = |bound: Option<String>, other: &str| bound.unwrap_or_else(|| other.to_owned());
        let (place, shift) = self.places();
        line!(self, "    let count = i32(min(u.rule.count, 0x3fffffffu));\n    let place = i32(i){place};");
        line!(self, "    let first = u32(max(-({shift}), 0));\n    let end = u32(max(count - {shift}, 0));");
        line!(self, "    let low = {};\n    let high = {};", or(band.0, "0u"), or(band.1, "stop"));
        line!(self, "    let least = {};\n    let most = min(stop, {});", or(order.0, "0u"), or(order.1, "stop"));
        line!(self, "    let near = {};", others_in("low", "high"));
        line!(self, "    let linked = ({}) | vec4<bool>(place >= 0 && place < count);", others_in("first", "end"));
        line!(self, "    let ok = (near | linked) & {};", others_in("least", "most"));
        line!(self, "    return select(vec4<f32>({LOWEST}), s, ok);\n}}");
    }

    /// Where no owned row is global, leaves out of a run what lies between the global tokens and the band, and behind that.
    pub(super) fn skip_between(&mut self, last: &str) {
        let (Some(low), Some(high)) = self.bounds(true, "first_row", last) else { return };
        let (place, shift) = self.places();
        line!(self, "        let count = i32(min(u.rule.count, 0x3fffffffu));");
        line!(self, "        let linked = u32(max(count - {shift}, 0));");
        line!(self, "        if i32(first_row){place} >= count || i32{last}{place} < 0 {{");
        line!(self, "            let near = {low};");
        line!(self, "            stop = min(stop, select(max({high}, linked), linked, near >= stop));");
        line!(
            self,
            "            start += select(0u, (max(start, near) - start) / 4u * 4u, start >= linked);\n        }}"
        );
    }

    /// Added to an owned row, and to a streamed one, for its position among the keys: queries and keys end together.
    fn places(&self) -> (&'static str, &'static str) {
        if self.queries { (" + bitcast<i32>(u.rule.shift)", "0") } else { ("", "bitcast<i32>(u.rule.shift)") }
    }

    /// How far a band reaches, so that adding it to a position stays within 32 bits.
    fn reach_function(&mut self) {
        if matches!(self.spec.masking, Masking::Band | Masking::BandAndGlobal) {
            line!(self, "fn reach() -> i32 {{\n    return i32(min(u.rule.reach, 0x3fffffffu));\n}}");
        }
    }

    /// The streamed rows that the owned rows `first..=last` may meet: the first one and the end of them, as expressions; none
    /// where there is no such bound. Of rules that are ranges, for whole ones more than is allowed.
    pub(super) fn range_of(&self, first: &str, last: &str) -> (Option<String>, Option<String>) {
        self.bounds(self.spec.masking == Masking::Band, first, last)
    }

    /// The same of a band, or of what is not ahead when causal.
    fn bounds(&self, band: bool, first: &str, last: &str) -> (Option<String>, Option<String>) {
        // How far a streamed row may lie before and after the row of its own position.
        let (ahead, back) = match band {
            true => ("select(reach(), 0, u.rule.causal != 0u)", Some("reach()")),
            false => ("select(0x3fffffff, 0, u.rule.causal != 0u)", None),
        };
        let bound = |row: &str, sign: &str, by: &str, end: &str| {
            let shift = if self.queries { "+" } else { "-" };
            format!("u32(max(i32({row}) {shift} bitcast<i32>(u.rule.shift) {sign} {by}{end}, 0))")
        };
        if self.queries {
            (back.map(|back| bound(first, "-", back, "")), Some(bound(last, "+", ahead, " + 1")))
        } else {
            (Some(bound(first, "-", ahead, "")), back.map(|back| bound(last, "+", back, " + 1")))
        }
    }
}
