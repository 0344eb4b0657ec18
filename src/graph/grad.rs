//! Reverse-mode differentiation at graph level.
