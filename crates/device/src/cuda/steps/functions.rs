//! Functions of elements as expressions of `kernels/functions.cuh`.

use tessera_core::DType;
use tessera_planner::op::{Binary, Unary};

/// A float by its bits: exact, infinities and NaN included.
pub(super) fn literal(x: f32) -> String {
    format!("__uint_as_float({:#x}u)", x.to_bits())
}

/// A function of the expression `x`, a float, or an integer where the operator is defined on them.
pub(super) fn unary(function: Unary, x: &str) -> String {
    let name = match function {
        Unary::Abs => "abs",
        Unary::Affine { alpha, beta } => {
            return format!("op::affine({x},{},{})", literal(alpha), literal(beta));
        }
        Unary::Ceil => "ceil",
        Unary::Cos => "cos",
        Unary::Erf => "erf",
        Unary::Exp => "exp",
        Unary::Floor => "floor",
        Unary::Gelu { tanh: false } => "gelu",
        Unary::Gelu { tanh: true } => "gelu_tanh",
        Unary::Elu { alpha } => return format!("op::elu({x},{})", literal(alpha)),
        Unary::HardSigmoid { alpha, beta } => {
            return format!("op::hard_sigmoid({x},{},{})", literal(alpha), literal(beta));
        }
        Unary::HardSwish => "hard_swish",
        Unary::LeakyRelu { alpha } => return format!("op::leaky_relu({x},{})", literal(alpha)),
        Unary::Log => "log",
        Unary::Mish => "mish",
        Unary::Neg => "neg",
        Unary::Not => "logical_not",
        Unary::Reciprocal => "reciprocal",
        Unary::Relu => "relu",
        Unary::Round => "round",
        Unary::ScaledTanh { alpha, beta } => {
            return format!("op::scaled_tanh({x},{},{})", literal(alpha), literal(beta));
        }
        Unary::Selu { alpha, gamma } => {
            return format!("op::selu({x},{},{})", literal(alpha), literal(gamma));
        }
        Unary::Sigmoid => "sigmoid",
        Unary::Sign => "sign",
        Unary::Sin => "sin",
        Unary::Silu => "silu",
        Unary::Softplus => "softplus",
        Unary::Softsign => "softsign",
        Unary::Sqrt => "sqrt",
        Unary::Tanh => "tanh",
        Unary::ThresholdedRelu { alpha } => return format!("op::thresholded_relu({x},{})", literal(alpha)),
    };
    format!("op::{name}({x})")
}

/// A function of the expressions `a` and `b`, of one type.
pub(super) fn binary(function: Binary, a: &str, b: &str) -> String {
    let name = match function {
        Binary::Add => "add",
        Binary::Sub => "sub",
        Binary::Mul => "mul",
        Binary::Div => "div",
        Binary::Pow => "pow",
        Binary::PRelu => "prelu",
        Binary::Min => "min",
        Binary::Max => "max",
        Binary::Mod { fmod: false } => "mod",
        Binary::Mod { fmod: true } => "rem",
        Binary::And => return format!("{a} && {b}"),
        Binary::Or => return format!("{a} || {b}"),
        Binary::Xor => return format!("{a} != {b}"),
        Binary::Equal => return format!("{a} == {b}"),
        Binary::Greater => return format!("{a} > {b}"),
        Binary::GreaterOrEqual => return format!("{a} >= {b}"),
        Binary::Less => return format!("{a} < {b}"),
        Binary::LessOrEqual => return format!("{a} <= {b}"),
    };
    format!("op::{name}({a}, {b})")
}

/// What a register of a chain is called among the kernels' types, `None` where a chain holds no such type.
pub(super) fn register_type(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::Bool => "bool",
        DType::U8 => "u8",
        DType::U16 => "u16",
        DType::U32 => "u32",
        DType::U64 => "u64",
        DType::I8 => "i8",
        DType::I16 => "i16",
        DType::I32 => "i32",
        DType::I64 => "i64",
        DType::F32 => "float",
        _ => return None,
    })
}
