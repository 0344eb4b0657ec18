//! Colours of values. Weights: cividis, which reads the same with and without colour vision. Signed values: blue, neutral,
//! orange. What is not finite is loud.

use super::super::experiment::{Scale, View};
use super::{ABSENT, Values};
use crate::gpu::heat::{self, Colours};

/// Stops of cividis (Nuñez, Anderton and Renslow, 2018) from 0 to 1.
pub const CIVIDIS: [[u8; 3]; 9] = [
    [0x00, 0x22, 0x4e],
    [0x12, 0x35, 0x70],
    [0x3b, 0x49, 0x6c],
    [0x57, 0x5d, 0x6d],
    [0x70, 0x71, 0x73],
    [0x8a, 0x86, 0x78],
    [0xa5, 0x9c, 0x74],
    [0xc3, 0xb3, 0x69],
    [0xfe, 0xe8, 0x38],
];

/// Blue, neutral, orange from -1 to 1; in a dark page nothing is dark, and what differs shines.
pub fn signed(dark: bool) -> [[u8; 3]; 3] {
    if dark {
        [[0x5a, 0xa9, 0xf2], [0x26, 0x28, 0x2c], [0xf0, 0x96, 0x4c]]
    } else {
        [[0x21, 0x66, 0xac], [0xf3, 0xf1, 0xec], [0xc8, 0x60, 0x1a]]
    }
}

/// What is not finite.
pub const LOUD: [u8; 3] = [0xff, 0x00, 0xb4];

/// The smallest weight that the logarithmic scale tells from 0.
const LOG_FLOOR: f32 = 1e-6;

/// What cells outside the pattern look like, in a light and in a dark page.
pub fn absent(dark: bool) -> [u8; 3] {
    if dark { [0x1b, 0x1c, 0x1f] } else { [0xe6, 0xe4, 0xde] }
}

/// Allowed cells of a mask; full blocks.
pub fn ink(dark: bool) -> [u8; 3] {
    if dark { [0xd8, 0xd5, 0xcc] } else { [0x2b, 0x3a, 0x55] }
}

/// Blocks that are visited and hold some forbidden cells.
pub fn partial(dark: bool) -> [u8; 3] {
    mix(absent(dark), ink(dark), 0.5)
}

/// A value from 0 to 1 on a scale.
pub fn scaled(x: f32, scale: Scale) -> f32 {
    let x = x.clamp(0.0, 1.0);
    match scale {
        Scale::Linear => x,
        Scale::Sqrt => x.sqrt(),
        Scale::Log => 1.0 - x.max(LOG_FLOOR).ln() / LOG_FLOOR.ln(),
    }
}

/// Lines over what the pattern forbids, so that it is told apart without colour too.
pub fn hatch(dark: bool) -> [u8; 3] {
    if dark { [0x34, 0x36, 0x3b] } else { [0xc9, 0xc6, 0xbd] }
}

/// Pixels between two lines of the hatching.
const HATCH: usize = 6;

/// Whether a view has values below zero.
fn is_signed(view: View) -> bool {
    matches!(view, View::Scores | View::Difference)
}

/// Whether a view shows a pattern, in which zero is what is forbidden.
fn is_pattern(view: View) -> bool {
    matches!(view, View::Mask | View::Blocks)
}

/// What the ends of the colours stand for, where the largest finite value is of size `largest`: 0 to 1, or symmetric
/// around 0.
pub fn domain(view: View, largest: f32) -> [f64; 2] {
    // A picture without any difference is all neutral; its domain must not be empty.
    let end = if !is_signed(view) || largest == 0.0 { 1.0 } else { f64::from(largest) };
    [if is_signed(view) { -end } else { 0.0 }, end]
}

/// Values as RGBA bytes.
pub fn paint(values: &Values, view: View, scale: Scale, dark: bool) -> Vec<u8> {
    let top = values.domain[1].max(f64::MIN_POSITIVE) as f32;
    // Patterns have three levels at most; a scale would only shift the middle one.
    let scale = if is_pattern(view) { Scale::Linear } else { scale };
    let steps = steps(view, dark, HOST_STEPS);
    let step = |t: f32| steps[(t.clamp(0.0, 1.0) * f32::from(HOST_STEPS) + 0.5) as usize];
    let mut out = Vec::with_capacity(values.cells.len() * 4);
    for (i, &x) in values.cells.iter().enumerate() {
        let [r, g, b] = if x == ABSENT || (x == 0.0 && is_pattern(view)) {
            let (column, row) = (i % values.width, i / values.width);
            if (column + row).is_multiple_of(HATCH) { hatch(dark) } else { absent(dark) }
        } else if !x.is_finite() {
            LOUD
        } else if is_signed(view) {
            step(0.5 + 0.5 * scaled((x / top).abs(), scale).copysign(x))
        } else {
            step(scaled(x / top, scale))
        };
        out.extend([r, g, b, 255]);
    }
    out
}

/// The same colours for pictures drawn by the device.
pub fn on_device(view: View, scale: Scale, dark: bool, domain: [f64; 2]) -> Colours {
    let mut palette = steps(view, dark, 255);
    palette.extend([absent(dark), hatch(dark), LOUD]);
    let scale = match scale {
        Scale::Sqrt if !is_pattern(view) => heat::Scale::Sqrt,
        Scale::Log if !is_pattern(view) => heat::Scale::Log,
        _ => heat::Scale::Linear,
    };
    Colours {
        palette,
        scale,
        signed: is_signed(view),
        top: domain[1] as f32,
        floor: LOG_FLOOR,
        hatch: HATCH as u32,
        hatch_zero: is_pattern(view),
    }
}

/// Steps of the colours of a picture drawn on the host: even, so that there is one in the middle, and more than a channel
/// has levels, so that none is seen.
const HOST_STEPS: u16 = 1024;

/// Colours from one end of a view's range to the other, `count` steps apart.
fn steps(view: View, dark: bool, count: u16) -> Vec<[u8; 3]> {
    (0..=count).map(|i| step(view, dark, f32::from(i) / f32::from(count))).collect()
}

/// The colour at `t` from 0 to 1 of a view's range.
fn step(view: View, dark: bool, t: f32) -> [u8; 3] {
    if is_pattern(view) {
        mix(absent(dark), ink(dark), t)
    } else if is_signed(view) {
        gradient(&signed(dark), t)
    } else {
        gradient(&CIVIDIS, t)
    }
}

/// The colour at `t` from 0 to 1 between equidistant stops.
fn gradient(stops: &[[u8; 3]], t: f32) -> [u8; 3] {
    let at = t.clamp(0.0, 1.0) * (stops.len() - 1) as f32;
    let i = (at as usize).min(stops.len() - 2);
    mix(stops[i], stops[i + 1], at - i as f32)
}

fn mix(a: [u8; 3], b: [u8; 3], t: f32) -> [u8; 3] {
    std::array::from_fn(|c| (f32::from(a[c]) + (f32::from(b[c]) - f32::from(a[c])) * t).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_scales_are_the_ends_of_the_gradients() {
        let values = Values {
            width: 4,
            cells: vec![0.0, 1.0, f32::NAN, ABSENT],
            domain: [0.0, 1.0],
            largest: 1.0,
            non_finite: 1,
        };
        for scale in [Scale::Linear, Scale::Sqrt, Scale::Log] {
            let rgba = paint(&values, View::Weights, scale, false);
            assert_eq!(&rgba[..3], CIVIDIS[0]);
            assert_eq!(&rgba[4..7], CIVIDIS[8]);
            assert_eq!(&rgba[8..11], LOUD);
            assert_eq!(&rgba[12..16], [0xe6, 0xe4, 0xde, 255]);
        }
        let differences =
            Values { width: 3, cells: vec![-2.0, 0.0, 2.0], domain: [-2.0, 2.0], largest: 2.0, non_finite: 0 };
        for dark in [false, true] {
            let rgba = paint(&differences, View::Difference, Scale::Linear, dark);
            assert_eq!([&rgba[..3], &rgba[4..7], &rgba[8..11]], signed(dark).each_ref().map(|colour| &colour[..]));
        }
    }

    #[test]
    fn scales_rise() {
        for scale in [Scale::Linear, Scale::Sqrt, Scale::Log] {
            let y: Vec<f32> = (0..=100).map(|i| scaled(i as f32 / 100.0, scale)).collect();
            assert!(y.windows(2).all(|w| w[0] < w[1]), "{scale:?}");
        }
        assert!(scaled(0.01, Scale::Log) > 0.6);
    }
}
