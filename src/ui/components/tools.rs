//! The row above the plates: which view, which head, how pixels pool cells, zoom.

use crate::lab::experiment::{Pool, Scale, View};
use crate::ui::geometry;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, lookup, t};
use leptos::prelude::*;

const VIEWS: [View; 5] = [View::Mask, View::Blocks, View::Scores, View::Weights, View::Difference];

/// Layers offered.
const LAYERS: usize = 6;

#[component]
pub fn Tools() -> impl IntoView {
    let lab = use_lab();
    let view_now = lab.of(|e| e.view);
    let head = lab.of(|e| e.head);
    let heads = lab.heads();
    let model = lab.model();
    let layer = lab.of(|e| e.layer);
    let pool = lab.of(|e| e.pool);
    let scale = lab.of(|e| e.scale);
    let zoom = move |factor: f64| {
        let n = lab.session.experiment().with_untracked(|e| e.n);
        let view = untrack(|| lab.viewport());
        lab.look(geometry::zoomed(view, 0.5, 0.5, factor, n));
    };
    view! {
        <div class="tools-row" id="tools">
            <div class="tabs" role="radiogroup" aria-label=t("tools.view")>
                {VIEWS.into_iter().map(|choice| view! {
                    <label>
                        <input type="radio" name="view" value=choice.id() prop:checked=move || view_now.get() == choice
                            on:change=move |_| lab.edit(|e| e.view = choice)/>
                        {lookup(&format!("view.{}", choice.id())).unwrap_or(choice.id())}
                    </label>
                }).collect_view()}
            </div>
            <label class="inline" id="head-picker">{t("tools.head")}
                <select prop:value=move || { heads.track(); head.get().to_string() }
                    on:change:target=move |ev| if let Ok(head) = ev.target().value().parse() { lab.edit(|e| e.head = head) }>
                    {move || (0..heads.get()).map(|h| view! {
                        <option value=h.to_string() selected=h == head.get_untracked()>{fill("tools.head_of", &[("head", &(h + 1).to_string()), ("heads", &heads.get().to_string())])}</option>
                    }).collect_view()}
                </select>
            </label>
            <label class="inline" id="layer-picker" title=move || if model.with(Option::is_some) { "" } else { t("tools.layer_title") }>{t("tools.layer")}
                <select prop:value=move || layer.get().to_string()
                    on:change:target=move |ev| if let Ok(layer) = ev.target().value().parse() { lab.edit(|e| e.layer = layer) }>
                    {move || {
                        // A link may ask for a layer beyond those that are offered.
                        let last = match model.get() {
                            Some(model) => model.layers - 1,
                            None => layer.get().max(LAYERS - 1),
                        };
                        (0..=last).map(|l| view! { <option value=l.to_string() selected=l == layer.get_untracked()>{l + 1}</option> }).collect_view()
                    }}
                </select>
            </label>
            <label class="inline" id="pool-picker">{t("tools.pool")}
                <select prop:value=move || pool.get().id()
                    on:change:target=move |ev| if let Some(pool) = Pool::from_id(&ev.target().value()) { lab.edit(|e| e.pool = pool) }>
                    <option value=Pool::Max.id()>{t("pool.max")}</option>
                    <option value=Pool::Mean.id()>{t("pool.mean")}</option>
                </select>
            </label>
            <Show when=move || view_now.get() == View::Weights>
                <label class="inline" id="scale-picker">{t("tools.scale")}
                    <select prop:value=move || scale.get().id()
                        on:change:target=move |ev| if let Some(scale) = Scale::from_id(&ev.target().value()) { lab.edit(|e| e.scale = scale) }>
                        {Scale::ALL.iter().map(|choice| {
                            let name = lookup(&format!("scale.{}", choice.id())).unwrap_or(choice.id());
                            view! { <option value=choice.id() selected=*choice == scale.get_untracked()>{name}</option> }
                        }).collect_view()}
                    </select>
                </label>
            </Show>
            <span class="zoom push" role="group" aria-label=t("tools.zoom")>
                <button type="button" aria-label=t("tools.zoom_out") on:click=move |_| zoom(0.5)>"−"</button>
                <button type="button" aria-label=t("tools.zoom_in") id="zoom-in" on:click=move |_| zoom(2.0)>"+"</button>
                <button type="button" id="zoom-all" on:click=move |_| lab.session.close_up().set(None)>{t("tools.zoom_all")}</button>
            </span>
        </div>
    }
}
