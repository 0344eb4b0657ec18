//! Rules that a reader writes: `abs(i - j) < 32 || j % 64 == 0`.
//!
//! An expression over `i` (the query's position among the keys), `j` (the key), `n` (the number of keys), `b`, `h` (batch entry
//! and head), `causal`, whole numbers, `+ - * / %`, comparisons, `&& || !`, `abs(x)`, `min(x, y)`, `max(x, y)`, and
//! `rand(x, y) < 0.1` with a number from the seed for each pair of arguments. Numbers are 32-bit and wrap around; `/` and `%`
//! round towards zero, and give 0 where they divide by 0. Text becomes a tree of bounded size and nothing else.

mod parse;

/// Most characters of a rule, and most parts of its tree.
pub const MAX_CHARS: usize = 400;
pub const MAX_PARTS: usize = 200;

/// A rule that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    root: Part,
    parts: usize,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {what}")]
pub struct ExpressionError {
    /// Counted from 1, in characters.
    pub column: usize,
    pub what: String,
}

/// What an expression is asked about, besides the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The query's position among the keys, negative where there are fewer keys than queries.
    pub i: i32,
    pub n: i32,
    pub b: i32,
    pub h: i32,
    pub causal: bool,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    I,
    J,
    N,
    B,
    H,
    Causal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Min,
    Max,
    Equal,
    Unequal,
    Less,
    AtMost,
    /// A random number below a bound: both count in 2^-32 and carry no sign.
    Below,
    And,
    Or,
    Random,
}

/// A part of the tree; truth values are 0 and 1.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Number(i32),
    Name(Name),
    Negative(Box<Part>),
    Absolute(Box<Part>),
    Not(Box<Part>),
    Two(Operator, Box<(Part, Part)>),
}

/// The values of a part along a row of keys.
enum Values {
    One(i32),
    Row(Vec<i32>),
}

impl Expression {
    /// # Errors
    /// What is wrong, and in which column.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        parse::parse(text)
    }

    /// Whether query and key `j` may meet. Walks the tree: for single pairs, and as the definition.
    pub fn allows(&self, at: &At, j: i32) -> bool {
        self.root.value(at, j) != 0
    }

    /// The same for keys `0..keys`, as truth values 0 and 1: each operation runs over the whole row.
    pub fn row(&self, at: &At, keys: usize) -> Vec<bool> {
        match self.root.row(at, keys) {
            Values::One(x) => vec![x != 0; keys],
            Values::Row(x) => x.into_iter().map(|x| x != 0).collect(),
        }
    }

    /// Whether heads, or batch entries, may differ.
    pub fn mentions_head(&self) -> bool {
        self.root.mentions(Name::H)
    }

    pub fn mentions_batch(&self) -> bool {
        self.root.mentions(Name::B)
    }
}

impl Part {
    fn value(&self, at: &At, j: i32) -> i32 {
        match self {
            Part::Number(x) => *x,
            Part::Name(Name::J) => j,
            Part::Name(name) => name.value(at),
            Part::Negative(x) => x.value(at, j).wrapping_neg(),
            Part::Absolute(x) => x.value(at, j).wrapping_abs(),
            Part::Not(x) => i32::from(x.value(at, j) == 0),
            Part::Two(operator, both) => operator.apply(both.0.value(at, j), both.1.value(at, j), at.seed),
        }
    }

    fn row(&self, at: &At, keys: usize) -> Values {
        match self {
            Part::Number(x) => Values::One(*x),
            Part::Name(Name::J) => Values::Row((0..keys as i32).collect()),
            Part::Name(name) => Values::One(name.value(at)),
            Part::Negative(x) => x.row(at, keys).map(i32::wrapping_neg),
            Part::Absolute(x) => x.row(at, keys).map(i32::wrapping_abs),
            Part::Not(x) => x.row(at, keys).map(|x| i32::from(x == 0)),
            Part::Two(operator, both) => {
                let (a, b) = (both.0.row(at, keys), both.1.row(at, keys));
                // Written out, so that each loop has one operation in it.
                match operator {
                    Operator::Add => a.with(b, i32::wrapping_add),
                    Operator::Subtract => a.with(b, i32::wrapping_sub),
                    Operator::Equal => a.with(b, |a, b| i32::from(a == b)),
                    Operator::Less => a.with(b, |a, b| i32::from(a < b)),
                    Operator::And => a.with(b, |a, b| a & b),
                    Operator::Or => a.with(b, |a, b| a | b),
                    other => a.with(b, |a, b| other.apply(a, b, at.seed)),
                }
            }
        }
    }

    fn mentions(&self, name: Name) -> bool {
        match self {
            Part::Number(_) => false,
            Part::Name(own) => *own == name,
            Part::Negative(x) | Part::Absolute(x) | Part::Not(x) => x.mentions(name),
            Part::Two(_, both) => both.0.mentions(name) || both.1.mentions(name),
        }
    }
}

impl Name {
    /// Of all names but `j`.
    fn value(self, at: &At) -> i32 {
        match self {
            Name::I => at.i,
            Name::N => at.n,
            Name::B => at.b,
            Name::H => at.h,
            Name::Causal => at.causal.into(),
            Name::J => 0,
        }
    }
}

impl Operator {
    fn apply(self, a: i32, b: i32, seed: u64) -> i32 {
        match self {
            Operator::Add => a.wrapping_add(b),
            Operator::Subtract => a.wrapping_sub(b),
            Operator::Multiply => a.wrapping_mul(b),
            Operator::Divide => a.checked_div(b).unwrap_or(0),
            Operator::Remainder => a.checked_rem(b).unwrap_or(0),
            Operator::Min => a.min(b),
            Operator::Max => a.max(b),
            Operator::Equal => (a == b).into(),
            Operator::Unequal => (a != b).into(),
            Operator::Less => (a < b).into(),
            Operator::AtMost => (a <= b).into(),
            Operator::Below => ((a as u32) < b as u32).into(),
            Operator::And => a & b,
            Operator::Or => a | b,
            Operator::Random => random(seed, a, b),
        }
    }
}

/// A number of a pair from the seed, uniform over 32 bits: the output function of SplitMix64 (Steele, Lea and Flood, 2014).
fn random(seed: u64, a: i32, b: i32) -> i32 {
    let mix = |x: u64| {
        let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    (mix(mix(seed) ^ (u64::from(a as u32) << 32 | u64::from(b as u32))) >> 32) as i32
}

impl Values {
    fn map(self, f: impl Fn(i32) -> i32) -> Self {
        match self {
            Values::One(x) => Values::One(f(x)),
            Values::Row(mut row) => {
                row.iter_mut().for_each(|x| *x = f(*x));
                Values::Row(row)
            }
        }
    }

    fn with(self, other: Self, f: impl Fn(i32, i32) -> i32) -> Self {
        match (self, other) {
            (Values::One(a), Values::One(b)) => Values::One(f(a, b)),
            (Values::One(a), Values::Row(row)) => Values::Row(row).map(|b| f(a, b)),
            (Values::Row(row), Values::One(b)) => Values::Row(row).map(|a| f(a, b)),
            (Values::Row(mut row), Values::Row(other)) => {
                row.iter_mut().zip(other).for_each(|(a, b)| *a = f(*a, b));
                Values::Row(row)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At { i: 40, n: 100, b: 1, h: 2, causal: true, seed: 7 };

    fn keys(text: &str) -> Vec<usize> {
        let rule = Expression::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let row = rule.row(&AT, 100);
        for (j, &allowed) in row.iter().enumerate() {
            assert_eq!(allowed, rule.allows(&AT, j as i32), "{text}, key {j}");
        }
        (0..100).filter(|&j| row[j]).collect()
    }

    #[test]
    fn rules_are_read_as_they_look() {
        assert_eq!(keys("abs(i - j) < 2 || j % 64 == 0"), [0, 39, 40, 41, 64]);
        assert_eq!(keys("j == 2 + 3 * 4"), [14]);
        assert_eq!(keys("j == (2 + 3) * 4 && !(i < j)"), [20]);
        assert_eq!(keys("j == 9 - 4 - 3"), [2]);
        assert_eq!(keys("j == -7 / 2 + 10 || j == -7 % 4 + 10"), [7]);
        assert_eq!(keys("j < min(i, 5) && max(j, 2) <= 3"), [0, 1, 2, 3]);
        assert_eq!(keys("i - 1 <= j && j != i && causal && i > j"), [39]);
        assert_eq!(keys("j == h * 10 + b && n >= 100"), [21]);
        assert_eq!(keys("j == 3 && 1 == 1 || j == 4 && 1 == 2"), [3]);
    }

    #[test]
    fn dividing_by_zero_gives_zero_and_numbers_wrap() {
        assert_eq!(keys("j / (i - i) == 0 && j % 0 == 0 && j < 2"), [0, 1]);
        assert_eq!(keys("j == 5 && 2147483647 + 1 < 0"), [5]);
        assert_eq!(keys("j == 5 && (0 - 2147483647 - 1) / (0 - 1) == 0"), [5]);
    }

    #[test]
    fn chance_keeps_its_share_and_its_seed() {
        let rule = Expression::parse("rand(i, j) < 0.25").unwrap();
        let count = |seed| -> usize {
            (0..100).map(|i| rule.row(&At { i, seed, ..AT }, 100).iter().filter(|&&x| x).count()).sum()
        };
        assert!((2300..2700).contains(&count(1)), "{}", count(1));
        assert_eq!(count(1), count(1));
        assert_ne!(rule.row(&AT, 100), rule.row(&At { seed: 8, ..AT }, 100));
        assert_eq!(keys("rand(i, j) < 1.0 && j < 3"), [0, 1, 2]);
        assert!(keys("rand(i, j) < 0.0").is_empty());
    }

    #[test]
    fn errors_name_the_column() {
        for (text, column, what) in [
            ("", 1, "expected"),
            ("i <", 4, "expected"),
            ("i < x", 5, "`x`"),
            ("i + j", 1, "true or false"),
            ("i < j < n", 7, "expected"),
            ("(i < j", 7, ")"),
            ("i < 99999999999", 5, "too large"),
            ("!i", 2, "true or false"),
            ("i < j && n", 10, "true or false"),
            ("rand(i, j) < 2", 14, "decimal"),
            ("rand(i, j) == 0.5", 12, "<"),
            ("abs(i, j) < 2", 6, ")"),
            ("i < 0.5", 5, "rand"),
            ("i # j", 3, "`#`"),
            ("é < j", 1, "`é`"),
        ] {
            let error = Expression::parse(text).expect_err(text);
            assert!(error.column == column && error.what.contains(what), "{text}: {error}");
        }
        let deep = format!("{}i{} < 1", "(".repeat(150), ")".repeat(150));
        assert!(Expression::parse(&deep).expect_err("deep").what.contains("deep"));
        assert!(Expression::parse(&"i<1||".repeat(200)).expect_err("long").what.contains("characters"));
        let parts = format!("{}1", "-".repeat(390));
        assert!(Expression::parse(&format!("{parts}<1")).is_err());
    }
}
