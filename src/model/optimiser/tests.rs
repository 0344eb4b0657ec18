use super::*;
use crate::graph::cpu;
use crate::model::parameters::Beginning;
use crate::random;
use std::collections::BTreeMap;

fn config(rule: Rule) -> OptimiserConfig {
    OptimiserConfig { rule, rate: 0.03, decay: 0.1, warmup: 3, schedule: Schedule::Cosine, ..Default::default() }
}

/// A matrix, which decays, and a vector, which does not, with gradients from outside.
fn graph(config: &OptimiserConfig) -> Graph {
    let mut g = Graph::new();
    let parameters = [("matrix", vec![2, 3]), ("vector", vec![5])].map(|(name, shape)| {
        let node = g.input(name, TensorType::f32(&shape), Category::Parameters);
        let gradient = g.input(&format!("d{name}"), TensorType::f32(&shape), Category::Gradients);
        let parameter = Parameter { name: name.into(), shape, beginning: Beginning::Zeros, learned: true };
        (parameter, node, gradient)
    });
    let learned: Vec<Learned> = (parameters.iter())
        .map(|(parameter, node, gradient)| Learned { parameter, node: *node, gradient: *gradient })
        .collect();
    let (norm, _) = update(&mut g, config, &learned);
    g.output("norm", norm);
    g
}

/// The rules as they are written, one number at a time.
struct Plain {
    weight: f64,
    first: f64,
    second: f64,
}

impl Plain {
    fn step(&mut self, c: &OptimiserConfig, t: i32, rate: f64, gradient: f64, decays: bool) {
        let decay = if decays { c.decay } else { 0.0 };
        if c.rule == Rule::Sgd {
            self.first = c.momentum * self.first + gradient;
            self.weight -= rate * self.first;
            return;
        }
        self.first = c.beta1 * self.first + (1.0 - c.beta1) * gradient;
        self.second = c.beta2 * self.second + (1.0 - c.beta2) * gradient * gradient;
        let mean = self.first / (1.0 - c.beta1.powi(t));
        let root = (self.second / (1.0 - c.beta2.powi(t))).sqrt();
        let before = self.weight;
        match c.rule {
            Rule::RAdam => {
                let infinite = 2.0 / (1.0 - c.beta2) - 1.0;
                let now = infinite - 2.0 * f64::from(t) * c.beta2.powi(t) / (1.0 - c.beta2.powi(t));
                if now > 4.0 {
                    let r = ((now - 4.0) * (now - 2.0) * infinite) / ((infinite - 4.0) * (infinite - 2.0) * now);
                    self.weight -= rate * r.sqrt() * mean / (root + c.epsilon);
                } else {
                    self.weight -= rate * mean;
                }
            }
            _ => self.weight -= rate * mean / (root + c.epsilon),
        }
        if matches!(c.rule, Rule::AdamW | Rule::RAdam) {
            self.weight -= rate * decay * before;
        }
    }
}

#[test]
fn every_rule_does_what_its_definition_says() {
    for &rule in Rule::ALL {
        let config = config(rule);
        let g = graph(&config);
        let names = [("matrix", 6, true), ("vector", 5, false)];
        let draw = |name: &str, t: u64, n: u64| -> Vec<f64> {
            (0..n).map(|i| random::normal(7, random::stream(name), 100 * t + i)).collect()
        };
        let mut state: BTreeMap<String, Data<f64>> = BTreeMap::new();
        let mut plain: Vec<Plain> = Vec::new();
        for (name, n, _) in names {
            let begin = draw(name, 0, n);
            plain.extend(begin.iter().map(|&weight| Plain { weight, first: 0.0, second: 0.0 }));
            state.insert(name.into(), Data::Real(begin));
            for memory in config.memories() {
                state.insert(memory_name(memory, name), Data::Real(vec![0.0; n as usize]));
            }
        }
        for t in 1..=12 {
            let mut all = Vec::new();
            for (name, n, _) in names {
                // Small ones at first, so that some steps are clipped and some are not.
                let gradient: Vec<f64> = draw(name, t, n).iter().map(|x| x * 0.05 * t as f64).collect();
                all.extend(gradient.iter().copied());
                state.insert(format!("d{name}"), Data::Real(gradient));
            }
            for (name, value) in NUMBERS.iter().zip(config.numbers(t, 12)) {
                state.insert(name.to_string(), Data::Real(vec![value]));
            }
            let (outputs, updates) = cpu::Run::new(&g, &state).unwrap().finish_updated();
            let norm = all.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!((outputs["norm"].real()[0] - norm).abs() < 1e-12);
            state.extend(updates);
            let clip = (config.clip / (norm + 1e-6)).min(1.0);
            for (i, (one, gradient)) in plain.iter_mut().zip(all).enumerate() {
                one.step(&config, t as i32, config.rate_at(t, 12), gradient * clip, i < 6);
            }
            let got = names.iter().flat_map(|(name, ..)| state[*name].real());
            for (one, &got) in plain.iter().zip(got) {
                assert!((one.weight - got).abs() < 1e-12, "{rule:?} step {t}: {} and {got}", one.weight);
            }
        }
    }
}

#[test]
fn schedules_rise_and_fall_as_they_say() {
    let at = |schedule, t| OptimiserConfig { schedule, rate: 2.0, warmup: 10, ..Default::default() }.rate_at(t, 110);
    for &schedule in Schedule::ALL {
        assert_eq!((at(schedule, 1), at(schedule, 5), at(schedule, 10)), (0.2, 1.0, 2.0), "{schedule:?}");
    }
    assert_eq!(at(Schedule::Constant, 110), 2.0);
    assert!((at(Schedule::Cosine, 60) - 1.1).abs() < 1e-12 && (at(Schedule::Cosine, 110) - 0.2).abs() < 1e-12);
    assert!((at(Schedule::Linear, 60) - 1.0).abs() < 1e-12 && at(Schedule::Linear, 500) == 0.0);
}

#[test]
fn radam_waits_and_rises_as_published() {
    let r = |beta2, t| OptimiserConfig { beta2, ..Default::default() }.rectification(t);
    assert_eq!(r(0.999, 4), None);
    for (beta2, t, want) in [(0.999, 5, 0.0173), (0.999, 100, 0.2153), (0.999, 1000, 0.6453), (0.99, 5, 0.0545)] {
        assert!((r(beta2, t).unwrap() - want).abs() < 1e-4, "{beta2} {t}: {:?}", r(beta2, t));
    }
}

#[test]
fn weights_and_memories_are_written_in_place() {
    for &rule in Rule::ALL {
        let config = config(rule);
        let plan = crate::graph::plan::plan(&graph(&config), &Default::default());
        let updates = plan.program.steps.iter().filter(|s| s.label.starts_with("update")).count();
        assert_eq!(updates, 0, "{rule:?}: nothing is copied at the end");
    }
}
