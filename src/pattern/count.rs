//! Exact counts of a rule: keys per query, density, reach through layers. All in time linear in the progressions
//! that the keys of all queries are made of, never in N·M.

use super::Rule;

impl Rule {
    /// Number of keys that query `i` of a head may attend to.
    pub fn keys(&self, head: usize, i: usize, n: usize, m: usize) -> u64 {
        let mut spans = Vec::new();
        self.spans(head, i, n, m, &mut spans);
        spans.iter().map(|s| s.count as u64).sum()
    }

    /// Number of allowed pairs of `n` queries and `m` keys over `heads` heads.
    pub fn pairs(&self, heads: usize, n: usize, m: usize) -> u64 {
        let mut spans = Vec::new();
        let mut of_head = |head| -> u64 {
            let mut pairs = 0;
            for i in 0..n {
                self.spans(head, i, n, m, &mut spans);
                pairs += spans.iter().map(|s| s.count as u64).sum::<u64>();
            }
            pairs
        };
        if self.by_head() { (0..heads).map(of_head).sum() } else { heads as u64 * of_head(0) }
    }

    /// Share of all pairs that are allowed; 0 where there are none.
    pub fn density(&self, heads: usize, n: usize, m: usize) -> f64 {
        let all = heads as f64 * n as f64 * m as f64;
        if all == 0.0 { 0.0 } else { self.pairs(heads, n, m) as f64 / all }
    }

    /// Number of tokens that can influence token `from` of `n` after 1, 2, ..., `layers` layers of self-attention of `heads`
    /// heads, each followed by a residual connection.
    pub fn reach(&self, heads: usize, n: usize, from: usize, layers: usize) -> Vec<u64> {
        let mut reached = vec![false; n];
        if let Some(start) = reached.get_mut(from) {
            *start = true;
        }
        let mut counts = Vec::with_capacity(layers);
        for layer in 0..layers {
            // Once a layer adds nothing, none will: the step depends on the set alone.
            if layer >= 2 && counts[layer - 1] == counts[layer - 2] {
                counts.push(counts[layer - 1]);
                continue;
            }
            self.widen(heads, &mut reached);
            counts.push(reached.iter().filter(|&&r| r).count() as u64);
        }
        counts
    }

    /// Adds to a set of tokens all the tokens that they attend to.
    fn widen(&self, heads: usize, set: &mut [bool]) {
        let n = set.len();
        match *self {
            Rule::All { causal } => {
                let Some(last) = set.iter().rposition(|&r| r) else { return };
                set[..if causal { last + 1 } else { n }].fill(true);
            }
            Rule::Window { radius, dilation, global, causal } => widen_window(set, radius, dilation, global, causal),
            _ => {
                // Openings and closings of intervals; single keys are marked as they come.
                let mut change = vec![0i32; n + 1];
                let mut single = set.to_vec();
                let mut spans = Vec::new();
                for head in 0..if self.by_head() { heads } else { 1 } {
                    for i in (0..n).filter(|&i| set[i]) {
                        self.spans(head, i, n, n, &mut spans);
                        for span in &spans {
                            if span.step == 1 {
                                change[span.first] += 1;
                                change[span.first + span.count] -= 1;
                            } else {
                                span.keys().for_each(|key| single[key] = true);
                            }
                        }
                    }
                }
                let mut open = 0;
                for (j, reached) in set.iter_mut().enumerate() {
                    open += change[j];
                    *reached = single[j] || open > 0;
                }
            }
        }
    }
}

/// [`Rule::widen`] of a window, in time linear in N.
fn widen_window(set: &mut [bool], radius: u32, dilation: u32, global: u32, causal: bool) {
    let n = set.len();
    let Some(last) = set.iter().rposition(|&r| r) else { return };
    let seen = if causal { last + 1 } else { n };
    let step = dilation.max(1) as usize;
    let steps = radius as usize;
    let global = (global as usize).min(n);
    // A global token sees everything, or everything up to itself.
    let by_global = set[..global].iter().rposition(|&r| r).map(|i| if causal { i + 1 } else { n });
    // In each residue class modulo `step` the band is an interval: count openings and closings along it.
    let mut change = vec![0i32; n + step];
    for i in (0..n).filter(|&i| set[i]) {
        let back = steps.min(i / step);
        let ahead = if causal { 0 } else { steps.min((n - 1 - i) / step) };
        change[i - back * step] += 1;
        change[i + (ahead + 1) * step] -= 1;
    }
    for j in step..n {
        change[j] += change[j - step];
    }
    for (reached, open) in set.iter_mut().zip(&change) {
        *reached = *open > 0;
    }
    set[..global.min(seen)].fill(true);
    set[..by_global.unwrap_or(0)].fill(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms_of_the_papers() {
        // E = N(2r+1) - dr(r+1), causal E = Nw - d w(w-1)/2.
        let (n, r, d) = (1000u64, 13u64, 3u64);
        let window = |causal| Rule::Window { radius: r as u32, dilation: d as u32, global: 0, causal };
        assert_eq!(window(false).pairs(1, n as usize, n as usize), n * (2 * r + 1) - d * r * (r + 1));
        let w = r + 1;
        assert_eq!(window(true).pairs(1, n as usize, n as usize), n * w - d * w * (w - 1) / 2);
        assert_eq!(Rule::All { causal: true }.pairs(3, 100, 100), 3 * 5050);
        assert_eq!(Rule::All { causal: false }.density(2, 7, 9), 1.0);
    }

    #[test]
    fn reach_of_a_window_grows_by_its_radius() {
        let rule = Rule::Window { radius: 8, dilation: 2, global: 0, causal: false };
        assert_eq!(rule.reach(1, 16_384, 8192, 3), [17, 33, 49]);
        let rule = Rule::Window { radius: 8, dilation: 1, global: 1, causal: false };
        assert_eq!(rule.reach(1, 16_384, 8192, 3), [18, 16_384, 16_384]);
    }
}
