//! Optimisers as graph ops, schedules of the learning rate, and clipping by the global norm.
//!
//! With g the clipped gradient, t the step from 1, η the scheduled rate:
//! ```text
//! sgd    v = μ v + g;   θ -= η v
//! adam   m = β1 m + (1 - β1) g;   v = β2 v + (1 - β2) g²;   θ -= η m̂ / (√v̂ + ε)     m̂ = m / (1 - β1ᵗ),  v̂ = v / (1 - β2ᵗ)
//! adamw  adam, and  θ -= η λ θ  of matrices
//! radam  adam with m̂ r / √v̂ where ρ > 4, else  θ -= η m̂;   and the decay of adamw
//! ```
//! Kingma and Ba, 2015, arXiv:1412.6980; Loshchilov and Hutter, 2019, arXiv:1711.05101; Liu et al., 2020, arXiv:1908.03265,
//! algorithm 2. Whatever depends on the step comes in a few numbers that are inputs, so that one plan serves all steps.

use super::config::{ConfigError, between};
use super::parameters::Parameter;
use crate::gpu::Category;
use crate::graph::{Data, Graph, Node, TensorType};
use crate::ids::ids;

ids! {
    /// The rule of an update.
    Rule {
        #[default]
        AdamW = "adamw",
        Adam = "adam",
        Sgd = "sgd",
        RAdam = "radam",
    }
}

ids! {
    /// What becomes of the learning rate behind the warm-up.
    Schedule {
        #[default]
        Constant = "constant",
        /// Half a cosine down to a tenth.
        Cosine = "cosine",
        /// A straight line down to 0.
        Linear = "linear",
    }
}

/// An optimiser. Fields that are left out of a file have the values of [`OptimiserConfig::default`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserConfig {
    pub rule: Rule,
    /// Largest learning rate.
    pub rate: f64,
    pub schedule: Schedule,
    /// Steps in which the rate rises to its largest in a straight line.
    pub warmup: u64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    /// Weight decay, of `adamw` and `radam`.
    pub decay: f64,
    /// Of `sgd`.
    pub momentum: f64,
    /// Largest norm of all gradients together; 0 does not clip.
    pub clip: f64,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            rule: Rule::default(),
            rate: 1e-3,
            schedule: Schedule::default(),
            warmup: 0,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            decay: 0.01,
            momentum: 0.9,
            clip: 1.0,
        }
    }
}

/// Names of the numbers that depend on the step, in the order of [`OptimiserConfig::numbers`].
pub const NUMBERS: [&str; 4] = ["rate", "variance_scale", "rectified", "decay_rate"];

impl OptimiserConfig {
    /// # Errors
    /// The first field that is not taken.
    pub fn check(&self) -> Result<(), ConfigError> {
        between("optimiser.rate", self.rate, 1e-9..=100.0)?;
        between("optimiser.beta1", self.beta1, 0.0..=0.9999)?;
        between("optimiser.beta2", self.beta2, 0.0..=0.999_999)?;
        between("optimiser.epsilon", self.epsilon, 1e-30..=1.0)?;
        between("optimiser.decay", self.decay, 0.0..=10.0)?;
        between("optimiser.momentum", self.momentum, 0.0..=0.9999)?;
        between("optimiser.clip", self.clip, 0.0..=1e9)
    }

    /// The learning rate of step `t` (from 1) of `total`.
    pub fn rate_at(&self, t: u64, total: u64) -> f64 {
        if t < self.warmup {
            return self.rate * t as f64 / self.warmup as f64;
        }
        let left = total.saturating_sub(self.warmup).max(1);
        let done = ((t - self.warmup) as f64 / left as f64).min(1.0);
        self.rate
            * match self.schedule {
                Schedule::Constant => 1.0,
                Schedule::Cosine => 0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
                Schedule::Linear => 1.0 - done,
            }
    }

    /// Inputs of step `t` (from 1) of `total`, by [`NUMBERS`]: what the momentum is multiplied with, what the second moment
    /// is, whether its root divides, and the share of a weight that decays.
    pub fn numbers(&self, t: u64, total: u64) -> [f64; 4] {
        let rate = self.rate_at(t, total);
        let power = |beta: f64| beta.powi(t.min(1 << 30) as i32);
        let corrected = rate / (1.0 - power(self.beta1));
        let variance = 1.0 / (1.0 - power(self.beta2));
        let decay = rate * self.decay;
        match self.rule {
            Rule::Sgd => [rate, 1.0, 0.0, 0.0],
            Rule::Adam => [corrected, variance, 1.0, 0.0],
            Rule::AdamW => [corrected, variance, 1.0, decay],
            Rule::RAdam => match self.rectification(t) {
                Some(r) => [corrected * r, variance, 1.0, decay],
                None => [corrected, variance, 0.0, decay],
            },
        }
    }

    /// r of RAdam at step `t`, where the variance of the adaptive rate is tractable.
    fn rectification(&self, t: u64) -> Option<f64> {
        let power = self.beta2.powi(t.min(1 << 30) as i32);
        let most = 2.0 / (1.0 - self.beta2) - 1.0;
        let now = most - 2.0 * t as f64 * power / (1.0 - power);
        (now > 4.0).then(|| ((now - 4.0) * (now - 2.0) * most / ((most - 4.0) * (most - 2.0) * now)).sqrt())
    }

    /// Names of the tensors that a weight's update remembers, each of the weight's shape.
    pub fn memories(&self) -> &'static [&'static str] {
        match self.rule {
            Rule::Sgd => &["velocity"],
            _ => &["mean", "variance"],
        }
    }

    /// Whether the rule decays weights.
    fn decays(&self) -> bool {
        matches!(self.rule, Rule::AdamW | Rule::RAdam) && self.decay > 0.0
    }
}

/// The name of a weight's memory in graphs and checkpoints.
pub fn memory_name(memory: &str, parameter: &str) -> String {
    format!("optimiser.{memory}.{parameter}")
}

/// A weight, its node and its gradient.
pub struct Learned<'a> {
    pub parameter: &'a Parameter,
    pub node: Node,
    pub gradient: Node,
}

/// Adds the update of all weights, which the graph then carries from run to run; the norm of all gradients, of shape `[]`, and
/// what each weight becomes.
/// Inputs are the [`NUMBERS`] that the rule needs, of shape `[]`, and its memories by [`memory_name`].
pub fn update(g: &mut Graph, config: &OptimiserConfig, learned: &[Learned]) -> (Node, Vec<Node>) {
    g.stage("update", |g| {
        let norm = g.category(Category::Workspace, |g| global_norm(g, learned));
        let clip = (config.clip > 0.0).then(|| {
            g.category(Category::Workspace, |g| {
                let one = g.constant(&[], Data::Real(vec![1.0]));
                let shifted = g.add_scalar(norm, 1e-6);
                let factor = g.reciprocal(shifted);
                let factor = g.scale(factor, config.clip);
                g.minimum(factor, one)
            })
        });
        let number = |g: &mut Graph, at: usize| g.input(NUMBERS[at], TensorType::f32(&[]), Category::Workspace);
        let numbers = Numbers {
            rate: number(g, 0),
            variance: (config.rule != Rule::Sgd).then(|| number(g, 1)),
            rectified: (config.rule == Rule::RAdam).then(|| number(g, 2)),
            decay: config.decays().then(|| number(g, 3)),
        };
        let one = |one: &Learned| g.part(one.parameter.part(), |g| update_one(g, config, one, clip, &numbers));
        (norm, learned.iter().map(one).collect())
    })
}

/// Nodes of the [`NUMBERS`] that a rule needs.
struct Numbers {
    rate: Node,
    variance: Option<Node>,
    rectified: Option<Node>,
    decay: Option<Node>,
}

/// Each memory and the weight are one fused kernel, written over its own input. What the weight becomes.
fn update_one(g: &mut Graph, config: &OptimiserConfig, one: &Learned, clip: Option<Node>, numbers: &Numbers) -> Node {
    let ty = g.ty(one.node).clone();
    // Made anew for each use: a chain computes it in registers.
    let clipped = |g: &mut Graph| match clip {
        Some(clip) => g.mul(one.gradient, clip),
        None => one.gradient,
    };
    let memories: Vec<Node> = (config.memories().iter())
        .map(|memory| g.input(&memory_name(memory, &one.parameter.name), ty.clone(), Category::Optimiser))
        .collect();
    let remembered = |g: &mut Graph, old: Node, keep: f64, share: f64, new: Node| {
        let old = g.scale(old, keep);
        let new = g.scale(new, share);
        g.add(old, new)
    };
    g.category(Category::Optimiser, |g| {
        let gradient = clipped(g);
        let direction = match numbers.variance {
            None => {
                let velocity = remembered(g, memories[0], config.momentum, 1.0, gradient);
                g.update(memories[0], velocity);
                velocity
            }
            Some(scale) => {
                let mean = remembered(g, memories[0], config.beta1, 1.0 - config.beta1, gradient);
                let again = clipped(g);
                let square = g.square(again);
                let variance = remembered(g, memories[1], config.beta2, 1.0 - config.beta2, square);
                g.update(memories[0], mean);
                g.update(memories[1], variance);
                let corrected = g.mul(variance, scale);
                let root = g.sqrt(corrected);
                let root = g.add_scalar(root, config.epsilon);
                match numbers.rectified {
                    None => g.div(mean, root),
                    Some(rectified) => {
                        // The root, or 1 where it does not divide yet.
                        let less = g.add_scalar(root, -1.0);
                        let less = g.mul(less, rectified);
                        let divisor = g.add_scalar(less, 1.0);
                        g.div(mean, divisor)
                    }
                }
            }
        };
        let step = g.mul(direction, numbers.rate);
        let moved = match numbers.decay {
            Some(decay) if one.parameter.decays() => {
                let lost = g.mul(one.node, decay);
                let kept = g.sub(one.node, lost);
                g.sub(kept, step)
            }
            _ => g.sub(one.node, step),
        };
        g.update(one.node, moved);
        moved
    })
}

/// Root of the sum of squares of all gradients.
fn global_norm(g: &mut Graph, learned: &[Learned]) -> Node {
    let sums: Vec<Node> = (learned.iter())
        .map(|one| {
            let square = g.square(one.gradient);
            g.sum_all(square)
        })
        .collect();
    let total = sums[1..].iter().fold(sums[0], |total, &sum| g.add(total, sum));
    g.sqrt(total)
}

#[cfg(test)]
mod tests;
