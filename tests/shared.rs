//! Several engines on one device, as the figures of one page are.

mod common;

use attention_lab::gpu::Options;
use attention_lab::lab::protocol::{Backend, Command, Event};
use attention_lab::lab::{Engine, Experiment, Handle, Shared};
use std::cell::RefCell;
use std::rc::Rc;

/// An engine, the way to it, and what it has told.
struct Figure {
    engine: Engine,
    handle: Handle,
    told: Rc<RefCell<Vec<Event>>>,
}

impl Figure {
    fn new(shared: &Shared) -> Self {
        let told = Rc::new(RefCell::new(Vec::new()));
        let hears = told.clone();
        let (handle, engine) =
            Engine::sharing(shared.clone(), Options::default(), move |event| hears.borrow_mut().push(event));
        Self { engine, handle, told }
    }

    /// What it tells while it serves these.
    async fn serve(&mut self, commands: impl IntoIterator<Item = Command>) -> Vec<Event> {
        commands.into_iter().for_each(|command| self.handle.send(command));
        self.engine.drain().await;
        self.told.take()
    }
}

fn explore(variant: &str, n: usize) -> Command {
    let variants = vec![variant.to_owned()];
    Command::Explore { experiment: Box::new(Experiment { variants, n, heads: 1, dim: 8, ..Experiment::default() }) }
}

fn prepared(events: &[Event], wanted: &str) -> bool {
    events.iter().any(|event| matches!(event, Event::Prepared { variant, .. } if variant == wanted))
}

fn losses(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::DeviceLost { recovered: true, .. })).count()
}

#[test]
fn engines_share_a_device_its_loss_and_the_one_made_after_it() {
    if common::gpu().is_none() {
        return;
    }
    let start = || Command::Start { backend: Backend::Gpu };
    let shared = Shared::default();
    let (mut first, mut second) = (Figure::new(&shared), Figure::new(&shared));
    let mut alone = Figure::new(&Shared::default());
    pollster::block_on(async {
        assert!(prepared(&first.serve([start(), explore("full", 20)]).await, "full"));
        assert!(prepared(&second.serve([start(), explore("linear", 24)]).await, "linear"));
        assert!(prepared(&alone.serve([start(), explore("full", 20)]).await, "full"));

        assert_eq!(losses(&first.serve([Command::LoseDevice]).await), 1);
        // It was the second one's device as well, and not that of an engine that shares nothing.
        let events = second.serve([explore("linear", 28)]).await;
        assert_eq!((losses(&events), prepared(&events, "linear")), (1, true), "{events:?}");
        assert_eq!(losses(&alone.serve([explore("full", 22)]).await), 0);
        // Both go on with one that lives: neither took the other's away again.
        let events = first.serve([explore("full", 30)]).await;
        assert_eq!((losses(&events), prepared(&events, "full")), (0, true), "{events:?}");
        let events = second.serve([explore("linear", 30)]).await;
        assert_eq!((losses(&events), prepared(&events, "linear")), (0, true), "{events:?}");
    });
}
