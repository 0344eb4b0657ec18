//! Telling what a plate's variant decided about the text, in the head that is shown.

use super::Engine;
use super::device::Fault;
use crate::lab::protocol::{Event, Part};

/// Numbers of one part that are still told: those of 16 chosen blocks for each of 16,384 queries. A page draws no more.
const MOST: usize = 1 << 18;

impl Engine {
    /// Tells the decisions of plate `plate` for `head`, where they have not been told yet.
    pub(super) async fn tell_decisions(&self, plate: usize, head: usize) -> Result<(), Fault> {
        let Some(explored) = &self.explored else { return Ok(()) };
        let Some(shown) = explored.plates.get(plate).and_then(Option::as_ref) else { return Ok(()) };
        if shown.variant.decide.is_none() || shown.told.replace(Some(head)) == Some(head) {
            return Ok(());
        }
        let mut parts = Vec::with_capacity(shown.decisions.len());
        for decision in &shown.decisions {
            let &[_, heads, rows, columns] = shown.prepared.graph.shape(decision.node) else { continue };
            let size = rows * columns;
            let first = if heads == 1 { 0 } else { explored.index(head) * size };
            let values = if size > MOST {
                vec![]
            } else {
                shown.prepared.read_part(&format!("decided_{}", decision.name), first..first + size).await?
            };
            parts.push(Part { name: decision.name.into(), form: decision.form, rows, columns, values });
        }
        let (variant, length) = (shown.variant.id.into(), shown.setup.length);
        self.emit(Event::Decided { plate, variant, head, length, parts });
        Ok(())
    }
}
