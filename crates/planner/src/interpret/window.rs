//! Steps that move a window over an image `[height][width][channels]`.

use super::matrix::{finish, row_times_matrix};
use super::memory::Memory;
use crate::plan::{ConvShape, Operand, PoolKind, StepKind};

/// The input row and column under tap `(ky, kx)` of output pixel `(oy, ox)`, `None` outside the image.
fn tap(shape: &ConvShape, [oy, ox]: [usize; 2], [ky, kx]: [usize; 2]) -> Option<[usize; 2]> {
    let along = |axis: usize, o: usize, k: usize| {
        let at = (o * shape.strides[axis] + k * shape.dilations[axis]).checked_sub(shape.before[axis])?;
        (at < shape.input[axis]).then_some(at)
    };
    Some([along(0, oy, ky)?, along(1, ox, kx)?])
}

fn pixels(shape: &ConvShape) -> impl Iterator<Item = [usize; 2]> {
    let [height, width] = shape.output;
    (0..height).flat_map(move |y| (0..width).map(move |x| [y, x]))
}

fn taps(shape: &ConvShape) -> impl Iterator<Item = [usize; 2]> {
    let [height, width] = shape.kernel;
    (0..height).flat_map(move |y| (0..width).map(move |x| [y, x]))
}

pub(super) fn conv(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Conv { x, w, shape, epilogue, out } = kind else { unreachable!("called for its own kind") };
    let (image, w) = (memory.floats(*x), memory.matrix(*w));
    let (ci, co) = (shape.in_per_group, shape.out_per_group);
    let channels = shape.groups * ci;
    let k = shape.kernel[0] * shape.kernel[1] * ci;
    let mut sums = Vec::new();
    for pixel in pixels(shape) {
        for group in 0..shape.groups {
            let mut patch = Vec::with_capacity(k);
            for at in taps(shape).map(|k| tap(shape, pixel, k)) {
                match at {
                    Some([y, x]) => {
                        let start = (y * shape.input[1] + x) * channels + group * ci;
                        patch.extend_from_slice(&image[start..start + ci]);
                    }
                    None => patch.resize(patch.len() + ci, 0.0),
                }
            }
            sums.extend(row_times_matrix(patch.into_iter(), &w[group * k * co..][..k * co], co));
        }
    }
    finish(memory, epilogue, shape.groups * co, &mut sums);
    memory.set(*out, &sums);
}

pub(super) fn depthwise(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Depthwise { x, w, shape, epilogue, out } = kind else {
        unreachable!("called for its own kind")
    };
    let (image, w) = (memory.floats(*x), memory.floats(Operand::Weight(*w)));
    let channels = shape.groups;
    let mut sums = Vec::new();
    for pixel in pixels(shape) {
        let at: Vec<Option<[usize; 2]>> = taps(shape).map(|k| tap(shape, pixel, k)).collect();
        for channel in 0..channels {
            let products = at.iter().enumerate().map(|(k, at)| {
                let x = at.map_or(0.0, |[y, x]| image[(y * shape.input[1] + x) * channels + channel]);
                x * w[k * channels + channel]
            });
            sums.push(super::rows::sum(products));
        }
    }
    finish(memory, epilogue, channels, &mut sums);
    memory.set(*out, &sums);
}

pub(super) fn pool(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Pool { kind, x, shape, out } = kind else { unreachable!("called for its own kind") };
    let image = memory.floats(*x);
    let channels = shape.groups;
    let mut written = Vec::new();
    for pixel in pixels(shape) {
        let inside: Vec<[usize; 2]> = taps(shape).filter_map(|k| tap(shape, pixel, k)).collect();
        // A window that hangs over the padding (a rounded-up output) is cut there.
        let padded = taps(shape)
            .filter(|k| {
                (0..2).all(|axis| {
                    pixel[axis] * shape.strides[axis] + k[axis] * shape.dilations[axis]
                        < shape.before[axis] + shape.input[axis] + shape.after[axis]
                })
            })
            .count();
        for channel in 0..channels {
            let under = inside.iter().map(|[y, x]| image[(y * shape.input[1] + x) * channels + channel]);
            written.push(match kind {
                PoolKind::Max => {
                    under.fold(f32::NEG_INFINITY, |max, x| if x > max || x.is_nan() { x } else { max })
                }
                PoolKind::Sum => super::rows::sum(under),
                PoolKind::Average { count_padding: true } => super::rows::sum(under) / padded as f32,
                PoolKind::Average { count_padding: false } => super::rows::sum(under) / inside.len() as f32,
            });
        }
    }
    memory.set(*out, &written);
}

pub(super) fn pool_indices(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::PoolIndices { x, shape, out } = kind else { unreachable!("called for its own kind") };
    let all = memory.floats(*x);
    let size = shape.input.iter().product::<usize>();
    let mut written = Vec::new();
    for plane in 0..shape.planes {
        for place in boxes(shape.output) {
            let mut best: Option<(f32, usize)> = None;
            for tap in boxes(shape.kernel) {
                let at = |axis: usize| {
                    let at = place[axis] * shape.strides[axis] + tap[axis] * shape.dilations[axis];
                    at.checked_sub(shape.before[axis]).filter(|&at| at < shape.input[axis])
                };
                let (Some(d), Some(y), Some(x)) = (at(0), at(1), at(2)) else { continue };
                let here = all[plane * size + (d * shape.input[1] + y) * shape.input[2] + x];
                let counted = plane * size + d * shape.steps[0] + y * shape.steps[1] + x * shape.steps[2];
                // The first NaN under the window is the largest.
                if best.is_none_or(|(best, _)| here > best || (here.is_nan() && !best.is_nan())) {
                    best = Some((here, counted));
                }
            }
            written.push(best.map_or(-1, |(_, counted)| counted as i64));
        }
    }
    memory.set(*out, &written);
}

/// All places of a box, row-major.
fn boxes(extents: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [depth, height, width] = extents;
    (0..depth).flat_map(move |d| (0..height).flat_map(move |y| (0..width).map(move |x| [d, y, x])))
}
