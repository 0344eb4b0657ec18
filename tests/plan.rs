//! Plans against the device: the bytes computed beforehand are those the ledger counts, and a step allocates nothing.

mod common;

use attention_lab::gpu::{Category, Error, Gpu, Replay};
use attention_lab::graph::grad::gradients;
use attention_lab::graph::ops::block_attention::BlockAttentionOptions;
use attention_lab::graph::plan::{Moment, Plan, plan};
use attention_lab::graph::{Graph, LowerContext, TensorType};
use attention_lab::pattern::{BlockList, Rule};
use pollster::block_on;
use std::rc::Rc;

const HEADS: usize = 2;
const DIM: usize = 8;

/// Forward and backward of fused attention between elementwise work, over `n` tokens.
fn step_graph(n: usize, rule: Rule) -> Graph {
    let mut g = Graph::new();
    let ty = TensorType::f32(&[1, HEADS, n, DIM]);
    let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, ty.clone(), Category::Parameters));
    let dout = g.input("dout", ty, Category::Activations);
    let list = Rc::new(BlockList::new(&rule, n, n, 64, 64));
    let gate = g.sigmoid(q);
    let (o, _) = g.block_attention(gate, k, v, &BlockAttentionOptions::new(list, rule));
    let out = g.tanh(o);
    let d = gradients(&mut g, &[(out, dout)], &[q, k, v]);
    g.output("out", out);
    for (name, d) in ["dq", "dk", "dv"].into_iter().zip(d) {
        g.output(name, d.expect("every input is used"));
    }
    g
}

fn planned(gpu: &Gpu, n: usize, rule: Rule) -> Plan {
    plan(&step_graph(n, rule), &LowerContext::from_caps(gpu.caps()))
}

fn full() -> Rule {
    Rule::All { causal: true }
}

#[test]
fn the_ledger_counts_the_bytes_that_the_plan_computed() {
    let Some(gpu) = common::gpu() else { return };
    let before = gpu.ledger().current();
    let plan = planned(&gpu, 100, full());
    let replay = block_on(Replay::new(&gpu, &plan.program)).unwrap();
    let staging = gpu.ledger().by_category().get(&Category::Staging).copied().unwrap_or(0);
    assert_eq!(gpu.ledger().current() - before - staging, plan.peak_bytes());
    let mut counted = gpu.ledger().by_category();
    counted.remove(&Category::Staging);
    assert_eq!(counted, plan.bytes_by_category());
    drop(replay);
    assert_eq!(gpu.ledger().current(), before, "leaked: {:?}", gpu.ledger().alive());
}

#[test]
fn a_step_allocates_nothing() {
    let Some(gpu) = common::gpu() else { return };
    let plan = planned(&gpu, 65, full());
    let replay = block_on(Replay::new(&gpu, &plan.program)).unwrap();
    for (buffer, ty) in plan.inputs.values() {
        replay.write(*buffer, &vec![0x3e; ty.bytes() as usize]).unwrap();
    }
    let (allocations, peak) = (gpu.ledger().allocations(), gpu.ledger().peak());
    for _ in 0..20 {
        replay.submit().unwrap();
    }
    block_on(gpu.wait()).unwrap();
    assert_eq!((gpu.ledger().allocations(), gpu.ledger().peak()), (allocations, peak));
}

#[test]
fn memory_of_fused_attention_grows_linearly_and_exactly() {
    let Some(gpu) = common::gpu() else { return };
    for rule in
        [full(), Rule::All { causal: false }, Rule::Window { radius: 32, dilation: 1, global: 2, causal: false }]
    {
        let bytes = [1024, 2048, 3072].map(|n| planned(&gpu, n, rule.clone()).peak_bytes());
        assert_eq!(bytes[2] - bytes[1], bytes[1] - bytes[0], "{rule:?}: {bytes:?}");
    }
}

#[test]
fn the_peak_of_the_timeline_is_within_the_buffers_and_most_of_them() {
    let Some(gpu) = common::gpu() else { return };
    let plan = planned(&gpu, 257, full());
    let most = plan.timeline.iter().map(Moment::bytes).max().unwrap();
    assert!(most <= plan.peak_bytes());
    assert!(2 * most > plan.peak_bytes(), "{most} of {} bytes are ever alive together", plan.peak_bytes());
}

#[test]
fn a_program_beyond_the_adapter_is_refused_before_it_allocates() {
    let Some(gpu) = common::gpu() else { return };
    let mut g = Graph::new();
    let elements = (gpu.caps().max_binding_bytes / 4) as usize + 64;
    let x = g.input("x", TensorType::f32(&[elements]), Category::Activations);
    let y = g.tanh(x);
    g.output("y", y);
    let plan = plan(&g, &LowerContext::from_caps(gpu.caps()));
    let before = gpu.ledger().allocations();
    let refused = block_on(Replay::new(&gpu, &plan.program));
    assert!(matches!(refused.err(), Some(Error::TooLarge { .. })));
    assert_eq!(gpu.ledger().allocations(), before);
}
