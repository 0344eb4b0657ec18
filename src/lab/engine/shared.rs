//! What the engines of one thread share: the device, what was measured of its kernels, and whose turn it is.
//!
//! A page with several figures has one engine for each, so that each has its own experiment, plates and queue, and all of
//! them work on one device. They take turns: two that measured at once would measure each other.

use crate::gpu::{Error, Gpu, Options};
use crate::measure::tune::Tuned;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Shared by engines; clones are the same.
#[derive(Clone, Default)]
pub struct Shared(Rc<Inner>);

#[derive(Default)]
struct Inner {
    gpu: RefCell<Option<Gpu>>,
    /// What was measured of the device's kernels, here or in a visit before.
    tuned: RefCell<Option<Tuned>>,
    taken: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// The turn of one engine; it ends when this is dropped.
pub(super) struct Turn(Rc<Inner>);

impl Shared {
    /// The device, opened where there is none or it was lost. Called by the engine whose turn it is, so that two that start
    /// at once do not open two.
    pub(super) async fn open(&self, options: &Options) -> Result<Gpu, Error> {
        if let Some(gpu) = self.living() {
            return Ok(gpu);
        }
        self.keep(Gpu::new(options).await)
    }

    /// A device in place of one that was lost: the one that another engine has made by now, or a new one.
    pub(super) async fn reopen(&self, lost: &Gpu) -> Result<Gpu, Error> {
        if let Some(gpu) = self.living() {
            return Ok(gpu);
        }
        self.keep(lost.recreate().await)
    }

    pub(super) fn tuned(&self) -> &RefCell<Option<Tuned>> {
        &self.0.tuned
    }

    /// Waits until no other engine is at work.
    pub(super) async fn turn(&self) -> Turn {
        let inner = &self.0;
        poll_fn(|context| {
            if inner.taken.replace(true) {
                inner.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            } else {
                Poll::Ready(Turn(inner.clone()))
            }
        })
        .await
    }

    fn living(&self) -> Option<Gpu> {
        self.0.gpu.borrow().clone().filter(|gpu| gpu.lost().is_none())
    }

    fn keep(&self, made: Result<Gpu, Error>) -> Result<Gpu, Error> {
        *self.0.gpu.borrow_mut() = made.as_ref().ok().cloned();
        made
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.taken.set(false);
        // All of them: the first to wake takes it, the others wait again. There are as many as a page has figures.
        let waiting = self.0.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    #[test]
    fn a_turn_is_waited_for_until_it_ends() {
        let shared = Shared::default();
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(shared.turn()).poll(&mut context) else { panic!("nobody has it") };
        let mut second = pin!(shared.turn());
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(second.as_mut().poll(&mut context).is_ready());
        // The second one's turn ended with it.
        assert!(pin!(shared.turn()).poll(&mut context).is_ready());
    }
}
