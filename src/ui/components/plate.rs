//! One plate: a matrix drawn by the engine, and over it, drawn here, what follows the pointer without delay.
//!
//! Hover previews a row and a cell, a click locks it, arrow keys move it, Escape lets go. A drag pans; wheel (once the
//! plate has the focus, or with Ctrl), pinch and keys zoom. Both plates share viewport and cursor.

use super::decisions::Decisions;
use super::gallery::{family_key, glyph};
use super::leak::Leak;
use super::legend::Legend;
use super::sheet::OpenSheet;
use crate::attention::Causal;
use crate::lab::experiment::View;
use crate::lab::protocol::{Command, Viewport};
use crate::ui::browser;
use crate::ui::format;
use crate::ui::geometry;
use crate::ui::state::{Lab, Phase, Place, SessionStoreFields, known, use_lab};
use crate::ui::texts::{fill, t};
use leptos::html;
use leptos::prelude::*;
use web_sys::{KeyboardEvent, PointerEvent, WheelEvent};

/// A pointer that is down on the plate, in CSS pixels.
#[derive(Clone, Copy)]
struct Held {
    id: i32,
    x: f64,
    y: f64,
}

#[component]
pub fn Plate(index: usize) -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let frame = NodeRef::<html::Div>::new();
    let canvas = NodeRef::<html::Canvas>::new();
    // In device pixels, for the engine; in CSS pixels, for the labels.
    let pixels = RwSignal::new((0_u32, 0_u32));
    let across = RwSignal::new(0.0_f64);
    let variant = lab.of(move |e| e.variants.get(index).cloned());
    let hidden = move || variant.with(Option::is_none);
    let known_variant = move || variant.get().and_then(|id| known(&[id]).first().copied());

    canvas.on_load(move |canvas| {
        if let Ok(offscreen) = canvas.transfer_control_to_offscreen() {
            lab.attach(index, offscreen);
        }
    });
    frame.on_load(move |frame| watch_size(&frame, pixels, across));
    Effect::new(move |_| {
        let (width, height) = pixels.get();
        let view = lab.of_view();
        if width == 0 || hidden() || Place::of(view) != Place::Attention || session.phase().get() != Phase::Ready {
            return;
        }
        let (head, pool, scale) = session.experiment().with(|e| (e.head, e.pool, e.scale));
        let (viewport, dark) = (lab.viewport(), lab.dark());
        lab.send(Command::Show { plate: index, view, head, pool, scale, viewport, width, height, dark });
    });
    // The engine is asked about the cell under the cursor; asked anew when the matrix has become another one. Its answer is kept
    // with the plate, so that whoever followed all of the plate would ask for ever.
    let picture = Memo::new(move |_| session.plates().with(|p| (p[index].numbers.is_some(), p[index].draws)));
    Effect::new(move |_| {
        picture.track();
        session.experiment().track();
        if let Some((query, key)) = session.cursor().get()
            && !hidden()
        {
            lab.send(Command::Probe { plate: index, query, key });
        }
    });

    let pointing = Pointing { lab, frame, held: StoredValue::new(Vec::new()), moved: StoredValue::new(false) };
    let drawn =
        move || session.plates().with(|p| p[index].drawn.as_ref().map(|d| if d.exact { "exact" } else { "coarse" }));
    let refused = move || session.plates().with(|p| p[index].refusal.is_some());
    let draws = move || session.plates().with(|p| p[index].draws);
    let n = lab.of(|e| e.n);
    let close = Memo::new(move |_| session.close_up().get().is_some());
    let trained = lab.model();
    let panning = RwSignal::new(false);
    let label = move || {
        let name = known_variant().map_or("", |v| v.name);
        let view = crate::ui::texts::lookup(&format!("view.{}", lab.of_view().id())).unwrap_or_default();
        fill("plate.label", &[("name", name), ("view", view), ("n", &format::count(n.get() as u64))])
    };
    view! {
        <figure class="plate" id=format!("plate-{index}") hidden=hidden data-drawn=drawn data-draws=draws
            data-family=move || known_variant().map(|v| family_key(v.family))>
            <header>
                <span class="glyph" aria-hidden="true">{move || known_variant().map(|v| glyph(v.family))}</span>
                <h3>{move || known_variant().map(|v| v.name)}</h3>
                <OpenSheet index/>
                <Show when=move || lab.of_view() == View::Weights || lab.of_view() == View::Scores || lab.of_view() == View::Difference>
                    {move || if trained.with(Option::is_some) {
                        view! { <span class="chip" title=t("plate.trained_title")>{t("plate.trained")}</span> }
                    } else {
                        view! { <span class="chip" title=t("plate.untrained_title")>{t("plate.untrained")}</span> }
                    }}
                </Show>
            </header>
            <div class="field">
                <Axis across queries=true/>
                <Axis across queries=false/>
                <div class="frame" id=format!("matrix-{index}") node_ref=frame tabindex="0" role="application" aria-roledescription=t("plate.role")
                    aria-label=label aria-describedby="plate-keys" data-zoomed=move || close.get().then_some("")
                    data-panning=move || panning.get().then_some("")
                    data-locked=move || session.locked().get().then_some("")
                    on:pointerdown=move |ev| pointing.down(&ev)
                    on:pointermove=move |ev| { pointing.motion(&ev); panning.set(pointing.moved.get_value() && ev.buttons() != 0) }
                    on:pointerup=move |ev| { pointing.up(&ev); panning.set(false) }
                    on:pointercancel=move |ev| { pointing.up(&ev); panning.set(false) }
                    on:pointerleave=move |_| if !session.locked().get_untracked() { session.cursor().set(None) }
                    on:wheel=move |ev| pointing.wheel(&ev)
                    on:keydown=move |ev| keyed(lab, &ev)>
                    <canvas node_ref=canvas aria-hidden="true" class:blank=refused></canvas>
                    <Cursor/>
                    {move || leaking(lab, index).map(|id| view! { <Leak id/> })}
                    {move || waiting(lab, index).map(|text| view! { <p class="wait">{text}</p> })}
                </div>
            </div>
            <figcaption><Legend index/></figcaption>
            <Decisions index/>
        </figure>
    }
}

/// The variant whose leak is drawn: it was refused because it has no causal form.
fn leaking(lab: Lab, index: usize) -> Option<&'static str> {
    let refused = lab.session.plates().with(|plates| plates[index].refusal.is_some());
    let (causal, id) = lab.session.experiment().with(|e| (e.causal, e.variants.get(index).cloned()));
    let variant = known(&[id?]).first().copied()?;
    (refused && causal && matches!(variant.causal, Causal::Never(_))).then_some(variant.id)
}

/// What the plate waits for, in words; nothing once a picture stands on it.
fn waiting(lab: Lab, index: usize) -> Option<String> {
    let session = lab.session;
    match session.phase().get() {
        Phase::Starting => Some(t("plate.starting").to_owned()),
        Phase::Failed(_) => Some(t("plate.failed").to_owned()),
        Phase::Ready => session.plates().with(|plates| match (&plates[index].refusal, &plates[index].drawn) {
            (Some(reason), _) => Some(reason.clone()),
            (None, None) => Some(t("plate.computing").to_owned()),
            (None, Some(drawn)) if !drawn.exact => Some(t("plate.refining").to_owned()),
            (None, Some(_)) => None,
        }),
    }
}

/// Keeps the frame's size in device pixels, for the engine, and in CSS pixels.
fn watch_size(frame: &web_sys::Element, pixels: RwSignal<(u32, u32)>, across: RwSignal<f64>) {
    browser::on_resize(frame, move |frame| {
        let (width, height) = (f64::from(frame.client_width()), f64::from(frame.client_height()));
        let ratio = window().device_pixel_ratio();
        across.set(width);
        // A canvas larger than this shows nothing more and costs more.
        let device = |side: f64| ((side * ratio).round() as u32).min(2048);
        pixels.set((device(width), device(height)));
    });
}

/// Pointers on a plate.
#[derive(Clone, Copy)]
struct Pointing {
    lab: Lab,
    frame: NodeRef<html::Div>,
    held: StoredValue<Vec<Held>>,
    moved: StoredValue<bool>,
}

impl Pointing {
    /// Where a client position lies in the frame, 0 to 1 on both axes, and the frame's width.
    fn place(&self, x: f64, y: f64) -> Option<(f64, f64, f64)> {
        let area = self.frame.get_untracked()?.get_bounding_client_rect();
        (area.width() > 0.0).then(|| ((x - area.left()) / area.width(), (y - area.top()) / area.height(), area.width()))
    }

    fn down(&self, ev: &PointerEvent) {
        if ev.button() != 0 {
            return;
        }
        if let Some(frame) = self.frame.get_untracked() {
            let _ = frame.set_pointer_capture(ev.pointer_id());
            let _ = frame.focus();
        }
        let held = Held { id: ev.pointer_id(), x: f64::from(ev.client_x()), y: f64::from(ev.client_y()) };
        self.held.update_value(|all| {
            all.retain(|other| other.id != held.id);
            all.push(held);
        });
        if self.held.with_value(Vec::len) == 1 {
            self.moved.set_value(false);
        }
    }

    fn motion(&self, ev: &PointerEvent) {
        let lab = self.lab;
        let (x, y) = (f64::from(ev.client_x()), f64::from(ev.client_y()));
        let Some((fx, fy, width)) = self.place(x, y) else { return };
        let n = lab.session.experiment().with_untracked(|e| e.n);
        let view = untrack(|| lab.viewport());
        let held = self.held.get_value();
        let Some(at) = held.iter().position(|held| held.id == ev.pointer_id()) else {
            if !lab.session.locked().get_untracked() {
                point_at(lab, geometry::cell_at(view, fx, fy, n));
            }
            return;
        };
        let (dx, dy) = (x - held[at].x, y - held[at].y);
        // A hand that clicks trembles by a pixel or two.
        if held.len() == 1 && !self.moved.get_value() && dx.hypot(dy) < 4.0 {
            return;
        }
        self.moved.set_value(true);
        if held.len() == 1 {
            lab.look(geometry::panned(view, -dx / width, -dy / width, n));
        } else {
            let other = held[1 - at.min(1)];
            let before = (held[at].x - other.x).hypot(held[at].y - other.y).max(1.0);
            let factor = (x - other.x).hypot(y - other.y).max(1.0) / before;
            if let Some((cx, cy, _)) = self.place(f64::midpoint(x, other.x), f64::midpoint(y, other.y)) {
                lab.look(geometry::zoomed(view, cx, cy, factor, n));
            }
        }
        self.held.update_value(|all| all[at] = Held { x, y, ..all[at] });
    }

    fn up(&self, ev: &PointerEvent) {
        let lab = self.lab;
        self.held.update_value(|all| all.retain(|held| held.id != ev.pointer_id()));
        if self.moved.get_value() || ev.type_() != "pointerup" || ev.button() != 0 {
            return;
        }
        let Some((fx, fy, _)) = self.place(f64::from(ev.client_x()), f64::from(ev.client_y())) else { return };
        let n = lab.session.experiment().with_untracked(|e| e.n);
        let cell = geometry::cell_at(untrack(|| lab.viewport()), fx, fy, n);
        let same = lab.session.cursor().get_untracked() == Some(cell);
        let locked = lab.session.locked().get_untracked();
        lab.session.locked().set(!(locked && same));
        point_at(lab, cell);
    }

    /// Zooms with the wheel where the visitor means it: the plate has the focus, or Ctrl is held (as a pinch on a pad says).
    fn wheel(&self, ev: &WheelEvent) {
        let focused = self.frame.get_untracked().is_some_and(|frame| frame.matches(":focus").unwrap_or(false));
        if !focused && !ev.ctrl_key() && !ev.meta_key() {
            return;
        }
        ev.prevent_default();
        let lab = self.lab;
        let Some((fx, fy, _)) = self.place(f64::from(ev.client_x()), f64::from(ev.client_y())) else { return };
        let n = lab.session.experiment().with_untracked(|e| e.n);
        let lines = if ev.delta_mode() == WheelEvent::DOM_DELTA_PIXEL { ev.delta_y() } else { ev.delta_y() * 30.0 };
        let factor = 2_f64.powf(-lines.clamp(-300.0, 300.0) / 240.0);
        lab.look(geometry::zoomed(untrack(|| lab.viewport()), fx, fy, factor, n));
    }
}

fn point_at(lab: Lab, cell: (usize, usize)) {
    let session = lab.session;
    if session.cursor().get_untracked() != Some(cell) {
        session.cursor().set(Some(cell));
    }
}

/// Moves the cursor and the view by keys.
pub(super) fn keyed(lab: Lab, ev: &KeyboardEvent) {
    if ev.ctrl_key() || ev.meta_key() || ev.alt_key() {
        return;
    }
    let session = lab.session;
    let n = session.experiment().with_untracked(|e| e.n);
    let view = untrack(|| lab.viewport());
    let (row, col) = session.cursor().get_untracked().unwrap_or_else(|| geometry::cell_at(view, 0.5, 0.5, n));
    let step = if ev.shift_key() { 10 } else { 1 };
    let last = n.saturating_sub(1);
    let page = (view.rows as usize).max(1);
    let cell = match ev.key().as_str() {
        "ArrowUp" => (row.saturating_sub(step), col),
        "ArrowDown" => ((row + step).min(last), col),
        "ArrowLeft" => (row, col.saturating_sub(step)),
        "ArrowRight" => (row, (col + step).min(last)),
        "Home" => (row, 0),
        "End" => (row, last),
        "PageUp" => (row.saturating_sub(page), col),
        "PageDown" => ((row + page).min(last), col),
        "Enter" | " " => {
            session.locked().update(|locked| *locked = !*locked);
            (row, col)
        }
        "Escape" => {
            session.locked().set(false);
            session.cursor().set(None);
            return;
        }
        "+" | "=" | "-" | "_" => {
            let factor = if matches!(ev.key().as_str(), "+" | "=") { 1.5 } else { 1.0 / 1.5 };
            let x = (col as f64 + 0.5 - view.col) / view.cols;
            let y = (row as f64 + 0.5 - view.row) / view.rows;
            lab.look(geometry::zoomed(view, x.clamp(0.0, 1.0), y.clamp(0.0, 1.0), factor, n));
            return ev.prevent_default();
        }
        "0" => {
            session.close_up().set(None);
            return;
        }
        _ => return,
    };
    ev.prevent_default();
    lab.look(geometry::revealed(view, cell.0, cell.1, n));
    point_at(lab, cell);
}

/// The row and the cell under the cursor.
#[component]
fn Cursor() -> impl IntoView {
    let lab = use_lab();
    // In parts of the frame: x, y of the cell, its width and height.
    let place = Memo::new(move |_| {
        let (query, key) = lab.session.cursor().get()?;
        let Viewport { row, col, rows, cols } = lab.viewport();
        Some(((key as f64 - col) / cols, (query as f64 - row) / rows, 1.0 / cols, 1.0 / rows))
    });
    move || {
        place.get().map(|(x, y, width, height)| {
            // A cell smaller than this cannot be seen, so the mark is drawn larger, around its middle.
            let bands = format!("M0 {y}H1M0 {}H1M{x} 0V1M{} 0V1", y + height, x + width);
            let (shown_width, shown_height) = (width.max(0.012), height.max(0.012));
            view! {
                <svg class="overlay" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">
                    <path class="band under" d=bands.clone()/>
                    <path class="band" d=bands/>
                    <rect class="cell" x=x + (width - shown_width) / 2.0 y=y + (height - shown_height) / 2.0 width=shown_width height=shown_height/>
                </svg>
            }
        })
    }
}

/// Labels of one axis: positions, or the tokens themselves where the cells are large enough to read them.
#[component]
fn Axis(across: RwSignal<f64>, queries: bool) -> impl IntoView {
    let lab = use_lab();
    let tokens = expect_context::<super::text_input::Tokens>();
    let labels = Memo::new(move |_| {
        let view = lab.viewport();
        let (start, span) = if queries { (view.row, view.rows) } else { (view.col, view.cols) };
        let size = across.get();
        let cell = size / span;
        let readable = cell >= 11.0;
        let most = if readable { span.ceil() as usize + 1 } else { (size / 42.0) as usize };
        let here = lab.session.cursor().get().map(|(query, key)| if queries { query } else { key });
        let at = |i: usize| (i as f64 + 0.5 - start) * cell;
        let mut labels: Vec<(usize, f64, String, bool)> = geometry::ticks(start, span, most)
            .into_iter()
            .map(|i| (i, at(i), if readable { tokens.label(i) } else { format::count(i as u64) }, here == Some(i)))
            .filter(|label| label.1 >= 0.0 && label.1 <= size)
            .collect();
        // The cursor's own position is always named; what it would cover is left out.
        if let Some(i) = here.filter(|i| !readable && at(*i) >= 0.0 && at(*i) <= size) {
            labels.retain(|label| (label.1 - at(i)).abs() > if queries { 14.0 } else { 36.0 });
            labels.push((i, at(i), format::count(i as u64), true));
        }
        (readable, labels)
    });
    view! {
        <div class=if queries { "axis rows" } else { "axis cols" } aria-hidden="true">
            {move || {
                let (readable, labels) = labels.get();
                labels.into_iter().map(|(_, at, text, here)| {
                    let place = if queries { format!("top:{at:.1}px") } else { format!("left:{at:.1}px") };
                    view! { <span style=place class:here=here class:upright=!readable && !queries>{text}</span> }
                }).collect_view()
            }}
            <span class="title">{if queries { t("axis.queries") } else { t("axis.keys") }}</span>
        </div>
    }
}

impl Lab {
    /// The view that is open.
    pub fn of_view(self) -> View {
        self.session.experiment().with(|e| e.view)
    }
}
