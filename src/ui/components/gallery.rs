//! Every variant of the registry by family, each with a picture drawn from its own rule.

use super::thumbnail::Thumbnail;
use crate::attention::{self, Causal, Family, Variant};
use crate::sort::Arrange;
use crate::ui::state::use_lab;
use crate::ui::texts::{fill, lookup, t};
use leptos::prelude::*;

/// The taxonomy's order.
const FAMILIES: [Family; 7] = [
    Family::Full,
    Family::FixedPattern,
    Family::LearnedPattern,
    Family::LowRank,
    Family::Kernel,
    Family::Recurrent,
    Family::RecurrentNetwork,
];

/// The variant that every other one is held against.
pub const YARDSTICK: &str = "full";

/// The variants as a newcomer meets them: the yardstick first, then as the registry has them.
pub fn in_order() -> Vec<&'static Variant> {
    let mut all = attention::ALL.to_vec();
    all.arrange_by_key(|variant| variant.id != YARDSTICK);
    all
}

/// The family's key in styles and texts.
pub fn family_key(family: Family) -> &'static str {
    match family {
        Family::Full => "full",
        Family::FixedPattern => "fixed_pattern",
        Family::LearnedPattern => "learned_pattern",
        Family::LowRank => "low_rank",
        Family::Kernel => "kernel",
        Family::Recurrent => "recurrent",
        Family::RecurrentNetwork => "recurrent_network",
    }
}

/// The family's sign, the same wherever it is named.
pub fn glyph(family: Family) -> &'static str {
    match family {
        Family::Full => "■",
        Family::FixedPattern => "▧",
        Family::LearnedPattern => "◆",
        Family::LowRank => "▲",
        Family::Kernel => "●",
        Family::Recurrent => "↻",
        Family::RecurrentNetwork => "➝",
    }
}

#[component]
pub fn Gallery() -> impl IntoView {
    FAMILIES
        .into_iter()
        .filter_map(|family| {
            let members: Vec<&'static Variant> = in_order().into_iter().filter(|v| v.family == family).collect();
            (!members.is_empty()).then(|| {
                let key = family_key(family);
                view! {
                    <section data-family=key>
                        <h2><span class="glyph" aria-hidden="true">{glyph(family)}</span>{lookup(&format!("family.{key}")).unwrap_or(key)}</h2>
                        <ul>{members.into_iter().map(|variant| view! { <Entry variant/> }).collect_view()}</ul>
                    </section>
                }
            })
        })
        .collect_view()
}

#[component]
fn Entry(variant: &'static Variant) -> impl IntoView {
    let lab = use_lab();
    let first = lab.of(|e| e.variants.first().is_some_and(|id| id == variant.id));
    let second = lab.of(|e| e.variants.get(1).is_some_and(|id| id == variant.id));
    let pick = move |_| {
        lab.edit(|e| {
            let before = attention::find(&e.variants[0]).map(|v| v.causal);
            // A variant that stands beside and is picked changes places with the first.
            if let Some(at) = e.variants.iter().position(|id| id == variant.id) {
                e.variants.swap(0, at);
            } else {
                e.variants[0] = variant.id.into();
            }
            match variant.causal {
                Causal::Always => e.causal = true,
                // What the variant before insisted on is not the visitor's wish.
                Causal::Never(_) if before == Some(Causal::Always) => e.causal = false,
                _ => {}
            }
        });
    };
    let beside = move |_| {
        lab.edit(|e| {
            let already = e.variants.get(1).is_some_and(|id| id == variant.id);
            e.variants.truncate(1);
            if !already && e.variants[0] != variant.id {
                e.variants.push(variant.id.into());
            }
        });
    };
    let beside_name = fill("gallery.beside", &[("name", variant.name)]);
    view! {
        <li>
            <button type="button" class="pick" id=format!("pick-{}", variant.id) title=variant.summary
                aria-pressed=move || (first.get() || second.get()).to_string() on:click=pick>
                <Thumbnail variant/>
                <span>{variant.name}<small>{under(variant)}</small></span>
            </button>
            <button type="button" class="beside" id=format!("beside-{}", variant.id) aria-label=beside_name.clone() title=beside_name
                aria-pressed=move || second.get().to_string() disabled=move || first.get() on:click=beside>
                {move || if second.get() { t("gallery.remove") } else { t("gallery.add") }}
            </button>
        </li>
    }
}

/// What stands under a variant's name.
fn under(variant: &Variant) -> String {
    if variant.id == YARDSTICK {
        t("gallery.yardstick").to_owned()
    } else if variant.paper.year == 0 {
        String::new()
    } else {
        variant.paper.year.to_string()
    }
}
