//! Numbers as people read them in the page's language: grouped digits, units, three significant digits.

use super::texts::t;

/// `16384` as `16,384`.
pub fn count(value: u64) -> String {
    grouped(value, t("number.group"))
}

fn grouped(value: u64, mark: &str) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push_str(mark);
        }
        out.push(digit);
    }
    out
}

/// `digits` significant digits, without an exponent between 1e-4 and 1e6.
pub fn significant(value: f64, digits: usize) -> String {
    pointed(significant_of(value, digits), t("number.point"))
}

/// So many digits behind the point.
pub fn decimals(value: f64, digits: usize) -> String {
    pointed(format!("{value:.digits$}"), t("number.point"))
}

fn pointed(number: String, mark: &str) -> String {
    number.replacen('.', mark, 1)
}

fn significant_of(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..6).contains(&magnitude) {
        return format!("{value:.*e}", digits - 1);
    }
    let decimals = (digits as i32 - 1 - magnitude).max(0) as usize;
    format!("{value:.decimals$}")
}

/// Bytes in binary units.
pub fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Floating-point operations in decimal units.
pub fn flops(value: u64) -> String {
    scaled(value as f64, 1000.0, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"])
}

/// Milliseconds, in the unit that fits.
pub fn milliseconds(value: f64) -> String {
    if value >= 1000.0 {
        format!("{} s", significant(value / 1000.0, 3))
    } else if value >= 1.0 || value == 0.0 {
        format!("{} ms", significant(value, 3))
    } else {
        format!("{} µs", significant(value * 1000.0, 3))
    }
}

/// A share of one as a percentage.
pub fn percent(value: f64) -> String {
    format!("{} %", significant(value * 100.0, 3))
}

/// A duration to wait, rounded as one says it.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

/// A cost as papers write it, `O(N^2 D)`, with its powers raised: `O(N² D)`.
pub fn powers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut raised = false;
    for c in text.chars() {
        let digit = c.to_digit(10).filter(|_| raised);
        match (c, digit) {
            ('^', _) => raised = true,
            (_, Some(digit)) => out.push(['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit as usize]),
            _ => {
                raised = false;
                out.push(c);
            }
        }
    }
    out
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    if unit == 0 { format!("{value} {}", units[0]) } else { format!("{} {}", significant(value, 3), units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_in_threes() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(16_384), "16,384");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn a_language_has_its_own_marks() {
        assert_eq!(grouped(1_234_567, "."), "1.234.567");
        assert_eq!(pointed(significant_of(0.012_345, 3), ","), "0,0123");
        assert_eq!(pointed(significant_of(1.0e-9, 3), ","), "1,00e-9");
        assert_eq!(pointed(significant_of(123.456, 3), ","), "123");
        assert_eq!(decimals(1.006, 2), "1.01");
    }

    #[test]
    fn three_significant_digits_are_kept() {
        assert_eq!(significant(0.012_345, 3), "0.0123");
        assert_eq!(significant(123.456, 3), "123");
        assert_eq!(significant(-1.5, 3), "-1.50");
        assert_eq!(significant(1.0e-9, 3), "1.00e-9");
        assert_eq!(significant(f64::NAN, 3), "NaN");
    }

    #[test]
    fn powers_are_raised() {
        assert_eq!(powers("O(N^2 D) time, O(N) memory"), "O(N² D) time, O(N) memory");
        assert_eq!(powers("N^12+3"), "N¹²+3");
    }

    #[test]
    fn units_follow_the_size() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1_572_864), "1.50 MiB");
        assert_eq!(flops(2_500_000_000), "2.50 GFLOP");
        assert_eq!(milliseconds(0.012), "12.0 µs");
        assert_eq!(milliseconds(12.0), "12.0 ms");
        assert_eq!(milliseconds(2500.0), "2.50 s");
        assert_eq!(percent(0.1234), "12.3 %");
        assert_eq!(duration(83.4), "1 min 23 s");
    }
}
