//! Beneath a plate: what its method decided about the text, as itself. Strips stand on the plate's own axis of keys, follow its
//! zoom, and share its cursor.

use super::plate::keyed;
use super::text_input::Tokens;
use crate::attention::Form;
use crate::lab::protocol::Part;
use crate::ui::state::{Decided, SessionStoreFields, use_lab};
use crate::ui::strips::{self, Window};
use crate::ui::texts::{fill, lookup, t};
use leptos::html;
use leptos::prelude::*;
use std::sync::Arc;
use wasm_bindgen::{Clamped, JsCast};
use web_sys::{CanvasRenderingContext2d, ImageData, PointerEvent};

#[component]
pub fn Decisions(index: usize) -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let tokens = expect_context::<Tokens>();
    let n = lab.of(|e| e.n);
    let has_focus = RwSignal::new(false);
    move || {
        // Those of another length are about to be replaced.
        let decided = session.decided().with(|decided| decided[index].clone())?;
        if decided.length != n.get() || decided.parts.is_empty() {
            return None;
        }
        let title = fill("decided.title", &[("head", &(decided.head + 1).to_string())]);
        let label = title.clone();
        let spoken = {
            let decided = decided.clone();
            move || {
                let cursor = session.cursor().get().filter(|_| has_focus.get())?;
                Some(
                    decided
                        .parts
                        .iter()
                        .map(|part| in_words(tokens, &decided.variant, part, cursor))
                        .collect::<Vec<_>>()
                        .join("; "),
                )
            }
        };
        let parts = (0..decided.parts.len()).map(|at| {
            let decided = decided.clone();
            let part = &decided.parts[at];
            let key = format!("decided.{}.{}", decided.variant, part.name);
            let (heading, meaning) = (lookup(&key), lookup(&format!("{key}.meaning")));
            let body = match (part.form, part.values.is_empty()) {
                (_, true) => view! { <p class="quiet">{t("decided.too_large")}</p> }.into_any(),
                (Form::Lengths, _) => bars(&decided, part).into_any(),
                _ => view! { <Strip decided=decided.clone() at/> }.into_any(),
            };
            let said = move || {
                session.cursor().get().map(|cursor| in_words(tokens, &decided.variant, &decided.parts[at], cursor))
            };
            view! {
                <div class="decision" data-part=part_name(&key)>
                    <p><b>{heading}</b></p>
                    {body}
                    <p class="said">{said}</p>
                    <p class="meaning">{meaning}</p>
                </div>
            }
        });
        Some(view! {
            <section class="decided" id=format!("decided-{index}") tabindex="0" role="application" aria-label=label
                aria-describedby="plate-keys" on:keydown=move |ev| keyed(lab, &ev)
                on:focus=move |_| has_focus.set(true) on:blur=move |_| has_focus.set(false)>
                <h4>{title}</h4>
                {parts.collect_view()}
                <p class="unseen" aria-live="polite">{spoken}</p>
            </section>
        })
    }
}

/// The last part of a key.
fn part_name(key: &str) -> String {
    key.rsplit('.').next().unwrap_or(key).to_owned()
}

/// What a part says of the cursor's tokens.
fn in_words(tokens: Tokens, variant: &str, part: &Part, cursor: strips::Cursor) -> String {
    let Some(template) = lookup(&format!("decided.{variant}.{}.said", part.name)) else { return String::new() };
    let one = |(token, values): (usize, Vec<String>)| {
        let words = values
            .iter()
            .enumerate()
            .fold(template.to_owned(), |text, (at, value)| text.replace(&format!("{{{at}}}"), value));
        format!("{} ({token}): {words}", tokens.label(token))
    };
    strips::said(part, cursor, t("decided.none")).into_iter().map(one).collect::<Vec<_>>().join(", ")
}

#[component]
fn Strip(decided: Arc<Decided>, at: usize) -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let n = decided.length;
    let rows = decided.parts[at].rows;
    let canvas = NodeRef::<html::Canvas>::new();
    let window = {
        let decided = decided.clone();
        Memo::new(move |_| strips::window(&decided.parts[at], lab.viewport(), n))
    };
    {
        let decided = decided.clone();
        Effect::new(move |_| {
            if let Some(canvas) = canvas.get() {
                paint(&canvas, &decided, at, window.get());
            }
        });
    }
    let place = move || {
        let Window { left, width, .. } = window.get();
        format!("inset-inline-start:{:.4}%;inline-size:{:.4}%", left * 100.0, width * 100.0)
    };
    let edges = match decided.parts[at].form {
        Form::Order { chunk } => {
            let places = decided.parts[at].columns;
            (chunk..places)
                .step_by(chunk.max(1))
                .map(|edge| format!("M{} 0V1", edge as f64 / places as f64))
                .collect::<String>()
        }
        _ => String::new(),
    };
    let marks = {
        let decided = decided.clone();
        move || {
            let marks =
                session.cursor().get().map(|cursor| strips::marks(&decided.parts[at], lab.viewport(), n, cursor));
            let rect = |[x, y, width, height]: [f64; 4]| {
                let shown = width.max(0.006);
                view! { <rect class="cell" x=x + (width - shown) / 2.0 y=y width=shown height=height/> }
            };
            marks.into_iter().flatten().map(rect).collect_view()
        }
    };
    let point = move |ev: &PointerEvent| {
        let target = ev.current_target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
        let Some(area) = target.map(|target| target.get_bounding_client_rect()) else { return };
        let x = (f64::from(ev.client_x()) - area.left()) / area.width().max(1.0);
        let y = (f64::from(ev.client_y()) - area.top()) / area.height().max(1.0);
        let before = session.cursor().get_untracked();
        let cursor = strips::cursor_at(&decided.parts[at], untrack(|| lab.viewport()), n, (x, y), before);
        if before != Some(cursor) {
            session.cursor().set(Some(cursor));
        }
    };
    let press = point.clone();
    view! {
        <div class="strip" style=format!("--rows:{rows}")
            on:pointermove=move |ev| if !session.locked().get_untracked() { point(&ev) }
            on:pointerdown=move |ev| { press(&ev); session.locked().update(|locked| *locked = !*locked) }
            on:pointerleave=move |_| if !session.locked().get_untracked() { session.cursor().set(None) }>
            <canvas node_ref=canvas aria-hidden="true" style=place></canvas>
            <svg class="overlay" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">
                <path class="edges" d=edges/>
                {marks}
            </svg>
        </div>
    }
}

fn paint(canvas: &web_sys::HtmlCanvasElement, decided: &Decided, at: usize, window: Window) {
    let labels = decided.parts.iter().find(|part| matches!(part.form, Form::Labels { .. }));
    let pixels = strips::pixels(&decided.parts[at], labels, window);
    put(canvas, &pixels.rgba, pixels.width);
}

/// Makes a picture, four bytes a pixel, what stands on a canvas.
pub(super) fn put(canvas: &web_sys::HtmlCanvasElement, rgba: &[u8], width: usize) {
    let (width, height) = (width as u32, (rgba.len() / 4 / width.max(1)) as u32);
    canvas.set_width(width);
    canvas.set_height(height);
    let context = canvas.get_context("2d").ok().flatten().and_then(|c| c.dyn_into::<CanvasRenderingContext2d>().ok());
    let image = ImageData::new_with_u8_clamped_array_and_sh(Clamped(rgba), width, height);
    if let (Some(context), Ok(image)) = (context, image) {
        let _ = context.put_image_data(&image, 0.0, 0.0);
    }
}

/// Lengths as bars, one below the other.
fn bars(decided: &Decided, part: &Part) -> impl IntoView + use<> {
    let rows = part.values.chunks(part.columns.max(1));
    let most = rows.clone().map(|row| row.iter().sum::<f32>()).fold(f32::MIN_POSITIVE, f32::max);
    let head = decided.head;
    let bars = rows.enumerate().map(|(row, lengths)| {
        // A row has a name of its own, or is a head.
        let name = lookup(&format!("decided.{}.{}.{row}", decided.variant, part.name));
        let of_head = if part.rows == 1 { head } else { row };
        let here = name.is_none() && of_head == head;
        let label = name.map_or_else(|| fill("decided.head", &[("head", &(of_head + 1).to_string())]), str::to_owned);
        let pieces = lengths.iter().enumerate().map(|(at, length)| {
            let [r, g, b] = strips::label_colour(at);
            view! { <i style=format!("inline-size:{:.2}%;background:rgb({r},{g},{b})", 100.0 * length / most)></i> }
        });
        let words = lengths.iter().map(|&length| length_in_words(length)).collect::<Vec<_>>().join(" + ");
        view! { <dt class:here=here>{label}</dt><dd><span class="bar">{pieces.collect_view()}</span><span class="number">{words}</span></dd> }
    });
    view! { <dl class="lengths">{bars.collect_view()}</dl> }
}

/// Whole lengths without digits behind the point.
fn length_in_words(length: f32) -> String {
    if length.fract() == 0.0 {
        crate::ui::format::count(length as u64)
    } else {
        crate::ui::format::significant(length.into(), 3)
    }
}
