//! Weights of an opened model that stay on the device, so that no text brings them there again: matrices in half precision where
//! it holds them, vectors in single precision. What there is no room for is brought part by part.

use super::device::{Device, Fault};
use crate::gpu::{Buffer, BufferId, Category, Error, Gpu};
use crate::graph::plan::Plan;
use crate::graph::{Dtype, TensorType};
use crate::lab::experiment::Precision;
use crate::lab::opened::Opened;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;

/// What is on the device of the model that is open.
#[derive(Default)]
pub(super) struct Resident {
    buffers: RefCell<BTreeMap<String, Rc<Buffer>>>,
    /// Not all of the model has room.
    full: Cell<bool>,
    precision: Cell<Precision>,
    /// Most bytes that it takes, where it is not for the device to say.
    pub room: Cell<Option<u64>>,
    /// Bytes that were told of last.
    told: Cell<u64>,
}

/// Buffers of a plan that are there.
pub(super) type Here = HashMap<BufferId, Rc<Buffer>>;

/// Some numbers of a weight.
pub(super) struct Piece {
    pub weight: String,
    pub range: Range<usize>,
}

impl Resident {
    /// Holds matrices like this from now on; true where that changes something.
    pub fn set_precision(&self, precision: Precision) -> bool {
        let changed = self.precision.replace(precision) != precision;
        if changed {
            self.clear();
        }
        changed
    }

    /// Gives the memory back.
    pub fn clear(&self) {
        self.buffers.borrow_mut().clear();
        self.full.set(false);
    }

    /// Gives the memory back, and takes no more; false where there was nothing to give back.
    pub fn give_up(&self) -> bool {
        self.full.set(true);
        !std::mem::take(&mut *self.buffers.borrow_mut()).is_empty()
    }

    pub fn bytes(&self) -> u64 {
        self.buffers.borrow().values().map(|buffer| buffer.bytes()).sum()
    }

    /// [`Resident::bytes`] where they are not those that were told of last.
    pub fn news(&self) -> Option<u64> {
        let bytes = self.bytes();
        (self.told.replace(bytes) != bytes).then_some(bytes)
    }

    /// How a matrix is stored.
    pub fn dtype(&self, model: &Opened, name: &str) -> Dtype {
        let half = self.precision.get() == Precision::Half && model.fits_half(name);
        if half { Dtype::F16 } else { Dtype::F32 }
    }

    /// The device's buffers of those inputs of a plan that `piece` says are weights; none on the CPU or where there is no room.
    pub async fn buffers(
        &self,
        device: &Device,
        model: &Opened,
        plan: &Plan,
        piece: &dyn Fn(&str, &TensorType) -> Option<Piece>,
    ) -> Result<Here, Fault> {
        let mut all = Here::new();
        let Device::Gpu(gpu) = device else { return Ok(all) };
        let room = self.room.get().unwrap_or(device.total_bytes() / 2);
        for (name, (id, ty)) in &plan.inputs {
            let Some(piece) = piece(name, ty) else { continue };
            match self.buffer(gpu, model, piece, ty, room).await? {
                Some(buffer) => all.insert(*id, buffer),
                None => return Ok(Here::new()),
            };
        }
        Ok(all)
    }

    async fn buffer(
        &self,
        gpu: &Gpu,
        model: &Opened,
        Piece { weight, range }: Piece,
        ty: &TensorType,
        room: u64,
    ) -> Result<Option<Rc<Buffer>>, Fault> {
        if self.full.get() {
            return Ok(None);
        }
        let key = format!("{weight} {}..{}", range.start, range.end);
        if let Some(buffer) = self.buffers.borrow().get(&key) {
            return Ok(Some(buffer.clone()));
        }
        if self.bytes() + ty.bytes() > room {
            self.give_up();
            return Ok(None);
        }
        match gpu.filled(&key, Category::Parameters, &model.bytes(&weight, range, ty)).await {
            Ok(buffer) => {
                let buffer = Rc::new(buffer);
                self.buffers.borrow_mut().insert(key, buffer.clone());
                Ok(Some(buffer))
            }
            Err(Error::OutOfMemory { .. }) => {
                self.give_up();
                Ok(None)
            }
            Err(other) => Err(other.into()),
        }
    }
}
