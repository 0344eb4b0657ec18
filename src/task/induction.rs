//! Induction: a stretch of different tokens that repeats, with a period that the model is not told.
//!
//! Olsson et al., 2022, "In-context Learning and Induction Heads", arXiv:2209.11895. The period r is uniform on
//! `min_period..=N/2`, its tokens are different from each other; judged from the first input that has occurred before.
//!
//! What it tells apart: the answer stands just after the previous occurrence of the same token, r - 1 back. Finding it takes
//! two layers, a head that looks at the previous token and one that matches; one layer stays near chance (a fixed period
//! would let it pass by position alone). Windows fail where the period exceeds their reach, and so do small recurrent states.

use super::{Dice, Part, Refused, Row, Task};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// N, 4 to 4,096.
    pub length: usize,
    /// Different tokens, `length / 2` to 4,096.
    pub symbols: usize,
    /// Shortest period, 2 to `length / 2`; without it 8, or all of `length / 2` where that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_period: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self { length: 64, symbols: 64, min_period: None }
    }
}

/// The task.
#[derive(Clone, Debug)]
pub struct Induction {
    config: Config,
    min_period: usize,
}

impl Induction {
    /// # Errors
    /// A parameter is out of bounds.
    pub fn new(config: &Config) -> Result<Self, Refused> {
        Refused::outside("length", config.length, 4, 4096, "")?;
        let longest = config.length / 2;
        Refused::outside("symbols", config.symbols, longest, 4096, "the tokens of a period differ")?;
        let min_period = config.min_period.unwrap_or(longest.min(8));
        Refused::outside("min_period", min_period, 2, longest, "a period is seen twice")?;
        Ok(Self { config: config.clone(), min_period })
    }
}

impl Task for Induction {
    fn id(&self) -> &'static str {
        "induction"
    }

    fn vocabulary(&self) -> usize {
        self.config.symbols
    }

    fn length(&self) -> usize {
        self.config.length
    }

    fn causal(&self) -> bool {
        true
    }

    fn chance(&self) -> f64 {
        1.0 / self.config.symbols as f64
    }

    fn write(&self, _: Part, dice: &mut Dice, row: &mut Row) {
        let n = self.config.length;
        let period = dice.between(self.min_period, n / 2);
        let unit = dice.distinct(period, self.config.symbols);
        let tokens: Vec<u32> = (0..=n).map(|i| unit[i % period] as u32).collect();
        row.next_token(&tokens);
        for i in period..n {
            row.judge(i, i + 1 - period);
        }
    }

    fn label(&self, token: u32) -> String {
        token.to_string()
    }
}
