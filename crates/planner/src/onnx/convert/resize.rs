//! Resize of all opsets, and Upsample.

use super::{float, invalid, unsupported};
use crate::graph::ValueId;
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Aspect, Coordinates, Interpolation, Nearest, Op, Resize};

pub(crate) fn resize(site: &mut Site<'_, '_>) -> Made {
    if site.importer.opset < 11 {
        return by_scales(site);
    }
    let attributes = site.attributes;
    let nearest = match attributes.string("nearest_mode")?.unwrap_or("round_prefer_floor") {
        "round_prefer_floor" => Nearest::RoundPreferFloor,
        "round_prefer_ceil" => Nearest::RoundPreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => return Err(invalid(format!("has an unknown nearest_mode `{other}`"))),
    };
    let coefficient = float(site, "cubic_coeff_a", -0.75)?;
    let interpolation = interpolation(site, nearest, coefficient)?;
    let extrapolation = float(site, "extrapolation_value", 0.0)?;
    let coordinates = match attributes.string("coordinate_transformation_mode")?.unwrap_or("half_pixel") {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_crop_and_resize" => Coordinates::CropAndResize { extrapolation },
        // The half-pixel rule of nearest neighbours in opset 11, where it had a name of its own.
        "tf_half_pixel_for_nn" if site.importer.opset < 13 => Coordinates::HalfPixel,
        other => return Err(invalid(format!("has an unknown coordinate_transformation_mode `{other}`"))),
    };
    let aspect = match attributes.string("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
        "stretch" => Aspect::Stretch,
        "not_larger" => Aspect::NotLarger,
        "not_smaller" => Aspect::NotSmaller,
        other => return Err(invalid(format!("has an unknown keep_aspect_ratio_policy `{other}`"))),
    };
    let antialias = attributes.flag("antialias", false)?;
    if antialias && matches!(interpolation, Interpolation::Nearest(_)) {
        return Err(invalid("has antialias, which nearest elements do not know"));
    }
    let resize = Resize {
        interpolation,
        coordinates,
        antialias,
        exclude_outside: attributes.flag("exclude_outside", false)?,
        aspect,
        axes: attributes.ints("axes")?.unwrap_or_default().to_vec(),
    };
    let [mut roi, scales, sizes] = [1, 2, 3].map(|index| filled(site, index));
    if !matches!(coordinates, Coordinates::CropAndResize { .. }) {
        roi = None;
    }
    // Until opset 12 scales were there, though empty, beside sizes.
    let scales = if sizes.is_some() { None } else { scales };
    site.finish(Op::Resize(resize), vec![site.inputs[0], roi, scales, sizes], 1);
    Ok(())
}

pub(crate) fn upsample(site: &mut Site<'_, '_>) -> Made {
    if site.importer.opset >= 10 {
        return Err(unsupported("Upsample was renamed in opset 10; export it as Resize"));
    }
    by_scales(site)
}

/// `(x, scales)` with the coordinates that frameworks then meant.
fn by_scales(site: &mut Site<'_, '_>) -> Made {
    let Some(&Some(scales)) = site.inputs.get(1) else { return Err(invalid("has no scales")) };
    let resize = Resize {
        interpolation: interpolation(site, Nearest::Simple, -0.75)?,
        coordinates: Coordinates::Asymmetric,
        antialias: false,
        exclude_outside: false,
        aspect: Aspect::Stretch,
        axes: Vec::new(),
    };
    site.finish(Op::Resize(resize), vec![site.inputs[0], None, Some(scales), None], 1);
    Ok(())
}

fn interpolation(site: &Site<'_, '_>, nearest: Nearest, coefficient: f32) -> Result<Interpolation, Refusal> {
    match site.attributes.string("mode")?.unwrap_or("nearest") {
        "nearest" => Ok(Interpolation::Nearest(nearest)),
        "linear" => Ok(Interpolation::Linear),
        "cubic" => Ok(Interpolation::Cubic { coefficient }),
        other => Err(invalid(format!("has an unknown mode `{other}`"))),
    }
}

/// An input that is not left out by being empty.
fn filled(site: &Site<'_, '_>, index: usize) -> Option<ValueId> {
    let value = site.inputs.get(index).copied().flatten()?;
    (site.param_dims(index).as_deref() != Some(&[0])).then_some(value)
}
