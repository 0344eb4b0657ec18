//! Dyck-k: well-nested brackets of k types to a depth of D; the type of each closing bracket is judged.
//!
//! Hewitt et al., 2020, "RNNs can generate bounded hierarchical languages with optimal memory", arXiv:2010.07515. At depth 0
//! a bracket opens, at depth D one closes, between them either with probability one half.
//!
//! What it tells apart: the evidence is the matching opening bracket, whose distance varies: windows fail exactly where a
//! span exceeds their reach. A stack of D types is little to remember, so recurrent networks do well here, and one layer of
//! attention, which cannot count the brackets between, does not when D is large.

use super::{Dice, Part, Refused, Row, Task};

/// Pairs that have characters of their own.
const SHOWN: [(char, char); 4] = [('(', ')'), ('[', ']'), ('{', '}'), ('<', '>')];

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// N, 2 to 16,384.
    pub length: usize,
    /// k, 2 to 256.
    pub types: usize,
    /// D, 1 to 256.
    pub depth: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { length: 64, types: 4, depth: 8 }
    }
}

/// The task.
#[derive(Clone, Debug)]
pub struct Dyck {
    config: Config,
}

impl Dyck {
    /// # Errors
    /// A parameter is out of bounds.
    pub fn new(config: &Config) -> Result<Self, Refused> {
        Refused::outside("length", config.length, 2, 16_384, "")?;
        Refused::outside("types", config.types, 2, 256, "one type leaves nothing to tell")?;
        Refused::outside("depth", config.depth, 1, 256, "")?;
        Ok(Self { config: config.clone() })
    }
}

impl Task for Dyck {
    fn id(&self) -> &'static str {
        "dyck"
    }

    fn vocabulary(&self) -> usize {
        2 * self.config.types
    }

    fn length(&self) -> usize {
        self.config.length
    }

    fn causal(&self) -> bool {
        true
    }

    fn chance(&self) -> f64 {
        1.0 / self.config.types as f64
    }

    fn write(&self, _: Part, dice: &mut Dice, row: &mut Row) {
        let Config { length, types, depth } = self.config;
        let mut tokens: Vec<u32> = Vec::with_capacity(length + 1);
        let mut open: Vec<usize> = Vec::new();
        for i in 0..=length {
            if open.is_empty() || (open.len() < depth && dice.percent(50)) {
                open.push(i);
                tokens.push(dice.below(types) as u32);
            } else if let Some(matching) = open.pop() {
                tokens.push(tokens[matching] + types as u32);
                row.judge(i - 1, matching);
            }
        }
        row.next_token(&tokens);
    }

    fn label(&self, token: u32) -> String {
        let (kind, closes) = (token as usize % self.config.types, token as usize >= self.config.types);
        match SHOWN.get(kind) {
            Some(&(open, close)) => if closes { close } else { open }.to_string(),
            None => format!("{}{kind}", if closes { ')' } else { '(' }),
        }
    }
}
