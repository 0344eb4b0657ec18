//! Layers of recurrent networks alone: what sequences were modelled with before transformers.
//!
//! A layer reads the layer below and gives its states: `h = RNN(x)`, an LSTM or a GRU, with one state of d numbers. Where every
//! token may see every other, two networks of d/2 read in both directions and their states are put side by side (Schuster and
//! Paliwal, 1997). Padding leaves the state as it is.
//!
//! A decoder that reads an encoder looks at it from each state and gives `y = tanh(W [h; c] + b)` of its state h and the context
//! c. With `bahdanau` as `cross` the scores are those of Bahdanau et al., 2015, arXiv:1409.0473. Differs from that paper, as Luong
//! et al., 2015, arXiv:1508.04025: the state of this step asks and not that of the step before, and the context goes up and
//! not into the chain, which would make the attention wait for it.

use super::config::Stack;
use super::layers::{Builder, Memory, Sequences};
use super::parameters::Beginning;
use crate::attention::recurrence;
use crate::graph::ops::recurrent::Cell;
use crate::graph::{Data, Dtype, Node, UnaryKind};

impl Builder<'_> {
    /// One plain layer, `[B N, d]` to `[B N, d]`.
    pub fn plain_layer(
        &mut self,
        name: &str,
        stack: Stack,
        layer: usize,
        x: Node,
        of: Sequences,
        memory: Option<Memory>,
    ) -> Node {
        let (config, d) = (self.config, self.config.d_model);
        let states = self.part(&format!("{name}.recurrent"), |b| {
            let name = format!("{name}.recurrent");
            if config.ways(stack) == 1 {
                return b.chain(&name, (stack, layer), x, of, false);
            }
            let onward = b.chain(&format!("{name}.onward"), (stack, layer), x, of, false);
            let back = b.chain(&format!("{name}.back"), (stack, layer), x, of, true);
            b.g.concat(&[onward, back], 1)
        });
        let Some(memory) = memory else { return self.dropout(states) };
        let seen = self.part(&format!("{name}.cross"), |b| {
            let name = format!("{name}.cross");
            let context = b.cross_attention(&name, (stack, layer), [states, memory.rows], of, memory.of);
            let both = b.g.concat(&[states, context], 1);
            let made = b.linear("project", &format!("{name}.combine"), both, [2 * d, d], false);
            b.g.unary(UnaryKind::Tanh, made)
        });
        self.dropout(seen)
    }

    /// The states of one network, `[B N, state]`; in reading order or against it.
    fn chain(
        &mut self,
        name: &str,
        (stack, layer): (Stack, usize),
        x: Node,
        Sequences { batch, length, real }: Sequences,
        back: bool,
    ) -> Node {
        let setup = self.config.setup(stack, layer, batch, length, self.seed);
        let (cell, forget) =
            recurrence::cell(self.config.mixer(stack, layer).variant(), &setup).expect("the configuration was checked");
        let (d, state) = (self.config.d_model, setup.dim);
        let gates = cell.gates() * state;
        // As is usual for all weights of these networks.
        let usual = Beginning::Uniform(1.0 / (state as f64).sqrt());
        let input = self.weight(&format!("{name}.input.weight"), &[d, gates], usual.clone());
        let bias = self.weight(&format!("{name}.input.bias"), &[gates], Beginning::Zeros);
        let of_state = self.weight(&format!("{name}.state.weight"), &[gates, state], usual);
        let inner = (cell == Cell::Gru).then(|| self.weight(&format!("{name}.state.bias"), &[state], Beginning::Zeros));
        let turned = |b: &mut Self, x: Node| if back { b.reversed(x, [batch, length]) } else { x };
        let projected = self.g.stage("project", |g| {
            let product = g.matmul(x, input);
            let bias = recurrence::with_forget_bias(g, bias, forget);
            g.add(product, bias)
        });
        let projected = turned(self, projected);
        let real = real.map(|real| {
            let column = self.g.reshape(real, &[batch * length, 1]);
            let column = self.g.cast(column, Dtype::F32);
            let column = turned(self, column);
            self.g.reshape(column, &[batch, length])
        });
        let states = self.g.stage("recur", |g| {
            let projected = g.reshape(projected, &[batch, 1, length, gates]);
            let of_state = g.reshape(of_state, &[1, gates, state]);
            let inner = inner.map(|b| g.reshape(b, &[1, state]));
            let states = g.recurrent(cell, projected, of_state, inner, real);
            g.reshape(states, &[batch * length, state])
        });
        turned(self, states)
    }

    /// Rows `[B N, n]` with the tokens of each sequence in the opposite order.
    fn reversed(&mut self, x: Node, [batch, length]: [usize; 2]) -> Node {
        let rows = (0..batch).flat_map(|b| (0..length).rev().map(move |i| (b * length + i) as u32)).collect();
        let index = self.g.constant(&[batch * length], Data::Index(rows));
        self.g.gather_rows(x, index)
    }
}
