//! From text to tree, by recursive descent. Weakest first: `||`, `&&`, one comparison, `+ -`, `* / %`, signs and `!`.

use super::{Expression, ExpressionError, MAX_CHARS, MAX_PARTS, Name, Operator, Part};

/// How deep parts may lie in each other.
const MAX_DEPTH: usize = 100;

/// What a part's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Truth,
    /// Between 0 and 1: what `rand` gives and is compared with.
    Share,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(i32),
    Decimal(f64),
    Word(String),
    Sign(&'static str),
    End,
}

/// Longer signs before their beginnings.
const SIGNS: [&str; 17] = ["||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "(", ")", ","];

struct Parser {
    /// Tokens and their columns; the last is the end.
    tokens: Vec<(Token, usize)>,
    at: usize,
    parts: usize,
    depth: usize,
}

type Parsed = Result<(Part, Kind), ExpressionError>;

fn error<T>(column: usize, what: impl Into<String>) -> Result<T, ExpressionError> {
    Err(ExpressionError { column, what: what.into() })
}

pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
    if text.chars().count() > MAX_CHARS {
        return error(MAX_CHARS + 1, format!("a rule has at most {MAX_CHARS} characters"));
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, parts: 0, depth: 0 };
    let (root, kind) = parser.either()?;
    if parser.token() != &Token::End {
        return error(parser.column(), "the end, && or || was expected");
    }
    parser.must_be(Kind::Truth, kind, 1)?;
    Ok(Expression { root, parts: parser.parts })
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, ExpressionError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let column = at + 1;
        let run = |from: usize, f: fn(char) -> bool| from + chars[from..].iter().take_while(|&&c| f(c)).count();
        if chars[at].is_whitespace() {
            at += 1;
        } else if chars[at].is_ascii_digit() {
            let end = run(at, |c| c.is_ascii_digit() || c == '.');
            let word: String = chars[at..end].iter().collect();
            let token = if word.contains('.') {
                word.parse().ok().map(Token::Decimal)
            } else {
                word.parse().ok().map(Token::Number)
            };
            let Some(token) = token else { return error(column, format!("{word} is too large, or no number")) };
            tokens.push((token, column));
            at = end;
        } else if chars[at].is_ascii_alphabetic() {
            let end = run(at, |c| c.is_ascii_alphanumeric() || c == '_');
            tokens.push((Token::Word(chars[at..end].iter().collect()), column));
            at = end;
        } else {
            let begins = |sign: &&&str| sign.chars().enumerate().all(|(k, c)| chars.get(at + k) == Some(&c));
            let Some(sign) = SIGNS.iter().find(begins) else {
                return error(column, format!("`{}` means nothing here", chars[at]));
            };
            tokens.push((Token::Sign(sign), column));
            at += sign.len();
        }
    }
    tokens.push((Token::End, chars.len() + 1));
    Ok(tokens)
}

impl Parser {
    fn token(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn column(&self) -> usize {
        self.tokens[self.at].1
    }

    /// Passes over one of these signs.
    fn take(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        let Token::Sign(sign) = *self.token() else { return None };
        let found = signs.contains(&sign);
        self.at += usize::from(found);
        found.then_some(sign)
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), ExpressionError> {
        match self.take(&[sign]) {
            Some(_) => Ok(()),
            None => error(self.column(), format!("{sign} was expected")),
        }
    }

    fn must_be(&self, wanted: Kind, kind: Kind, column: usize) -> Result<(), ExpressionError> {
        let what = match (wanted, kind) {
            _ if wanted == kind => return Ok(()),
            (_, Kind::Share) => "rand(x, y) and decimals are only compared with each other, as in rand(i, j) < 0.1",
            (Kind::Truth, _) => "this must be true or false, as a comparison is",
            _ => "this must be a number",
        };
        error(column, what)
    }

    /// Counts a part of the tree.
    fn part(&mut self, part: Part, kind: Kind) -> Parsed {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return error(self.column(), format!("a rule has at most {MAX_PARTS} parts"));
        }
        Ok((part, kind))
    }

    fn two(&mut self, operator: Operator, a: Part, b: Part, kind: Kind) -> Parsed {
        self.part(Part::Two(operator, Box::new((a, b))), kind)
    }

    fn either(&mut self) -> Parsed {
        self.logical("||", Operator::Or, |p| p.logical("&&", Operator::And, Self::comparison))
    }

    fn logical(&mut self, sign: &'static str, operator: Operator, mut side: impl FnMut(&mut Self) -> Parsed) -> Parsed {
        let mut column = self.column();
        let (mut left, mut kind) = side(self)?;
        while self.take(&[sign]).is_some() {
            self.must_be(Kind::Truth, kind, column)?;
            column = self.column();
            let (right, right_kind) = side(self)?;
            self.must_be(Kind::Truth, right_kind, column)?;
            (left, kind) = self.two(operator, left, right, Kind::Truth)?;
        }
        Ok((left, kind))
    }

    fn comparison(&mut self) -> Parsed {
        let left_column = self.column();
        let (left, kind) = self.sum()?;
        let sign_column = self.column();
        let Some(sign) = self.take(&["==", "!=", "<=", ">=", "<", ">"]) else { return Ok((left, kind)) };
        let column = self.column();
        if kind == Kind::Share {
            if sign != "<" {
                return error(sign_column, "rand(x, y) is compared by < alone");
            }
            return match *self.token() {
                Token::Decimal(share) if (0.0..=1.0).contains(&share) => {
                    self.at += 1;
                    // All 32 bits set leave out one number in four billion.
                    let bound = (share * 4_294_967_296.0).min(4_294_967_295.0) as u32;
                    let (bound, _) = self.part(Part::Number(bound as i32), Kind::Share)?;
                    self.two(Operator::Below, left, bound, Kind::Truth)
                }
                _ => error(column, "a decimal from 0.0 to 1.0 was expected"),
            };
        }
        let (right, right_kind) = self.sum()?;
        self.must_be(Kind::Number, kind, left_column)?;
        self.must_be(Kind::Number, right_kind, column)?;
        let (operator, swapped) = match sign {
            "==" => (Operator::Equal, false),
            "!=" => (Operator::Unequal, false),
            "<" => (Operator::Less, false),
            ">" => (Operator::Less, true),
            "<=" => (Operator::AtMost, false),
            _ => (Operator::AtMost, true),
        };
        let (left, right) = if swapped { (right, left) } else { (left, right) };
        self.two(operator, left, right, Kind::Truth)
    }

    fn sum(&mut self) -> Parsed {
        self.chain(&["+", "-"], Self::product)
    }

    fn product(&mut self) -> Parsed {
        self.chain(&["*", "/", "%"], Self::signed)
    }

    /// Operators of one strength, from left to right.
    fn chain(&mut self, signs: &[&'static str], side: fn(&mut Self) -> Parsed) -> Parsed {
        let mut column = self.column();
        let (mut left, mut kind) = side(self)?;
        while let Some(sign) = self.take(signs) {
            self.must_be(Kind::Number, kind, column)?;
            column = self.column();
            let (right, right_kind) = side(self)?;
            self.must_be(Kind::Number, right_kind, column)?;
            let operator = match sign {
                "+" => Operator::Add,
                "-" => Operator::Subtract,
                "*" => Operator::Multiply,
                "/" => Operator::Divide,
                _ => Operator::Remainder,
            };
            (left, kind) = self.two(operator, left, right, Kind::Number)?;
        }
        Ok((left, kind))
    }

    fn signed(&mut self) -> Parsed {
        if self.depth == MAX_DEPTH {
            return error(self.column(), format!("parts lie more than {MAX_DEPTH} deep in each other"));
        }
        self.depth += 1;
        let result = match self.take(&["-", "!"]) {
            Some(sign) => {
                let column = self.column();
                let (part, kind) = self.signed()?;
                if sign == "-" {
                    self.must_be(Kind::Number, kind, column)?;
                    self.part(Part::Negative(Box::new(part)), kind)
                } else {
                    self.must_be(Kind::Truth, kind, column)?;
                    self.part(Part::Not(Box::new(part)), kind)
                }
            }
            None => self.single(),
        };
        self.depth -= 1;
        result
    }

    fn single(&mut self) -> Parsed {
        let column = self.column();
        let token = self.token().clone();
        if token != Token::End {
            self.at += 1;
        }
        match token {
            Token::Number(x) => self.part(Part::Number(x), Kind::Number),
            Token::Decimal(_) => error(column, "a decimal is only compared with rand(x, y)"),
            Token::Sign("(") => {
                let inner = self.either()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Word(word) => self.word(&word, column),
            _ => error(column, "a number, a name or ( was expected"),
        }
    }

    fn word(&mut self, word: &str, column: usize) -> Parsed {
        let name = match word {
            "i" => Name::I,
            "j" => Name::J,
            "n" => Name::N,
            "b" => Name::B,
            "h" => Name::H,
            "causal" => return self.part(Part::Name(Name::Causal), Kind::Truth),
            "abs" => {
                self.expect("(")?;
                let inner = self.argument()?;
                self.expect(")")?;
                return self.part(Part::Absolute(Box::new(inner)), Kind::Number);
            }
            "min" | "max" | "rand" => {
                self.expect("(")?;
                let first = self.argument()?;
                self.expect(",")?;
                let second = self.argument()?;
                self.expect(")")?;
                let (operator, kind) = match word {
                    "min" => (Operator::Min, Kind::Number),
                    "max" => (Operator::Max, Kind::Number),
                    _ => (Operator::Random, Kind::Share),
                };
                return self.two(operator, first, second, kind);
            }
            _ => {
                let known = "i, j, n, b, h, causal, abs, min, max and rand";
                return error(column, format!("`{word}` is not known; there are {known}"));
            }
        };
        self.part(Part::Name(name), Kind::Number)
    }

    fn argument(&mut self) -> Result<Part, ExpressionError> {
        let column = self.column();
        let (part, kind) = self.sum()?;
        self.must_be(Kind::Number, kind, column)?;
        Ok(part)
    }
}
