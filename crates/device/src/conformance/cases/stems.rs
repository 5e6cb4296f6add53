//! Cases of a network's first convolution: few channels, and every second place of an image.

use super::{Builder, Case};
use tessera_core::DType;
use tessera_planner::fold::Role;
use tessera_planner::op::Unary;
use tessera_planner::plan::{Activation, ConvShape, Epilogue, StepKind};

pub(super) fn cases() -> Vec<Case> {
    [
        // Lines of odd length, which start at odd places; columns that fill no tile; several tiles of outputs.
        ([19, 21], [7, 7], 3, 64, 3, true),
        ([20, 36], [7, 7], 3, 64, 3, false),
        // A line of a usual image.
        ([6, 224], [7, 7], 3, 64, 3, false),
        ([9, 11], [7, 7], 1, 8, 2, false),
        ([12, 35], [7, 7], 4, 100, 3, true),
        ([14, 15], [3, 3], 3, 32, 1, false),
        ([13, 34], [3, 3], 4, 100, 0, true),
        ([11, 40], [3, 3], 1, 64, 1, true),
        ([9, 17], [3, 3], 2, 20, 0, false),
        ([12, 13], [5, 5], 3, 24, 1, false),
        ([10, 14], [2, 6], 3, 16, 0, true),
        // Two tiles to a line, the second of which starts beside an odd pixel and inside the image.
        ([5, 263], [3, 3], 3, 8, 1, false),
        ([7, 300], [7, 7], 3, 33, 3, false),
    ]
    .map(|(input, kernel, channels, outputs, before, residual)| {
        stem(input, kernel, channels, outputs, before, residual)
    })
    .into()
}

/// Zeros above and to the left as given, and one fewer below and to the right.
fn stem(
    input: [usize; 2],
    kernel: [usize; 2],
    channels: usize,
    outputs: usize,
    before: usize,
    residual: bool,
) -> Case {
    let mut b = Builder::new();
    let after = before.saturating_sub(1);
    let output = [0, 1].map(|axis| (input[axis] + before + after - kernel[axis]) / 2 + 1);
    let shape = ConvShape {
        input,
        output,
        kernel,
        strides: [2; 2],
        dilations: [1; 2],
        before: [before; 2],
        after: [after; 2],
        groups: 1,
        in_per_group: channels,
        out_per_group: outputs,
    };
    let x = b.input(DType::F32, &[input[0], input[1], channels]);
    let dims = [output[0], output[1], outputs];
    let other = residual.then(|| b.input(DType::F32, &dims));
    let w = b.weight(Role::Conv { groups: 1 }, &[outputs, channels, kernel[0], kernel[1]]);
    let bias = (outputs != 33).then(|| b.plain(&[outputs]));
    let out = b.buffer(DType::F32, dims.iter().product());
    let activation = if outputs == 16 {
        Activation::Unary(Unary::Silu)
    } else {
        Activation::Clip { low: 0.0, high: f32::INFINITY }
    };
    let epilogue = Epilogue { bias, residual: other, activation };
    let name = format!(
        "stem {channels}→{outputs} {}×{} of {}×{}{}",
        kernel[0],
        kernel[1],
        input[0],
        input[1],
        if residual { " with residual" } else { "" }
    );
    b.case(name, StepKind::Conv { x, w, shape, epilogue, out }, &[(out, &dims)])
}
