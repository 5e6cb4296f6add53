//! What names a plan: a class, the values of its free dimensions, a precision.

use crate::{ClassId, DType};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How numbers are held and multiplied in a plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Precision {
    /// Strict IEEE single precision. The only one of the CPU device.
    #[default]
    Fp32,
    /// Singles in memory, multiplied with 10-bit mantissas on tensor cores.
    Tf32,
    /// bfloat16 in memory, accumulated in single precision.
    Bf16,
    /// Half in memory, accumulated in single precision.
    Fp16,
}

impl Precision {
    /// Every precision, most exact first.
    pub const ALL: [Precision; 4] = [Precision::Fp32, Precision::Tf32, Precision::Bf16, Precision::Fp16];

    /// The word used in settings and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            Precision::Fp16 => "fp16",
        }
    }
}

impl Precision {
    /// The type in which a device of this precision holds values of `dtype`: a network's floats (f32) are halves in bf16 and
    /// fp16; everything else is held as it is. Sums are f32 in every precision.
    pub const fn stored(self, dtype: DType) -> DType {
        match (self, dtype) {
            (Precision::Bf16, DType::F32) => DType::BF16,
            (Precision::Fp16, DType::F32) => DType::F16,
            _ => dtype,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;
    fn from_str(word: &str) -> Result<Precision, String> {
        let known = Precision::ALL.into_iter().find(|precision| precision.name() == word);
        known.ok_or_else(|| format!("`{word}` is not a precision; choose fp32, tf32, bf16 or fp16"))
    }
}

/// Names one plan. Requests with equal keys can share a launch; others never do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PlanKey {
    /// The architecture.
    pub class: ClassId,
    /// The values of the class's free dimensions, in the class's order (see `planner::Class::free_dims`). The
    /// item count is not among them when items are batched; it is when they cannot be.
    pub dims: Arc<[u64]>,
    /// How numbers are held.
    pub precision: Precision,
}

impl fmt::Display for PlanKey {
    /// `1f3a9c20[8×128]/fp32`; no brackets when there are no free dimensions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.class)?;
        if !self.dims.is_empty() {
            let dims: Vec<String> = self.dims.iter().map(u64::to_string).collect();
            write!(f, "[{}]", dims.join("×"))?;
        }
        write!(f, "/{}", self.precision)
    }
}
