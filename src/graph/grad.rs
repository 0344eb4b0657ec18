//! See the module docs of [`crate::graph`].
