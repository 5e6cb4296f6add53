//! Element by element: functions of one and two inputs, broadcast as NumPy does.

use super::EvalError;
use super::element::Elements::{self, Booleans, Floats, Integers};
use super::error::Args;
use super::moves::expand_to;
use crate::op::{Binary, Unary};
use crate::shape;
use crate::tensor::Tensor;
use tessera_core::DType;

pub(super) fn unary(function: Unary, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let made = match Elements::of(x) {
        Floats(list) if function != Unary::Not => {
            Floats(list.into_iter().map(|x| of_float(function, x)).collect())
        }
        Integers(list) => {
            let one = |x| of_integer(function, x);
            Integers(
                list.into_iter()
                    .map(one)
                    .collect::<Option<_>>()
                    .ok_or_else(|| args.undefined_on(x.dtype()))?,
            )
        }
        Booleans(list) if function == Unary::Not => Booleans(list.into_iter().map(|x| !x).collect()),
        _ => return Err(args.undefined_on(x.dtype())),
    };
    Ok(made.tensor(x.dtype(), x.dims()))
}

/// A function of one float. NaN gives NaN everywhere.
pub(super) fn of_float(function: Unary, x: f64) -> f64 {
    let sigmoid =
        |x: f64| if x >= 0.0 { 1.0 / (1.0 + libm::exp(-x)) } else { libm::exp(x) / (1.0 + libm::exp(x)) };
    // Large x would overflow in log(1 + exp(x)).
    let softplus = |x: f64| x.max(0.0) + libm::log1p(libm::exp(-x.abs()));
    let hard_sigmoid = |alpha: f64, beta: f64| (alpha * x + beta).clamp(0.0, 1.0);
    match function {
        Unary::Abs => x.abs(),
        Unary::Affine { alpha, beta } => f64::from(alpha) * x + f64::from(beta),
        Unary::Ceil => x.ceil(),
        Unary::Cos => libm::cos(x),
        Unary::Erf => libm::erf(x),
        Unary::Exp => libm::exp(x),
        Unary::Floor => x.floor(),
        Unary::Gelu { tanh: false } => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::Gelu { tanh: true } => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + libm::tanh(inner))
        }
        Unary::Elu { alpha } if x < 0.0 => f64::from(alpha) * libm::expm1(x),
        Unary::LeakyRelu { alpha } if x < 0.0 => f64::from(alpha) * x,
        Unary::Elu { .. } | Unary::LeakyRelu { .. } => x,
        Unary::HardSigmoid { alpha, beta } => hard_sigmoid(f64::from(alpha), f64::from(beta)),
        Unary::HardSwish => x * hard_sigmoid(1.0 / 6.0, 0.5),
        Unary::Log => libm::log(x),
        Unary::Mish => x * libm::tanh(softplus(x)),
        Unary::Neg => -x,
        Unary::Not => unreachable!("only booleans are negated so"),
        Unary::Reciprocal => 1.0 / x,
        Unary::Relu if x < 0.0 => 0.0,
        Unary::Relu => x,
        Unary::Round => x.round_ties_even(),
        Unary::ScaledTanh { alpha, beta } => f64::from(alpha) * libm::tanh(f64::from(beta) * x),
        Unary::Selu { alpha, gamma } if x < 0.0 => f64::from(gamma) * f64::from(alpha) * libm::expm1(x),
        Unary::Selu { gamma, .. } => f64::from(gamma) * x,
        Unary::Sigmoid => sigmoid(x),
        Unary::Sign if x == 0.0 || x.is_nan() => x,
        Unary::Sign => x.signum(),
        Unary::Sin => libm::sin(x),
        Unary::Silu => x * sigmoid(x),
        Unary::Softplus if x.is_nan() => x,
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::Sqrt => x.sqrt(),
        Unary::Tanh => libm::tanh(x),
        Unary::ThresholdedRelu { alpha } if x <= f64::from(alpha) => 0.0,
        Unary::ThresholdedRelu { .. } => x,
    }
}

fn of_integer(function: Unary, x: i128) -> Option<i128> {
    match function {
        Unary::Abs => Some(x.abs()),
        Unary::Neg => Some(-x),
        Unary::Sign => Some(x.signum()),
        Unary::Relu => Some(x.max(0)),
        _ => None,
    }
}

/// Two inputs brought to one shape.
fn paired(args: Args<'_>, a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor), EvalError> {
    let dims =
        shape::broadcast(a.dims(), b.dims()).ok_or_else(|| args.misfit("the shapes do not broadcast"))?;
    args.count(a.dtype(), &dims)?;
    args.count(b.dtype(), &dims)?;
    Ok((expand_to(a, &dims), expand_to(b, &dims)))
}

pub(super) fn binary(function: Binary, args: Args<'_>) -> Result<Tensor, EvalError> {
    let (a, b) = paired(args, args.get(0)?, args.get(1)?)?;
    if a.dtype() != b.dtype() && function != Binary::Pow {
        return Err(args.misfit("both inputs must be of one type"));
    }
    let by_zero = || EvalError::DivisionByZero { op: args.op };
    let (lefts, rights) = (Elements::of(&a), Elements::of(&b));
    if function.is_comparison() {
        let truths = match (lefts, rights) {
            (Floats(a), Floats(b)) => compared(function, &a, &b),
            (Integers(a), Integers(b)) => compared(function, &a, &b),
            (Booleans(a), Booleans(b)) if function == Binary::Equal => compared(function, &a, &b),
            _ => return Err(args.undefined_on(a.dtype())),
        };
        return Ok(Tensor::from_elements(a.dims(), &truths));
    }
    let made = match (lefts, rights) {
        (Floats(a), Floats(b)) => {
            let one = |(&a, &b)| float_of(function, a, b);
            Floats(
                a.iter()
                    .zip(&b)
                    .map(one)
                    .collect::<Option<_>>()
                    .ok_or_else(|| args.undefined_on(DType::F32))?,
            )
        }
        (Integers(a), Integers(b)) => {
            let one = |(&a, &b)| integer_of(function, a, b).ok_or_else(by_zero);
            if matches!(function, Binary::And | Binary::Or | Binary::Xor) {
                return Err(args.undefined_on(DType::I64));
            }
            Integers(a.iter().zip(&b).map(one).collect::<Result<_, _>>()?)
        }
        // Only a power mixes types; its result is of the base's.
        (Floats(a), Integers(b)) => Floats(a.iter().zip(&b).map(|(&a, &b)| libm::pow(a, b as f64)).collect()),
        (Integers(a), Floats(b)) => Floats(a.iter().zip(&b).map(|(&a, &b)| libm::pow(a as f64, b)).collect()),
        (Booleans(a), Booleans(b)) => {
            let one = |(&a, &b): (&bool, &bool)| match function {
                Binary::And => Some(a && b),
                Binary::Or => Some(a || b),
                Binary::Xor => Some(a != b),
                _ => None,
            };
            Booleans(
                a.iter()
                    .zip(&b)
                    .map(one)
                    .collect::<Option<_>>()
                    .ok_or_else(|| args.undefined_on(DType::Bool))?,
            )
        }
        _ => return Err(args.undefined_on(b.dtype())),
    };
    Ok(made.tensor(a.dtype(), a.dims()))
}

fn compared<T: PartialOrd>(function: Binary, a: &[T], b: &[T]) -> Vec<bool> {
    let one = |(a, b): (&T, &T)| match function {
        Binary::Equal => a == b,
        Binary::Greater => a > b,
        Binary::GreaterOrEqual => a >= b,
        Binary::Less => a < b,
        Binary::LessOrEqual => a <= b,
        _ => unreachable!("called for comparisons"),
    };
    a.iter().zip(b).map(one).collect()
}

/// `None` where the function is not defined on floats. Minimum and maximum hand NaN on, as NumPy's do.
fn float_of(function: Binary, a: f64, b: f64) -> Option<f64> {
    Some(match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => libm::pow(a, b),
        Binary::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
        Binary::Min | Binary::Max if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Mod { fmod: true } => a % b,
        Binary::Mod { fmod: false } => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
        _ => return None,
    })
}

/// `None` for a division by zero. Division truncates toward zero; the caller wraps the result to its width.
fn integer_of(function: Binary, a: i128, b: i128) -> Option<i128> {
    Some(match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div => a.checked_div(b)?,
        Binary::Pow => power(a, b)?,
        Binary::PRelu if a < 0 => a.wrapping_mul(b),
        Binary::PRelu => a,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Mod { fmod: true } => a.checked_rem(b)?,
        Binary::Mod { fmod: false } => {
            let rest = a.checked_rem(b)?;
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }
        _ => return None,
    })
}

/// An integer to an integer power; a negative one gives the truncated fraction.
fn power(base: i128, exponent: i128) -> Option<i128> {
    if exponent >= 0 {
        // Beyond 127 squarings nothing of the exponent is lost: powers are taken modulo 2^128, and the result is cut to 64 bits or fewer.
        let (mut result, mut square, mut left) = (1i128, base, exponent);
        while left > 0 {
            if left & 1 == 1 {
                result = result.wrapping_mul(square);
            }
            square = square.wrapping_mul(square);
            left >>= 1;
        }
        return Some(result);
    }
    match base {
        0 => None,
        1 => Some(1),
        -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
        _ => Some(0),
    }
}

pub(super) fn choose(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (condition, a, b) = (args.get(0)?, args.get(1)?, args.get(2)?);
    let Booleans(_) = Elements::of(condition) else { return Err(args.undefined_on(condition.dtype())) };
    if a.dtype() != b.dtype() {
        return Err(args.misfit("both choices must be of one type"));
    }
    let dims =
        shape::broadcast(a.dims(), b.dims()).and_then(|dims| shape::broadcast(&dims, condition.dims()));
    let dims = dims.ok_or_else(|| args.misfit("the shapes do not broadcast"))?;
    args.count(a.dtype(), &dims)?;
    let (condition, a, b) = (expand_to(condition, &dims), expand_to(a, &dims), expand_to(b, &dims));
    let size = a.dtype().size();
    let choices = a.bytes().chunks_exact(size).zip(b.bytes().chunks_exact(size));
    let mut bytes = Vec::with_capacity(a.bytes().len());
    for (&truth, (a, b)) in condition.bytes().iter().zip(choices) {
        bytes.extend_from_slice(if truth != 0 { a } else { b });
    }
    Ok(Tensor::new(a.dtype(), dims, bytes).expect("one element was chosen for each place"))
}

/// The lower limit first, then the upper one: with limits that cross, the upper one wins. NaN stays NaN.
pub(super) fn clip(args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let limit = |index: usize| match args.opt(index) {
        None => Ok(None),
        Some(limit) if limit.len() == 1 && limit.dtype() == x.dtype() => Ok(Some(Elements::of(limit))),
        Some(_) => Err(args.misfit(format!("limit {index} is not one {}", x.dtype()))),
    };
    let (low, high) = (limit(1)?, limit(2)?);
    let made = match Elements::of(x) {
        Floats(mut list) => {
            // A comparison with NaN fails, so NaN stays; a limit of NaN limits nothing.
            if let Some(Floats(low)) = low {
                list.iter_mut().filter(|x| **x < low[0]).for_each(|x| *x = low[0]);
            }
            if let Some(Floats(high)) = high {
                list.iter_mut().filter(|x| **x > high[0]).for_each(|x| *x = high[0]);
            }
            Floats(list)
        }
        Integers(mut list) => {
            if let Some(Integers(low)) = low {
                list.iter_mut().for_each(|x| *x = (*x).max(low[0]));
            }
            if let Some(Integers(high)) = high {
                list.iter_mut().for_each(|x| *x = (*x).min(high[0]));
            }
            Integers(list)
        }
        Booleans(_) => return Err(args.undefined_on(DType::Bool)),
    };
    Ok(made.tensor(x.dtype(), x.dims()))
}

pub(super) fn cast(to: DType, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    args.count(to, x.dims())?;
    Ok(Elements::of(x).tensor(to, x.dims()))
}
