//! Which elementwise ops are computed together: each becomes part of its only consumer where that is elementwise, of the same
//! shape and of the same stage, so that its value never goes to memory.

use super::cpu::results;
use super::fuse::{Arg, Link, MAX_OPERANDS};
use super::{Graph, Kind, Node};
use std::collections::{HashMap, HashSet};

/// Longest chain: text and registers stay bounded.
const MAX_LINKS: usize = 32;

/// An elementwise op with all that was drawn into it.
#[derive(Clone, Debug)]
pub struct Fused {
    pub links: Vec<Link>,
    /// What it reads, in the order of its operands.
    pub operands: Vec<Node>,
    /// Names of the ops, in order.
    pub names: Vec<&'static str>,
}

impl Fused {
    /// Names of all ops, or of the first and the last of many.
    pub fn name(&self) -> String {
        match &self.names[..] {
            [first, .., last] if self.names.len() > 4 => format!("{first}+..{}..+{last}", self.names.len() - 2),
            names => names.join("+"),
        }
    }

    /// Draws another chain in: where its result is, or nothing where that takes too many operands or links. `more` operands
    /// are yet to come.
    fn draw_in(&mut self, other: &Fused, more: usize) -> Option<Arg> {
        let new = other.operands.iter().filter(|n| !self.operands.contains(n)).count();
        if self.operands.len() + new + more > MAX_OPERANDS || self.links.len() + other.links.len() >= MAX_LINKS {
            return None;
        }
        let operands: Vec<usize> = other.operands.iter().map(|&n| self.operand(n)).collect();
        let first = self.links.len();
        self.links.extend(other.links.iter().map(|link| {
            let moved = |arg: &Arg| match *arg {
                Arg::Operand(k) => Arg::Operand(operands[k]),
                Arg::Link(l) => Arg::Link(first + l),
            };
            Link { wgsl: link.wgsl.clone(), args: link.args.iter().map(moved).collect() }
        }));
        self.names.extend(&other.names);
        Some(Arg::Link(self.links.len() - 1))
    }

    fn operand(&mut self, node: Node) -> usize {
        self.operands.iter().position(|&n| n == node).unwrap_or_else(|| {
            self.operands.push(node);
            self.operands.len() - 1
        })
    }
}

/// The elementwise ops of a graph, put together.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    /// By the entry of the last op.
    pub fused: HashMap<usize, Fused>,
    /// Entries that are part of another one's chain.
    pub absorbed: HashSet<usize>,
}

/// Puts the needed elementwise ops together; each alone where `together` is false.
pub fn chains(g: &Graph, needed: &[bool], together: bool) -> Chains {
    let consumers = consumers(g, needed);
    let mut chains = Chains::default();
    for (index, entry) in g.entries().iter().enumerate().filter(|(i, _)| needed[*i]) {
        let Kind::Op(op) = &entry.kind else { continue };
        let Some(elementwise) = op.elementwise() else { continue };
        let mut fused = Fused { links: Vec::new(), operands: Vec::new(), names: Vec::new() };
        let mut args: Vec<Arg> = Vec::new();
        for (i, &input) in entry.inputs.iter().enumerate() {
            if let Some(before) = entry.inputs[..i].iter().position(|&n| n == input) {
                args.push(args[before]);
                continue;
            }
            let from = input.entry as usize;
            let joins = together
                && consumers.get(&input) == Some(&Consumer::Only(index))
                && g.entries()[from].stage == entry.stage
                && g.shape(input) == entry.types[0].shape;
            let more = entry.inputs.len() - i - 1;
            let drawn = chains.fused.get(&from).filter(|_| joins).and_then(|other| fused.draw_in(other, more));
            match drawn {
                Some(arg) => {
                    chains.fused.remove(&from);
                    chains.absorbed.insert(from);
                    args.push(arg);
                }
                None => args.push(Arg::Operand(fused.operand(input))),
            }
        }
        fused.links.push(Link { wgsl: elementwise.wgsl, args });
        fused.names.push(op.name());
        chains.fused.insert(index, fused);
    }
    chains
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumer {
    Only(usize),
    Many,
}

/// Who reads each node; what is read after a run is read by many.
fn consumers(g: &Graph, needed: &[bool]) -> HashMap<Node, Consumer> {
    let mut consumers = HashMap::new();
    for (index, entry) in g.entries().iter().enumerate().filter(|(i, _)| needed[*i]) {
        for &input in &entry.inputs {
            let consumer = consumers.entry(input).or_insert(Consumer::Only(index));
            if *consumer != Consumer::Only(index) {
                *consumer = Consumer::Many;
            }
        }
    }
    for node in results(g) {
        consumers.insert(node, Consumer::Many);
    }
    consumers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Category;
    use crate::graph::plan::plan;
    use crate::graph::{LowerContext, TensorType};

    fn unfused() -> LowerContext {
        LowerContext { choices: [("fusion".to_string(), "off".to_string())].into(), ..Default::default() }
    }

    #[test]
    fn a_chain_is_one_dispatch_and_needs_no_memory_between() {
        let mut g = Graph::new();
        let ty = TensorType::f32(&[6, 8]);
        let [x, y] = ["x", "y"].map(|name| g.input(name, ty.clone(), Category::Activations));
        let row = g.input("row", TensorType::f32(&[8]), Category::Activations);
        let a = g.exp(x);
        let b = g.mul(a, row);
        let c = g.square(b);
        let z = g.add(c, y);
        g.output("z", z);
        let fused = plan(&g, &LowerContext::default());
        assert_eq!((fused.program.steps.len(), plan(&g, &unfused()).program.steps.len()), (1, 4));
        assert_eq!(fused.program.steps[0].label, "exp+mul+square+add.forward");
        assert_eq!(fused.peak_bytes(), 3 * 192 + 32);
    }

    #[test]
    fn what_others_read_is_not_drawn_in() {
        let mut g = Graph::new();
        let x = g.input("x", TensorType::f32(&[4]), Category::Activations);
        let a = g.exp(x);
        let b = g.tanh(a);
        let c = g.sqrt(a);
        let d = g.stage("later", |g| g.neg(b));
        let e = g.add(c, d);
        let wide = g.broadcast_to(e, &[3, 4]);
        g.output("wide", wide);
        let names = chains(&g, &[true; 7], true).fused.values().map(Fused::name).collect::<HashSet<_>>();
        let want = ["exp", "tanh", "neg", "sqrt+add", "broadcast_to"];
        assert_eq!(names, want.map(String::from).into());
    }

    #[test]
    fn a_value_read_for_the_last_time_is_written_over() {
        let mut g = Graph::new();
        let x = g.input("x", TensorType::f32(&[50, 3]), Category::Activations);
        let sums = g.cumsum(x, 0, false, false);
        let a = g.exp(sums);
        let again = g.cumsum(a, 0, false, false);
        let y = g.neg(again);
        g.output("y", y);
        let plan = plan(&g, &LowerContext::default());
        let writes = |i: usize| plan.program.steps[i].bindings.last().expect("an output").1;
        let last = plan.program.steps.len() - 1;
        assert_eq!(writes(last), writes(last - 1));
        assert_eq!(plan.program.steps[last].bindings.len(), 1, "the kernel reads what it writes through one binding");
        // An input keeps its buffer for the next run, even when nothing else reads it.
        let mut g = Graph::new();
        let x = g.input("x", TensorType::f32(&[5]), Category::Activations);
        let y = g.neg(x);
        g.output("y", y);
        let plan = super::super::plan::plan(&g, &LowerContext::default());
        assert_ne!(plan.inputs["x"].0, plan.outputs["y"].0);
    }

    #[test]
    fn chains_stop_at_the_operands_that_a_kernel_takes() {
        let mut g = Graph::new();
        let ty = TensorType::f32(&[4]);
        let inputs: Vec<Node> = (0..20).map(|i| g.input(&format!("x{i}"), ty.clone(), Category::Activations)).collect();
        let mut sum = inputs[0];
        for &x in &inputs[1..] {
            sum = g.add(sum, x);
        }
        g.output("sum", sum);
        let plan = plan(&g, &LowerContext::default());
        assert!(plan.program.steps.iter().all(|s| s.bindings.len() <= 8));
        assert_eq!(plan.program.steps.len(), 4);
    }
}
