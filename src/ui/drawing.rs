//! Small pictures of the methods. Where positions alone decide, the picture is the rule's own mask; where what is read decides,
//! it is the method's own matrix on a few words, computed here; a recurrent network is a chain.

use crate::attention::{Causal, Family, Params, Request, Setup, Value, Variant};
use crate::graph::{Data, cpu};
use crate::lab::experiment::Experiment;
use crate::pattern::Rule;
use crate::task::embedding::Shape;
use crate::task::{Tokens, embed};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Tokens across a mask. At an experiment's own length most patterns are thinner than a pixel.
const MASK_TOKENS: usize = 44;

/// Tokens across a matrix that is computed.
const TOKENS: usize = 24;

/// A picture as paths of one shade each, in a square with sides of `side`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawing {
    pub side: usize,
    /// Opacity and path.
    pub shades: Vec<(f32, String)>,
}

impl Drawing {
    fn plain(side: usize, path: String) -> Self {
        Self { side, shades: vec![(1.0, path)] }
    }
}

/// What a small picture is drawn for: the defaults of a variant, causal where it can be and is asked to.
fn setup(variant: &Variant, causal: bool, n: usize) -> Setup {
    Setup {
        batch: 1,
        heads: 1,
        length: n,
        keys: n,
        dim: 16,
        causal: match variant.causal {
            Causal::Both => causal,
            Causal::Never(_) => false,
            Causal::Always => true,
        },
        params: Params::default(),
        seed: 1,
        structure: Default::default(),
    }
}

/// The picture that is there at once: of what needs no computing. `None` for the others.
pub fn at_once(variant: &Variant, causal: bool) -> Option<Drawing> {
    let s = setup(variant, causal, MASK_TOKENS);
    match (variant.id, variant.family) {
        ("rnn", _) => return Some(Drawing::plain(11, chain())),
        // Beside the state runs the cell, which is only added to.
        ("lstm", _) => {
            return Some(Drawing {
                side: 11,
                shades: vec![(1.0, chain()), (0.5, "M0.4 3.4L7.6 10.6L6.6 10.6L0.4 4.4z".into())],
            });
        }
        // A gate at every step takes the new state or keeps the old one.
        ("gru", _) => return Some(Drawing { side: 11, shades: vec![(1.0, chain()), (0.5, gates())] }),
        // The naive form keeps a number for every pair.
        ("full_naive", _) => return Some(Drawing::plain(33, cells(s.causal))),
        // One layer alone is a window; the window of the next layers grows.
        ("cascade", _) => return Some(layers(variant, &s)),
        // The one fixed pattern in which all pairs meet, through its relay.
        ("star", _) => return Some(Drawing::plain(22, star(22))),
        (_, Family::LowRank | Family::Kernel) => return None,
        _ => {}
    }
    let rule = (variant.rule)(&s).or_else(|| variant.sketch(&s));
    match rule {
        Some(rule) => Some(Drawing::plain(MASK_TOKENS, mask(&rule, MASK_TOKENS))),
        None if variant.exact => Some(Drawing::plain(MASK_TOKENS, mask(&Rule::All { causal: s.causal }, MASK_TOKENS))),
        None => None,
    }
}

/// The picture of what a setup allows; of a method without a rule, that of its defaults.
pub fn still(variant: &Variant, s: &Setup) -> Drawing {
    match (variant.rule)(s).or_else(|| variant.sketch(s)) {
        Some(rule) => Drawing::plain(s.length, mask(&rule, s.length)),
        None => at_once(variant, s.causal).unwrap_or_else(|| computed(variant, s.causal)),
    }
}

/// The picture of a method's own matrix for the first words of the lab's text; empty where there is none.
pub fn computed(variant: &Variant, causal: bool) -> Drawing {
    let s = setup(variant, causal, TOKENS);
    if variant.refusal(&s, u64::MAX).is_some() {
        return Drawing::default();
    }
    let (graph, effective) = variant.build(&s, Request { effective: true, ..Request::default() });
    let ids = Tokens::of_length(None, Experiment::default().split, TOKENS).ids;
    let x = embed(&ids, Shape { batch: 1, heads: 1, dim: s.dim, layer: 0 }, s.seed);
    let mut inputs: BTreeMap<String, Data<f32>> =
        [("q", x.q), ("k", x.k), ("v", x.v)].map(|(name, values)| (name.to_owned(), Data::Real(values))).into();
    inputs.extend(variant.drawn(&s).into_iter().map(|(name, values)| (name.to_owned(), Data::Real(values))));
    let (Some(effective), Ok(outputs)) = (effective, cpu::run(&graph, &inputs, &|| false)) else {
        return Drawing::default();
    };
    let read = |name: &str| outputs.get(name).map(|data| data.real().to_vec());
    let (left, right, row) = (read("effective_left"), read("effective_right"), read("effective_row"));
    let factors = crate::attention::EffectiveFactors {
        left: left.as_deref().unwrap_or_default(),
        right: right.as_deref().unwrap_or_default(),
        row: row.as_deref(),
        bias: None,
        kind: effective.kind,
        rule: &effective.rule,
    };
    shaded(&factors.dense(&s, None), TOKENS)
}

/// Cells `[n, n]` in four shades, each row against its own largest.
fn shaded(cells: &[f32], n: usize) -> Drawing {
    const SHADES: [f32; 4] = [0.15, 0.35, 0.62, 1.0];
    let mut shades = SHADES.map(|shade| (shade, String::new()));
    for (i, row) in cells.chunks(n).enumerate() {
        let largest = row.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        for (j, x) in row.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            let share = x.abs() / largest;
            let at = [0.06, 0.2, 0.5].iter().filter(|edge| share > **edge).count();
            let _ = write!(shades[at].1, "M{j} {i}h1v1h-1z");
        }
    }
    Drawing { side: n, shades: shades.into_iter().filter(|(_, path)| !path.is_empty()).collect() }
}

/// What the first layers of a stack see, each wider than the one before and fainter.
fn layers(variant: &Variant, s: &Setup) -> Drawing {
    let layer = |(layer, shade): (u32, f32)| {
        let params = Params([("layer".to_owned(), Value::Int(layer))].into());
        let rule = (variant.rule)(&Setup { params, ..s.clone() });
        (shade, rule.map_or_else(String::new, |rule| mask(&rule, MASK_TOKENS)))
    };
    Drawing { side: MASK_TOKENS, shades: [(2, 0.3), (1, 0.4), (0, 1.0)].map(layer).into() }
}

/// Neighbours on a ring, and a relay, the last row and column, that sees and is seen by all.
fn star(n: usize) -> String {
    let last = n - 1;
    let ring = (0..last).flat_map(|i| [(i, i), (i, (i + 1) % last), ((i + 1) % last, i)]);
    let relay = (0..=last).flat_map(|i| [(i, last), (last, i)]);
    let cells: std::collections::BTreeSet<(usize, usize)> = ring.chain(relay).collect();
    cells.into_iter().fold(String::new(), |path, (i, j)| path + &format!("M{j} {i}h1v1h-1z"))
}

/// A network has no mask: one state follows the other.
fn chain() -> String {
    (0..11).fold(String::new(), |path, i| path + &format!("M{i} {i}h1v1h-1z"))
}

/// Small squares beside every other state of a chain.
fn gates() -> String {
    (0..5).fold(String::new(), |path, i| path + &format!("M{} {}h1v1h-1z", 2 * i + 2, 2 * i))
}

/// Single cells with gaps between them.
fn cells(causal: bool) -> String {
    let mut path = String::new();
    for i in 0..11 {
        for j in 0..if causal { i + 1 } else { 11 } {
            let _ = write!(path, "M{} {}h2v2h-2z", 3 * j, 3 * i);
        }
    }
    path
}

/// One rectangle per run of allowed keys.
fn mask(rule: &Rule, n: usize) -> String {
    let mut path = String::new();
    for i in 0..n {
        let mut j = 0;
        while j < n {
            let start = j;
            while j < n && rule.may(i, j, n, n) {
                j += 1;
            }
            if j > start {
                let _ = write!(path, "M{start} {i}h{}v1h-{}z", j - start, j - start);
            }
            j += 1;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::ALL;

    #[test]
    fn every_method_has_a_picture_and_no_two_the_same() {
        for causal in [false, true] {
            let drawings: Vec<_> =
                ALL.iter().map(|v| (v.id, at_once(v, causal).unwrap_or_else(|| computed(v, causal)))).collect();
            let mut alike = Vec::new();
            for (at, (id, drawing)) in drawings.iter().enumerate() {
                assert!(drawing.shades.iter().any(|(_, path)| path.len() > 20), "{id} has no picture");
                alike.extend(
                    drawings[..at].iter().filter(|(_, other)| other == drawing).map(|(other, _)| (*id, *other)),
                );
            }
            assert!(alike.is_empty(), "causal {causal}: {alike:?}");
        }
    }

    #[test]
    fn a_computed_picture_shows_the_matrix() {
        let drawing = shaded(&[1.0, 0.0, 0.1, 0.4], 2);
        assert_eq!(drawing.shades, [(0.62, "M0 1h1v1h-1z".to_owned()), (1.0, "M0 0h1v1h-1zM1 1h1v1h-1z".to_owned())]);
    }
}
