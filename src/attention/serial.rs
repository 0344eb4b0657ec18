//! The serial chain of a method: what no device, however wide, does side by side.

use super::{Family, Setup, Variant, compressive, linear, performer, sinkhorn, transformer_xl};
use crate::graph::ops::chunk_linear;

impl Variant {
    /// Steps along the sequence of which each waits for the one before: 1 where all tokens are computed side by side; N of a
    /// recurrent network; one for each segment that is read behind another, and for each chunk of a running sum; log N of a
    /// running mean, which is a scan. What does not grow with the length, as layers and iterations, is not counted.
    pub fn serial_steps(&self, s: &Setup) -> usize {
        let chunks = |features: usize| s.length.div_ceil(chunk_linear::chunk(features, s.dim));
        if self.family == Family::RecurrentNetwork {
            return s.length;
        }
        match self.id {
            id if id == transformer_xl::VARIANT.id => s.length.div_ceil(s.int(&transformer_xl::SEGMENT)),
            id if id == compressive::VARIANT.id => s.length.div_ceil(s.int(&compressive::SEGMENT)),
            id if id == linear::VARIANT.id && s.causal => chunks(s.dim),
            id if id == performer::VARIANT.id && s.causal => chunks(s.int(&performer::FEATURES)),
            id if id == sinkhorn::VARIANT.id && s.causal => (s.length.next_power_of_two().ilog2() as usize).max(1),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::attention::{ALL, Causal, Family, Setup, Value, find};

    fn steps(id: &str, length: usize, causal: bool, params: &[(&str, u32)]) -> usize {
        let mut s = Setup {
            batch: 2,
            heads: 2,
            length,
            keys: length,
            dim: 32,
            causal,
            params: Default::default(),
            seed: 1,
            structure: Default::default(),
        };
        s.params.0.extend(params.iter().map(|&(name, value)| (name.into(), Value::Int(value))));
        find(id).expect("an id of the registry").serial_steps(&s)
    }

    #[test]
    fn networks_wait_for_each_token_and_segments_for_each_other() {
        for (id, params, want) in [
            ("full", &[][..], [1, 1]),
            ("lstm", &[], [100, 1000]),
            ("transformer_xl", &[("segment", 64)], [2, 16]),
            ("compressive", &[("segment", 50)], [2, 20]),
            ("linear", &[], [2, 16]),
            ("performer", &[("features", 100)], [2, 16]),
            ("sinkhorn", &[], [7, 10]),
        ] {
            assert_eq!([100, 1000].map(|n| steps(id, n, true, params)), want, "{id}");
        }
        assert_eq!(steps("linear", 1000, false, &[]), 1, "one sum of all keys");
    }

    #[test]
    fn only_recurrent_networks_wait_for_every_token() {
        for variant in ALL {
            let causal = matches!(variant.causal, Causal::Always);
            let waits = steps(variant.id, 4096, causal, &[]) == 4096;
            assert_eq!(waits, variant.family == Family::RecurrentNetwork, "{}", variant.id);
        }
    }
}
