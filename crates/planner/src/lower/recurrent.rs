//! Recurrent layers: one step per direction and per sequence of an item.

use super::view::{View, signed};
use super::work::work;
use super::{Lowering, PlanError};
use crate::net::Node;
use crate::op::{CellKind, Direction, Recurrent};
use crate::plan::{Access, BufferId, Operand, RecurrentShape, RecurrentWeights, StepKind};
use crate::tensor::Tensor;
use tessera_core::DType;

impl Lowering<'_> {
    /// `(x [time, batch, in], w, r, bias?, lengths?, h0?, c0?, peephole?, candidate?)` → `(y [time, 1, batch, hidden], h, c [1, batch, hidden])`.
    pub(super) fn recurrent(&mut self, node: &Node, layer: &Recurrent) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let [time, batch, input] = x.dims[..] else {
            return Err(
                self.unsupported(node, format!("its input {:?} is not [time, batch, features]", x.dims))
            );
        };
        let optional = |index: usize| match node.inputs.get(index).copied().flatten() {
            Some(_) => self.packed(node, index).map(|(id, _)| Some(id)),
            None => Ok(None),
        };
        let weights = RecurrentWeights {
            w: self.packed(node, 1)?.0,
            r: self.packed(node, 2)?.0,
            bias: optional(3)?,
            peephole: optional(7)?,
            candidate: optional(8)?,
        };
        let hidden = layer.hidden;
        let shape = RecurrentShape { time, input, hidden, reverse: layer.direction == Direction::Reverse };
        let [wants_y, wants_h, wants_c] = [0, 1, 2].map(|index| node.outputs.get(index).copied().flatten());
        let y = wants_y.map(|_| self.buffer(DType::F32, time * batch * hidden));
        let mut last: [Vec<BufferId>; 2] = [Vec::new(), Vec::new()];
        for sequence in 0..batch {
            let one = x.sliced(1, sequence, 1, 1);
            let x = match sequence_walk(&one) {
                Some(access) => access,
                None => {
                    let dense = View::dense(self.dense(node, &one), &[time, 1, input]);
                    sequence_walk(&dense).expect("a dense sequence can be walked")
                }
            };
            let length = self.length(node, time, sequence)?;
            let h0 = self.start(node, 5, sequence)?;
            let c0 = self.start(node, 6, sequence)?;
            let [h, c] = [wants_h, wants_c].map(|wanted| wanted.map(|_| self.buffer(DType::F32, hidden)));
            last[0].extend(h);
            last[1].extend(c);
            let (y_offset, y_stride) = (sequence * hidden, batch * hidden);
            let cell = layer.cell.clone();
            let kind =
                StepKind::Recurrent { shape, cell, x, weights, length, h0, c0, y, y_offset, y_stride, h, c };
            self.push(node, kind, flops(shape, layer.cell.kind));
        }
        if let (Some(id), Some(buffer)) = (wants_y, y) {
            self.set(id, View::dense(Operand::Buffer(buffer), &[time, 1, batch, hidden]));
        }
        for (wanted, parts) in [wants_h, wants_c].into_iter().zip(last) {
            let Some(id) = wanted else { continue };
            let view = match parts[..] {
                [only] => View::dense(Operand::Buffer(only), &[1, 1, hidden]),
                _ => self.stack(node, &parts, hidden),
            };
            self.set(id, view);
        }
        Ok(())
    }

    /// How many elements of a sequence count; nothing when all are known to. A length that comes with the request is looked up in a table of the
    /// permitted ones, so that one outside fails its request by name, and steps need not ask.
    fn length(&mut self, node: &Node, time: usize, sequence: usize) -> Result<Option<Operand>, PlanError> {
        let Some(id) = node.inputs.get(4).copied().flatten() else { return Ok(None) };
        let known = self.net.integers(id).and_then(|lengths| lengths.get(sequence).copied());
        if known.is_some_and(|length| usize::try_from(length) == Ok(time)) {
            return Ok(None);
        }
        let last = i32::try_from(time).map_err(|_| self.unsupported(node, "its sequence is too long"))?;
        if let Some(length) = known {
            let length = i32::try_from(length).ok().filter(|length| (0..=last).contains(length));
            let length =
                length.ok_or_else(|| self.unsupported(node, format!("a length is outside 0..={time}")))?;
            return Ok(Some(Operand::Constant(self.constant(&Tensor::from_elements(&[1], &[length])))));
        }
        self.table(node, time)?;
        let one = self.input(node, 4)?.sliced(0, sequence, 1, 1);
        let permitted: Vec<i32> = (0..=last).collect();
        let out = self.buffer(DType::I32, 1);
        let kind = StepKind::Gather {
            table: Operand::Constant(self.constant(&Tensor::from_elements(&[permitted.len()], &permitted))),
            ids: self.dense(node, &one),
            outer: 1,
            rows: permitted.len(),
            row: 1,
            count: 1,
            what: self.origin(id),
            out,
        };
        self.push(node, kind, 0);
        Ok(Some(Operand::Buffer(out)))
    }

    /// The state that a sequence starts from; nothing when it is known to be zero.
    fn start(&mut self, node: &Node, index: usize, sequence: usize) -> Result<Option<Operand>, PlanError> {
        let Some(id) = node.inputs.get(index).copied().flatten() else { return Ok(None) };
        let zeros = |tensor: &Tensor| tensor.bytes().iter().all(|&byte| byte == 0);
        if self.net.tensor(id).is_some_and(zeros) {
            return Ok(None);
        }
        let view = self.input(node, index)?;
        Ok(Some(self.dense(node, &view.sliced(1, sequence, 1, 1))))
    }

    /// The last states of several sequences as one tensor `[1, batch, hidden]`.
    fn stack(&mut self, node: &Node, parts: &[BufferId], hidden: usize) -> View {
        let (all, view) = self.make(DType::F32, &[1, parts.len(), hidden], &[0, 1, 2]);
        for (sequence, &part) in parts.iter().enumerate() {
            let from = View::dense(Operand::Buffer(part), &[1, 1, hidden]);
            self.copy(node, &from, all, &view.sliced(1, sequence, 1, 1));
        }
        view
    }
}

/// Two products per time, then operations per unit for gates and states: about a function's worth of seven each.
fn flops(shape: RecurrentShape, kind: CellKind) -> u64 {
    let gates = kind.gates();
    work(2 * (shape.input + shape.hidden) as u64 + 7, &[shape.time, shape.hidden, gates])
}

/// `[time, 1, input]` walked as `[time, input]`, when features lie one after the other, and so do times.
fn sequence_walk(x: &View) -> Option<Access> {
    let features = x.dims[2] == 1 || x.strides[2] == 1;
    // The stride of an axis of length one means nothing.
    let time = if x.dims[0] == 1 { signed(x.dims[2]) } else { x.strides[0] };
    (features && time >= 0).then(|| Access { operand: x.operand, offset: x.offset, strides: vec![time, 1] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_the_last_to_the_first_are_copied_before_they_are_walked() {
        let x = View::dense(Operand::Buffer(BufferId(0)), &[4, 1, 3]);
        assert_eq!(sequence_walk(&x).map(|access| access.strides), Some(vec![3, 1]));
        assert_eq!(sequence_walk(&x.sliced(0, 3, -1, 4)), None);
        assert_eq!(sequence_walk(&x.sliced(0, 3, -1, 1)).map(|access| access.strides), Some(vec![3, 1]));
    }
}
