//! Chains of element-wise operators, a block at a time: each instruction runs over a block of elements before the next one,
//! so that the loop over elements is the inner one and vectorises.

use super::walk::walk;
use super::{Bench, Reads, activation};
use tessera_core::DType;
use tessera_planner::element;
use tessera_planner::op::{Binary, Unary};
use tessera_planner::plan::{Access, ElementOp, Operand, StepKind};

/// Elements per block: every register of a chain of a dozen stays in the first-level cache.
const BLOCK: usize = 256;

/// What a register holds: floats, or integers and booleans widened to i64 (wrapped to their own width after each operator).
enum Register {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}
use Register::{Floats, Integers};

/// Why the chain cannot run here.
pub(super) fn refusal(inputs: &[DType], program: &[ElementOp]) -> Option<String> {
    element::types(inputs, program).err().map(|error| error.to_string())
}

pub(super) fn elementwise(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Elementwise { dims, inputs, program, out } = kind else { return };
    let items = bench.items;
    let (reads, [out_words], ..) = bench.open([*out]);
    let input_types: Vec<DType> = inputs.iter().map(|access| reads.dtype(access.operand)).collect();
    // Checked when the program was made.
    let Ok(types) = element::types(&input_types, program) else { return };
    let count: usize = dims.iter().product();
    let mut registers: Vec<Register> = Vec::with_capacity(program.len());
    let offsets: Vec<Option<Vec<usize>>> = inputs.iter().map(|access| scattered(access, dims)).collect();
    for item in 0..items {
        for first in (0..count).step_by(BLOCK) {
            let length = BLOCK.min(count - first);
            registers.clear();
            for (instruction, dtype) in program.iter().zip(&types) {
                let register = match *instruction {
                    ElementOp::Load(input) => {
                        let places = match &offsets[input] {
                            Some(offsets) => Places::These(&offsets[first..first + length]),
                            None => Places::Row(inputs[input].offset + first, length),
                        };
                        load(&reads, inputs[input].operand, item, places)
                    }
                    ElementOp::Float(x) => Floats(vec![x; length]),
                    ElementOp::Int(x) => Integers(vec![x; length]),
                    ElementOp::Bool(x) => Integers(vec![i64::from(x); length]),
                    ElementOp::Unary(function, of) => unary(function, &registers[of]),
                    ElementOp::Binary(function, a, b) => binary(function, &registers[a], &registers[b]),
                    ElementOp::Select(condition, yes, no) => {
                        select(&registers[condition], &registers[yes], &registers[no])
                    }
                    ElementOp::Cast(to, of) => cast(to, &registers[of]),
                };
                registers.push(wrapped(register, *dtype));
            }
            let (Some(last), Some(dtype)) = (registers.last(), types.last()) else { return };
            store(out_words, item * count + first, last, *dtype);
        }
    }
}

/// The offsets of a walk, or `None` when it is the dense one.
fn scattered(access: &Access, dims: &[usize]) -> Option<Vec<usize>> {
    let mut dense = 1;
    let is_dense = dims.iter().zip(&access.strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == dense;
        dense *= dim as isize;
        fits
    });
    if is_dense {
        return None;
    }
    let mut offsets = Vec::with_capacity(dims.iter().product());
    walk(dims, &access.strides, access.offset as isize, |at| offsets.push(at));
    Some(offsets)
}

/// Where a block's elements lie.
#[derive(Clone, Copy)]
enum Places<'a> {
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

fn load(reads: &Reads<'_>, operand: Operand, item: usize, places: Places<'_>) -> Register {
    macro_rules! integers {
        ($rust:ty) => {
            Integers(places.of(reads.source::<$rust>(operand).at(item), i64::from))
        };
    }
    match reads.dtype(operand) {
        DType::F32 => Floats(places.of(reads.source::<f32>(operand).at(item), |x| x)),
        DType::I64 => integers!(i64),
        DType::I32 => integers!(i32),
        DType::I8 => integers!(i8),
        _ => integers!(u8), // u8, and bool as 0 and 1
    }
}

fn store(out: &mut [u64], first: usize, register: &Register, dtype: DType) {
    macro_rules! integers {
        ($rust:ty, $x:expr) => {{
            let out: &mut [$rust] = &mut bytemuck::cast_slice_mut(out)[first..first + $x.len()];
            out.iter_mut().zip($x).for_each(|(out, x)| *out = *x as $rust);
        }};
    }
    match (register, dtype) {
        (Floats(x), _) => {
            bytemuck::cast_slice_mut::<u64, f32>(out)[first..first + x.len()].copy_from_slice(x);
        }
        (Integers(x), DType::I64) => integers!(i64, x),
        (Integers(x), DType::I32) => integers!(i32, x),
        (Integers(x), DType::I8) => integers!(i8, x),
        (Integers(x), _) => integers!(u8, x),
    }
}

/// Integers brought back to the width of their type.
fn wrapped(register: Register, dtype: DType) -> Register {
    match (register, dtype) {
        (Integers(x), DType::I32) => Integers(x.into_iter().map(|x| i64::from(x as i32)).collect()),
        (Integers(x), DType::I8) => Integers(x.into_iter().map(|x| i64::from(x as i8)).collect()),
        (Integers(x), DType::U8) => Integers(x.into_iter().map(|x| i64::from(x as u8)).collect()),
        (register, _) => register,
    }
}

fn unary(function: Unary, x: &Register) -> Register {
    match x {
        Floats(x) => {
            let mut x = x.clone();
            activation::unary(function, &mut x);
            Floats(x)
        }
        Integers(x) => Integers(
            x.iter()
                .map(|&x| match function {
                    Unary::Not => i64::from(x == 0),
                    Unary::Abs => x.wrapping_abs(),
                    Unary::Neg => x.wrapping_neg(),
                    // The typing rules leave only `Sign`.
                    _ => x.signum(),
                })
                .collect(),
        ),
    }
}

fn binary(function: Binary, a: &Register, b: &Register) -> Register {
    match (a, b) {
        (Floats(a), Floats(b)) if function.is_comparison() => {
            Integers(a.iter().zip(b).map(|(a, b)| i64::from(compare(function, a, b))).collect())
        }
        (Integers(a), Integers(b)) if function.is_comparison() => {
            Integers(a.iter().zip(b).map(|(a, b)| i64::from(compare(function, a, b))).collect())
        }
        (Floats(a), Floats(b)) => Floats(floats(function, a, b)),
        (Integers(a), Integers(b)) => {
            Integers(a.iter().zip(b).map(|(a, b)| integer(function, *a, *b)).collect())
        }
        // The typing rules leave no mixture.
        (Floats(_), Integers(_)) | (Integers(_), Floats(_)) => Floats(Vec::new()),
    }
}

fn compare<T: PartialOrd>(function: Binary, a: &T, b: &T) -> bool {
    match function {
        Binary::Greater => a > b,
        Binary::GreaterOrEqual => a >= b,
        Binary::Less => a < b,
        Binary::LessOrEqual => a <= b,
        _ => a == b,
    }
}

fn floats(function: Binary, a: &[f32], b: &[f32]) -> Vec<f32> {
    // The match is outside the loop: one function per call.
    let each = |value: fn(f32, f32) -> f32| a.iter().zip(b).map(|(a, b)| value(*a, *b)).collect();
    match function {
        Binary::Add => a.iter().zip(b).map(|(a, b)| a + b).collect(),
        Binary::Sub => a.iter().zip(b).map(|(a, b)| a - b).collect(),
        Binary::Mul => a.iter().zip(b).map(|(a, b)| a * b).collect(),
        Binary::Div => a.iter().zip(b).map(|(a, b)| a / b).collect(),
        Binary::Pow => each(f32::powf),
        Binary::Min => each(|a, b| if a.is_nan() || a < b { a } else { b }),
        Binary::Max => each(|a, b| if a.is_nan() || a > b { a } else { b }),
        Binary::Mod { fmod: true } => each(|a, b| a % b),
        // The typing rules leave only the remainder with the divisor's sign.
        _ => each(|a, b| {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }),
    }
}

fn integer(function: Binary, a: i64, b: i64) -> i64 {
    match function {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Pow => power(a, b),
        Binary::Div | Binary::Mod { .. } if b == 0 => 0,
        Binary::Div => a.wrapping_div(b),
        Binary::Mod { fmod: true } => a.wrapping_rem(b),
        // The typing rules leave only the remainder with the divisor's sign.
        _ => {
            let rest = a.wrapping_rem(b);
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }
    }
}

/// Wrapping; a negative exponent gives the integer part of the fraction.
fn power(base: i64, exponent: i64) -> i64 {
    match u32::try_from(exponent) {
        Ok(exponent) => base.wrapping_pow(exponent),
        Err(_) if base == 1 || (base == -1 && exponent % 2 == 0) => 1,
        Err(_) if base == -1 => -1,
        // Beyond 32 bits an even base has wrapped to zero; odd ones go round, which repeated squaring would find.
        Err(_) if exponent < 0 || base % 2 == 0 => 0,
        Err(_) => {
            let (mut result, mut square, mut left) = (1i64, base, exponent);
            while left > 0 {
                if left & 1 == 1 {
                    result = result.wrapping_mul(square);
                }
                square = square.wrapping_mul(square);
                left >>= 1;
            }
            result
        }
    }
}

fn select(condition: &Register, yes: &Register, no: &Register) -> Register {
    let Integers(condition) = condition else { return Floats(Vec::new()) }; // a condition is boolean
    fn pick<T: Copy>(condition: &[i64], yes: &[T], no: &[T]) -> Vec<T> {
        condition
            .iter()
            .zip(yes.iter().zip(no))
            .map(|(c, (yes, no))| if *c != 0 { *yes } else { *no })
            .collect()
    }
    match (yes, no) {
        (Floats(yes), Floats(no)) => Floats(pick(condition, yes, no)),
        (Integers(yes), Integers(no)) => Integers(pick(condition, yes, no)),
        (Floats(_), Integers(_)) | (Integers(_), Floats(_)) => Floats(Vec::new()),
    }
}

fn cast(to: DType, from: &Register) -> Register {
    match (to, from) {
        (DType::F32, Floats(x)) => Floats(x.clone()),
        (DType::F32, Integers(x)) => Floats(x.iter().map(|x| *x as f32).collect()),
        (DType::Bool, Floats(x)) => Integers(x.iter().map(|x| i64::from(*x != 0.0)).collect()),
        (DType::Bool, Integers(x)) => Integers(x.iter().map(|x| i64::from(*x != 0)).collect()),
        // Toward zero and saturating at the target's own bounds, as Rust's `as`.
        (DType::U8, Floats(x)) => Integers(x.iter().map(|x| i64::from(*x as u8)).collect()),
        (DType::I8, Floats(x)) => Integers(x.iter().map(|x| i64::from(*x as i8)).collect()),
        (DType::I32, Floats(x)) => Integers(x.iter().map(|x| i64::from(*x as i32)).collect()),
        (_, Floats(x)) => Integers(x.iter().map(|x| *x as i64).collect()),
        (_, Integers(x)) => Integers(x.clone()),
    }
}
