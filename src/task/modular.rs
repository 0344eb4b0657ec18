//! Addition modulo p: `a b =` is answered by (a + b) mod p. Part of the table of p² pairs is trained on, the rest is held.
//!
//! Power et al., 2022, "Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets", arXiv:2201.02177. The split is
//! drawn once and belongs to the parameters, whatever the seed of a batch, so that no held pair is ever trained on.
//!
//! What it tells apart: not attention patterns (three positions) but what comes after the fit: weight decay, pruning,
//! quantisation. The held accuracy waits near a half, since b + a is known where a + b was seen, until the model finds the
//! rule; without weight decay it stays there. `together` keeps both orders in one part and takes that plateau away.

use super::{Dice, Part, Refused, Row, Task};

/// The split's own seed.
const SPLIT: u64 = 97;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// p, 3 to 512.
    pub modulus: usize,
    /// Share of the pairs that is trained on, 5 to 95 percent.
    pub train_percent: usize,
    /// Whether (a, b) and (b, a) are in the same part.
    pub together: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { modulus: 97, train_percent: 50, together: false }
    }
}

/// The task.
#[derive(Clone, Debug)]
pub struct Modular {
    modulus: usize,
    train: Vec<(u32, u32)>,
    held: Vec<(u32, u32)>,
}

impl Modular {
    /// # Errors
    /// A parameter is out of bounds.
    pub fn new(config: &Config) -> Result<Self, Refused> {
        Refused::outside("modulus", config.modulus, 3, 512, "")?;
        Refused::outside("train_percent", config.train_percent, 5, 95, "both parts need pairs")?;
        let p = config.modulus as u32;
        let mut table: Vec<(u32, u32)> =
            (0..p).flat_map(|a| (0..p).map(move |b| (a, b))).filter(|&(a, b)| !config.together || a <= b).collect();
        let order = Dice::new("modular", SPLIT, Part::Train, 0).distinct(table.len(), table.len());
        table = order.into_iter().map(|i| table[i]).collect();
        let held = table.split_off((table.len() * config.train_percent / 100).max(1));
        let [train, held] = [table, held].map(|part| if config.together { both_orders(&part) } else { part });
        Ok(Self { modulus: config.modulus, train, held })
    }
}

fn both_orders(pairs: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let swapped = pairs.iter().filter(|(a, b)| a != b).map(|&(a, b)| (b, a));
    pairs.iter().copied().chain(swapped).collect()
}

impl Task for Modular {
    fn id(&self) -> &'static str {
        "modular"
    }

    fn vocabulary(&self) -> usize {
        self.modulus + 1
    }

    fn length(&self) -> usize {
        3
    }

    fn causal(&self) -> bool {
        true
    }

    fn chance(&self) -> f64 {
        1.0 / self.modulus as f64
    }

    /// Both parts are drawn with replacement.
    fn write(&self, part: Part, dice: &mut Dice, row: &mut Row) {
        let pairs = match part {
            Part::Train => &self.train,
            Part::Held => &self.held,
        };
        let (a, b) = pairs[dice.below(pairs.len())];
        row.inputs.copy_from_slice(&[a, b, self.modulus as u32]);
        row.targets[2] = (a + b) % self.modulus as u32;
        row.judged[2] = 1.0;
    }

    fn label(&self, token: u32) -> String {
        if token as usize == self.modulus { "=".into() } else { token.to_string() }
    }
}
