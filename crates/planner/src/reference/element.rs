//! Elements as the reference computes with them: floats as f64, integers as i128, booleans.

use super::EvalError;
use super::error::Args;
use crate::tensor::Tensor;
use half::{bf16, f16};
use tessera_core::DType;

/// The elements of a tensor, widened.
#[derive(Clone, Debug)]
pub(super) enum Elements {
    Floats(Vec<f64>),
    Integers(Vec<i128>),
    Booleans(Vec<bool>),
}
use Elements::{Booleans, Floats, Integers};

fn widened<T: crate::tensor::Element, W>(tensor: &Tensor, widen: impl Fn(T) -> W) -> Vec<W> {
    tensor.bytes().chunks_exact(T::DTYPE.size()).map(|bytes| widen(T::read(bytes))).collect()
}

impl Elements {
    pub(super) fn of(tensor: &Tensor) -> Elements {
        match tensor.dtype() {
            DType::F16 => Floats(widened(tensor, f16::to_f64)),
            DType::BF16 => Floats(widened(tensor, bf16::to_f64)),
            DType::F32 => Floats(widened(tensor, |x: f32| f64::from(x))),
            DType::F64 => Floats(widened(tensor, |x: f64| x)),
            DType::U8 => Integers(widened(tensor, |x: u8| i128::from(x))),
            DType::U16 => Integers(widened(tensor, |x: u16| i128::from(x))),
            DType::U32 => Integers(widened(tensor, |x: u32| i128::from(x))),
            DType::U64 => Integers(widened(tensor, |x: u64| i128::from(x))),
            DType::I8 => Integers(widened(tensor, |x: i8| i128::from(x))),
            DType::I16 => Integers(widened(tensor, |x: i16| i128::from(x))),
            DType::I32 => Integers(widened(tensor, |x: i32| i128::from(x))),
            DType::I64 => Integers(widened(tensor, |x: i64| i128::from(x))),
            DType::Bool => Booleans(widened(tensor, |x: bool| x)),
        }
    }

    /// A tensor of these elements as `dtype`. From one kind to another is the meaning of a cast: integers wrap to their width, floats are
    /// rounded to nearest even; a float becomes an integer by truncation toward zero, out of range the nearest one, NaN zero (ONNX leaves
    /// these open).
    pub(super) fn tensor(&self, dtype: DType, dims: &[usize]) -> Tensor {
        match self {
            Floats(list) => from_floats(dtype, dims, list),
            Integers(list) => from_integers(dtype, dims, list),
            Booleans(list) if dtype == DType::Bool => Tensor::from_elements(dims, list),
            Booleans(list) => {
                from_integers(dtype, dims, &list.iter().map(|&truth| i128::from(truth)).collect::<Vec<_>>())
            }
        }
    }
}

fn made<W: Copy, T: crate::tensor::Element>(dims: &[usize], list: &[W], narrow: impl Fn(W) -> T) -> Tensor {
    Tensor::from_elements(dims, &list.iter().map(|&element| narrow(element)).collect::<Vec<_>>())
}

pub(super) fn from_floats(dtype: DType, dims: &[usize], list: &[f64]) -> Tensor {
    match dtype {
        DType::F16 => made(dims, list, f16::from_f64),
        DType::BF16 => made(dims, list, bf16::from_f64),
        DType::F32 => made(dims, list, |x| x as f32),
        DType::F64 => made(dims, list, |x| x),
        DType::U8 => made(dims, list, |x| x as u8),
        DType::U16 => made(dims, list, |x| x as u16),
        DType::U32 => made(dims, list, |x| x as u32),
        DType::U64 => made(dims, list, |x| x as u64),
        DType::I8 => made(dims, list, |x| x as i8),
        DType::I16 => made(dims, list, |x| x as i16),
        DType::I32 => made(dims, list, |x| x as i32),
        DType::I64 => made(dims, list, |x| x as i64),
        DType::Bool => made(dims, list, |x| x != 0.0),
    }
}

pub(super) fn from_integers(dtype: DType, dims: &[usize], list: &[i128]) -> Tensor {
    match dtype {
        DType::F16 => made(dims, list, |x| f16::from_f64(x as f64)),
        DType::BF16 => made(dims, list, |x| bf16::from_f64(x as f64)),
        DType::F32 => made(dims, list, |x| x as f32),
        DType::F64 => made(dims, list, |x| x as f64),
        DType::U8 => made(dims, list, |x| x as u8),
        DType::U16 => made(dims, list, |x| x as u16),
        DType::U32 => made(dims, list, |x| x as u32),
        DType::U64 => made(dims, list, |x| x as u64),
        DType::I8 => made(dims, list, |x| x as i8),
        DType::I16 => made(dims, list, |x| x as i16),
        DType::I32 => made(dims, list, |x| x as i32),
        DType::I64 => made(dims, list, |x| x as i64),
        DType::Bool => made(dims, list, |x| x != 0),
    }
}

/// The elements of a float tensor, or the error that the operator is not defined on anything else.
pub(super) fn floats(args: Args<'_>, tensor: &Tensor) -> Result<Vec<f64>, EvalError> {
    match Elements::of(tensor) {
        Floats(list) => Ok(list),
        _ => Err(args.undefined_on(tensor.dtype())),
    }
}
