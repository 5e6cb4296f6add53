//! A body of the inference protocol, and its tensors sent back in both forms.
//!
//! The first two bytes are the header's number where it is less than 32768; else there is no header, and the rest is JSON.

use bytes::Bytes;
use std::sync::Arc;
use tessera_core::DType;
use tessera_server::protocol::{Wanted, decode, encode};
use tessera_server::{InferResponse, ModelInfo, TensorInfo, TensorOut};

pub(super) fn run(bytes: &[u8]) {
    let Some((head, body)) = bytes.split_first_chunk::<2>() else { return };
    let number = u16::from_le_bytes(*head);
    let header = (number < 1 << 15).then(|| number.to_string());
    let input = TensorInfo { name: "x".into(), dtype: DType::F32, dims: vec![-1, 4] };
    let info = ModelInfo {
        name: "m".into(),
        version: 1,
        versions: vec![1],
        inputs: vec![input],
        outputs: vec![],
        placements: vec![],
    };
    let body = Bytes::copy_from_slice(body);
    let decoded = decode("m", None, header.as_deref(), &body, || Ok(Arc::new(info)));
    let Ok(decoded) = decoded else { return };
    let outputs = decoded.request.inputs.iter().map(|input| {
        let count =
            input.shape.iter().try_fold(input.dtype.size() as u64, |bytes, &dim| bytes.checked_mul(dim));
        assert_eq!(count, Some(input.data.len() as u64), "a tensor is as long as its shape says");
        let (name, shape, data) = (input.name.clone(), input.shape.clone(), input.data.clone());
        TensorOut { name, dtype: input.dtype, shape, data }
    });
    let response = InferResponse { model: "m".into(), version: 1, outputs: outputs.collect() };
    for otherwise in [false, true] {
        let wanted = Wanted { chosen: vec![], otherwise };
        let encoded = encode(&response, decoded.id.as_deref(), &wanted);
        assert!(encoded.is_ok() || !otherwise, "everything can be said in binary");
    }
    let _ = encode(&response, None, &decoded.wanted);
}
