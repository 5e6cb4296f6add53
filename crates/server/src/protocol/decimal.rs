//! Decimals read as floats: most of them in the pass that finds their end.
//!
//! Digits of at most 2⁵³ over a power of ten of at most 10²² are a division of two numbers that f64 holds exactly, so its one
//! rounding is the right one (Clinger, 1990). Whatever else a number may be, an exponent or more digits, is left to the standard library.

/// The powers of ten that f64 holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Up to here f64 holds every whole number.
const MOST: u64 = 1 << 53;

/// Digits and point: nineteen digits are less than 2⁶⁴.
const MOST_LETTERS: usize = 19;

/// The decimal that `text` begins with, correctly rounded, and its length; `None` when it is not one of the simple ones, or not
/// followed by what may follow a number in an array.
pub(super) fn leading(text: &[u8]) -> Option<(f64, usize)> {
    let negative = text.first() == Some(&b'-');
    let start = usize::from(negative);
    let (mut digits, mut end) = run(text, start, 0)?;
    let mut places = 0;
    if text.get(end) == Some(&b'.') {
        let fraction = end + 1;
        (digits, end) = run(text, fraction, digits)?;
        places = end - fraction;
    }
    if end - start > MOST_LETTERS || digits > MOST || !text.get(end).is_some_and(ends) {
        return None;
    }
    let value = digits as f64 / POWERS.get(places)?;
    Some((if negative { -value } else { value }, end))
}

/// Reads a digit or more from `at` on behind those read already; returns all of them, modulo 2⁶⁴, and where they end.
fn run(text: &[u8], at: usize, mut digits: u64) -> Option<(u64, usize)> {
    let mut end = at;
    for byte in text.get(at..)? {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        digits = digits.wrapping_mul(10).wrapping_add(digit.into());
        end += 1;
    }
    (end > at).then_some((digits, end))
}

/// What ends a number in an array. Of all that is below a space, JSON has only line ends and tabs.
pub(super) fn ends(byte: &u8) -> bool {
    *byte <= b' ' || *byte == b',' || *byte == b']'
}

/// A decimal's correctly rounded f32, given its correctly rounded f64; `None` where that does not tell.
pub(super) fn narrowed(value: f64) -> Option<f32> {
    /// The bits of a f64 behind those of a f32.
    const BEHIND: u64 = (1 << 29) - 1;
    // Halfway between two floats it may have come there by its first rounding, and then the second does not know which way. Outside
    // of the normal floats more bits are behind.
    let halfway = value.to_bits() & BEHIND == 1 << 28;
    let normal = (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&value.abs());
    (value == 0.0 || (normal && !halfway)).then_some(value as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every length and size, from a fixed seed.
    fn decimals() -> impl Iterator<Item = String> {
        let mut state = 7_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 16
        };
        (0..100_000).map(move |_| {
            let sign = if next() % 2 == 0 { "-" } else { "" };
            let whole = next() % 10_u64.pow((next() % 15) as u32);
            let places = (next() % 16) as usize;
            let fraction = next() % 10_u64.pow(places as u32);
            if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction:0places$}") }
        })
    }

    #[test]
    fn what_is_read_is_what_the_standard_library_reads() {
        let (mut wide, mut narrow) = (0, 0);
        for decimal in decimals() {
            let Some((value, length)) = leading(format!("{decimal},").as_bytes()) else { continue };
            assert_eq!(length, decimal.len());
            assert_eq!(value.to_bits(), decimal.parse::<f64>().unwrap().to_bits(), "{decimal}");
            wide += 1;
            if let Some(value) = narrowed(value) {
                assert_eq!(value.to_bits(), decimal.parse::<f32>().unwrap().to_bits(), "{decimal}");
                narrow += 1;
            }
        }
        assert!(wide > 40_000 && narrow > 40_000, "{wide} and {narrow} of 100000");
    }

    #[test]
    fn a_decimal_halfway_between_two_floats_is_not_rounded_twice() {
        // A hair above the middle of 1 and the next float: the middle itself as f64, from where ties go to 1.
        let decimal = "1.00000005960464478";
        let middle: f64 = decimal.parse().unwrap();
        assert_eq!((middle as f32, decimal.parse::<f32>().unwrap()), (1.0, 1.0 + f32::EPSILON));
        assert_eq!(narrowed(middle), None);
        assert_eq!(narrowed(16_777_217.0), None);
    }

    #[test]
    fn what_f32_has_no_normal_number_for_is_left_to_others() {
        assert!([1e39, f64::from(f32::MAX) * 1.000_000_1, 1e-40, f64::INFINITY].map(narrowed) == [None; 4]);
        assert!(narrowed(-0.0).is_some_and(|zero| zero == 0.0 && zero.is_sign_negative()));
    }

    #[test]
    fn only_simple_decimals_are_read_and_only_whole_ones() {
        let others = ["", "-", "-]", "1", "1.]", ".5,", "1e3,", "1.5E2,", "true,", "\"1\",", "12x,", "[1]"];
        assert!(others.into_iter().all(|text| leading(text.as_bytes()).is_none()));
        assert!(leading(b"9007199254740993,").is_none(), "one more than f64 counts to");
        assert!(leading(b"0.00000000000000000000001,").is_none(), "23 places");
        assert!(leading(format!("{},", "9".repeat(400)).as_bytes()).is_none());
        assert_eq!(leading(b"-12.5]"), Some((-12.5, 5)));
        assert_eq!(leading(b"0\n,"), Some((0.0, 1)));
    }
}
