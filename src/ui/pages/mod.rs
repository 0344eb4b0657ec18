//! The places of the page; each composes components.

pub mod attention;
pub mod speed;
pub mod train;
