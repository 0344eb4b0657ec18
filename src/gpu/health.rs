//! Whether the device still lives, and what it complained of outside any error scope.

use super::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared with the device's callbacks, which may run on another thread natively.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    lost: Option<String>,
    error: Option<Error>,
}

impl Health {
    /// Sets the callbacks of a device.
    pub fn watch(&self, device: &wgpu::Device) {
        let health = self.clone();
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { format!("{reason:?}") } else { message };
            health.state().lost.get_or_insert(message);
        });
        let health = self.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            // The first error is the cause, the others follow from it.
            health.state().error.get_or_insert_with(|| Error::from_wgpu("device", &error));
        }));
    }

    pub fn lose(&self, reason: &str) {
        self.state().lost.get_or_insert_with(|| reason.into());
    }

    pub fn lost(&self) -> Option<String> {
        self.state().lost.clone()
    }

    /// The loss of the device, or the oldest error since the last call.
    pub fn check(&self) -> Result<(), Error> {
        let mut state = self.state();
        if let Some(reason) = &state.lost {
            return Err(Error::Lost { reason: reason.clone() });
        }
        state.error.take().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves plain data behind that is still true.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
