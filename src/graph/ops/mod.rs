//! The ops, one file each.

pub mod argsort;
pub mod binary;
pub mod broadcast;
pub mod cast;
pub mod choose_blocks;
pub mod chunk_linear;
pub mod concat;
pub mod cross_entropy;
pub mod cumsum;
pub mod depthwise_conv;
pub mod detach;
pub mod gather;
pub mod grouped;
pub mod hamming_clusters;
mod kernel;
pub mod largest;
pub mod layer_norm;
pub mod masked_softmax;
pub mod matmul;
pub mod random;
pub mod recurrent;
pub mod reduce;
pub mod reshape;
mod rows;
pub mod select;
pub mod selected_attention;
pub mod signed_argmax;
pub mod slice;
pub mod softmax;
pub mod sorted_attention;
mod strided;
pub mod strip_attention;
#[cfg(test)]
pub(crate) mod testing;
pub mod transpose;
pub mod unary;

pub mod block_attention;
