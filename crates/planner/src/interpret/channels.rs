//! Steps that normalise images by their channels, which come last.

use super::memory::Memory;
use super::rows::sum;
use crate::plan::{LrnShape, StepKind};

pub(super) fn group_norm(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::GroupNorm { x, shape, epsilon, scale, bias, out } = kind else {
        unreachable!("called for its own kind")
    };
    let (x, scale, bias) = (memory.floats(*x), memory.floats(*scale), memory.floats(*bias));
    let group = shape.channels / shape.groups;
    let count = (shape.pixels * group) as f32;
    let mut written = vec![0.0; shape.elements()];
    for image in 0..shape.images {
        for first in (0..shape.channels).step_by(group) {
            let places: Vec<usize> = (0..shape.pixels)
                .flat_map(|pixel| {
                    let row = (image * shape.pixels + pixel) * shape.channels + first;
                    row..row + group
                })
                .collect();
            let mean = sum(places.iter().map(|&at| x[at])) / count;
            let variance = sum(places.iter().map(|&at| (x[at] - mean) * (x[at] - mean))) / count;
            let deviation = (variance + epsilon).sqrt();
            for at in places {
                let vector = at % shape.channels * shape.vectors / shape.channels;
                written[at] = (x[at] - mean) / deviation * scale[vector] + bias[vector];
            }
        }
    }
    memory.set(*out, &written);
}

pub(super) fn lrn(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Lrn { x, channels, shape, out, .. } = kind else { unreachable!("called for its own kind") };
    let LrnShape { size, alpha, beta, bias } = *shape;
    let x = memory.floats(*x);
    let before = (size - 1) / 2;
    let mut written = Vec::with_capacity(x.len());
    for row in x.chunks_exact(*channels) {
        for (c, &here) in row.iter().enumerate() {
            let neighbours = &row[c.saturating_sub(before)..(c + size - before).min(*channels)];
            let squares = sum(neighbours.iter().map(|x| x * x));
            written.push(here / libm::powf(bias + alpha / size as f32 * squares, beta));
        }
    }
    memory.set(*out, &written);
}
