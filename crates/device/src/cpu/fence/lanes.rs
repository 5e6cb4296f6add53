//! A vector of numbers in one register, as the tile needs it: loads, one multiply-add, stores of a part.
//!
//! Everything here is `unsafe` for two reasons: the instructions must be there, which whoever is compiled for them has checked, and
//! pointers must be good for as many numbers as a function says.

/// So many numbers in one register.
pub(super) trait Lanes: Copy {
    /// How many.
    const COUNT: usize;

    /// All the same. Safety: the instructions are there.
    unsafe fn splat(x: f32) -> Self;
    /// Reads [`Self::COUNT`] numbers. Safety: they are there.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads the first `count` (at most [`Self::COUNT`]) and touches no other; the rest is zero. Safety: they are there.
    unsafe fn load_some(from: *const f32, count: usize) -> Self;
    /// Writes [`Self::COUNT`] numbers. Safety: they are there, and ours to write.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count` and touches no other. Safety: they are there, and ours to write.
    unsafe fn store_some(self, to: *mut f32, count: usize);
    /// `self · by + to`, in one rounding where the processor can.
    unsafe fn multiply_add(self, by: Self, to: Self) -> Self;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `low` where `self` is less; a NaN stays.
    unsafe fn at_least(self, low: Self) -> Self;
    /// `high` where `self` is more; a NaN stays.
    unsafe fn at_most(self, high: Self) -> Self;
}

/// Asks for the line at `at` to be brought nearer. It may point anywhere: nothing is read that could fail.
#[inline(always)]
pub(super) fn ask_for(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint to the cache; the instruction is the architecture's.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Four numbers in plain Rust, for processors with no more than the architecture promises (NEON among them).
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Four([f32; 4]);

impl Four {
    #[inline(always)]
    fn each(self, other: Four, value: impl Fn(f32, f32) -> f32) -> Four {
        let ([a, b, c, d], [p, q, r, s]) = (self.0, other.0);
        Four([value(a, p), value(b, q), value(c, r), value(d, s)])
    }
}

impl Lanes for Four {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Four {
        Four([x; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Four {
        // SAFETY: the caller's duty; arrays of f32 are aligned as f32.
        Four(unsafe { *from.cast::<[f32; 4]>() })
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Four {
        if count == 4 {
            // SAFETY: the caller's duty.
            return unsafe { Four::load(from) };
        }
        let mut four = [0.0; 4];
        // SAFETY: the caller's duty; `four` is our own and has room for as many.
        unsafe { from.copy_to_nonoverlapping(four.as_mut_ptr(), count) };
        Four(four)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's duty; arrays of f32 are aligned as f32.
        unsafe { *to.cast::<[f32; 4]>() = self.0 };
    }

    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's duty; `self` has as many.
        unsafe { self.0.as_ptr().copy_to_nonoverlapping(to, count) };
    }

    #[inline(always)]
    unsafe fn multiply_add(self, by: Four, to: Four) -> Four {
        let ([a, b, c, d], [p, q, r, s], [w, x, y, z]) = (self.0, by.0, to.0);
        let fused = super::multiply_add::<{ super::BASELINE_FUSES }>;
        Four([fused(a, p, w), fused(b, q, x), fused(c, r, y), fused(d, s, z)])
    }

    #[inline(always)]
    unsafe fn add(self, other: Four) -> Four {
        self.each(other, |x, y| x + y)
    }

    #[inline(always)]
    unsafe fn at_least(self, low: Four) -> Four {
        self.each(low, |x, low| if x < low { low } else { x })
    }

    #[inline(always)]
    unsafe fn at_most(self, high: Four) -> Four {
        self.each(high, |x, high| if x > high { high } else { x })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// What AVX-512 and AVX2 spell alike. `max(low, x)` and `min(high, x)` answer `x` where either is NaN, which is what is asked for.
    macro_rules! alike {
        ($splat:ident $load:ident $store:ident $fused:ident $add:ident $max:ident $min:ident) => {
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: the caller has checked the instructions.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller's duty; no alignment is asked for.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller's duty; no alignment is asked for.
                unsafe { $store(to, self) };
            }

            #[inline(always)]
            unsafe fn multiply_add(self, by: Self, to: Self) -> Self {
                // SAFETY: the caller has checked the instructions.
                unsafe { $fused(self, by, to) }
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller has checked the instructions.
                unsafe { $add(self, other) }
            }

            #[inline(always)]
            unsafe fn at_least(self, low: Self) -> Self {
                // SAFETY: the caller has checked the instructions.
                unsafe { $max(low, self) }
            }

            #[inline(always)]
            unsafe fn at_most(self, high: Self) -> Self {
                // SAFETY: the caller has checked the instructions.
                unsafe { $min(high, self) }
            }
        };
    }

    impl Lanes for __m512 {
        const COUNT: usize = 16;

        alike!(_mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_add_ps _mm512_max_ps _mm512_min_ps);

        #[inline(always)]
        unsafe fn load_some(from: *const f32, count: usize) -> Self {
            // SAFETY: the caller's duty; what the mask leaves out is not touched.
            unsafe { _mm512_maskz_loadu_ps(first(count), from) }
        }

        #[inline(always)]
        unsafe fn store_some(self, to: *mut f32, count: usize) {
            // SAFETY: the caller's duty; what the mask leaves out is not touched.
            unsafe { _mm512_mask_storeu_ps(to, first(count), self) };
        }
    }

    /// A mask of the first `count` of sixteen.
    #[inline(always)]
    fn first(count: usize) -> u16 {
        ((1u32 << count) - 1) as u16
    }

    impl Lanes for __m256 {
        const COUNT: usize = 8;

        alike!(_mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps _mm256_add_ps _mm256_max_ps _mm256_min_ps);

        #[inline(always)]
        unsafe fn load_some(from: *const f32, count: usize) -> Self {
            // SAFETY: the caller's duty; what the mask leaves out is not touched.
            unsafe { _mm256_maskload_ps(from, first_of_eight(count)) }
        }

        #[inline(always)]
        unsafe fn store_some(self, to: *mut f32, count: usize) {
            // SAFETY: the caller's duty; what the mask leaves out is not touched.
            unsafe { _mm256_maskstore_ps(to, first_of_eight(count), self) };
        }
    }

    /// A mask of the first `count` (at most eight) of eight.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[inline(always)]
    unsafe fn first_of_eight(count: usize) -> __m256i {
        static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        let from = MASKS[8 - count..].as_ptr();
        // SAFETY: at least eight numbers follow; no alignment is asked for.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
}
