use super::*;
use crate::graph::ops::testing::Double;
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

/// `x` becomes `2 x + y`, and `y` what `x` was, both of `n` elements.
fn recurrence(n: usize) -> Graph {
    let mut g = Graph::new();
    let ty = TensorType::f32(&[n]);
    let [x, y] = ["x", "y"].map(|name| g.input(name, ty.clone(), Category::Optimiser));
    let before = g.add_scalar(x, 0.0);
    let double = g.scale(x, 2.0);
    let next = g.add(double, y);
    let total = g.sum_all(next);
    g.update(x, next);
    g.update(y, before);
    g.output("total", total);
    g
}

#[test]
fn an_update_is_written_over_its_input_and_else_copied_at_the_end() {
    let plan = plan(&recurrence(6), &LowerContext::default());
    let ([x, y], steps) = (["x", "y"].map(|name| plan.inputs[name].0), &plan.program.steps);
    let written = |label: &str| {
        let step = steps.iter().find(|s| s.label == label).unwrap_or_else(|| panic!("{label} is not there"));
        step.bindings.last().expect("an output").1
    };
    assert_eq!(written("scale+add.forward"), x);
    let last = steps.last().expect("steps");
    assert_eq!((last.label.as_str(), last.bindings[1].1), ("update.forward", y));
    assert_ne!(last.bindings[0].1, y);
    assert_eq!(steps.len(), 4, "add_scalar, scale+add, sum, update");
}

#[test]
fn the_interpreter_hands_updates_back() {
    let g = recurrence(2);
    let mut state = BTreeMap::from([
        ("x".to_string(), Data::Real(vec![1.0f64, -2.0])),
        ("y".to_string(), Data::Real(vec![0.5, 3.0])),
    ]);
    for want in [0.5 + 2.0 - 1.0, 2.0 * 1.5 - 1.0] {
        let (outputs, updates) = cpu::Run::new(&g, &state).unwrap().finish_updated();
        assert!((outputs["total"].real()[0] - want).abs() < 1e-12, "{outputs:?}");
        state = updates;
    }
}
