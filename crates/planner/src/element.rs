//! The types of an element-wise chain: what each register of [`crate::plan::StepKind::Elementwise`] holds.
//!
//! Devices compile chains, so the rules are few: registers hold `bool`, `u8`, `i8`, `i32`, `i64` or `f32`; two operands have one type; only
//! casts change types, apart from comparisons, whose result is `bool`.

use crate::op::{Binary, Unary};
use crate::plan::ElementOp;
use tessera_core::DType;

/// What is wrong with a chain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ElementError {
    /// The operator is not defined on this type.
    #[error("{op} is not defined on {dtype}; cast to f32 or i64 before it")]
    Type {
        /// The operator.
        op: String,
        /// The type it was given.
        dtype: DType,
    },
    /// Two operands of different types.
    #[error("{op} was given {left} and {right}, which must be one type")]
    Mixed {
        /// The operator.
        op: String,
        /// Type of the first operand.
        left: DType,
        /// Type of the second operand.
        right: DType,
    },
    /// An instruction reads an input, or a register, that is not there.
    #[error("instruction {at} of an element-wise chain reads what does not come before it")]
    Dangling {
        /// Its number.
        at: usize,
    },
    /// There is no instruction.
    #[error("an element-wise chain has no instruction")]
    Empty,
}

/// Types that registers may hold.
pub const TYPES: [DType; 6] = [DType::Bool, DType::U8, DType::I8, DType::I32, DType::I64, DType::F32];

/// The type of every register of `program`, its operands having the types `inputs`. The last one is the type of the output.
pub fn types(inputs: &[DType], program: &[ElementOp]) -> Result<Vec<DType>, ElementError> {
    let mut types: Vec<DType> = Vec::with_capacity(program.len());
    for (at, instruction) in program.iter().enumerate() {
        let register = |index: usize| types.get(index).copied().ok_or(ElementError::Dangling { at });
        let dtype = match *instruction {
            ElementOp::Load(input) => {
                let dtype = inputs.get(input).copied().ok_or(ElementError::Dangling { at })?;
                allowed("Load", dtype, &TYPES)?
            }
            ElementOp::Float(_) => DType::F32,
            ElementOp::Int(_) => DType::I64,
            ElementOp::Bool(_) => DType::Bool,
            ElementOp::Cast(to, of) => {
                register(of)?;
                allowed("Cast", to, &TYPES)?
            }
            ElementOp::Unary(function, of) => unary(function, register(of)?)?,
            ElementOp::Binary(function, left, right) => {
                let name = format!("{function:?}");
                binary(function, same(&name, register(left)?, register(right)?)?)?
            }
            ElementOp::Select(condition, yes, no) => {
                allowed("Where", register(condition)?, &[DType::Bool])?;
                same("Where", register(yes)?, register(no)?)?
            }
        };
        types.push(dtype);
    }
    if types.is_empty() { Err(ElementError::Empty) } else { Ok(types) }
}

const NUMBERS: [DType; 3] = [DType::I32, DType::I64, DType::F32];

fn allowed(op: &str, dtype: DType, types: &[DType]) -> Result<DType, ElementError> {
    if types.contains(&dtype) { Ok(dtype) } else { Err(ElementError::Type { op: op.to_string(), dtype }) }
}

fn same(op: &str, left: DType, right: DType) -> Result<DType, ElementError> {
    if left == right { Ok(left) } else { Err(ElementError::Mixed { op: op.to_string(), left, right }) }
}

fn unary(function: Unary, dtype: DType) -> Result<DType, ElementError> {
    let name = format!("{function:?}");
    match function {
        Unary::Not => allowed(&name, dtype, &[DType::Bool]),
        Unary::Abs | Unary::Neg | Unary::Sign => allowed(&name, dtype, &NUMBERS),
        _ => allowed(&name, dtype, &[DType::F32]),
    }
}

fn binary(function: Binary, dtype: DType) -> Result<DType, ElementError> {
    let name = format!("{function:?}");
    match function {
        Binary::And | Binary::Or | Binary::Xor => allowed(&name, dtype, &[DType::Bool]),
        Binary::Equal => Ok(DType::Bool),
        _ if function.is_comparison() => allowed(&name, dtype, &NUMBERS).map(|_| DType::Bool),
        _ => allowed(&name, dtype, &NUMBERS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_of_integers_selects_between_floats() {
        let program = [
            ElementOp::Load(0),
            ElementOp::Int(3),
            ElementOp::Binary(Binary::Less, 0, 1),
            ElementOp::Float(1.0),
            ElementOp::Float(2.0),
            ElementOp::Select(2, 3, 4),
        ];
        let types = types(&[DType::I64], &program).unwrap();
        assert_eq!(types[2], DType::Bool);
        assert_eq!(types[5], DType::F32);
    }

    #[test]
    fn mixed_types_and_registers_from_the_future_are_refused() {
        let add = [ElementOp::Load(0), ElementOp::Int(3), ElementOp::Binary(Binary::Add, 0, 1)];
        assert_eq!(
            types(&[DType::F32], &add).unwrap_err().to_string(),
            "Add was given f32 and i64, which must be one type"
        );
        let dangling = [ElementOp::Unary(Unary::Relu, 0)];
        assert_eq!(types(&[], &dangling), Err(ElementError::Dangling { at: 0 }));
        let half = [ElementOp::Load(0)];
        assert!(matches!(types(&[DType::F16], &half), Err(ElementError::Type { .. })));
    }
}
