//! Random numbers by counter: the same four words for the same (seed, stream, block), in any order, with no state.
//!
//! The hash is pcg4d (Jarzynski and Olano, 2020, "Hash functions for GPU rendering", JCGT 9(3)). `shaders/lib/rng.wesl` is its
//! twin, bit for bit. Element i of a tensor takes word `i % 4` of block `i / 4`.

/// Four words of a block.
pub fn words(seed: [u32; 2], stream: u32, block: u32) -> [u32; 4] {
    let mut v = [seed[0], seed[1], stream, block].map(|v| v.wrapping_mul(1664525).wrapping_add(1013904223));
    mix(&mut v);
    v = v.map(|v| v ^ (v >> 16));
    mix(&mut v);
    v
}

fn mix(v: &mut [u32; 4]) {
    v[0] = v[0].wrapping_add(v[1].wrapping_mul(v[3]));
    v[1] = v[1].wrapping_add(v[2].wrapping_mul(v[0]));
    v[2] = v[2].wrapping_add(v[0].wrapping_mul(v[1]));
    v[3] = v[3].wrapping_add(v[1].wrapping_mul(v[2]));
}

/// Uniform in [0, 1), a multiple of 2^-24.
pub fn unit(word: u32) -> f64 {
    (word >> 8) as f64 / 16_777_216.0
}

/// Four standard normals by Box and Muller: a pair from the first two words, a pair from the last two.
pub fn normal(words: [u32; 4]) -> [f64; 4] {
    let pair = |a: u32, b: u32| {
        let radius = (-2.0 * (1.0 - unit(a)).ln()).sqrt();
        let angle = std::f64::consts::TAU * unit(b);
        [radius * angle.cos(), radius * angle.sin()]
    };
    let ([a, b], [c, d]) = (pair(words[0], words[1]), pair(words[2], words[3]));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_moments_of_their_distribution() {
        let blocks = 50_000;
        let all: Vec<[u32; 4]> = (0..blocks).map(|b| words([7, 1], 3, b)).collect();
        let moments = |x: Vec<f64>| {
            let n = x.len() as f64;
            let mean = x.iter().sum::<f64>() / n;
            (mean, x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n)
        };
        let (mean, variance) = moments(all.iter().flatten().map(|&w| unit(w)).collect());
        assert!((mean - 0.5).abs() < 0.003 && (variance - 1.0 / 12.0).abs() < 0.001, "{mean} {variance}");
        let (mean, variance) = moments(all.iter().flat_map(|&w| normal(w)).collect());
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn seed_stream_and_block_all_matter() {
        let base = words([1, 2], 3, 4);
        for other in [words([9, 2], 3, 4), words([1, 9], 3, 4), words([1, 2], 9, 4), words([1, 2], 3, 9)] {
            assert!(base.iter().zip(other).all(|(&a, b)| a != b));
        }
    }
}
