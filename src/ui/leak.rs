//! Why a method has no causal form, as a drawing: the way of a later token into an earlier output, among all ways there are.

/// Tokens of the drawing.
pub const TOKENS: usize = 8;

/// How outputs come by tokens, for eight of them.
pub struct Way {
    /// What lies between tokens and outputs, by its key in the texts; nothing where outputs look at tokens themselves.
    pub between: Option<&'static str>,
    /// How many of these there are.
    pub count: usize,
    /// Whether token `j` goes into the `m`-th of them; without any between, `m` is the output.
    pub into: fn(j: usize, m: usize) -> bool,
    /// Whether output `i` is made of the `m`-th of them.
    pub out: fn(m: usize, i: usize) -> bool,
    /// The later token and the earlier output.
    pub future: usize,
    pub early: usize,
}

/// The way that a variant's drawing shows, where there is one.
pub fn way_of(id: &str) -> Option<Way> {
    let all = |_, _| true;
    Some(match id {
        "linformer" => Way { between: Some("leak.projected"), count: 3, into: all, out: all, future: 6, early: 1 },
        "nystromformer" => {
            Way { between: Some("leak.landmarks"), count: 4, into: |j, m| j / 2 == m, out: all, future: 6, early: 1 }
        }
        "funnel" => Way {
            between: Some("leak.pools"),
            count: 2,
            into: |j, m| j / 4 == m,
            out: |m, i| i / 4 == m,
            future: 3,
            early: 0,
        },
        "clustered" => Way {
            between: Some("leak.groups"),
            count: 2,
            into: |j, m| j % 3 % 2 == m,
            out: |m, i| i % 3 % 2 == m,
            future: 6,
            early: 2,
        },
        "star" => Way { between: Some("leak.relay"), count: 1, into: all, out: all, future: 6, early: 1 },
        "blockbert" => Way {
            between: None,
            count: TOKENS,
            into: |j, i| (i / 2 + 1) % 4 == j / 2,
            out: |_, _| false,
            future: 3,
            early: 1,
        },
        "bigbird" => Way {
            between: None,
            count: TOKENS,
            into: |j, i| (i / 2).abs_diff(j / 2) <= 1 || j >= 6,
            out: |_, _| false,
            future: 6,
            early: 1,
        },
        _ => return None,
    })
}

/// Where the `m`-th thing between stands.
pub fn middle(way: &Way, m: usize) -> usize {
    69 + (2 * m + 1) * 210 / (2 * way.count)
}

/// Whether the later token reaches the earlier output through the `m`-th thing between.
pub fn passes(way: &Way, m: usize) -> bool {
    (way.into)(way.future, m) && (way.out)(m, way.early)
}

/// All ways, and among them those from the later token to the earlier output.
pub fn paths(way: &Way) -> (String, String) {
    let (mut faint, mut loud) = (String::new(), String::new());
    let x = |i: usize| 69 + 30 * i;
    let mut line = |x1: usize, y1: usize, x2: usize, y2: usize, hit: bool| {
        *(if hit { &mut loud } else { &mut faint }) += &format!("M{x1} {y1}L{x2} {y2}");
    };
    for a in 0..TOKENS {
        for m in 0..way.count {
            match way.between {
                Some(_) => {
                    if (way.into)(a, m) {
                        line(x(a), 34, middle(way, m), 72, a == way.future && passes(way, m));
                    }
                    if (way.out)(m, a) {
                        line(middle(way, m), 88, x(a), 132, a == way.early && passes(way, m));
                    }
                }
                None if (way.into)(a, m) => line(x(a), 34, x(m), 132, (a, m) == (way.future, way.early)),
                None => {}
            }
        }
    }
    (faint, loud)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{ALL, Causal};

    #[test]
    fn every_method_without_a_causal_form_has_a_leak_that_leads_back() {
        for variant in ALL {
            let way = way_of(variant.id);
            if let Causal::Never(_) = variant.causal {
                let way = way.unwrap_or_else(|| panic!("{} has no drawing", variant.id));
                assert!(way.future > way.early);
                let (_, loud) = paths(&way);
                assert!(
                    loud.starts_with('M'),
                    "{}: nothing leads from the later token to the earlier output",
                    variant.id
                );
            }
        }
    }
}
