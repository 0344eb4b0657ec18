//! The whole model: gradients against central differences, the device against the interpreter, training curves, memory.

#[path = "../common/backends.rs"]
mod backends;
#[path = "../common/mod.rs"]
mod common;

mod case;
mod curves;
mod every_variant;
mod gradients;
mod ledger;
mod padding;
