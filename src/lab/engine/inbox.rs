//! How commands reach the engine while it works: they wait in a queue that it looks into whenever it pauses.

use crate::lab::protocol::Command;
use crate::lab::queue::Queue;
use crate::lab::screen::Screen;
use crate::reading::Source;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Sends commands to an engine of the same thread, also while it is serving one. Clones speak to the same engine.
#[derive(Clone, Default)]
pub struct Handle(Rc<Inbox>);

#[derive(Default)]
struct Inbox {
    queue: RefCell<Queue>,
    /// Cancels so far: a job stops when there are more than when it began.
    cancels: Cell<u64>,
    hidden: Cell<bool>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    screens: RefCell<[Screen; 2]>,
    /// What the library has sent.
    arrived: RefCell<Vec<Arrival>>,
    /// Of the model that is to be opened.
    files: RefCell<Option<Vec<Source>>>,
}

/// The name of what was asked for, and its bytes or why there are none.
pub(super) type Arrival = (&'static str, Result<Vec<u8>, String>);

impl Handle {
    pub fn send(&self, command: Command) {
        let inbox = &self.0;
        match command {
            Command::Cancel => {
                inbox.cancels.set(inbox.cancels.get() + 1);
                inbox.queue.borrow_mut().drop_sweeps();
            }
            Command::Visible { visible } => {
                inbox.hidden.set(!visible);
                // Who waits for commands looks again at what is to be trained on.
                if visible {
                    inbox.queue.borrow_mut().push(command);
                }
            }
            command => inbox.queue.borrow_mut().push(command),
        }
        self.wake();
    }

    /// Where a plate's pictures go from now on.
    pub fn attach(&self, plate: usize, screen: Screen) {
        if let Some(place) = self.0.screens.borrow_mut().get_mut(plate) {
            *place = screen;
        }
    }

    /// Answers what the engine has asked its library for: bytes, or why there are none.
    pub fn provide(&self, name: &'static str, bytes: Result<Vec<u8>, String>) {
        self.0.arrived.borrow_mut().push((name, bytes));
        self.send(Command::Arrived);
    }

    /// Opens the model that these files are of.
    pub fn open(&self, files: Vec<Source>) {
        self.0.files.replace(Some(files));
        self.send(Command::Open);
    }

    pub(super) fn files(&self) -> Option<Vec<Source>> {
        self.0.files.take()
    }

    pub(super) fn arrived(&self) -> Vec<Arrival> {
        self.0.arrived.take()
    }

    pub(super) fn screen(&self, plate: usize) -> Screen {
        self.0.screens.borrow()[plate].clone()
    }

    /// Lets [`super::Engine::serve`] end when everything sent before is served.
    pub fn close(&self) {
        self.0.closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(super) fn pop(&self) -> Option<Command> {
        self.0.queue.borrow_mut().pop()
    }

    pub(super) fn pop_between(&self) -> Option<Command> {
        self.0.queue.borrow_mut().pop_between()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.queue.borrow().is_empty()
    }

    /// Whether runs in training should go on: the page is seen, somebody listens, and there is no other order for them.
    pub(super) fn may_train(&self) -> bool {
        !self.0.hidden.get() && !self.0.closed.get() && !self.0.queue.borrow().has_orders()
    }

    /// The next command; none when the handle was closed and nothing waits.
    pub(super) async fn next(&self) -> Option<Command> {
        self.wait(|inbox| match inbox.queue.borrow_mut().pop() {
            Some(command) => Some(Some(command)),
            None if inbox.closed.get() => Some(None),
            None => None,
        })
        .await
    }

    /// Returns when the page is seen, or when something else is to be done.
    pub(super) async fn seen(&self, watch: &Watch) {
        self.wait(|inbox| (!inbox.hidden.get() || inbox.closed.get() || watch.stop()).then_some(())).await;
    }

    async fn wait<T>(&self, ready: impl Fn(&Inbox) -> Option<T>) -> T {
        poll_fn(|context| match ready(&self.0) {
            Some(value) => Poll::Ready(value),
            None => {
                *self.0.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Watches for what makes `serving` pointless from now on.
    pub(super) fn watch(&self, serving: &Command) -> Watch {
        Watch { handle: self.clone(), cancels: self.0.cancels.get(), serving: serving.clone() }
    }
}

/// Says when a job should stop.
#[derive(Clone)]
pub struct Watch {
    handle: Handle,
    cancels: u64,
    serving: Command,
}

impl Watch {
    pub fn stop(&self) -> bool {
        self.cancelled() || self.handle.0.queue.borrow().outdates(&self.serving)
    }

    /// Whether it is because the visitor wants it.
    pub fn cancelled(&self) -> bool {
        self.handle.0.cancels.get() != self.cancels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::experiment::Experiment;
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    fn explore(n: usize) -> Command {
        Command::Explore { experiment: Box::new(Experiment { n, ..Default::default() }) }
    }

    #[test]
    fn a_hidden_page_waits_until_it_is_seen_or_the_job_is_cancelled() {
        for end in [Command::Visible { visible: true }, Command::Cancel] {
            let handle = Handle::default();
            let watch = handle.watch(&explore(1));
            let mut context = Context::from_waker(Waker::noop());
            handle.send(Command::Visible { visible: false });
            let mut seen = pin!(handle.seen(&watch));
            assert!(seen.as_mut().poll(&mut context).is_pending());
            handle.send(end);
            assert!(seen.as_mut().poll(&mut context).is_ready());
        }
    }

    #[test]
    fn a_job_stops_when_it_is_cancelled_or_outdated() {
        let handle = Handle::default();
        let watch = handle.watch(&explore(1));
        assert!(!watch.stop());
        handle.send(Command::Probe { plate: 0, query: 0, key: 0 });
        assert!(!watch.stop());
        handle.send(explore(2));
        assert!(watch.stop());

        let handle = Handle::default();
        let watch = handle.watch(&explore(1));
        handle.send(Command::Cancel);
        assert!(watch.stop());
        // What comes after a cancel is not cancelled by it.
        assert!(!handle.watch(&explore(1)).stop());
    }

    #[test]
    fn a_cancel_drops_sweeps_that_wait_and_nothing_else() {
        let handle = Handle::default();
        let experiment = Box::<Experiment>::default();
        handle.send(Command::Sweep { experiment, lengths: vec![64], backward: false });
        handle.send(explore(3));
        handle.send(Command::Cancel);
        assert_eq!(handle.pop(), Some(explore(3)));
        assert_eq!(handle.pop(), None);
    }

    #[test]
    fn the_next_command_is_waited_for_until_the_handle_is_closed() {
        let handle = Handle::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut next = pin!(handle.next());
        assert!(next.as_mut().poll(&mut context).is_pending());
        handle.send(explore(4));
        handle.close();
        assert!(matches!(next.as_mut().poll(&mut context), std::task::Poll::Ready(Some(Command::Explore { .. }))));
        assert!(matches!(pin!(handle.next()).poll(&mut context), std::task::Poll::Ready(None)));
    }
}
