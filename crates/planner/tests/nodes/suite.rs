//! The archive of cases; its layout stands in the script that writes it.

use std::path::{Path, PathBuf};
use tessera_core::DType;
use tessera_planner::Tensor;

/// One of ONNX's cases.
pub struct Case {
    /// ONNX's name for it without `test_`.
    pub name: String,
    /// `|got − want| ≤ atol + rtol·|want|` is right.
    pub rtol: f32,
    /// See `rtol`.
    pub atol: f32,
    /// The model as exporters write it: weights and shapes are initializers.
    pub exported: Vec<u8>,
    /// The model as ONNX gives it, everything an input, where it differs.
    pub given: Option<Vec<u8>>,
    /// As exporters write it with a free length of axis 0, where all inputs share one.
    pub batched: Option<Vec<u8>>,
    /// By name; `None` for what is no tensor of a type that Tessera has.
    pub inputs: Vec<(String, Option<Tensor>)>,
    /// In order.
    pub outputs: Vec<Option<Tensor>>,
}

/// Where the cases and the ledger are.
pub fn folder() -> PathBuf {
    let built = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/onnx_nodes"));
    // A binary that was built elsewhere finds them where it is run.
    if built.exists() { built } else { Path::new("fixtures/onnx_nodes").to_path_buf() }
}

/// All cases, sorted by name.
pub fn cases() -> Vec<Case> {
    let bytes = std::fs::read(folder().join("cases.bin")).unwrap();
    let mut reader = Reader { rest: bytes.strip_prefix(b"tessera nodes 1\n").unwrap() };
    let count = reader.u32();
    let raw: Vec<RawCase> = (0..count).map(|_| RawCase::read(&mut reader)).collect();
    let blobs = reader.rest;
    raw.into_iter().map(|raw| raw.with(blobs)).collect()
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.rest.split_first_chunk().unwrap();
        self.rest = rest;
        *taken
    }

    fn u8(&mut self) -> usize {
        usize::from(self.take::<1>()[0])
    }

    fn u16(&mut self) -> usize {
        usize::from(u16::from_le_bytes(self.take()))
    }

    fn u32(&mut self) -> usize {
        u32::from_le_bytes(self.take()) as usize
    }

    fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }

    fn text(&mut self) -> String {
        let len = self.u16();
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        String::from_utf8(text.to_vec()).unwrap()
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.u16();
        (0..count).map(|_| read(self)).collect()
    }
}

/// A tensor whose elements are still among the blobs.
struct RawTensor {
    dtype: Option<DType>,
    dims: Vec<usize>,
    offset: usize,
}

impl RawTensor {
    fn read(reader: &mut Reader<'_>) -> RawTensor {
        let dtype = DType::ALL.get(reader.u8()).copied();
        let rank = reader.u8();
        RawTensor { dtype, dims: (0..rank).map(|_| reader.u32()).collect(), offset: reader.u32() }
    }

    fn with(self, blobs: &[u8]) -> Option<Tensor> {
        let dtype = self.dtype?;
        let len = self.dims.iter().product::<usize>() * dtype.size();
        Some(Tensor::new(dtype, self.dims, blobs[self.offset..][..len].to_vec()).unwrap())
    }
}

struct RawCase {
    name: String,
    rtol: f32,
    atol: f32,
    /// Exported, given, batched: offset and length.
    models: [(usize, usize); 3],
    inputs: Vec<(String, RawTensor)>,
    outputs: Vec<RawTensor>,
}

impl RawCase {
    fn read(reader: &mut Reader<'_>) -> RawCase {
        RawCase {
            name: reader.text(),
            rtol: reader.f32(),
            atol: reader.f32(),
            models: std::array::from_fn(|_| (reader.u32(), reader.u32())),
            inputs: reader.list(|reader| (reader.text(), RawTensor::read(reader))),
            outputs: reader.list(RawTensor::read),
        }
    }

    fn with(self, blobs: &[u8]) -> Case {
        let [exported, given, batched] = self
            .models
            .map(|(offset, len)| Some(blobs[offset..][..len].to_vec()).filter(|model| !model.is_empty()));
        Case {
            name: self.name,
            rtol: self.rtol,
            atol: self.atol,
            exported: exported.unwrap(),
            given,
            batched,
            inputs: self.inputs.into_iter().map(|(name, raw)| (name, raw.with(blobs))).collect(),
            outputs: self.outputs.into_iter().map(|raw| raw.with(blobs)).collect(),
        }
    }
}
