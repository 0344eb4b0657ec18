//! From a graph to a program: which buffers, and which dispatches over them.
//!
//! Shapes are known, so lifetimes are known: buffers are shared by values that are never alive together, and the peak is
//! known before anything runs. Inputs and constants keep a buffer of their own, so that a program can be replayed without
//! writing them again. Chains of elementwise ops are one dispatch, and write over an operand that nobody reads afterwards.

use super::chains::{Chains, chains};
use super::cpu::{needed, results};
use super::fuse::Chain;
use super::{Data, Dispatch, Graph, Kind, LowerContext, Lowered, Node, Slot, TensorType};
use crate::gpu::{BufferId, BufferSpec, Category, Program, Step};
use crate::sort::Arrange;
use crate::sort::IntoMap;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A graph made ready for the device.
#[derive(Clone, Debug)]
pub struct Plan {
    pub program: Program,
    /// Where each named input is written.
    pub inputs: BTreeMap<String, (BufferId, TensorType)>,
    /// Where each named output is read.
    pub outputs: BTreeMap<String, (BufferId, TensorType)>,
    /// One for each dispatch of the program, in order.
    pub timeline: Vec<Moment>,
}

/// What is alive during one dispatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `op.entry`.
    pub label: String,
    /// Of the op, see [`Graph::stage`].
    pub stage: String,
    /// Of the op, see [`Graph::part`]; empty outside a model.
    pub part: String,
    pub alive: BTreeMap<Category, u64>,
}

impl Moment {
    pub fn bytes(&self) -> u64 {
        self.alive.values().sum()
    }
}

impl Plan {
    /// Bytes of all buffers of the program, which is what the ledger shows when it is prepared.
    pub fn peak_bytes(&self) -> u64 {
        self.program.bytes()
    }

    /// [`Plan::peak_bytes`] by category.
    pub fn bytes_by_category(&self) -> BTreeMap<Category, u64> {
        let mut by = BTreeMap::new();
        for buffer in &self.program.buffers {
            *by.entry(buffer.category).or_default() += buffer.bytes;
        }
        by
    }

    pub fn flops(&self) -> u64 {
        self.program.steps.iter().map(|s| s.flops).sum()
    }
}

/// A tensor that needs memory: where it lives in time, and in which buffer.
struct Tenant {
    label: String,
    category: Category,
    bytes: u64,
    /// First and last item during which it is alive, both included.
    first: usize,
    last: usize,
    /// Inputs, constants and named outputs keep their buffer to themselves from the first item on.
    kept: bool,
    initial: Option<Rc<[u8]>>,
    buffer: usize,
}

/// One op, or a chain of elementwise ops, with its dispatches.
struct Item {
    entry: usize,
    name: String,
    inputs: Vec<Node>,
    lowered: Lowered,
    scratch: Vec<usize>,
}

/// Plans every named output of `g`. Chains of elementwise ops are fused unless `choices["fusion"]` is `off`.
pub fn plan(g: &Graph, context: &LowerContext) -> Plan {
    let needed = needed(g);
    let roots = Roots::new(g);
    let together = context.choices.get("fusion").is_none_or(|choice| choice != "off");
    let chains = chains(g, &needed, together);
    let last_uses = last_uses(g, &needed, &roots, &chains);
    let mut tenants: Vec<Tenant> = Vec::new();
    let mut of: HashMap<Node, usize> = HashMap::new();
    let mut items: Vec<Item> = Vec::new();
    // A value that is to replace two inputs is made in place of one of them.
    let updated: HashMap<Node, Node> = g.updates().iter().map(|&(input, value)| (value, input)).collect();

    for (index, entry) in g.entries().iter().enumerate().filter(|(i, _)| needed[*i]) {
        let now = items.len();
        let (name, initial) = match &entry.kind {
            Kind::Input { name } => (name.clone(), None),
            Kind::Constant(data) => ("constant".into(), Some(bytes_of(data))),
            Kind::Op(op) if op.is_view() => continue,
            Kind::Op(op) => (op.name().to_string(), None),
        };
        if chains.absorbed.contains(&index) {
            continue;
        }
        let is_op = matches!(entry.kind, Kind::Op(_));
        let fused = chains.fused.get(&index);
        let updates = updated.get(&Node { entry: index as u32, port: 0 });
        let taken_over = fused.and_then(|fused| {
            let may = |k: &usize| may_take_over(g, index, &fused.operands, *k, updates, &roots, &last_uses);
            (0..fused.operands.len()).find(may)
        });
        for (port, ty) in entry.types.iter().enumerate() {
            let node = Node { entry: index as u32, port: port as u32 };
            if let (Some(fused), Some(k)) = (fused, taken_over) {
                of.insert(node, of[&roots.root(fused.operands[k])]);
                continue;
            }
            of.insert(node, tenants.len());
            tenants.push(Tenant {
                label: if port == 0 { name.clone() } else { format!("{name}.{port}") },
                category: entry.category,
                bytes: ty.bytes().max(4).next_multiple_of(4),
                first: now,
                last: now,
                kept: !is_op,
                initial: initial.clone(),
                buffer: usize::MAX,
            });
        }
        let Kind::Op(op) = &entry.kind else { continue };
        let (name, inputs, lowered) = match fused {
            Some(fused) => {
                let name = fused.name();
                let operands = fused.operands.iter().map(|&n| g.ty(n).clone()).collect();
                let slots: Vec<Slot> = (0..fused.operands.len()).map(Slot::In).collect();
                let chain = Chain {
                    name: &name,
                    links: fused.links.clone(),
                    operands,
                    output: &entry.types[0],
                    in_place: taken_over,
                };
                let lowered = chain.lower(&slots);
                (name, fused.operands.clone(), lowered)
            }
            None => {
                let types: Vec<&TensorType> = entry.inputs.iter().map(|&n| g.ty(n)).collect();
                (name, entry.inputs.clone(), op.lower(context, &types, &entry.types))
            }
        };
        for &input in &inputs {
            tenants[of[&roots.root(input)]].last = now;
        }
        for port in 0..entry.types.len() {
            tenants[of[&Node { entry: index as u32, port: port as u32 }]].last = now;
        }
        let scratch = (lowered.scratch.iter().enumerate())
            .map(|(i, &bytes)| {
                tenants.push(Tenant {
                    label: format!("{name}.scratch{i}"),
                    category: Category::Workspace,
                    bytes: bytes.max(4).next_multiple_of(4),
                    first: now,
                    last: now,
                    kept: false,
                    initial: None,
                    buffer: usize::MAX,
                });
                tenants.len() - 1
            })
            .collect();
        items.push(Item { entry: index, name, inputs, lowered, scratch });
    }

    for &(input, value) in g.updates().iter().filter(|(input, value)| of[&roots.root(*value)] != of[input]) {
        tenants[of[&roots.root(value)]].last = items.len();
        items.push(copy(g, input, value));
    }

    let end = items.len();
    for tenant in tenants.iter_mut().filter(|t| t.kept) {
        (tenant.first, tenant.last) = (0, end);
    }
    for (name, node) in g.outputs() {
        let tenant = &mut tenants[of[&roots.root(*node)]];
        tenant.last = end;
        if !tenant.kept {
            tenant.label = name.clone();
        }
    }

    let buffers = assign(&mut tenants);
    let buffer_of = |node: Node| BufferId(tenants[of[&roots.root(node)]].buffer);
    let mut program = Program { buffers, steps: Vec::new(), stages: g.stages().to_vec() };
    let mut timeline = Vec::new();
    for (now, item) in items.iter().enumerate() {
        let entry = &g.entries()[item.entry];
        let alive = alive(&tenants, now);
        for dispatch in &item.lowered.dispatches {
            let label = format!("{}.{}", item.name, dispatch.entry);
            let resolve = |slot: Slot| match slot {
                Slot::In(i) => buffer_of(item.inputs[i]),
                Slot::Out(i) => buffer_of(Node { entry: item.entry as u32, port: i as u32 }),
                Slot::Scratch(i) => BufferId(tenants[item.scratch[i]].buffer),
            };
            timeline.push(Moment {
                label: label.clone(),
                stage: g.stages()[entry.stage].clone(),
                part: g.parts()[entry.part].clone(),
                alive: alive.clone(),
            });
            program.steps.push(step(dispatch, label, entry.stage, resolve));
        }
    }

    let named_inputs = (g.entries().iter().enumerate())
        .filter(|(i, _)| needed[*i])
        .filter_map(|(i, e)| match &e.kind {
            Kind::Input { name } => {
                Some((name.clone(), (buffer_of(Node { entry: i as u32, port: 0 }), e.types[0].clone())))
            }
            _ => None,
        })
        .into_map();
    let outputs = g.outputs().iter().map(|(name, n)| (name.clone(), (buffer_of(*n), g.ty(*n).clone()))).into_map();
    Plan { program, inputs: named_inputs, outputs, timeline }
}

/// Copies a value over the input that it replaces.
fn copy(g: &Graph, input: Node, value: Node) -> Item {
    let mut lowered = Chain::single("update", "{0}".into(), &[g.ty(value)], g.ty(input)).lower(&[Slot::In(0)]);
    for (_, slot) in lowered.dispatches.iter_mut().flat_map(|d| &mut d.bindings) {
        if *slot == Slot::Out(0) {
            *slot = Slot::In(1);
        }
    }
    Item {
        entry: value.entry as usize,
        name: "update".into(),
        inputs: vec![value, input],
        lowered,
        scratch: Vec::new(),
    }
}

fn step(d: &Dispatch, label: String, stage: usize, resolve: impl Fn(Slot) -> BufferId) -> Step {
    Step {
        source: d.source.clone(),
        entry: d.entry,
        consts: d.consts.clone(),
        uniform: d.uniform.clone(),
        bindings: d.bindings.iter().map(|&(name, slot)| (name, resolve(slot))).collect(),
        groups: d.groups,
        label,
        stage,
        flops: d.flops,
    }
}

/// For every node that owns memory, the last entry that reads it; none for named outputs, which are read afterwards.
fn last_uses(g: &Graph, needed: &[bool], roots: &Roots, chains: &Chains) -> HashMap<Node, usize> {
    let mut last = HashMap::new();
    for (index, entry) in g.entries().iter().enumerate().filter(|(i, _)| needed[*i]) {
        if chains.absorbed.contains(&index) {
            continue;
        }
        let inputs = chains.fused.get(&index).map_or(&entry.inputs, |fused| &fused.operands);
        for &input in inputs {
            last.insert(roots.root(input), index);
        }
    }
    for node in results(g) {
        last.remove(&roots.root(node));
    }
    last
}

/// Whether the elementwise result of an entry may be written over its k-th operand: that is computed, or is the input that
/// the result `updates`, is of the same type, and read by nobody later and by no other operand.
fn may_take_over(
    g: &Graph,
    index: usize,
    operands: &[Node],
    k: usize,
    updates: Option<&Node>,
    roots: &Roots,
    last_uses: &HashMap<Node, usize>,
) -> bool {
    let (operand, output) = (operands[k], &g.entries()[index]);
    let root = roots.root(operand);
    let owner = g.entry(root);
    let replaced = match updates {
        Some(input) => root == *input,
        None => matches!(owner.kind, Kind::Op(_)) && owner.category == output.category,
    };
    replaced
        && *g.ty(operand) == output.types[0]
        && last_uses.get(&root) == Some(&index)
        && operands.iter().enumerate().all(|(other, &n)| other == k || roots.root(n) != root)
}

/// For every node the node that owns its memory: itself, or what it is a view of.
struct Roots(HashMap<Node, Node>);

impl Roots {
    fn new(g: &Graph) -> Self {
        let mut map = HashMap::new();
        for (index, entry) in g.entries().iter().enumerate() {
            if let Kind::Op(op) = &entry.kind
                && op.is_view()
            {
                let from = entry.inputs[0];
                let root = *map.get(&from).unwrap_or(&from);
                map.insert(Node { entry: index as u32, port: 0 }, root);
            }
        }
        Self(map)
    }

    fn root(&self, node: Node) -> Node {
        *self.0.get(&node).unwrap_or(&node)
    }
}

/// Gives every tenant a buffer. The largest choose first, each the tightest buffer that is free during its life; a value
/// and the op's result never share, since a dispatch may not read and write one buffer through two bindings.
fn assign(tenants: &mut [Tenant]) -> Vec<BufferSpec> {
    let mut order: Vec<usize> = (0..tenants.len()).collect();
    order.arrange_by_key(|&i| (std::cmp::Reverse(tenants[i].bytes), i));
    let mut buffers: Vec<BufferSpec> = Vec::new();
    let mut lives: Vec<Vec<(usize, usize)>> = Vec::new();
    for i in order {
        let t = &tenants[i];
        let free = (!t.kept)
            .then(|| {
                (0..buffers.len())
                    .filter(|&b| lives[b].iter().all(|&(first, last)| t.last < first || last < t.first))
                    .min_by_key(|&b| buffers[b].bytes)
            })
            .flatten();
        let buffer = free.unwrap_or_else(|| {
            buffers.push(BufferSpec {
                label: t.label.clone(),
                category: t.category,
                bytes: t.bytes,
                initial: t.initial.clone(),
            });
            lives.push(Vec::new());
            buffers.len() - 1
        });
        lives[buffer].push((t.first, t.last));
        tenants[i].buffer = buffer;
    }
    buffers
}

fn alive(tenants: &[Tenant], now: usize) -> BTreeMap<Category, u64> {
    let mut by = BTreeMap::new();
    for t in tenants.iter().filter(|t| t.first <= now && now <= t.last) {
        *by.entry(t.category).or_default() += t.bytes;
    }
    by
}

fn bytes_of(data: &Data<f32>) -> Rc<[u8]> {
    match data {
        Data::Real(x) => bytemuck::cast_slice(x).into(),
        Data::Index(x) => bytemuck::cast_slice(x).into(),
    }
}

#[cfg(test)]
mod tests;
