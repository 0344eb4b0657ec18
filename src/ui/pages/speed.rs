//! The place Speed and memory: what to measure, two log-log charts, findings in words, the figures themselves; below, the ways to
//! compute one pattern.

use crate::measure::result::ResultFile;
use crate::ui::components::anatomy::Anatomy;
use crate::ui::components::chain::Chain;
use crate::ui::components::chart::{Chart, Quantity};
use crate::ui::components::findings::{Findings, Fits};
use crate::ui::components::forms::FormsRace;
use crate::ui::components::results::{Actions, Figures};
use crate::ui::components::sweep::SweepSetup;
use leptos::prelude::*;

/// Result files that the visitor opened, to be laid over the page's own measurements.
#[derive(Clone, Copy)]
pub struct Overlays(pub RwSignal<Vec<ResultFile>>);

#[component]
pub fn Speed() -> impl IntoView {
    view! {
        <div class="speed">
            <div class="setup"><SweepSetup/></div>
            <div>
                <Findings/>
                <div class="charts">
                    <Chart quantity=Quantity::Time/>
                    <Chart quantity=Quantity::Bytes/>
                </div>
                <Fits/>
                <Chain/>
                <Anatomy/>
                <Actions/>
                <Figures/>
            </div>
        </div>
        <FormsRace/>
    }
}
