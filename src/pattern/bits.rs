//! Patterns without a formula: a bit for each pair.

use super::{Rule, Span};

/// A bit for each query and key of some heads. A row begins at a whole word.
#[derive(Clone, PartialEq, Eq)]
pub struct Bits {
    /// 1: all heads share one pattern. Else one for each head, or for each head of each batch entry.
    pub heads: usize,
    pub n: usize,
    pub m: usize,
    /// `[heads, N, row_words]`, the lowest bit first; bits behind M are 0.
    pub words: Vec<u32>,
}

impl std::fmt::Debug for Bits {
    /// Sizes only: the words say nothing to a reader.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bits")
            .field("heads", &self.heads)
            .field("n", &self.n)
            .field("m", &self.m)
            .finish_non_exhaustive()
    }
}

impl Bits {
    /// From the rows of each head in turn, each with M entries.
    pub fn from_rows(heads: usize, n: usize, m: usize, mut row: impl FnMut(usize, usize) -> Vec<bool>) -> Self {
        let mut words = Vec::with_capacity(heads * n * m.div_ceil(32));
        for (head, i) in (0..heads).flat_map(|head| (0..n).map(move |i| (head, i))) {
            let row = row(head, i);
            debug_assert_eq!(row.len(), m);
            words.extend(row.chunks(32).map(|bits| bits.iter().rev().fold(0, |word, &bit| word << 1 | u32::from(bit))));
        }
        Self { heads, n, m, words }
    }

    /// The pairs of a rule, written out; in time linear in them and in the words.
    pub fn of_rule(rule: &Rule, heads: usize, n: usize, m: usize) -> Self {
        let row_words = m.div_ceil(32);
        let mut words = vec![0; heads * n * row_words];
        let mut spans = Vec::new();
        for (at, row) in words.chunks_mut(row_words.max(1)).enumerate() {
            rule.spans(at / n, at % n, n, m, &mut spans);
            spans.iter().flat_map(|span| span.keys()).for_each(|key| row[key / 32] |= 1 << (key % 32));
        }
        Self { heads, n, m, words }
    }

    /// Words of a row.
    pub fn row_words(&self) -> usize {
        self.m.div_ceil(32)
    }

    fn row(&self, head: usize, i: usize) -> &[u32] {
        let first = (head % self.heads * self.n + i) * self.row_words();
        &self.words[first..first + self.row_words()]
    }

    pub fn test(&self, head: usize, i: usize, j: usize) -> bool {
        self.row(head, i)[j / 32] >> (j % 32) & 1 == 1
    }

    /// All rows of one head.
    pub fn plane(&self, head: usize) -> &[u32] {
        let size = self.n * self.row_words();
        let first = head % self.heads * size;
        &self.words[first..first + size]
    }

    /// Appends the keys of a row as intervals, a word at a time where all its bits are alike.
    pub fn spans(&self, head: usize, i: usize, spans: &mut Vec<Span>) {
        let mut push = |first: usize, count: usize| match spans.last_mut() {
            Some(last) if last.first + last.count == first => last.count += count,
            _ => spans.push(Span { first, count, step: 1 }),
        };
        for (at, &word) in self.row(head, i).iter().enumerate() {
            let mut rest = word;
            let mut first = at * 32;
            while rest != 0 {
                let skip = rest.trailing_zeros();
                let count = (rest >> skip).trailing_ones();
                first += skip as usize;
                push(first, count as usize);
                first += count as usize;
                rest = rest.checked_shr(skip + count).unwrap_or(0);
            }
        }
    }
}
