//! The parts that pages are made of.

pub mod anatomy;
pub mod banners;
pub mod chart;
pub mod decisions;
pub mod findings;
pub mod forms;
pub mod gallery;
pub mod inspector;
pub mod leak;
pub mod legend;
pub mod masthead;
pub mod numbers;
pub mod plate;
pub mod race_charts;
pub mod race_controls;
pub mod race_memory;
pub mod race_setup;
pub mod race_table;
pub mod readout;
pub mod results;
pub mod sheet;
pub mod state_line;
pub mod sweep;
pub mod text_input;
pub mod thumbnail;
pub mod tools;
