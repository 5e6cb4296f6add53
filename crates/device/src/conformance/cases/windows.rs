//! Cases of windows that move over images channel by channel.

use super::{Builder, Case};
use tessera_core::DType;
use tessera_planner::fold::Role;
use tessera_planner::op::Unary;
use tessera_planner::plan::{Activation, ConvShape, Epilogue, PlaneShape, PoolKind, StepKind};

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (channels, kernel, stride, dilation) in [
        (8, 3, 1, 1),
        (24, 5, 2, 1),
        (40, 5, 1, 1),
        (12, 3, 2, 1),
        // Two blocks side by side along channels; a kernel beyond what is unrolled; taps apart.
        (288, 3, 1, 1),
        (264, 3, 2, 1),
        (16, 9, 1, 1),
        (16, 3, 1, 2),
        (3, 3, 1, 4),
    ] {
        for residual in [false, true] {
            all.push(depthwise(Windows { channels, kernel, stride, dilation }, residual));
        }
    }
    for kind in [
        PoolKind::Max,
        PoolKind::Sum,
        PoolKind::Average { count_padding: true },
        PoolKind::Average { count_padding: false },
    ] {
        all.push(pool(kind, Windows { channels: 24, kernel: 2, stride: 2, dilation: 1 }));
        all.push(pool(kind, Windows { channels: 12, kernel: 7, stride: 3, dilation: 1 }));
        all.push(pool(kind, Windows { channels: 8, kernel: 3, stride: 1, dilation: 2 }));
    }
    all.extend([
        pool_indices(2, [1, 2, 2], false),
        pool_indices(1, [3, 2, 3], true),
        pool_indices(7, [2, 1, 4], false),
    ]);
    all
}

/// Planes of a volume, padded in front by less than behind.
fn pool_indices(planes: usize, kernel: [usize; 3], column_major: bool) -> Case {
    let mut b = Builder::new();
    let (input, strides, dilations, before) = ([4, 7, 9], [1, 2, 1], [1, 1, 2], [0, 1, 1]);
    let output = std::array::from_fn(|axis| {
        let reach = (kernel[axis] - 1) * dilations[axis];
        (input[axis] + before[axis] - reach - 1) / strides[axis] + 1
    });
    let steps = if column_major { [1, 4, 28] } else { [63, 9, 1] };
    let shape = PlaneShape { planes, input, output, kernel, strides, dilations, before, steps };
    let x = b.input(DType::F32, &[planes, 4, 7, 9]);
    let dims = [planes, output[0], output[1], output[2]];
    let out = b.buffer(DType::I64, dims.iter().product());
    let name = format!("pool indices of {planes} planes, {kernel:?}");
    let mut case = b.case(name, StepKind::PoolIndices { x, shape, out }, &[(out, &dims)]);
    case.coarse = true;
    case
}

#[derive(Clone, Copy)]
struct Windows {
    channels: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
}

impl Windows {
    /// Over an image that is not square, with padding above that differs from that below.
    fn shape(self) -> ConvShape {
        let input = [11, 13];
        let reach = self.dilation * (self.kernel - 1);
        let (before, after) = (reach / 2, reach.div_ceil(2));
        let output = input.map(|input| (input + before + after - reach - 1) / self.stride + 1);
        ConvShape {
            input,
            output,
            kernel: [self.kernel; 2],
            strides: [self.stride; 2],
            dilations: [self.dilation; 2],
            before: [before; 2],
            after: [after; 2],
            groups: self.channels,
            in_per_group: 1,
            out_per_group: 1,
        }
    }

    fn name(self) -> String {
        let Windows { channels, kernel, stride, dilation } = self;
        format!("{channels} channels {kernel}×{kernel} stride {stride} dilation {dilation}")
    }
}

fn depthwise(windows: Windows, residual: bool) -> Case {
    let mut b = Builder::new();
    let shape = windows.shape();
    let (channels, kernel) = (windows.channels, windows.kernel);
    let x = b.input(DType::F32, &[shape.input[0], shape.input[1], channels]);
    let dims = [shape.output[0], shape.output[1], channels];
    let other = residual.then(|| b.input(DType::F32, &dims));
    let w = b.weight(Role::Depthwise, &[channels, 1, kernel, kernel]);
    let bias = residual.then(|| b.plain(&[channels]));
    let out = b.buffer(DType::F32, dims.iter().product());
    let activation = if residual {
        Activation::Unary(Unary::Silu)
    } else if windows.stride == 1 {
        Activation::Identity
    } else {
        Activation::Clip { low: 0.0, high: 6.0 }
    };
    let epilogue = Epilogue { bias, residual: other, activation };
    let name = format!("depthwise {}{}", windows.name(), if residual { " with residual" } else { "" });
    b.case(name, StepKind::Depthwise { x, w, shape, epilogue, out }, &[(out, &dims)])
}

fn pool(kind: PoolKind, windows: Windows) -> Case {
    let mut b = Builder::new();
    let shape = windows.shape();
    let x = b.input(DType::F32, &[shape.input[0], shape.input[1], windows.channels]);
    let dims = [shape.output[0], shape.output[1], windows.channels];
    let out = b.buffer(DType::F32, dims.iter().product());
    let name = format!("pool {kind:?} {}", windows.name());
    b.case(name, StepKind::Pool { kind, x, shape, out }, &[(out, &dims)])
}
