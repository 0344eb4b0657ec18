//! The predicate of patterns in WGSL against the one in Rust: softmax of zeros is not zero exactly where a key is allowed.

mod common;

use attention_lab::gpu::{Category, Replay};
use attention_lab::graph::{Graph, LowerContext, TensorType, plan};
use attention_lab::pattern::{Part, Rule};

/// Sizes and rules that reach every branch: dilation, global tokens, memory in front, fewer keys than queries.
fn cases() -> Vec<(Rule, usize, usize)> {
    let mut state = 0x1234_5678_9abc_def0u64;
    let mut below = |end: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    };
    let mut cases = vec![(Rule::All { causal: true }, 65, 65), (Rule::All { causal: true }, 20, 90)];
    for _ in 0..60 {
        let global = if below(2) == 0 { 0 } else { below(12) as u32 };
        let dilation = 1 + below(9) as u32;
        let rule = Rule::Window { radius: below(40) as u32, dilation, global, causal: below(2) == 1 };
        let n = 1 + below(100) as usize;
        let m = if below(2) == 0 { n } else { 1 + below(130) as usize };
        cases.push((rule, n, m));
    }
    for _ in 0..60 {
        let mut upto = |end: u64| 1 + below(end) as u32;
        let causal = upto(2) == 1;
        let part = [Part::Merged, Part::Local, Part::Far, Part::ByHead { odd: false }, Part::ByHead { odd: true }]
            [upto(5) as usize - 1];
        let (n, m) = (upto(100) as usize, upto(130) as usize);
        let (stride, columns) = (upto(20), upto(8));
        let rules = [
            Rule::Beyond { radius: upto(30), causal },
            Rule::Strided { stride, reach: upto(20), part, causal },
            Rule::Fixed { block: stride, columns, place: upto(3) - 1, places: 3, part, causal },
            Rule::Log { local: upto(9), kernel: upto(5), base: upto(4), levels: upto(8), period: upto(40) - 1, causal },
            Rule::Segments { length: upto(30), memory: upto(50) - 1, own: upto(3) > 1 },
            Rule::Pooled { length: upto(20), stride: upto(9) },
        ];
        cases.extend(rules.into_iter().map(|rule| (rule, n, m)));
    }
    // Far beyond any sequence: nothing may overflow.
    cases.push((Rule::Window { radius: u32::MAX, dilation: u32::MAX, global: u32::MAX, causal: true }, 30, 30));
    cases.push((Rule::Window { radius: u32::MAX, dilation: 3, global: 0, causal: false }, 30, 44));
    cases
}

#[test]
fn may_is_the_same_in_rust_and_wgsl() {
    let Some(gpu) = common::gpu() else { return };
    for (rule, n, m) in cases() {
        let mut g = Graph::new();
        let scores = g.input("scores", TensorType::f32(&[1, 1, n, m]), Category::Activations);
        let weights = g.masked_softmax(scores, None, rule.clone());
        g.output("weights", weights);
        let plan = plan::plan(&g, &LowerContext::from_caps(gpu.caps()));
        let bytes = pollster::block_on(async {
            let replay = Replay::new(&gpu, &plan.program).await?;
            replay.write(plan.inputs["scores"].0, &vec![0; n * m * 4])?;
            replay.write(plan.outputs["weights"].0, bytemuck::cast_slice(&vec![f32::NAN; n * m]))?;
            replay.run(&|| false).await?;
            replay.read(plan.outputs["weights"].0).await
        });
        let bytes = bytes.unwrap_or_else(|error| panic!("{error}"));
        let weights: &[f32] = bytemuck::cast_slice(&bytes);
        for i in 0..n {
            for j in 0..m {
                let allowed = weights[i * m + j] > 0.0;
                assert_eq!(allowed, rule.may(i, j, n, m), "{rule:?}, query {i} of {n}, key {j} of {m}");
            }
        }
    }
}
