//! The weights of one attention head of a run on a text, and the small picture of them that a face is sent.

use super::machine::Values;
use super::run::inputs;
use super::{Error, Run};
use crate::graph::Data;
use crate::lab::matrix::Matrix;
use crate::lab::picture::ABSENT;
use crate::model::{ConfigError, attended};
use crate::sort::IntoMap;
use crate::task::Part;

/// What a run reads.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// The held-out sequence of this number.
    Held(u64),
    /// Tokens of a decoder, of which it sees the last N.
    Tokens(&'a [u32]),
}

/// What one head attends to.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadWeights {
    /// The attention, e.g. `layers.0.attention`.
    pub part: String,
    pub head: usize,
    /// Tokens of the rows and of the columns.
    pub queries: Vec<u32>,
    pub keys: Vec<u32>,
    /// The effective matrix `[queries, keys]`, [`ABSENT`] outside the pattern; or why there is none.
    pub cells: Result<Vec<f32>, &'static str>,
}

impl Run {
    /// The effective matrix of a head of the attention that `part` names, the nearest that there is, on a text.
    ///
    /// # Errors
    /// A token that the model does not know; the device's, or cancelled.
    pub async fn head_weights(
        &mut self,
        part: &str,
        head: usize,
        text: Text<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<HeadWeights, Error> {
        let model = &self.config.model;
        let (length, vocabulary) = (model.length, model.embedded());
        let (mut given, seen) = match text {
            Text::Held(number) => {
                let batch = self.task.batch(self.config.seed, Part::Held, number, 1);
                (inputs(model, &batch, self.task.causal()), length)
            }
            Text::Tokens(text) => {
                let seen = &text[text.len().saturating_sub(length)..];
                let mut tokens = seen.to_vec();
                tokens.resize(length, 0);
                let given: Values = std::iter::once(("tokens".to_owned(), Data::Index(tokens))).into_map();
                (given, seen.len())
            }
        };
        let tokens = |name: &str| match given.get(name) {
            Some(Data::Index(tokens)) => tokens[..seen].to_vec(),
            _ => vec![],
        };
        let (read, source) = (tokens("tokens"), tokens("source"));
        if let Some(token) = read.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(ConfigError::new("text", format!("token {token}"), format!("tokens below {vocabulary}")).into());
        }
        let rows = self.rows();
        let (part, made) = attended(model, rows, self.config.seed, part);
        let (queries, keys) = match part.split_once("layers") {
            Some(("encoder.", _)) => (source.clone(), source),
            _ if part.ends_with("cross") => (read, source),
            _ => (read.clone(), read),
        };
        let made = match made {
            Ok(made) => made,
            Err(why) => return Ok(HeadWeights { part, head, queries, keys, cells: Err(why) }),
        };
        repeat(&mut given, rows);
        // Another one may be there, of another layer.
        self.machine.remove("heads");
        self.machine.add("heads", made.graph).await?;
        // What is not there is asked for by a name that is, and not read.
        let (left, right) = ("effective_left", "effective_right");
        let row = if made.has_row { "effective_row" } else { right };
        let real = if made.has_padding { "real" } else { right };
        let [left, right, row, real] = self.machine.ask("heads", given, [left, right, row, real], cancelled).await?;
        let (n, m) = (made.setup.length, made.setup.keys);
        let head = head.min(made.setup.heads - 1);
        let is_padding = |at: usize| made.has_padding && real[at] == 0.0;
        let rank = left.len() / (made.setup.instances() * n);
        let matrix = Matrix { left, right, row, kind: made.kind, rule: made.rule, n, m, rank };
        let mut cells = Vec::with_capacity(queries.len() * keys.len());
        for i in 0..queries.len() {
            let weights = matrix.row(head, i).weights;
            let unread = made.setup.is_of_itself() && is_padding(i);
            let cell = |(j, weight)| if matrix.may(head, i, j) && !unread && !is_padding(j) { weight } else { ABSENT };
            cells.extend(weights.into_iter().take(keys.len()).enumerate().map(cell));
        }
        Ok(HeadWeights { part, head, queries, keys, cells: Ok(cells) })
    }

    /// Sequences of a graph that only reads: one, but as many as in a step where a method draws tensors for each of a batch.
    pub(super) fn rows(&self) -> usize {
        let parameters = crate::model::reader(&self.config.model, 1, self.config.seed).parameters;
        let alone = parameters.iter().all(|p| self.state.get(&p.name) == Some(&p.shape));
        if alone { 1 } else { self.config.batch }
    }
}

/// Every sequence of tokens, `rows` times.
pub(super) fn repeat(given: &mut Values, rows: usize) {
    for value in given.values_mut() {
        if let Data::Index(tokens) = value {
            *tokens = tokens.repeat(rows);
        }
    }
}

/// Rows and columns of a picture, at most.
const MOST_SIDE: usize = 256;
/// Stands for a cell outside the pattern. Below, weights go by the root of their share of the largest one: few levels tell small
/// weights apart.
const FORBIDDEN: u8 = 255;
const LEVELS: f32 = 254.0;

/// What one head attends to, small enough to be told at every look.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HeadPicture {
    pub part: String,
    pub head: usize,
    /// Why there are no weights.
    pub why: Option<String>,
    /// Labels of rows and columns; of several tokens the first and the last.
    pub queries: Vec<String>,
    pub keys: Vec<String>,
    /// Tokens that share a row or a column, of which the largest weight is shown.
    pub block: usize,
    /// The largest size of a weight.
    pub top: f32,
    /// Whether weights can be below 0.
    pub signed: bool,
    /// Two hexadecimal digits for each cell, row by row.
    cells: String,
}

impl HeadPicture {
    /// With tokens as `label` calls them.
    pub fn of(weights: &HeadWeights, label: &dyn Fn(u32) -> String) -> Self {
        let (n, m) = (weights.queries.len(), weights.keys.len());
        let block = n.max(m).div_ceil(MOST_SIDE).max(1);
        let labels = |tokens: &[u32]| -> Vec<String> {
            let one = |tokens: &[u32]| match tokens {
                [one] => label(*one),
                _ => format!("{}…{}", label(tokens[0]), label(tokens[tokens.len() - 1])),
            };
            tokens.chunks(block).map(one).collect()
        };
        let mut picture = Self { part: weights.part.clone(), head: weights.head, block, ..Self::default() };
        let all = match &weights.cells {
            Ok(cells) => cells,
            Err(why) => {
                picture.why = Some((*why).into());
                return picture;
            }
        };
        (picture.queries, picture.keys) = (labels(&weights.queries), labels(&weights.keys));
        let columns = picture.keys.len();
        let mut cells = vec![ABSENT; picture.queries.len() * columns];
        for (at, &x) in all.iter().enumerate() {
            let cell = &mut cells[at / m / block * columns + at % m / block];
            if x != ABSENT && (*cell == ABSENT || x.abs() > cell.abs()) {
                *cell = x;
            }
        }
        let there = || cells.iter().filter(|x| x.is_finite());
        picture.top = there().fold(0.0, |top, x| x.abs().max(top));
        picture.signed = there().any(|&x| x < 0.0);
        picture.cells = cells.iter().map(|&x| format!("{:02x}", picture.level(x))).collect();
        picture
    }

    fn level(&self, x: f32) -> u8 {
        if x == ABSENT {
            return FORBIDDEN;
        }
        let share = (x.abs() / self.top.max(f32::MIN_POSITIVE)).sqrt().copysign(x);
        let share = if self.signed { 0.5 + 0.5 * share } else { share };
        (share * LEVELS).round() as u8
    }

    /// The cells, row by row; [`ABSENT`] outside the pattern.
    pub fn cells(&self) -> Vec<f32> {
        let weight = |digits: &[u8]| {
            let level = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
            match level {
                None | Some(FORBIDDEN) => ABSENT,
                Some(level) => {
                    let share = f32::from(level) / LEVELS;
                    let root = if self.signed { 2.0 * share - 1.0 } else { share };
                    self.top * root * root.abs()
                }
            }
        };
        self.cells.as_bytes().chunks(2).map(weight).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal;

    fn weights(n: usize, m: usize, cell: impl Fn(usize, usize) -> f32) -> HeadWeights {
        let cells = (0..n * m).map(|at| cell(at / m, at % m)).collect();
        let tokens = |count: usize| (0..count as u32).collect();
        HeadWeights {
            part: "layers.0.attention".into(),
            head: 1,
            queries: tokens(n),
            keys: tokens(m),
            cells: Ok(cells),
        }
    }

    #[test]
    fn a_picture_is_as_the_weights_to_a_level() {
        for signed in [false, true] {
            let value = |i: usize, j: usize| {
                let x = normal(3, i as u64, j as u64) as f32;
                if j > i {
                    ABSENT
                } else if signed {
                    x
                } else {
                    x.abs()
                }
            };
            let picture = HeadPicture::of(&weights(37, 41, value), &|token| format!("t{token}"));
            assert_eq!((picture.signed, picture.block, picture.queries.len()), (signed, 1, 37));
            assert_eq!(picture.keys[40], "t40");
            let cells = picture.cells();
            assert_eq!(cells.len(), 37 * 41);
            for (at, &got) in cells.iter().enumerate() {
                let want = value(at / 41, at % 41);
                // The root is exact to half a level.
                let level = if signed { 1.0 / 254.0 } else { 0.5 / 254.0 };
                let root = |x: f32| (x.abs() / picture.top).sqrt().copysign(x);
                assert!(got == want || (root(got) - root(want)).abs() <= level + 1e-5, "{got} for {want}");
            }
        }
    }

    #[test]
    fn of_many_tokens_the_largest_is_shown() {
        let value = |i: usize, j: usize| {
            if (i, j) == (300, 599) {
                0.5
            } else if j < 3 {
                ABSENT
            } else {
                0.1
            }
        };
        let picture = HeadPicture::of(&weights(400, 600, value), &|token| token.to_string());
        assert_eq!((picture.block, picture.queries.len(), picture.keys.len()), (3, 134, 200));
        assert_eq!((picture.queries[133].as_str(), picture.keys[199].as_str()), ("399", "597…599"));
        let cells = picture.cells();
        assert_eq!((cells[100 * 200 + 199], cells[0]), (0.5, ABSENT));
        assert!((cells[1] - 0.1).abs() < 2e-3, "{}", cells[1]);
    }

    #[test]
    fn nothing_is_still_a_picture() {
        let picture = HeadPicture::of(&weights(2, 2, |_, _| 0.0), &|token| token.to_string());
        assert_eq!((picture.top, picture.cells()), (0.0, vec![0.0; 4]));
    }
}
