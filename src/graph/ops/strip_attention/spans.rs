//! Which keys a query sees: neighbouring queries that see the same rows, but for the diagonal, make a span.

/// The keys of all queries.
#[derive(Clone, Debug, PartialEq)]
pub enum Keys {
    /// All M rows, up to the diagonal when causal (aligned at the end where M > N).
    All { causal: bool },
    /// Segments of `length` queries, causal: each sees itself, the `memory` tokens in front of it, and in front of those the
    /// newest of the compressed slots. The rows are all slots, then all tokens. Only rows of the segment itself have a
    /// gradient: what is remembered is constant.
    Segments { length: usize, memory: usize, slots: Slots },
}

/// Compressed memory: every segment that leaves the memory becomes `each` slots, of which the newest `kept` are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    pub each: usize,
    pub kept: usize,
    pub total: usize,
}

/// Queries that see the same rows: `prefix`, then `body`, numbered together from 0; the i-th query sees those up to
/// `i + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First query, and how many.
    pub first: usize,
    pub count: usize,
    /// First row and how many rows of the two parts.
    pub prefix: (usize, usize),
    pub body: (usize, usize),
    /// From this key on there are gradients.
    pub own: usize,
    /// Key at which the first query stands; beyond all keys where there is no order.
    pub offset: usize,
}

impl Span {
    pub fn keys(&self) -> usize {
        self.prefix.1 + self.body.1
    }

    /// How many keys the i-th query may see.
    pub fn visible(&self, i: usize) -> usize {
        self.keys().min(i + self.offset + 1)
    }

    /// The row of a key.
    pub fn row(&self, key: usize) -> usize {
        if key < self.prefix.1 { self.prefix.0 + key } else { self.body.0 + key - self.prefix.1 }
    }

    /// `count` queries from the `from`-th on, with the keys that the last of them sees.
    pub fn part(&self, from: usize, count: usize) -> Self {
        let offset = self.offset + from;
        let keys = self.keys().min(offset + count);
        let body = (self.body.0, keys.saturating_sub(self.prefix.1));
        Self { first: self.first + from, count, body, offset, ..*self }
    }
}

impl Keys {
    /// The spans of `n` queries over `rows` rows, in order.
    pub fn spans(&self, n: usize, rows: usize) -> Vec<Span> {
        match *self {
            Keys::All { causal } => {
                let offset = if causal { rows - n } else { rows };
                vec![Span { first: 0, count: n, prefix: (0, 0), body: (0, rows), own: 0, offset }]
            }
            Keys::Segments { length, memory, slots } => (0..n.div_ceil(length))
                .map(|segment| {
                    let first = segment * length;
                    let count = length.min(n - first);
                    let remembered = memory.min(first);
                    // Whole segments that have left the memory.
                    let made = (first - remembered) / length * slots.each;
                    let kept = slots.kept.min(made);
                    Span {
                        first,
                        count,
                        prefix: (made - kept, kept),
                        body: (slots.total + first - remembered, remembered + count),
                        own: kept + remembered,
                        offset: kept + remembered,
                    }
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_see_themselves_their_memory_and_the_newest_slots() {
        let slots = Slots { each: 2, kept: 3, total: 6 };
        let keys = Keys::Segments { length: 4, memory: 4, slots };
        let spans = keys.spans(14, 20);
        assert_eq!(spans.len(), 4);
        assert_eq!((spans[0].prefix.1, spans[0].body, spans[0].own), (0, (6, 4), 0));
        assert_eq!((spans[1].prefix.1, spans[1].body, spans[1].own), (0, (6, 8), 4));
        assert_eq!((spans[2].prefix, spans[2].body), ((0, 2), (10, 8)));
        assert_eq!((spans[3].prefix, spans[3].body, spans[3].count), ((1, 3), (14, 6), 2));
        assert_eq!([spans[3].row(0), spans[3].row(2), spans[3].row(3)], [1, 3, 14]);
        assert_eq!([spans[3].visible(0), spans[3].visible(1)], [8, 9]);
    }

    #[test]
    fn a_part_ends_with_what_its_last_query_sees() {
        let span = Keys::All { causal: true }.spans(10, 12)[0];
        let part = span.part(4, 3);
        assert_eq!((part.first, part.keys(), part.visible(0), part.visible(2)), (4, 9, 7, 9));
        let all = Keys::All { causal: false }.spans(10, 12)[0].part(4, 3);
        assert_eq!((all.keys(), all.visible(0)), (12, 12));
    }
}
