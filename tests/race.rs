//! Runs side by side in the engine: in step, for equal seconds, paused, hidden, copied, refused, and over the loss of a device.

#[path = "common/backends.rs"]
mod backends;

use attention_lab::gpu::Options;
use attention_lab::lab::protocol::{Backend, Command, Event};
use attention_lab::lab::shelf::Shelf;
use attention_lab::lab::train::RunConfig;
use attention_lab::lab::train::orders::{Doing, HeadChoice, Look, News, Order, Pace, RunFacts, Sample};
use attention_lab::lab::{Engine, Handle};
use backends::backends;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

fn config(variant: &str) -> RunConfig {
    let params = if variant == "sliding_window" { r#", "params": {"window": 2}"# } else { "" };
    let text = format!(
        r#"{{"task": {{"id": "copy", "symbols": 5, "items": 4}},
            "model": {{"d_model": 16, "heads": 2, "dropout": 0.1, "attention": [{{"variant": "{variant}"{params}}}]}},
            "optimiser": {{"rate": 0.01, "warmup": 3}},
            "batch": 8, "steps": 24, "log_every": 5, "evaluation": {{"every": 12, "batches": 2}}}}"#
    );
    RunConfig::parse(&text).unwrap_or_else(|e| panic!("{e}"))
}

fn order(order: Order) -> Command {
    Command::Train { order: Box::new(order) }
}

fn start(variants: &[&str], pace: Pace) -> Command {
    order(Order::Start { runs: variants.iter().map(|v| config(v)).collect(), pace })
}

/// What is known of a race at its end, as a page folds it.
#[derive(Default)]
struct Known {
    runs: Vec<RunFacts>,
    doing: Doing,
    seen: Vec<Doing>,
    lost: usize,
    saved: usize,
    looks: Vec<Look>,
    problems: Vec<String>,
}

impl Known {
    fn fold(&mut self, event: &Event) {
        match event {
            Event::DeviceLost { .. } => self.lost += 1,
            Event::Refused { reason, .. } => self.problems.push(reason.clone()),
            Event::Training { news } => match &**news {
                News::Runs { runs, doing, .. } => {
                    self.runs.clone_from(runs);
                    self.doing = *doing;
                }
                News::Doing { doing, .. } => {
                    self.doing = *doing;
                    self.seen.push(*doing);
                }
                News::Samples { of } => {
                    for (run, samples) in of {
                        self.runs[*run].samples.extend_from_slice(samples);
                    }
                }
                News::Failed { run, failed } => self.runs[*run].failed = Some(failed.clone()),
                News::NotKept { why } => self.problems.push(format!("{why:?}")),
                News::Kept => {}
                News::Saved { .. } => self.saved += 1,
                News::Looked { look } => self.looks.push((**look).clone()),
            },
            _ => {}
        }
    }

    fn losses(&self, run: usize) -> Vec<(u64, u32)> {
        self.runs[run].samples.iter().map(|sample| (sample.step, sample.loss.to_bits())).collect()
    }

    fn last(&self, run: usize) -> &Sample {
        self.runs[run].samples.last().unwrap_or_else(|| panic!("nothing seen of run {run}"))
    }
}

/// Serves commands one after the other; `react` sees each event and may send more.
fn serve(backend: Backend, commands: Vec<Command>, react: impl Fn(&Handle, &Event) + 'static) -> Known {
    serve_with(&Shelf::Nowhere, backend, commands, react)
}

fn serve_with(
    shelf: &Shelf,
    backend: Backend,
    commands: Vec<Command>,
    react: impl Fn(&Handle, &Event) + 'static,
) -> Known {
    let known = Rc::new(RefCell::new(Known::default()));
    let handle: Rc<RefCell<Option<Handle>>> = Rc::default();
    let (log, own) = (known.clone(), handle.clone());
    let (sender, mut engine) = Engine::new(Options::default(), move |event| {
        if let Some(handle) = &*own.borrow() {
            react(handle, &event);
        }
        log.borrow_mut().fold(&event);
    });
    *handle.borrow_mut() = Some(sender.clone());
    engine.set_shelf(shelf.clone());
    pollster::block_on(async {
        for command in std::iter::once(Command::Start { backend }).chain(commands) {
            sender.send(command);
            engine.drain().await;
        }
    });
    known.take()
}

fn quiet(_: &Handle, _: &Event) {}

/// Sends `command` when something is first seen of a run behind `step`.
fn once_behind(step: u64, command: Command) -> impl Fn(&Handle, &Event) {
    let sent = Cell::new(false);
    move |handle, event| {
        let Event::Training { news } = event else { return };
        let News::Samples { of } = &**news else { return };
        if of.iter().any(|(_, samples)| samples.iter().any(|s| s.step > step)) && !sent.replace(true) {
            handle.send(command.clone());
        }
    }
}

#[test]
fn runs_go_step_for_step_to_their_end() {
    for backend in backends() {
        let known = serve(backend, vec![start(&["full", "sliding_window"], Pace::Steps)], quiet);
        assert_eq!(known.doing, Doing::Done, "{backend:?}");
        for run in 0..2 {
            let (facts, last) = (&known.runs[run], known.last(run));
            assert_eq!(last.step, 24);
            assert!(last.loss < facts.samples[0].loss, "{backend:?}: {:?}", facts.samples);
            assert!(last.seconds > 0.0 && facts.bytes > 0 && facts.flops > 0 && facts.weights > 0);
            let judged: Vec<u64> = facts.samples.iter().filter(|s| s.held.is_some()).map(|s| s.step).collect();
            assert_eq!(judged, [12, 24]);
            let held = last.held.as_ref().expect("judged at the end");
            assert!(held.loss > 0.0 && held.score.tokens.judged > 0 && !held.score.by_distance.is_empty());
        }
        let steps = |run: usize| known.runs[run].samples.iter().map(|s| s.step).collect::<Vec<_>>();
        assert_eq!(steps(0), steps(1), "step for step");
        assert_ne!(known.losses(0), known.losses(1));
    }
}

#[test]
fn equal_seconds_end_with_the_first_that_is_done() {
    let mut long = config("full");
    long.model.d_model = 64;
    long.steps = 100_000;
    let runs = vec![config("full"), long];
    let known = serve(Backend::Cpu, vec![order(Order::Start { runs, pace: Pace::Seconds })], quiet);
    assert_eq!(known.doing, Doing::Done);
    assert_eq!(known.last(0).step, 24);
    let (first, other) = (known.last(0), known.last(1));
    assert!(other.step < 100_000 && other.seconds >= first.seconds, "{first:?} {other:?}");
}

#[test]
fn a_pause_a_single_step_and_a_lost_device_change_no_loss() {
    for backend in backends() {
        // Steps are single ones here, so that all of them are seen.
        let run = RunConfig { log_every: 1, ..config("full") };
        let begin = || order(Order::Start { runs: vec![run.clone()], pace: Pace::Steps });
        let whole = serve(backend, vec![begin()], quiet);
        let resume = || order(Order::Resume { pace: Pace::Steps });
        let commands = vec![begin(), order(Order::Step), Command::LoseDevice, resume()];
        let pieces = serve(backend, commands, once_behind(0, order(Order::Pause)));
        assert!(pieces.seen.contains(&Doing::Paused), "{backend:?}: {:?}", pieces.seen);
        assert_eq!(pieces.lost, usize::from(backend == Backend::Gpu));
        assert_eq!(pieces.losses(0), whole.losses(0), "{backend:?}");
        assert_eq!(pieces.last(0).held, whole.last(0).held);
    }
}

/// One that is taken in the middle of a race, one at its end, and one of a run that is not there.
#[test]
fn a_look_tells_the_inside_of_a_run_and_changes_no_loss() {
    let heads = || HeadChoice { part: "layers.1.attention".into(), head: 1, written: false };
    let look = |run, sequence| order(Order::Look { run, sequence, prompt: String::new(), heads: heads() });
    for backend in backends() {
        let begin = || start(&["full", "sliding_window"], Pace::Steps);
        let whole = serve(backend, vec![begin()], quiet);
        let known = serve(backend, vec![begin(), look(1, 3), look(7, 0)], once_behind(0, look(0, 0)));
        assert_eq!(known.losses(0).last(), whole.losses(0).last(), "{backend:?}");
        assert_eq!(known.problems, Vec::<String>::new());
        let [first, last] = &known.looks[..] else { panic!("{backend:?}: {} looks", known.looks.len()) };
        assert!(first.run == 0 && (1..24).contains(&first.step), "{backend:?}: at {}", first.step);
        assert_eq!((last.run, last.step, last.sequence), (1, 24, 3));
        for look in [first, last] {
            assert!(look.changes.iter().all(|c| c.gradient > 0.0 && c.weights > 0.0 && c.update > 0.0), "{look:?}");
            assert_eq!(look.seen.len(), known.runs[0].config.model.length);
            let judged: Vec<_> = look.seen.iter().filter_map(|seen| seen.guess.as_ref()).collect();
            assert_eq!(judged.len(), 4, "as many as are copied");
            for guess in judged {
                assert_eq!(guess.right, guess.guess == guess.answer);
                assert!(guess.of_answer > 0.0 && guess.of_answer <= guess.of_guess && guess.of_guess <= 1.0);
            }
            assert_eq!(look.written, None, "symbols are no text");
            let labels: Vec<String> = look.seen.iter().map(|seen| seen.token.clone()).collect();
            let heads = &look.heads;
            assert_eq!((heads.part.as_str(), heads.head, &heads.why), ("layers.1.attention", 1, &None));
            assert_eq!((&heads.queries, &heads.keys, heads.signed), (&labels, &labels, false));
            // A query's weights come to 1, as far as a byte tells; nobody sees what comes, or lies beyond the window.
            for (i, row) in heads.cells().chunks(labels.len()).enumerate() {
                let sum: f32 = row.iter().filter(|x| x.is_finite()).sum();
                assert!((sum - 1.0).abs() < 0.05, "{backend:?}: row {i} comes to {sum}");
                let first = if look.run == 1 { i.saturating_sub(1) } else { 0 };
                assert!(row.iter().enumerate().all(|(j, x)| x.is_finite() == (first..=i).contains(&j)), "{i}: {row:?}");
            }
        }
    }
}

#[test]
fn a_look_at_a_model_of_stories_goes_on_with_a_prompt() {
    let text = r#"{"task": {"id": "story", "length": 16}, "model": {"d_model": 16, "heads": 2}, "batch": 4, "steps": 2,
        "evaluation": {"every": 0, "batches": 1}}"#;
    let runs = vec![RunConfig::parse(text).unwrap()];
    let prompts = ["Once a blue fox", "Quetzalcoatl", ""];
    let heads = HeadChoice { part: "layers.7.attention".into(), head: 9, written: true };
    let look = |prompt: &str| Order::Look { run: 0, sequence: 0, prompt: prompt.into(), heads: heads.clone() };
    let looks = prompts.map(|prompt| order(look(prompt)));
    let mut commands = vec![order(Order::Start { runs, pace: Pace::Steps })];
    commands.extend(looks.clone());
    commands.extend(looks);
    let known = serve(Backend::Cpu, commands, quiet);
    assert_eq!(known.looks.len(), 6, "{:?}", known.problems);
    assert_eq!(known.looks[..3], known.looks[3..], "the same look twice");
    let written = |at: usize| known.looks[at].written.as_ref().expect("a story is text");
    assert_eq!(written(0).prompt, "Once a blue fox");
    // 24 tokens; full stops stand at the words before them.
    assert!((12..=24).contains(&written(0).words.split_whitespace().count()), "{:?}", written(0));
    // The nearest head that there is, on the last words of the text.
    let heads = &known.looks[0].heads;
    assert_eq!((heads.part.as_str(), heads.head, heads.queries.len()), ("layers.0.attention", 1, 16));
    let line = |labels: &[String]| labels.concat().replace([' ', '\n', '⏎'], "");
    let text = line(&[written(0).prompt.clone(), written(0).words.clone()]);
    assert!(text.ends_with(&line(&heads.keys)), "{:?} in {text}", heads.keys);
    // What has no word that the model knows goes on from the sequence.
    assert_eq!(written(1), written(2));
    assert!(written(1).prompt.starts_with("Once a"), "{:?}", written(1));
}

#[test]
fn a_hidden_page_trains_nothing_until_it_is_seen() {
    let hide = |visible| Command::Visible { visible };
    let hidden = serve(Backend::Cpu, vec![hide(false), start(&["full"], Pace::Steps)], quiet);
    assert_eq!((hidden.doing, hidden.runs[0].samples.len()), (Doing::Running, 0));
    let seen = serve(Backend::Cpu, vec![hide(false), start(&["full"], Pace::Steps), hide(true)], quiet);
    assert_eq!((seen.doing, seen.last(0).step), (Doing::Done, 24));
}

#[test]
fn a_copy_goes_on_from_where_it_was_copied() {
    for backend in backends() {
        let other = RunConfig { optimiser: Default::default(), steps: 30, ..config("full") };
        let commands = vec![
            order(Order::Start { runs: vec![config("full")], pace: Pace::Steps }),
            order(Order::Fork { run: 0, config: Box::new(other) }),
            order(Order::Resume { pace: Pace::Steps }),
        ];
        let known = serve(backend, commands, quiet);
        assert_eq!(known.runs[1].forked, Some((0, 24)));
        assert_eq!(known.losses(1)[..known.losses(0).len()], known.losses(0)[..]);
        assert_eq!((known.last(0).step, known.last(1).step), (24, 30));
        // A model with other tensors can't take the weights, and says so.
        let wider = serve(
            backend,
            vec![start(&["full"], Pace::Steps), {
                let mut config = config("full");
                config.model.d_model = 32;
                order(Order::Fork { run: 0, config: Box::new(config) })
            }],
            quiet,
        );
        let failed = wider.runs[1].failed.as_ref().expect("refused");
        assert!(failed.reason.contains("it takes"), "{failed:?}");
    }
}

#[test]
fn what_cannot_be_trained_is_refused_with_the_nearest_that_can() {
    let mut odd = config("full");
    odd.model.heads = 3;
    for (run, reason, nearest) in [(config("linformer"), "causal", ""), (odd, "heads: 3", "divisor of d_model")] {
        let known = serve(
            Backend::Cpu,
            vec![order(Order::Start { runs: vec![run, config("full")], pace: Pace::Steps })],
            quiet,
        );
        let failed = known.runs[0].failed.as_ref().expect("refused");
        assert!(failed.reason.contains(reason), "{failed:?}");
        assert!(failed.nearest.as_ref().is_some_and(|n| n.contains(nearest)), "{failed:?}");
        // The other one is trained all the same.
        assert_eq!(known.last(1).step, 24);
    }
    let none = serve(Backend::Cpu, vec![order(Order::Start { runs: vec![], pace: Pace::Steps })], quiet);
    assert_eq!(none.doing, Doing::Nothing);
}

#[test]
fn runs_that_were_prepared_are_timed_and_start_from_the_beginning() {
    for backend in backends() {
        let runs = vec![config("full")];
        let begin = || order(Order::Start { runs: runs.clone(), pace: Pace::Steps });
        let known = serve(backend, vec![order(Order::Prepare { runs: runs.clone() }), begin()], quiet);
        assert!(known.runs[0].step_seconds.is_some_and(|s| s > 0.0), "{backend:?}");
        // It was not made a second time, and had learned nothing from being timed.
        assert!(known.seen.iter().filter(|doing| **doing == Doing::Preparing).count() == 1);
        let cold = serve(backend, vec![begin()], quiet);
        let at_end = |known: &Known| known.last(0).loss.to_bits();
        assert_eq!(at_end(&known), at_end(&cold));
    }
}

#[test]
fn a_run_that_was_stopped_gives_its_memory_back_and_can_go_on() {
    let stop = order(Order::Stop);
    let commands = vec![
        order(Order::Start { runs: vec![RunConfig { log_every: 1, ..config("full") }], pace: Pace::Steps }),
        order(Order::Resume { pace: Pace::Steps }),
    ];
    let known = serve(Backend::Cpu, commands, once_behind(0, stop));
    assert!(known.seen.contains(&Doing::Stopped), "{:?}", known.seen);
    assert_eq!((known.doing, known.last(0).step), (Doing::Done, 24));
    // Looking at it while it is stopped tells where it stands, and it goes on from there.
    let stop = order(Order::Stop);
    let runs = vec![RunConfig { log_every: 1, ..config("full") }];
    let commands = vec![
        order(Order::Start { runs, pace: Pace::Steps }),
        order(Order::Look { run: 0, sequence: 0, prompt: String::new(), heads: HeadChoice::default() }),
        order(Order::Resume { pace: Pace::Steps }),
    ];
    let looked = serve(Backend::Cpu, commands, once_behind(0, stop));
    assert!((1..24).contains(&looked.looks[0].step), "at {}", looked.looks[0].step);
    assert_eq!(looked.losses(0), known.losses(0));
}

#[test]
fn a_race_outlives_the_engine_and_goes_on_as_if_never_stopped() {
    for backend in backends() {
        let runs =
            || vec![RunConfig { log_every: 1, ..config("full") }, RunConfig { log_every: 1, ..config("linear") }];
        let begin = || order(Order::Start { runs: runs(), pace: Pace::Steps });
        let whole = serve(backend, vec![begin()], quiet);
        let shelf = Shelf::Memory(Rc::default());
        // A page asks for what was kept before it keeps anything itself.
        let commands = vec![order(Order::Recall), begin()];
        let first = serve_with(&shelf, backend, commands, once_behind(0, order(Order::Pause)));
        assert!(first.seen.contains(&Doing::Paused), "{backend:?}: {:?}", first.seen);
        // Nothing is trained and nothing prepared in its place before it is asked for.
        let prepare = order(Order::Prepare { runs: runs() });
        let back = serve_with(&shelf, backend, vec![order(Order::Recall), prepare], quiet);
        assert_eq!((back.doing, back.losses(0)), (Doing::Paused, first.losses(0)), "{backend:?}");
        assert!(back.losses(0).len() < whole.losses(0).len());
        let commands = vec![order(Order::Recall), order(Order::Resume { pace: Pace::Steps })];
        let second = serve_with(&shelf, backend, commands, quiet);
        assert_eq!(second.doing, Doing::Done);
        for run in 0..2 {
            assert_eq!(second.losses(run), whole.losses(run), "{backend:?}: run {run}");
        }
    }
}

/// A shelf with a race of two that rests, and what was known of it.
fn shelf_with_two() -> (Shelf, Known) {
    let shelf = Shelf::Memory(Rc::default());
    let commands = vec![order(Order::Recall), start(&["full", "linear"], Pace::Steps)];
    let known = serve_with(&shelf, Backend::Cpu, commands, once_behind(0, order(Order::Pause)));
    assert_eq!(known.doing, Doing::Paused);
    (shelf, known)
}

#[test]
fn runs_of_an_earlier_visit_stand_beside_one_that_was_begun_before_they_were_asked_for() {
    let (shelf, earlier) = shelf_with_two();
    let alone = serve(Backend::Cpu, vec![start(&["gru"], Pace::Steps)], quiet);
    let recall = once_behind(0, order(Order::Recall));
    let both = serve_with(&shelf, Backend::Cpu, vec![start(&["gru"], Pace::Steps)], recall);
    assert!(both.problems.is_empty(), "{:?}", both.problems);
    // It was trained to its end, and the others rest where they were.
    assert_eq!((both.runs.len(), both.doing), (3, Doing::Paused));
    assert_eq!(both.last(2).step, alone.last(0).step);
    assert_eq!(both.last(2).loss.to_bits(), alone.last(0).loss.to_bits());
    for run in 0..2 {
        assert_eq!(both.losses(run), earlier.losses(run));
    }
    // All of them are on the shelf, and go on from there.
    let back = serve_with(&shelf, Backend::Cpu, vec![order(Order::Recall)], quiet);
    assert_eq!((back.runs.len(), back.losses(2)), (3, both.losses(2)));
    let on = vec![order(Order::Recall), order(Order::Resume { pace: Pace::Steps })];
    let done = serve_with(&shelf, Backend::Cpu, on, quiet);
    assert_eq!(done.doing, Doing::Done);
    assert!((0..3).all(|run| done.last(run).step == done.runs[run].config.steps));
}

#[test]
fn runs_that_rest_beside_another_rest_on_when_it_steps_or_is_taken_away() {
    let (shelf, earlier) = shelf_with_two();
    // The third comes alone, is paused, steps, and goes.
    let sent = Cell::new(false);
    let react = move |handle: &Handle, event: &Event| {
        let Event::Training { news } = event else { return };
        match &**news {
            News::Samples { of } if of.iter().any(|(run, _)| *run == 0) => handle.send(order(Order::Recall)),
            News::Runs { runs, alone: Some(2), .. } if runs.len() == 3 && !sent.replace(true) => {
                handle.send(order(Order::Pause));
                handle.send(order(Order::Step));
                handle.send(order(Order::Resume { pace: Pace::Steps }));
                handle.send(order(Order::Remove { run: 2 }));
            }
            _ => {}
        }
    };
    let left = serve_with(&shelf, Backend::Cpu, vec![start(&["gru"], Pace::Steps)], react);
    assert_eq!((left.runs.len(), left.doing), (2, Doing::Paused), "{:?}", left.seen);
    assert!((0..2).all(|run| left.losses(run) == earlier.losses(run)));
    let on = vec![order(Order::Recall), order(Order::Resume { pace: Pace::Steps })];
    assert_eq!(serve_with(&shelf, Backend::Cpu, on, quiet).doing, Doing::Done);
}

#[test]
fn runs_for_which_there_is_no_room_do_not_take_the_place_of_others() {
    let (shelf, earlier) = shelf_with_two();
    let recall = once_behind(0, order(Order::Recall));
    let five = ["gru", "rnn", "full", "linear", "lstm"];
    let many = serve_with(&shelf, Backend::Cpu, vec![start(&five, Pace::Steps), order(Order::Keep)], recall);
    assert_eq!(many.runs.len(), 5);
    assert!(many.problems[0].contains("Others") && many.problems[1].contains("7 runs"), "{:?}", many.problems);
    let back = serve_with(&shelf, Backend::Cpu, vec![order(Order::Recall)], quiet);
    assert_eq!((back.runs.len(), back.losses(0)), (2, earlier.losses(0)));
}

#[test]
fn a_run_is_taken_away_and_the_others_keep_their_weights() {
    let (shelf, earlier) = shelf_with_two();
    let Shelf::Memory(kept) = &shelf else { panic!("it is in memory") };
    assert!(!kept.borrow()["run-1"].is_empty());
    let commands = vec![order(Order::Recall), order(Order::Remove { run: 0 }), order(Order::Remove { run: 0 })];
    let left = serve_with(&shelf, Backend::Cpu, commands, quiet);
    assert_eq!((left.runs.len(), left.losses(0)), (1, earlier.losses(1)), "the last one stays");
    assert!(!kept.borrow()["run-0"].is_empty() && kept.borrow()["run-1"].is_empty(), "its weights take no room");
    let on = vec![order(Order::Recall), order(Order::Resume { pace: Pace::Steps })];
    let done = serve_with(&shelf, Backend::Cpu, on, quiet);
    let whole = serve(Backend::Cpu, vec![start(&["linear"], Pace::Steps)], quiet);
    assert_eq!((done.runs.len(), done.doing), (1, Doing::Done));
    assert_eq!(done.last(0).loss.to_bits(), whole.last(0).loss.to_bits());
}

#[test]
fn a_saved_run_is_opened_elsewhere_and_a_broken_file_is_refused() {
    let kept = Rc::new(RefCell::new(std::collections::BTreeMap::new()));
    let shelf = Shelf::Memory(kept.clone());
    let commands = vec![start(&["full"], Pace::Steps), order(Order::Save { run: 0 })];
    assert_eq!(serve_with(&shelf, Backend::Cpu, commands, quiet).saved, 1);
    let file = kept.borrow()["file"].clone();
    let open = || order(Order::Open { from: "file".into() });
    let elsewhere = Shelf::Memory(Rc::new(RefCell::new([("file".to_owned(), file.clone())].into())));
    let opened = serve_with(&elsewhere, Backend::Cpu, vec![open(), order(Order::Step)], quiet);
    assert_eq!(opened.runs.len(), 1);
    assert_eq!(opened.runs[0].config, {
        let mut config = config("full");
        config.complete(u64::MAX).unwrap();
        config
    });
    for bytes in [vec![], vec![7; 100], file[..file.len() - 1].to_vec()] {
        let broken = Shelf::Memory(Rc::new(RefCell::new([("file".to_owned(), bytes)].into())));
        let refused = serve_with(&broken, Backend::Cpu, vec![open()], quiet);
        assert!(refused.runs.is_empty() && refused.problems.len() == 1, "{:?}", refused.problems);
        assert!(refused.problems[0].contains("checkpoint"), "{:?}", refused.problems);
    }
}
