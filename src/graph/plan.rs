//! From a graph to a program: which buffers, and which dispatches over them.
//!
//! Shapes are known, so lifetimes are known: buffers are shared by values that are never alive together, and the peak is
//! known before anything runs. Inputs and constants keep a buffer of their own, so that a program can be replayed without
//! writing them again. Chains of elementwise ops are one dispatch, and write over an operand that nobody reads afterwards.

use super::chains::{Chains, chains};
use super::cpu::needed;
use super::fuse::Chain;
use super::{Data, Dispatch, Graph, Kind, LowerContext, Lowered, Node, Slot, TensorType};
use crate::gpu::{BufferId, BufferSpec, Category, Program, Step};
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
    pub label: String,
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
        let taken_over = fused.and_then(|fused| {
            (0..fused.operands.len()).find(|&k| may_take_over(g, index, &fused.operands, k, &roots, &last_uses))
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
            timeline.push(Moment { label: label.clone(), alive: alive.clone() });
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
        .collect();
    let outputs = g.outputs().iter().map(|(name, n)| (name.clone(), (buffer_of(*n), g.ty(*n).clone()))).collect();
    Plan { program, inputs: named_inputs, outputs, timeline }
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
    for (_, node) in g.outputs() {
        last.remove(&roots.root(*node));
    }
    last
}

/// Whether the elementwise result of an entry may be written over its k-th operand: that is computed, of the same type,
/// read by nobody later and by no other operand.
fn may_take_over(
    g: &Graph,
    index: usize,
    operands: &[Node],
    k: usize,
    roots: &Roots,
    last_uses: &HashMap<Node, usize>,
) -> bool {
    let (operand, output) = (operands[k], &g.entries()[index]);
    let root = roots.root(operand);
    let owner = g.entry(root);
    matches!(owner.kind, Kind::Op(_))
        && *g.ty(operand) == output.types[0]
        && owner.category == output.category
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
    order.sort_by_key(|&i| (std::cmp::Reverse(tenants[i].bytes), i));
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
mod tests {
    use super::super::ops::testing::Double;
    use super::*;
    use crate::graph::{Data, cpu};

    fn chain(length: usize) -> Graph {
        let mut g = Graph::new();
        let mut x = g.input("x", TensorType::f32(&[5]), Category::Activations);
        for _ in 0..length {
            x = g.apply1(Double, &[x]);
        }
        g.output("y", x);
        g
    }

    #[test]
    fn a_chain_needs_its_input_and_two_buffers_in_turn() {
        let plan = plan(&chain(6), &LowerContext::default());
        assert_eq!(plan.peak_bytes(), 3 * 20);
        assert_eq!(plan.timeline.len(), 6);
        let alive: Vec<u64> = plan.timeline.iter().map(Moment::bytes).collect();
        assert_eq!(alive, [40, 60, 60, 60, 60, 60]);
        for step in &plan.program.steps {
            assert_ne!(step.bindings[0].1, step.bindings[1].1, "no dispatch reads what it writes");
        }
    }

    #[test]
    fn the_timeline_never_exceeds_the_buffers() {
        let mut g = chain(4);
        let (_, y) = g.outputs()[0].clone();
        let z = g.apply1(Double, &[y]);
        g.output("z", z);
        let plan = plan(&g, &LowerContext::default());
        let most = plan.timeline.iter().map(Moment::bytes).max();
        assert!(most.is_some_and(|b| b <= plan.peak_bytes()));
        assert_ne!(plan.outputs["y"].0, plan.outputs["z"].0);
    }

    #[test]
    fn what_no_output_needs_is_not_planned() {
        let mut g = chain(2);
        let (_, y) = g.outputs()[0].clone();
        g.apply1(Double, &[y]);
        assert_eq!(plan(&g, &LowerContext::default()).program.steps.len(), 2);
    }

    #[test]
    fn the_interpreter_evaluates_and_names_what_is_missing() {
        let g = chain(3);
        let inputs = BTreeMap::from([("x".to_string(), Data::Real(vec![1.0, 2.0, 3.0, 4.0, 0.5f64]))]);
        let out = cpu::run(&g, &inputs, &|| false).unwrap();
        assert_eq!(out["y"].real(), [8.0, 16.0, 24.0, 32.0, 4.0]);
        assert_eq!(cpu::run::<f64>(&g, &BTreeMap::new(), &|| false), Err(cpu::Error::Missing("x".into())));
        assert_eq!(cpu::run(&g, &inputs, &|| true), Err(cpu::Error::Cancelled));
        let short = BTreeMap::from([("x".to_string(), Data::Real(vec![1.0f32]))]);
        assert!(matches!(cpu::run(&g, &short, &|| false), Err(cpu::Error::Input { .. })));
    }
}
