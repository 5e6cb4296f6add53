//! What a register of a chain holds for a block of elements, and how it comes from memory and goes back.

use super::Reads;
use half::{bf16, f16};
use tessera_core::DType;
use tessera_planner::integer::{self, Integer, compare};
use tessera_planner::op::{Binary, Unary};
use tessera_planner::plan::Operand;

/// Floats, or integers of any width and booleans: their bits as an i64, wrapped to their own width after each operator.
pub(super) enum Register {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}
use Register::{Floats, Integers};

/// Where a block's elements lie.
#[derive(Clone, Copy)]
pub(super) enum Places<'a> {
    /// One after the other: the first, and how many.
    Row(usize, usize),
    These(&'a [usize]),
}

impl Places<'_> {
    fn of<T: Copy, R>(self, x: &[T], widen: impl Fn(T) -> R) -> Vec<R> {
        match self {
            Places::Row(first, length) => x[first..first + length].iter().map(|&x| widen(x)).collect(),
            Places::These(offsets) => offsets.iter().map(|&at| widen(x[at])).collect(),
        }
    }
}

/// Calls a function for the Rust type of an integer's datatype; booleans are bytes.
macro_rules! of_width {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::U16 => $function::<u16>($($argument),*),
            DType::U32 => $function::<u32>($($argument),*),
            DType::U64 => $function::<u64>($($argument),*),
            DType::I8 => $function::<i8>($($argument),*),
            DType::I16 => $function::<i16>($($argument),*),
            DType::I32 => $function::<i32>($($argument),*),
            DType::I64 => $function::<i64>($($argument),*),
            _ => $function::<u8>($($argument),*),
        }
    };
}

pub(super) fn load(reads: &Reads<'_>, operand: Operand, item: usize, places: Places<'_>) -> Register {
    fn integers<T: Integer + bytemuck::Pod>(
        reads: &Reads<'_>,
        operand: Operand,
        item: usize,
        places: Places<'_>,
    ) -> Register {
        Integers(places.of(reads.source::<T>(operand).at(item), T::widened))
    }
    let dtype = reads.dtype(operand);
    let halves = |widen: fn(u16) -> f32| Floats(places.of(reads.source::<u16>(operand).at(item), widen));
    match dtype {
        DType::F32 => Floats(places.of(reads.source::<f32>(operand).at(item), |x| x)),
        DType::F16 => halves(|bits| f16::from_bits(bits).to_f32()),
        DType::BF16 => halves(|bits| bf16::from_bits(bits).to_f32()),
        DType::F64 => Floats(places.of(reads.source::<f64>(operand).at(item), |x| x as f32)),
        _ => of_width!(dtype, integers(reads, operand, item, places)),
    }
}

/// Writes a block to a buffer of `dtype`, from its element `first` on.
pub(super) fn store(out: &mut [u64], first: usize, register: &Register, dtype: DType) {
    fn each<T: bytemuck::Pod, X: Copy>(out: &mut [u64], first: usize, x: &[X], narrow: impl Fn(X) -> T) {
        let out: &mut [T] = &mut bytemuck::cast_slice_mut(out)[first..first + x.len()];
        out.iter_mut().zip(x).for_each(|(out, x)| *out = narrow(*x));
    }
    fn integers<T: Integer + bytemuck::Pod>(out: &mut [u64], first: usize, x: &[i64]) {
        each(out, first, x, T::narrowed);
    }
    match (register, dtype) {
        (Floats(x), DType::F16) => each(out, first, x, |x| f16::from_f32(x).to_bits()),
        (Floats(x), DType::BF16) => each(out, first, x, |x| bf16::from_f32(x).to_bits()),
        (Floats(x), DType::F64) => each(out, first, x, f64::from),
        (Floats(x), _) => each(out, first, x, |x| x),
        (Integers(x), _) => of_width!(dtype, integers(out, first, x)),
    }
}

/// A function of integers of type `dtype`, or of booleans.
pub(super) fn unary(function: Unary, dtype: DType, x: &[i64]) -> Vec<i64> {
    fn each<T: Integer>(function: Unary, x: &[i64]) -> Vec<i64> {
        x.iter().map(|&x| integer::unary(function, T::narrowed(x)).widened()).collect()
    }
    match function {
        Unary::Not => x.iter().map(|&x| i64::from(x == 0)).collect(),
        _ => of_width!(dtype, each(function, x)),
    }
}

/// A function of two integers of type `dtype`, or of booleans.
pub(super) fn binary(function: Binary, dtype: DType, a: &[i64], b: &[i64]) -> Vec<i64> {
    fn each<T: Integer>(function: Binary, a: &[i64], b: &[i64]) -> Vec<i64> {
        let pairs = a.iter().zip(b).map(|(&a, &b)| (T::narrowed(a), T::narrowed(b)));
        match function.is_comparison() {
            true => pairs.map(|(a, b)| i64::from(compare(function, &a, &b))).collect(),
            false => pairs.map(|(a, b)| integer::binary(function, a, b).widened()).collect(),
        }
    }
    let bits = |combine: fn(i64, i64) -> i64| a.iter().zip(b).map(|(&a, &b)| combine(a, b)).collect();
    match function {
        Binary::And => bits(|a, b| a & b),
        Binary::Or => bits(|a, b| a | b),
        Binary::Xor => bits(|a, b| a ^ b),
        _ => of_width!(dtype, each(function, a, b)),
    }
}

/// A register of type `from` as type `to`.
pub(super) fn cast(to: DType, from: DType, x: &Register) -> Register {
    fn narrowed<T: Integer>(x: &[i64]) -> Vec<i64> {
        x.iter().map(|&x| T::narrowed(x).widened()).collect()
    }
    fn truncated<T: Integer>(x: &[f32]) -> Vec<i64> {
        x.iter().map(|&x| T::truncated(x).widened()).collect()
    }
    fn floats<T: Integer>(x: &[i64]) -> Vec<f32> {
        x.iter().map(|&x| T::narrowed(x).float()).collect()
    }
    match (to, x) {
        (DType::F32, Floats(x)) => Floats(x.clone()),
        (DType::F32, Integers(x)) => Floats(of_width!(from, floats(x))),
        (DType::Bool, Floats(x)) => Integers(x.iter().map(|x| i64::from(*x != 0.0)).collect()),
        (DType::Bool, Integers(x)) => Integers(x.iter().map(|x| i64::from(*x != 0)).collect()),
        (_, Floats(x)) => Integers(of_width!(to, truncated(x))),
        (_, Integers(x)) => Integers(of_width!(to, narrowed(x))),
    }
}
