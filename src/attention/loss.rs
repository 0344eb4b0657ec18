//! Losses of a method's own: what it adds to a model's loss while it is trained.

use super::{Inputs, Reference, Setup};
use crate::graph::{Graph, Node};
use crate::reference::Tape;

/// A loss that a method brings along: for parts that the output's gradient does not reach, or to keep something small.
pub struct OwnLoss {
    /// One sentence: what it measures, and what it trains.
    pub meaning: &'static str,
    /// What the paper multiplies it by before it is added.
    pub weight: f32,
    /// Adds it to a graph: f32 `[1]`, not weighted.
    pub graph: fn(&mut Graph, &Inputs<Node>, &Setup) -> Node,
    /// Its naive definition, one number.
    pub reference: Reference<f64, Tape>,
}
