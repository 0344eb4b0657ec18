//! The ops, one file each.

pub mod binary;
pub mod broadcast;
pub mod cast;
mod kernel;
pub mod reduce;
pub mod reshape;
pub mod select;
#[cfg(test)]
pub(crate) mod testing;
pub mod unary;
