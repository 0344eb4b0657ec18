//! Reverse-mode differentiation at graph level: the gradient is more graph.

use super::{GradContext, Graph, Kind, Node};
use crate::gpu::Category;
use std::collections::HashMap;

/// Adds the gradients of `sum over seeds of sum(value * dvalue)` with respect to each node of `wrt`; `None` where no value
/// depends on it. `seeds` are pairs (value, dvalue) of equal shape.
///
/// Gradients of parameters are counted as gradients, all others under the category at hand.
pub fn gradients(g: &mut Graph, seeds: &[(Node, Node)], wrt: &[Node]) -> Vec<Option<Node>> {
    let on_path = depends_on(g, wrt);
    let mut reached: HashMap<Node, Node> = HashMap::new();
    for &(value, dvalue) in seeds {
        assert_eq!(g.shape(value), g.shape(dvalue), "a seed has the shape of its value");
        accumulate(g, &mut reached, value, dvalue);
    }
    let top = seeds.iter().map(|(value, _)| value.entry + 1).max().unwrap_or(0) as usize;
    for index in (0..top).rev().filter(|&i| on_path[i]) {
        let entry = g.entries()[index].clone();
        let Kind::Op(op) = &entry.kind else { continue };
        let outputs: Vec<Node> =
            (0..entry.types.len()).map(|port| Node { entry: index as u32, port: port as u32 }).collect();
        let douts: Vec<Option<Node>> = outputs.iter().map(|n| reached.get(n).copied()).collect();
        if douts.iter().all(Option::is_none) {
            continue;
        }
        let part = g.set_part(entry.part);
        let stage = format!("{} backward", g.stages()[entry.stage]);
        let dinputs = g.stage(stage.trim_start(), |g| {
            let context = GradContext { inputs: &entry.inputs, outputs: &outputs, douts: &douts };
            op.grad(g, &context)
        });
        assert_eq!(dinputs.len(), entry.inputs.len(), "{}: one gradient for each input", op.name());
        for (&input, dinput) in entry.inputs.iter().zip(dinputs) {
            if let Some(dinput) = dinput.filter(|_| on_path[input.entry as usize]) {
                assert_eq!(g.shape(input), g.shape(dinput), "{}: shape of a gradient", op.name());
                accumulate(g, &mut reached, input, dinput);
            }
        }
        g.set_part(part);
    }
    for node in wrt {
        if let Some(&dnode) = reached.get(node)
            && g.entry(*node).category == Category::Parameters
        {
            g.count_as(dnode, Category::Gradients);
        }
    }
    wrt.iter().map(|n| reached.get(n).copied()).collect()
}

/// Which entries depend on a node of `wrt`: the others need no gradient.
fn depends_on(g: &Graph, wrt: &[Node]) -> Vec<bool> {
    let mut on_path = vec![false; g.entries().len()];
    for node in wrt {
        on_path[node.entry as usize] = true;
    }
    for index in 0..on_path.len() {
        on_path[index] |= g.entries()[index].inputs.iter().any(|n| on_path[n.entry as usize]);
    }
    on_path
}

fn accumulate(g: &mut Graph, reached: &mut HashMap<Node, Node>, node: Node, dnode: Node) {
    let category = match g.entry(node).category {
        Category::Parameters => Category::Gradients,
        other => other,
    };
    let sum = match reached.get(&node) {
        Some(&before) => g.category(category, |g| g.add(before, dnode)),
        None => dnode,
    };
    reached.insert(node, sum);
}

#[cfg(test)]
mod tests {
    use super::super::ops::testing::Double;
    use super::*;
    use crate::graph::{Data, TensorType, cpu};
    use std::collections::BTreeMap;

    #[test]
    fn gradients_of_both_uses_of_a_value_add_up() {
        let mut g = Graph::new();
        let ty = TensorType::f32(&[2]);
        let x = g.input("x", ty.clone(), Category::Parameters);
        let unused = g.input("unused", ty.clone(), Category::Parameters);
        let y = g.apply1(Double, &[x]);
        let z = g.apply1(Double, &[y]);
        let seed = g.constant(&[2], Data::Real(vec![1.0, 10.0]));
        let d = gradients(&mut g, &[(y, seed), (z, seed)], &[x, unused]);
        assert_eq!(d[1], None);
        g.output("dx", d[0].unwrap());
        let inputs = BTreeMap::from([("x".to_string(), Data::Real(vec![3.0f64, 5.0]))]);
        assert_eq!(cpu::run(&g, &inputs, &|| false).unwrap()["dx"].real(), [6.0, 60.0]);
    }
}
