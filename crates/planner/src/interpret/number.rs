//! Arithmetic of numbers of any type, for steps that work on all of them.

use crate::op::Scatter;
use crate::tensor::Element;

/// What orders, scatters and running sums do with numbers of one type. Integers wrap.
pub trait Number: Element + PartialOrd {
    /// Nothing.
    const ZERO: Self;
    /// The sum.
    fn add(self, other: Self) -> Self;
    /// The product.
    fn mul(self, other: Self) -> Self;

    /// Whether it is no number at all.
    fn is_nan(self) -> bool {
        self.partial_cmp(&self).is_none()
    }

    /// Whether it comes before another among the largest or the smallest: a NaN before every number.
    fn comes_before(self, other: Self, largest: bool) -> bool {
        match (self.is_nan(), other.is_nan()) {
            (false, false) if largest => self > other,
            (false, false) => self < other,
            (own, other) => own && !other,
        }
    }

    /// What becomes of it when a scatter brings an update.
    fn updated(self, update: Self, how: Scatter) -> Self {
        match how {
            Scatter::Replace => update,
            Scatter::Add => self.add(update),
            Scatter::Mul => self.mul(update),
            // The larger and the smaller of anything and NaN is NaN.
            Scatter::Max if self.is_nan() || self > update => self,
            Scatter::Min if self.is_nan() || self < update => self,
            Scatter::Max | Scatter::Min => update,
        }
    }
}

macro_rules! numbers {
    ($($rust:ty: $zero:expr, $add:expr, $mul:expr);*) => {$(
        impl Number for $rust {
            const ZERO: Self = $zero;
            fn add(self, other: Self) -> Self {
                $add(self, other)
            }
            fn mul(self, other: Self) -> Self {
                $mul(self, other)
            }
        }
    )*};
}
numbers!(u8: 0, u8::wrapping_add, u8::wrapping_mul; u16: 0, u16::wrapping_add, u16::wrapping_mul;
         u32: 0, u32::wrapping_add, u32::wrapping_mul; u64: 0, u64::wrapping_add, u64::wrapping_mul;
         i8: 0, i8::wrapping_add, i8::wrapping_mul; i16: 0, i16::wrapping_add, i16::wrapping_mul;
         i32: 0, i32::wrapping_add, i32::wrapping_mul; i64: 0, i64::wrapping_add, i64::wrapping_mul;
         f32: 0.0, std::ops::Add::add, std::ops::Mul::mul; f64: 0.0, std::ops::Add::add, std::ops::Mul::mul);
