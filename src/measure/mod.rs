//! Timing statistics, fits, crossovers.
