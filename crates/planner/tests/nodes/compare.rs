//! Whether answers are the expected ones, by the rule of ONNX's own runner.

use super::suite::Case;
use tessera_core::DType;
use tessera_planner::Tensor;

/// ONNX compares bfloat16 within two units in the last place.
const BF16_RTOL: f64 = 1.0 / 64.0;

/// Says what differs, if anything. Types and shapes must be equal, integers and booleans, too; NaN equals NaN.
pub fn compare(case: &Case, got: &[Tensor]) -> Result<(), String> {
    if got.len() != case.outputs.len() {
        return Err(format!("{} outputs instead of {}", got.len(), case.outputs.len()));
    }
    for (index, (got, want)) in got.iter().zip(&case.outputs).enumerate() {
        let want = want.as_ref().ok_or_else(|| format!("output {index} should be of a type we have not"))?;
        one(case, got, want).map_err(|why| format!("output {index}: {why}"))?;
    }
    Ok(())
}

fn one(case: &Case, got: &Tensor, want: &Tensor) -> Result<(), String> {
    if (got.dtype(), got.dims()) != (want.dtype(), want.dims()) {
        return Err(format!("{}{:?} instead of {}{:?}", got.dtype(), got.dims(), want.dtype(), want.dims()));
    }
    if got.bytes() == want.bytes() {
        return Ok(());
    }
    if !want.dtype().is_float() {
        return Err(format!("{got:?} instead of {want:?}"));
    }
    let (atol, mut rtol) = (f64::from(case.atol), f64::from(case.rtol));
    if want.dtype() == DType::BF16 {
        rtol = rtol.max(BF16_RTOL);
    }
    let right = |got: f64, want: f64| {
        got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= atol + rtol * want.abs()
    };
    let (got, want) = (floats(got), floats(want));
    let wrong = got.iter().zip(&want).position(|(&got, &want)| !right(got, want));
    match wrong {
        Some(at) => Err(format!("element {at} is {} instead of {}", got[at], want[at])),
        None => Ok(()),
    }
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F16 => tensor.elements::<half::f16>().unwrap().into_iter().map(f64::from).collect(),
        DType::BF16 => tensor.elements::<half::bf16>().unwrap().into_iter().map(f64::from).collect(),
        DType::F32 => tensor.elements::<f32>().unwrap().into_iter().map(f64::from).collect(),
        DType::F64 => tensor.elements().unwrap(),
        other => unreachable!("{other} is no float"),
    }
}
