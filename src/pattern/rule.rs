//! Rules `may(i, j)`, in Rust. `shaders/lib/mask.wesl` has the same function; a test holds them equal.

/// Which keys j a query i may attend to. Causality is part of it: a causal rule never allows `j > i + m - n`, so that the
/// diagonal is aligned at the end when there are more keys than queries.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Every key (up to the diagonal when causal).
    All { causal: bool },
    /// Bidirectional: `|i - j| <= radius * dilation` at multiples of `dilation`. Causal: the `radius + 1` keys
    /// `i, i - dilation, ...`. The first `global` tokens attend to everything and are attended to by everything.
    Window { radius: u32, dilation: u32, global: u32, causal: bool },
}
