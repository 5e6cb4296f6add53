//! The types of an element-wise chain: what each register of [`crate::plan::StepKind::Elementwise`] holds.
//!
//! ```text
//!   memory     bool   u8 u16 u32 u64   i8 i16 i32 i64   f16 bf16 f32 f64
//!               │            │               │               │ widened as it is loaded, rounded as it is stored
//!   register   bool   u8 u16 u32 u64   i8 i16 i32 i64       f32
//! ```
//! Devices compile chains, so the rules are few: integers wrap to their width ([`crate::integer`]), all floats are f32, two operands have one
//! type, and only casts change types, apart from comparisons, whose result is `bool`.
//!
//! A model's other floats are *border types*: tensors of f16, bf16 and f64 are what requests bring and answers hold, and between them every step computes
//! in the plan's own float (`fold::types` puts the casts there). So a half-precision export answers at least as exactly as it was
//! written, and a double-precision one as exactly as f32 does.

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

/// The type of the register that an element of `memory` is loaded into, and that is stored as one.
pub const fn register(memory: DType) -> DType {
    if is_border(memory) { DType::F32 } else { memory }
}

/// Whether a type is only that of inputs and outputs: a float that is not the plan's own.
pub(crate) const fn is_border(dtype: DType) -> bool {
    dtype.is_float() && !matches!(dtype, DType::F32)
}

/// The type of every register of `program`, its operands having the types `inputs`. The output is of a type whose [`register`] is the last one.
pub fn types(inputs: &[DType], program: &[ElementOp]) -> Result<Vec<DType>, ElementError> {
    let mut types: Vec<DType> = Vec::with_capacity(program.len());
    for (at, instruction) in program.iter().enumerate() {
        let operand = |index: usize| types.get(index).copied().ok_or(ElementError::Dangling { at });
        let dtype = match *instruction {
            ElementOp::Load(input) => {
                register(inputs.get(input).copied().ok_or(ElementError::Dangling { at })?)
            }
            ElementOp::Float(_) => DType::F32,
            ElementOp::Int(_) => DType::I64,
            ElementOp::Bool(_) => DType::Bool,
            ElementOp::Cast(to, of) => {
                operand(of)?;
                if is_border(to) {
                    return Err(ElementError::Type { op: "Cast".into(), dtype: to });
                }
                to
            }
            ElementOp::Unary(function, of) => unary(function, operand(of)?)?,
            ElementOp::Binary(function, left, right) => {
                let name = format!("{function:?}");
                binary(function, same(&name, operand(left)?, operand(right)?)?)?
            }
            ElementOp::Select(condition, yes, no) => {
                must("Where", operand(condition)?, |dtype| dtype == DType::Bool)?;
                same("Where", operand(yes)?, operand(no)?)?
            }
        };
        types.push(dtype);
    }
    if types.is_empty() { Err(ElementError::Empty) } else { Ok(types) }
}

fn is_number(dtype: DType) -> bool {
    dtype != DType::Bool
}

fn must(op: &str, dtype: DType, fits: fn(DType) -> bool) -> Result<DType, ElementError> {
    if fits(dtype) { Ok(dtype) } else { Err(ElementError::Type { op: op.to_string(), dtype }) }
}

fn same(op: &str, left: DType, right: DType) -> Result<DType, ElementError> {
    if left == right { Ok(left) } else { Err(ElementError::Mixed { op: op.to_string(), left, right }) }
}

fn unary(function: Unary, dtype: DType) -> Result<DType, ElementError> {
    let name = format!("{function:?}");
    match function {
        Unary::Not => must(&name, dtype, |dtype| dtype == DType::Bool),
        Unary::Abs | Unary::Neg | Unary::Relu | Unary::Sign => must(&name, dtype, is_number),
        _ => must(&name, dtype, |dtype| dtype == DType::F32),
    }
}

fn binary(function: Binary, dtype: DType) -> Result<DType, ElementError> {
    let name = format!("{function:?}");
    match function {
        Binary::And | Binary::Or | Binary::Xor => must(&name, dtype, |dtype| dtype == DType::Bool),
        Binary::Equal => Ok(DType::Bool),
        _ if function.is_comparison() => must(&name, dtype, is_number).map(|_| DType::Bool),
        _ => must(&name, dtype, is_number),
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
        let half = [ElementOp::Load(0), ElementOp::Cast(DType::F16, 0)];
        assert!(matches!(types(&[DType::F32], &half), Err(ElementError::Type { .. })));
    }

    #[test]
    fn halves_and_doubles_are_floats_once_loaded() {
        let sum = [ElementOp::Load(0), ElementOp::Load(1), ElementOp::Binary(Binary::Add, 0, 1)];
        assert_eq!(types(&[DType::F16, DType::F64], &sum).unwrap(), [DType::F32; 3]);
    }
}
