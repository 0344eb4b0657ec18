//! What one head of a run attends to, as of the last look: a matrix that follows the training, with the cell under the cursor in
//! words.

use super::decisions::put;
use super::legend::{css, stops};
use super::numbers::Origin;
use crate::lab::experiment::{Scale, View};
use crate::lab::picture::colour::{CIVIDIS, absent, hatch, paint, signed};
use crate::lab::picture::{ABSENT, Values};
use crate::lab::protocol::Provenance;
use crate::lab::train::HeadPicture;
use crate::lab::train::orders::{HeadChoice, Look};
use crate::ui::format;
use crate::ui::race::part_words;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::html;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::{KeyboardEvent, PointerEvent};

/// Pixels that a picture is at least drawn with: hatching is finer than the cells of a short text.
const PIXELS: usize = 400;

#[component]
pub fn Heads(look: Memo<Option<Look>>, choice: RwSignal<HeadChoice>) -> impl IntoView {
    let lab = use_lab();
    let picture = Memo::new(move |_| look.with(|look| look.as_ref().map(|look| look.heads.clone())));
    let cells =
        Memo::new(move |_| picture.with(|picture| picture.as_ref().map(HeadPicture::cells)).unwrap_or_default());
    // Which attentions there are, as the parts that a step changes say.
    let parts = Memo::new(move |_| {
        let is_attention = |part: &str| part.ends_with(".attention") || part.ends_with(".cross");
        let of = |look: &Look| {
            look.changes.iter().map(|change| change.part.clone()).filter(|part| is_attention(part)).collect()
        };
        look.with(|look| look.as_ref().map_or_else(Vec::<String>::new, of))
    });
    let heads = Memo::new(move |_| {
        let run = look.with(|look| look.as_ref().map(|look| look.run));
        run.and_then(|run| lab.session.race().with(|race| race.runs.get(run).map(|run| run.config.model.heads)))
            .unwrap_or(0)
    });
    let writes = Memo::new(move |_| look.with(|look| look.as_ref().is_some_and(|look| look.written.is_some())));
    let here = move || {
        picture.with_untracked(|picture| picture.as_ref().map(|p| (p.part.clone(), p.head))).unwrap_or_default()
    };
    let layers = move || {
        let option = |part: String| {
            let (words, selected) = (part_words(&part), here().0 == part);
            view! { <option value=part selected=selected>{words}</option> }
        };
        parts.get().into_iter().map(option).collect_view()
    };
    let numbers = move || {
        let option =
            |head: usize| view! { <option value=head.to_string() selected=here().1 == head>{head + 1}</option> };
        (0..heads.get()).map(option).collect_view()
    };
    let has = Memo::new(move |_| picture.with(|picture| picture.as_ref().is_some_and(|picture| picture.why.is_none())));
    let why = move || picture.with(|picture| picture.as_ref().and_then(|picture| picture.why.clone()));
    view! {
        <figure id="look-heads" data-part=move || picture.with(|p| p.as_ref().map(|p| p.part.clone()))
            data-head=move || picture.with(|p| p.as_ref().map(|p| p.head))>
            <h3>{t("train.heads")}" "<Origin of=Provenance::Measured/></h3>
            <p class="actions">
                <label>{t("train.heads_layer")}" "<select id="look-layer"
                    on:change=move |ev| choice.update(|choice| choice.part = event_target_value(&ev))>{layers}</select></label>
                <label>{t("train.heads_head")}" "<select id="look-head" on:change=move |ev| choice.update(|choice| {
                    choice.head = event_target_value(&ev).parse().unwrap_or(0);
                })>{numbers}</select></label>
                <Show when=move || writes.get()>
                    <label><input type="checkbox" id="look-written-heads" prop:checked=move || choice.with(|choice| choice.written)
                        on:change=move |ev| choice.update(|choice| choice.written = event_target_checked(&ev))/>" "{t("train.heads_written")}</label>
                </Show>
            </p>
            {move || why().map(|why| view! { <p class="notice">{why}</p> })}
            <Show when=move || has.get()><Picture picture cells/></Show>
        </figure>
    }
}

#[component]
fn Picture(picture: Memo<Option<HeadPicture>>, cells: Memo<Vec<f32>>) -> impl IntoView {
    let lab = use_lab();
    let canvas = NodeRef::<html::Canvas>::new();
    // Row and column.
    let cursor = RwSignal::new(None::<(usize, usize)>);
    let sizes = Memo::new(move |_| {
        picture.with(|p| p.as_ref().map_or((1, 1), |p| (p.queries.len().max(1), p.keys.len().max(1))))
    });
    let range = Memo::new(move |_| picture.with(|p| p.as_ref().map_or((false, 1.0), |p| (p.signed, p.top))));
    Effect::new(move |_| {
        let Some(canvas) = canvas.get() else { return };
        let ((rows, columns), (signed, top), dark) = (sizes.get(), range.get(), lab.dark());
        cells.with(|cells| draw(&canvas, cells, [rows, columns], signed, top, dark));
    });
    let words = Memo::new(move |_| {
        let (row, column) = cursor.get()?;
        picture.with(|picture| say(picture.as_ref()?, &cells.read(), row, column))
    });
    let move_to = move |row: usize, column: usize| {
        let (rows, columns) = sizes.get_untracked();
        cursor.set(Some((row.min(rows - 1), column.min(columns - 1))));
    };
    let point = move |ev: &PointerEvent| {
        let target = ev.current_target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
        let Some(area) = target.map(|target| target.get_bounding_client_rect()) else { return };
        let along = |at: i32, from: f64, size: f64, count: usize| {
            ((f64::from(at) - from) / size.max(1.0) * count as f64).max(0.0) as usize
        };
        let (rows, columns) = sizes.get_untracked();
        move_to(
            along(ev.client_y(), area.top(), area.height(), rows),
            along(ev.client_x(), area.left(), area.width(), columns),
        );
    };
    let keyed = move |ev: &KeyboardEvent| {
        if ev.ctrl_key() || ev.meta_key() || ev.alt_key() {
            return;
        }
        let step = if ev.shift_key() { 10 } else { 1 };
        let (row, column) = cursor.get_untracked().unwrap_or_default();
        let begins = cursor.get_untracked().is_none();
        match ev.key().as_str() {
            "ArrowUp" | "ArrowDown" | "ArrowLeft" | "ArrowRight" if begins => move_to(0, 0),
            "ArrowUp" => move_to(row.saturating_sub(step), column),
            "ArrowDown" => move_to(row + step, column),
            "ArrowLeft" => move_to(row, column.saturating_sub(step)),
            "ArrowRight" => move_to(row, column + step),
            "Home" => move_to(row, 0),
            "End" => move_to(row, usize::MAX),
            "Escape" => cursor.set(None),
            _ => return,
        }
        ev.prevent_default();
    };
    let label = move || {
        let (part, head) = picture.with(|p| p.as_ref().map(|p| (part_words(&p.part), p.head + 1))).unwrap_or_default();
        let (rows, columns) = sizes.get();
        let values = [("part", part), ("head", head.to_string()), ("n", rows.to_string()), ("m", columns.to_string())];
        fill("train.heads_label", &values.each_ref().map(|(k, v)| (*k, v.as_str())))
    };
    let mark = move || {
        let (row, column) = cursor.get()?;
        let (rows, columns) = sizes.get();
        let percent = |at: usize, of: usize| 100.0 * at as f64 / of as f64;
        Some(format!(
            "inset-block-start:{:.3}%;inset-inline-start:{:.3}%;block-size:{:.3}%;inline-size:{:.3}%",
            percent(row, rows),
            percent(column, columns),
            100.0 / rows as f64,
            100.0 / columns as f64
        ))
    };
    // A tip stays inside the picture: to the left of what is far right, and above what is far down.
    let tip = move || {
        let (row, column) = cursor.get()?;
        let (rows, columns) = sizes.get();
        let place = |at: usize, of: usize, from: &str, to: &str| match 2 * at < of {
            true => format!("{from}:{:.3}%;", 100.0 * (at + 1) as f64 / of as f64),
            false => format!("{to}:{:.3}%;", 100.0 * (of - at) as f64 / of as f64),
        };
        Some(
            place(row, rows, "inset-block-start", "inset-block-end")
                + &place(column, columns, "inset-inline-start", "inset-inline-end"),
        )
    };
    let bar = move || {
        let stops = if range.get().0 { stops(&signed(lab.dark())) } else { stops(&CIVIDIS) };
        format!("background:linear-gradient(to right,{stops})")
    };
    let ends = move || {
        let (signed, top) = range.get();
        let top = f64::from(top);
        let [low, middle] = if signed { [-top, 0.0] } else { [0.0, 0.25 * top] };
        [low, middle, top].map(|x| view! { <span class="number">{format::significant(x, 3)}</span> }).collect_view()
    };
    let hatched = move || {
        let (base, line) = (css(absent(lab.dark())), css(hatch(lab.dark())));
        format!("background:repeating-linear-gradient(135deg,{line} 0 1px,{base} 1px 4px)")
    };
    let pooled = move || {
        let block = picture.with(|p| p.as_ref().map_or(1, |p| p.block));
        (block > 1).then(|| fill("train.heads_block", &[("n", &block.to_string())]))
    };
    view! {
        <div class="frame" id="look-matrix" tabindex="0" role="application" aria-roledescription=t("plate.role") aria-label=label
            aria-describedby="look-keys" style=move || { let (rows, columns) = sizes.get(); format!("aspect-ratio:{columns}/{rows}") }
            on:pointermove=move |ev| point(&ev) on:pointerdown=move |ev| point(&ev)
            on:pointerleave=move |ev| if ev.pointer_type() == "mouse" { cursor.set(None) } on:blur=move |_| cursor.set(None) on:keydown=move |ev| keyed(&ev)>
            <canvas node_ref=canvas aria-hidden="true"></canvas>
            {move || mark().map(|style| view! { <i class="cell" style=style></i> })}
            {move || tip().zip(words.get()).map(|(style, words)| view! { <p class="tip" aria-hidden="true" style=style>{words}</p> })}
        </div>
        <p class="unseen" id="look-keys">{t("train.heads_keys")}</p>
        <p class="unseen" id="look-cell" role="status">{words}</p>
        <figcaption class="under">
            <div class="legend"><span class="bar" style=bar></span>{ends}</div>
            <div class="legend-keys"><span><i style=hatched></i>{t("legend.outside")}</span></div>
            <p>{t("train.heads_under")}" "{pooled}</p>
        </figcaption>
    }
}

/// A cell in words: query, key, weight.
fn say(picture: &HeadPicture, cells: &[f32], row: usize, column: usize) -> Option<String> {
    let weight = *cells.get(row * picture.keys.len() + column)?;
    let cell = match weight {
        ABSENT => t("readout.not_allowed").to_owned(),
        // As exact as a byte is.
        weight => fill("train.heads_weight", &[("weight", &format::significant(weight.into(), 2))]),
    };
    let [i, j] = [row, column].map(|at| (at * picture.block).to_string());
    let values =
        [("query", &picture.queries[row]), ("i", &i), ("key", &picture.keys[column]), ("j", &j), ("cell", &cell)];
    Some(fill("readout.spoken", &values.map(|(k, v)| (k, v.as_str()))))
}

fn draw(
    canvas: &web_sys::HtmlCanvasElement,
    cells: &[f32],
    [rows, columns]: [usize; 2],
    signed: bool,
    top: f32,
    dark: bool,
) {
    let times = PIXELS.div_ceil(rows.max(columns));
    let width = columns * times;
    let pixel = |at: usize| cells.get(at / width / times * columns + at % width / times).copied().unwrap_or(ABSENT);
    let end = if top > 0.0 { f64::from(top) } else { 1.0 };
    let values = Values {
        width,
        cells: (0..rows * times * width).map(pixel).collect(),
        domain: [if signed { -end } else { 0.0 }, end],
        largest: end,
        non_finite: 0,
    };
    let view = if signed { View::Difference } else { View::Weights };
    put(canvas, &paint(&values, view, Scale::Sqrt, dark), width);
}
