//! Comparison of tensors, and random numbers to fill them with.

/// Asserts that the RMS of the error is at most `tolerance` times the RMS of `want`; a NaN on either side fails.
pub fn assert_close(name: &str, want: &[f64], got: &[f64], tolerance: f64) {
    assert_close_to_scale(name, want, got, tolerance, 0.0);
}

/// The same, where `want` may be zero by cancellation of terms whose size is `floor`.
pub fn assert_close_to_scale(name: &str, want: &[f64], got: &[f64], tolerance: f64, floor: f64) {
    assert_eq!(want.len(), got.len(), "{name}: number of elements");
    let scale = rms(want).max(floor).max(1e-30);
    let difference: Vec<f64> = want.iter().zip(got).map(|(w, g)| w - g).collect();
    let error = rms(&difference);
    assert!(
        error <= tolerance * scale,
        "{name}: RMS error {error:e} over {scale:e} is {:e}, more than {tolerance:e}; {:?} instead of {:?}",
        error / scale,
        &got[..got.len().min(6)],
        &want[..want.len().min(6)]
    );
}

/// Root of the mean square.
pub fn rms(x: &[f64]) -> f64 {
    (x.iter().map(|x| x * x).sum::<f64>() / x.len().max(1) as f64).sqrt()
}

/// A small seeded generator (SplitMix64), so that a failure can be repeated.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform on 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Roughly normal, rounded to f32.
    pub fn normal(&mut self) -> f64 {
        let sum: f64 = (0..6).map(|_| self.unit() - 0.5).sum();
        f64::from((sum * std::f64::consts::SQRT_2) as f32)
    }
}
