//! Linear layers and convolutions, with everything per-channel that follows them taken into their weights.
//!
//! ```text
//!   Gemm(α, β, transposes), MatMul by a matrix   ─▶ Gemm(x, w [k, n], bias [n])
//!   y = linear(x) ; y·scale + shift              ─▶ linear′(x)   w′ = w·scale   bias′ = bias·scale + shift
//! ```
//! The second line covers BatchNorm, the Add of a bias, and layers' learnt scales, whenever nobody else reads `y`.

use super::{FoldError, Folding, fixed::Fixed, fixed::LARGEST_EXPR};
use crate::graph::{Node, ValueId};
use crate::op::{Binary, Op, Unary, Window};
use crate::tensor::Tensor;

/// `y·scale + shift` on one axis of a value, each a vector over that axis.
struct Affine {
    scale: Option<Fixed>,
    shift: Option<Fixed>,
}

/// A node whose weights can take an [`Affine`] in.
struct Linear {
    /// Where it is among the emitted nodes.
    node: usize,
    /// Its output channels.
    channels: usize,
    /// Axes of its output after the channels.
    trailing: usize,
    /// Axes of its output, where known.
    rank: Option<usize>,
}

const GEMM: Op = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };

impl Folding<'_> {
    /// A Gemm whose `b` is fixed becomes a plain product; any other becomes the operators that it stands for.
    pub(super) fn gemm(&mut self, node: &Node) -> Result<(), FoldError> {
        let Op::Gemm { alpha, beta, trans_a, trans_b } = node.op else { unreachable!("called for a Gemm") };
        let mut x = self.input(node, 0)?;
        let b = self.input(node, 1)?;
        let c = node.inputs.get(2).copied().flatten().filter(|_| beta != 0.0);
        if trans_a {
            x = self.emit_new(node, "a", Op::Transpose { perm: vec![1, 0] }, &[x]);
        }
        let output = node.outputs.first().copied().flatten();
        let Some(output) = output else { return Ok(()) };

        let Some(w) = self.fixed.get(&b).map(Fixed::single) else {
            let b =
                if trans_b { self.emit_new(node, "b", Op::Transpose { perm: vec![1, 0] }, &[b]) } else { b };
            let steps = [alpha != 1.0, c.is_some()];
            let product = if steps == [false; 2] { output } else { self.value_near(output, "product") };
            self.emit(node, Op::MatMul, &[x, b], product);
            let scaled = if alpha == 1.0 {
                product
            } else {
                let scaled = if c.is_some() { self.value_near(output, "scaled") } else { output };
                let alpha = self.scalar(alpha);
                self.emit(node, Op::Binary(Binary::Mul), &[product, alpha], scaled);
                scaled
            };
            return self.gemm_add(node, scaled, c, beta, output);
        };
        if w.dims.len() != 2 || !w.dtype.is_float() {
            return Err(self.misfit(node, "its second matrix", &w));
        }
        let w = if trans_b { w.transposed() } else { w };
        let w = if alpha == 1.0 { w } else { w.combined(Binary::Mul, &scalar(alpha)) };
        let bias = c.and_then(|c| self.gemm_bias(c, beta, w.dims[1]));
        let rest = c.filter(|_| bias.is_none());
        let product = if rest.is_some() { self.value_near(output, "product") } else { output };
        self.emit_linear(node, GEMM, x, w, bias, product);
        if rest.is_some() { self.gemm_add(node, product, rest, beta, output) } else { Ok(()) }
    }

    /// The `c` of a Gemm as a vector over its columns, if it is fixed and the same for every row.
    fn gemm_bias(&self, c: ValueId, beta: f32, n: usize) -> Option<Fixed> {
        let c = self.fixed.get(&c).filter(|c| c.dtype.is_float())?.single();
        let bias = per_channel(&c, n, 0, Some(2))?;
        Some(if beta == 1.0 { bias } else { bias.combined(Binary::Mul, &scalar(beta)) })
    }

    /// `sum + beta·c`, for a `c` that is no bias.
    fn gemm_add(
        &mut self,
        node: &Node,
        sum: ValueId,
        c: Option<ValueId>,
        beta: f32,
        output: ValueId,
    ) -> Result<(), FoldError> {
        let Some(mut c) = c else { return Ok(()) };
        if beta != 1.0 {
            let factor = self.scalar(beta);
            let fixed = self.fixed.get(&c).filter(|c| c.dtype.is_float());
            c = match fixed.map(|c| c.combined(Binary::Mul, &scalar(beta))) {
                Some(scaled) => self.define(scaled),
                None => self.emit_new(node, "c", Op::Binary(Binary::Mul), &[c, factor]),
            };
        }
        self.emit(node, Op::Binary(Binary::Add), &[sum, c], output);
        Ok(())
    }

    /// A product with a fixed matrix on the right is a Gemm over the last axis, whatever axes come before it.
    pub(super) fn matmul(&mut self, node: &Node) -> Result<(), FoldError> {
        let (x, b) = (self.input(node, 0)?, self.input(node, 1)?);
        let matrix =
            self.fixed.get(&b).filter(|b| b.dims.len() == 2 && b.dtype.is_float()).map(Fixed::single);
        match (matrix, node.outputs.first().copied().flatten()) {
            (Some(w), Some(output)) => self.emit_linear(node, GEMM, x, w, None, output),
            _ => self.nodes.push(node.clone()),
        }
        Ok(())
    }

    /// A convolution, its kernel and bias checked.
    pub(super) fn conv(&mut self, node: &Node, groups: usize) -> Result<(), FoldError> {
        let x = self.input(node, 0)?;
        let w = self.fixed_float(node, 1)?;
        if w.dims.len() < 3 || groups == 0 || w.dims[0] % groups != 0 {
            return Err(self.misfit(node, "its kernel", &w));
        }
        let bias = match node.inputs.get(2) {
            Some(Some(_)) => Some(self.fixed_float(node, 2)?),
            _ => None,
        };
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dims != w.dims[..1]) {
            return Err(self.misfit(node, "its bias", bias));
        }
        if let Some(output) = node.outputs.first().copied().flatten() {
            self.emit_linear(node, node.op.clone(), x, w, bias, output);
        }
        Ok(())
    }

    /// A transposed convolution is one over the spread input: its kernel `[in, out / groups, …]` becomes `[out, in / groups, …]`, the taps
    /// in opposite order.
    pub(super) fn conv_transpose(
        &mut self,
        node: &Node,
        window: &Window,
        groups: usize,
    ) -> Result<(), FoldError> {
        let x = self.input(node, 0)?;
        let w = self.fixed_float(node, 1)?;
        if w.dims.len() < 3 || groups == 0 || w.dims[0] % groups != 0 || w.dims[2..] != window.kernel[..] {
            return Err(self.misfit(node, "its kernel", &w));
        }
        let (inputs, outputs, kernel) = (w.dims[0] / groups, w.dims[1], w.dims[2..].to_vec());
        let mut turned = w.reshaped(&[&[groups, inputs, outputs], &kernel[..]].concat());
        let perm = [&[0, 2, 1], &(3..3 + kernel.len()).collect::<Vec<_>>()[..]].concat();
        turned = turned.permuted(perm).reshaped(&[&[groups * outputs, inputs], &kernel[..]].concat());
        for (axis, &taps) in kernel.iter().enumerate().filter(|(_, taps)| **taps > 1) {
            turned = turned.reversed(axis + 2, taps);
        }
        let bias = match node.inputs.get(2) {
            Some(Some(_)) => Some(self.fixed_float(node, 2)?),
            _ => None,
        };
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dims != turned.dims[..1]) {
            return Err(self.misfit(node, "its bias", bias));
        }
        if let Some(output) = node.outputs.first().copied().flatten() {
            self.emit_linear(node, Op::Conv(window.clone(), groups), x, turned, bias, output);
        }
        Ok(())
    }

    /// BatchNorm with learnt numbers is a scale and a shift: of the layer before it where that is a linear one, else two steps.
    pub(super) fn batch_norm(&mut self, node: &Node, epsilon: f32) -> Result<(), FoldError> {
        let x = self.input(node, 0)?;
        let numbers = [1, 2, 3, 4].map(|index| self.fixed_float(node, index));
        let [gamma, beta, mean, variance] = numbers;
        let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
        let channels = gamma.elements();
        for vector in [&gamma, &beta, &mean, &variance] {
            if vector.dims != [channels] {
                return Err(self.misfit(node, "one of its vectors", vector));
            }
        }
        let deviation = variance.combined(Binary::Add, &scalar(epsilon)).mapped(Unary::Sqrt);
        let scale = gamma.combined(Binary::Div, &deviation);
        let shift = beta.combined(Binary::Sub, &mean.combined(Binary::Mul, &scale));
        let Some(output) = node.outputs.first().copied().flatten() else { return Ok(()) };

        if let Some(linear) = self.sole_linear(x) {
            let rank = linear.rank.or(self.ranks.rank(x));
            // The channel axis of BatchNorm is the second; that of a product is the last.
            if linear.channels == channels && rank == Some(linear.trailing + 2) {
                let affine = Affine { scale: Some(scale.clone()), shift: Some(shift.clone()) };
                if self.absorb(&linear, &affine, output) {
                    return Ok(());
                }
            }
        }
        let rank = self.rank(x).ok_or_else(|| FoldError::UnknownRank { node: self.label(node) })?;
        if rank < 2 {
            return Err(FoldError::Unsupported {
                node: self.label(node),
                what: "inputs without a channel axis",
            });
        }
        let mut dims = vec![1; rank - 1];
        dims[0] = channels;
        let [scale, shift] = [scale, shift].map(|vector| self.define(vector.reshaped(&dims)));
        let scaled = self.emit_new(node, "scaled", Op::Binary(Binary::Mul), &[x, scale]);
        self.emit(node, Op::Binary(Binary::Add), &[scaled, shift], output);
        Ok(())
    }

    /// An Add, Sub, Mul or Div of something per channel, taken into the linear layer before it. `false` when it stays.
    pub(super) fn per_channel_step(&mut self, node: &Node, how: Binary) -> bool {
        let ([Some(a), Some(b)], [Some(output)]) = (&node.inputs[..], &node.outputs[..]) else {
            return false;
        };
        let commutes = matches!(how, Binary::Add | Binary::Mul);
        let (x, by) = match (self.fixed.get(a), self.fixed.get(b)) {
            (None, Some(by)) => (*a, by.single()),
            (Some(by), None) if commutes => (*b, by.single()),
            _ => return false,
        };
        let Some(linear) = self.sole_linear(x).filter(|_| by.dtype.is_float()) else { return false };
        let rank = linear.rank.or(self.rank(x));
        // An infinite factor times a sum is not the sum of infinite products: zero weights would make NaN of it.
        let by_safe_factor = by.tensor().is_none_or(|by| {
            let elements = by.elements::<f32>().unwrap_or_default();
            elements.iter().all(|element| element.is_normal())
        });
        let Some(by) = per_channel(&by, linear.channels, linear.trailing, rank) else { return false };
        if matches!(how, Binary::Mul | Binary::Div) && !by_safe_factor {
            return false;
        }
        let affine = match how {
            Binary::Add => Affine { scale: None, shift: Some(by) },
            Binary::Sub => Affine { scale: None, shift: Some(by.mapped(Unary::Neg)) },
            Binary::Mul => Affine { scale: Some(by), shift: None },
            Binary::Div => Affine { scale: Some(by.mapped(Unary::Reciprocal)), shift: None },
            _ => return false,
        };
        self.absorb(&linear, &affine, *output)
    }

    /// Rewrites an emitted linear layer to make `output`, the affine function of what it made. `false` when the expressions would grow
    /// too long.
    fn absorb(&mut self, linear: &Linear, affine: &Affine, output: ValueId) -> bool {
        let node = &self.nodes[linear.node];
        let read = |index: usize| node.inputs.get(index).copied().flatten().map(|id| self.fixed[&id].clone());
        let mut w = read(1).expect("a linear layer has a weight");
        let mut bias = read(2);
        if let Some(scale) = &affine.scale {
            // [n] against [k, n], or [out, 1, 1, …] against [out, in, kernel…].
            let mut dims = vec![1; if linear.trailing == 0 { 1 } else { w.dims.len() }];
            dims[0] = linear.channels;
            w = w.combined(Binary::Mul, &scale.reshaped(&dims));
            bias = bias.map(|bias| bias.combined(Binary::Mul, scale));
        }
        bias = match (bias, &affine.shift) {
            (Some(bias), Some(shift)) => Some(bias.combined(Binary::Add, shift)),
            (None, Some(shift)) => Some(shift.clone()),
            (bias, None) => bias,
        };
        if w.size.max(bias.as_ref().map_or(0, |bias| bias.size)) > LARGEST_EXPR {
            return false;
        }
        let w = self.define(w);
        let bias = bias.map(|bias| self.define(bias));
        let node = &mut self.nodes[linear.node];
        node.inputs.truncate(1);
        node.inputs.push(Some(w));
        node.inputs.extend(bias.map(Some));
        node.outputs = vec![Some(output)];
        self.linear.insert(output, linear.node);
        true
    }

    /// The linear layer that makes `x`, if nobody else reads `x`.
    fn sole_linear(&self, x: ValueId) -> Option<Linear> {
        let &node = self.linear.get(&x).filter(|_| self.readers.get(x.0 as usize) == Some(&1))?;
        let Node { op, inputs, .. } = &self.nodes[node];
        let dims = &self.fixed[inputs[1].as_ref()?].dims;
        Some(match op {
            Op::Conv(..) => {
                Linear { node, channels: dims[0], trailing: dims.len() - 2, rank: Some(dims.len()) }
            }
            _ => Linear { node, channels: dims[1], trailing: 0, rank: None },
        })
    }

    fn emit_linear(
        &mut self,
        node: &Node,
        op: Op,
        x: ValueId,
        w: Fixed,
        bias: Option<Fixed>,
        output: ValueId,
    ) {
        let mut inputs = vec![Some(x), Some(self.define(w))];
        inputs.extend(bias.map(|bias| Some(self.define(bias))));
        self.linear.insert(output, self.nodes.len());
        self.nodes.push(Node { name: node.name.clone(), op, inputs, outputs: vec![Some(output)] });
    }

    fn scalar(&mut self, element: f32) -> ValueId {
        self.define(scalar(element))
    }
}

fn scalar(element: f32) -> Fixed {
    Fixed::literal("factor", Tensor::scalar(element))
}

/// `by` as a vector over the channel axis, which `trailing` axes follow in a value of `rank` axes; `None` when it differs along another
/// axis, or would add one.
fn per_channel(by: &Fixed, channels: usize, trailing: usize, rank: Option<usize>) -> Option<Fixed> {
    let axes = by.dims.len();
    // With an unknown rank, only what no value of one axis or more can be widened by is safe.
    if axes > rank.unwrap_or(1) {
        return None;
    }
    let channel_axis = axes.checked_sub(trailing + 1);
    let fits = |(axis, &dim): (usize, &usize)| dim == 1 || (Some(axis) == channel_axis && dim == channels);
    if !by.dims.iter().enumerate().all(fits) {
        return None;
    }
    Some(if by.elements() == 1 { by.spread(channels) } else { by.reshaped(&[channels]) })
}
