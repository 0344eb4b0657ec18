//! Rows in sorted orders that are cut into chunks: an owned row meets those of its chunk and of the one beside it (the one before
//! for a query, the one behind for a key, and round from one end to the other), as far as they have its bucket. There are several
//! orders, each a *round* and a dispatch, which adds to what the rounds before it have left.
//!
//! `list` holds of each head and round the rows in order, and from `runs_at` on (in fours) of each row its *slots*: bucket times
//! chunks plus chunk, a component for each round, all bits for what is never met. So a pair's slots tell in how many
//! rounds it meets, and its weight is divided by that. Of the uniforms `list_blocks` is how many chunks there are, `reserved_b`
//! the round, `reserved_c` how many; bit 0 of `reserved_a` says that no query meets keys behind it, bit 1 that rows of a bucket
//! ascend; `bias_batch` has the bits of a row's score with itself, which has no gradient.

use super::text::Text;
use super::{EMPTY, LOWEST, Staging};
use std::fmt::Write;

/// There are fewer buckets than this.
pub const MOST_BUCKETS: usize = 512;

impl Text {
    /// How the order is read.
    pub(super) fn order_functions(&mut self) {
        line!(self, "fn token(at: u32) -> u32 {{\n    return list[at / 4u][at % 4u];\n}}");
        // What is never met must not meet its like.
        line!(self, "fn owned_slots(slots: vec4<u32>) -> vec4<u32> {{");
        line!(self, "    return select(slots, vec4<u32>(0x7ffffff0u), slots == vec4<u32>(0xffffffffu));\n}}");
        line!(self, "fn beside(slots: vec4<u32>) -> vec4<u32> {{");
        line!(self, "    let chunk = slots % vec4<u32>(u.list_blocks);");
        let (edge, other_end, step) =
            if self.queries { ("0u", "u.list_blocks - 1u", "-") } else { ("u.list_blocks - 1u", "0u", "+") };
        line!(self, "    let next = select(chunk {step} 1u, vec4<u32>({other_end}), chunk == vec4<u32>({edge}));");
        line!(self, "    return (slots - chunk) + next;\n}}");
        line!(self, "fn bucket(order: u32, other: u32, place: u32) -> u32 {{");
        let words = self.spec.words();
        line!(self, "    let slots = list[u.runs_at + (other + token(order + place)) * {words}u + u.reserved_b / 4u];");
        line!(self, "    return slots[u.reserved_b % 4u] / u.list_blocks;\n}}");
        // Buckets ascend in the order.
        line!(self, "fn first_from(order: u32, other: u32, start: u32, stop: u32, least: u32) -> u32 {{");
        line!(self, "    var low = start;\n    var high = stop;\n    while low < high {{");
        line!(self, "        let middle = (low + high) / 2u;\n        if bucket(order, other, middle) < least {{");
        line!(
            self,
            "            low = middle + 1u;\n        }} else {{\n            high = middle;\n        }}\n    }}"
        );
        line!(self, "    return low;\n}}");
    }

    /// The owned rows, and their slots.
    pub(super) fn sorted_rows(&mut self) {
        let words = self.spec.words();
        line!(self, "    let order = (bh * u.reserved_c + u.reserved_b) * u.n;\n    let later = u.reserved_b > 0u;");
        for r in 0..self.spec.rows {
            line!(self, "    let i{r} = token(order + min(row + {r}u, u.n - 1u));");
            for w in 0..words {
                line!(self, "    let own{r}_{w} = owned_slots(list[u.runs_at + (own + i{r}) * {words}u + {w}u]);");
                line!(self, "    let near{r}_{w} = beside(own{r}_{w});");
            }
            line!(self, "    let own{r} = {};", self.of_round(&format!("own{r}")));
            line!(self, "    let near{r} = {};", self.of_round(&format!("near{r}")));
        }
    }

    /// The slot of this round, of those named like this.
    fn of_round(&self, name: &str) -> String {
        match self.spec.words() {
            1 => format!("{name}_0[u.reserved_b]"),
            _ => format!("select({name}_0[u.reserved_b % 4u], {name}_1[u.reserved_b % 4u], u.reserved_b > 3u)"),
        }
    }

    /// The loop over the two chunks that the owned rows meet, cut down to places `start..stop` where their buckets are.
    pub(super) fn runs_of_chunks(&mut self, body: impl FnOnce(&mut Self)) {
        let owned = self.spec.rows * self.spec.lanes;
        line!(self, "    let after = max(min(first_row + {owned}u, end_row), 1u);");
        line!(self, "    let least = bucket(order, other, min(first_row, after - 1u));");
        // Those that are never met have the last number.
        line!(self, "    let most = min(bucket(order, other, after - 1u), {}u);", MOST_BUCKETS - 1);
        line!(self, "    let chunk_beside = beside(vec4<u32>(block)).x;");
        line!(self, "    for (var part = 0u; part < min(u.list_blocks, 2u); part += 1u) {{");
        line!(self, "        let chunk = select(chunk_beside, block, part == 0u);");
        line!(self, "        let behind = min((chunk + 1u) * u.block, u.n);");
        line!(self, "        var start = first_from(order, other, chunk * u.block, behind, least);");
        line!(self, "        var stop = first_from(order, other, start, behind, most + 1u);");
        line!(self, "        if part == 0u && u.reserved_a == 3u {{");
        match self.queries {
            true => line!(self, "            stop = min(stop, after);"),
            false => line!(self, "            start = max(start, first_row);"),
        }
        line!(self, "        }}");
        body(self);
        line!(self, "    }}");
    }

    /// The streamed row at a place.
    pub(super) fn streamed(&self, place: &str) -> String {
        if self.spec.words() > 0 { format!("token(order + {place})") } else { place.to_owned() }
    }

    /// What four streamed rows need before they are named: in quads each invocation looks one of them up.
    pub(super) fn sorted_step(&mut self) {
        if self.spec.staging == Staging::Quad {
            line!(self, "            let mine = token(order + min(j + (place & 3u), stop - 1u));");
        }
    }

    /// Takes out of the scores what does not meet in this round, and gives `w{r}`, one over the number of rounds that a pair
    /// meets in, and `itself{r}`.
    pub(super) fn mask_rounds(&mut self) {
        let words = self.spec.words();
        let at = |row: &str, w: usize| format!("list[u.runs_at + (other + {row}) * {words}u + {w}u]");
        for w in 0..words {
            if self.spec.staging == Staging::Quad {
                line!(self, "            let slots_{w} = {};", at("mine", w));
            }
            for s in 0..4 {
                let slots = match self.spec.staging {
                    Staging::Quad => format!("quadBroadcast(slots_{w}, {s}u)"),
                    _ => at(&format!("id{s}"), w),
                };
                line!(self, "            let slots{s}_{w} = {slots};");
            }
        }
        let here: Vec<String> = (0..4).map(|s| self.of_round(&format!("slots{s}"))).collect();
        line!(self, "            let here = vec4<u32>({});", here.join(", "));
        line!(self, "            let ids = vec4<u32>(id0, id1, id2, id3);");
        line!(self, "            let inside = vec4<u32>(j, j + 1u, j + 2u, j + 3u) < vec4<u32>(stop);");
        let past = if self.queries { "<=" } else { ">=" };
        for r in 0..self.spec.rows {
            let times: Vec<String> = (0..4)
                .map(|s| {
                    let met = |w| {
                        let same = format!("(slots{s}_{w} == own{r}_{w}) | (slots{s}_{w} == near{r}_{w})");
                        format!("dot(select(vec4<f32>(), vec4<f32>(1.0), {same}), vec4<f32>(1.0))")
                    };
                    (0..words).map(met).collect::<Vec<_>>().join(" + ")
                })
                .collect();
            line!(self, "            let w{r} = 1.0 / max(vec4<f32>({}), vec4<f32>(1.0));", times.join(", "));
            line!(self, "            let itself{r} = ids == vec4<u32>(i{r});");
            line!(
                self,
                "            let past{r} = (ids {past} vec4<u32>(i{r})) | vec4<bool>((u.reserved_a & 1u) == 0u);"
            );
            line!(
                self,
                "            let met{r} = ((here == vec4<u32>(own{r})) | (here == vec4<u32>(near{r}))) & inside & past{r};"
            );
            line!(self, "            s{r} = select(s{r}, vec4<f32>(bitcast<f32>(u.bias_batch)), itself{r});");
            line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, met{r});");
        }
    }

    /// Joins `total` and `share` of row r with what the rounds before have left, of which `kept` is the share.
    pub(super) fn join_rounds(&mut self, r: usize) {
        if self.spec.words() == 0 {
            return;
        }
        line!(self, "        let before = select({EMPTY}, lse[own + i{r}], later);");
        line!(self, "        let here = total;\n        let most = max(before, here);");
        line!(self, "        total = most + log(exp(before - most) + exp(here - most));");
        line!(self, "        let kept = exp(before - total);\n        share *= exp(here - total);");
    }

    /// The gradient of scores of row r, which that of a row with itself has not.
    pub(super) fn of_scores(&self, r: usize, ds: String) -> String {
        if self.spec.words() > 0 { format!("select({ds}, vec4<f32>(), itself{r})") } else { ds }
    }
}
