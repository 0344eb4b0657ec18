//! The engine, natively: on the interpreter and on the adapter that there is.

#[path = "common/backends.rs"]
mod backends;

use attention_lab::attention::{self, Causal};
use attention_lab::gpu::Options;
use attention_lab::lab::experiment::{Experiment, Pool, Scale, View};
use attention_lab::lab::protocol::{Backend, Command, Event, FormRow, Numbers, Point, Viewport, Way};
use attention_lab::lab::screen::{Picture, Screen};
use attention_lab::lab::{Engine, Handle};
use attention_lab::measure::schedule::Effort;
use backends::backends;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Serves commands; `react` sees each event and may send more. All events, and what plate 0 shows.
fn serve(backend: Backend, commands: Vec<Command>, react: impl Fn(&Handle, &Event) + 'static) -> (Vec<Event>, Picture) {
    let events = Rc::new(RefCell::new(Vec::new()));
    let handle: Rc<RefCell<Option<Handle>>> = Rc::default();
    let (log, own) = (events.clone(), handle.clone());
    let (sender, mut engine) = Engine::new(Options::default(), move |event| {
        if let Some(handle) = &*own.borrow() {
            react(handle, &event);
        }
        log.borrow_mut().push(event);
    });
    *handle.borrow_mut() = Some(sender.clone());
    let picture = Rc::new(RefCell::new(Picture::default()));
    sender.attach(0, Screen::Memory(picture.clone()));
    engine.set_effort(Effort { rounds: 3, ..Effort::default() });
    pollster::block_on(async {
        // One after the other, as a visitor does: a newer one would take an older one's place.
        for command in std::iter::once(Command::Start { backend }).chain(commands) {
            sender.send(command);
            engine.drain().await;
        }
    });
    let picture = picture.borrow().clone();
    (events.take(), picture)
}

fn quiet(_: &Handle, _: &Event) {}

fn explore(experiment: &Experiment) -> Command {
    Command::Explore { experiment: Box::new(experiment.clone()) }
}

fn show(view: View, n: usize, width: u32, height: u32) -> Command {
    let viewport = Viewport { row: 0.0, col: 0.0, rows: n as f64, cols: n as f64 };
    let (head, pool, scale) = (1, Pool::Max, Scale::Linear);
    Command::Show { plate: 0, view, head, pool, scale, viewport, width, height, dark: false }
}

fn sweep(experiment: &Experiment, lengths: &[usize], backward: bool) -> Command {
    Command::Sweep { experiment: Box::new(experiment.clone()), lengths: lengths.into(), backward }
}

fn experiment(variants: &[&str], n: usize) -> Experiment {
    let variants = variants.iter().map(|v| v.to_string()).collect();
    Experiment { variants, n, heads: 3, dim: 24, ..Experiment::default() }
}

/// The last numbers told of a plate.
fn numbers(events: &[Event], wanted: usize) -> Numbers {
    let found = events.iter().rev().find_map(|event| match event {
        Event::Prepared { plate, numbers, .. } if *plate == wanted => Some(numbers.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no numbers of plate {wanted}: {events:#?}"))
}

fn points(events: &[Event]) -> Vec<Point> {
    let point = |event: &Event| match event {
        Event::Point { point, .. } => Some(point.clone()),
        _ => None,
    };
    events.iter().filter_map(point).collect()
}

#[test]
fn explore_tells_numbers_draws_and_answers_probes() {
    for backend in backends() {
        for causal in [false, true] {
            let e = Experiment { causal, ..experiment(&["sliding_window", "full"], 100) };
            let probe = Command::Probe { plate: 0, query: 60, key: 58 };
            let (events, picture) = serve(backend, vec![explore(&e), show(View::Weights, 100, 50, 70), probe], quiet);
            let (window, full) = (numbers(&events, 0), numbers(&events, 1));
            assert!(window.density > 0.0 && window.density < full.density, "{backend:?}");
            assert_eq!(full.keys_per_query, if causal { 50.5 } else { 100.0 });
            assert!(window.flops <= full.flops && window.flops > 0 && window.bytes_peak > 0);
            let kept = window.mass_kept.expect("mass kept");
            assert!(kept > 0.05 && kept < 0.999, "{backend:?}: {kept}");
            assert_eq!(full.mass_kept, Some(1.0));
            let error = window.error_to_full.expect("error to full");
            assert!(error.rms_ratio > 0.01 && error.rms_ratio < 2.0, "{error:?}");
            assert!(window.measured.is_some_and(|t| t.median > 0.0), "{backend:?}: nothing was timed");

            let cell = events.iter().find_map(|event| match event {
                Event::Cell { query: 60, key: 58, weight, rank, allowed, row, score: Some(score), .. } => {
                    Some((*weight, *rank, *allowed, row.clone(), *score))
                }
                _ => None,
            });
            let (weight, rank, allowed, row, score) = cell.expect("a cell");
            let sum: f32 = row.iter().sum();
            assert!((sum - 1.0).abs() < 1e-4, "{backend:?}: a row sums to {sum}");
            assert!(allowed && score.is_finite() && f64::from(row[58]) == weight);
            assert_eq!(rank, 1 + row.iter().filter(|&&x| f64::from(x) > weight).count());
            assert!(row.iter().skip(61).all(|&x| x == 0.0) || !causal);

            assert_eq!((picture.width, picture.height), (50, 70));
            let colours: std::collections::BTreeSet<&[u8]> = picture.rgba.chunks(4).collect();
            assert!(colours.len() > 20, "{backend:?}: a picture of {} colours", colours.len());
        }
    }
}

#[test]
fn both_back_ends_show_the_same_cells() {
    let e = Experiment { batch: 2, ..experiment(&["linformer", "linear"], 77) };
    let mut rows = Vec::new();
    for backend in backends() {
        let probes = [0, 1].map(|plate| Command::Probe { plate, query: 33, key: 5 });
        let commands = [vec![explore(&e), show(View::Weights, 77, 20, 20)], probes.into()].concat();
        let (events, _) = serve(backend, commands, quiet);
        let both: Vec<f32> = events
            .iter()
            .filter_map(|event| match event {
                Event::Cell { row, .. } => Some(row.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(both.len(), 2 * 77, "{backend:?}");
        rows.push(both);
    }
    let rms = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    for other in &rows[1..] {
        let error = rms(&mut rows[0].iter().zip(other).map(|(a, b)| a - b)) / rms(&mut rows[0].iter().copied());
        assert!(error <= 1e-5, "the back ends differ by {error}");
    }
}

#[test]
fn both_back_ends_draw_the_same_pictures() {
    if !backends().contains(&Backend::Gpu) {
        return;
    }
    let e = experiment(&["sliding_window", "full"], 70);
    for view in [View::Mask, View::Blocks, View::Scores, View::Weights, View::Difference] {
        let picture = |backend| serve(backend, vec![explore(&e), show(view, 70, 45, 38)], quiet).1;
        let (host, device) = (picture(Backend::Cpu), picture(Backend::Gpu));
        assert_eq!((host.width, host.height, host.rgba.len()), (45, 38, 45 * 38 * 4), "{view:?}");
        assert_eq!(device.rgba.len(), host.rgba.len(), "{view:?}");
        // Colours are in 256 steps on the device; a value at the edge of two may fall to either side.
        let off = host.rgba.iter().zip(&device.rgba).filter(|&(a, b)| a.abs_diff(*b) > 3).count();
        assert_eq!(off, 0, "{view:?}: {off} of {} bytes differ", host.rgba.len());
    }
}

#[test]
fn every_view_of_every_variant_is_drawn() {
    const VIEWS: [View; 5] = [View::Mask, View::Blocks, View::Scores, View::Weights, View::Difference];
    for backend in backends() {
        // One engine for all: each device would compile its kernels anew.
        let mut commands = vec![];
        for variant in attention::ALL {
            let causal = matches!(variant.causal, Causal::Always);
            commands.push(explore(&Experiment { heads: 2, dim: 8, causal, ..experiment(&[variant.id], 65) }));
            commands.extend(VIEWS.map(|view| show(view, 65, 33, 33)));
        }
        let (events, picture) = serve(backend, commands, quiet);
        assert_eq!(picture.rgba.len(), 33 * 33 * 4, "{backend:?}");
        let (mut at, mut drawn) = (String::new(), BTreeMap::new());
        for event in &events {
            match event {
                Event::Prepared { variant, .. } => at = variant.clone(),
                Event::Plate { exact: true, non_finite: 0, .. } => *drawn.entry(at.clone()).or_insert(0) += 1,
                Event::Plate { exact: true, .. } => panic!("{backend:?} {at}: {event:?}"),
                Event::Refused { what, reason, .. } => {
                    let expected = attention::find(what).and_then(|v| v.no_matrix());
                    assert_eq!(Some(reason.as_str()), expected, "{backend:?} {what}");
                }
                _ => {}
            }
        }
        for (index, variant) in attention::ALL.iter().enumerate().filter(|(_, v)| v.no_matrix().is_none()) {
            // What was shown before is shown of a new variant at once; the first one finds nothing shown.
            let wanted = VIEWS.len() + usize::from(index > 0);
            let pictures = drawn.get(variant.id).copied().unwrap_or(0);
            assert!(pictures >= wanted, "{backend:?} {}: {pictures} of {wanted}", variant.id);
        }
    }
}

#[test]
fn sweep_measures_every_point_or_says_why_not() {
    for backend in backends() {
        for backward in [false, true] {
            let e = experiment(&["linear", "full", "sliding_window"], 64);
            let (events, _) = serve(backend, vec![sweep(&e, &[64, 96, 64], backward)], quiet);
            let points = points(&events);
            assert_eq!(points.len(), 6, "{backend:?}: {events:#?}");
            let last = events.iter().rev().find_map(|event| match event {
                Event::Point { done, total, seconds_left, .. } => Some((*done, *total, *seconds_left)),
                _ => None,
            });
            assert_eq!(last, Some((6, 6, Some(0.0))));
            assert_eq!(events.last(), Some(&Event::SweepDone { cancelled: false }));
            for p in &points {
                let time = p.time.as_ref().unwrap_or_else(|| panic!("{backend:?}: {p:?}"));
                assert!(time.median > 0.0 && time.repeats >= 3 && p.flops > 0 && !p.stages_ms.is_empty(), "{p:?}");
                assert_eq!(p.bytes_by_category.iter().map(|(_, b)| b).sum::<u64>(), p.bytes_peak);
                assert_eq!(p.error_to_full.is_some(), p.variant != "full", "{p:?}");
            }
            let window = points.iter().filter(|p| p.variant == "sliding_window" && p.length == 96);
            assert!(window.clone().all(|p| p.error_to_full.is_some_and(|e| e.rms_ratio > 1e-3)));
        }
    }
}

#[test]
fn a_cancelled_sweep_stops_and_the_engine_goes_on() {
    for backend in backends() {
        let e = experiment(&["full", "linear"], 64);
        let commands = vec![sweep(&e, &[32, 64, 128, 256], false), explore(&e)];
        let (events, _) = serve(backend, commands, |handle, event| {
            if matches!(event, Event::Point { .. }) {
                handle.send(Command::Cancel);
            }
        });
        assert!(events.contains(&Event::SweepDone { cancelled: true }), "{backend:?}: {events:#?}");
        assert!(points(&events).len() < 8, "{backend:?}: the sweep went on");
        assert!(numbers(&events, 0).flops > 0);
    }
}

#[test]
fn other_requests_are_served_during_a_sweep() {
    for backend in backends() {
        let e = experiment(&["full", "linear"], 40);
        let asked = std::cell::Cell::new(false);
        let (events, _) = serve(backend, vec![explore(&e), sweep(&e, &[32, 64, 128], false)], move |handle, event| {
            if matches!(event, Event::Point { .. }) && !asked.replace(true) {
                handle.send(Command::Probe { plate: 1, query: 3, key: 3 });
            }
        });
        let at = |wanted: fn(&Event) -> bool| events.iter().position(wanted).expect("the event");
        let cell = at(|e| matches!(e, Event::Cell { plate: 1, .. }));
        assert!(cell < at(|e| matches!(e, Event::SweepDone { cancelled: false })), "{backend:?}");
    }
}

fn forms(experiment: &Experiment, variant: &str) -> Command {
    Command::Forms { experiment: Box::new(experiment.clone()), variant: variant.into(), blocks: vec![64, 16, 16] }
}

/// The last row told of each way.
fn rows(events: &[Event]) -> Vec<FormRow> {
    let mut rows: Vec<FormRow> = Vec::new();
    for event in events {
        let Event::Form { row, .. } = event else { continue };
        match rows.iter_mut().find(|old| (old.way, old.block) == (row.way, row.block)) {
            Some(old) => *old = row.clone(),
            None => rows.push(row.clone()),
        }
    }
    rows
}

#[test]
fn the_forms_of_a_pattern_are_raced() {
    for backend in backends() {
        let e = Experiment { causal: true, ..experiment(&["full"], 130) };
        let (events, _) = serve(backend, vec![forms(&e, "longformer")], quiet);
        assert_eq!(events.last(), Some(&Event::FormsDone { cancelled: false, refused: None }), "{backend:?}");
        let rows = rows(&events);
        let ways: Vec<(Way, Option<usize>)> = rows.iter().map(|row| (row.way, row.block)).collect();
        let [small, large] = [16, 64].map(|block| (Way::Blocks, Some(block)));
        let want = [(Way::Full, None), (Way::Masked, None), (Way::Gather, None), small, large, (Way::Own, None)];
        assert_eq!(ways, want);
        let told = events.iter().filter_map(|event| match event {
            Event::Form { done, total, .. } => Some((*done, *total)),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), (1..=12).map(|done| (done, 12)).collect::<Vec<_>>());
        for row in &rows {
            let time = row.time.as_ref().unwrap_or_else(|| panic!("{backend:?}: {row:?}"));
            assert!(time.median > 0.0 && time.repeats >= 3 && row.flops > 0 && row.bytes_peak > 0, "{row:?}");
            assert_eq!(row.density, rows[0].density);
            // All but `full` and the first, which the others are compared with, leave the same pairs out.
            assert_eq!(row.error.is_some(), ![Way::Full, Way::Masked].contains(&row.way), "{row:?}");
            assert!(row.error.is_none_or(|e| e.rms_ratio < 1e-5), "{row:?}");
        }
        let scored: Vec<f64> = rows.iter().filter_map(|row| row.scored).collect();
        // Everything; what is allowed; in blocks more than that, in larger ones no less.
        assert_eq!((scored.len(), scored[1], scored[2]), (5, 1.0, rows[0].density));
        assert!(
            scored[2] < scored[3] && scored[3] <= scored[4] && scored[4] <= scored[0] && scored[0] < 1.0,
            "{scored:?}"
        );
        assert!(rows[1].flops > rows[4].flops && rows[4].flops > rows[3].flops && rows[3].flops > rows[2].flops);
        assert!(rows.iter().all(|row| row.blocks.is_some() == (row.way == Way::Blocks)));
    }
}

#[test]
fn a_race_of_forms_is_cancelled_or_refused_in_words() {
    for backend in backends() {
        let e = experiment(&["full"], 64);
        let (events, _) = serve(backend, vec![forms(&e, "sliding_window"), explore(&e)], |handle, event| {
            if matches!(event, Event::Form { .. }) {
                handle.send(Command::Cancel);
            }
        });
        assert!(events.contains(&Event::FormsDone { cancelled: true, refused: None }), "{backend:?}: {events:#?}");
        assert!(rows(&events).len() < 6, "{backend:?}: the race went on");
        assert!(numbers(&events, 0).flops > 0);
    }
    let causal = Experiment { causal: true, ..experiment(&["full"], 64) };
    for (e, variant, says) in [
        (&causal, "bigbird", "causal off"),
        (&causal, "linear", "not attention over a fixed pattern"),
        (&causal, "nope", "no variant"),
    ] {
        let (events, _) = serve(Backend::Cpu, vec![forms(e, variant)], quiet);
        let Some(Event::FormsDone { cancelled: false, refused: Some(reason) }) = events.last() else {
            panic!("{variant}: {events:#?}")
        };
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn a_race_of_forms_waits_for_a_sweep() {
    let e = experiment(&["full", "linear"], 40);
    let asked = std::cell::Cell::new(false);
    let race = forms(&e, "cascade");
    let (events, _) = serve(Backend::Cpu, vec![sweep(&e, &[32, 64], false)], move |handle, event| {
        if matches!(event, Event::Point { .. }) && !asked.replace(true) {
            handle.send(race.clone());
        }
    });
    let at = |wanted: fn(&Event) -> bool| events.iter().position(wanted).expect("the event");
    assert!(at(|e| matches!(e, Event::SweepDone { .. })) < at(|e| matches!(e, Event::Form { .. })));
    assert_eq!(events.last(), Some(&Event::FormsDone { cancelled: false, refused: None }));
}

#[test]
fn a_lost_device_is_made_again_and_the_sweep_run_again() {
    if !backends().contains(&Backend::Gpu) {
        return;
    }
    let e = experiment(&["full", "linear"], 40);
    let lost = std::cell::Cell::new(false);
    let commands = vec![explore(&e), show(View::Weights, 40, 20, 20), sweep(&e, &[32, 64], false)];
    let (events, picture) = serve(Backend::Gpu, commands, move |handle, event| {
        if matches!(event, Event::Point { .. }) && !lost.replace(true) {
            handle.send(Command::LoseDevice);
        }
    });
    let loss = events.iter().position(|e| matches!(e, Event::DeviceLost { recovered: true, .. })).expect("a loss");
    let after = &events[loss..];
    assert_eq!(points(after).iter().filter(|p| p.time.is_some()).count(), 4, "{after:#?}");
    assert!(after.iter().any(|e| matches!(e, Event::Prepared { plate: 0, .. })), "the plates were not restored");
    assert!(after.iter().any(|e| matches!(e, Event::Plate { plate: 0, exact: true, .. })));
    assert!(after.contains(&Event::SweepDone { cancelled: false }));
    assert!(!picture.rgba.is_empty());
}

#[test]
fn an_idle_loss_is_recovered_from() {
    if !backends().contains(&Backend::Gpu) {
        return;
    }
    let e = experiment(&["full"], 40);
    let probe = Command::Probe { plate: 0, query: 1, key: 1 };
    let (events, _) = serve(Backend::Gpu, vec![explore(&e), Command::LoseDevice, probe], quiet);
    assert!(events.iter().any(|e| matches!(e, Event::DeviceLost { recovered: true, .. })));
    assert!(matches!(events.last(), Some(Event::Cell { .. })), "{:?}", events.last());
}

#[test]
fn what_cannot_be_served_is_refused_with_the_nearest_that_can() {
    for backend in backends() {
        let e = Experiment { causal: true, ..experiment(&["linformer", "full"], 30) };
        let (events, _) = serve(backend, vec![explore(&e)], quiet);
        let refused = events.iter().find_map(|event| match event {
            Event::Refused { what, nearest, .. } => Some((what.as_str(), nearest.as_deref())),
            _ => None,
        });
        assert_eq!(refused, Some(("linformer", Some("causal off"))), "{backend:?}: {events:#?}");
        // The other plate is served all the same.
        assert!(numbers(&events, 1).flops > 0);

        let huge = Experiment { heads: 16, dim: 128, ..experiment(&["full_naive"], 16_384) };
        let (events, _) = serve(backend, vec![explore(&huge), sweep(&huge, &[16_384], false)], quiet);
        let nearest = events.iter().find_map(|event| match event {
            Event::Refused { nearest: Some(nearest), .. } => nearest.strip_prefix("length ")?.parse::<usize>().ok(),
            _ => None,
        });
        let nearest = nearest.unwrap_or_else(|| panic!("{backend:?}: {events:#?}"));
        assert!((256..16_384).contains(&nearest), "{backend:?}: {nearest}");
        assert!(points(&events).iter().all(|p| p.time.is_none() && p.refused.is_some()));
    }
}

#[test]
fn nonsense_is_named_and_survived() {
    let nonsense = Experiment { n: 0, heads: 0, dim: 100_000, head: 9, ..experiment(&["nope"], 1) };
    let probe = Command::Probe { plate: 7, query: usize::MAX, key: 0 };
    let viewport = Viewport { row: f64::NAN, col: -1.0, rows: 0.0, cols: f64::INFINITY };
    let (head, pool, scale) = (usize::MAX, Pool::Mean, Scale::Log);
    let odd =
        Command::Show { plate: 0, view: View::Weights, head, pool, scale, viewport, width: 0, height: 3, dark: true };
    let far =
        Command::Show { plate: 5, view: View::Mask, head, pool, scale, viewport, width: 1, height: 1, dark: true };
    let (events, _) =
        serve(Backend::Cpu, vec![odd, far, probe, sweep(&nonsense, &[0, usize::MAX], true), explore(&nonsense)], quiet);
    let named: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Refused { what, .. } => Some(what.as_str()),
            _ => None,
        })
        .collect();
    for key in ["n", "heads", "dim", "head", "variant"] {
        assert!(named.contains(&key), "{key} is not named: {named:?}");
    }
    assert_eq!(numbers(&events, 0).keys_per_query, 1.0);
}

#[test]
fn decisions_are_told_once_for_each_head_that_is_shown() {
    for backend in backends() {
        let n = 70;
        let e = experiment(&["reformer", "full"], n);
        let of_head = |head: usize| match show(View::Weights, n, 20, 20) {
            Command::Show { plate, view, pool, scale, viewport, width, height, dark, .. } => {
                Command::Show { plate, view, head, pool, scale, viewport, width, height, dark }
            }
            other => other,
        };
        let commands = vec![explore(&e), of_head(1), show(View::Mask, n, 30, 30), of_head(2)];
        let (events, _) = serve(backend, commands, quiet);
        let told: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Decided { plate: 0, variant, head, length, parts } => Some((variant, *head, *length, parts)),
                Event::Decided { .. } => panic!("full attention decides nothing"),
                _ => None,
            })
            .collect();
        assert_eq!(told.iter().map(|told| told.1).collect::<Vec<_>>(), [1, 2], "{backend:?}");
        for (variant, _, length, parts) in &told {
            assert_eq!((variant.as_str(), *length), ("reformer", n));
            let [buckets, order] = &parts[..] else { panic!("{parts:?}") };
            assert_eq!(
                (buckets.name.as_str(), buckets.columns, buckets.values.len()),
                ("buckets", n, buckets.rows * n)
            );
            for (labels, order) in buckets.values.chunks(n).zip(order.values.chunks(n)) {
                let sorted: Vec<f32> = order.iter().map(|&token| labels[token as usize]).collect();
                assert!(sorted.is_sorted() && sorted[0] < sorted[n - 1], "{backend:?}: {sorted:?}");
            }
        }
        assert_ne!(told[0].3, told[1].3, "{backend:?}: two heads of one mind");
    }
}
