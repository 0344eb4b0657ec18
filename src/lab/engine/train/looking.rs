//! Looking inside a run of a race between its steps.

use crate::complaint::cut;
use crate::lab::engine::Engine;
use crate::lab::engine::device::Fault;
use crate::lab::engine::inbox::Watch;
use crate::lab::engine::pause::yield_now;
use crate::lab::train::orders::{Failed, Guess, Look, MOST_PROMPT_BYTES, MOST_SEEN, News, Seen, Written};
use crate::lab::train::{Error, Run, Sampling};
use crate::model::Architecture;
use crate::task::Part;

/// Tokens that are written, and how freely they are chosen.
const WRITTEN: usize = 24;
const TEMPERATURE: f64 = 0.7;
/// Tokens of the held-out sequence that stand in for a missing prompt.
const BEGINNING: usize = 6;

impl Engine {
    /// Tells what is inside a run as it is now. The memory that it takes is given back.
    pub(super) async fn look(&mut self, at: usize, sequence: u64, prompt: String, watch: &Watch) -> Result<(), Fault> {
        let Some(entrant) = self.race.as_mut().and_then(|race| race.entrants.get_mut(at)) else { return Ok(()) };
        // A run that was stopped has given its memory back, and does so again.
        let stopped = entrant.run.is_none();
        if stopped && entrant.facts.failed.is_none() {
            entrant.make(&self.device).await?;
        }
        if let Some(Failed { reason, nearest }) = entrant.facts.failed.clone() {
            return Err(Fault::Refused { reason, nearest });
        }
        let Some(run) = &mut entrant.run else { return Ok(()) };
        let looked = inside(run, at, sequence, prompt, watch).await;
        run.close();
        if stopped {
            entrant.run = None;
        }
        let look = Box::new(looked.map_err(fault)?);
        self.say(News::Looked { look });
        Ok(())
    }
}

async fn inside(run: &mut Run, at: usize, sequence: u64, prompt: String, watch: &Watch) -> Result<Look, Error> {
    let stop = || watch.stop();
    let changes = run.inspect(&stop).await?;
    yield_now().await;
    let predicted = run.predictions(Part::Held, sequence, &stop).await?;
    let task = run.task();
    let told = |one: &crate::lab::train::Predicted| Seen {
        token: task.label(one.token),
        guess: one.judged.then(|| Guess {
            guess: task.label(one.guess),
            answer: task.label(one.target),
            right: one.is_right(),
            of_guess: one.of_guess,
            of_answer: one.of_target,
        }),
    };
    let seen = predicted.iter().take(MOST_SEEN).map(told).collect();
    let beginning: Vec<u32> = predicted.iter().take(BEGINNING).map(|one| one.token).collect();
    let written = write(run, beginning, prompt, watch).await?;
    Ok(Look { run: at, step: run.steps(), sequence, changes, seen, written })
}

/// How a decoder of a task with text goes on; `beginning` stands in for a prompt without a word that it knows.
async fn write(
    run: &mut Run,
    beginning: Vec<u32>,
    mut prompt: String,
    watch: &Watch,
) -> Result<Option<Written>, Error> {
    if run.config().model.architecture != Architecture::Decoder {
        return Ok(None);
    }
    cut(&mut prompt, MOST_PROMPT_BYTES);
    let Some(mut tokens) = run.task().read(&prompt) else { return Ok(None) };
    if tokens.is_empty() {
        tokens = beginning;
    }
    let behind = tokens.len();
    for at in 0..WRITTEN as u64 {
        let sampling = Sampling { temperature: TEMPERATURE, seed: run.config().seed };
        let token = run.next_token(&tokens, sampling, at, &|| watch.stop()).await?;
        tokens.push(token);
        yield_now().await;
    }
    let task = run.task();
    Ok(Some(Written { prompt: task.line(&tokens[..behind]), words: task.line(&tokens[behind..]) }))
}

/// What a look that failed means for the engine: the run itself is unharmed.
fn fault(error: Error) -> Fault {
    match error {
        Error::Gpu(error) => error.into(),
        Error::Cpu(crate::graph::cpu::Error::Cancelled) => Fault::Stopped,
        other => Fault::refused(other.to_string()),
    }
}
