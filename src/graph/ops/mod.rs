//! The ops, one file each.

#[cfg(test)]
pub(crate) mod testing;
