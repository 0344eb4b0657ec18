//! One static graph of tensor ops, two interpreters.
//!
//! A [`Graph`] is built by plain functions; shapes are known as it is built. `grad` adds the reverse-mode gradient to it,
//! `plan` turns it into a [`crate::gpu::Program`], `cpu` evaluates it in f32 or f64. An op is declared in one place, by
//! implementing [`Op`] in a file of its own under `ops/`.

mod chains;
pub mod cpu;
pub mod fuse;
pub mod grad;
pub mod layout;
pub mod op;
pub mod ops;
pub mod plan;
pub mod real;
pub mod rng;
mod types;

pub use op::{Cost, Dispatch, GradContext, LowerContext, Lowered, Op, Slot, Tunable};
pub use ops::binary::BinaryKind;
pub use ops::cross_entropy::IGNORED;
pub use ops::random::Distribution;
pub use ops::unary::UnaryKind;
pub use real::{Float, Matrix, Real};
pub use types::{Data, Dtype, ShapeError, TensorType};

use crate::gpu::Category;
use std::rc::Rc;

/// One output of one entry of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    pub entry: u32,
    pub port: u32,
}

/// What an entry computes or holds.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Given from outside before a run, by name.
    Input { name: String },
    /// Known when the graph is built (block lists, scales).
    Constant(Rc<Data<f32>>),
    /// Computed from other nodes.
    Op(Rc<dyn Op>),
}

/// An entry of the graph: an op with its inputs, output types, stage and memory category.
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: Kind,
    pub inputs: Vec<Node>,
    pub types: Vec<TensorType>,
    /// Index into [`Graph::stages`].
    pub stage: usize,
    /// Index into [`Graph::parts`].
    pub part: usize,
    pub category: Category,
}

/// A static graph of tensor ops, in topological order of creation.
#[derive(Clone, Debug)]
pub struct Graph {
    entries: Vec<Entry>,
    stages: Vec<String>,
    stage: usize,
    parts: Vec<String>,
    part: usize,
    category: Category,
    outputs: Vec<(String, Node)>,
    updates: Vec<(Node, Node)>,
    reuses: bool,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            stages: vec![String::new()],
            stage: 0,
            parts: vec![String::new()],
            part: 0,
            category: Category::Activations,
            outputs: Vec::new(),
            updates: Vec::new(),
            reuses: false,
        }
    }
}

impl Graph {
    pub fn new() -> Self {
        Self::default()
    }

    /// A tensor given from outside by name, an activation unless told otherwise.
    pub fn input(&mut self, name: &str, ty: TensorType, category: Category) -> Node {
        self.push(Kind::Input { name: name.into() }, vec![], vec![ty], category)
    }

    /// A tensor known now. Counted as workspace.
    pub fn constant(&mut self, shape: &[usize], data: Data<f32>) -> Node {
        let dtype = match &data {
            Data::Real(_) => Dtype::F32,
            Data::Index(_) => Dtype::U32,
        };
        assert_eq!(shape.iter().product::<usize>(), data.len(), "constant's data must fill its shape");
        let ty = TensorType { dtype, shape: shape.into() };
        let same = |e: &Entry| matches!(&e.kind, Kind::Constant(have) if **have == data) && e.types[0] == ty;
        if let Some(entry) = self.already(same) {
            return Node { entry, port: 0 };
        }
        self.push(Kind::Constant(Rc::new(data)), vec![], vec![ty], Category::Workspace)
    }

    /// Adds an op; all its outputs, in order.
    ///
    /// # Panics
    /// When the shapes do not fit: what a visitor may get wrong is checked before a graph is built.
    pub fn apply(&mut self, op: impl Op, inputs: &[Node]) -> Vec<Node> {
        self.apply_rc(Rc::new(op), inputs)
    }

    /// Adds an op with one output.
    pub fn apply1(&mut self, op: impl Op, inputs: &[Node]) -> Node {
        let outputs = self.apply(op, inputs);
        assert_eq!(outputs.len(), 1, "apply1 is for ops with one output");
        outputs[0]
    }

    pub(crate) fn apply_rc(&mut self, op: Rc<dyn Op>, inputs: &[Node]) -> Vec<Node> {
        let same = |e: &Entry| matches!(&e.kind, Kind::Op(have) if e.inputs == inputs && have.same_as(&*op));
        if let Some(entry) = self.already(same) {
            return (0..self.entries[entry as usize].types.len() as u32).map(|port| Node { entry, port }).collect();
        }
        let types: Vec<&TensorType> = inputs.iter().map(|&n| self.ty(n)).collect();
        let out = match op.infer(&types) {
            Ok(out) => out,
            Err(e) => panic!("{}: {e}", op.name()),
        };
        let ports = out.len() as u32;
        let first = self.push(Kind::Op(op), inputs.to_vec(), out, self.category);
        (0..ports).map(|port| Node { entry: first.entry, port }).collect()
    }

    /// What `build` adds and the graph has already, the same op on the same inputs or the same constant, is taken from where
    /// it is. Elsewhere an op is added as often as it is asked for: computing a thing twice can save memory.
    pub fn reusing<T>(&mut self, build: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.reuses, true);
        let result = build(self);
        self.reuses = before;
        result
    }

    fn already(&self, same: impl Fn(&Entry) -> bool) -> Option<u32> {
        let found = self.reuses.then(|| self.entries.iter().position(same)).flatten();
        found.map(|entry| entry as u32)
    }

    fn push(&mut self, kind: Kind, inputs: Vec<Node>, types: Vec<TensorType>, category: Category) -> Node {
        let entry = self.entries.len() as u32;
        self.entries.push(Entry { kind, inputs, types, stage: self.stage, part: self.part, category });
        Node { entry, port: 0 }
    }

    /// Labels everything built inside `build`; stages are timed apart. The innermost label counts.
    pub fn stage<T>(&mut self, label: &str, build: impl FnOnce(&mut Self) -> T) -> T {
        let index = self.stages.iter().position(|s| s == label).unwrap_or_else(|| {
            self.stages.push(label.into());
            self.stages.len() - 1
        });
        let before = std::mem::replace(&mut self.stage, index);
        let result = build(self);
        self.stage = before;
        result
    }

    /// Says to which part of a model everything built inside `build` belongs, e.g. `layers.0.attention`; the innermost counts.
    /// Gradients belong to the part of what they are gradients of.
    pub fn part<T>(&mut self, label: &str, build: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.enter_part(label);
        let result = build(self);
        self.part = before;
        result
    }

    /// From here on everything belongs to a part; the one before, for [`Graph::set_part`].
    pub(crate) fn enter_part(&mut self, label: &str) -> usize {
        let index = self.parts.iter().position(|p| p == label).unwrap_or_else(|| {
            self.parts.push(label.into());
            self.parts.len() - 1
        });
        self.set_part(index)
    }

    /// Goes to a part by its index; the one before.
    pub(crate) fn set_part(&mut self, index: usize) -> usize {
        std::mem::replace(&mut self.part, index)
    }

    /// Counts everything built inside `build` under `category`.
    pub fn category<T>(&mut self, category: Category, build: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.category, category);
        let result = build(self);
        self.category = before;
        result
    }

    /// Names a node as a result: it is kept alive to the end and can be read.
    pub fn output(&mut self, name: &str, node: Node) {
        self.outputs.push((name.into(), node));
    }

    pub fn outputs(&self) -> &[(String, Node)] {
        &self.outputs
    }

    /// From one run to the next, `input` becomes `value`: state that stays where it is, as weights do in training. A plan writes
    /// the value over the input where the op that makes it can, and copies it at the end where it can't; the CPU interpreter
    /// hands it back ([`cpu::Run::finish_updated`]).
    ///
    /// # Panics
    /// When `input` is no input or is updated already, when the value is not computed or of another type.
    pub fn update(&mut self, input: Node, value: Node) {
        assert!(matches!(self.entry(input).kind, Kind::Input { .. }), "update: what changes is an input");
        assert!(matches!(self.entry(self.root(value)).kind, Kind::Op(_)), "update: the value is computed");
        assert!(self.updates.iter().all(|(other, _)| *other != input), "update: one value for each input");
        assert_eq!(self.ty(input), self.ty(value), "update: the type stays");
        self.updates.push((input, value));
    }

    /// Drops every [`Graph::update`]: a run then changes nothing.
    pub fn without_updates(mut self) -> Self {
        self.updates.clear();
        self
    }

    /// Pairs (input, value) of [`Graph::update`].
    pub fn updates(&self) -> &[(Node, Node)] {
        &self.updates
    }

    /// For each entry whether it is one of `nodes` or they depend on it.
    pub fn ancestors(&self, nodes: impl IntoIterator<Item = Node>) -> Vec<bool> {
        let mut found = vec![false; self.entries.len()];
        for node in nodes {
            found[node.entry as usize] = true;
        }
        for index in (0..found.len()).rev() {
            if found[index] {
                for input in &self.entries[index].inputs {
                    found[input.entry as usize] = true;
                }
            }
        }
        found
    }

    /// The node that owns a node's memory: itself, or what it is a view of.
    fn root(&self, mut node: Node) -> Node {
        while let Kind::Op(op) = &self.entry(node).kind
            && op.is_view()
        {
            node = self.entry(node).inputs[0];
        }
        node
    }

    /// Counts the memory of a computed node under another category than that under which it was built.
    pub(crate) fn count_as(&mut self, node: Node, category: Category) {
        let root = self.root(node);
        let entry = &mut self.entries[root.entry as usize];
        if matches!(entry.kind, Kind::Op(_)) {
            entry.category = category;
        }
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn stages(&self) -> &[String] {
        &self.stages
    }

    /// Parts of a model by [`Graph::part`]; the first is none.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    pub fn entry(&self, node: Node) -> &Entry {
        &self.entries[node.entry as usize]
    }

    pub fn ty(&self, node: Node) -> &TensorType {
        &self.entries[node.entry as usize].types[node.port as usize]
    }

    pub fn shape(&self, node: Node) -> &[usize] {
        &self.ty(node).shape
    }

    /// FLOPs and bytes of all ops, from the ops themselves.
    pub fn cost(&self) -> Cost {
        self.entries.iter().map(|e| self.entry_cost(e)).fold(Cost::default(), |a, b| a + b)
    }

    pub fn entry_cost(&self, entry: &Entry) -> Cost {
        match &entry.kind {
            Kind::Op(op) => {
                let inputs: Vec<&TensorType> = entry.inputs.iter().map(|&n| self.ty(n)).collect();
                op.cost(&inputs, &entry.types)
            }
            _ => Cost::default(),
        }
    }
}
