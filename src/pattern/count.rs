//! Exact counts of a rule: keys per query, density, reach through layers. All in time linear in N.

use super::Rule;

impl Rule {
    /// Number of keys that query `i` may attend to.
    pub fn keys(&self, i: usize, n: usize, m: usize) -> u64 {
        let position = i as i64 + m as i64 - n as i64;
        // Keys in front of `seen` are not ruled out by causality.
        let seen = if self.causal() { (position + 1).clamp(0, m as i64) } else { m as i64 };
        match *self {
            Rule::All { .. } => seen as u64,
            Rule::Window { radius, dilation, global, .. } => {
                let global = i64::from(global).min(m as i64);
                if (0..global).contains(&position) {
                    return seen as u64;
                }
                let step = i64::from(dilation.max(1));
                let reach = i64::from(radius) * step;
                let global_seen = global.min(seen);
                // Keys of the band among `global_seen..seen`: first and last one congruent to the position.
                let first = global_seen.max(position - reach);
                let first = first + (position - first).rem_euclid(step);
                let last = (seen - 1).min(position + reach);
                let band = if last >= first { (last - first) / step + 1 } else { 0 };
                (global_seen + band) as u64
            }
        }
    }

    /// Number of allowed pairs of `n` queries and `m` keys.
    pub fn pairs(&self, n: usize, m: usize) -> u64 {
        (0..n).map(|i| self.keys(i, n, m)).sum()
    }

    /// Share of all pairs that are allowed; 0 where there are none.
    pub fn density(&self, n: usize, m: usize) -> f64 {
        if n == 0 || m == 0 { 0.0 } else { self.pairs(n, m) as f64 / (n as f64 * m as f64) }
    }

    /// Number of tokens that can influence token `from` of `n` after 1, 2, ..., `layers` layers of self-attention.
    pub fn reach(&self, n: usize, from: usize, layers: usize) -> Vec<u64> {
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
            self.widen(&mut reached);
            counts.push(reached.iter().filter(|&&r| r).count() as u64);
        }
        counts
    }

    /// Replaces a set of tokens by all the tokens that they attend to. Every rule lets a token attend to itself.
    fn widen(&self, set: &mut [bool]) {
        let n = set.len();
        let Some(last) = set.iter().rposition(|&r| r) else { return };
        let seen = if self.causal() { last + 1 } else { n };
        match *self {
            Rule::All { .. } => set[..seen].fill(true),
            Rule::Window { radius, dilation, global, causal } => {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms_of_the_papers() {
        // E = N(2r+1) - dr(r+1), causal E = Nw - d w(w-1)/2.
        let (n, r, d) = (1000u64, 13u64, 3u64);
        let window = |causal| Rule::Window { radius: r as u32, dilation: d as u32, global: 0, causal };
        assert_eq!(window(false).pairs(n as usize, n as usize), n * (2 * r + 1) - d * r * (r + 1));
        let w = r + 1;
        assert_eq!(window(true).pairs(n as usize, n as usize), n * w - d * w * (w - 1) / 2);
        assert_eq!(Rule::All { causal: true }.pairs(100, 100), 5050);
        assert_eq!(Rule::All { causal: false }.density(7, 9), 1.0);
    }

    #[test]
    fn reach_of_a_window_grows_by_its_radius() {
        let rule = Rule::Window { radius: 8, dilation: 2, global: 0, causal: false };
        assert_eq!(rule.reach(16_384, 8192, 3), [17, 33, 49]);
        let rule = Rule::Window { radius: 8, dilation: 1, global: 1, causal: false };
        assert_eq!(rule.reach(16_384, 8192, 3), [18, 16_384, 16_384]);
    }
}
