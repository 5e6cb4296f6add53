//! Recurrent layers, one direction at a time, with their weights as matrices that multiply from the right.
//!
//! ```text
//!   w [dirs, g·h, in]  ─▶ w′ [in, g·h]     per direction, g gates
//!   r [dirs, g·h, h]   ─▶ r′ [h, g·h]      a GRU that resets the state before its product: [h, 2h], and [h, h] for the candidate
//!   bias [dirs, 2g·h]  ─▶ bias′ [g·h]      ONNX keeps one for the input and one for the state; only their sum matters, but for the
//!                                          candidate of a GRU that resets after the product: [4h], its bias of the state last
//! ```
//! Two directions become two nodes whose sequences meet again in a `Concat` over axis 1, and their last states over axis 0.

use super::{FoldError, Folding, fixed::Fixed};
use crate::graph::{Node, ValueId};
use crate::op::{Binary, CellKind, Direction, Op, Recurrent};
use crate::tensor::Tensor;

/// The weights of every direction, checked.
struct Weights {
    w: Fixed,
    r: Fixed,
    bias: Option<Fixed>,
    peephole: Option<Fixed>,
}

/// Those of one direction, as the folded graph wants them.
struct Turned {
    w: Fixed,
    r: Fixed,
    bias: Option<Fixed>,
    peephole: Option<Fixed>,
    candidate: Option<Fixed>,
}

impl Weights {
    fn of(&self, kind: CellKind, hidden: usize, direction: usize) -> Turned {
        let own = |all: &Fixed| all.sliced(0, direction, direction + 1).reshaped(&all.dims[1..]);
        let gates = kind.gates() * hidden;
        let r = own(&self.r).transposed();
        let bias = self.bias.as_ref().map(|all| {
            let both = own(all);
            let sum = |from: usize, to: usize| {
                both.sliced(0, from, to).combined(Binary::Add, &both.sliced(0, gates + from, gates + to))
            };
            match kind {
                CellKind::Gru { linear_before_reset: true } => {
                    let gate = gates - hidden;
                    let parts =
                        [sum(0, gate), both.sliced(0, gate, gates), both.sliced(0, gates + gate, 2 * gates)];
                    Fixed::apply(&Op::Concat { axis: 0 }, &parts.each_ref().map(Some))
                        .expect("vectors are joined")
                }
                _ => sum(0, gates),
            }
        });
        let (r, candidate) = match kind {
            CellKind::Gru { linear_before_reset: false } => {
                let apart = gates - hidden;
                (r.sliced(1, 0, apart), Some(r.sliced(1, apart, gates)))
            }
            _ => (r, None),
        };
        let peephole = self.peephole.as_ref().map(own);
        Turned { w: own(&self.w).transposed(), r, bias, peephole, candidate }
    }
}

/// What one node of the folded graph reads beside its weights.
#[derive(Clone, Copy)]
struct Reads {
    x: ValueId,
    lengths: Option<ValueId>,
    /// The first state, and the first cell state.
    states: [Option<ValueId>; 2],
}

impl Folding<'_> {
    /// Emits one node per direction, and what joins them.
    pub(super) fn recurrent(&mut self, node: &Node, layer: &Recurrent) -> Result<(), FoldError> {
        let directions: &[Direction] = match layer.direction {
            Direction::Bidirectional => &[Direction::Forward, Direction::Reverse],
            Direction::Forward => &[Direction::Forward],
            Direction::Reverse => &[Direction::Reverse],
        };
        let weights = self.recurrent_weights(node, layer, directions.len())?;
        let optional = |index: usize| node.inputs.get(index).copied().flatten();
        let (x, lengths, states) = (self.input(node, 0)?, optional(4), [5, 6].map(optional));
        let of_direction = |index: usize| {
            let cell = layer.cell.of_direction(index);
            Op::Recurrent(Recurrent { hidden: layer.hidden, direction: directions[index], cell })
        };
        let turned = |index: usize| weights.of(layer.cell.kind, layer.hidden, index);
        if directions.len() == 1 {
            let outputs = node.outputs.clone();
            self.emit_recurrent(node, of_direction(0), Reads { x, lengths, states }, turned(0), outputs);
            return Ok(());
        }

        // Each state is [2, batch, hidden], of which either direction takes its half.
        let halves = states.map(|state| state.map(|state| self.halves(node, state)));
        let mut parts: Vec<Vec<ValueId>> = vec![vec![]; node.outputs.len()];
        for index in 0..directions.len() {
            let mut outputs = Vec::new();
            for (output, parts) in node.outputs.iter().zip(&mut parts) {
                outputs.push(output.map(|output| {
                    let part = self.value(format!("{}.{index}", self.graph.name(output)));
                    parts.push(part);
                    part
                }));
            }
            let states = halves.map(|halves| halves.map(|halves| halves[index]));
            self.emit_recurrent(
                node,
                of_direction(index),
                Reads { x, lengths, states },
                turned(index),
                outputs,
            );
        }
        for (index, (output, parts)) in node.outputs.iter().zip(parts).enumerate() {
            if output.is_some() {
                // y is [time, dirs, batch, hidden], the last states are [dirs, batch, hidden].
                let op = Op::Concat { axis: i64::from(index == 0) };
                let inputs = parts.into_iter().map(Some).collect();
                self.nodes.push(Node { name: node.name.clone(), op, inputs, outputs: vec![*output] });
            }
        }
        Ok(())
    }

    fn emit_recurrent(
        &mut self,
        node: &Node,
        op: Op,
        Reads { x, lengths, states: [h0, c0] }: Reads,
        weights: Turned,
        outputs: Vec<Option<ValueId>>,
    ) {
        let w = self.define(weights.w);
        let r = self.define(weights.r);
        let [bias, peephole, candidate] = [weights.bias, weights.peephole, weights.candidate]
            .map(|weight| weight.map(|weight| self.define(weight)));
        let mut inputs = vec![Some(x), Some(w), Some(r), bias, lengths, h0, c0, peephole, candidate];
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        self.nodes.push(Node { name: node.name.clone(), op, inputs, outputs });
    }

    /// The two halves of a value over axis 0.
    fn halves(&mut self, node: &Node, state: ValueId) -> [ValueId; 2] {
        if let Some(fixed) =
            self.fixed.get(&state).map(Fixed::single).filter(|fixed| fixed.dims.first() == Some(&2))
        {
            return [0, 1].map(|index| self.define(fixed.sliced(0, index, index + 1)));
        }
        let halves = [0, 1].map(|index| self.value(format!("{}.{index}", self.values[state.0 as usize])));
        let sizes = self.define(Fixed::literal("sizes", Tensor::from_elements(&[2], &[1i64, 1])));
        self.nodes.push(Node {
            name: node.name.clone(),
            op: Op::Split { axis: 0 },
            inputs: vec![Some(state), Some(sizes)],
            outputs: halves.map(Some).to_vec(),
        });
        halves
    }

    fn recurrent_weights(&self, node: &Node, layer: &Recurrent, dirs: usize) -> Result<Weights, FoldError> {
        let optional = |index: usize| match node.inputs.get(index) {
            Some(Some(_)) => self.fixed_float(node, index).map(Some),
            _ => Ok(None),
        };
        let (w, r) = (self.fixed_float(node, 1)?, self.fixed_float(node, 2)?);
        let (bias, peephole) = (optional(3)?, optional(7)?);
        let hidden = layer.hidden;
        // All lengths that follow from the size of the state can be computed.
        let gates = hidden.checked_mul(8).filter(|&all| all > 0).map(|_| hidden * layer.cell.kind.gates());
        let fits = |dims: &[usize], gates: usize| match *dims {
            [d, rows, _] => d == dirs && rows == gates,
            _ => false,
        };
        if !gates.is_some_and(|gates| fits(&w.dims, gates)) {
            return Err(self.misfit(node, "its input weight", &w));
        }
        if !gates.is_some_and(|gates| fits(&r.dims, gates)) || r.dims[2] != hidden {
            return Err(self.misfit(node, "its recurrent weight", &r));
        }
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dims != [dirs, w.dims[1].saturating_mul(2)]) {
            return Err(self.misfit(node, "its bias", bias));
        }
        if let Some(peephole) = peephole.as_ref().filter(|peephole| peephole.dims != [dirs, 3 * hidden]) {
            return Err(self.misfit(node, "its peephole", peephole));
        }
        Ok(Weights { w, r, bias, peephole })
    }
}
