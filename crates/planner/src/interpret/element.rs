//! Element-wise chains, and the functions that they and epilogues are made of.

use super::memory::{Memory, walk};
use crate::op::{Binary, Unary};
use crate::plan::{Access, ElementOp, StepKind};
use crate::tensor::Element;
use tessera_core::DType;

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Register {
    Bool(bool),
    U8(u8),
    I8(i8),
    I32(i32),
    I64(i64),
    F32(f32),
}
use Register::{Bool, F32, I8, I32, I64, U8};

pub(super) fn chain(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Elementwise { dims, inputs, program, out } = kind else {
        unreachable!("called for its own kind")
    };
    let mut columns: Vec<_> = inputs.iter().map(|access| load(memory, access, dims).into_iter()).collect();
    let count: usize = dims.iter().product();
    let mut bytes = Vec::new();
    let mut registers: Vec<Register> = Vec::new();
    for _ in 0..count {
        registers.clear();
        let loaded: Vec<Register> =
            columns.iter_mut().map(|c| c.next().expect("a walk has as many elements as its dims")).collect();
        for &instruction in program {
            registers.push(evaluate(instruction, &registers, |input| loaded[input]));
        }
        match *registers.last().expect("a verified chain has an instruction") {
            Bool(x) => x.write(&mut bytes),
            U8(x) => x.write(&mut bytes),
            I8(x) => x.write(&mut bytes),
            I32(x) => x.write(&mut bytes),
            I64(x) => x.write(&mut bytes),
            F32(x) => x.write(&mut bytes),
        }
    }
    memory.buffer_mut(*out).copy_from_slice(&bytes);
}

fn load(memory: &Memory<'_>, access: &Access, dims: &[usize]) -> Vec<Register> {
    fn read<T: Element>(bytes: &[u8], at: usize) -> T {
        T::read(&bytes[at * T::DTYPE.size()..][..T::DTYPE.size()])
    }
    let bytes = memory.bytes(access.operand);
    let dtype = memory.dtype(access.operand);
    let one = |at| match dtype {
        DType::Bool => Bool(read(bytes, at)),
        DType::U8 => U8(read(bytes, at)),
        DType::I8 => I8(read(bytes, at)),
        DType::I32 => I32(read(bytes, at)),
        DType::I64 => I64(read(bytes, at)),
        DType::F32 => F32(read(bytes, at)),
        other => panic!("a verified chain does not load {other}"),
    };
    walk(access.offset, &access.strides, dims).map(one).collect()
}

fn evaluate(instruction: ElementOp, registers: &[Register], load: impl Fn(usize) -> Register) -> Register {
    match instruction {
        ElementOp::Load(input) => load(input),
        ElementOp::Float(x) => F32(x),
        ElementOp::Int(x) => I64(x),
        ElementOp::Bool(x) => Bool(x),
        ElementOp::Unary(function, of) => match (function, registers[of]) {
            (_, F32(x)) => F32(unary(function, x)),
            (Unary::Not, Bool(x)) => Bool(!x),
            (Unary::Abs, I32(x)) => I32(x.wrapping_abs()),
            (Unary::Abs, I64(x)) => I64(x.wrapping_abs()),
            (Unary::Neg, I32(x)) => I32(x.wrapping_neg()),
            (Unary::Neg, I64(x)) => I64(x.wrapping_neg()),
            (Unary::Sign, I32(x)) => I32(x.signum()),
            (Unary::Sign, I64(x)) => I64(x.signum()),
            (function, register) => panic!("a verified chain has no {function:?} of {register:?}"),
        },
        ElementOp::Binary(function, left, right) => match (registers[left], registers[right]) {
            (F32(a), F32(b)) => compare(function, &a, &b).unwrap_or_else(|| F32(float(function, a, b))),
            (I64(a), I64(b)) => compare(function, &a, &b).unwrap_or_else(|| I64(integer(function, a, b))),
            (I32(a), I32(b)) => compare(function, &a, &b).unwrap_or_else(|| {
                // The low half of the 64-bit result is the wrapped 32-bit one.
                I32(integer(function, i64::from(a), i64::from(b)) as i32)
            }),
            (Bool(a), Bool(b)) => Bool(match function {
                Binary::And => a & b,
                Binary::Or => a | b,
                Binary::Xor => a ^ b,
                Binary::Equal => a == b,
                other => panic!("a verified chain has no {other:?} of booleans"),
            }),
            (a, b) => Bool(a == b),
        },
        ElementOp::Select(condition, yes, no) => {
            if registers[condition] == Bool(true) {
                registers[yes]
            } else {
                registers[no]
            }
        }
        ElementOp::Cast(to, of) => cast(to, registers[of]),
    }
}

fn compare<T: PartialOrd>(function: Binary, a: &T, b: &T) -> Option<Register> {
    Some(Bool(match function {
        Binary::Equal => a == b,
        Binary::Greater => a > b,
        Binary::GreaterOrEqual => a >= b,
        Binary::Less => a < b,
        Binary::LessOrEqual => a <= b,
        _ => return None,
    }))
}

/// A function of two floats. The minimum and maximum of anything and NaN is NaN.
fn float(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => libm::powf(a, b),
        Binary::Min if a.is_nan() || a < b => a,
        Binary::Min => b,
        Binary::Max if a.is_nan() || a > b => a,
        Binary::Max => b,
        Binary::Mod { fmod: true } => a % b,
        Binary::Mod { fmod: false } => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
        other => panic!("a verified chain has no {other:?} of floats"),
    }
}

fn integer(function: Binary, a: i64, b: i64) -> i64 {
    match function {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Pow => power(a, b),
        Binary::Div | Binary::Mod { .. } if b == 0 => 0,
        Binary::Div => a.wrapping_div(b),
        Binary::Mod { fmod: true } => a.wrapping_rem(b),
        Binary::Mod { fmod: false } => {
            let rest = a.wrapping_rem(b);
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }
        other => panic!("a verified chain has no {other:?} of integers"),
    }
}

/// By squaring, wrapping; a negative exponent gives the integer part of the fraction.
fn power(base: i64, exponent: i64) -> i64 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 => 1 - 2 * (exponent & 1).abs(),
            _ => 0,
        };
    }
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

fn cast(to: DType, from: Register) -> Register {
    // Floats truncate toward zero and saturate; integers wrap: Rust's `as`.
    macro_rules! cast {
        ($x:expr) => {
            match to {
                DType::U8 => U8($x as u8),
                DType::I8 => I8($x as i8),
                DType::I32 => I32($x as i32),
                DType::I64 => I64($x as i64),
                DType::F32 => F32($x as f32),
                other => panic!("a verified chain does not cast to {other}"),
            }
        };
    }
    match (to, from) {
        (DType::Bool, Bool(x)) => Bool(x),
        (DType::Bool, U8(x)) => Bool(x != 0),
        (DType::Bool, I8(x)) => Bool(x != 0),
        (DType::Bool, I32(x)) => Bool(x != 0),
        (DType::Bool, I64(x)) => Bool(x != 0),
        (DType::Bool, F32(x)) => Bool(x != 0.0),
        (_, Bool(x)) => cast!(u8::from(x)),
        (_, U8(x)) => cast!(x),
        (_, I8(x)) => cast!(x),
        (_, I32(x)) => cast!(x),
        (_, I64(x)) => cast!(x),
        (_, F32(x)) => cast!(x),
    }
}

/// A function of one float.
pub fn unary(function: Unary, x: f32) -> f32 {
    let sigmoid = |x: f32| 1.0 / (1.0 + libm::expf(-x));
    match function {
        Unary::Abs => x.abs(),
        Unary::Ceil => x.ceil(),
        Unary::Cos => libm::cosf(x),
        Unary::Erf => libm::erff(x),
        Unary::Exp => libm::expf(x),
        Unary::Floor => x.floor(),
        Unary::Gelu { tanh: false } => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
        Unary::Gelu { tanh: true } => {
            const SQRT_2_OVER_PI: f32 = 0.797_884_6;
            0.5 * x * (1.0 + libm::tanhf(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)))
        }
        Unary::Elu { alpha } if x < 0.0 => alpha * libm::expm1f(x),
        Unary::Elu { .. } => x,
        Unary::HardSigmoid { alpha, beta } => clip(alpha * x + beta, 0.0, 1.0),
        Unary::HardSwish => x * clip(x / 6.0 + 0.5, 0.0, 1.0),
        Unary::LeakyRelu { alpha } if x < 0.0 => alpha * x,
        Unary::LeakyRelu { .. } => x,
        Unary::Log => libm::logf(x),
        Unary::Mish => x * libm::tanhf(softplus(x)),
        Unary::Neg => -x,
        Unary::Not => f32::from(u8::from(x == 0.0)),
        Unary::Reciprocal => 1.0 / x,
        Unary::Relu if x < 0.0 => 0.0,
        Unary::Relu => x,
        Unary::Round => x.round_ties_even(),
        Unary::Sigmoid => sigmoid(x),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        Unary::Sign => x * 0.0,
        Unary::Sin => libm::sinf(x),
        Unary::Silu => x * sigmoid(x),
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::Sqrt => x.sqrt(),
        Unary::Tanh => libm::tanhf(x),
    }
}

fn clip(x: f32, low: f32, high: f32) -> f32 {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

/// `ln(1 + eˣ)`, without overflow for large x.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + libm::log1pf(libm::expf(-x.abs()))
}
