//! Multi-query associative recall (MQAR): pairs of key and value, then keys again, whose values are asked for.
//!
//! Arora et al., 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models", arXiv:2312.04927, 3. Keys are
//! below V/2, values from V/2 on, each at most once in a sequence. K pairs fill the first 2 K positions; after them every second
//! position is a slot, and the K queries take different slots, slot s with weight s^(-0.99): most come early. What is
//! between is 0, or random values with `noise`.
//!
//! What it tells apart: a query must be matched with a key anywhere before it, so windows fail beyond their reach; a state of
//! fixed size (recurrent networks, linear attention with few features) fails as K grows; one layer of attention sees
//! which values there are but not which belongs to the key, and stays at 1/K.

use super::{Dice, Part, Refused, Row, Task};

/// Weights of slots are whole numbers, so that no rounding differs between machines; this is the weight of the first.
const FIRST_WEIGHT: f64 = 1_048_576.0;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// N, 4 to 4,096.
    pub length: usize,
    /// K, 1 to N/4.
    pub pairs: usize,
    /// V, even, 4 to 8,192, above 2 K: half are keys (but 0, which means nothing), half values.
    pub vocabulary: usize,
    /// Whether random values stand between the queries.
    pub noise: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { length: 32, pairs: 4, vocabulary: 64, noise: false }
    }
}

/// The task.
#[derive(Clone, Debug)]
pub struct Recall {
    config: Config,
    /// Of each slot.
    weights: Vec<usize>,
}

impl Recall {
    /// # Errors
    /// A parameter is out of bounds.
    pub fn new(config: &Config) -> Result<Self, Refused> {
        Refused::outside("length", config.length, 4, 4096, "")?;
        Refused::outside("pairs", config.pairs, 1, config.length / 4, "each is read and asked for")?;
        let fewest = 2 * config.pairs + 2;
        Refused::outside("vocabulary", config.vocabulary, fewest, 8192, "half are keys, and keys differ")?;
        if !config.vocabulary.is_multiple_of(2) {
            return Err(Refused {
                key: "vocabulary",
                got: config.vocabulary.to_string(),
                takes: "even numbers".into(),
                nearest: (config.vocabulary - 1).max(fewest).to_string(),
            });
        }
        let slots = (config.length - 2 * config.pairs) / 2;
        let weights = (1..=slots).map(|s| ((FIRST_WEIGHT * (s as f64).powf(-0.99)).round() as usize).max(1)).collect();
        Ok(Self { config: config.clone(), weights })
    }
}

/// An index with probability in proportion to its weight.
fn pick(weights: &[usize], dice: &mut Dice) -> usize {
    let mut left = dice.below(weights.iter().sum());
    weights
        .iter()
        .position(|&w| {
            left < w || {
                left -= w;
                false
            }
        })
        .expect("below the sum of weights")
}

impl Task for Recall {
    fn id(&self) -> &'static str {
        "recall"
    }

    fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    fn length(&self) -> usize {
        self.config.length
    }

    /// The pairs come first, so nothing after a query tells its value; causal as in the paper.
    fn causal(&self) -> bool {
        true
    }

    fn chance(&self) -> f64 {
        2.0 / self.config.vocabulary as f64
    }

    fn write(&self, _: Part, dice: &mut Dice, row: &mut Row) {
        let Config { length, pairs, vocabulary, noise } = self.config;
        let half = vocabulary / 2;
        let keys = dice.distinct(pairs, half - 1);
        let values = dice.distinct(pairs, half);
        for (k, (&key, &value)) in keys.iter().zip(&values).enumerate() {
            row.inputs[2 * k] = key as u32 + 1;
            row.inputs[2 * k + 1] = (half + value) as u32;
        }
        if noise {
            for i in 2 * pairs..length {
                row.inputs[i] = (half + dice.below(half)) as u32;
            }
        }
        let mut weights = self.weights.clone();
        for k in 0..pairs {
            let slot = pick(&weights, dice);
            weights[slot] = 0;
            let at = 2 * pairs + 2 * slot;
            row.inputs[at] = row.inputs[2 * k];
            row.targets[at] = row.inputs[2 * k + 1];
            row.judge(at, 2 * k + 1);
        }
    }

    fn label(&self, token: u32) -> String {
        let half = self.config.vocabulary as u32 / 2;
        match token {
            0 => "·".into(),
            key if key < half => format!("k{key}"),
            value => format!("v{}", value - half),
        }
    }
}
