//! Rules as `shaders/lib/mask.wesl` reads them.

use super::{Part, Rule};

/// `Mask.kind` of [`Rule::Listed`] and [`Rule::Bits`], which the shader's `may` does not know: whoever shows one looks into its blocks.
pub const LISTED: u32 = 6;

impl Rule {
    /// The `Mask` struct of `shaders/lib/mask.wesl` for `n` queries and `m` keys, to be laid into a kernel's uniform.
    pub fn encode(&self, n: usize, m: usize) -> [u32; 8] {
        let shift = (m as i32).wrapping_sub(n as i32) as u32;
        let causal = self.causal().into();
        match *self {
            Rule::All { .. } => [0, causal, shift, 0, 0, 1, 0, 0],
            Rule::Window { radius, dilation, global, .. } => [1, causal, shift, 0, radius, dilation.max(1), global, 0],
            Rule::Beyond { radius, .. } => [2, causal, shift, 0, radius, 1, 0, 0],
            Rule::Strided { stride, reach, part, .. } => [3, causal, shift, part.code(), reach, stride.max(1), 0, 0],
            Rule::Fixed { block, columns, place, places, part, .. } => {
                [4, causal, shift, part.code(), places.max(1), block.max(1), columns, place]
            }
            Rule::Log { local, kernel, base, levels, period, .. } => {
                [5, causal, shift, period, local.max(1), base.max(1), kernel, levels]
            }
            Rule::Segments { length, memory, own } => [7, causal, shift, 0, memory, length.max(1), own.into(), 0],
            Rule::Pooled { length, stride } => [8, 0, shift, 0, length, stride.max(1), 0, 0],
            Rule::Listed { ref list, .. } => {
                [LISTED, causal, shift, 0, 0, list.block_q as u32, list.block_k as u32, list.key_blocks() as u32]
            }
            Rule::Bits { ref bits } => {
                [LISTED, causal, shift, bits.heads as u32, 0, 1, 1, 32 * bits.row_words() as u32]
            }
        }
    }

    /// The function of `shaders/lib/mask.wesl` that knows this rule alone; `may` asks the right one of them.
    pub fn function(&self) -> &'static str {
        match self {
            Rule::Window { dilation: 0 | 1, .. } => "may_near",
            Rule::Window { .. } => "may_window",
            Rule::Beyond { .. } => "may_beyond",
            Rule::Strided { .. } => "may_strided",
            Rule::Fixed { .. } => "may_fixed",
            Rule::Log { .. } => "may_log",
            Rule::Segments { .. } => "may_segments",
            Rule::Pooled { .. } => "may_pooled",
            Rule::All { .. } | Rule::Listed { .. } | Rule::Bits { .. } => "may_all",
        }
    }

    /// Of [`Rule::Listed`] and [`Rule::Bits`], one bit for each query block and key block of a head (blocks of one pair), rows
    /// one after the other; nothing of others.
    pub fn bits(&self, head: usize) -> Vec<u32> {
        let list = match self {
            Rule::Listed { list, .. } => list,
            Rule::Bits { bits } => return bits.plane(head).to_vec(),
            _ => return vec![],
        };
        let mut bits = vec![0; (list.query_blocks() * list.key_blocks()).div_ceil(32)];
        for query_block in 0..list.query_blocks() {
            for run in list.runs_of(head, query_block) {
                for key_block in run.first..run.first + run.count {
                    let at = query_block * list.key_blocks() + key_block as usize;
                    bits[at / 32] |= 1 << (at % 32);
                }
            }
        }
        bits
    }
}

impl Part {
    fn code(self) -> u32 {
        match self {
            Part::Merged => 0,
            Part::Local => 1,
            Part::Far => 2,
            Part::ByHead { odd } => 3 + u32::from(odd),
        }
    }
}
