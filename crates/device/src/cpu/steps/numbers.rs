//! Steps that work on numbers of any type, one compiled function for each.

use tessera_core::DType;

/// Calls a function for the Rust type of a number; does nothing for types that [`refusal`] has refused.
macro_rules! of_number {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            tessera_core::DType::U8 => $function::<u8>($($argument),*),
            tessera_core::DType::U16 => $function::<u16>($($argument),*),
            tessera_core::DType::U32 => $function::<u32>($($argument),*),
            tessera_core::DType::U64 => $function::<u64>($($argument),*),
            tessera_core::DType::I8 => $function::<i8>($($argument),*),
            tessera_core::DType::I16 => $function::<i16>($($argument),*),
            tessera_core::DType::I32 => $function::<i32>($($argument),*),
            tessera_core::DType::I64 => $function::<i64>($($argument),*),
            tessera_core::DType::F32 => $function::<f32>($($argument),*),
            tessera_core::DType::F64 => $function::<f64>($($argument),*),
            tessera_core::DType::Bool | tessera_core::DType::F16 | tessera_core::DType::BF16 => {}
        }
    };
}
pub(super) use of_number;

/// Why a step on numbers cannot be run on elements of a type.
pub(super) fn refusal(dtype: DType) -> Option<String> {
    let held = matches!(dtype, DType::Bool | DType::F16 | DType::BF16);
    held.then(|| format!("elements of {dtype} are not compared or added; cast to f32 before it"))
}
