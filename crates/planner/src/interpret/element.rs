//! Element-wise chains, and the functions that they and epilogues are made of.

use super::memory::{Memory, walk};
use crate::element::register;
use crate::integer::{self, Integer, compare};
use crate::op::{Binary, Unary};
use crate::plan::{Access, ElementOp, StepKind};
use crate::tensor::Element;
use half::{bf16, f16};
use tessera_core::DType;

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Register {
    Bool(bool),
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    F32(f32),
}
use Register::{Bool, F32, I8, I16, I32, I64, U8, U16, U32, U64};

pub(super) fn chain(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Elementwise { dims, inputs, program, out } = kind else {
        unreachable!("called for its own kind")
    };
    let mut columns: Vec<_> = inputs.iter().map(|access| load(memory, access, dims).into_iter()).collect();
    let count: usize = dims.iter().product();
    let stored = memory.dtype(crate::plan::Operand::Buffer(*out));
    let mut bytes = Vec::new();
    let mut registers: Vec<Register> = Vec::new();
    for _ in 0..count {
        registers.clear();
        let loaded: Vec<Register> =
            columns.iter_mut().map(|c| c.next().expect("a walk has as many elements as its dims")).collect();
        for &instruction in program {
            registers.push(evaluate(instruction, &registers, |input| loaded[input]));
        }
        store(*registers.last().expect("a verified chain has an instruction"), stored, &mut bytes);
    }
    memory.buffer_mut(*out).copy_from_slice(&bytes);
}

fn store(register: Register, stored: DType, bytes: &mut Vec<u8>) {
    match (register, stored) {
        (F32(x), DType::F16) => f16::from_f32(x).write(bytes),
        (F32(x), DType::BF16) => bf16::from_f32(x).write(bytes),
        (F32(x), DType::F64) => f64::from(x).write(bytes),
        (F32(x), _) => x.write(bytes),
        (Bool(x), _) => x.write(bytes),
        (U8(x), _) => x.write(bytes),
        (U16(x), _) => x.write(bytes),
        (U32(x), _) => x.write(bytes),
        (U64(x), _) => x.write(bytes),
        (I8(x), _) => x.write(bytes),
        (I16(x), _) => x.write(bytes),
        (I32(x), _) => x.write(bytes),
        (I64(x), _) => x.write(bytes),
    }
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
        DType::U16 => U16(read(bytes, at)),
        DType::U32 => U32(read(bytes, at)),
        DType::U64 => U64(read(bytes, at)),
        DType::I8 => I8(read(bytes, at)),
        DType::I16 => I16(read(bytes, at)),
        DType::I32 => I32(read(bytes, at)),
        DType::I64 => I64(read(bytes, at)),
        DType::F32 => F32(read(bytes, at)),
        DType::F16 => F32(read::<f16>(bytes, at).to_f32()),
        DType::BF16 => F32(read::<bf16>(bytes, at).to_f32()),
        DType::F64 => F32(read::<f64>(bytes, at) as f32),
    };
    walk(access.offset, &access.strides, dims).map(one).collect()
}

fn evaluate(instruction: ElementOp, registers: &[Register], load: impl Fn(usize) -> Register) -> Register {
    match instruction {
        ElementOp::Load(input) => load(input),
        ElementOp::Float(x) => F32(x),
        ElementOp::Int(x) => I64(x),
        ElementOp::Bool(x) => Bool(x),
        ElementOp::Unary(function, of) => one(function, registers[of]),
        ElementOp::Binary(function, left, right) => two(function, registers[left], registers[right]),
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

fn one(function: Unary, x: Register) -> Register {
    match x {
        F32(x) => F32(unary(function, x)),
        Bool(x) if function == Unary::Not => Bool(!x),
        Bool(x) => panic!("a verified chain has no {function:?} of {x}"),
        U8(x) => U8(integer::unary(function, x)),
        U16(x) => U16(integer::unary(function, x)),
        U32(x) => U32(integer::unary(function, x)),
        U64(x) => U64(integer::unary(function, x)),
        I8(x) => I8(integer::unary(function, x)),
        I16(x) => I16(integer::unary(function, x)),
        I32(x) => I32(integer::unary(function, x)),
        I64(x) => I64(integer::unary(function, x)),
    }
}

fn two(function: Binary, left: Register, right: Register) -> Register {
    fn whole<T: Integer>(function: Binary, a: T, b: T, register: fn(T) -> Register) -> Register {
        if function.is_comparison() {
            return Bool(compare(function, &a, &b));
        }
        register(integer::binary(function, a, b))
    }
    match (left, right) {
        (F32(a), F32(b)) if function.is_comparison() => Bool(compare(function, &a, &b)),
        (F32(a), F32(b)) => F32(float(function, a, b)),
        (Bool(a), Bool(b)) => Bool(match function {
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
            Binary::Equal => a == b,
            other => panic!("a verified chain has no {other:?} of booleans"),
        }),
        (U8(a), U8(b)) => whole(function, a, b, U8),
        (U16(a), U16(b)) => whole(function, a, b, U16),
        (U32(a), U32(b)) => whole(function, a, b, U32),
        (U64(a), U64(b)) => whole(function, a, b, U64),
        (I8(a), I8(b)) => whole(function, a, b, I8),
        (I16(a), I16(b)) => whole(function, a, b, I16),
        (I32(a), I32(b)) => whole(function, a, b, I32),
        (I64(a), I64(b)) => whole(function, a, b, I64),
        (a, b) => panic!("a verified chain has no {function:?} of {a:?} and {b:?}"),
    }
}

/// A function of two floats. The minimum and maximum of anything and NaN is NaN.
fn float(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => libm::powf(a, b),
        Binary::PRelu if a < 0.0 => a * b,
        Binary::PRelu => a,
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

fn cast(to: DType, from: Register) -> Register {
    // Floats truncate toward zero and saturate; integers wrap: Rust's `as`.
    macro_rules! cast {
        ($x:expr, $zero:expr) => {
            match register(to) {
                DType::Bool => Bool($x != $zero),
                DType::U8 => U8($x as u8),
                DType::U16 => U16($x as u16),
                DType::U32 => U32($x as u32),
                DType::U64 => U64($x as u64),
                DType::I8 => I8($x as i8),
                DType::I16 => I16($x as i16),
                DType::I32 => I32($x as i32),
                DType::I64 => I64($x as i64),
                _ => F32($x as f32),
            }
        };
    }
    match from {
        Bool(x) => cast!(u8::from(x), 0),
        U8(x) => cast!(x, 0),
        U16(x) => cast!(x, 0),
        U32(x) => cast!(x, 0),
        U64(x) => cast!(x, 0),
        I8(x) => cast!(x, 0),
        I16(x) => cast!(x, 0),
        I32(x) => cast!(x, 0),
        I64(x) => cast!(x, 0),
        F32(x) => cast!(x, 0.0),
    }
}

/// A function of one float.
pub fn unary(function: Unary, x: f32) -> f32 {
    let sigmoid = |x: f32| 1.0 / (1.0 + libm::expf(-x));
    match function {
        Unary::Abs => x.abs(),
        Unary::Affine { alpha, beta } => alpha * x + beta,
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
        Unary::ScaledTanh { alpha, beta } => alpha * libm::tanhf(beta * x),
        Unary::Selu { alpha, gamma } if x < 0.0 => gamma * (alpha * libm::expm1f(x)),
        Unary::Selu { gamma, .. } => gamma * x,
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
        Unary::ThresholdedRelu { alpha } if x <= alpha => 0.0,
        Unary::ThresholdedRelu { .. } => x,
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
