//! From a variant and a setup to a whole graph with named inputs and outputs.

use super::{Decision, Effective, Extra, Inputs, Setup, Variant};
use crate::gpu::Category;
use crate::graph::{Data, Dtype, Graph, TensorType, grad};
use crate::sort::IntoMap;
use std::collections::BTreeMap;

/// What a graph should compute besides `out`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Gradients: reads `g` of the output's shape; gives `dq`, `dk`, `dv` and `d<name>` for each differentiable extra tensor.
    pub grad: bool,
    /// The method's own loss, where it has one: gives `loss` `[1]`. With gradients also reads `g_loss` `[1]`, and they are those of
    /// `sum(out · g) + loss · g_loss`.
    pub loss: bool,
    /// Factors of the effective matrix: gives `effective_left`, `effective_right` and, where there is one, `effective_row`.
    pub effective: bool,
    /// Reads `key_padding`, u32 `[B, M]`, 1 = real.
    pub key_padding: bool,
    /// Reads the extra tensors that are optional.
    pub optional: bool,
    /// What the method decides about the text: gives `decided_<name>` for each [`Decision`].
    pub decisions: bool,
}

/// A graph, and what its outputs mean.
pub struct Built {
    pub graph: Graph,
    /// Where it was asked for and there is one.
    pub effective: Option<Effective>,
    /// None where they were not asked for, or where the method decides nothing.
    pub decisions: Vec<Decision>,
}

impl Variant {
    /// The graph of one call, with inputs `q`, `k`, `v` and each extra tensor under its name, output `out` `[B, H, N, D]`, and
    /// what `request` adds; the effective matrix where it was asked for and there is one.
    ///
    /// # Panics
    /// Where [`Variant::refusal`] says no: ask it first.
    pub fn build(&self, s: &Setup, request: Request) -> (Graph, Option<Effective>) {
        let Built { graph, effective, .. } = self.build_all(s, request);
        (graph, effective)
    }

    /// [`Variant::build`], with the method's decisions.
    ///
    /// # Panics
    /// Where [`Variant::refusal`] says no: ask it first.
    pub fn build_all(&self, s: &Setup, request: Request) -> Built {
        let mut g = Graph::new();
        let queries = TensorType::f32(&[s.batch, s.heads, s.length, s.dim]);
        let keys = TensorType::f32(&[s.batch, s.heads, s.keys, s.dim]);
        let extras = self.extras_read(s, request);
        let x = Inputs {
            q: g.input("q", queries.clone(), Category::Activations),
            k: g.input("k", keys.clone(), Category::Activations),
            v: g.input("v", keys, Category::Activations),
            key_padding: request
                .key_padding
                .then(|| g.input("key_padding", TensorType::u32(&[s.batch, s.keys]), Category::Activations)),
            extras: extras
                .iter()
                .map(|e| (e.name, g.input(e.name, TensorType::f32(&e.shape), Category::Parameters)))
                .into_map(),
        };
        let out = (self.graph)(&mut g, &x, s);
        g.output("out", out);
        let loss = self.loss.filter(|_| request.loss).map(|own| g.stage("loss", |g| (own.graph)(g, &x, s)));
        if let Some(loss) = loss {
            g.output("loss", loss);
        }
        if request.grad {
            let seed = g.input("g", queries, Category::Activations);
            let mut wanted = vec![("dq".to_owned(), x.q), ("dk".to_owned(), x.k), ("dv".to_owned(), x.v)];
            let differentiable = extras.iter().filter(|e| e.differentiable);
            wanted.extend(differentiable.map(|e| (format!("d{}", e.name), x.extras[e.name])));
            let nodes: Vec<_> = wanted.iter().map(|(_, node)| *node).collect();
            let mut seeds = vec![(out, seed)];
            if let Some(loss) = loss {
                seeds.push((loss, g.input("g_loss", TensorType::f32(&[1]), Category::Activations)));
            }
            let gradients = g.category(Category::Gradients, |g| grad::gradients(g, &seeds, &nodes));
            for ((name, node), gradient) in wanted.iter().zip(gradients) {
                let shape = g.shape(*node).to_vec();
                let gradient =
                    gradient.unwrap_or_else(|| g.constant(&shape, Data::Real(vec![0.0; shape.iter().product()])));
                g.output(name, gradient);
            }
        }
        let effective = (request.effective && self.no_matrix().is_none()).then(|| {
            // Mostly of what the output was made of: the log-sum-exp, the features, the projected keys.
            let effective = g.reusing(|g| g.stage("effective", |g| (self.effective)(g, &x, s)));
            g.output("effective_left", effective.left);
            g.output("effective_right", effective.right);
            if let Some(row) = effective.row {
                g.output("effective_row", row);
            }
            effective
        });
        let mut decisions = Vec::new();
        if let Some(decide) = self.decide.filter(|_| request.decisions) {
            decisions = g.reusing(|g| g.stage("effective", |g| decide(g, &x, s)));
            decisions.iter().for_each(|d| g.output(&format!("decided_{}", d.name), d.node));
        }
        Built { graph: g, effective, decisions }
    }

    /// Extra tensors of this setup, drawn from its seed, without the optional ones.
    pub fn drawn(&self, s: &Setup) -> BTreeMap<&'static str, Vec<f32>> {
        self.extras_read(s, Request::default()).iter().map(|e| (e.name, e.draw(s.seed))).into_map()
    }

    /// The same for a setup of one head of `whole`, and of its first text: what belongs to other heads is left out. Axes that
    /// are shorter there are those of texts and heads, in this order.
    pub fn drawn_of_head(&self, whole: &Setup, single: &Setup, head: usize) -> BTreeMap<&'static str, Vec<f32>> {
        let of_one = self.extras_read(single, Request::default());
        let cut = |(all, one): (Extra, Extra)| {
            let mut values = all.draw(whole.seed);
            let axes: Vec<usize> = (0..all.shape.len()).filter(|&axis| all.shape[axis] != one.shape[axis]).collect();
            for &axis in axes.iter().rev() {
                let index = if Some(&axis) == axes.last() { head } else { 0 };
                // What lies further in has been cut already.
                let inner: usize = one.shape[axis + 1..].iter().product();
                let (wide, narrow) = (all.shape[axis] * inner, one.shape[axis] * inner);
                values = values.chunks(wide).flat_map(|part| &part[index * narrow..][..narrow]).copied().collect();
            }
            (all.name, values)
        };
        self.extras_read(whole, Request::default()).into_iter().zip(of_one).map(cut).into_map()
    }

    /// Extra tensors that a graph reads.
    pub fn extras_read(&self, s: &Setup, request: Request) -> Vec<Extra> {
        let is_read = |e: &Extra| !e.is_structure() && (!e.optional || request.optional);
        (self.extras)(s).into_iter().filter(is_read).collect()
    }

    /// Types of the tensors that [`Variant::build`]'s graph reads, by name.
    pub fn input_types(&self, s: &Setup, request: Request) -> BTreeMap<String, TensorType> {
        let rows = |n: usize| TensorType::f32(&[s.batch, s.heads, n, s.dim]);
        let mut types = BTreeMap::new();
        types.insert("q".to_owned(), rows(s.length));
        types.extend(["k", "v"].map(|name| (name.to_owned(), rows(s.keys))));
        if request.grad {
            types.insert("g".into(), rows(s.length));
            if request.loss && self.loss.is_some() {
                types.insert("g_loss".into(), TensorType::f32(&[1]));
            }
        }
        if request.key_padding {
            let ty = TensorType { dtype: Dtype::U32, shape: vec![s.batch, s.keys] };
            types.insert("key_padding".into(), ty);
        }
        types.extend(self.extras_read(s, request).into_iter().map(|e| (e.name.to_owned(), TensorType::f32(&e.shape))));
        types
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{ALL, Causal, Params, Structure};
    use crate::graph::Kind;

    #[test]
    fn the_effective_matrix_computes_nothing_a_second_time() {
        for variant in ALL {
            let params = Params::default();
            let s = Setup {
                batch: 1,
                heads: 2,
                length: 70,
                keys: 70,
                dim: 8,
                causal: false,
                params,
                seed: 1,
                structure: Default::default(),
            };
            let (graph, _) = variant.build(&s, Request { effective: true, decisions: true, ..Request::default() });
            let entries = graph.entries();
            for (at, a) in entries.iter().enumerate() {
                let twin = entries[..at].iter().any(|b| match (&a.kind, &b.kind) {
                    (Kind::Op(a_op), Kind::Op(b_op)) => a.inputs == b.inputs && a_op.same_as(&**b_op),
                    _ => false,
                });
                assert!(!twin, "{}: {:?} stands there twice", variant.id, a.kind);
            }
        }
    }

    #[test]
    fn what_is_drawn_for_one_head_is_that_head_s_part() {
        let whole = |variant: &Variant| Setup {
            batch: 2,
            heads: 3,
            length: 24,
            keys: 24,
            dim: 4,
            causal: matches!(variant.causal, Causal::Always),
            params: Params::default(),
            seed: 5,
            structure: Structure::default(),
        };
        let mut by_head = 0;
        for variant in ALL {
            let whole = whole(variant);
            let one = Setup { batch: 1, heads: 1, ..whole.clone() };
            let all = variant.drawn(&whole);
            for extra in variant.extras_read(&one, Request::default()) {
                let parts: Vec<Vec<f32>> =
                    (0..3).map(|head| variant.drawn_of_head(&whole, &one, head)[extra.name].clone()).collect();
                let size: usize = extra.shape.iter().product();
                assert!(parts.iter().all(|part| part.len() == size), "{} {}", variant.id, extra.name);
                let values = &all[extra.name];
                if values.len() == 3 * size {
                    // Heads come first in all of these.
                    assert_eq!(parts.concat(), *values, "{} {}", variant.id, extra.name);
                    by_head += 1;
                } else if values.len() == size {
                    assert!(parts.iter().all(|part| part == values), "{} {}", variant.id, extra.name);
                }
            }
        }
        assert!(by_head > 3, "{by_head} tensors have a part for each head");
    }
}
