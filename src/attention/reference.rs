//! A method's naive definition, as a test or the command line asks for it.

use super::{Inputs, Setup};
use crate::reference::Tape;

/// A naive definition, in f64 and in the recording scalar; made by `Reference::new(naive, naive)` from one generic function.
/// A page has no use for it, and its module does not carry it.
#[derive(Clone, Copy)]
pub struct Reference<Values = Vec<f64>, Recorded = Vec<Tape>> {
    #[cfg(not(target_arch = "wasm32"))]
    pub values: fn(&Inputs<Vec<f64>>, &Setup) -> Values,
    #[cfg(not(target_arch = "wasm32"))]
    pub gradients: fn(&Inputs<Vec<Tape>>, &Setup) -> Recorded,
    #[cfg(target_arch = "wasm32")]
    none: std::marker::PhantomData<(Values, Recorded)>,
}

impl<Values, Recorded> Reference<Values, Recorded> {
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) const fn new(
        values: fn(&Inputs<Vec<f64>>, &Setup) -> Values,
        gradients: fn(&Inputs<Vec<Tape>>, &Setup) -> Recorded,
    ) -> Self {
        Self { values, gradients }
    }

    #[cfg(target_arch = "wasm32")]
    pub(super) const fn new(
        _: fn(&Inputs<Vec<f64>>, &Setup) -> Values,
        _: fn(&Inputs<Vec<Tape>>, &Setup) -> Recorded,
    ) -> Self {
        Self { none: std::marker::PhantomData }
    }
}
