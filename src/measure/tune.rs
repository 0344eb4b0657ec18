//! Which kernel of an op is fastest here: measured once for each shape class, remembered for each adapter.
//!
//! An op that has several kernels says so ([`crate::graph::Op::tunable`]). Each candidate runs alone, in a program of that one
//! op, the contenders in turn; the choice goes into [`LowerContext::choices`], where lowering finds it.

use super::statistics::Summary;
use crate::gpu::{Caps, Error, Gpu, Replay, Timer};
use crate::graph::plan::plan;
use crate::graph::{Graph, Kind, LowerContext, Op, TensorType, Tunable};
use crate::sort::Arrange;
use crate::sort::IntoMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Spans of each candidate that stays in the race.
const ROUNDS: usize = 5;
/// A candidate that takes this many times as long as the best at its first run is out of it.
const HOPELESS: f64 = 2.0;

/// What was measured on one adapter. Serialisable: the page keeps it between visits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// The adapter's name, driver and back end; figures of another adapter mean nothing.
    pub adapter: String,
    /// The commit whose kernels were measured.
    pub commit: String,
    /// By shape class, e.g. `matmul/nn/9.9.9.0`.
    pub classes: BTreeMap<String, Measured>,
}

/// The choice for one shape class, with the figures that it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub choice: String,
    pub figures: Vec<Figure>,
}

/// One candidate's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub candidate: String,
    /// Median time of one run, to the nanosecond: no timer knows more, and such a number comes back from JSON unchanged.
    pub ms: f64,
}

/// An op of a graph whose kernel is still to be chosen.
#[derive(Clone, Debug)]
pub struct Open {
    op: Rc<dyn Op>,
    inputs: Vec<(TensorType, Kind)>,
    tunable: Tunable,
}

impl Open {
    /// The shape class that it stands for.
    pub fn class(&self) -> &str {
        &self.tunable.class
    }
}

fn signature(caps: &Caps) -> String {
    format!("{} | {} | {}", caps.name, caps.driver, caps.backend)
}

impl Tuned {
    /// Nothing measured yet.
    pub fn new(caps: &Caps) -> Self {
        Self { adapter: signature(caps), commit: crate::COMMIT.into(), classes: BTreeMap::new() }
    }

    /// What was kept, where it was measured on this adapter with these kernels; else nothing.
    pub fn restore(kept: Option<Self>, caps: &Caps) -> Self {
        let fresh = Self::new(caps);
        kept.filter(|t| t.adapter == fresh.adapter && t.commit == fresh.commit).unwrap_or(fresh)
    }

    /// Has programs on this device planned with the choices from now on.
    pub fn apply(&self, gpu: &Gpu) {
        let choices = self.classes.iter().map(|(class, measured)| (class.clone(), measured.choice.clone()));
        gpu.choose_kernels(choices.into_map());
    }

    /// The ops of `g` with several kernels of whose shape class nothing has been measured, one for each class.
    pub fn open(&self, g: &Graph, context: &LowerContext) -> Vec<Open> {
        let mut open: Vec<Open> = Vec::new();
        for entry in g.entries() {
            let Kind::Op(op) = &entry.kind else { continue };
            let types: Vec<&TensorType> = entry.inputs.iter().map(|&n| g.ty(n)).collect();
            let Some(tunable) = op.tunable(context, &types) else { continue };
            let known =
                self.classes.contains_key(&tunable.class) || open.iter().any(|o| o.tunable.class == tunable.class);
            if known || tunable.candidates.len() < 2 {
                continue;
            }
            let inputs = entry.inputs.iter().map(|&n| (g.ty(n).clone(), g.entry(n).kind.clone())).collect();
            open.push(Open { op: op.clone(), inputs, tunable });
        }
        open
    }

    /// Races the candidates for one op and remembers the fastest. `cancelled` is asked between runs; what was measured so
    /// far is then dropped.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or what the device says. A candidate that does not fit the device is left out.
    pub async fn measure(
        &mut self,
        gpu: &Gpu,
        timer: &Timer,
        open: &Open,
        context: &LowerContext,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let mut running = Vec::new();
        let mut best = f64::INFINITY;
        for candidate in &open.tunable.candidates {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            let mut context = context.clone();
            context.choices.insert(open.tunable.class.clone(), candidate.clone());
            let program = plan(&open.graph(), &context).program;
            let replay = match Replay::new(gpu, &program).await {
                Ok(replay) => replay,
                Err(error @ (Error::Lost { .. } | Error::OutOfMemory { .. })) => return Err(error),
                Err(_) => continue,
            };
            replay.run(cancelled).await?;
            let first = timer.span(&replay, None, 1).await?;
            best = best.min(first);
            running.push((candidate.clone(), replay, first));
        }
        running.retain(|(_, _, first)| *first <= HOPELESS * best);
        let mut spans: Vec<(u32, Vec<f64>)> = Vec::new();
        for (_, replay, _) in &running {
            spans.push((timer.calibrate(replay, None).await?, Vec::new()));
        }
        for _ in 0..ROUNDS {
            for ((_, replay, _), (repeats, ms)) in running.iter().zip(&mut spans) {
                if cancelled() {
                    return Err(Error::Cancelled);
                }
                ms.push(timer.span(replay, None, *repeats).await?);
            }
        }
        let mut figures: Vec<Figure> = (running.iter().zip(&spans))
            .filter_map(|((candidate, ..), (_, ms))| {
                let ms = (Summary::new(ms)?.median * 1e6).round() / 1e6;
                Some(Figure { candidate: candidate.clone(), ms })
            })
            .collect();
        figures.arrange_by(|a, b| a.ms.total_cmp(&b.ms));
        if let Some(fastest) = figures.first() {
            let choice = fastest.candidate.clone();
            self.classes.insert(open.tunable.class.clone(), Measured { choice, figures });
        }
        Ok(())
    }
}

impl Open {
    /// The op alone. Its inputs hold zeros, but for what the graph itself fixes (block lists).
    fn graph(&self) -> Graph {
        let mut g = Graph::new();
        let mut inputs = Vec::new();
        for (i, (ty, kind)) in self.inputs.iter().enumerate() {
            inputs.push(match kind {
                Kind::Constant(data) => g.constant(&ty.shape, (**data).clone()),
                _ => g.input(&format!("x{i}"), ty.clone(), crate::gpu::Category::Activations),
            });
        }
        for (i, node) in g.apply_rc(self.op.clone(), &inputs).into_iter().enumerate() {
            g.output(&format!("y{i}"), node);
        }
        g
    }
}
