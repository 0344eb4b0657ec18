//! Strips that show what a method decided: which columns are in view, their pixels, the marks of the cursor on them, and what
//! is said of a token. All positions are parts of the strip, 0 to 1.

use crate::attention::{Form, Of};
use crate::lab::picture::colour::CIVIDIS;
use crate::lab::protocol::{Part, Viewport};

/// Pixels of a picture's sides at most; the browser makes it as large as the strip.
const MOST_COLUMNS: usize = 2048;
const MOST_ROWS: usize = 512;

/// Colours of labels, told apart by hue and, as far as ten can be, by lightness.
const LABELS: [[u8; 3]; 10] = [
    [0x2f, 0x6f, 0xb5],
    [0xe0, 0x8a, 0x2b],
    [0x2f, 0x8f, 0x66],
    [0xb5, 0x3a, 0x52],
    [0x8d, 0x79, 0xd2],
    [0x6d, 0x53, 0x39],
    [0xe3, 0x93, 0xb8],
    [0x76, 0x80, 0x8c],
    [0xb9, 0xad, 0x3a],
    [0x3f, 0xb0, 0xbf],
];

/// The colour of a label: every ten labels the hues come again, lighter, then darker.
pub fn label_colour(label: usize) -> [u8; 3] {
    let towards = [None, Some(255.0), Some(0.0)][label / LABELS.len() % 3];
    LABELS[label % LABELS.len()].map(|c| towards.map_or(c, |end| (0.55 * f64::from(c) + 0.45 * end) as u8))
}

/// A cursor on both axes.
pub type Cursor = (usize, usize);

/// The columns of a part that are in view, and where they lie in the strip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    pub first: usize,
    pub count: usize,
    pub left: f64,
    pub width: f64,
}

/// Tokens of a column and how many columns there are; none where columns are no tokens in their order.
fn columns(part: &Part, n: usize) -> Option<(usize, usize)> {
    match part.form {
        Form::Labels { .. } => Some((1, part.columns)),
        Form::Members { count, tokens, .. } => Some((tokens, count)),
        Form::Shares { tokens, .. } => Some((tokens, part.columns)),
        Form::Spans => Some((1, n)),
        Form::Order { .. } | Form::Lengths => None,
    }
}

/// What a plate's viewport shows of a part whose columns are keys; all of one whose columns are something else.
pub fn window(part: &Part, view: Viewport, n: usize) -> Window {
    let Some((tokens, total)) = columns(part, n) else {
        return Window { first: 0, count: part.columns, left: 0.0, width: 1.0 };
    };
    let tokens = tokens as f64;
    let first = ((view.col / tokens) as usize).min(total.saturating_sub(1));
    let end = (((view.col + view.cols) / tokens).ceil() as usize).clamp(first + 1, total.max(first + 1));
    let count = end - first;
    let left = (first as f64 * tokens - view.col) / view.cols;
    Window { first, count, left, width: count as f64 * tokens / view.cols }
}

/// Pixels, `[height, width, 4]`; transparent where there is nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    pub width: usize,
    pub height: usize,
    pub rgba: Vec<u8>,
}

/// The picture of a part's columns in view. `labels` are those that an order was sorted by.
pub fn pixels(part: &Part, labels: Option<&Part>, window: Window) -> Pixels {
    let (across, down) = (window.count.div_ceil(MOST_COLUMNS).max(1), part.rows.div_ceil(MOST_ROWS).max(1));
    let (width, height) = (window.count.div_ceil(across), part.rows.div_ceil(down));
    let mut rgba = vec![0; width * height * 4];
    let mut put = |row: usize, column: usize, [r, g, b]: [u8; 3]| {
        let at = (row / down * width + column / across) * 4;
        rgba[at..at + 4].copy_from_slice(&[r, g, b, 255]);
    };
    let label = |value: f32, count: usize| (value < count as f32).then(|| label_colour(value as usize));
    for (row, values) in part.values.chunks(part.columns.max(1)).enumerate() {
        match part.form {
            Form::Members { count, row_tokens, .. } => {
                for &taken in values.iter().filter(|&&taken| taken < count as f32) {
                    let column = (taken as usize).wrapping_sub(window.first);
                    if column < window.count {
                        put(row, column, label_colour(if row_tokens == 0 { row } else { 0 }));
                    }
                }
            }
            Form::Spans => {
                for (span, edges) in values.windows(2).enumerate() {
                    let inside =
                        |edge: f32| (edge as usize).clamp(window.first, window.first + window.count) - window.first;
                    // The row's own tokens come last and have the first colour.
                    let colour = label_colour(values.len() - 2 - span);
                    (inside(edges[0])..inside(edges[1])).for_each(|column| put(row, column, colour));
                }
            }
            Form::Lengths => {}
            // Columns that share a pixel show their first, rows too.
            Form::Labels { .. } | Form::Order { .. } | Form::Shares { .. } if row % down != 0 => {}
            Form::Labels { .. } | Form::Order { .. } | Form::Shares { .. } => {
                for column in (0..window.count).step_by(across) {
                    let Some(&value) = values.get(window.first + column) else { continue };
                    let colour = match part.form {
                        Form::Labels { count, .. } => label(value, count),
                        Form::Order { .. } => labels.and_then(|labels| {
                            let Form::Labels { count, .. } = labels.form else { return None };
                            label(*labels.values.get(row * labels.columns + value as usize)?, count)
                        }),
                        _ => Some(share_colour(value)),
                    };
                    if let Some(colour) = colour {
                        put(row, column, colour);
                    }
                }
            }
        }
    }
    Pixels { width, height, rgba }
}

/// Cividis from 0 to 1.
fn share_colour(share: f32) -> [u8; 3] {
    let last = CIVIDIS.len() - 1;
    let at = share.clamp(0.0, 1.0) * last as f32;
    let low = (at as usize).min(last - 1);
    let part = at - low as f32;
    std::array::from_fn(|c| {
        let [low, high] = [CIVIDIS[low][c], CIVIDIS[low + 1][c]].map(f32::from);
        (low + part * (high - low)).round() as u8
    })
}

/// The tokens of a cursor that a part is about: the key first.
fn tokens_of(of: Of, (query, key): Cursor) -> Vec<usize> {
    match of {
        Of::Queries => vec![query],
        Of::Keys => vec![key],
        Of::Tokens if query == key => vec![key],
        Of::Tokens => vec![key, query],
    }
}

/// The row that speaks for a query, where one does.
fn row_of(part: &Part, query: usize) -> Option<usize> {
    let row = match part.form {
        Form::Members { row_tokens, .. } | Form::Shares { row_tokens, .. } => query.checked_div(row_tokens)?,
        Form::Spans => {
            part.values.chunks(part.columns).position(|edges| edges.last().is_some_and(|&e| (query as f32) < e))?
        }
        _ => return None,
    };
    (row < part.rows).then_some(row)
}

/// Where the cursor is on a strip, as `[x, y, width, height]`.
pub fn marks(part: &Part, view: Viewport, n: usize, cursor: Cursor) -> Vec<[f64; 4]> {
    let column = |token: usize, tokens: usize| ((token / tokens * tokens) as f64 - view.col, tokens as f64);
    let rows = part.rows.max(1) as f64;
    let in_row = |row: Option<usize>| row.map_or((0.0, 1.0), |row| (row as f64 / rows, 1.0 / rows));
    match part.form {
        Form::Labels { of, .. } | Form::Members { of, row_tokens: 0, .. } => tokens_of(of, cursor)
            .into_iter()
            .map(|token| column(token, 1))
            .map(|(x, width)| [x / view.cols, 0.0, width / view.cols, 1.0])
            .collect(),
        Form::Order { .. } => {
            let places = part.columns.max(1);
            let mut marks = Vec::new();
            for token in tokens_of(Of::Tokens, cursor) {
                for (at, _) in part.values.iter().enumerate().filter(|(_, t)| **t == token as f32) {
                    let (y, height) = in_row(Some(at / places));
                    marks.push([(at % places) as f64 / places as f64, y, 1.0 / places as f64, height]);
                }
            }
            marks
        }
        Form::Lengths => vec![],
        Form::Members { .. } | Form::Shares { .. } | Form::Spans => {
            let (x, width) = column(cursor.1, columns(part, n).map_or(1, |(tokens, _)| tokens.max(1)));
            let (y, height) = in_row(row_of(part, cursor.0));
            vec![[x / view.cols, y, width / view.cols, height]]
        }
    }
}

/// The cursor at a point of a strip; what the point does not say stays as it was, or follows the other axis.
pub fn cursor_at(part: &Part, view: Viewport, n: usize, (x, y): (f64, f64), before: Option<Cursor>) -> Cursor {
    let inside = |at: f64, count: usize| ((at.clamp(0.0, 1.0) * count as f64) as usize).min(count.saturating_sub(1));
    let row = inside(y, part.rows);
    let token = ((view.col + x.clamp(0.0, 1.0) * view.cols) as usize).min(n.saturating_sub(1));
    let key_at = |key: usize| (before.map_or(key, |(query, _)| query), key);
    match part.form {
        Form::Labels { of: Of::Queries, .. } | Form::Members { of: Of::Queries, row_tokens: 0, .. } => {
            (token, before.map_or(token, |(_, key)| key))
        }
        Form::Order { .. } => {
            let at = row * part.columns + inside(x, part.columns);
            key_at(part.values.get(at).map_or(0, |&token| token as usize))
        }
        Form::Members { row_tokens, .. } | Form::Shares { row_tokens, .. } if row_tokens > 0 => {
            ((row * row_tokens).min(n.saturating_sub(1)), token)
        }
        Form::Spans => {
            let own = part.values.get((row + 1) * part.columns - 2);
            (own.map_or(token, |&start| start as usize), token)
        }
        _ => key_at(token),
    }
}

/// What is said of the cursor's tokens: each with its numbers in words.
pub fn said(part: &Part, (query, key): Cursor, none: &str) -> Vec<(usize, Vec<String>)> {
    let join = |words: Vec<String>| if words.is_empty() { none.to_owned() } else { words.join(" · ") };
    let rows = || part.values.chunks(part.columns.max(1));
    match part.form {
        Form::Labels { count, of } => tokens_of(of, (query, key))
            .into_iter()
            .map(|token| {
                let word = |label: f32| if label < count as f32 { label.to_string() } else { none.to_owned() };
                let own: Vec<f32> = rows().filter_map(|row| row.get(token).copied()).collect();
                let alike =
                    rows().next().zip(own.first()).map_or(0, |(row, own)| row.iter().filter(|x| *x == own).count());
                (token, vec![join(own.into_iter().map(word).collect()), alike.to_string()])
            })
            .collect(),
        Form::Order { .. } => tokens_of(Of::Tokens, (query, key))
            .into_iter()
            .map(|token| {
                let place = |row: &[f32]| row.iter().position(|&t| t == token as f32).map(|place| place.to_string());
                (token, vec![join(rows().filter_map(place).collect())])
            })
            .collect(),
        Form::Members { of, row_tokens: 0, .. } => tokens_of(of, (query, key))
            .into_iter()
            .map(|token| {
                let took = rows().enumerate().filter(|(_, row)| row.contains(&(token as f32)));
                (token, vec![join(took.map(|(row, _)| row.to_string()).collect())])
            })
            .collect(),
        Form::Members { count, .. } => {
            let Some(row) = row_of(part, query).and_then(|row| rows().nth(row)) else { return vec![] };
            let mut taken: Vec<usize> = row.iter().filter(|x| **x < count as f32).map(|&x| x as usize).collect();
            taken.sort_unstable();
            vec![(query, vec![join(taken.iter().map(usize::to_string).collect())])]
        }
        Form::Shares { tokens, .. } => {
            let (row, column) = (row_of(part, query).unwrap_or(0), key / tokens.max(1));
            let share = part.values.get(row * part.columns + column).copied().unwrap_or(0.0);
            vec![(query, vec![super::format::significant(share.into(), 3), row.to_string(), column.to_string()])]
        }
        Form::Spans => {
            let Some(edges) = row_of(part, query).and_then(|row| rows().nth(row)) else { return vec![] };
            vec![(query, edges.windows(2).rev().map(|edges| (edges[1] - edges[0]).to_string()).collect())]
        }
        Form::Lengths => vec![],
    }
}

#[cfg(test)]
mod tests;
