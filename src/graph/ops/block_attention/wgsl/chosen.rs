//! Blocks of keys that the device chose for each query: what it chooses by, how a query reaches its keys, and a key the queries
//! that chose it.
//!
//! Of the uniforms `list_heads` is the number of lists of a batch entry and `reserved_b` how many heads share one; `block` the
//! keys of a block and `reserved_c` how many blocks there are; `reserved_a` is 1 where no key behind a query's own position is
//! allowed.

use super::text::Text;
use super::{Kernel, LOWEST, Spec, Staging};
use std::fmt::Write;

/// The list of this head, counted over all.
const OWN_LIST: &str = "bh / u.heads * u.list_heads + bh % u.heads / u.reserved_b";

/// `strip[list, query, key] = Σ over the heads of a list of exp(scale q·k - lse)`, for `reserved_b` queries from `reserved_a` on and
/// the first `list_blocks` keys, in fours. What is ahead of a query is weighed too. One workgroup in y for each list;
/// `reserved_c` is how many heads share it.
pub fn weigh(spec: &Spec) -> Kernel {
    let mut t = Text::bare(spec);
    t.forward = true;
    t.declare("q", "read", spec.element());
    t.declare("k", "read", spec.element());
    t.declare("lse", "read", "f32");
    if spec.padding {
        t.declare("padding", "read", "u32");
    }
    t.declare("strip", "read_write", "vec4<f32>");
    t.uniforms_and_tiles();
    t.begin("weigh", "n");
    let rows = spec.rows;
    line!(t, "    let list = bh;\n    let heads = bh / u.list_heads * u.heads;");
    line!(t, "    let first_head = bh % u.list_heads * u.reserved_c;");
    line!(t, "    for (var h = first_head; h < min(first_head + u.reserved_c, u.heads); h += 1u) {{");
    line!(t, "    let bh = heads + h;\n    let own = bh * u.n;\n    let other = bh * u.m;");
    for r in 0..rows {
        line!(t, "    let i{r} = u.reserved_a + min(row + {r}u, u.reserved_b - 1u);");
    }
    for r in 0..rows {
        t.load_owned(&[("q", "u.scale")], r);
        line!(t, "    let lse{r} = lse[own + i{r}];");
    }
    line!(t, "    let start = 0u;\n    let stop = min(u.list_blocks, u.m);");
    t.stage(&["k"]);
    t.steps(|t| {
        t.open_rows(&["k"]);
        t.scores("s", "q", "k");
        t.mask_padding();
        for r in 0..rows {
            line!(t, "            if row + {r}u < u.reserved_b {{");
            line!(t, "                let to = ((list * u.reserved_b + row + {r}u) * u.list_blocks + j) / 4u;");
            line!(t, "                var weight = exp(s{r} - lse{r});");
            line!(
                t,
                "                if h > first_head {{\n                    weight += strip[to];\n                }}"
            );
            line!(t, "                strip[to] = weight;\n            }}");
        }
    });
    line!(t, "    }}");
    t.end()
}

impl Text {
    /// The loop over the key blocks of the owned queries, `list` `[lists, N, list_blocks]`, ascending and filled up with numbers
    /// beyond the last block. Keys are `start..stop`, of which a query sees those before its `limit`: none of a block that only
    /// its neighbours chose.
    pub(super) fn chosen_blocks(&mut self, body: impl FnOnce(&mut Self)) {
        let rows = self.spec.rows;
        line!(self, "    let chosen = {OWN_LIST};");
        for r in 0..rows {
            line!(self, "    var listed{r} = (chosen * u.n + min(i{r}, u.n - 1u)) * u.list_blocks;");
            line!(self, "    let after{r} = listed{r} + u.list_blocks;");
            line!(self, "    let sees{r} = select(u.m, min(u.m, i{r} + 1u + u.m - u.n), u.reserved_a != 0u);");
        }
        line!(self, "    loop {{");
        for r in 0..rows {
            line!(
                self,
                "        let next{r} = select(0xffffffffu, list[min(listed{r}, after{r} - 1u)], listed{r} < after{r});"
            );
        }
        let nearest = (1..rows).fold("next0".to_owned(), |least, r| format!("min({least}, next{r})"));
        line!(self, "        let key_block = {nearest};");
        line!(self, "        if key_block >= u.reserved_c {{\n            break;\n        }}");
        line!(self, "        let start = key_block * u.block;");
        for r in 0..rows {
            line!(self, "        listed{r} += select(0u, 1u, next{r} == key_block);");
            line!(self, "        let limit{r} = select(0u, min(start + u.block, sees{r}), next{r} == key_block);");
        }
        let farthest = (1..rows).fold("limit0".to_owned(), |most, r| format!("max({most}, limit{r})"));
        line!(self, "        let stop = {farthest};");
        body(self);
        line!(self, "    }}");
    }

    /// The queries that chose the owned keys' block: `list` begins with where each block's begin, and where the last one's end,
    /// for each list in turn.
    pub(super) fn readers_of_block(&mut self, body: impl FnOnce(&mut Self)) {
        line!(self, "    let readers = ({OWN_LIST}) * (u.list_blocks + 1u) + block;");
        line!(self, "    let start = list[readers];\n    let stop = list[readers + 1u];");
        body(self);
    }

    /// Takes out of the scores what is behind the end of a list, of a block that only a neighbour chose, or ahead.
    pub(super) fn mask_chosen(&mut self) {
        line!(self, "            let place = vec4<u32>(j, j + 1u, j + 2u, j + 3u);");
        if self.spec.staging == Staging::Chosen {
            for r in 0..self.spec.rows {
                line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, place < vec4<u32>(limit{r}));");
            }
            return;
        }
        line!(self, "            let listed = place < vec4<u32>(stop);");
        line!(self, "            let position = vec4<u32>(id0, id1, id2, id3) + vec4<u32>(u.m - u.n);");
        for r in 0..self.spec.rows {
            let past = format!("(vec4<bool>(u.reserved_a == 0u) | (position >= vec4<u32>(i{r})))");
            line!(self, "            s{r} = select(vec4<f32>({LOWEST}), s{r}, listed & {past});");
        }
    }
}
