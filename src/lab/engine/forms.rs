//! Serving `Forms`: one pattern at one length, computed in several ways, raced against each other and against `full`.

use super::device::Fault;
use super::explore::inputs;
use super::inbox::Watch;
use super::prepared::Planned;
use super::sweep::{Runner, TOGETHER_BYTES};
use super::timing::Stopwatch;
use super::{Engine, setup_of};
use crate::attention::{PatternForm, Refusal, Request, Setup, Variant, density_of, find};
use crate::lab::experiment::Experiment;
use crate::lab::protocol::{Event, FormRow, Way};
use crate::measure::{ErrorToFull, Timing};
use crate::pattern::BlockList;
use crate::task::{Qkv, Tokens};
use std::rc::Rc;

/// Block sizes that one race takes at most, and the largest.
const MAX_BLOCKS: usize = 8;
const MAX_BLOCK: usize = 256;
/// Blocks of a mask over everything: as large as elsewhere.
const MASKED_BLOCK: usize = 64;

/// What a race is about.
struct Race<'a> {
    x: Qkv,
    /// The output that the other ways must give as well: that of the first.
    want: Option<Vec<f32>>,
    stopwatch: Rc<Stopwatch>,
    watch: &'a Watch,
    /// Each contender has two steps: made ready, and measured.
    done: usize,
    total: usize,
}

/// One contender.
struct Entrant<'a> {
    variant: &'static Variant,
    setup: &'a Setup,
    row: FormRow,
}

impl Engine {
    /// Races the forms of one variant's pattern at the experiment's length. A row is told twice: with what is computed, and with
    /// what is measured.
    pub(super) async fn forms(
        &mut self,
        mut e: Experiment,
        id: &str,
        blocks: &[usize],
        watch: &Watch,
    ) -> Result<(), Fault> {
        self.correct(&mut e);
        let (cancelled, refused) = match self.race_forms(&e, id, blocks, watch).await {
            Ok(()) => (false, None),
            Err(Fault::Stopped) => (true, None),
            Err(Fault::Refused { reason, nearest }) => (false, Some(with_nearest(reason, nearest))),
            Err(lost) => return Err(lost),
        };
        self.emit(Event::FormsDone { cancelled, refused });
        Ok(())
    }

    async fn race_forms(&mut self, e: &Experiment, id: &str, blocks: &[usize], watch: &Watch) -> Result<(), Fault> {
        let (Some(variant), Some(full)) = (find(id), find("full")) else {
            return Err(Fault::refused(format!("there is no variant {id:?}")));
        };
        let (setup, full_setup) = (setup_of(e, variant, e.n), setup_of(e, full, e.n));
        if let Some(refusal) = variant.refusal(&setup, self.device.tensor_bytes()) {
            return Err(refusal.into());
        }
        let Some(rule) = variant.pattern(&setup) else {
            return Err(Fault::refused(format!("{} is not attention over a fixed pattern", variant.name)));
        };
        let density = density_of(&rule, &setup);
        let tokens = Tokens::of_length(e.text.as_deref(), e.split, e.n);
        let ways = ways(blocks);
        let mut race = Race {
            x: inputs(&tokens.ids, e, None),
            want: None,
            stopwatch: self.stopwatch().await?,
            watch,
            done: 0,
            total: 2 * ways.len(),
        };
        let (mut ready, mut held) = (Vec::new(), 0);
        for (way, block) in ways {
            self.between(watch).await?;
            let (variant, setup) = if way == Way::Full { (full, &full_setup) } else { (variant, &setup) };
            let mut entrant = Entrant { variant, setup, row: FormRow { density, ..FormRow::of(way, block) } };
            let entered = match self.plan_form(&mut entrant) {
                Ok(planned) => {
                    let bytes = planned.plan.peak_bytes();
                    if held + bytes > TOGETHER_BYTES && held > 0 {
                        self.time_forms(std::mem::take(&mut ready), &mut race).await?;
                        held = 0;
                    }
                    held += bytes;
                    self.enter_form(&mut entrant, planned, &mut race).await
                }
                Err(refusal) => Err(refusal.into()),
            };
            match entered {
                Ok(runner) => {
                    race.done += 1;
                    self.tell_form(&entrant.row, &race);
                    ready.push((runner, entrant.row));
                }
                Err(Fault::Refused { reason, nearest }) => {
                    race.done += 2;
                    entrant.row.refused = Some(with_nearest(reason, nearest));
                    self.tell_form(&entrant.row, &race);
                }
                Err(other) => return Err(other),
            }
        }
        self.time_forms(ready, &mut race).await
    }

    /// A contender's plan; what is known before it runs goes into its row.
    fn plan_form(&self, entrant: &mut Entrant) -> Result<Planned, Refusal> {
        let Entrant { variant, setup, row } = entrant;
        let form = match row.way {
            Way::Full | Way::Own => None,
            Way::Masked => Some(PatternForm::Masked),
            Way::Gather => Some(PatternForm::Gather),
            Way::Blocks => Some(PatternForm::Blocks),
        };
        let planned = match form {
            None => {
                // A method may visit its pairs in another order than the text's, so its own list says nothing of its cost.
                let list = (variant.blocks)(setup).filter(|_| row.way == Way::Full);
                row.scored = list.map(|list| share(&list, setup));
                Planned::new(&self.device, variant, setup, Request::default())?
            }
            Some(form) => {
                let formed = variant.in_form(setup, form, row.block.unwrap_or(MASKED_BLOCK))?;
                row.scored = Some(share(&formed.list, setup));
                let cut = row.way == Way::Blocks;
                row.blocks = cut.then(|| formed.list.visited() as f64 / formed.list.total() as f64);
                Planned::of_graph(&self.device, variant, setup, formed.graph, None)?
            }
        };
        row.flops = planned.graph.cost().flops;
        row.bytes_peak = planned.plan.peak_bytes();
        Ok(planned)
    }

    /// Prepares a contender, compares its output with that of the first form and warms it up.
    async fn enter_form(
        &self,
        entrant: &mut Entrant<'_>,
        planned: Planned,
        race: &mut Race<'_>,
    ) -> Result<Runner, Fault> {
        let Entrant { variant, setup, row } = entrant;
        let mut prepared = self.prepare(variant, planned).await?;
        prepared.write_all(variant, setup, &race.x)?;
        prepared.run(race.watch).await?;
        if row.way != Way::Full {
            let out = prepared.read("out").await?;
            match &race.want {
                Some(want) => row.error = Some(ErrorToFull::between(want, &out)),
                None => race.want = Some(out),
            }
        }
        let (repeats, run_ms) = race.stopwatch.calibrate(&mut prepared, race.watch).await?;
        Ok(Runner::new(prepared, repeats, run_ms, self.effort))
    }

    /// Round by round over the contenders at hand, then their rows.
    async fn time_forms(&mut self, mut ready: Vec<(Runner, FormRow)>, race: &mut Race<'_>) -> Result<(), Fault> {
        let mut runners: Vec<&mut Runner> = ready.iter_mut().map(|(runner, _)| runner).collect();
        self.take_turns(&mut runners, &race.stopwatch, race.watch).await?;
        for (runner, mut row) in ready {
            row.time = Timing::new(&runner.spans, race.stopwatch.how());
            race.done += 1;
            self.tell_form(&row, race);
        }
        Ok(())
    }

    fn tell_form(&self, row: &FormRow, race: &Race) {
        self.emit(Event::Form { row: row.clone(), done: race.done, total: race.total });
    }
}

/// The contenders, `full` first.
fn ways(blocks: &[usize]) -> Vec<(Way, Option<usize>)> {
    let mut blocks: Vec<usize> =
        blocks.iter().copied().filter(|b| (2..=MAX_BLOCK).contains(b)).take(MAX_BLOCKS).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let mut ways = vec![(Way::Full, None), (Way::Masked, None), (Way::Gather, None)];
    ways.extend(blocks.into_iter().map(|block| (Way::Blocks, Some(block))));
    ways.push((Way::Own, None));
    ways
}

/// Share of all pairs that a list's blocks hold.
fn share(list: &BlockList, s: &Setup) -> f64 {
    list.pairs() as f64 / (list.heads * s.length * s.keys) as f64
}

fn with_nearest(reason: String, nearest: Option<String>) -> String {
    reason + &nearest.map(|nearest| format!("; nearest: {nearest}")).unwrap_or_default()
}
