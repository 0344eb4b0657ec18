//! What a method decides about the text at hand, apart from the weights: buckets, orders, members, chosen blocks, landmarks,
//! memories, spans. Each is a small tensor that the method's own graph makes on its way to the output.

use super::{Inputs, Setup};
use crate::graph::{Data, Graph, Node};
use serde::{Deserialize, Serialize};

/// How the numbers of a decision are to be read, row by row. A whole number that is not below what is counted stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case")]
pub enum Form {
    /// Of each token a label below `count`: `[rows, N]`.
    Labels { count: usize, of: Of },
    /// The token at each place of an order, `[rows, N]`, which is cut into chunks of so many places.
    Order { chunk: usize },
    /// What each row took, `[rows, w]`: numbers below `count` of blocks of `tokens` tokens. A row speaks for `row_tokens` queries,
    /// or, where that is 0, for something that is no token.
    Members { count: usize, tokens: usize, row_tokens: usize, of: Of },
    /// How much of each block of `tokens` keys a row takes, `[rows, blocks]`, from 0 to 1; a row speaks for so many queries.
    Shares { tokens: usize, row_tokens: usize },
    /// Tokens where one span ends and the next begins, `[rows, spans + 1]`; a row speaks for the tokens of its last span.
    Spans,
    /// Lengths in tokens or other units, `[rows, lengths]`, each row laid end to end.
    Lengths,
}

/// Which tokens a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    Queries,
    Keys,
    /// Queries and keys at once.
    Tokens,
}

/// One thing that a method decides.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Also the key of its texts: `decided.<variant>.<name>`.
    pub name: &'static str,
    pub form: Form,
    /// f32 `[B or 1, H or 1, rows, columns]`.
    pub node: Node,
}

/// Builds the decisions of one call, mostly of nodes that the output was made of.
pub type Decide = fn(&mut Graph, &Inputs<Node>, &Setup) -> Vec<Decision>;

impl Decision {
    /// `node` of any type with the shape of [`Decision::node`].
    pub(super) fn new(g: &mut Graph, name: &'static str, form: Form, node: Node) -> Self {
        assert_eq!(g.shape(node).len(), 4, "{name} is [B, H, rows, columns]");
        Self { name, form, node: g.cast(node, crate::graph::Dtype::F32) }
    }

    /// What is known without any data: `values` `[heads, rows, columns]`.
    pub(super) fn known(
        g: &mut Graph,
        name: &'static str,
        form: Form,
        [heads, rows, columns]: [usize; 3],
        values: impl IntoIterator<Item = usize>,
    ) -> Self {
        let values = values.into_iter().map(|x| x as f32).collect();
        Self { name, form, node: g.constant(&[1, heads, rows, columns], Data::Real(values)) }
    }
}
