//! Pools: windows over one or two axes as they are, over three as two pools in turn.
//!
//! ```text
//!   [depth][height][width][channels] ─ pool height, width ─▶ ─ pool depth, all else being channels ─▶
//! ```
//! The largest of the largest is the largest, the sum of sums the sum; and the divisor of a mean is the product of what each axis counts, so
//! the mean of means is the mean.

use super::chain::Made;
use super::view::View;
use super::volume::VOLUME_CHANNELS_LAST;
use super::window::CHANNELS_LAST;
use super::work::work;
use super::{Lowering, PlanError};
use crate::fold::volume;
use crate::net::Node;
use crate::op::Window;
use crate::plan::{ConvShape, ElementOp, PlaneShape, PoolKind, StepKind};
use crate::window::Fit;
use tessera_core::DType;

impl Lowering<'_> {
    pub(super) fn pool(&mut self, node: &Node, window: &Window, kind: PoolKind) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let dtype = self.net.get(out).dtype;
        let x = self.pooled_input(node)?;
        let view = match window.kernel.len() {
            3 => self.pool_volume(node, &x, window, kind)?,
            _ => {
                let (_, dims) = self.images(node)?;
                let x = x.reshaped(&[dims[0], dims[1], height_of(&x), x.dims[x.dims.len() - 1]]);
                let x = x.expect("only an axis of length one is added");
                let shape = self.shape(node, window, &x, &dims, dims[1], [1, 1])?;
                self.pool_images(node, &x, shape, kind)?
            }
        };
        let view = self.converted(node, view, dtype)?;
        self.finish(node, &view)
    }

    /// The input as f32: the few values of eight bits are floats too.
    fn pooled_input(&mut self, node: &Node) -> Result<View, PlanError> {
        let x = self.input(node, 0)?;
        match self.dtype_of(x.operand) {
            DType::F32 | DType::U8 | DType::I8 => self.converted(node, x, DType::F32),
            other => {
                Err(self
                    .unsupported(node, format!("images of {other} cannot be pooled, only of f32, u8 and i8")))
            }
        }
    }

    fn converted(&mut self, node: &Node, view: View, to: DType) -> Result<View, PlanError> {
        if self.dtype_of(view.operand) == to {
            return Ok(view);
        }
        let order = view.memory_order();
        let made = Made { dtype: to, dims: &view.dims.clone(), order: &order };
        self.elementwise(node, &[view], &[ElementOp::Load(0), ElementOp::Cast(to, 0)], made)
    }

    /// A pool of `x [n, channels, height, width]`.
    fn pool_images(
        &mut self,
        node: &Node,
        x: &View,
        shape: ConvShape,
        kind: PoolKind,
    ) -> Result<View, PlanError> {
        let out = [x.dims[0], x.dims[1], shape.output[0], shape.output[1]];
        self.per_image(node, x, &out, |lowering, _, x, buffer| {
            let flops = work(work(1, &shape.kernel), &out[1..]);
            lowering.push(node, StepKind::Pool { kind, x, shape, out: buffer }, flops);
            Ok(())
        })
    }

    /// A pool of `x [n, channels, depth, height, width]`.
    fn pool_volume(
        &mut self,
        node: &Node,
        x: &View,
        window: &Window,
        kind: PoolKind,
    ) -> Result<View, PlanError> {
        let &[n, channels, depth, height, width] = &x.dims[..] else {
            return Err(self.unsupported(node, "its input has not three spatial axes"));
        };
        let fit = window.fit(&[depth, height, width]).map_err(|why| self.unsupported(node, why))?;
        let [out_depth, out_height, out_width] = [fit.output[0], fit.output[1], fit.output[2]];

        // Rows of channels: [n, depth, height, width, channels].
        let mut pooled = x.permuted(&VOLUME_CHANNELS_LAST);
        let shape = axes(window, &fit, [Some(1), Some(2)], [height, width], depth * channels);
        if moves(&shape) {
            let flat = self.dense_in(node, &pooled, &[0, 2, 3, 1, 4]);
            let flat = View::dense(flat, &[n, height, width, depth * channels]);
            self.bounded(DType::F32, &[n, depth, channels, out_height, out_width])?;
            let made = self.pool_images(node, &flat.permuted(&[0, 3, 1, 2]), shape, kind)?;
            let made = made.reshaped(&[n, depth, channels, out_height, out_width]);
            pooled = made.expect("one axis becomes two").permuted(&[0, 1, 3, 4, 2]);
        }
        let others = out_height * out_width * channels;
        let shape = axes(window, &fit, [Some(0), None], [depth, 1], others);
        if moves(&shape) {
            let rows = View::dense(self.dense(node, &pooled), &[n, depth, 1, others]);
            let made = self.pool_images(node, &rows.permuted(&[0, 3, 1, 2]), shape, kind)?;
            let dims = [n, out_depth, out_height, out_width, channels];
            pooled = made.permuted(&CHANNELS_LAST).reshaped(&dims).expect("one axis becomes three");
        }
        Ok(pooled.permuted(&[0, 4, 1, 2, 3]))
    }

    pub(super) fn pool_indices(
        &mut self,
        node: &Node,
        window: &Window,
        column_major: bool,
    ) -> Result<(), PlanError> {
        let x = self.pooled_input(node)?;
        let image = &x.dims[2..];
        let fit = window.fit(image).map_err(|why| self.unsupported(node, why))?;
        let mut steps = vec![1usize; image.len()];
        let axes: Vec<usize> =
            if column_major { (0..image.len()).collect() } else { (0..image.len()).rev().collect() };
        axes.windows(2).for_each(|pair| steps[pair[1]] = steps[pair[0]] * image[pair[0]]);
        let shape = PlaneShape {
            planes: x.dims[0] * x.dims[1],
            input: volume(image, 1),
            output: volume(&fit.output, 1),
            kernel: volume(&window.kernel, 1),
            strides: volume(&window.strides, 1),
            dilations: volume(&window.dilations, 1),
            before: volume(&fit.before, 0),
            steps: volume(&steps, 0),
        };
        let dims = [&x.dims[..2], &fit.output[..]].concat();
        let operand = self.dense(node, &x);
        let order: Vec<usize> = (0..dims.len()).collect();
        let (buffer, view) = self.make(DType::I64, &dims, &order);
        let flops = work(work(1, &dims), &window.kernel);
        self.push(node, StepKind::PoolIndices { x: operand, shape, out: buffer }, flops);
        let out = self.output_id(node)?;
        self.set(out, view);
        Ok(())
    }
}

/// Whether a window sees more, or less, than every element by itself.
fn moves(shape: &ConvShape) -> bool {
    shape.kernel != [1, 1] || shape.input != shape.output || shape.before != [0, 0]
}

/// The height of images of one or two spatial axes.
fn height_of(x: &View) -> usize {
    if x.dims.len() == 4 { x.dims[2] } else { 1 }
}

/// The window along some axes, on images of extents `input`.
fn axes(
    window: &Window,
    fit: &Fit,
    which: [Option<usize>; 2],
    input: [usize; 2],
    channels: usize,
) -> ConvShape {
    let of = |list: &[usize], without: usize| which.map(|axis| axis.map_or(without, |axis| list[axis]));
    ConvShape {
        input,
        output: of(&fit.output, 1),
        kernel: of(&window.kernel, 1),
        strides: of(&window.strides, 1),
        dilations: of(&window.dilations, 1),
        before: of(&fit.before, 0),
        after: of(&fit.after, 0),
        groups: channels,
        in_per_group: 1,
        out_per_group: 1,
    }
}
