//! Plates drawn by the device, straight from the buffers that the graph left the factors in.

use super::Engine;
use super::device::Fault;
use super::draw::{MAX_SIDE, Show};
use super::explore::{Explored, Shown};
use super::inbox::Watch;
use super::pause::Pacer;
use super::timing::since;
use crate::attention::EffectiveKind;
use crate::gpu::plate::{Content, Factors, Kind, Plate, Scene, Summary};
use crate::gpu::{Error, Gpu, now_ms};
use crate::lab::experiment::{Pool, View};
use crate::lab::picture::{Area, colour};
use crate::lab::protocol::Event;
use crate::lab::screen::Screen;
use crate::pattern::BlockList;

/// A picture that is being computed is shown again so often, in milliseconds.
const FRAME_MS: f64 = 100.0;

/// The device side of one plate, and what it is drawn on.
pub(super) struct Painter {
    plate: Plate,
    #[cfg(target_arch = "wasm32")]
    canvas: Option<crate::gpu::Canvas>,
}

impl Painter {
    async fn new(gpu: &Gpu) -> Result<Self, Error> {
        Ok(Self {
            plate: Plate::new(gpu).await?,
            #[cfg(target_arch = "wasm32")]
            canvas: None,
        })
    }

    /// Begins a picture; `full` is what a difference is taken to.
    async fn begin(&mut self, show: &Show, shown: &Shown, full: Option<&Shown>, head: usize) -> Result<(), Fault> {
        let (n, m) = (shown.setup.length, shown.setup.keys);
        let (width, height) = (show.width as usize, show.height as usize);
        let area = Area { viewport: show.viewport, width, height, n, m };
        let (rows, columns) = (area.rows(), area.columns());
        let own = factors(shown, head)?;
        let other = full.map(|full| factors(full, head)).transpose()?;
        let listed = shown.rule.bits(head);
        let single = shown.blocks.as_ref().is_some_and(|list| (list.block_q, list.block_k) == (1, 1));
        let kinds = shown.blocks.as_ref().filter(|_| !single).map(|blocks| kinds_of(blocks, head));
        let content = match (show.view, &other) {
            (View::Mask, _) => Content::Pattern(own.mask),
            // A list of single pairs visits those that are allowed, and no others.
            (View::Blocks, _) if single => Content::Pattern(own.mask),
            (View::Blocks, _) => match (&shown.blocks, &kinds) {
                (Some(list), Some(kinds)) => Content::Visited { kinds, block_q: list.block_q, block_k: list.block_k },
                // Without a block list everything is visited.
                _ => Content::Visited { kinds: &[2], block_q: n, block_k: m },
            },
            (View::Scores, _) => Content::Scores(&own),
            (View::Difference, Some(other)) => Content::Difference(&own, other),
            _ => Content::Weights(&own),
        };
        let mean = show.pool == Pool::Mean;
        self.plate.set(&Scene { content, n, m, head, mean, listed: &listed, rows: &rows, columns: &columns }).await?;
        Ok(())
    }

    /// Puts what is computed so far on the screen; its domain, and what is known of its values.
    async fn present(&mut self, show: &Show, screen: &Screen) -> Result<([f64; 2], Summary), Fault> {
        let summary = self.plate.summary().await?;
        let domain = colour::domain(show.view, summary.largest);
        let colours = colour::on_device(show.view, show.scale, show.dark, domain);
        match screen {
            Screen::Nowhere => {}
            Screen::Memory(_) => {
                let rgba = self.plate.image(&colours).await?;
                screen.put(show.width as usize, show.height as usize, &rgba);
            }
            #[cfg(target_arch = "wasm32")]
            Screen::Canvas(_) => {
                let mut canvas = match self.canvas.take() {
                    Some(canvas) => canvas,
                    None => crate::gpu::Canvas::new(self.plate.gpu(), show.width, show.height)?,
                };
                canvas.resize(show.width, show.height);
                canvas.present(&mut self.plate, &colours).await?;
                screen.copy(canvas.element(), show.width, show.height);
                self.canvas = Some(canvas);
            }
        }
        Ok((domain, summary))
    }
}

impl Engine {
    pub(super) async fn draw_on_device(
        &mut self,
        gpu: &Gpu,
        plate: usize,
        show: &Show,
        watch: &Watch,
    ) -> Result<(), Fault> {
        let mut painter = match self.painters[plate].take() {
            Some(painter) => painter,
            None => Painter::new(gpu).await?,
        };
        let show =
            Show { width: show.width.clamp(1, MAX_SIDE), height: show.height.clamp(1, MAX_SIDE), ..show.clone() };
        let result = match &self.explored {
            Some(explored) => self.paint(&mut painter, plate, &show, explored, watch).await,
            None => Ok(()),
        };
        self.painters[plate] = Some(painter);
        result
    }

    async fn paint(
        &self,
        painter: &mut Painter,
        plate: usize,
        show: &Show,
        explored: &Explored,
        watch: &Watch,
    ) -> Result<(), Fault> {
        let Some(shown) = &explored.plates[plate] else { return Ok(()) };
        let full = match (show.view, explored.full()) {
            // It is drawn as soon as full attention has been computed.
            (View::Difference, None) => return Ok(()),
            (View::Difference, full) => full,
            _ => None,
        };
        let start = now_ms();
        let screen = self.inbox.screen(plate);
        painter.begin(show, shown, full, explored.index(show.head)).await?;
        let mut pacer = Pacer::default();
        let mut presented = start;
        while let Some(progress) = painter.plate.step().await? {
            let complete = progress.done == progress.total;
            // Half a picture over the coarse one is worth a frame now and then.
            if complete || (progress.exact && since(presented) > FRAME_MS) {
                let (domain, summary) = painter.present(show, &screen).await?;
                let (largest, non_finite) = (f64::from(summary.largest), u64::from(summary.non_finite));
                let (exact, pool) = (progress.exact && complete, show.pool);
                self.emit(Event::Plate { plate, exact, domain, largest, non_finite, pool, ms: since(start) });
                presented = now_ms();
            }
            pacer.pause().await;
            if watch.stop() {
                return Err(Fault::Stopped);
            }
        }
        Ok(())
    }
}

/// The factors of a matrix that has been computed, with the rule of one head.
fn factors(shown: &Shown, head: usize) -> Result<Factors, Fault> {
    let missing = |name: &str| Fault::refused(format!("{} gave no {name}", shown.variant.id));
    let tensor = |name: &str| shown.prepared.on_device(name).ok_or_else(|| missing(name));
    let (left, ty) = tensor("effective_left")?;
    let (right, _) = tensor("effective_right")?;
    let kind = match shown.kind {
        EffectiveKind::Softmax => Kind::Softmax,
        EffectiveKind::Ratio => Kind::Ratio,
        EffectiveKind::Plain => Kind::Plain,
        EffectiveKind::Filtered { taps } => Kind::Filtered { taps: taps as u32 },
        EffectiveKind::Entmax => Kind::Entmax,
        EffectiveKind::Spanned { distances } => Kind::Spanned { distances: distances as u32 },
        EffectiveKind::Chunked { rounds, chunks } => Kind::Chunked { rounds: rounds as u32, chunks: chunks as u32 },
        EffectiveKind::Cells => Kind::Cells,
    };
    let row = if matches!(kind, Kind::Plain | Kind::Cells) { None } else { Some(tensor("effective_row")?.0) };
    let rank = ty.shape.last().copied().unwrap_or(0);
    let mask = shown.rule.of_head(head).encode(shown.setup.length, shown.setup.keys);
    Ok(Factors { left, right, row, rank, kind, mask })
}

/// Of each query block and key block of a head: 0 absent, 1 partial, 2 full.
fn kinds_of(list: &BlockList, head: usize) -> Vec<u32> {
    let mut kinds = vec![0; list.query_blocks() * list.key_blocks()];
    for block in 0..list.query_blocks() {
        for run in list.runs_of(head, block) {
            let first = block * list.key_blocks() + run.first as usize;
            kinds[first..first + run.count as usize].fill(1 + u32::from(run.full));
        }
    }
    kinds
}
