//! Counter-based random numbers: the value at (seed, stream, index) is a pure function of the three, so that tensors can be
//! drawn in any order, in parallel, and again.

/// A stream by name.
pub fn stream(name: &str) -> u64 {
    name.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte).wrapping_add(0x9E37_79B9_7F4A_7C15)))
}

/// 64 well-mixed bits of (seed, stream, index): two rounds of the finaliser of splitmix64.
pub fn bits(seed: u64, stream: u64, index: u64) -> u64 {
    let start = seed ^ mix(stream.wrapping_add(0x9E37_79B9_7F4A_7C15));
    mix(mix(start.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15))) ^ stream)
}

/// Uniform on (0, 1), never an end of it.
pub fn uniform(seed: u64, stream: u64, index: u64) -> f64 {
    ((bits(seed, stream, index) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Uniform on the whole numbers below `end`.
pub fn below(seed: u64, stream: u64, index: u64, end: usize) -> usize {
    ((uniform(seed, stream, index) * end as f64) as usize).min(end - 1)
}

/// Standard normal, by Box and Muller.
pub fn normal(seed: u64, stream: u64, index: u64) -> f64 {
    let radius = (-2.0 * uniform(seed, stream, 2 * index).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(seed, stream, 2 * index + 1)).cos()
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_has_the_moments_of_a_normal() {
        let n = 40_000;
        let draws: Vec<f64> = (0..n).map(|i| normal(5, 2, i)).collect();
        let moment = |p: i32| draws.iter().map(|x| x.powi(p)).sum::<f64>() / n as f64;
        assert!(moment(1).abs() < 0.02, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.03, "variance {}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.2, "fourth moment {}", moment(4));
    }

    #[test]
    fn streams_and_seeds_differ() {
        let first: Vec<u64> = (0..64).map(|i| bits(1, 1, i)).collect();
        assert!(stream("E") != stream("F") && stream("ab") != stream("ba"));
        for (seed, stream) in [(1, 2), (2, 1), (0, 0)] {
            assert!((0..64).all(|i| bits(seed, stream, i) != first[i as usize]));
        }
    }
}
