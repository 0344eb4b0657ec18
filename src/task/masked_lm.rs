//! Masked words of stories: what a word was, from both sides.
//!
//! Devlin et al., 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", arXiv:1810.04805, 3.1:
//! 15 % of the words are judged; of these 80 % are replaced by MASK, 10 % by a random word, and 10 % stay, so that a model cannot
//! tell from the input which words are in question. The words are those of [`super::story`]; the number judged in a sequence is
//! fixed. For an encoder: a word stands beside its own answer only where it stays.
//!
//! What it tells apart: names, things, places, colours and animals are mentioned two or three times; a masked mention is certain for
//! a model that reaches another one, before or behind, and one of 8 or 16 for all others. Without positions the order of words is
//! lost, and with it nearly everything else.

use super::story::{self, Story};
use super::{Dice, Part, Refused, Row, Task, ngram};

/// Sequences from which players without a model learn, and by which they are judged.
const PLAYED: usize = 1000;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// N in words, 8 to 4,096.
    pub length: usize,
    /// Percent of the words that are judged, 1 to 50; at least one word is.
    pub percent: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { length: 64, percent: 15 }
    }
}

/// The task.
#[derive(Clone, Debug)]
pub struct MaskedLm {
    story: Story,
    judged: usize,
}

impl MaskedLm {
    /// # Errors
    /// A parameter is out of bounds.
    pub fn new(config: &Config) -> Result<Self, Refused> {
        let story = Story::new(&story::Config { length: config.length })?;
        Refused::outside("percent", config.percent, 1, 50, "what is not judged is the evidence")?;
        let judged = (config.length * config.percent + 50) / 100;
        Ok(Self { story, judged: judged.max(1) })
    }

    /// The token behind the words.
    fn mask(&self) -> u32 {
        self.story.vocabulary() as u32
    }
}

impl Task for MaskedLm {
    fn id(&self) -> &'static str {
        "masked_lm"
    }

    fn vocabulary(&self) -> usize {
        self.story.vocabulary() + 1
    }

    fn length(&self) -> usize {
        self.story.length()
    }

    fn causal(&self) -> bool {
        false
    }

    fn chance(&self) -> f64 {
        self.story.chance()
    }

    /// The distance is to the nearest other mention on either side, 0 where there is none in the sequence.
    fn write(&self, _: Part, dice: &mut Dice, row: &mut Row) {
        let words = self.story.mentions(dice);
        for (slot, (token, _)) in row.inputs.iter_mut().zip(&words) {
            *slot = *token;
        }
        for i in dice.distinct(self.judged, row.inputs.len()) {
            let (token, nearest) = words[i];
            row.targets[i] = token;
            row.judged[i] = 1.0;
            row.distance[i] = nearest as u32;
            match dice.below(10) {
                0..8 => row.inputs[i] = self.mask(),
                8 => row.inputs[i] = dice.below(self.story.vocabulary()) as u32,
                _ => {}
            }
        }
    }

    fn label(&self, token: u32) -> String {
        if token == self.mask() { "[MASK]".into() } else { self.story.label(token) }
    }

    fn read(&self, text: &str) -> Option<Vec<u32>> {
        self.story.read(text)
    }

    fn line(&self, tokens: &[u32]) -> String {
        self.story.told(tokens, |token| self.label(token))
    }

    fn baselines(&self) -> Vec<(&'static str, f64)> {
        let sequences = |part| {
            let batch = self.batch(0, part, 0, PLAYED);
            let words = (0..batch.targets.len()).filter(|&i| batch.judged[i] > 0.0).map(|i| batch.targets[i]);
            vec![words.collect()]
        };
        let counts = ngram::Counts::new(&sequences(Part::Train), self.story.vocabulary());
        vec![("unigram", counts.unigram_loss(&sequences(Part::Held), 0))]
    }
}
