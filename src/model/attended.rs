//! What one attention of a network makes of a text: the factors of its effective matrix, as a graph of their own.

use super::config::ModelConfig;
use super::network::network;
use super::step::tokens;
use crate::attention::{EffectiveKind, Setup};
use crate::graph::{Dtype, Graph};
use crate::pattern::Rule;

/// A graph that gives the factors of an attention's effective matrices, as [`crate::attention::Effective`] says.
pub struct Attended {
    /// Reads what [`super::Reader::graph`] reads. Gives `effective_left`, `effective_right` and, where `has_row` says so,
    /// `effective_row`.
    pub graph: Graph,
    pub has_row: bool,
    /// Whether it also gives `real`, f32 `[B, M]`, 0 where a key is padding: its column, and of a text that attends to itself its
    /// row, is outside the pattern.
    pub has_padding: bool,
    pub kind: EffectiveKind,
    pub rule: Rule,
    pub setup: Setup,
}

/// The attention that `part` names, of `size` sequences without dropout, and its name; the first one of the network where there
/// is none of that name. Where there is no effective matrix, why.
///
/// # Panics
/// Where [`ModelConfig::check`] complains.
pub fn attended(config: &ModelConfig, size: usize, seed: u64, part: &str) -> (String, Result<Attended, &'static str>) {
    let mut g = Graph::new();
    let read = tokens(&mut g, config, size);
    let mixings = network(&mut g, config, &read, seed).mixings;
    let Some(mixing) = mixings.iter().find(|mixing| mixing.part() == part).or(mixings.first()) else {
        // Recurrent networks alone.
        let variant = config.mixer(config.stacks()[0], 0).variant();
        return (part.to_owned(), Err(variant.no_matrix().unwrap_or("the model has no attention")));
    };
    if let Some(why) = mixing.variant.no_matrix() {
        return (mixing.part(), Err(why));
    }
    let (inputs, setup) = (&mixing.inputs, mixing.setup.clone());
    let effective = g.reusing(|g| g.stage("effective", |g| (mixing.variant.effective)(g, inputs, &setup)));
    g.output("effective_left", effective.left);
    g.output("effective_right", effective.right);
    if let Some(row) = effective.row {
        g.output("effective_row", row);
    }
    let has_padding = inputs.key_padding.is_some();
    if let Some(padding) = inputs.key_padding {
        let real = g.cast(padding, Dtype::F32);
        g.output("real", real);
    }
    let (has_row, kind, rule) = (effective.row.is_some(), effective.kind, effective.rule);
    (mixing.part(), Ok(Attended { graph: g, has_row, has_padding, kind, rule, setup }))
}
