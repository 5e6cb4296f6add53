//! How many places a window has on an image, and what is added around the image for it.

use crate::op::{Cut, Padding, Transposed, Window};

/// A window laid over an image, per spatial axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fit {
    /// Places of the window: the output's extent.
    pub output: Vec<usize>,
    /// Elements added before the image; none for a transposed window, which [`Window::cut`] describes.
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
            Padding::Transposed(spread) => {
                let (output, _) = self.cut_axis(spread, axis, length)?;
                Ok((output, 0, 0))
            }
            same @ (Padding::SameUpper | Padding::SameLower) => {
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

/// What stays of the full result of a transposed window, per spatial axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The output's extent.
    pub output: Vec<usize>,
    /// Elements of the full result before the first one that stays.
    pub first: Vec<usize>,
}

impl Window {
    /// What a transposed window keeps of the full result over an image of extents `image`. The error is a sentence that says what does not fit.
    pub fn cut(&self, spread: &Transposed, image: &[usize]) -> Result<Kept, String> {
        self.fit(image)?;
        let mut kept = Kept { output: vec![], first: vec![] };
        for (axis, &length) in image.iter().enumerate() {
            let (output, first) = self.cut_axis(spread, axis, length)?;
            kept.output.push(output);
            kept.first.push(first);
        }
        Ok(kept)
    }

    fn cut_axis(&self, spread: &Transposed, axis: usize, length: usize) -> Result<(usize, usize), String> {
        let at = |list: &[usize]| list.get(axis).copied().ok_or("there is not one number per spatial axis");
        let (stride, more) = (at(&spread.strides)?, at(&spread.output_padding)?);
        let (kernel, dilation) = (self.kernel[axis], self.dilations[axis]);
        if stride == 0 {
            return Err("a stride must be at least 1".into());
        }
        let full = || {
            let last = length.saturating_sub(1).checked_mul(stride)?;
            let reach = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
            last.checked_add(reach)?.checked_add(more)
        };
        let full =
            full().ok_or_else(|| format!("a window of {kernel} elements {dilation} apart is too large"))?;
        match &spread.cut {
            Cut::Explicit(pads) => {
                let &(before, after) = pads.get(axis).ok_or("there is no padding for every spatial axis")?;
                let cut = before.checked_add(after).filter(|&cut| cut < full);
                let cut =
                    cut.ok_or_else(|| format!("cutting {before} and {after} off {full} leaves nothing"))?;
                Ok((full - cut, before))
            }
            Cut::Same { output, upper } => {
                let output = match output {
                    Some(output) => at(output)?,
                    None => length.checked_mul(stride).ok_or("the output is too large")?,
                };
                let cut = full.saturating_sub(output);
                Ok((output, if *upper { cut / 2 } else { cut - cut / 2 }))
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
    fn a_transposed_window_is_cut_as_onnx_says() {
        let cut = |stride: usize, more: usize, cut: Cut| {
            let spread = Transposed { strides: vec![stride], output_padding: vec![more], cut };
            let window = Window {
                kernel: vec![3],
                strides: vec![1],
                dilations: vec![1],
                padding: Padding::Transposed(spread.clone()),
                ceil_mode: false,
            };
            let kept = window.cut(&spread, &[3])?;
            assert_eq!(window.fit(&[3])?.output, kept.output);
            Ok::<_, String>([kept.output[0], kept.first[0]])
        };
        let same =
            |output: Option<usize>, upper| Cut::Same { output: output.map(|output| vec![output]), upper };
        assert_eq!(cut(3, 0, Cut::Explicit(vec![(0, 0)])), Ok([9, 0]));
        assert_eq!(cut(3, 1, Cut::Explicit(vec![(1, 2)])), Ok([7, 1]));
        assert_eq!(cut(2, 0, same(None, true)), Ok([6, 0]));
        assert_eq!(cut(2, 0, same(None, false)), Ok([6, 1]));
        // More than the full result: what is missing is added behind it.
        assert_eq!(cut(3, 0, same(Some(10), false)), Ok([10, 0]));
        assert_eq!(cut(3, 0, same(Some(6), false)), Ok([6, 2]));
        assert!(cut(1, 0, Cut::Explicit(vec![(3, 3)])).unwrap_err().contains("leaves nothing"));
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
