//! Choosing kernels by measuring them, when there is nothing else to do.

use super::Engine;
use super::device::Device;
use super::timing::Stopwatch;
use crate::gpu::Error;
use crate::graph::LowerContext;
use crate::lab::protocol::Event;
use crate::measure::tune::{Open, Tuned};
use std::collections::BTreeSet;

/// What could not be found out of the device's kernels; what was is shared with the device.
#[derive(Default)]
pub(super) struct Tuning {
    /// Shape classes that could not be measured; they are not tried again.
    given_up: BTreeSet<String>,
}

impl Engine {
    /// Takes what a visit before has measured. What another engine has measured here since is newer.
    pub(super) fn remember(&mut self, tuned: Tuned) {
        let known = self.shared.tuned();
        if known.borrow().as_ref().is_none_or(|known| known.classes.is_empty()) {
            known.replace(Some(tuned));
        }
        self.use_tuned();
    }

    /// Has the device's programs planned with what was measured on its adapter.
    pub(super) fn use_tuned(&mut self) {
        if let Device::Gpu(gpu) = &self.device {
            let tuned = Tuned::restore(self.shared.tuned().take(), gpu.caps());
            tuned.apply(gpu);
            self.shared.tuned().replace(Some(tuned));
        }
    }

    /// Measures the kernels of one op that is on a plate; false when nothing is left to measure. The next program that is
    /// prepared uses what was found.
    pub(super) async fn tune_idly(&mut self) -> bool {
        let Device::Gpu(gpu) = self.device.clone() else { return false };
        let Some(open) = self.next_open() else { return false };
        let Some(mut tuned) = self.shared.tuned().take() else { return false };
        let inbox = self.inbox.clone();
        let measured = match self.stopwatch().await.as_deref() {
            Ok(Stopwatch::Gpu(timer)) => {
                let context = LowerContext::from_caps(gpu.caps());
                tuned.measure(&gpu, timer, &open, &context, &|| !inbox.is_empty()).await
            }
            Ok(Stopwatch::Cpu) | Err(_) => Err(Error::Cancelled),
        };
        let found = measured.is_ok() && tuned.classes.contains_key(open.class());
        if found {
            tuned.apply(&gpu);
            self.emit(Event::Tuned { tuned: Box::new(tuned.clone()) });
        }
        self.shared.tuned().replace(Some(tuned));
        match measured {
            // Something else is to be done first.
            Err(Error::Cancelled) if !self.inbox.is_empty() => {}
            Err(Error::Lost { reason }) => {
                self.tuning.given_up.insert(open.class().to_owned());
                self.recover(reason, true).await;
            }
            _ if !found => {
                self.tuning.given_up.insert(open.class().to_owned());
            }
            _ => {}
        }
        true
    }

    fn next_open(&self) -> Option<Open> {
        let Device::Gpu(gpu) = &self.device else { return None };
        let context = LowerContext::from_caps(gpu.caps());
        let tuned = self.shared.tuned().borrow();
        let tuned = tuned.as_ref()?;
        let graphs = self.explored.iter().flat_map(|e| e.plates.iter().flatten()).map(|shown| &shown.prepared.graph);
        graphs.flat_map(|g| tuned.open(g, &context)).find(|open| !self.tuning.given_up.contains(open.class()))
    }
}
