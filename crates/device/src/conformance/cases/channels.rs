//! Cases of steps that normalise images by their channels.

use super::{Builder, Case};
use tessera_core::DType;
use tessera_planner::plan::{GroupShape, LrnShape, Operand, StepKind};

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    // Every channel a group: few, a warp's, several blocks'; groups that share a block, that fill one, and that are longer than one.
    for (channels, groups, pixels) in
        [(3, 3, 35), (32, 32, 300), (72, 72, 49), (40, 8, 77), (320, 32, 16), (96, 2, 130), (600, 2, 9)]
    {
        all.push(group_norm(GroupShape { images: 1, pixels, channels, groups, vectors: channels }));
    }
    // One element of scale and bias per group; several images; the channels themselves, without pixels.
    all.push(group_norm(GroupShape { images: 1, pixels: 20, channels: 24, groups: 4, vectors: 4 }));
    all.push(group_norm(GroupShape { images: 3, pixels: 30, channels: 12, groups: 3, vectors: 12 }));
    all.push(group_norm(GroupShape { images: 1, pixels: 1, channels: 64, groups: 4, vectors: 64 }));
    for (channels, size) in [(5, 3), (96, 5), (40, 4), (3, 9), (8, 1)] {
        all.push(lrn(channels, LrnShape { size, alpha: 0.5, beta: 0.75, bias: 1.0 }));
    }
    all.push(lrn(33, LrnShape { size: 5, alpha: 1e-4, beta: 0.6, bias: 2.0 }));
    all
}

fn group_norm(shape: GroupShape) -> Case {
    let mut b = Builder::new();
    let dims = [shape.images, shape.pixels, shape.channels];
    let x = b.input(DType::F32, &dims);
    let [scale, bias] = [(); 2].map(|()| Operand::Weight(b.plain(&[shape.vectors])));
    let out = b.buffer(DType::F32, shape.elements());
    let GroupShape { images, pixels, channels, groups, vectors } = shape;
    let name = format!("group norm {images}×{pixels}×{channels} in {groups} groups, {vectors} scales");
    b.case(name, StepKind::GroupNorm { x, shape, epsilon: 1e-5, scale, bias, out }, &[(out, &dims)])
}

fn lrn(channels: usize, shape: LrnShape) -> Case {
    let mut b = Builder::new();
    let pixels = 19;
    let x = b.input(DType::F32, &[pixels, channels]);
    let out = b.buffer(DType::F32, pixels * channels);
    let LrnShape { size, beta, .. } = shape;
    let name = format!("lrn of {size} among {channels}, power {beta}");
    b.case(name, StepKind::Lrn { x, pixels, channels, shape, out }, &[(out, &[pixels, channels])])
}
