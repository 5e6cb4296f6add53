//! How many operations a core can do: multiply-adds that wait for nothing, in as many registers as hide their latency.

use super::Isa;
use super::lanes::{Four, Lanes};
use std::hint::black_box;

/// Registers of sums: fewer than any set of instructions has, more than the latency times the units of any core.
const SUMS: usize = 12;

/// Does `rounds` rounds of multiply-adds with this processor's best instructions. The operations done, a multiply-add being two.
pub(crate) fn burst(rounds: usize) -> f64 {
    let lanes = match Isa::best() {
        // SAFETY: `Isa::best` returns a set of instructions only when the processor has them.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512(rounds) },
        // SAFETY: likewise.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2(rounds) },
        // SAFETY: it needs no instructions beyond the architecture's.
        Isa::Baseline => unsafe { run::<Four>(rounds) },
    };
    (2 * SUMS * lanes * rounds) as f64
}

/// # Safety
/// The processor has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512(rounds: usize) -> usize {
    // SAFETY: the caller's.
    unsafe { run::<std::arch::x86_64::__m512>(rounds) }
}

/// # Safety
/// The processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(rounds: usize) -> usize {
    // SAFETY: the caller's.
    unsafe { run::<std::arch::x86_64::__m256>(rounds) }
}

/// The numbers in a register.
///
/// # Safety
/// The instructions of `V` are there.
#[inline(always)]
unsafe fn run<V: Lanes>(rounds: usize) -> usize {
    // SAFETY: the caller's; the one store is to an array of our own that has room for the widest register.
    unsafe {
        let (factor, term) = (V::splat(black_box(0.5)), V::splat(black_box(1.0)));
        let mut sums = [term; SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.multiply_add(factor, term);
            }
        }
        let mut all = V::splat(0.0);
        for sum in sums {
            all = all.add(sum);
        }
        let mut out = [0.0f32; 16];
        all.store(out.as_mut_ptr());
        black_box(out);
    }
    V::COUNT
}
