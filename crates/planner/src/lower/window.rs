//! Windows over one or two spatial axes: channels last, one image at a time.

use super::linear::row_walk;
use super::view::View;
use super::work::work;
use super::{Lowering, PlanError};
use crate::fold::Role;
use crate::net::Node;
use crate::op::{Padding, Window};
use crate::plan::{Activation, BufferId, ConvShape, Epilogue, Operand, StepKind};
use tessera_core::DType;

/// The order in which `[1, channels, height, width]` lies.
pub(super) const CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];

impl Lowering<'_> {
    /// `(x, w, bias?, residual?)`.
    pub(super) fn conv(
        &mut self,
        node: &Node,
        window: &Window,
        groups: usize,
        activation: Activation,
    ) -> Result<(), PlanError> {
        if let Padding::Transposed(spread) = &window.padding {
            return self.transposed(node, window, spread, groups, activation);
        }
        if window.kernel.len() == 3 {
            return self.conv_volume(node, window, groups, activation);
        }
        let (w, role) = self.packed(node, 1)?;
        let (x, out) = self.images(node)?;
        let channels = [x.dims[1] / groups, out[1] / groups];
        let shape = self.shape(node, window, &x, &out, groups, channels)?;
        // One channel to one channel is packed as depthwise, whatever the groups are called.
        let depthwise = matches!(role, Role::Depthwise);
        let plain = shape.kernel == [1, 1] && shape.strides == [1, 1] && groups == 1 && !depthwise;
        if plain && shape.input == shape.output {
            // A 1×1 convolution is a product over the channels of every pixel, of all images at once.
            let walk = row_walk(&x.permuted(&CHANNELS_LAST));
            let access = match walk {
                Some(access) => access,
                None => {
                    let operand = self.dense_in(node, &x, &CHANNELS_LAST);
                    let rows = View::dense(operand, &[x.elements() / x.dims[1], x.dims[1]]);
                    row_walk(&rows).expect("dense rows can be walked")
                }
            };
            let (buffer, view) = self.make(DType::F32, &out, &CHANNELS_LAST);
            let epilogue = self.image_epilogue(node, activation, &out, None)?;
            let rows = out[0] * out[2] * out[3];
            self.gemm(node, access, w, [rows, x.dims[1], out[1]], epilogue, buffer);
            return self.finish(node, &view);
        }
        let flops_per_sum = work(work(2, &shape.kernel), &[shape.in_per_group]);
        let view = self.per_image(node, &x, &out, |lowering, image, x, buffer| {
            let epilogue = lowering.image_epilogue(node, activation, &out, image)?;
            let flops = work(flops_per_sum.saturating_add(epilogue.flops_per_element()), &out[1..]);
            let kind = if depthwise {
                StepKind::Depthwise { x, w, shape, epilogue, out: buffer }
            } else {
                StepKind::Conv { x, w, shape, epilogue, out: buffer }
            };
            lowering.push(node, kind, flops);
            Ok(())
        })?;
        self.finish(node, &view)
    }

    /// The input as `[images, channels, height, width]` and the output's dimensions in the same form.
    pub(super) fn images(&mut self, node: &Node) -> Result<(View, [usize; 4]), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.net.dims(self.output_id(node)?);
        match (x.dims.as_slice(), out) {
            ([_, _, _, _], &[n, c, h, w]) => Ok((x, [n, c, h, w])),
            (&[n, c, length], &[n_out, c_out, length_out]) => {
                let strides = vec![x.strides[0], x.strides[1], 0, x.strides[2]];
                Ok((View { dims: vec![n, c, 1, length], strides, ..x }, [n_out, c_out, 1, length_out]))
            }
            (dims, _) => {
                let axes = dims.len().saturating_sub(2);
                Err(self.unsupported(
                    node,
                    format!("windows over {axes} spatial axes are not supported, only 1 to 3"),
                ))
            }
        }
    }

    pub(super) fn shape(
        &self,
        node: &Node,
        window: &Window,
        x: &View,
        out: &[usize; 4],
        groups: usize,
        [in_per_group, out_per_group]: [usize; 2],
    ) -> Result<ConvShape, PlanError> {
        let spatial = window.kernel.len();
        let input = [x.dims[2], x.dims[3]];
        let fit = window.fit(&input[2 - spatial..]).map_err(|why| self.unsupported(node, why))?;
        // A window over one axis has height one.
        let pair = |values: &[usize], one: usize| match *values {
            [height, width] => [height, width],
            [width] => [one, width],
            _ => [one, one],
        };
        Ok(ConvShape {
            input,
            output: [out[2], out[3]],
            kernel: pair(&window.kernel, 1),
            strides: pair(&window.strides, 1),
            dilations: pair(&window.dilations, 1),
            before: pair(&fit.before, 0),
            after: pair(&fit.after, 0),
            groups,
            in_per_group,
            out_per_group,
        })
    }

    /// Makes images of dimensions `out`, one by one. Steps take one image per item; where an item has several (a class that is
    /// planned a whole request at a time) each is computed by itself and copied to its place.
    pub(super) fn per_image(
        &mut self,
        node: &Node,
        x: &View,
        out: &[usize; 4],
        mut step: impl FnMut(&mut Self, Option<usize>, Operand, BufferId) -> Result<(), PlanError>,
    ) -> Result<View, PlanError> {
        if out[0] == 1 {
            let operand = self.dense_in(node, x, &CHANNELS_LAST);
            let (buffer, view) = self.make(DType::F32, out, &CHANNELS_LAST);
            step(self, None, operand, buffer)?;
            return Ok(view);
        }
        let (all, view) = self.make(DType::F32, out, &CHANNELS_LAST);
        let one = [1, out[1], out[2], out[3]];
        for image in 0..out[0] {
            let operand = self.dense_in(node, &x.sliced(0, image, 1, 1), &CHANNELS_LAST);
            let (buffer, made) = self.make(DType::F32, &one, &CHANNELS_LAST);
            step(self, Some(image), operand, buffer)?;
            let to = view.sliced(0, image, 1, 1);
            self.copy(node, &made.permuted(&CHANNELS_LAST), all, &to.permuted(&CHANNELS_LAST));
        }
        Ok(view)
    }

    /// The epilogue of a convolution, its residual seen as images; of one image where steps go image by image.
    fn image_epilogue(
        &mut self,
        node: &Node,
        activation: Activation,
        out: &[usize; 4],
        image: Option<usize>,
    ) -> Result<Epilogue, PlanError> {
        let bias = self.bias(node)?;
        let residual = match self.optional(node, 3)? {
            Some(view) => {
                let mut view = view.reshaped(out).expect("only axes of length one are added");
                if let Some(image) = image {
                    view = view.sliced(0, image, 1, 1);
                }
                Some(self.dense_in(node, &view, &CHANNELS_LAST))
            }
            None => None,
        };
        Ok(Epilogue { bias, residual, activation })
    }

    /// Gives the output its own dimensions back.
    pub(super) fn finish(&mut self, node: &Node, view: &View) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let view = view.reshaped(self.net.dims(out)).expect("only axes of length one are taken away");
        self.set(out, view);
        Ok(())
    }
}
