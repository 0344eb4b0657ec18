//! What the variants that are computed by strips share; see [`crate::graph::ops::strip_attention`].

use super::setup::product;
use super::{Effective, EffectiveKind, Inputs, Setup};
use crate::graph::{Graph, Node};
use crate::pattern::Rule;

/// Queries of a strip, of all its heads.
const ROWS: u128 = 1024;

/// Elements of a strip over `keys` keys.
pub fn largest(s: &Setup, keys: usize) -> u128 {
    product(&[s.batch, s.heads, s.length]).min(ROWS).saturating_mul(keys as u128)
}

/// 1 for a real key and 0 for padding, f32 `[B, M]`, where there is padding.
pub fn real(g: &mut Graph, x: &Inputs<Node>, s: &Setup) -> Option<Node> {
    x.real_keys(g, s).map(|real| g.reshape(real, &[s.batch, s.keys]))
}

/// An effective matrix from all its cells, `[B, H, N, M]`.
pub fn cells(x: &Inputs<Node>, s: &Setup, cells: Node) -> Effective {
    let rule = Rule::All { causal: s.causal };
    Effective { left: cells, right: x.k, row: None, bias: None, kind: EffectiveKind::Cells, rule }
}

/// 1/√D in full precision.
pub fn scale(s: &Setup) -> f64 {
    1.0 / (s.dim as f64).sqrt()
}
