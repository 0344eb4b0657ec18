//! Text and tokens.
