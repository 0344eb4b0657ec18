//! Which ops a training step spends its arithmetic and its time on.

use crate::gpu::{Error, Gpu, Replay, Timer};
use crate::graph::plan::Plan;
use std::collections::BTreeMap;

/// Spans that the time of an op's dispatches is the median of.
const SPANS: usize = 3;

/// All dispatches of one op in a step.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct OpShare {
    pub op: String,
    pub dispatches: usize,
    /// Floating-point operations, by the op's own count.
    pub flops: u64,
    /// Time of its dispatches alone, one behind the other; none where there is no device.
    pub ms: Option<f64>,
}

/// The ops of a step by their share of its arithmetic, the largest first.
///
/// On a device each op's dispatches are run apart from the others, on buffers of zeros of their own, so that no weight changes;
/// together they may take longer than a step, in which neighbours overlap.
///
/// # Errors
/// The device's, which needs the memory of a second step.
pub async fn profile(plan: &Plan, gpu: Option<&Gpu>) -> Result<Vec<OpShare>, Error> {
    let op = |label: &str| label.split('.').next().unwrap_or_default().to_owned();
    let mut by_op: BTreeMap<String, OpShare> = BTreeMap::new();
    for step in &plan.program.steps {
        let name = op(&step.label);
        let share = by_op.entry(name.clone()).or_insert_with(|| OpShare { op: name, ..OpShare::default() });
        share.dispatches += 1;
        share.flops += step.flops;
    }
    if let Some(gpu) = gpu {
        let mut program = plan.program.clone();
        program.stages = by_op.keys().cloned().collect();
        for step in &mut program.steps {
            let name = op(&step.label);
            step.stage = program.stages.iter().position(|stage| *stage == name).unwrap_or_default();
        }
        let replay = Replay::new(gpu, &program).await?;
        for (name, samples) in Timer::new(gpu).await?.measure_stages(&replay, SPANS).await? {
            if let Some(share) = by_op.get_mut(&name) {
                share.ms = Some(samples.median());
            }
        }
    }
    let mut shares: Vec<OpShare> = by_op.into_values().collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.flops));
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::profile;
    use crate::graph::LowerContext;
    use crate::graph::plan::plan;
    use crate::lab::train::RunConfig;
    use crate::model::training_step;
    use crate::task::{TaskConfig, recall};

    #[test]
    fn products_are_most_of_a_small_transformer() {
        let task = recall::Config { length: 128, pairs: 8, vocabulary: 64, ..Default::default() };
        let mut config = RunConfig::of(TaskConfig::Recall(task));
        config.model.d_model = 128;
        config.complete(u64::MAX).unwrap();
        let step = training_step(&config.model, &config.optimiser, 8, 1);
        let plan = plan(&step.graph, &LowerContext::default());
        let shares = pollster::block_on(profile(&plan, None)).unwrap();
        assert_eq!(shares.iter().map(|share| share.flops).sum::<u64>(), plan.flops());
        assert_eq!(shares.iter().map(|share| share.dispatches).sum::<usize>(), plan.program.steps.len());
        assert_eq!(shares[0].op, "matmul");
        // Six operations for each token and each of the 12 d² weights of a layer, and of the head's: forward, and two backward.
        let products = 6_u64 * 8 * 128 * (2 * 12 * 128 * 128 + 128 * 64);
        assert!((0.95..1.1).contains(&(shares[0].flops as f64 / products as f64)), "{:?}", shares[0]);
    }
}
