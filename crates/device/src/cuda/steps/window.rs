//! Windows over images, as the kernels for pools and depthwise convolutions take them: see `kernels/window.cuh`.

use crate::cuda::call::KernelSpec;
use bytemuck::{Pod, Zeroable};
use tessera_planner::plan::ConvShape;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Window {
    input: [u32; 2],
    output: [u32; 2],
    stride_h: u32,
    dilation_h: u32,
    before: [i32; 2],
    after: [u32; 2],
    packs: u32,
    unused: u32,
}
const _: () = assert!(size_of::<Window>() == 48);

impl Window {
    /// Of a shape whose channels are taken `width` at a time. Errors when an item's image has more elements than 31 bits number.
    pub(super) fn of(shape: &ConvShape, width: usize) -> Result<Window, String> {
        let reach = |axis: usize| shape.input[axis] + shape.before[axis] + shape.after[axis];
        let elements = [shape.output[0] * shape.output[1] * shape.groups, reach(0) * reach(1) * shape.groups];
        if elements.into_iter().any(|count| i32::try_from(count).is_err()) {
            return Err(format!("an image of {elements:?} elements is more than kernels number in 31 bits"));
        }
        let two = |[height, width]: [usize; 2]| [height as u32, width as u32];
        Ok(Window {
            input: two(shape.input),
            output: two(shape.output),
            stride_h: shape.strides[0] as u32,
            dilation_h: shape.dilations[0] as u32,
            before: shape.before.map(|zeros| zeros as i32),
            after: two(shape.after),
            packs: (shape.groups / width) as u32,
            unused: 0,
        })
    }

    /// With what an architecture chooses of a window.
    pub(super) fn define(spec: KernelSpec, shape: &ConvShape) -> KernelSpec {
        spec.define("KERNEL_H", shape.kernel[0])
            .define("KERNEL_W", shape.kernel[1])
            .define("STRIDE_W", shape.strides[1])
            .define("DILATION_W", shape.dilations[1])
    }
}
