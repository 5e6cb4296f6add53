//! The CPU's fence: the one place of this crate where `unsafe` may be said.
//!
//! Kernels are plain Rust loops marked `#[inline(always)]`; here they are compiled once per set of vector instructions and the
//! best set that the processor has is chosen at run time. The loops fix the order of every sum, so the choice decides
//! speed and, through fused multiply-add, the last bit; on one machine it never changes.
//!
//! The one kernel whose registers we choose ourselves is the [`tile`] of the matrix product.
//!
//! Threads that share a step write [`rows`] of one output side by side, and borrow what the thread that [lends](lent) it has on its stack.
//!
//! Weights and arenas are memory of the process, so what the allocator does with freed blocks is the device's affair too.

// Calling a function compiled for instructions that were checked to be there, and one of the C library; what is shared between threads.
#![allow(unsafe_code)]

mod burst;
mod lanes;
mod lent;
mod rows;
mod tile;

pub(crate) use burst::burst;
pub(crate) use lent::{Lent, lend};
pub(crate) use rows::Rows;
pub(crate) use tile::{Clip, Ending, Factors, Piece, Strip, WIDTH};

use std::sync::OnceLock;

/// Has large blocks given back to the system as soon as they are freed.
///
/// Left alone, glibc raises its thresholds with every large block that is freed, up to 32 MiB, and then keeps up to twice as
/// much in each arena that threads allocate from: with 200 tenants the process held 1.37 times its weights and arenas,
/// with fixed thresholds 1.06 times (2026-11-25). Other allocators need no such word, and hear none.
pub(crate) fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        // As in malloc.h. Setting one ends the raising of both.
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_THRESHOLD: c_int = -3;
        /// Larger than most requests, whose buffers are better kept for the next one; smaller than most models.
        const LARGE: c_int = 256 << 10;
        // SAFETY: declared as in malloc.h. It takes and returns numbers; the two thresholds are words that `free` itself changes
        // from any thread.
        unsafe extern "C" {
            safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // It fails for parameters that it does not know, and then nothing is lost but memory.
        mallopt(M_MMAP_THRESHOLD, LARGE);
        mallopt(M_TRIM_THRESHOLD, LARGE);
    }
}

/// Vector instructions that kernels are compiled for, best last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Isa {
    /// What every processor of the architecture has.
    Baseline,
    /// x86-64 with AVX2 and fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 F, VL and DQ.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Names the best set that may be used, for measurements of what a processor without the better ones would do.
const LIMIT: &str = "TESSERA_CPU_ISA";

impl Isa {
    /// The best set of this processor, no better than [`LIMIT`] allows. The same for as long as the process lives.
    pub(crate) fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let has = Isa::of_processor();
            // Whoever opens a device has heard of a word that means nothing.
            Isa::limit().ok().flatten().map_or(has, |limit| limit.min(has))
        })
    }

    /// What [`LIMIT`] names, if it is set. The error says which words it takes.
    pub(crate) fn limit() -> Result<Option<Isa>, String> {
        let word = std::env::var_os(LIMIT).filter(|word| !word.is_empty());
        word.map(|word| Isa::named(&word.to_string_lossy())).transpose()
    }

    fn named(word: &str) -> Result<Isa, String> {
        match word {
            "baseline" => Ok(Isa::Baseline),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Ok(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            "avx512" => Ok(Isa::Avx512),
            _ => Err(format!(
                "{LIMIT} is `{word}`; it takes `baseline` and, on x86-64, `avx2` or `avx512`; unset it for the best there is"
            )),
        }
    }

    fn of_processor() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            if fma && wide {
                return Isa::Avx512;
            }
            if fma {
                return Isa::Avx2;
            }
        }
        Isa::Baseline
    }

    /// The sets that this processor has.
    #[cfg(test)]
    fn available() -> Vec<Isa> {
        let all = [
            Isa::Baseline,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512,
        ];
        // A processor that has a set has those before it.
        all.into_iter().filter(|isa| *isa <= Isa::best()).collect()
    }

    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "AVX2 and FMA",
            Isa::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            Isa::Baseline => "no vector instructions beyond the architecture's",
        }
    }
}

/// Whether the baseline has a fused multiply-add in hardware; without one, products are rounded before they are added.
pub(crate) const BASELINE_FUSES: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Work that is compiled for every set of instructions. `run` must be `#[inline(always)]` with everything that it calls.
pub(crate) trait Kernel {
    /// Does the work. `FUSED` says whether multiply-adds are one instruction here.
    fn run<const FUSED: bool>(self);
}

/// Runs a kernel with the best instructions that there are.
#[inline]
pub(crate) fn dispatch<K: Kernel>(kernel: K) {
    match Isa::best() {
        Isa::Baseline => kernel.run::<BASELINE_FUSES>(),
        // SAFETY: `Isa::best` returns Avx2 only when the processor reported AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2(kernel) },
        // SAFETY: `Isa::best` returns Avx512 only when the processor reported every feature named on `avx512`.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512(kernel) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<K: Kernel>(kernel: K) {
    kernel.run::<true>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
fn avx512<K: Kernel>(kernel: K) {
    kernel.run::<true>();
}

/// `a·b + c`, in one rounding where the processor can.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_set_of_instructions_and_another_word_is_told_which_there_are() {
        assert_eq!(Isa::named("baseline"), Ok(Isa::Baseline));
        let error = Isa::named("sse9").unwrap_err();
        assert!(error.contains("TESSERA_CPU_ISA is `sse9`; it takes `baseline`"), "{error}");
    }

    #[test]
    fn the_best_set_is_one_that_the_processor_has_and_within_the_limit() {
        let limit = Isa::limit().expect("tests run with a limit that means something, or none");
        assert!(Isa::best() <= Isa::of_processor());
        assert!(limit.is_none_or(|limit| Isa::best() <= limit));
    }
}
