//! The place Train: a task and models, how they do against each other, what it costs, and what to try next.

use crate::ui::components::race_charts::Charts;
use crate::ui::components::race_controls::{Controls, Said, prepare};
use crate::ui::components::race_look::Inside;
use crate::ui::components::race_memory::Memory;
use crate::ui::components::race_setup::RaceSetup;
use crate::ui::components::race_table::Runs;
use crate::ui::state::use_lab;
use leptos::prelude::*;

#[component]
pub fn Train() -> impl IntoView {
    prepare(use_lab());
    view! {
        <div class="speed" id="train">
            <div class="setup"><RaceSetup/></div>
            <div>
                <Controls/>
                <Said/>
                <Charts/>
                <Runs/>
                <Inside/>
                <Memory/>
            </div>
        </div>
    }
}
