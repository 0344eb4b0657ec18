//! What a plate's colours mean: a bar with its domain, or a key of colours; how cells were pooled; what was not finite.

use crate::lab::experiment::{Pool, Scale, View};
use crate::lab::picture::colour::{CIVIDIS, LOUD, absent, hatch, ink, partial, signed as signed_stops};
use crate::lab::protocol::Viewport;
use crate::ui::format;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// Where no weight in sight is larger, the linear scale shows little.
const FAINT: f64 = 0.1;
/// Where none is larger than this, a logarithm is needed to tell them apart.
const FAINTER: f64 = 0.02;

#[component]
pub fn Legend(index: usize) -> impl IntoView {
    let lab = use_lab();
    let drawn = Memo::new(move |_| lab.session.plates().with(|plates| plates[index].drawn.clone()));
    let signed = move || matches!(lab.of_view(), View::Scores | View::Difference);
    let bar = move || {
        format!(
            "background:linear-gradient(to right,{})",
            if signed() { stops(&signed_stops(lab.dark())) } else { stops(&CIVIDIS) }
        )
    };
    let domain = move || drawn.get().map_or([0.0, 1.0], |drawn| drawn.domain);
    let scale = lab.of(|e| e.scale);
    // What the middle of the bar means: half of the way only on a linear scale.
    let middle = move || {
        let [low, high] = domain();
        match (low < 0.0, scale.get()) {
            (true, _) => 0.0,
            (false, Scale::Linear) => high * 0.5,
            (false, Scale::Sqrt) => high * 0.25,
            (false, Scale::Log) => high * 1e-3,
        }
    };
    let bar_view = move || match lab.of_view() {
        View::Mask | View::Blocks => None,
        _ => Some(view! {
            <div class="legend">
                <span class="bar" style=bar></span>
                <span class="number">{move || format::significant(domain()[0], 3)}</span>
                <span class="number">{move || format::significant(middle(), 3)}</span>
                <span class="number">{move || format::significant(domain()[1], 3)}</span>
            </div>
        }),
    };
    let keys = move || {
        let dark = lab.dark();
        let solid = |colour| format!("background:{}", css(colour));
        let (base, line) = (css(absent(dark)), css(hatch(dark)));
        let hatched = format!("background:repeating-linear-gradient(135deg,{line} 0 1px,{base} 1px 4px)");
        let entries = match lab.of_view() {
            View::Mask => vec![(solid(ink(dark)), t("legend.may")), (hatched, t("legend.may_not"))],
            View::Blocks => vec![
                (solid(ink(dark)), t("legend.full")),
                (solid(partial(dark)), t("legend.partial")),
                (hatched, t("legend.absent")),
            ],
            _ => vec![(hatched, t("legend.outside"))],
        };
        view! {
            <div class="legend-keys">
                {entries.into_iter().map(|(colour, name)| view! { <span><i style=colour></i>{name}</span> }).collect_view()}
                {move || drawn.get().filter(|drawn| drawn.non_finite > 0).map(|drawn| view! {
                    <span><i style=format!("background:{}", css(LOUD))></i>{fill("legend.non_finite", &[("n", &format::count(drawn.non_finite))])}</span>
                })}
            </div>
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
    // The one kernel that visits other blocks than those of the text's own order.
    let reordered = move || {
        let strided = lab.session.experiment().with(|e| e.variants.get(index).is_some_and(|id| id == "sparse_strided"));
        (strided && lab.of_view() == View::Blocks).then(|| t("caption.reordered"))
    };
    // Many small weights are all one dark on a scale to 1; which scale is shown stays the visitor's choice.
    let faint = Memo::new(move |_| {
        let plain = lab.of_view() == View::Weights && scale.get() == Scale::Linear;
        drawn.get().map(|drawn| drawn.largest).filter(|largest| plain && *largest > 0.0 && *largest < FAINT)
    });
    let hint = move || {
        faint.get().map(|largest| {
            // The root of less than this is still dark.
            let (scale, name) =
                if largest < FAINTER { (Scale::Log, t("legend.use_log")) } else { (Scale::Sqrt, t("legend.use_sqrt")) };
            view! {
                <p class="hint">
                    {fill("legend.faint", &[("largest", &format::significant(largest, 2))])}" "
                    <button type="button" on:click=move |_| lab.edit(|e| e.scale = scale)>{name}</button>
                </p>
            }
        })
    };
    view! {
        {bar_view}
        {hint}
        {keys}
        <p>{move || crate::ui::texts::lookup(&format!("caption.{}", lab.of_view().id()))}" "{reordered}" "{pooled}</p>
    }
}

pub(super) fn css([r, g, b]: [u8; 3]) -> String {
    format!("rgb({r},{g},{b})")
}

pub(super) fn stops(colours: &[[u8; 3]]) -> String {
    colours.iter().map(|colour| css(*colour)).collect::<Vec<_>>().join(",")
}
