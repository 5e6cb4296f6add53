//! How many places a window has on an image, and what is added around the image for it.

use crate::op::{Padding, Window};

/// A window laid over an image, per spatial axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fit {
    /// Places of the window: the output's extent.
    pub output: Vec<usize>,
    /// Elements added before the image.
    pub before: Vec<usize>,
    /// Elements added after the image, as the file says; with `ceil_mode` the last window may reach further.
    pub after: Vec<usize>,
}

impl Window {
    /// Lays the window over an image of extents `image`. The error is a sentence that says what does not fit.
    pub fn fit(&self, image: &[usize]) -> Result<Fit, String> {
        let rank = image.len();
        let lengths = [self.kernel.len(), self.strides.len(), self.dilations.len()];
        if lengths != [rank; 3] {
            return Err(format!("the window {:?} is not one for {rank} spatial axes", self.kernel));
        }
        let mut fit = Fit { output: vec![], before: vec![], after: vec![] };
        for (axis, &length) in image.iter().enumerate() {
            let (output, before, after) = self.fit_axis(axis, length)?;
            fit.output.push(output);
            fit.before.push(before);
            fit.after.push(after);
        }
        Ok(fit)
    }

    fn fit_axis(&self, axis: usize, length: usize) -> Result<(usize, usize, usize), String> {
        let (kernel, stride, dilation) = (self.kernel[axis], self.strides[axis], self.dilations[axis]);
        if kernel == 0 || stride == 0 || dilation == 0 {
            return Err(format!(
                "kernel {kernel}, stride {stride} and dilation {dilation} must be at least 1"
            ));
        }
        let overflow = || format!("a window of {kernel} elements {dilation} apart is too large");
        let reach =
            (kernel - 1).checked_mul(dilation).and_then(|reach| reach.checked_add(1)).ok_or_else(overflow)?;
        match &self.padding {
            Padding::Explicit(pads) => {
                let &(before, after) = pads.get(axis).ok_or("there is no padding for every spatial axis")?;
                let padded = length.checked_add(before).and_then(|sum| sum.checked_add(after));
                let padded = padded.ok_or_else(overflow)?;
                let room = padded.checked_sub(reach).ok_or_else(|| {
                    format!("a window that reaches over {reach} elements does not fit into {padded}")
                })?;
                let mut output = if self.ceil_mode { room.div_ceil(stride) } else { room / stride } + 1;
                // A last window that would begin in the padding after the image sees nothing of it and is left out.
                if self.ceil_mode && (output - 1).checked_mul(stride).is_none_or(|at| at >= length + before) {
                    output -= 1;
                }
                Ok((output, before, after))
            }
            same => {
                let output = length.div_ceil(stride);
                let covered =
                    output.saturating_sub(1).checked_mul(stride).and_then(|at| at.checked_add(reach));
                let total = covered.ok_or_else(overflow)?.saturating_sub(length);
                let (less, more) = (total / 2, total - total / 2);
                Ok(if *same == Padding::SameUpper { (output, less, more) } else { (output, more, less) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(
        kernel: usize,
        stride: usize,
        dilation: usize,
        padding: Padding,
        ceil: bool,
        length: usize,
    ) -> [usize; 3] {
        let window = Window {
            kernel: vec![kernel],
            strides: vec![stride],
            dilations: vec![dilation],
            padding,
            ceil_mode: ceil,
        };
        let fit = window.fit(&[length]).unwrap();
        [fit.output[0], fit.before[0], fit.after[0]]
    }

    #[test]
    fn windows_are_counted_as_onnx_does() {
        let pads = |before, after| Padding::Explicit(vec![(before, after)]);
        assert_eq!(fit(3, 2, 1, pads(1, 1), false, 112), [56, 1, 1]);
        assert_eq!(fit(3, 1, 2, pads(0, 0), false, 7), [3, 0, 0]);
        assert_eq!(fit(2, 2, 1, pads(0, 0), true, 5), [3, 0, 0]);
        // The third window would begin at 4, in the padding.
        assert_eq!(fit(2, 2, 1, pads(0, 1), true, 4), [2, 0, 1]);
        assert_eq!(fit(3, 2, 1, Padding::SameUpper, false, 6), [3, 0, 1]);
        assert_eq!(fit(3, 2, 1, Padding::SameLower, false, 6), [3, 1, 0]);
    }

    #[test]
    fn a_window_larger_than_its_image_is_refused() {
        let window = Window {
            kernel: vec![7],
            strides: vec![1],
            dilations: vec![1],
            padding: Padding::Explicit(vec![(0, 0)]),
            ceil_mode: false,
        };
        assert_eq!(
            window.fit(&[5]).unwrap_err(),
            "a window that reaches over 7 elements does not fit into 5"
        );
        assert!(window.fit(&[5, 5]).is_err());
    }
}
