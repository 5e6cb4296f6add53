//! What hardware can do at best.

use tessera_core::Precision;

/// What hardware can do at best.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// Floating-point operations per second, a multiply-add being two.
    pub flops_per_s: f64,
    /// Bytes read from memory per second.
    pub bytes_per_s: f64,
}

impl Rates {
    /// What was measured on a card like the one described; `None` for a card that nobody measured.
    ///
    /// On an H200 2026-11-23: a large matrix product gave 790 TFLOP/s in bf16 and 390 in tf32, a large copy 4.3 TB/s; fp32 is the data sheet's 67. An H100
    /// has the same processor, and 3.35 TB/s on its data sheet, of which a copy reaches about nine tenths.
    pub fn of_card(description: &str, precision: Precision) -> Option<Rates> {
        let flops_per_s = match precision {
            Precision::Fp32 => 67e12,
            Precision::Tf32 => 390e12,
            Precision::Bf16 | Precision::Fp16 => 790e12,
        };
        let bytes_per_s = match description {
            card if card.contains("H200") => 4300e9,
            card if card.contains("H100") => 3000e9,
            _ => return None,
        };
        Some(Rates { flops_per_s, bytes_per_s })
    }
}
