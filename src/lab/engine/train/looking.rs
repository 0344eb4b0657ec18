//! Looking inside a run of a race between its steps.

use crate::complaint::cut;
use crate::lab::engine::Engine;
use crate::lab::engine::device::Fault;
use crate::lab::engine::inbox::Watch;
use crate::lab::engine::pause::yield_now;
use crate::lab::train::orders::{Failed, Guess, HeadChoice, Look, MOST_PROMPT_BYTES, MOST_SEEN, News, Seen, Written};
use crate::lab::train::{Error, HeadPicture, Run, Sampling, Text};
use crate::model::Architecture;
use crate::task::Part;

/// Tokens that are written, and how freely they are chosen.
const WRITTEN: usize = 24;
const TEMPERATURE: f64 = 0.7;
/// Tokens of the held-out sequence that stand in for a missing prompt.
const BEGINNING: usize = 6;

/// What a look is about, as its order says.
pub(super) struct Wanted {
    pub sequence: u64,
    pub prompt: String,
    pub heads: HeadChoice,
}

impl Engine {
    /// Tells what is inside a run as it is now. The memory that it takes is given back.
    pub(super) async fn look(&mut self, at: usize, wanted: Wanted, watch: &Watch) -> Result<(), Fault> {
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
        let looked = inside(run, at, wanted, watch).await;
        run.close();
        if stopped {
            entrant.run = None;
        }
        let look = Box::new(looked.map_err(fault)?);
        self.say(News::Looked { look });
        Ok(())
    }
}

async fn inside(run: &mut Run, at: usize, wanted: Wanted, watch: &Watch) -> Result<Look, Error> {
    let Wanted { sequence, prompt, heads } = wanted;
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
    let (tokens, written) = write(run, beginning, prompt, watch).await?.unzip();
    yield_now().await;
    let text = match &tokens {
        Some(tokens) if heads.written => Text::Tokens(tokens),
        _ => Text::Held(sequence),
    };
    let weights = run.head_weights(&heads.part, heads.head, text, &stop).await?;
    let task = run.task();
    // The token that stands for nothing is none of the task's.
    let label = |token| if (token as usize) < task.vocabulary() { task.label(token) } else { "·".to_owned() };
    let heads = HeadPicture::of(&weights, &label);
    Ok(Look { run: at, step: run.steps(), sequence, changes, seen, written, heads })
}

/// How a decoder of a task with text goes on, with all tokens of that; `beginning` stands in for a prompt without a word that it knows.
async fn write(
    run: &mut Run,
    beginning: Vec<u32>,
    mut prompt: String,
    watch: &Watch,
) -> Result<Option<(Vec<u32>, Written)>, Error> {
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
    let written = Written { prompt: task.line(&tokens[..behind]), words: task.line(&tokens[behind..]) };
    Ok(Some((tokens, written)))
}

/// What a look that failed means for the engine: the run itself is unharmed.
fn fault(error: Error) -> Fault {
    match error {
        Error::Gpu(error) => error.into(),
        Error::Cpu(crate::graph::cpu::Error::Cancelled) => Fault::Stopped,
        other => Fault::refused(other.to_string()),
    }
}
