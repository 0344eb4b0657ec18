//! What a method can and cannot do, in a few words, read off the registry.

use super::describe::extras;
use crate::attention::{Causal, Family, Params, Setup, Variant};
use crate::pattern::Rule;

/// What decides which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Every key has a share.
    All,
    /// Positions decide, before anything is read.
    Pattern,
    /// Queries and keys decide.
    Content,
}

/// The badges of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub causal: Causal,
    /// Whether it takes texts of any length.
    pub any_length: bool,
    pub exact: bool,
    pub seen: Seen,
    /// Whether it has tensors of its own that are learned.
    pub learned: bool,
}

/// Lengths that no usual block divides.
const ODD_LENGTHS: [usize; 5] = [1, 7, 63, 65, 257];

pub fn of(v: &Variant) -> Abilities {
    let setup = |length| Setup {
        batch: 1,
        heads: 2,
        length,
        keys: length,
        dim: 16,
        causal: v.causal == Causal::Always,
        params: Params::default(),
        seed: 1,
        structure: Default::default(),
    };
    let seen = match ((v.rule)(&setup(256)), v.family) {
        (None | Some(Rule::All { .. }), Family::LearnedPattern) => Seen::Content,
        (None | Some(Rule::All { .. }), _) => Seen::All,
        (Some(_), _) => Seen::Pattern,
    };
    Abilities {
        causal: v.causal,
        any_length: ODD_LENGTHS.iter().all(|&n| v.refusal(&setup(n), u64::MAX).is_none()),
        exact: v.exact,
        seen,
        learned: extras(v).iter().any(|(extra, _)| extra.differentiable && !extra.optional),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::find;

    #[test]
    fn badges_say_what_the_papers_say() {
        let of = |id| of(find(id).unwrap());
        assert_eq!((of("full").seen, of("full").exact, of("full").learned), (Seen::All, true, false));
        assert_eq!((of("sliding_window").seen, of("bigbird").seen), (Seen::Pattern, Seen::Pattern));
        assert_eq!(
            (of("reformer").seen, of("routing").seen, of("entmax").seen),
            (Seen::Content, Seen::Content, Seen::Content)
        );
        assert!(of("linformer").learned && of("bahdanau").learned && !of("linear").learned);
        assert!(crate::attention::ALL.iter().all(|v| super::of(v).any_length));
    }
}
