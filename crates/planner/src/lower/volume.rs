//! Convolutions over three axes, as one over two.
//!
//! ```text
//!   slice d of the output meets `kernel depth` slices of the input: side by side, they are so many times the channels
//!
//!   [slice 0: rows of padding, rows][slice 1 …] …    all slices under one another are one tall image, whose rows between the
//!   [height · out depth][width][taps · channels]     slices' own are computed and never read
//! ```
//! So devices need no kernel of their own for it. The copy is `kernel depth` times the input; the rows between slices are as few as the
//! kernel's height asks for.

use super::chain::Made;
use super::view::View;
use super::work::work;
use super::{Lowering, PlanError};
use crate::fold::{Role, volume};
use crate::net::Node;
use crate::op::{Binary, Window};
use crate::pack::WeightId;
use crate::plan::{Access, Activation, BufferId, ConvShape, ElementOp, Epilogue, Operand, StepKind};
use crate::tensor::Tensor;
use tessera_core::DType;

/// A window over depth, height and width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume {
    pub(super) kernel: [usize; 3],
    pub(super) strides: [usize; 3],
    pub(super) dilations: [usize; 3],
    pub(super) before: [usize; 3],
    pub(super) output: [usize; 3],
    pub(super) groups: usize,
    pub(super) in_per_group: usize,
    pub(super) out_per_group: usize,
}

/// The order in which `[n, channels, depth, height, width]` lies.
pub(super) const VOLUME_CHANNELS_LAST: [usize; 5] = [0, 2, 3, 4, 1];

impl Volume {
    /// Elements between the first and the last tap.
    fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis]
    }

    /// Rows of one slice in the tall image: what its windows see, rounded up so that the next slice's windows begin with it.
    fn slice_rows(&self) -> usize {
        let seen = (self.output[1] - 1) * self.strides[1] + self.reach(1) + 1;
        seen.checked_next_multiple_of(self.strides[1]).unwrap_or(usize::MAX)
    }

    /// The tall image of `x`: `[n, groups, channels of a group, slices, slice rows, width, taps]`.
    fn tall(&self, x: &View) -> [usize; 7] {
        let (slices, rows, taps) = (self.output[0], self.slice_rows(), self.kernel[0]);
        [x.dims[0], self.groups, self.in_per_group, slices, rows, x.dims[4], taps]
    }

    fn channels(&self) -> usize {
        self.groups * self.out_per_group
    }
}

impl Lowering<'_> {
    /// `(x, w, bias?, residual?)` over three spatial axes.
    pub(super) fn conv_volume(
        &mut self,
        node: &Node,
        window: &Window,
        groups: usize,
        activation: Activation,
    ) -> Result<(), PlanError> {
        let x = self.volumes(node)?;
        let out = self.net.dims(self.output_id(node)?).to_vec();
        let fit = window.fit(&x.dims[2..]).map_err(|why| self.unsupported(node, why))?;
        let volume = Volume {
            kernel: volume(&window.kernel, 1),
            strides: volume(&window.strides, 1),
            dilations: volume(&window.dilations, 1),
            before: volume(&fit.before, 0),
            output: volume(&fit.output, 1),
            groups,
            in_per_group: x.dims[1] / groups,
            out_per_group: out[1] / groups,
        };
        let view = self.convolved(node, &x, &volume, activation)?;
        self.finish(node, &view)
    }

    /// The input as `[n, channels, depth, height, width]`.
    pub(super) fn volumes(&mut self, node: &Node) -> Result<View, PlanError> {
        let x = self.input(node, 0)?;
        let spatial = x.dims.get(2..).unwrap_or_default();
        if spatial.is_empty() || spatial.len() > 3 {
            let why = format!("windows over {} spatial axes are not supported, only 1 to 3", spatial.len());
            return Err(self.unsupported(node, why));
        }
        let dims = [&x.dims[..2], &volume(spatial, 1)].concat();
        Ok(x.reshaped(&dims).expect("only axes of length one are added"))
    }

    /// A convolution of `x [n, channels, depth, height, width]` with bias, residual and activation of the node.
    pub(super) fn convolved(
        &mut self,
        node: &Node,
        x: &View,
        volume: &Volume,
        activation: Activation,
    ) -> Result<View, PlanError> {
        let bias = self.bias(node)?;
        let Some(residual) = self.optional(node, 3)? else {
            return self.sums(node, x, volume, Epilogue { bias, residual: None, activation });
        };
        // What a step adds lies as its output does, and the tall image has rows that the residual lacks.
        let epilogue = Epilogue { bias, residual: None, activation: Activation::Identity };
        let sums = self.sums(node, x, volume, epilogue)?;
        let residual = residual.reshaped(&sums.dims).expect("only axes of length one are added");
        self.ended(node, &[sums, residual], activation, &VOLUME_CHANNELS_LAST)
    }

    /// The sum of some terms of the same dimensions, and a function of it, in one pass.
    pub(super) fn ended(
        &mut self,
        node: &Node,
        terms: &[View],
        activation: Activation,
        order: &[usize],
    ) -> Result<View, PlanError> {
        let mut program = vec![ElementOp::Load(0)];
        let mut last = 0;
        let mut push = |operation: &dyn Fn(usize, usize) -> ElementOp, with: Option<ElementOp>| {
            program.extend(with);
            program.push(operation(last, program.len() - 1));
            last = program.len() - 1;
        };
        for term in 1..terms.len() {
            push(&|sum, term| ElementOp::Binary(Binary::Add, sum, term), Some(ElementOp::Load(term)));
        }
        match activation {
            Activation::Identity => {}
            Activation::Clip { low, high } => {
                if low != f32::NEG_INFINITY {
                    push(&|x, low| ElementOp::Binary(Binary::Max, x, low), Some(ElementOp::Float(low)));
                }
                if high != f32::INFINITY {
                    push(&|x, high| ElementOp::Binary(Binary::Min, x, high), Some(ElementOp::Float(high)));
                }
            }
            Activation::Unary(function) => push(&|x, _| ElementOp::Unary(function, x), None),
        }
        if program.len() > 1 {
            let made = Made { dtype: DType::F32, dims: &terms[0].dims, order };
            return self.elementwise(node, terms, &program, made);
        }
        let (buffer, view) = self.make(DType::F32, &terms[0].dims, order);
        self.copy(node, &terms[0].permuted(order), buffer, &view.permuted(order));
        Ok(view)
    }

    /// The sums of a convolution of `x [n, channels, depth, height, width]`, as `[n, channels, …]`. Its epilogue has no residual.
    pub(super) fn sums(
        &mut self,
        node: &Node,
        x: &View,
        volume: &Volume,
        epilogue: Epilogue,
    ) -> Result<View, PlanError> {
        let (w, role) = self.packed(node, 1)?;
        let flat = x.dims[0] == 1 && x.dims[2] == 1 && volume.output[0] == 1 && volume.kernel[0] == 1;
        let (operand, input, before) = if flat {
            (self.dense_in(node, x, &VOLUME_CHANNELS_LAST), [x.dims[3], x.dims[4]], volume.before[1])
        } else {
            self.bounded(DType::F32, &volume.tall(x))?;
            let operand = self.tall_image(node, x, volume);
            (operand, [x.dims[0] * volume.output[0] * volume.slice_rows(), x.dims[4]], 0)
        };
        let [_, height, width] = volume.output;
        // Rows of outputs from one slice to the next; the last slice ends with its own.
        let slices = x.dims[0] * volume.output[0];
        let apart = if slices == 1 { height } else { volume.slice_rows() / volume.strides[1] };
        let rows = (slices - 1) * apart + height;
        self.bounded(DType::F32, &[rows, width, volume.channels()])?;
        let shape = ConvShape {
            input,
            output: [rows, width],
            kernel: [volume.kernel[1], volume.kernel[2]],
            strides: [volume.strides[1], volume.strides[2]],
            dilations: [volume.dilations[1], volume.dilations[2]],
            before: [before, volume.before[2]],
            after: [0, 0],
            groups: volume.groups,
            in_per_group: volume.kernel[0] * volume.in_per_group,
            out_per_group: volume.out_per_group,
        };
        let out = self.buffer(DType::F32, rows * width * volume.channels());
        self.product(node, (operand, w, role), shape, epilogue, out);
        let [row, pixel] = [width * volume.channels(), volume.channels()].map(super::view::signed);
        let slice = super::view::signed(apart) * row;
        let dims = vec![x.dims[0], volume.channels(), volume.output[0], height, width];
        let strides = vec![slice * super::view::signed(volume.output[0]), 1, slice, row, pixel];
        Ok(View { operand: Operand::Buffer(out), offset: 0, dims, strides })
    }

    /// A convolution over a dense image, as whichever step does it.
    fn product(
        &mut self,
        node: &Node,
        (x, w, role): (Operand, WeightId, Role),
        shape: ConvShape,
        epilogue: Epilogue,
        out: BufferId,
    ) {
        let pixels = shape.output[0] * shape.output[1];
        let (k, n) = (shape.kernel[0] * shape.kernel[1] * shape.in_per_group, shape.out_per_group);
        let plain = shape.kernel == [1, 1] && shape.strides == [1, 1] && shape.groups == 1;
        if plain && shape.before == [0, 0] && shape.input == shape.output && role != Role::Depthwise {
            let strides = vec![super::view::signed(k), 1];
            return self.gemm(
                node,
                Access { operand: x, offset: 0, strides },
                w,
                [pixels, k, n],
                epilogue,
                out,
            );
        }
        let flops = work(2 * k as u64 + epilogue.flops_per_element(), &[pixels, shape.groups, n]);
        let kind = if role == Role::Depthwise {
            StepKind::Depthwise { x, w, shape, epilogue, out }
        } else {
            StepKind::Conv { x, w, shape, epilogue, out }
        };
        self.push(node, kind, flops);
    }

    /// `[n · out depth][slice rows][width][group][kernel depth][channels of a group]`, zero where a slice has no row.
    fn tall_image(&mut self, node: &Node, x: &View, volume: &Volume) -> Operand {
        let &[n, _, depth, height, _] = &x.dims[..] else { unreachable!("volumes have five axes") };
        let dims = volume.tall(x);
        let [_, groups, inputs, slices, rows, width, taps] = dims;
        let buffer = self.buffer(DType::F32, dims.iter().product());
        let tall = View::ordered(Operand::Buffer(buffer), &dims, &[0, 3, 4, 5, 1, 6, 2]);
        // Rows of the input that some window sees, below the padding above it.
        let above = volume.before[1].min(rows);
        let seen = height.min(rows - above);
        let mut copies = Vec::new();
        for tap in 0..taps {
            // Slice s of the output meets slice s·stride + tap·dilation − before.
            let (stride, ahead) = (volume.strides[0], tap * volume.dilations[0]);
            let first = volume.before[0].saturating_sub(ahead).div_ceil(stride).min(slices);
            let end = (depth + volume.before[0]).saturating_sub(ahead).div_ceil(stride).min(slices);
            if first < end && seen > 0 {
                let from = first * stride + ahead - volume.before[0];
                let from = x.sliced(2, from, super::view::signed(stride), end - first).sliced(3, 0, 1, seen);
                let from = from.reshaped(&[n, groups, inputs, end - first, seen, width]);
                let to = tall.sliced(6, tap, 1, 1).sliced(3, first, 1, end - first).sliced(4, above, 1, seen);
                let to = to.reshaped(&[n, groups, inputs, end - first, seen, width]);
                copies.push((from.expect("channels are cut into groups"), to.expect("one axis of one goes")));
            }
        }
        let covered: usize = copies.iter().map(|(from, _)| from.elements()).sum();
        if covered < dims.iter().product() {
            self.zeros(node, buffer);
        }
        for (from, to) in copies {
            let order = [0, 3, 4, 5, 1, 2];
            self.copy(node, &from.permuted(&order), buffer, &to.permuted(&order));
        }
        Operand::Buffer(buffer)
    }

    /// Fills a buffer of floats with zeros, for copies to write into.
    pub(super) fn zeros(&mut self, node: &Node, buffer: BufferId) {
        self.push(node, StepKind::Fill { value: Tensor::scalar(0.0f32), out: buffer }, 0);
    }
}
