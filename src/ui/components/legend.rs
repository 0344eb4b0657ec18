//! What a plate's colours mean: a bar with its domain, or a key of colours; how cells were pooled; what was not finite.

use crate::lab::experiment::{Pool, View};
use crate::lab::protocol::Viewport;
use crate::ui::format;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// Stops of cividis from 0 to 1, as the engine draws it.
pub const CIVIDIS: [&str; 9] =
    ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#fee838"];
/// Blue, neutral, orange, as the engine draws signed values.
pub const SIGNED: [&str; 3] = ["#2166ac", "#f3f1ec", "#c8601a"];

#[component]
pub fn Legend(index: usize) -> impl IntoView {
    let lab = use_lab();
    let drawn = Memo::new(move |_| lab.session.plates().with(|plates| plates[index].drawn.clone()));
    let signed = move || matches!(lab.of_view(), View::Scores | View::Difference);
    let bar = move || {
        let stops = if signed() { SIGNED.join(",") } else { CIVIDIS.join(",") };
        format!("background:linear-gradient(to right,{stops})")
    };
    let domain = move || drawn.get().map_or([0.0, 1.0], |drawn| drawn.domain);
    let scale = move || match lab.of_view() {
        View::Mask | View::Blocks => None,
        _ => Some(view! {
            <div class="legend">
                <span class="number">{move || format::significant(domain()[0], 3)}</span>
                <span class="bar" style=bar></span>
                <span class="number">{move || format::significant(domain()[1], 3)}</span>
            </div>
        }),
    };
    let keys = move || {
        match lab.of_view() {
        View::Mask => Some(view! { <div class="legend-keys"><Key class="may" name=t("legend.may")/><Key class="not" name=t("legend.may_not")/></div> }.into_any()),
        View::Blocks => Some(view! { <div class="legend-keys"><Key class="full" name=t("legend.full")/><Key class="part" name=t("legend.partial")/><Key class="not" name=t("legend.absent")/></div> }.into_any()),
        _ => None,
    }
    };
    // Cells are pooled only where several of them share a pixel.
    let pooled = move || {
        let Viewport { rows, .. } = lab.viewport();
        let pixels = 600.0;
        (rows > pixels).then(|| match drawn.get().map_or(Pool::Max, |drawn| drawn.pool) {
            Pool::Max => t("legend.pool_max"),
            Pool::Mean => t("legend.pool_mean"),
        })
    };
    view! {
        {scale}
        {keys}
        <p>
            {move || crate::ui::texts::lookup(&format!("caption.{}", lab.of_view().id()))}
            " "{pooled}
            {move || drawn.get().filter(|drawn| drawn.non_finite > 0).map(|drawn| {
                fill("legend.non_finite", &[("n", &format::count(drawn.non_finite))])
            })}
        </p>
    }
}

#[component]
fn Key(class: &'static str, name: &'static str) -> impl IntoView {
    view! { <span><i class=class></i>{name}</span> }
}
