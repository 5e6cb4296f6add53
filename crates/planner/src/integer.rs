//! Integers as plans compute with them: every width wraps, as NumPy's do, and nothing panics.
//!
//! One definition for the interpreter and the CPU device, generic over the eight types; the reference computes the same without bounds and
//! wraps at the end. Where ONNX leaves a result open we choose one: a division by zero gives zero, the least number divided by −1 is itself,
//! and a negative power gives the integer part of the fraction.

use crate::op::{Binary, Unary};
use std::cmp::Ordering;

/// An integer type that chains compute in.
pub trait Integer: Copy + Ord + Sized {
    /// The low bits of a wider number.
    fn narrowed(wide: i64) -> Self;
    /// The bits as a wider number: what [`Integer::narrowed`] takes back.
    fn widened(self) -> i64;
    /// Toward zero and saturating at the type's own bounds; NaN gives zero.
    fn truncated(x: f32) -> Self;
    /// To the nearest float.
    fn float(self) -> f32;
    /// How it compares with zero.
    fn sign(self) -> Ordering;
    /// `a + b`, wrapping.
    fn plus(self, other: Self) -> Self;
    /// `a − b`, wrapping.
    fn minus(self, other: Self) -> Self;
    /// `a · b`, wrapping.
    fn times(self, other: Self) -> Self;
    /// `a / b` toward zero; zero where `b` is.
    fn over(self, other: Self) -> Self;
    /// What the division leaves, with the sign of `a`; zero where `b` is.
    fn rest(self, other: Self) -> Self;
}

macro_rules! integers {
    ($($rust:ty),*) => {$(
        impl Integer for $rust {
            fn narrowed(wide: i64) -> Self {
                wide as $rust
            }
            fn widened(self) -> i64 {
                self as i64
            }
            fn truncated(x: f32) -> Self {
                x as $rust
            }
            fn float(self) -> f32 {
                self as f32
            }
            fn sign(self) -> Ordering {
                self.cmp(&0)
            }
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn over(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            fn rest(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_rem(other) }
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

/// A function of one integer. The typing rules ([`crate::element`]) leave `Abs`, `Neg`, `Relu` and `Sign`; any other gives `x`.
pub fn unary<T: Integer>(function: Unary, x: T) -> T {
    let zero = T::narrowed(0);
    match (function, x.sign()) {
        (Unary::Neg, _) | (Unary::Abs, Ordering::Less) => zero.minus(x),
        (Unary::Relu, Ordering::Less) => zero,
        (Unary::Sign, sign) => T::narrowed(sign as i64),
        _ => x,
    }
}

/// A function of two integers. The typing rules leave arithmetic; a comparison, which is not, gives `a`.
pub fn binary<T: Integer>(function: Binary, a: T, b: T) -> T {
    match function {
        Binary::Add => a.plus(b),
        Binary::Sub => a.minus(b),
        Binary::Mul => a.times(b),
        Binary::Div => a.over(b),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Pow => power(a, b),
        Binary::PRelu if a.sign() == Ordering::Less => a.times(b),
        Binary::Mod { fmod: true } => a.rest(b),
        Binary::Mod { fmod: false } => match a.rest(b) {
            rest if rest.sign().is_ne() && rest.sign() != b.sign() => rest.plus(b),
            rest => rest,
        },
        _ => a,
    }
}

/// A comparison of two values of one type; any other function gives false.
pub fn compare<T: PartialOrd>(function: Binary, a: &T, b: &T) -> bool {
    match function {
        Binary::Equal => a == b,
        Binary::Greater => a > b,
        Binary::GreaterOrEqual => a >= b,
        Binary::Less => a < b,
        Binary::LessOrEqual => a <= b,
        _ => false,
    }
}

/// By squaring.
fn power<T: Integer>(base: T, exponent: T) -> T {
    let (zero, one) = (T::narrowed(0), T::narrowed(1));
    let odd = |number: T| number.widened() & 1 == 1;
    if exponent.sign() == Ordering::Less {
        return match base {
            _ if base == one => one,
            _ if base == zero.minus(one) && base.sign() == Ordering::Less => {
                if odd(exponent) {
                    base
                } else {
                    one
                }
            }
            _ => zero,
        };
    }
    let (mut result, mut square) = (one, base);
    // Not negative: its bits are those of a number without a sign.
    let mut left = exponent.widened().cast_unsigned();
    while left > 0 {
        if left & 1 == 1 {
            result = result.times(square);
        }
        square = square.times(square);
        left >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pair_of_extremes_panics_and_each_wraps_to_its_width() {
        assert_eq!(binary(Binary::Div, i64::MIN, -1), i64::MIN);
        assert_eq!(binary(Binary::Mod { fmod: true }, i8::MIN, -1), 0);
        assert_eq!(binary(Binary::Div, 7u8, 0), 0);
        assert_eq!(binary(Binary::Add, 250u8, 10), 4);
        assert_eq!(binary(Binary::Sub, 3u64, 5), u64::MAX - 1);
        assert_eq!(unary(Unary::Abs, i32::MIN), i32::MIN);
        assert_eq!(unary(Unary::Sign, u64::MAX), 1);
    }

    #[test]
    fn remainders_have_the_sign_that_was_asked_for() {
        let (floor, fmod) = (Binary::Mod { fmod: false }, Binary::Mod { fmod: true });
        assert_eq!([binary(floor, -7i32, 3), binary(floor, 7, -3), binary(floor, -6, 3)], [2, -2, 0]);
        assert_eq!([binary(fmod, -7i32, 3), binary(fmod, 7, -3)], [-1, 1]);
        assert_eq!(binary(floor, 200u8, 7), 4);
    }

    #[test]
    fn powers_wrap_and_negative_ones_are_fractions_cut_off() {
        assert_eq!(binary(Binary::Pow, 3i64, 39), 3i64.wrapping_pow(39));
        // 3 has an inverse modulo 2⁶⁴, and 2⁶⁴ − 1 is one less than a multiple of the order of every odd number.
        assert_eq!(binary(Binary::Pow, 3u64, u64::MAX).wrapping_mul(3), 1);
        assert_eq!([binary(Binary::Pow, -1i8, -3), binary(Binary::Pow, 2, -1)], [-1, 0]);
        assert_eq!(binary(Binary::Pow, 0i32, 0), 1);
    }

    #[test]
    fn unsigned_numbers_compare_as_such() {
        assert!(compare(Binary::Greater, &u64::MAX, &1));
        assert_eq!(binary(Binary::Max, u64::MAX, 1), u64::MAX);
    }
}
