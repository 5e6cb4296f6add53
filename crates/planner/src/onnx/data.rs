//! The elements of an ONNX tensor: raw bytes, typed fields, or a place in another file.

use crate::graph::WeightSource;
use crate::onnx::error::ImportError;
use crate::onnx::external::{External, ExternalError};
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::{DataLocation, DataType};
use crate::source::read_weight;
use crate::tensor::{Tensor, TensorError, checked_len};
use prost::bytes::Bytes;
use tessera_core::DType;

/// For messages: the types that [`dtype`] knows.
pub(crate) const SERVED: &str = "booleans, integers of 8 to 64 bits and floats of 16 to 64 bits are served";

/// More dimensions than any operator of ours wants.
pub(crate) const MAX_RANK: usize = 8;

/// A tensor of a file, its elements perhaps not read yet.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    pub(crate) source: WeightSource,
}

/// Our type for one of ONNX's, or its name when we have none.
pub(crate) fn dtype(onnx: i32) -> Result<DType, String> {
    let Ok(named) = DataType::try_from(onnx) else { return Err(format!("number {onnx}")) };
    Ok(match named {
        DataType::Bool => DType::Bool,
        DataType::Uint8 => DType::U8,
        DataType::Uint16 => DType::U16,
        DataType::Uint32 => DType::U32,
        DataType::Uint64 => DType::U64,
        DataType::Int8 => DType::I8,
        DataType::Int16 => DType::I16,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::BF16,
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        other => return Err(other.as_str_name().to_owned()),
    })
}

/// The tensor in `proto`; `name` is for messages. `left_out` is where its raw data is, if that was left in the file. Nothing of another file
/// is read, but its length is checked.
pub(crate) fn load(
    proto: &TensorProto,
    name: &str,
    left_out: Option<&WeightSource>,
    external: &mut External,
) -> Result<Loaded, ImportError> {
    let wrong = |problem: String| ImportError::Tensor { name: name.to_owned(), problem };
    let dtype = dtype(proto.data_type())
        .map_err(|word| wrong(format!("has elements of an unsupported type, {word}; {SERVED}")))?;
    if proto.dims.len() > MAX_RANK {
        return Err(wrong(format!("has {} dimensions, more than {MAX_RANK}", proto.dims.len())));
    }
    let dims = proto.dims.iter().map(|&dim| usize::try_from(dim));
    let dims: Result<Vec<usize>, _> = dims.collect();
    let dims = dims.map_err(|_| wrong(format!("has a negative dimension in {:?}", proto.dims)))?;
    // An empty tensor's other dimensions must be countable, too: products of some of them are.
    let other: Vec<usize> = dims.iter().copied().filter(|&dim| dim != 0).collect();
    let (Some(want), Some(_)) = (checked_len(dtype, &dims), checked_len(dtype, &other)) else {
        return Err(wrong(format!("has the shape {dims:?}, which overflows")));
    };
    if proto.segment.is_some() {
        return Err(wrong("comes in segments, which Tessera does not read; export it whole".into()));
    }
    if proto.data_location() == DataLocation::External {
        let source = external.source(proto, want).map_err(|error| match error {
            ExternalError::Entry(problem) => wrong(problem),
            ExternalError::Source(source) => ImportError::External { name: name.to_owned(), source },
        })?;
        return Ok(Loaded { dtype, dims, source });
    }
    if let Some(source @ WeightSource::File { len, .. }) = left_out {
        if *len != want as u64 {
            let got = usize::try_from(*len).unwrap_or(usize::MAX);
            let error = TensorError::WrongLength { dtype, dims, want, got };
            return Err(wrong(format!("does not hold what it says: {error}")));
        }
        return Ok(Loaded { dtype, dims, source: source.clone() });
    }
    let bytes = match &proto.raw_data {
        Some(raw) => raw.clone(),
        None => typed(proto, dtype).map_err(&wrong)?,
    };
    let tensor = Tensor::new(dtype, dims.clone(), bytes)
        .map_err(|error| wrong(format!("does not hold what it says: {error}")))?;
    Ok(Loaded { dtype, dims, source: WeightSource::Inline(tensor) })
}

impl Loaded {
    /// The elements, in memory of their own: a literal must not keep the whole file's buffer alive.
    pub(crate) fn literal(&self, name: &str) -> Result<Tensor, ImportError> {
        let external = |source| ImportError::External { name: name.to_owned(), source };
        let tensor = read_weight(&self.source, self.dtype, &self.dims).map_err(external)?;
        if self.dtype == DType::Bool && tensor.bytes().iter().any(|&byte| byte > 1) {
            let problem = "has a boolean that is neither 0 nor 1".to_owned();
            return Err(ImportError::Tensor { name: name.to_owned(), problem });
        }
        let own = Bytes::copy_from_slice(tensor.bytes());
        Ok(Tensor::new(self.dtype, self.dims.clone(), own).expect("the length that it had"))
    }

    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

/// The bytes of the field that ONNX prescribes for the type. Small types come as i32, one element each; halves as their bits.
fn typed(proto: &TensorProto, dtype: DType) -> Result<Bytes, String> {
    fn narrow<T: TryFrom<i32> + Copy, const N: usize>(
        from: &[i32],
        bytes: impl Fn(T) -> [u8; N],
    ) -> Result<Vec<u8>, String> {
        let mut to = Vec::with_capacity(from.len() * N);
        for &element in from {
            let narrow = T::try_from(element)
                .map_err(|_| format!("has an element {element} that its type cannot hold"))?;
            to.extend_from_slice(&bytes(narrow));
        }
        Ok(to)
    }
    let small = &proto.int32_data;
    Ok(match dtype {
        DType::F32 => proto.float_data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(),
        DType::F64 => proto.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => proto.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U64 => proto.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U32 => {
            let elements = proto.uint64_data.iter().map(|&x| u32::try_from(x));
            let elements: Result<Vec<u32>, _> = elements.collect();
            let elements = elements.map_err(|_| "has an element that u32 cannot hold".to_owned())?;
            elements.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::I32 => small.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I16 => narrow(small, i16::to_le_bytes)?,
        DType::I8 => narrow(small, i8::to_le_bytes)?,
        DType::U8 | DType::Bool => narrow(small, u8::to_le_bytes)?,
        DType::U16 | DType::F16 | DType::BF16 => narrow(small, u16::to_le_bytes)?,
    }
    .into())
}
