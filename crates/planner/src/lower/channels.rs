//! Normalisations over channels, which lie last.

use super::view::View;
use super::work::work;
use super::{Lowering, PlanError};
use crate::net::Node;
use crate::plan::{GroupShape, LrnShape, Operand, StepKind};
use tessera_core::DType;

/// Rough work per element, for costs and segments: mean, difference, square, sum, scale, shift, …
const GROUP_NORM_FLOPS: u64 = 8;
/// A square, a quotient, a power.
const LRN_FLOPS: u64 = 12;

impl Lowering<'_> {
    /// `(x, scale, bias)`, scale and bias per channel or per group.
    pub(super) fn group_norm(
        &mut self,
        node: &Node,
        groups: Option<usize>,
        epsilon: f32,
    ) -> Result<(), PlanError> {
        let (x, order) = self.channels_last(node)?;
        let channels = x.dims[1];
        let operand = self.dense_in(node, &x, &order);
        let [scale, bias] = [1, 2].map(|index| self.input(node, index));
        let (scale, bias) = (scale?, bias?);
        // Both have as many elements where one is per group and the other per channel: then the one is spread.
        let vectors = scale.elements().max(bias.elements());
        let [scale, bias] = [scale, bias].map(|view| self.spread_vector(node, &view, vectors));
        let (scale, bias) = (scale?, bias?);
        let shape = GroupShape {
            images: x.dims[0],
            pixels: x.dims[2..].iter().product(),
            channels,
            groups: groups.unwrap_or(channels),
            vectors,
        };
        let (buffer, view) = self.make(DType::F32, &x.dims, &order);
        let flops = work(GROUP_NORM_FLOPS, &x.dims);
        self.push(node, StepKind::GroupNorm { x: operand, shape, epsilon, scale, bias, out: buffer }, flops);
        let out = self.output_id(node)?;
        self.set(out, view);
        Ok(())
    }

    /// A dense vector of `length` elements, each of the view's standing for as many neighbours.
    fn spread_vector(&mut self, node: &Node, view: &View, length: usize) -> Result<Operand, PlanError> {
        let own = view.elements();
        let spread = length.is_multiple_of(own.max(1)).then(|| view.reshaped(&[own, 1])).flatten();
        match spread.and_then(|view| view.expanded(&[own, length / own])) {
            Some(view) => Ok(self.dense(node, &view)),
            None => Err(self.unsupported(node, format!("a vector {:?} is not one of {length}", view.dims))),
        }
    }

    pub(super) fn lrn(&mut self, node: &Node, shape: LrnShape) -> Result<(), PlanError> {
        let (x, order) = self.channels_last(node)?;
        let channels = x.dims[1];
        let operand = self.dense_in(node, &x, &order);
        let (buffer, view) = self.make(DType::F32, &x.dims, &order);
        let pixels = x.elements() / channels;
        let flops = work(work(2, &[shape.size]).saturating_add(LRN_FLOPS), &x.dims);
        self.push(node, StepKind::Lrn { x: operand, pixels, channels, shape, out: buffer }, flops);
        let out = self.output_id(node)?;
        self.set(out, view);
        Ok(())
    }

    /// The first input `[n, c, …]`, and the order of its axes in which channels come last.
    fn channels_last(&mut self, node: &Node) -> Result<(View, Vec<usize>), PlanError> {
        let x = self.input(node, 0)?;
        if self.dtype_of(x.operand) != DType::F32 {
            return Err(self.unsupported(node, "only f32 can be normalised"));
        }
        let order = std::iter::once(0).chain(2..x.dims.len()).chain([1]).collect();
        Ok((x, order))
    }
}
