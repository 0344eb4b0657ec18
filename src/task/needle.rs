//! A needle at a distance: noise, a marker with a value after it, noise, and a query that asks for the value.
//!
//! The passkey and needle-in-a-haystack tests (Mohtashami and Jaggi, 2023, arXiv:2305.16300, 4.2) at the size of a page. The
//! value is D positions before the query, D up to `distance`; octaves of D are equally frequent, so that each bin of
//! accuracy by distance has its share. Values and marker never occur in the noise.
//!
//! What it tells apart: receptive fields, as a law: L layers of window w answer if and only if L (w - 1) ≥ D, and everything
//! that reaches farther (dilation, global tokens, strides, random links, memory) moves the cliff to where it should
//! be. A recurrent state has to keep the value through D steps of noise.

use super::{Dice, Part, Refused, Row, Task};

const MARKER: u32 = 1;
const QUERY: u32 = 2;
/// Tokens before the first value.
const SPECIAL: usize = 3;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// N, 3 to 16,384.
    pub length: usize,
    /// Largest D, 1 to N - 2.
    pub distance: usize,
    /// Smallest D, 1 to `distance`.
    pub min_distance: usize,
    /// Different values, 2 to 1,024.
    pub values: usize,
    /// Different noise tokens, 1 to 1,024.
    pub noise: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { length: 128, distance: 64, min_distance: 1, values: 16, noise: 45 }
    }
}

/// The task.
#[derive(Clone, Debug)]
pub struct Needle {
    config: Config,
}

impl Needle {
    /// # Errors
    /// A parameter is out of bounds.
    pub fn new(config: &Config) -> Result<Self, Refused> {
        Refused::outside("length", config.length, 3, 16_384, "")?;
        Refused::outside("distance", config.distance, 1, config.length - 2, "marker and query fit in the length")?;
        Refused::outside("min_distance", config.min_distance, 1, config.distance, "at most distance")?;
        Refused::outside("values", config.values, 2, 1024, "")?;
        Refused::outside("noise", config.noise, 1, 1024, "")?;
        Ok(Self { config: config.clone() })
    }
}

impl Task for Needle {
    fn id(&self) -> &'static str {
        "needle"
    }

    fn vocabulary(&self) -> usize {
        SPECIAL + self.config.values + self.config.noise
    }

    fn length(&self) -> usize {
        self.config.length
    }

    fn causal(&self) -> bool {
        true
    }

    fn chance(&self) -> f64 {
        1.0 / self.config.values as f64
    }

    fn write(&self, _: Part, dice: &mut Dice, row: &mut Row) {
        let c = &self.config;
        for slot in row.inputs.iter_mut() {
            *slot = (SPECIAL + c.values + dice.below(c.noise)) as u32;
        }
        let octave = 1 << dice.between(c.min_distance.ilog2() as usize, c.distance.ilog2() as usize);
        let distance = dice.between(octave.max(c.min_distance), (2 * octave - 1).min(c.distance));
        let marker = dice.below(c.length - distance - 1);
        let (value, query) = (marker + 1, marker + 1 + distance);
        row.inputs[marker] = MARKER;
        row.inputs[value] = (SPECIAL + dice.below(c.values)) as u32;
        row.inputs[query] = QUERY;
        row.targets[query] = row.inputs[value];
        row.judge(query, value);
    }

    fn label(&self, token: u32) -> String {
        match token {
            0 => "·".into(),
            MARKER => "!".into(),
            QUERY => "?".into(),
            t if (t as usize) < SPECIAL + self.config.values => format!("v{}", t as usize - SPECIAL),
            t => format!("{}", t as usize - SPECIAL - self.config.values),
        }
    }
}
