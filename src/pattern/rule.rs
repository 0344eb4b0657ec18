//! Rules `may(i, j)`, in Rust. `shaders/lib/mask.wesl` has the same function; a test holds them equal.

/// Which keys j a query i may attend to.
///
/// With N queries and M keys, query i stands at key position `p = i + M - N`, so that both sequences end together (memory
/// lies in front of the segment). A causal rule never allows `j > p`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Every key (up to the diagonal when causal).
    All { causal: bool },
    /// Bidirectional: `|p - j| <= radius * dilation` at multiples of `dilation`. Causal: the `radius + 1` keys
    /// `p, p - dilation, ...`. The first `global` tokens attend to everything and are attended to by everything (still
    /// never ahead when causal).
    Window { radius: u32, dilation: u32, global: u32, causal: bool },
}

impl Rule {
    pub fn causal(&self) -> bool {
        match *self {
            Rule::All { causal } | Rule::Window { causal, .. } => causal,
        }
    }

    /// Whether query `i < n` may attend to key `j < m`.
    pub fn may(&self, i: usize, j: usize, n: usize, m: usize) -> bool {
        let position = i as i64 + m as i64 - n as i64;
        let behind = position - j as i64;
        if self.causal() && behind < 0 {
            return false;
        }
        match *self {
            Rule::All { .. } => true,
            Rule::Window { radius, dilation, global, .. } => {
                let is_global = j < global as usize || (position >= 0 && position < i64::from(global));
                let distance = behind.unsigned_abs();
                let dilation = u64::from(dilation.max(1));
                is_global || (distance.is_multiple_of(dilation) && distance / dilation <= u64::from(radius))
            }
        }
    }

    /// The `Mask` struct of `shaders/lib/mask.wesl` for `n` queries and `m` keys, to be laid into a kernel's uniform.
    pub fn encode(&self, n: usize, m: usize) -> [u32; 8] {
        let shift = (m as i32).wrapping_sub(n as i32) as u32;
        match *self {
            Rule::All { causal } => [0, causal.into(), 0, 1, 0, shift, 0, 0],
            Rule::Window { radius, dilation, global, causal } => {
                [1, causal.into(), radius, dilation.max(1), global, shift, 0, 0]
            }
        }
    }
}
