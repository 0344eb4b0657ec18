//! Serving `Explore`: the variants at hand are run on the text, and their numbers are told.

use super::device::{Device, Fault};
use super::inbox::Watch;
use super::pause::yield_now;
use super::prepared::{Planned, Prepared};
use super::subject::Seen;
use super::{Engine, Look, setup_of};
use crate::attention::{Decision, EffectiveKind, Request, Setup, Structure, Variant, find};
use crate::graph::plan::plan;
use crate::lab::experiment::Experiment;
use crate::lab::matrix::Matrix;
use crate::lab::protocol::{Event, Numbers};
use crate::measure::ErrorToFull;
use crate::pattern::{BlockList, Rule};
use crate::task::embedding::{Shape, embed_heads};
use crate::task::{Qkv, Tokens, embed};
use std::cell::{Cell, LazyCell, RefCell};
use std::rc::Rc;

/// Above so many operations of full attention, the interpreter computes the shown head only.
const ALL_HEADS_FLOPS: u64 = 1_000_000_000;

/// Layers that reach is told for.
const LAYERS: usize = 8;

/// What the plates are about.
pub(super) struct Explored {
    /// As it was asked for.
    pub asked: Experiment,
    /// With the shapes of the model that is shown.
    pub experiment: Experiment,
    /// The model that is shown, and what of it; none where q, k and v are drawn.
    pub seen: Option<Seen>,
    /// The one head that was computed; none: all.
    pub only_head: Option<usize>,
    pub plates: [Option<Shown>; 2],
    /// `full` on the same inputs, where it is affordable and not itself on a plate.
    pub full: Option<Shown>,
}

/// One variant, run.
pub(super) struct Shown {
    pub variant: &'static Variant,
    pub setup: Setup,
    pub prepared: Prepared,
    pub kind: EffectiveKind,
    pub rule: Rule,
    pub blocks: Option<BlockList>,
    pub numbers: Numbers,
    pub decisions: Vec<Decision>,
    /// The head whose decisions were told.
    pub told: Cell<Option<usize>>,
    /// The factors, brought to the host when they are first needed.
    host: RefCell<Option<Rc<Matrix>>>,
}

impl Explored {
    /// Index of a head in the computed tensors; the first text of the batch is shown.
    pub fn index(&self, head: usize) -> usize {
        if self.only_head.is_some() { 0 } else { head.min(self.experiment.heads - 1) }
    }

    /// `full` on the same inputs, wherever it is.
    pub fn full(&self) -> Option<&Shown> {
        self.plates.iter().flatten().find(|s| s.variant.id == "full").or(self.full.as_ref())
    }
}

impl Shown {
    /// The factors of the effective matrix on the host.
    pub async fn matrix(&self) -> Result<Rc<Matrix>, Fault> {
        if let Some(matrix) = &*self.host.borrow() {
            return Ok(matrix.clone());
        }
        let left = self.prepared.read("effective_left").await?;
        let right = self.prepared.read("effective_right").await?;
        let row = self.prepared.read("effective_row").await?;
        let s = &self.setup;
        let rank = left.len() / (s.instances() * s.length).max(1);
        let (kind, rule, n, m) = (self.kind, self.rule.clone(), s.length, s.keys);
        let matrix = Rc::new(Matrix { left, right, row, kind, rule, n, m, rank });
        *self.host.borrow_mut() = Some(matrix.clone());
        Ok(matrix)
    }
}

impl Engine {
    /// Runs the experiment's variants and tells their numbers; draws the plates.
    pub(super) async fn explore(&mut self, mut asked: Experiment, watch: &Watch) -> Result<(), Fault> {
        self.correct(&mut asked);
        let (experiment, seen) = self.see(&asked, watch).await?;
        let e = &experiment;
        let only_head = self.only_head(e);
        let qkv = seen.as_ref().map(|seen| seen.qkv.clone());
        // Made when the first variant is known to fit: what is refused allocates nothing.
        let x = LazyCell::new(|| match qkv {
            Some(qkv) => of_head(qkv, e, only_head),
            None => Rc::new(inputs(&Tokens::of_length(e.text.as_deref(), e.split, e.n).ids, e, only_head)),
        });
        // The old matrices go before the new ones come: both may not fit.
        self.explored = None;
        let (plates, full) = ([None, None], None);
        let mut explored = Explored { asked, experiment: e.clone(), seen, only_head, plates, full };
        for (plate, id) in e.variants.iter().take(2).enumerate() {
            yield_now().await;
            if watch.stop() {
                return Err(Fault::Stopped);
            }
            let Some(variant) = find(id) else { continue };
            match self.show_variant(variant, e, only_head, &x, watch).await {
                Ok(shown) => {
                    let (variant, numbers) = (id.clone(), shown.numbers.clone());
                    self.emit(Event::Prepared { plate, variant, numbers });
                    explored.plates[plate] = Some(shown);
                }
                Err(Fault::Refused { reason, nearest }) => {
                    self.emit(Event::Refused { what: id.clone(), reason, nearest });
                }
                Err(other) => return Err(other),
            }
        }
        self.explored = Some(explored);
        for plate in 0..2 {
            self.draw(plate, watch).await?;
        }
        self.compare_to_full(&x, watch).await?;
        let has_model = self.explored.as_ref().is_some_and(|explored| explored.seen.is_some());
        self.looks = if has_model { vec![(Look::Judge, 1), (Look::Judge, 0)] } else { vec![] };
        self.looks.extend([(Look::Time, 0), (Look::Time, 1)]);
        Ok(())
    }

    /// The head to compute alone, where computing all would take the interpreter long, or where a matrix is held as a whole
    /// and only one head's fits.
    fn only_head(&self, e: &Experiment) -> Option<usize> {
        let (n, d) = (e.n as u64, e.dim as u64);
        let cells = n * n * (e.heads * e.batch) as u64;
        let is_long = matches!(self.device, Device::Cpu) && 4 * d * cells > ALL_HEADS_FLOPS;
        let fits = |variant: &'static Variant, setup: &Setup| {
            Planned::attempt(&self.device, variant, setup, Request { effective: true, ..Request::default() }).is_ok()
        };
        let fits_alone = |id: &String| {
            find(id).is_some_and(|variant| {
                let whole = setup_of(e, variant, e.n);
                !fits(variant, &whole) && fits(variant, &alone(&whole, e.head))
            })
        };
        let is_large = 4 * cells > self.device.tensor_bytes() && e.variants.iter().take(2).any(fits_alone);
        (is_long || is_large).then_some(e.head)
    }

    async fn show_variant(
        &self,
        variant: &'static Variant,
        e: &Experiment,
        only_head: Option<usize>,
        x: &LazyCell<Rc<Qkv>, impl FnOnce() -> Rc<Qkv>>,
        watch: &Watch,
    ) -> Result<Shown, Fault> {
        let whole = setup_of(e, variant, e.n);
        let setup = match only_head {
            Some(head) => alone(&whole, head),
            None => whole.clone(),
        };
        let request = Request { effective: true, decisions: true, ..Request::default() };
        let planned = Planned::new(&self.device, variant, &setup, request)?;
        let Some(effective) = planned.effective.clone() else {
            return Err(Fault::refused(variant.no_matrix().unwrap_or("the variant has no effective matrix")));
        };
        let decisions = planned.decisions.clone();
        let mut prepared = self.prepare(variant, planned).await?;
        prepared.write_all(variant, &setup, x)?;
        if let Some(head) = only_head {
            for (name, values) in variant.drawn_of_head(&whole, &setup, head) {
                prepared.write(name, &values)?;
            }
        }
        prepared.run(watch).await?;
        let blocks = (variant.blocks)(&setup);
        let numbers = numbers(&self.device, variant, &whole, blocks.as_ref());
        let (kind, rule, host) = (effective.kind, effective.rule, RefCell::new(None));
        let told = Cell::new(None);
        Ok(Shown { variant, setup, prepared, kind, rule, blocks, numbers, decisions, told, host })
    }

    /// Runs `full` on the same inputs and tells what each variant loses against it.
    async fn compare_to_full(
        &mut self,
        x: &LazyCell<Rc<Qkv>, impl FnOnce() -> Rc<Qkv>>,
        watch: &Watch,
    ) -> Result<(), Fault> {
        let Some(mut explored) = self.explored.take() else { return Ok(()) };
        let compared = self.compare(&mut explored, x, watch).await;
        self.explored = Some(explored);
        compared?;
        // A difference could not be drawn before.
        for plate in 0..2 {
            if self.shows[plate].as_ref().is_some_and(|show| show.view == crate::lab::experiment::View::Difference) {
                self.draw(plate, watch).await?;
            }
        }
        Ok(())
    }

    async fn compare(
        &self,
        explored: &mut Explored,
        x: &LazyCell<Rc<Qkv>, impl FnOnce() -> Rc<Qkv>>,
        watch: &Watch,
    ) -> Result<(), Fault> {
        if explored.full().is_none() && explored.plates.iter().any(Option::is_some) {
            let Some(full) = find("full") else { return Ok(()) };
            match self.show_variant(full, &explored.experiment, explored.only_head, x, watch).await {
                Ok(shown) => explored.full = Some(shown),
                // What full attention cannot bear here has no error to it.
                Err(Fault::Refused { .. }) => return Ok(()),
                Err(other) => return Err(other),
            }
        }
        let Some(full) = explored.full() else { return Ok(()) };
        let want = full.prepared.read("out").await?;
        let full_rows = full.prepared.read("effective_row").await?;
        let head = explored.index(explored.experiment.head);
        let mut told: [Option<Numbers>; 2] = [None, None];
        for (plate, shown) in explored.plates.iter().enumerate() {
            let Some(shown) = shown else { continue };
            let mut numbers = shown.numbers.clone();
            if shown.variant.id != "full" {
                numbers.error_to_full = Some(ErrorToFull::between(&want, &shown.prepared.read("out").await?));
            }
            numbers.mass_kept = if shown.kind == EffectiveKind::Softmax {
                let rows = shown.prepared.read("effective_row").await?;
                mass_kept(&full_rows, &rows, head, shown.setup.length)
            } else {
                None
            };
            told[plate] = Some(numbers);
        }
        for (plate, numbers) in told.into_iter().enumerate() {
            if let (Some(numbers), Some(shown)) = (numbers, &mut explored.plates[plate]) {
                shown.numbers = numbers.clone();
                self.emit(Event::Prepared { plate, variant: shown.variant.id.into(), numbers });
            }
        }
        Ok(())
    }

    /// Times one plate's variant, when there is nothing else to do.
    pub(super) async fn time_plate(&mut self, plate: usize, watch: &Watch) -> Result<(), Fault> {
        let Some(explored) = &self.explored else { return Ok(()) };
        let (e, Some(shown)) = (explored.experiment.clone(), &explored.plates[plate]) else { return Ok(()) };
        let variant = shown.variant;
        let setup = setup_of(&e, variant, e.n);
        let planned = match Planned::new(&self.device, variant, &setup, Request::default()) {
            Ok(planned) if planned.graph.cost().flops <= self.device.most_flops() / 20 => planned,
            // It would take seconds; the sweep is for that.
            _ => return Ok(()),
        };
        let x = match &explored.seen {
            Some(seen) => seen.qkv.clone(),
            None => Rc::new(inputs(&Tokens::of_length(e.text.as_deref(), e.split, e.n).ids, &e, None)),
        };
        let mut prepared = self.prepare(variant, planned).await?;
        prepared.write_all(variant, &setup, &x)?;
        let timing = self.stopwatch().await?.time(&mut prepared, 5, watch).await?;
        if let Some(shown) = self.explored.as_mut().and_then(|e| e.plates[plate].as_mut()) {
            shown.numbers.measured = timing;
            let numbers = shown.numbers.clone();
            self.emit(Event::Prepared { plate, variant: variant.id.into(), numbers });
        }
        Ok(())
    }
}

/// One head of a setup, and of its first text.
fn alone(whole: &Setup, head: usize) -> Setup {
    let structure = Structure { first_head: head, ..whole.structure.clone() };
    Setup { batch: 1, heads: 1, structure, ..whole.clone() }
}

/// q, k, v of the experiment's text; of one head alone where `only_head` says so.
pub(super) fn inputs(ids: &[u32], e: &Experiment, only_head: Option<usize>) -> Qkv {
    let shape = Shape { batch: e.batch, heads: e.heads, dim: e.dim, layer: e.layer };
    match only_head {
        None => embed(ids, shape, e.seed),
        Some(head) => embed_heads(ids, Shape { batch: 1, ..shape }, head..head + 1, e.seed),
    }
}

/// Of q, k and v of all heads those of one alone, where `only_head` says so.
fn of_head(x: Rc<Qkv>, e: &Experiment, only_head: Option<usize>) -> Rc<Qkv> {
    let Some(head) = only_head else { return x };
    let size = e.n * e.dim;
    let part = |all: &[f32]| all[head * size..(head + 1) * size].to_vec();
    Rc::new(Qkv { q: part(&x.q), k: part(&x.k), v: part(&x.v) })
}

/// What is known of a variant before it runs.
fn numbers(device: &Device, variant: &Variant, s: &Setup, blocks: Option<&BlockList>) -> Numbers {
    // A method without a pattern lets every pair contribute, up to the diagonal where it is causal.
    let rule = (variant.rule)(s).unwrap_or(Rule::All { causal: s.causal });
    let (n, m) = (s.length, s.keys);
    let mut numbers = Numbers {
        density: rule.density(s.heads, n, m),
        blocks_visited: blocks.map(BlockList::visited),
        blocks_total: blocks.map(BlockList::total),
        keys_per_query: rule.pairs(s.heads, n, m) as f64 / (s.heads * n) as f64,
        reach: rule.reach(s.heads, n, n / 2, LAYERS),
        serial_steps: variant.serial_steps(s) as u64,
        ..Numbers::default()
    };
    // The whole experiment without what only the picture needs, also where it would not fit as a whole.
    if variant.refusal(s, u64::MAX).is_none() {
        let (graph, _) = variant.build(s, Request::default());
        numbers.flops = graph.cost().flops;
        numbers.bytes_peak = plan(&graph, &device.context()).peak_bytes();
    }
    numbers
}

/// Mean over a head's rows of the share of full softmax mass inside the pattern: the quotient of the two denominators,
/// whose logarithms are known. A row with nothing to attend to keeps nothing.
fn mass_kept(full: &[f32], pattern: &[f32], head: usize, n: usize) -> Option<f64> {
    let rows = head * n..(head + 1) * n;
    let (full, pattern) = (full.get(rows.clone())?, pattern.get(rows)?);
    let share = |(&f, &p): (&f32, &f32)| f64::from(p - f).exp().min(1.0);
    Some(full.iter().zip(pattern).map(share).sum::<f64>() / n as f64)
}
