//! ListOps: nested lists of digits under MIN, MAX, MED and SM (sum modulo 10), whose value is a digit.
//!
//! Nangia and Bowman, 2018, "ListOps: A Diagnostic Dataset for Latent Tree Learning", arXiv:1804.06028, with the grammar of the
//! Long Range Arena (Tay et al., 2020, arXiv:2011.04006): above the greatest depth a node is an operator with a fixed
//! probability, else a digit; an operator has 2 to `arguments` arguments, uniformly; MED is the median, the mean of the two
//! middle ones rounded down. Parentheses are left out, so a list reads `[MAX 2 9 [MIN 4 7 ] 0 ]`. The root is always an
//! operator. Trees too long or too short are drawn again. Read at the first position, by an encoder.
//!
//! What it tells apart: the whole sequence is evidence, and its structure matters: local attention does not see the bracket
//! that closes, and is the worst of the Arena (15.8 % to 36.4 % of full attention). Distance means nothing and is 0.

use super::{Dice, Part, Refused, Row, Task};

const CLS: u32 = 1;
/// Token of digit 0.
const DIGIT: u32 = 2;
/// Token of the first operator.
const OPERATOR: u32 = 12;
const OPERATORS: [&str; 4] = ["[MIN", "[MAX", "[MED", "[SM"];
const CLOSE: u32 = 16;

/// Trees that are drawn at most for a sequence.
const TRIES: u64 = 4000;
/// Trees drawn to see whether parameters fit together, and how many of them must fit the length.
const PROBES: u64 = 1000;
const FITTING: usize = 10;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// N, 8 to 4,096; shorter lists are padded.
    pub length: usize,
    /// Fewest tokens of a list, 0 to N - 1.
    pub min_length: usize,
    /// Greatest depth of nesting, 1 to 12.
    pub depth: usize,
    /// Most arguments, 2 to 12.
    pub arguments: usize,
    /// Percent of the inner nodes that are operators, 0 to 100; the Arena has 25.
    pub operator_percent: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { length: 64, min_length: 0, depth: 4, arguments: 5, operator_percent: 75 }
    }
}

/// The task.
#[derive(Clone, Debug)]
pub struct ListOps {
    config: Config,
}

impl ListOps {
    /// # Errors
    /// A parameter is out of bounds, or fewer than one tree in a hundred has a fitting length.
    pub fn new(config: &Config) -> Result<Self, Refused> {
        Refused::outside("length", config.length, 8, 4096, "")?;
        Refused::outside("min_length", config.min_length, 0, config.length - 1, "below length")?;
        Refused::outside("depth", config.depth, 1, 12, "")?;
        Refused::outside("arguments", config.arguments, 2, 12, "")?;
        Refused::outside("operator_percent", config.operator_percent, 0, 100, "")?;
        let task = |config: Config| Self { config };
        if task(config.clone()).fits() {
            return Ok(task(config.clone()));
        }
        // What can be too rare is the length: any works from 0 on where trees are small enough, else depth must go down.
        let loose = Config { min_length: 0, ..config.clone() };
        if task(loose.clone()).fits() {
            let mut least = config.min_length;
            while !task(Config { min_length: least, ..loose.clone() }).fits() {
                least /= 2;
            }
            let takes = "lengths that at least one tree in a hundred has".into();
            return Err(Refused {
                key: "min_length",
                got: config.min_length.to_string(),
                takes,
                nearest: least.to_string(),
            });
        }
        let depth = (1..config.depth).rev().find(|&depth| task(Config { depth, ..loose.clone() }).fits());
        Err(Refused {
            key: "depth",
            got: config.depth.to_string(),
            takes: "depths at which at least one tree in a hundred fits in length".into(),
            nearest: depth.map_or("1 with fewer arguments".into(), |depth| depth.to_string()),
        })
    }

    fn fits(&self) -> bool {
        let fitting = (0..PROBES).filter(|&i| {
            let mut dice = Dice::new("list_ops/probe", 0, Part::Train, i);
            self.tree(&mut dice).is_some()
        });
        fitting.take(FITTING).count() == FITTING
    }

    /// A tree of fitting length: its tokens and its value.
    fn tree(&self, dice: &mut Dice) -> Option<(Vec<u32>, u32)> {
        let mut tokens = Vec::new();
        let value = self.node(dice, 0, &mut tokens)?;
        (tokens.len() >= self.config.min_length).then_some((tokens, value))
    }

    /// Writes a node and returns its value; nothing once it is too long, whatever would follow.
    fn node(&self, dice: &mut Dice, depth: usize, tokens: &mut Vec<u32>) -> Option<u32> {
        if tokens.len() + 1 >= self.config.length {
            return None;
        }
        let inner = depth == 0 || (depth < self.config.depth && dice.percent(self.config.operator_percent));
        if !inner {
            let digit = dice.below(10) as u32;
            tokens.push(DIGIT + digit);
            return Some(digit);
        }
        let operator = dice.below(OPERATORS.len());
        tokens.push(OPERATOR + operator as u32);
        let mut arguments = Vec::new();
        for _ in 0..dice.between(2, self.config.arguments) {
            arguments.push(self.node(dice, depth + 1, tokens)?);
        }
        tokens.push(CLOSE);
        (tokens.len() < self.config.length).then(|| apply(operator, &mut arguments))
    }
}

/// The value of an operator of [`OPERATORS`]; sorts its arguments.
fn apply(operator: usize, arguments: &mut [u32]) -> u32 {
    arguments.sort_unstable();
    let n = arguments.len();
    match operator {
        0 => arguments[0],
        1 => arguments[n - 1],
        2 => (arguments[(n - 1) / 2] + arguments[n / 2]) / 2,
        _ => arguments.iter().sum::<u32>() % 10,
    }
}

impl Task for ListOps {
    fn id(&self) -> &'static str {
        "list_ops"
    }

    fn vocabulary(&self) -> usize {
        CLOSE as usize + 1
    }

    fn length(&self) -> usize {
        self.config.length
    }

    fn causal(&self) -> bool {
        false
    }

    fn pad(&self) -> Option<u32> {
        Some(0)
    }

    fn chance(&self) -> f64 {
        0.1
    }

    fn write(&self, _: Part, dice: &mut Dice, row: &mut Row) {
        let tree = (0..TRIES).find_map(|_| self.tree(dice));
        // Where parameters are taken, this many failures do not happen in the life of a machine; a list is written all the same.
        let (tokens, value) = tree.unwrap_or_else(|| (vec![OPERATOR, DIGIT, DIGIT, CLOSE], 0));
        row.inputs[0] = CLS;
        row.inputs[1..=tokens.len()].copy_from_slice(&tokens);
        row.targets[0] = DIGIT + value;
        row.judged[0] = 1.0;
    }

    fn label(&self, token: u32) -> String {
        match token {
            0 => "·".into(),
            CLS => "CLS".into(),
            CLOSE => "]".into(),
            operator if operator >= OPERATOR => OPERATORS[(operator - OPERATOR) as usize].into(),
            digit => (digit - DIGIT).to_string(),
        }
    }
}
