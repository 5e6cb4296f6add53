//! Cases of a network's first convolution: few channels, and every second place of an image; and of the steps around it.

use super::{Builder, Case, PoolKind, dense};
use tessera_core::DType;
use tessera_planner::fold::Role;
use tessera_planner::op::Unary;
use tessera_planner::plan::{Activation, ConvShape, Epilogue, Operand, StepKind};

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
        // Several tiles of outputs of a wide line.
        ([7, 255], [5, 5], 2, 100, 2, false),
    ]
    .map(|(input, kernel, channels, outputs, before, residual)| {
        stem(input, kernel, channels, outputs, before, residual)
    })
    .into_iter()
    .chain(surrounded())
    .collect()
}

/// With the steps that stand around it in networks: a copy that turns the image to channels last, and a pool.
fn surrounded() -> impl Iterator<Item = Case> {
    let pool = |kernel, strides, before, after| Some(Pooling { kernel, strides, before, after });
    let common = || pool([3, 3], [2, 2], 1, 1);
    let around = |input, kernel, before, turned, pool| Around { input, kernel, before, turned, pool };
    [
        // Odd sides, so that pairs of pixels lie at odd places; then whole lines of an image. Strips of several lines share some.
        (around([19, 21], 7, 3, true, common()), 3, 64),
        (around([33, 224], 7, 3, true, common()), 3, 64),
        (around([20, 36], 7, 3, false, common()), 3, 64),
        // A copy alone, and outputs that are no chunks.
        (around([15, 22], 3, 1, true, None), 3, 36),
        // A line that is not whole fours.
        (around([10, 229], 3, 1, true, None), 3, 32),
        (around([23, 37], 7, 3, true, common()), 4, 100),
        // Windows that share nothing, that share columns alone, and such as hang over the image.
        (around([14, 26], 3, 1, true, pool([2, 2], [2, 2], 0, 0)), 3, 32),
        (around([26, 30], 3, 1, false, pool([2, 3], [2, 2], 0, 0)), 3, 24),
        (around([25, 19], 5, 2, true, pool([3, 3], [3, 3], 1, 1)), 2, 20),
        (around([20, 24], 3, 1, true, pool([3, 3], [2, 2], 0, 1)), 1, 8),
        // Several tiles to a line: their windows share columns of sums.
        (around([13, 300], 7, 3, true, common()), 3, 33),
        (around([9, 531], 3, 1, false, common()), 3, 8),
        // What no kernel does as one: another activation; windows that share more lines.
        (around([14, 18], 3, 1, true, common()), 3, 16),
        (around([17, 18], 3, 1, true, pool([3, 3], [1, 1], 1, 1)), 3, 8),
    ]
    .into_iter()
    .map(|(around, channels, outputs)| around.case(channels, outputs))
}

/// A pool's windows; padding that counts for the size alone.
#[derive(Clone, Copy)]
struct Pooling {
    kernel: [usize; 2],
    strides: [usize; 2],
    before: usize,
    after: usize,
}

/// A convolution with what is around it.
struct Around {
    input: [usize; 2],
    kernel: usize,
    before: usize,
    /// Whether the image comes in planes.
    turned: bool,
    pool: Option<Pooling>,
}

impl Around {
    fn case(self, channels: usize, outputs: usize) -> Case {
        let Around { input, kernel, before, turned, pool } = self;
        let [height, width] = input;
        let mut b = Builder::new();
        let mut steps = Vec::new();
        let mut x =
            b.input(DType::F32, &if turned { [channels, height, width] } else { [height, width, channels] });
        if turned {
            let out = b.buffer(DType::F32, channels * height * width);
            steps.push(StepKind::Copy {
                dims: vec![channels, height, width],
                x: dense(x, &[channels, height, width]),
                out,
                out_offset: 0,
                out_strides: vec![1, width * channels, channels],
            });
            x = Operand::Buffer(out);
        }
        let (shape, after) = (shape(input, [kernel; 2], channels, outputs, before, before), pool);
        let (w, bias) =
            (b.weight(Role::Conv { groups: 1 }, &[outputs, channels, kernel, kernel]), b.plain(&[outputs]));
        let mut dims = [shape.output[0], shape.output[1], outputs];
        let mut out = b.buffer(DType::F32, dims.iter().product());
        let epilogue = Epilogue { bias: Some(bias), residual: None, activation: activation(outputs) };
        steps.push(StepKind::Conv { x, w, shape, epilogue, out });
        if let Some(pool) = after {
            let pooled = pool.shape(&shape);
            let x = Operand::Buffer(out);
            dims = [pooled.output[0], pooled.output[1], outputs];
            out = b.buffer(DType::F32, dims.iter().product());
            steps.push(StepKind::Pool { kind: PoolKind::Max, x, shape: pooled, out });
        }
        let name = format!(
            "{}stem {channels}→{outputs} {kernel}×{kernel} of {height}×{width}{}",
            if turned { "turned " } else { "" },
            after
                .map_or(String::new(), |pool| format!(", pooled by {:?} at {:?}", pool.kernel, pool.strides))
        );
        b.case_of(name, steps, &[(out, &dims)])
    }
}

impl Pooling {
    fn shape(&self, before: &ConvShape) -> ConvShape {
        let &Pooling { kernel, strides, before: top, after } = self;
        let output = |axis: usize| (before.output[axis] + top + after - kernel[axis]) / strides[axis] + 1;
        ConvShape {
            input: before.output,
            output: [output(0), output(1)],
            kernel,
            strides,
            dilations: [1; 2],
            before: [top; 2],
            after: [after; 2],
            groups: before.out_per_group,
            in_per_group: 1,
            out_per_group: 1,
        }
    }
}

fn activation(outputs: usize) -> Activation {
    match outputs {
        16 => Activation::Unary(Unary::Silu),
        32 => Activation::Clip { low: 0.0, high: 1.5 },
        _ => Activation::Clip { low: 0.0, high: f32::INFINITY },
    }
}

fn shape(
    input: [usize; 2],
    kernel: [usize; 2],
    channels: usize,
    outputs: usize,
    before: usize,
    after: usize,
) -> ConvShape {
    let output = [0, 1].map(|axis| (input[axis] + before + after - kernel[axis]) / 2 + 1);
    ConvShape {
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
    }
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
    let shape = shape(input, kernel, channels, outputs, before, before.saturating_sub(1));
    let x = b.input(DType::F32, &[input[0], input[1], channels]);
    let dims = [shape.output[0], shape.output[1], outputs];
    let other = residual.then(|| b.input(DType::F32, &dims));
    let w = b.weight(Role::Conv { groups: 1 }, &[outputs, channels, kernel[0], kernel[1]]);
    let bias = (outputs != 33).then(|| b.plain(&[outputs]));
    let out = b.buffer(DType::F32, dims.iter().product());
    let epilogue = Epilogue { bias, residual: other, activation: activation(outputs) };
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
