//! Copy, reverse, sort: `BOS x1..xn SEP y1..yn`, where y is x, x backwards, or x in ascending order.
//!
//! Copying is the first probe of the memory of sequence models (Graves et al., 2014, "Neural Turing Machines", arXiv:1410.5401,
//! 4.1; sorting is 4.5 there). Symbols are uniform with repeats; y is judged. A causal model predicts each y from the token before.
//!
//! What it tells apart: the token that predicts y_i in a copy sits n after x_i, so L layers of window w need
//! L (w - 1) ≥ n, and in a reversal the distance grows from 1 to 2 n - 1: the accuracy of a window falls with it. A recurrent
//! state must hold all of x. Sorting needs a comparison with every symbol: a window shorter than n fails, and one layer learns
//! it slowly. With `min_items` below `items` the separator moves, so that a fixed offset is no longer enough to copy.

use super::{Dice, Part, Refused, Row, Task};
use crate::sort::Arrange;

const BOS: u32 = 1;
const SEP: u32 = 2;
const EOS: u32 = 3;
/// Tokens before the first symbol.
const SPECIAL: u32 = 4;

/// Parameters of copy, reverse and sort.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Different symbols, 2 to 1,024.
    pub symbols: usize,
    /// Most symbols of a sequence, 1 to 2,048.
    pub items: usize,
    /// Fewest; without it every sequence has `items`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_items: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self { symbols: 32, items: 16, min_items: None }
    }
}

/// In what order the symbols come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Same,
    Reversed,
    Sorted,
}

/// The three tasks.
#[derive(Clone, Debug)]
pub struct Copy {
    config: Config,
    min_items: usize,
    order: Order,
}

impl Copy {
    /// # Errors
    /// A parameter is out of bounds.
    pub fn new(config: &Config, order: Order) -> Result<Self, Refused> {
        Refused::outside("symbols", config.symbols, 2, 1024, "")?;
        Refused::outside("items", config.items, 1, 2048, "")?;
        let min_items = config.min_items.unwrap_or(config.items);
        Refused::outside("min_items", min_items, 1, config.items, "at most items")?;
        Ok(Self { config: config.clone(), min_items, order })
    }
}

impl Task for Copy {
    fn id(&self) -> &'static str {
        match self.order {
            Order::Same => "copy",
            Order::Reversed => "reverse",
            Order::Sorted => "sort",
        }
    }

    fn vocabulary(&self) -> usize {
        SPECIAL as usize + self.config.symbols
    }

    fn length(&self) -> usize {
        2 * self.config.items + 2
    }

    fn causal(&self) -> bool {
        true
    }

    fn pad(&self) -> Option<u32> {
        (self.min_items < self.config.items).then_some(0)
    }

    fn chance(&self) -> f64 {
        1.0 / self.config.symbols as f64
    }

    fn write(&self, _: Part, dice: &mut Dice, row: &mut Row) {
        let n = dice.between(self.min_items, self.config.items);
        let x: Vec<u32> = (0..n).map(|_| SPECIAL + dice.below(self.config.symbols) as u32).collect();
        // Which item of x each item of y is; a stable sort, so that equal symbols keep their order.
        let mut from: Vec<usize> = (0..n).collect();
        match self.order {
            Order::Same => {}
            Order::Reversed => from.reverse(),
            Order::Sorted => from.arrange_by_key(|&i| x[i]),
        }
        let mut tokens = vec![BOS];
        tokens.extend(&x);
        tokens.push(SEP);
        tokens.extend(from.iter().map(|&i| x[i]));
        tokens.push(EOS);
        row.next_token(&tokens);
        for (i, &item) in from.iter().enumerate() {
            row.judge(n + 1 + i, 1 + item);
        }
    }

    fn label(&self, token: u32) -> String {
        match token {
            0 => "·".into(),
            BOS => "BOS".into(),
            SEP => "SEP".into(),
            EOS => "EOS".into(),
            symbol => (symbol - SPECIAL).to_string(),
        }
    }
}
