//! The ways to compute one pattern give one result, and say exactly how much they visit.

use crate::case::{Case, Shape, causalities, configurations_for, tolerance, variant};
use crate::close::assert_close;
use crate::device::{gpu, run};
use attention_lab::attention::{self, PatternForm, Request, Setup, density_of};
use attention_lab::graph::cpu;
use attention_lab::pattern::Rule;

/// Forms, and the blocks that they are tried with: of sizes that divide nothing, too.
const FORMS: [(PatternForm, usize); 5] = [
    (PatternForm::Blocks, 16),
    (PatternForm::Blocks, 5),
    (PatternForm::Blocks, 64),
    (PatternForm::Gather, 64),
    (PatternForm::Masked, 24),
];

/// Every form of every pattern of a variant equals its definition, on each interpreter.
pub fn equal_the_definition(id: &str) {
    let gpu = gpu();
    for causal in causalities(variant(id)) {
        for json in configurations_for(id, causal) {
            for n in [1, 63, 100] {
                let case = Case::new(id, Shape::of(n), causal, json, Request::default());
                if case.variant.pattern(&case.setup).is_none() {
                    continue;
                }
                let want = case.naive();
                for (form, block) in FORMS {
                    let formed = case.variant.in_form(&case.setup, form, block).expect("a pattern has every form");
                    let label = |how: &str| format!("{} {} {block} on {how}", case.label(), form.id());
                    let inputs = case.values_in::<f32>();
                    let outputs = cpu::run(&formed.graph, &inputs, &|| false).expect("inputs fit the graph");
                    let out: Vec<f64> = outputs["out"].real().iter().map(|&x| x.into()).collect();
                    assert_close(&label("CPU f32"), &want, &out, tolerance(id).forward);
                    if let Some(gpu) = &gpu {
                        let out = &run(gpu, &formed.graph, &inputs)["out"];
                        assert_close(&label(&gpu.caps().name), &want, out, tolerance(id).forward);
                    }
                }
            }
        }
    }
}

#[test]
fn the_patterns_are_those_of_the_survey() {
    let has_pattern = |id: &str| {
        let case = Case::new(id, Shape::of(20), causalities(variant(id))[0], "{}", Request::default());
        case.variant.pattern(&case.setup).is_some()
    };
    let ids: Vec<&str> = attention::ALL.iter().map(|v| v.id).filter(|id| has_pattern(id)).collect();
    let want = "sliding_window sparse_strided sparse_fixed cascade logsparse blockbert longformer bigbird custom";
    assert_eq!(ids.join(" "), want);
    let found = Case::new("sparsebert", Shape::of(20), false, r#"{"phase": "deployed"}"#, Request::default());
    assert!(found.variant.pattern(&found.setup).is_some(), "a mask that has been found is a pattern");
    let full = Case::new("full", Shape::of(20), false, "{}", Request::default());
    assert!(full.variant.in_form(&full.setup, PatternForm::Blocks, 16).is_err());
}

/// Heads that are told apart, counted from the definition of each kind of rule.
fn heads_of(rule: &Rule, s: &Setup) -> usize {
    match rule {
        Rule::Bits { bits } => bits.heads,
        _ => s.heads,
    }
}

#[test]
fn shares_are_those_of_the_rule_asked_pair_by_pair() {
    for id in attention::ALL.iter().map(|v| v.id) {
        for causal in causalities(variant(id)) {
            for json in configurations_for(id, causal) {
                let (n, m) = (67, 67);
                let case = Case::new(id, Shape::of(n), causal, json, Request::default());
                let Some(rule) = case.variant.pattern(&case.setup) else { continue };
                let heads = heads_of(&rule, &case.setup);
                let may = |h: usize, i: usize, j: usize| rule.may_in(h, i, j, n, m);
                let places = |rows: std::ops::Range<usize>| rows.flat_map(move |i| (0..m).map(move |j| (i, j)));
                let allowed = (0..heads).map(|h| places(0..n).filter(|&(i, j)| may(h, i, j)).count()).sum::<usize>();
                let label = case.label();
                assert_eq!(density_of(&rule, &case.setup), allowed as f64 / (heads * n * m) as f64, "{label}");

                for block in [7, 16] {
                    let list = case.variant.in_form(&case.setup, PatternForm::Blocks, block).expect("a pattern").list;
                    let (mut blocks, mut pairs) = (0, 0);
                    for h in 0..list.heads {
                        for (top, left) in
                            (0..n).step_by(block).flat_map(|i| (0..m).step_by(block).map(move |j| (i, j)))
                        {
                            let (rows, columns) = (top..n.min(top + block), left..m.min(left + block));
                            if rows.clone().any(|i| columns.clone().any(|j| may(h, i, j))) {
                                blocks += 1;
                                pairs += (rows.len() * columns.len()) as u64;
                            }
                        }
                    }
                    let cut = (list.heads * n.div_ceil(block) * m.div_ceil(block)) as u64;
                    assert_eq!((list.visited(), list.total(), list.pairs()), (blocks, cut, pairs), "{label} {block}");
                }
                let gathered = case.variant.in_form(&case.setup, PatternForm::Gather, 16).expect("a pattern").list;
                assert_eq!(gathered.pairs() as usize * heads, allowed * gathered.heads, "{label}");
                let masked = case.variant.in_form(&case.setup, PatternForm::Masked, 16).expect("a pattern").list;
                assert_eq!(masked.pairs(), (masked.heads * n * m) as u64, "{label}");
            }
        }
    }
}
