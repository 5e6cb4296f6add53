//! Bodies to requests and answers to bodies: one image as JSON and as binary, and a small vector.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tessera_core::DType;
use tessera_server::protocol::{Wanted, decode, encode};
use tessera_server::{InferResponse, Rejection, TensorOut};

/// An answer that looks like an image or a row of logits: decimals of many digits.
fn answer(elements: usize) -> InferResponse {
    let data: Vec<u8> =
        (0..elements).flat_map(|at| ((at as f32 * 0.737).sin() * 3.0).to_le_bytes()).collect();
    let output =
        TensorOut { name: "x".into(), dtype: DType::F32, shape: vec![1, elements as u64], data: data.into() };
    InferResponse { model: "m".into(), version: 1, outputs: vec![output] }
}

/// The same tensor as a request, with the number that its header has.
fn request(answer: &InferResponse, binary: bool) -> (Bytes, Option<String>) {
    let output = &answer.outputs[0];
    let head =
        format!("{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,{}],", output.shape[1]);
    if binary {
        let json = format!("{head}\"parameters\":{{\"binary_data_size\":{}}}}}]}}", output.data.len());
        let length = json.len().to_string();
        return ([json.as_bytes(), &output.data].concat().into(), Some(length));
    }
    let numbers: Vec<String> =
        output.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).to_string()).collect();
    (format!("{head}\"data\":[{}]}}]}}", numbers.join(",")).into(), None)
}

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    for (name, elements) in [("vector of 16", 16), ("image of 224", 3 * 224 * 224)] {
        let answer = answer(elements);
        group.throughput(Throughput::Elements(elements as u64));
        for (form, binary) in [("json", false), ("binary", true)] {
            let (body, length) = request(&answer, binary);
            group.bench_function(BenchmarkId::new(format!("decode {form}"), name), |bencher| {
                bencher.iter(|| {
                    let describe = || Err(Rejection::Internal("nobody asks for the model".into()));
                    decode("m", None, length.as_deref(), black_box(&body), describe).expect("a request")
                });
            });
            let wanted = Wanted { chosen: vec![], otherwise: binary };
            group.bench_function(BenchmarkId::new(format!("encode {form}"), name), |bencher| {
                bencher.iter(|| encode(black_box(&answer), None, &wanted).expect("an answer"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, wire);
criterion_main!(benches);
