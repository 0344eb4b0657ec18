//! The lab: one configuration everywhere, the protocol between a face (page, command line) and the engine, the engine.

pub mod experiment;
pub mod protocol;
