//! The ops, one file each.

pub mod binary;
pub mod broadcast;
pub mod cast;
pub mod concat;
mod kernel;
pub mod matmul;
pub mod reduce;
pub mod reshape;
pub mod select;
pub mod slice;
pub mod softmax;
mod strided;
#[cfg(test)]
pub(crate) mod testing;
pub mod transpose;
pub mod unary;

pub mod block_attention;
