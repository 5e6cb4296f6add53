//! A tensor in host memory: what files hold, what the reference computes, what plans keep as constants.

use prost::bytes::Bytes;
use std::fmt;
use tessera_core::DType;

/// Element type, dimensions and row-major little-endian elements. Cheap to clone: the elements are shared.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    data: Bytes,
}

/// The byte count does not match the shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Too few or too many bytes.
    #[error("a tensor {dtype}{dims:?} holds {want} bytes, but {got} were given")]
    WrongLength {
        /// Its element type.
        dtype: DType,
        /// Its dimensions.
        dims: Vec<usize>,
        /// Bytes that the shape asks for.
        want: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// The number of bytes does not fit this machine's address space.
    #[error("a tensor {dtype}{dims:?} is larger than memory can address")]
    Overflows {
        /// Its element type.
        dtype: DType,
        /// Its dimensions.
        dims: Vec<usize>,
    },
}

/// How many bytes a tensor of this type and shape takes, `None` when the number overflows.
pub(crate) fn checked_len(dtype: DType, dims: &[usize]) -> Option<usize> {
    // A zero dimension makes an empty tensor however large the others are.
    if dims.contains(&0) {
        return Some(0);
    }
    let bytes = dims.iter().try_fold(dtype.size(), |product, &dim| product.checked_mul(dim))?;
    isize::try_from(bytes).is_ok().then_some(bytes)
}

/// Rust types that are the elements of some [`DType`].
pub trait Element: Copy + 'static {
    /// The type's name in plans and files.
    const DTYPE: DType;
    /// One element from its little-endian bytes; `bytes` has exactly the element's size.
    fn read(bytes: &[u8]) -> Self;
    /// Appends the element's little-endian bytes.
    fn write(self, to: &mut Vec<u8>);
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),*) => {$(
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("the caller cut one element"))
            }
            fn write(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
elements!(u8 => U8, u16 => U16, u32 => U32, u64 => U64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
          half::f16 => F16, half::bf16 => BF16, f32 => F32, f64 => F64);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn read(bytes: &[u8]) -> bool {
        bytes[0] != 0
    }
    fn write(self, to: &mut Vec<u8>) {
        to.push(u8::from(self));
    }
}

impl Tensor {
    /// A tensor over `data`, row-major and little-endian. Errors when the length is not what the shape asks for.
    pub fn new(dtype: DType, dims: Vec<usize>, data: impl Into<Bytes>) -> Result<Tensor, TensorError> {
        let data = data.into();
        match checked_len(dtype, &dims) {
            None => Err(TensorError::Overflows { dtype, dims }),
            Some(want) if want != data.len() => {
                Err(TensorError::WrongLength { dtype, dims, want, got: data.len() })
            }
            Some(_) => Ok(Tensor { dtype, dims, data }),
        }
    }

    /// A tensor of `elements`, row-major. Panics when their number is not the product of `dims`: for values that
    /// the program made itself.
    pub fn from_elements<T: Element>(dims: &[usize], elements: &[T]) -> Tensor {
        let mut data = Vec::with_capacity(elements.len() * T::DTYPE.size());
        elements.iter().for_each(|&element| element.write(&mut data));
        Tensor::new(T::DTYPE, dims.to_vec(), data).expect("as many elements as the shape asks for")
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(element: T) -> Tensor {
        Tensor::from_elements(&[], &[element])
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements' bytes, row-major, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements as `T`, or `None` when the tensor holds another type.
    pub fn elements<T: Element>(&self) -> Option<Vec<T>> {
        (T::DTYPE == self.dtype).then(|| self.data.chunks_exact(self.dtype.size()).map(T::read).collect())
    }

    /// The same elements under another shape. Errors when the counts differ.
    pub fn reshaped(&self, dims: Vec<usize>) -> Result<Tensor, TensorError> {
        Tensor::new(self.dtype, dims, self.data.clone())
    }
}

impl fmt::Debug for Tensor {
    /// `f32[2, 3]` and, when there are few, the elements.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.dims)?;
        if self.len() > 8 {
            return Ok(());
        }
        match self.dtype {
            DType::F32 => write!(f, "={:?}", self.elements::<f32>().unwrap_or_default()),
            DType::I64 => write!(f, "={:?}", self.elements::<i64>().unwrap_or_default()),
            DType::Bool => write!(f, "={:?}", self.elements::<bool>().unwrap_or_default()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_refuses_bytes_that_do_not_fill_its_shape() {
        let error = Tensor::new(DType::F32, vec![2, 3], vec![0; 20]).unwrap_err();
        assert_eq!(error.to_string(), "a tensor f32[2, 3] holds 24 bytes, but 20 were given");
        assert!(matches!(
            Tensor::new(DType::F32, vec![usize::MAX, 2], vec![]),
            Err(TensorError::Overflows { .. })
        ));
    }

    #[test]
    fn elements_come_back_as_they_went_in() {
        let tensor = Tensor::from_elements(&[3], &[1.5f32, -2.0, f32::INFINITY]);
        assert_eq!(tensor.elements::<f32>().unwrap(), [1.5, -2.0, f32::INFINITY]);
        assert_eq!(tensor.elements::<i64>(), None);
    }
}
