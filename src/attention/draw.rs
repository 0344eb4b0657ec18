//! Extra tensors: what a variant reads besides q, k and v, and how it is drawn when nobody gives it.

/// How an extra tensor is drawn when the caller does not give it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Zeros,
    /// Uniform on ±bound.
    Uniform(f32),
    /// Normal with this standard deviation.
    Normal(f32),
}

/// A tensor that a variant reads besides q, k and v: whatever would be learned or drawn.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Also its name in files; its gradient is `d<name>`.
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub role: &'static str,
    pub differentiable: bool,
    /// Only read where it is given; otherwise it is drawn.
    pub optional: bool,
    pub init: Init,
}

impl Extra {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values from the seed: a pure function of seed, name and element index, so that every back end and every run gets the
    /// same tensor.
    pub fn draw(&self, seed: u64) -> Vec<f32> {
        let stream = self.name.bytes().fold(mix(seed), |hash, byte| mix(hash ^ u64::from(byte)));
        (0..self.len() as u64)
            .map(|index| match self.init {
                Init::Zeros => 0.0,
                Init::Uniform(bound) => (2.0 * unit(stream, 2 * index) - 1.0) as f32 * bound,
                // Box and Muller's transform; 1 - u is never 0.
                Init::Normal(deviation) => {
                    let radius = (-2.0 * (1.0 - unit(stream, 2 * index)).ln()).sqrt();
                    let angle = std::f64::consts::TAU * unit(stream, 2 * index + 1);
                    (radius * angle.cos()) as f32 * deviation
                }
            })
            .collect()
    }
}

/// The `counter`-th number of a stream, uniform on 0..1.
fn unit(stream: u64, counter: u64) -> f64 {
    (mix(stream ^ mix(counter)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A bijective scrambling of 64 bits: the output function of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(name: &'static str, init: Init, seed: u64) -> Vec<f32> {
        Extra { name, shape: vec![100, 100], role: "", differentiable: false, optional: false, init }.draw(seed)
    }

    #[test]
    fn moments_fit_the_distribution() {
        for (init, deviation) in [(Init::Uniform(0.5), 0.5 / 3f64.sqrt()), (Init::Normal(2.0), 2.0)] {
            let x = drawn("E", init, 3);
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / x.len() as f64;
            assert!(mean.abs() < 0.04 * deviation, "{mean}");
            assert!((variance.sqrt() / deviation - 1.0).abs() < 0.03, "{variance}");
        }
    }

    #[test]
    fn seed_and_name_make_the_tensor() {
        let x = drawn("E", Init::Normal(1.0), 3);
        assert_eq!(x, drawn("E", Init::Normal(1.0), 3));
        assert_ne!(x, drawn("F", Init::Normal(1.0), 3));
        assert_ne!(x, drawn("E", Init::Normal(1.0), 4));
    }
}
