//! A small picture of a variant. Where it has a rule, the picture is the rule's own mask, row by row, and where its pattern
//! follows the data and it says what that may look like, such a pattern; a low-rank or kernel method has no mask worth drawing,
//! so its two factors are drawn instead.

use crate::attention::{Family, Params, Setup, Variant};
use crate::pattern::Rule;
use crate::ui::state::{setup_of, use_lab};
use leptos::prelude::*;
use std::fmt::Write;

/// Tokens across a thumbnail.
const N: usize = 44;

#[component]
pub fn Thumbnail(variant: &'static Variant) -> impl IntoView {
    let lab = use_lab();
    // Drawn for a short sequence with the parameters' defaults: at the experiment's own length most patterns are thinner
    // than a pixel, and its own parameters would fill a short one.
    let setup = lab.of(move |experiment| Setup {
        length: N,
        keys: N,
        params: Params::default(),
        ..setup_of(experiment, variant.id)
    });
    let drawing = Memo::new(move |_| setup.with(|setup| mask_of(variant, setup, N)));
    view! {
        <svg class="thumbnail" viewBox=format!("0 0 {N} {N}") aria-hidden="true" data-family=super::gallery::family_key(variant.family)>
            <rect width=N height=N fill="currentColor" fill-opacity="0.08"/>
            <path d=move || drawing.get() fill="currentColor"/>
        </svg>
    }
}

/// The picture of a variant for `n` tokens: its mask, or its factors.
pub fn mask_of(variant: &Variant, setup: &Setup, n: usize) -> String {
    match (variant.family, (variant.rule)(setup)) {
        (Family::LowRank, _) => factors(n / 4, n),
        (Family::Kernel, _) => factors(n / 6, n),
        (Family::RecurrentNetwork, _) => chain(n),
        // The one fixed pattern in which all pairs meet, through its relay.
        (Family::FixedPattern, None) => star(n),
        (_, rule) => {
            let rule = rule.or_else(|| variant.sketch(setup));
            mask(&rule.unwrap_or(Rule::All { causal: setup.causal }), n)
        }
    }
}

/// A network has no mask: one state follows the other.
fn chain(n: usize) -> String {
    let step = n / 11;
    (0..n / step).fold(String::new(), |path, i| path + &format!("M{0} {0}h{step}v{step}h-{step}z", i * step))
}

/// Neighbours on a ring, and a relay, the last row and column, that sees and is seen by all. A cell is two tokens wide.
fn star(n: usize) -> String {
    let last = n / 2 - 1;
    let ring = (0..last).flat_map(|i| [(i, i), (i, (i + 1) % last), ((i + 1) % last, i)]);
    let relay = (0..=last).flat_map(|i| [(i, last), (last, i)]);
    let cells: std::collections::BTreeSet<(usize, usize)> = ring.chain(relay).collect();
    cells.into_iter().fold(String::new(), |path, (i, j)| path + &format!("M{} {}h2v2h-2z", 2 * j, 2 * i))
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

/// A tall factor N×r beside a wide one r×N, drawn so that their product is the N×N square they leave free. The rank is a
/// stand-in that can be seen; the numbers beside the plates say the real one.
fn factors(rank: usize, n: usize) -> String {
    let gap = n / 11;
    let (long, at) = (n - rank - gap, rank + gap);
    format!("M0 {at}h{rank}v{long}h-{rank}z M{at} 0h{long}v{rank}h-{long}z")
}
