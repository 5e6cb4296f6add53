//! The functions of one number that are not one instruction: straight lines of arithmetic, which the compiler turns into vectors.
//!
//! ```text
//!   eˣ       2ⁿ · p(r),  n = round(x·log₂e),  r = x − n·ln 2          p of degree 6
//!   tanh x   x + x³·p(x²)  for small x,  1 − 2/(e²ˣ + 1)  beyond       p of degree 4
//!   erf x    x·p(x²)       for small x,  1 − e^p(x)       beyond       p of degree 6 each
//! ```
//! Choices are made between values, never between ways of getting them. Coefficients are our own fits (least squares at 400 Chebyshev points,
//! reweighted towards the smallest maximal error, 2026-11-25); the tests hold every function to a few units in the last place of libm's.

use crate::cpu::fence::multiply_add;

/// A polynomial, highest coefficient first, by Horner's rule.
#[inline(always)]
fn polynomial<const FUSED: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut value = coefficients[0];
    for coefficient in &coefficients[1..] {
        value = multiply_add::<FUSED>(value, x, *coefficient);
    }
    value
}

/// `low` where x is less, `high` where it is more; a NaN stays.
#[inline(always)]
fn between(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// eˣ: 0 and ∞ where it is too small and too large, denormal where it should be.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    /// Adding it rounds to whole numbers: what is left of the fraction is the number itself.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³
    // ln 2 as a sum whose first part has so few bits that n times it is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = between(x, -104.0, 89.0);
    let shifted = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FUSED>(n, -LN_2[1], multiply_add::<FUSED>(n, -LN_2[0], x));
    let p = polynomial::<FUSED, 5>(r, [0.001_395_048_6, 0.008_368_888, 0.041_666_206, 0.166_665_18, 0.5]);
    let value = 1.0 + multiply_add::<FUSED>(p, r * r, r);
    // 2ⁿ in two factors, so that neither overflows.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    value * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 2ⁿ for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    let square = x * x;
    let p = [-0.005_528_624_6, 0.020_483_306, -0.053_692_963, 0.133_308_99, -0.333_332_63];
    let small = multiply_add::<FUSED>(polynomial::<FUSED, 5>(square, p) * square, x, x);
    let size = x.abs();
    let large = (1.0 - 2.0 / (exp::<FUSED>(2.0 * size) + 1.0)).copysign(x);
    if size < 0.65 { small } else { large }
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<const FUSED: bool>(x: f32) -> f32 {
    let square = x * x;
    let p = [
        7.888_119_3e-5,
        -8.020_841e-4,
        0.005_189_535,
        -0.026_854_444,
        0.112_836,
        -0.376_126_26,
        std::f32::consts::FRAC_2_SQRT_PI,
    ];
    let small = x * polynomial::<FUSED, 7>(square, p);
    // ln(1 − erf x); beyond 4 nothing is left of it beside one.
    let size = between(x.abs(), 0.0, 4.0);
    let p = [
        1.915_050_4e-4,
        -0.002_999_549,
        0.022_052_03,
        -0.103_566_95,
        -0.637_599_95,
        -1.127_426_1,
        -2.564_366_4e-4,
    ];
    let large = (1.0 - exp::<FUSED>(polynomial::<FUSED, 7>(size, p))).copysign(x);
    if x.abs() < 1.0 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every size and sign, and those around which the functions change their ways.
    fn numbers() -> impl Iterator<Item = f32> {
        let fine = (-60_000..60_000).map(|step| step as f32 * 2e-3);
        let powers = (-149..128).flat_map(|power| [2f32.powi(power), -2f32.powi(power)]);
        let ends = [0.0, -0.0, 0.65, 1.0, 4.0, 88.7, 88.8, 89.5, -87.4, -103.9, -104.5];
        fine.chain(powers).chain(ends).chain([f32::INFINITY, f32::NEG_INFINITY])
    }

    /// The largest distance from libm's answer in units in the last place of it, of numbers above the smallest normal one.
    fn units(of: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let distance = |x: f32| {
            let (got, want) = (f64::from(of(x)), exact(f64::from(x)));
            let rounded = want as f32;
            if f64::from(rounded) == got || (rounded.is_infinite() && got >= f64::from(f32::MAX)) {
                return 0.0;
            }
            let smallest = f64::from(f32::MIN_POSITIVE);
            if want.abs() < smallest && got.abs() <= smallest {
                return 0.0;
            }
            let unit = f64::from(f32::EPSILON) * want.abs().max(f64::from(f32::MIN_POSITIVE));
            (got - want).abs() / unit
        };
        numbers().map(distance).fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_a_few_units_from_exact() {
        assert!(units(exp::<true>, f64::exp) < 2.0, "{}", units(exp::<true>, f64::exp));
        assert!(units(exp::<false>, f64::exp) < 2.0, "{}", units(exp::<false>, f64::exp));
        assert!(units(tanh::<true>, f64::tanh) < 3.0, "{}", units(tanh::<true>, f64::tanh));
        assert!(units(erf::<true>, libm::erf) < 3.0, "{}", units(erf::<true>, libm::erf));
        let exact = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(units(sigmoid::<true>, exact) < 4.0, "{}", units(sigmoid::<true>, exact));
    }

    #[test]
    fn a_nan_stays_and_an_infinity_is_a_limit() {
        for function in [exp::<true>, tanh::<true>, erf::<true>, sigmoid::<true>, exp::<false>] {
            assert!(function(f32::NAN).is_nan());
        }
        assert_eq!([exp::<true>(f32::NEG_INFINITY), exp::<true>(f32::INFINITY)], [0.0, f32::INFINITY]);
        assert_eq!([tanh::<true>(f32::NEG_INFINITY), erf::<true>(f32::INFINITY)], [-1.0, 1.0]);
        assert_eq!([sigmoid::<true>(f32::NEG_INFINITY), sigmoid::<true>(f32::INFINITY)], [0.0, 1.0]);
    }
}
