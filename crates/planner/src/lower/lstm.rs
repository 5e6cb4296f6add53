//! LSTM layers: one step per direction and per sequence of an item.

use super::view::View;
use super::{Lowering, PlanError};
use crate::net::Node;
use crate::op::{Direction, Recurrent};
use crate::plan::{Access, BufferId, LstmShape, Operand, StepKind};
use tessera_core::DType;

impl Lowering<'_> {
    /// `(x [time, batch, in], w, r, bias?, lengths?, h0?, c0?)` → `(y [time, 1, batch, hidden], h, c [1, batch, hidden])`.
    pub(super) fn lstm(&mut self, node: &Node, layer: &Recurrent) -> Result<(), PlanError> {
        if node.inputs.get(4).copied().flatten().is_some() {
            return Err(self.unsupported(node, "sequence lengths of their own are not supported"));
        }
        if node.inputs.get(7).copied().flatten().is_some() {
            return Err(self.unsupported(node, "peepholes are not supported"));
        }
        let x = self.input(node, 0)?;
        let [time, batch, input] = x.dims[..] else {
            return Err(
                self.unsupported(node, format!("its input {:?} is not [time, batch, features]", x.dims))
            );
        };
        let (w, r) = (self.packed(node, 1)?.0, self.packed(node, 2)?.0);
        let bias = match node.inputs.get(3).copied().flatten() {
            Some(_) => Some(self.packed(node, 3)?.0),
            None => None,
        };
        let hidden = layer.hidden;
        let shape = LstmShape { time, input, hidden, reverse: layer.direction == Direction::Reverse };
        let [wants_y, wants_h, wants_c] = [0, 1, 2].map(|index| node.outputs.get(index).copied().flatten());
        let y = wants_y.map(|_| self.buffer(DType::F32, time * batch * hidden));
        let mut last: [Vec<BufferId>; 2] = [Vec::new(), Vec::new()];
        for sequence in 0..batch {
            let one = x.sliced(1, sequence, 1, 1);
            let x = match lstm_walk(&one) {
                Some(access) => access,
                None => {
                    let dense = View::dense(self.dense(node, &one), &[time, 1, input]);
                    lstm_walk(&dense).expect("a dense sequence can be walked")
                }
            };
            let h0 = self.start(node, 5, sequence)?;
            let c0 = self.start(node, 6, sequence)?;
            let [h, c] = [wants_h, wants_c].map(|wanted| wanted.map(|_| self.buffer(DType::F32, hidden)));
            last[0].extend(h);
            last[1].extend(c);
            let (y_offset, y_stride) = (sequence * hidden, batch * hidden);
            let kind = StepKind::Lstm { shape, x, w, r, bias, h0, c0, y, y_offset, y_stride, h, c };
            // Two products per time, then about thirty operations per unit for gates and states.
            let flops = time * hidden * (8 * (input + hidden) + 30);
            self.push(node, kind, flops as u64);
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

    /// The state that a sequence starts from; nothing when it is known to be zero.
    fn start(&mut self, node: &Node, index: usize, sequence: usize) -> Result<Option<Operand>, PlanError> {
        let Some(id) = node.inputs.get(index).copied().flatten() else { return Ok(None) };
        let zeros = |tensor: &crate::Tensor| tensor.bytes().iter().all(|&byte| byte == 0);
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

/// `[time, 1, input]` walked as `[time, input]`, when features lie one after the other.
fn lstm_walk(x: &View) -> Option<Access> {
    let fits = x.dims[2] == 1 || x.strides[2] == 1;
    fits.then(|| Access { operand: x.operand, offset: x.offset, strides: vec![x.strides[0], 1] })
}
