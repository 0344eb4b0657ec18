//! Serving `Show` and `Probe`: pictures of what was explored, and single cells of it.

use super::Engine;
use super::device::{Device, Fault};
use super::explore::Explored;
use super::inbox::Watch;
use super::pause::Pacer;
use super::timing::since;
use crate::gpu::now_ms;
use crate::lab::experiment::{Pool, Scale, View};
use crate::lab::matrix::rank_of;
use crate::lab::picture::{Raster, Scene, colour};
use crate::lab::protocol::{Event, Viewport};

/// What a plate shows; remembered, so that a new experiment is drawn the same way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Show {
    pub view: View,
    pub head: usize,
    pub pool: Pool,
    pub scale: Scale,
    pub viewport: Viewport,
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

/// Largest side of a picture, in pixels.
pub(super) const MAX_SIDE: u32 = 4096;

impl Engine {
    /// Draws plate `plate` as it was last asked for; nothing where it never was, or where there is nothing to show.
    pub(super) async fn draw(&mut self, plate: usize, watch: &Watch) -> Result<(), Fault> {
        let Some(show) = self.shows[plate].clone() else { return Ok(()) };
        if let Some(head) = self.other_head(show.head) {
            let mut experiment = match &self.explored {
                Some(explored) => explored.asked.clone(),
                None => return Ok(()),
            };
            experiment.head = head;
            return Box::pin(self.explore(experiment, watch)).await;
        }
        if let Device::Gpu(gpu) = self.device.clone() {
            self.draw_on_device(&gpu, plate, &show, watch).await?;
        } else if let Some(explored) = &self.explored {
            self.draw_on_host(plate, &show, explored, watch).await?;
        }
        self.tell_decisions(plate, show.head).await
    }

    /// The head that must be computed first, where only another one was.
    fn other_head(&self, wanted: usize) -> Option<usize> {
        let explored = self.explored.as_ref()?;
        let wanted = wanted.min(explored.experiment.heads - 1);
        explored.only_head.filter(|&have| have != wanted).map(|_| wanted)
    }

    async fn draw_on_host(&self, plate: usize, show: &Show, explored: &Explored, watch: &Watch) -> Result<(), Fault> {
        let Some(shown) = &explored.plates[plate] else { return Ok(()) };
        let start = now_ms();
        let full = match (show.view, explored.full()) {
            (View::Difference, Some(full)) => Some(full.matrix().await?),
            // It is drawn as soon as full attention has been computed.
            (View::Difference, None) => return Ok(()),
            _ => None,
        };
        let matrix = shown.matrix().await?;
        let scene = Scene {
            view: show.view,
            matrix: &matrix,
            full: full.as_deref(),
            blocks: shown.blocks.as_ref(),
            head: explored.index(show.head),
            pool: show.pool,
            scale: show.scale,
            viewport: show.viewport,
            width: show.width.clamp(1, MAX_SIDE) as usize,
            height: show.height.clamp(1, MAX_SIDE) as usize,
            dark: show.dark,
        };
        let exact = Raster::exact(scene);
        if !exact.is_cheap() {
            self.compute(plate, show, &scene, Raster::coarse(scene), false, start, watch).await?;
        }
        self.compute(plate, show, &scene, exact, true, start, watch).await
    }

    #[allow(clippy::too_many_arguments, reason = "the one place that turns a raster into a picture")]
    async fn compute(
        &self,
        plate: usize,
        show: &Show,
        scene: &Scene<'_>,
        mut raster: Raster<'_>,
        exact: bool,
        start: f64,
        watch: &Watch,
    ) -> Result<(), Fault> {
        let mut pacer = Pacer::default();
        while raster.step() {
            pacer.pause().await;
            if watch.stop() {
                return Err(Fault::Stopped);
            }
        }
        let values = raster.finish();
        let rgba = colour::paint(&values, show.view, show.scale, show.dark);
        self.inbox.screen(plate).put(scene.width, scene.height, &rgba);
        let (domain, largest, non_finite, pool) = (values.domain, values.largest, values.non_finite, show.pool);
        self.emit(Event::Plate { plate, exact, domain, largest, non_finite, pool, ms: since(start) });
        Ok(())
    }

    /// Answers with one cell and its row.
    pub(super) async fn probe(&self, plate: usize, query: usize, key: usize) -> Result<(), Fault> {
        let Some(explored) = &self.explored else { return Ok(()) };
        let Some(shown) = explored.plates.get(plate).and_then(Option::as_ref) else { return Ok(()) };
        if query >= shown.setup.length || key >= shown.setup.keys {
            return Ok(());
        }
        let matrix = shown.matrix().await?;
        let head = self.shows[plate].as_ref().map_or(explored.experiment.head, |show| show.head);
        let head = explored.index(head);
        let row = matrix.row(head, query);
        let has_scores = shown.kind.has_scores();
        self.emit(Event::Cell {
            plate,
            query,
            key,
            score: has_scores.then(|| f64::from(row.products[key])),
            weight: f64::from(row.weights[key]),
            rank: rank_of(&row.weights, key),
            allowed: matrix.may(head, query, key),
            row: row.weights,
        });
        Ok(())
    }
}
