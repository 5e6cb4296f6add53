//! Transposed convolutions, as convolutions.
//!
//! ```text
//!   stride 2, kernel 3     full result   0 1 2 3 4 5 6 …       element u meets the taps k with k ≡ u (mod 2):
//!                          phase         0 1 0 1 0 1 0 …       phase 0: taps 0, 2      phase 1: tap 1
//!
//!   x ─ one convolution, stride 1, ⌈kernel / stride⌉ taps ─▶ [place][phase · channels] ─ one pass ─▶ places and phases interleaved
//! ```
//! Every phase is a convolution of its own over the input as it is, so no product with a zero between elements is computed; the pass
//! that interleaves them adds the bias and ends the epilogue. Where taps lie apart, phases would see different sets of places: then zeros are
//! put between the elements, and a convolution slides over those.

use super::view::{View, signed};
use super::volume::{VOLUME_CHANNELS_LAST, Volume};
use super::{Lowering, PlanError};
use crate::fold::{Role, volume};
use crate::net::Node;
use crate::op::{Transposed, Window};
use crate::pack::lay::per_phase;
use crate::plan::{Activation, Epilogue, Operand};
use tessera_core::DType;

/// What is known of a transposed convolution, per depth, height and width.
struct Shape {
    kernel: [usize; 3],
    dilations: [usize; 3],
    strides: [usize; 3],
    output: [usize; 3],
    /// Elements of the full result before the first one that stays.
    first: [usize; 3],
    groups: usize,
    in_per_group: usize,
    out_per_group: usize,
}

impl Shape {
    fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis]
    }
}

impl Lowering<'_> {
    /// `(x, w, bias?, residual?)`, `w` being packed as its role says.
    pub(super) fn transposed(
        &mut self,
        node: &Node,
        window: &Window,
        spread: &Transposed,
        groups: usize,
        activation: Activation,
    ) -> Result<(), PlanError> {
        let x = self.volumes(node)?;
        let image = &x.dims[x.dims.len() - window.kernel.len()..];
        let kept = window.cut(spread, image).map_err(|why| self.unsupported(node, why))?;
        let out = self.net.dims(self.output_id(node)?);
        let shape = Shape {
            kernel: volume(&window.kernel, 1),
            dilations: volume(&window.dilations, 1),
            strides: volume(&spread.strides, 1),
            output: volume(&kept.output, 1),
            first: volume(&kept.first, 0),
            groups,
            in_per_group: x.dims[1] / groups,
            out_per_group: out[1] / groups,
        };
        let view = match self.packed(node, 1)?.1 {
            Role::Phases { .. } => self.by_phases(node, &x, &shape, activation)?,
            _ => self.over_zeros(node, &x, &shape, activation)?,
        };
        self.finish(node, &view)
    }

    fn by_phases(
        &mut self,
        node: &Node,
        x: &View,
        shape: &Shape,
        activation: Activation,
    ) -> Result<View, PlanError> {
        let kernel = per_phase(&shape.kernel, shape.strides);
        let (mut seen, mut before) = (x.clone(), [0; 3]);
        let (mut places, mut skipped) = ([0; 3], [0; 3]);
        for axis in 0..3 {
            // Places of the full result that outputs lie in; a place meets the elements up to its own.
            let (stride, first) = (shape.strides[axis], shape.first[axis]);
            let from = first / stride;
            (places[axis], skipped[axis]) =
                ((first + shape.output[axis] - 1) / stride + 1 - from, first - from * stride);
            before[axis] = (kernel[axis] - 1).saturating_sub(from);
            let unseen = from.saturating_sub(kernel[axis] - 1).min(x.dims[axis + 2]);
            seen = seen.sliced(axis + 2, unseen, 1, x.dims[axis + 2] - unseen);
        }
        if seen.elements() == 0 {
            // All that the input adds is cut off: what stays is its bias.
            let dims = [&x.dims[..2], &[1; 3]].concat();
            let (buffer, nothing) = self.make(DType::F32, &dims, &VOLUME_CHANNELS_LAST);
            self.zeros(node, buffer);
            seen = nothing;
        }
        let phases: usize = shape.strides.iter().product();
        let convolution = Volume {
            kernel,
            strides: [1; 3],
            dilations: [1; 3],
            before,
            output: places,
            groups: shape.groups,
            in_per_group: shape.in_per_group,
            out_per_group: phases * shape.out_per_group,
        };
        let sums = self.sums(node, &seen, &convolution, Epilogue::default())?;

        // [n, group, output, place, phase, place, phase, place, phase]: outputs of the full result, channel by channel.
        let [sd, sh, sw] = shape.strides;
        let [pd, ph, pw] = places;
        let n = x.dims[0];
        let apart = sums.reshaped(&[n, shape.groups, sd, sh, sw, shape.out_per_group, pd, ph, pw]);
        let apart = apart.expect("channels are cut into phases").permuted(&[0, 1, 5, 6, 2, 7, 3, 8, 4]);
        let dims = apart.dims.clone();
        let channels = shape.groups * shape.out_per_group;
        let whole = [n, channels, pd * sd, ph * sh, pw * sw];
        self.bounded(DType::F32, &whole)?;
        let mut terms = vec![apart];
        if let Some(bias) = self.bias(node)? {
            let of_channels = View::dense(Operand::Weight(bias), &[1, shape.groups, shape.out_per_group]);
            let strides = [&of_channels.strides[..], &[0; 6]].concat();
            terms.push(View { dims: dims.clone(), strides: [&[0], &strides[1..]].concat(), ..of_channels });
        }
        let residual = self.optional(node, 3)?;
        let ends = if residual.is_some() { Activation::Identity } else { activation };
        let joined = self.ended(node, &terms, ends, &[0, 3, 4, 5, 6, 7, 8, 1, 2])?;
        let mut joined = joined.reshaped(&whole).expect("places and phases lie side by side");
        for (axis, (skipped, output)) in skipped.into_iter().zip(shape.output).enumerate() {
            joined = joined.sliced(axis + 2, skipped, 1, output);
        }
        let Some(residual) = residual else { return Ok(joined) };
        let residual = residual.reshaped(&joined.dims).expect("only axes of length one are added");
        self.ended(node, &[joined, residual], activation, &VOLUME_CHANNELS_LAST)
    }

    fn over_zeros(
        &mut self,
        node: &Node,
        x: &View,
        shape: &Shape,
        activation: Activation,
    ) -> Result<View, PlanError> {
        let mut convolution = Volume {
            kernel: shape.kernel,
            strides: [1; 3],
            dilations: shape.dilations,
            before: [0; 3],
            output: shape.output,
            groups: shape.groups,
            in_per_group: shape.in_per_group,
            out_per_group: shape.out_per_group,
        };
        // Neighbours that stay neighbours need no zeros but those around them.
        if shape.strides == [1; 3] && (0..3).all(|axis| shape.first[axis] <= shape.reach(axis)) {
            convolution.before = std::array::from_fn(|axis| shape.reach(axis) - shape.first[axis]);
            return self.convolved(node, x, &convolution, activation);
        }
        let inner: [usize; 3] =
            std::array::from_fn(|axis| shape.output[axis].saturating_add(shape.reach(axis)));
        let dims = [&x.dims[..2], &inner].concat();
        self.bounded(DType::F32, &dims)?;
        let (buffer, spread) = self.make(DType::F32, &dims, &VOLUME_CHANNELS_LAST);
        self.zeros(node, buffer);
        let (mut from, mut to) = (x.clone(), spread.clone());
        for (axis, inner) in inner.into_iter().enumerate() {
            // Element i lies at i·stride + reach − first.
            let (stride, reach, first) = (shape.strides[axis], shape.reach(axis), shape.first[axis]);
            let start = first.saturating_sub(reach).div_ceil(stride);
            let end = (inner + first - reach).div_ceil(stride).min(x.dims[axis + 2]);
            let start = start.min(end);
            from = from.sliced(axis + 2, start, 1, end - start);
            to = to.sliced(
                axis + 2,
                (start * stride + reach).saturating_sub(first),
                signed(stride),
                end - start,
            );
        }
        // Nothing is left to copy where all that the input adds is cut off.
        if from.elements() > 0 {
            self.copy(
                node,
                &from.permuted(&VOLUME_CHANNELS_LAST),
                buffer,
                &to.permuted(&VOLUME_CHANNELS_LAST),
            );
        }
        self.convolved(node, &spread, &convolution, activation)
    }
}
