//! The place Attention: gallery, one or two plates with their read-out and numbers, inspector.

use crate::ui::components::gallery::Gallery;
use crate::ui::components::inspector::Inspector;
use crate::ui::components::numbers::NumbersTable;
use crate::ui::components::open_model::Expected;
use crate::ui::components::plate::Plate;
use crate::ui::components::readout::Readout;
use crate::ui::components::subject::Swap;
use crate::ui::components::tools::Tools;
use crate::ui::state::use_lab;
use leptos::prelude::*;

#[component]
pub fn Attention() -> impl IntoView {
    let lab = use_lab();
    let count = lab.of(|experiment| experiment.variants.len().min(2));
    view! {
        <div class="attention">
            <div class="gallery"><Gallery/></div>
            <div class="stage">
                <Tools/>
                <div class="plates" data-count=move || count.get()>
                    <Plate index=0/>
                    <Plate index=1/>
                </div>
                <Readout/>
                <Expected/>
                <Swap/>
                <NumbersTable/>
            </div>
            <div class="inspector"><Inspector/></div>
        </div>
    }
}
