//! What a method does to a trained model in each layer alone: some layers take to it, others do not.

use super::gallery::family_key;
use super::numbers::Origin;
use crate::attention::Variant;
use crate::lab::protocol::{Command, Provenance};
use crate::ui::format;
use crate::ui::state::{Lab, SessionStoreFields};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// For one plate: the losses so far, or the cosines of a model that says no words, or a button that asks for them.
pub fn by_layer(lab: Lab, plate: usize, variant: &'static Variant, says_words: Memo<bool>) -> AnyView {
    let numbers = Memo::new(move |_| {
        lab.session.plates().with(|plates| {
            let state = &plates[plate];
            let numbers = state.numbers.as_ref().filter(|_| state.variant == variant.id)?;
            Some((numbers.swapped?.text?[0], numbers.layers.clone()))
        })
    });
    let asked = RwSignal::new(false);
    let ask = move |_| {
        asked.set(true);
        lab.send_now(Command::Layers { plate });
    };
    // A new experiment is not asked about yet.
    Effect::new(move |_| {
        if numbers.get().is_none_or(|(_, losses)| losses.is_empty()) {
            asked.set(false);
        }
    });
    let shown = move || {
        let (before, losses) = numbers.get()?;
        if losses.is_empty() {
            return Some(
                view! {
                    <button type="button" class="by-layer" disabled=move || asked.get() title=t("layers.title") on:click=ask>
                        {fill("layers.ask", &[("name", variant.name)])}</button>
                }
                .into_any(),
            );
        }
        // How much worse a layer makes it.
        let (caption, sign) = if says_words.get() { ("layers.caption", 1.0) } else { ("layers.vector", -1.0) };
        let most = losses.iter().map(|loss| sign * (loss - before)).fold(1e-9, f64::max);
        let row = |(layer, loss): (usize, f64)| {
            let along = 100.0 * (sign * (loss - before) / most).clamp(0.0, 1.0);
            view! {
                <tr><th scope="row">{fill("train.parts.layer", &[("n", &(layer + 1).to_string())])}</th>
                <td class="number">{format::significant(loss, 3)}</td>
                <td class="bar"><i style=format!("inline-size:{along:.1}%")></i></td></tr>
            }
        };
        Some(
            view! {
                <table class="numbers by-layer" data-family=family_key(variant.family)>
                    <caption>{fill(caption, &[("name", variant.name), ("before", &format::significant(before, 3))])}" "
                        <Origin of=Provenance::Measured/></caption>
                    <tbody>{losses.into_iter().enumerate().map(row).collect_view()}</tbody>
                </table>
            }
            .into_any(),
        )
    };
    view! { <div class="by-layer-part" aria-live="polite">{shown}</div> }.into_any()
}
