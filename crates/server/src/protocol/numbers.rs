//! Numbers between JSON and memory, without a tree in between.

use super::decimal;
use half::{bf16, f16};
use std::io::Write;
use tessera_core::DType;

/// Arrays nested deeper than this are refused, as by Triton: no tensor has so many axes.
const MOST_NESTED: usize = 100;

/// Reads `json`, an array that a JSON parser has already found well formed, as `count` elements of `dtype`.
/// Costs one pass, and memory for what was sent, not for what `count` promises. The error is a clause.
pub(super) fn read(dtype: DType, json: &str, count: usize) -> Result<Vec<u8>, String> {
    let finite32 = |token: &str| token.parse::<f32>().ok().filter(|value| value.is_finite());
    let finite64 = |token: &str| token.parse::<f64>().ok().filter(|value| value.is_finite());
    match dtype {
        DType::Bool => each(dtype, json, count, |token| match token {
            "true" => Some([1]),
            "false" => Some([0]),
            _ => None,
        }),
        DType::U8 => each(dtype, json, count, |token| token.parse().ok().map(u8::to_le_bytes)),
        DType::U16 => each(dtype, json, count, |token| token.parse().ok().map(u16::to_le_bytes)),
        DType::U32 => each(dtype, json, count, |token| token.parse().ok().map(u32::to_le_bytes)),
        DType::U64 => each(dtype, json, count, |token| token.parse().ok().map(u64::to_le_bytes)),
        DType::I8 => each(dtype, json, count, |token| token.parse().ok().map(i8::to_le_bytes)),
        DType::I16 => each(dtype, json, count, |token| token.parse().ok().map(i16::to_le_bytes)),
        DType::I32 => each(dtype, json, count, |token| token.parse().ok().map(i32::to_le_bytes)),
        DType::I64 => each(dtype, json, count, |token| token.parse().ok().map(i64::to_le_bytes)),
        DType::F32 => {
            let simple = |text: &[u8]| {
                let (value, length) = decimal::leading(text)?;
                Some((decimal::narrowed(value)?.to_le_bytes(), length))
            };
            each_or(dtype, json, count, simple, |token| finite32(token).map(f32::to_le_bytes))
        }
        DType::F64 => {
            let simple =
                |text: &[u8]| decimal::leading(text).map(|(value, length)| (value.to_le_bytes(), length));
            each_or(dtype, json, count, simple, |token| finite64(token).map(f64::to_le_bytes))
        }
        DType::F16 => each(dtype, json, count, |token| {
            finite64(token).map(f16::from_f64).filter(|value| value.is_finite()).map(f16::to_le_bytes)
        }),
        DType::BF16 => each(dtype, json, count, |token| {
            finite64(token).map(bf16::from_f64).filter(|value| value.is_finite()).map(bf16::to_le_bytes)
        }),
    }
}

fn each<const N: usize>(
    dtype: DType,
    json: &str,
    count: usize,
    element: impl Fn(&str) -> Option<[u8; N]>,
) -> Result<Vec<u8>, String> {
    each_or(dtype, json, count, |_| None, element)
}

/// `simple` may read an element off the front of the text, and say how long it was; the others are cut out for `element`.
fn each_or<const N: usize>(
    dtype: DType,
    json: &str,
    count: usize,
    simple: impl Fn(&[u8]) -> Option<([u8; N], usize)>,
    element: impl Fn(&str) -> Option<[u8; N]>,
) -> Result<Vec<u8>, String> {
    let bytes = json.as_bytes();
    if bytes.first() != Some(&b'[') {
        return Err("its data is not an array".into());
    }
    // Every element but the last takes two letters at least: a digit and a comma.
    let mut data: Vec<[u8; N]> = Vec::with_capacity(count.min(json.len() / 2 + 1));
    let (mut at, mut depth) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'[' if depth == MOST_NESTED => {
                return Err(format!("its data is nested deeper than {MOST_NESTED}"));
            }
            b'[' => depth += 1,
            b']' => depth -= 1,
            b',' | b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                if data.len() == count {
                    return Err(format!("its shape has {count} elements and its data has more"));
                }
                let (value, length) = match simple(&bytes[at..]) {
                    Some(read) => read,
                    None => {
                        let length = bytes[at..].iter().position(decimal::ends).unwrap_or(bytes.len() - at);
                        let token = json.get(at..at + length).unwrap_or_default();
                        (element(token).ok_or_else(|| refusal(dtype, data.len(), token))?, length)
                    }
                };
                data.push(value);
                at += length;
                continue;
            }
        }
        at += 1;
    }
    if data.len() < count {
        let found = data.len();
        return Err(format!("its shape has {count} elements and its data has {found}"));
    }
    Ok(data.into_flattened())
}

fn refusal(dtype: DType, at: usize, token: &str) -> String {
    let shown: String = token.chars().take(32).collect();
    let dtype = dtype.protocol_name();
    format!("element {at} of its data, {shown}, is not a number that {dtype} can hold")
}

/// Writes `data`, little-endian elements of `dtype`, as one flat JSON array. Floats are the shortest decimals that
/// read back as the same bits. The error is the first value that JSON cannot say.
pub(super) fn write(dtype: DType, data: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    match dtype {
        DType::Bool => every(data, out, |[byte]: [u8; 1]| Ok(byte != 0)),
        DType::U8 => every(data, out, |element| Ok(u8::from_le_bytes(element))),
        DType::U16 => every(data, out, |element| Ok(u16::from_le_bytes(element))),
        DType::U32 => every(data, out, |element| Ok(u32::from_le_bytes(element))),
        DType::U64 => every(data, out, |element| Ok(u64::from_le_bytes(element))),
        DType::I8 => every(data, out, |element| Ok(i8::from_le_bytes(element))),
        DType::I16 => every(data, out, |element| Ok(i16::from_le_bytes(element))),
        DType::I32 => every(data, out, |element| Ok(i32::from_le_bytes(element))),
        DType::I64 => every(data, out, |element| Ok(i64::from_le_bytes(element))),
        DType::F16 => every(data, out, |element| finite(f16::from_le_bytes(element).to_f32())),
        DType::BF16 => every(data, out, |element| finite(bf16::from_le_bytes(element).to_f32())),
        DType::F32 => every(data, out, |element| finite(f32::from_le_bytes(element))),
        DType::F64 => every(data, out, |element| {
            let value = f64::from_le_bytes(element);
            if value.is_finite() { Ok(value) } else { Err(value.to_string()) }
        }),
    }
}

fn finite(value: f32) -> Result<f32, String> {
    if value.is_finite() { Ok(value) } else { Err(value.to_string()) }
}

fn every<const N: usize, T: serde::Serialize>(
    data: &[u8],
    out: &mut Vec<u8>,
    element: impl Fn([u8; N]) -> Result<T, String>,
) -> Result<(), String> {
    out.push(b'[');
    for (at, bytes) in data.as_chunks::<N>().0.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        serde_json::to_writer(out.by_ref(), &element(*bytes)?).expect("a number fits in memory");
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(json: &str, count: usize) -> Result<Vec<f32>, String> {
        let data = read(DType::F32, json, count)?;
        Ok(data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    #[test]
    fn nested_and_flat_arrays_are_alike() {
        assert_eq!(floats("[[1, 2.5],\n [-3e2 , 0]]", 4).unwrap(), [1.0, 2.5, -300.0, 0.0]);
        assert_eq!(floats("[1,2.5,-3e2,0]", 4).unwrap(), [1.0, 2.5, -300.0, 0.0]);
        assert_eq!(floats("[]", 0).unwrap(), [0.0; 0]);
    }

    #[test]
    fn a_count_that_differs_from_the_shape_is_told_without_reading_on() {
        assert!(floats("[1,2,3]", 4).unwrap_err().contains("4 elements and its data has 3"));
        assert!(floats("[1,2,3]", 2).unwrap_err().contains("2 elements and its data has more"));
        assert!(floats("[1]", usize::MAX).unwrap_err().contains("its data has 1"));
    }

    #[test]
    fn what_a_datatype_cannot_hold_is_an_error_that_shows_it() {
        let wrong = [
            (DType::U8, "[300]"),
            (DType::U8, "[-1]"),
            (DType::I64, "[1.5]"),
            (DType::I64, "[9223372036854775808]"),
            (DType::F32, "[1e40]"),
            (DType::F64, "[1e999]"),
            (DType::F16, "[70000]"),
            (DType::BF16, "[1e39]"),
            (DType::F32, "[null]"),
            (DType::F32, "[true]"),
            (DType::F32, "[\"1\"]"),
            (DType::F32, "[{}]"),
            (DType::Bool, "[1]"),
        ];
        for (dtype, json) in wrong {
            let error = read(dtype, json, 1).unwrap_err();
            let token = json.trim_matches(['[', ']']);
            assert!(error.contains(token) && error.contains(dtype.protocol_name()), "{error}");
        }
        assert!(read(DType::F32, "5", 1).is_err());
    }

    #[test]
    fn every_datatype_survives_the_way_to_json_and_back() {
        for dtype in DType::ALL {
            let bytes: Vec<u8> = match dtype {
                DType::Bool => vec![0, 1, 1],
                // Exponents below the top, so that floats are finite.
                _ => (0..dtype.size() * 9).map(|at| (at * 37 % 64) as u8).collect(),
            };
            let mut json = Vec::new();
            write(dtype, &bytes, &mut json).unwrap();
            let json = String::from_utf8(json).unwrap();
            assert_eq!(read(dtype, &json, bytes.len() / dtype.size()).unwrap(), bytes, "{dtype}: {json}");
        }
    }

    #[test]
    fn nan_and_infinity_cannot_be_written() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(write(DType::F32, &value.to_le_bytes(), &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(floats(&nested(100), 1).is_ok());
        assert!(floats(&nested(101), 1).unwrap_err().contains("nested"));
    }
}
