//! A log-log chart of a sweep: time or bytes against length, each contender in its family's colour.

use super::gallery::family_key;
use crate::attention;
use crate::lab::protocol::Point;
use crate::measure::fit::PowerLaw;
use crate::measure::result::ResultFile;
use crate::sort::Arrange;
use crate::ui::browser;
use crate::ui::pages::speed::Overlays;
use crate::ui::state::{SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use crate::ui::{format, results};
use leptos::html;
use leptos::prelude::*;
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    Time,
    Bytes,
}

impl Quantity {
    pub fn id(self) -> &'static str {
        if self == Self::Time { "time" } else { "bytes" }
    }

    fn title(self) -> &'static str {
        if self == Self::Time { t("chart.time") } else { t("chart.bytes") }
    }
}

#[component]
pub fn Chart(quantity: Quantity) -> impl IntoView {
    let lab = use_lab();
    let overlays = expect_context::<Overlays>();
    let place = NodeRef::<html::Div>::new();
    let width = RwSignal::new(0_i32);
    let scheduled = StoredValue::new(false);
    let problem = RwSignal::new(None::<String>);
    place.on_load(move |place| browser::on_resize(&place, move |place| width.set(place.client_width())));
    let empty = move || lab.session.sweep().with(|s| s.points.is_empty()) && overlays.0.with(Vec::is_empty);
    let draw = move || {
        scheduled.set_value(false);
        let Some(place) = place.get_untracked() else { return };
        let points = lab.session.sweep().with_untracked(|sweep| sweep.points.clone());
        let spec = overlays.0.with_untracked(|all| describe(quantity, &points, all, width.get_untracked()));
        leptos::task::spawn_local(async move {
            if let Err(error) = browser::draw_chart(&place, &spec.to_string()).await {
                problem.set(Some(format!("{error:?}")));
            }
        });
    };
    // Points come faster than a chart is worth drawing: at most once a frame.
    Effect::new(move |_| {
        lab.session.sweep().with(|sweep| sweep.points.len());
        overlays.0.track();
        if width.get() > 0 && !empty() && !scheduled.get_value() {
            scheduled.set_value(true);
            request_animation_frame(draw);
        }
    });
    view! {
        <figure class="chart" id=format!("chart-{}", quantity.id())>
            <h2>{quantity.title()}</h2>
            <div class="canvas">
                <div node_ref=place></div>
                <Show when=empty><p class="empty">{t("chart.empty")}</p></Show>
                {move || problem.get()}
            </div>
            <figcaption class="under">{if quantity == Quantity::Time { t("chart.time_under") } else { t("chart.bytes_under") }}</figcaption>
        </figure>
    }
}

/// Lines of one family differ by their dashes.
const DASHES: [&str; 4] = ["none", "6 3", "2 3", "8 3 2 3"];

fn describe(quantity: Quantity, points: &[Point], overlays: &[ResultFile], width: i32) -> Value {
    let mut series = Vec::new();
    let mut families: Vec<&str> = Vec::new();
    for variant in attention::ALL.iter().copied() {
        let own = results::series(points, variant.id);
        let from_files = overlays.iter().filter_map(|overlay| overlaid(quantity, overlay, variant.id));
        let colour = format!("var(--family-{})", family_key(variant.family));
        let dash = DASHES[families.iter().filter(|f| **f == family_key(variant.family)).count() % DASHES.len()];
        if !own.is_empty() {
            families.push(family_key(variant.family));
            let measured: Vec<(f64, f64)> =
                own.iter().filter_map(|p| Some((p.length as f64, value(quantity, p)?))).collect();
            let last = measured.last().map(|(n, y)| (*n as usize, *y));
            let law = PowerLaw::of_long_end(&measured).filter(|law| law.points > 2);
            let predicted = law.zip(last).map(|(law, last)| results::continuation(&law, last)).unwrap_or_default();
            series.push(json!({
                "name": variant.name, "colour": colour, "dash": dash, "overlay": false,
                "points": own.iter().filter_map(|p| dot(quantity, variant.name, p)).collect::<Vec<_>>(),
                "predicted": predicted.iter().map(|(n, y)| json!({ "n": n, "y": y })).collect::<Vec<_>>(),
            }));
        }
        for (adapter, dots) in from_files {
            series.push(json!({
                "name": format!("{} ({adapter})", variant.name), "colour": colour, "dash": "3 3", "overlay": true,
                "points": dots, "predicted": [],
            }));
        }
    }
    json!({
        "kind": quantity.id(), "label": quantity.title(), "width": width, "series": series,
        "xLabel": t("chart.length"),
    })
}

fn value(quantity: Quantity, point: &Point) -> Option<f64> {
    match quantity {
        Quantity::Time => point.time.as_ref().map(|t| t.median),
        Quantity::Bytes => (point.bytes_peak > 0).then_some(point.bytes_peak as f64),
    }
}

fn dot(quantity: Quantity, name: &str, point: &Point) -> Option<Value> {
    let n = format::count(point.length as u64);
    match quantity {
        Quantity::Time => {
            let time = point.time.as_ref()?;
            let words = [
                ("name", name.to_owned()),
                ("n", n),
                ("time", format::milliseconds(time.median)),
                ("min", format::milliseconds(time.min)),
                ("max", format::milliseconds(time.max)),
                ("repeats", time.repeats.to_string()),
            ];
            let tip = fill("chart.time_tip", &words.each_ref().map(|(k, v)| (*k, v.as_str())));
            Some(json!({ "n": point.length, "y": time.median, "lo": time.min, "hi": time.max, "tip": tip }))
        }
        Quantity::Bytes => {
            let tip =
                fill("chart.bytes_tip", &[("name", name), ("n", &n), ("bytes", &format::bytes(point.bytes_peak))]);
            (point.bytes_peak > 0)
                .then(|| json!({ "n": point.length, "y": point.bytes_peak, "lo": 0, "hi": 0, "tip": tip }))
        }
    }
}

fn overlaid(quantity: Quantity, overlay: &ResultFile, id: &str) -> Option<(String, Vec<Value>)> {
    let mut rows: Vec<(usize, f64)> = overlay
        .rows
        .iter()
        .filter(|row| row.variant == id)
        .filter_map(|row| {
            Some((
                row.length,
                if quantity == Quantity::Time { row.time_ms.as_ref()?.median } else { row.bytes.peak as f64 },
            ))
        })
        .collect();
    rows.retain(|row| row.1 > 0.0);
    rows.arrange_by_key(|row| row.0);
    let dots: Vec<Value> = rows
        .into_iter()
        .map(|(n, y)| {
            let figure = if quantity == Quantity::Time { format::milliseconds(y) } else { format::bytes(y as u64) };
            json!({ "n": n, "y": y, "lo": 0, "hi": 0, "tip": format!("{id}, {}\n{}: {figure}", overlay.adapter, format::count(n as u64)) })
        })
        .collect();
    (!dots.is_empty()).then(|| (overlay.adapter.clone(), dots))
}
