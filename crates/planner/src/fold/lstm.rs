//! LSTM layers, one direction at a time, with their weights as matrices that multiply from the right.
//!
//! ```text
//!   w [dirs, 4h, in]  ─▶ w′ [in, 4h]      per direction
//!   r [dirs, 4h, h]   ─▶ r′ [h, 4h]
//!   bias [dirs, 8h]   ─▶ bias′ [4h]       ONNX keeps one for the input and one for the state; only their sum matters
//! ```
//! Two directions become two nodes whose sequences meet again in a `Concat` over axis 1, and their last states over axis 0.

use super::{FoldError, Folding, fixed::Fixed};
use crate::graph::{Node, ValueId};
use crate::op::{Binary, Direction, Op, Recurrent};
use crate::tensor::Tensor;

const OPTIONAL_INPUTS: [(usize, &str); 2] = [(4, "lengths of sequences"), (7, "peepholes")];

/// The weights of every direction, checked.
struct Weights {
    w: Fixed,
    r: Fixed,
    bias: Option<Fixed>,
}

impl Weights {
    /// Those of one direction, as the folded graph wants them.
    fn of(&self, direction: usize) -> Weights {
        let turned = |all: &Fixed| {
            let one = all.sliced(0, direction, direction + 1);
            one.reshaped(&all.dims[1..]).transposed()
        };
        let bias = self.bias.as_ref().map(|all| {
            let one = all.sliced(0, direction, direction + 1).reshaped(&all.dims[1..]);
            let half = one.dims[0] / 2;
            one.sliced(0, 0, half).combined(Binary::Add, &one.sliced(0, half, 2 * half))
        });
        Weights { w: turned(&self.w), r: turned(&self.r), bias }
    }
}

impl Folding<'_> {
    /// Emits one node per direction, and what joins them.
    pub(super) fn lstm(&mut self, node: &Node, layer: &Recurrent) -> Result<(), FoldError> {
        for (index, what) in OPTIONAL_INPUTS {
            if node.inputs.get(index).is_some_and(Option::is_some) {
                return Err(FoldError::Unsupported { node: self.label(node), what });
            }
        }
        let directions: &[Direction] = match layer.direction {
            Direction::Bidirectional => &[Direction::Forward, Direction::Reverse],
            Direction::Forward => &[Direction::Forward],
            Direction::Reverse => &[Direction::Reverse],
        };
        let weights = self.lstm_weights(node, layer.hidden, directions.len())?;
        let x = self.input(node, 0)?;
        let states = [5, 6].map(|index| node.inputs.get(index).copied().flatten());

        if let [direction] = directions {
            let outputs = node.outputs.clone();
            let op = Op::Lstm(Recurrent { hidden: layer.hidden, direction: *direction });
            self.emit_lstm(node, op, x, weights.of(0), states, outputs);
            return Ok(());
        }

        // Each state is [2, batch, hidden], of which either direction takes its half.
        let halves = states.map(|state| state.map(|state| self.halves(node, state)));
        let mut parts: Vec<Vec<ValueId>> = vec![vec![]; node.outputs.len()];
        for (index, direction) in directions.iter().enumerate() {
            let mut outputs = Vec::new();
            for (output, parts) in node.outputs.iter().zip(&mut parts) {
                outputs.push(output.map(|output| {
                    let part = self.value(format!("{}.{index}", self.graph.name(output)));
                    parts.push(part);
                    part
                }));
            }
            let op = Op::Lstm(Recurrent { hidden: layer.hidden, direction: *direction });
            let states = halves.map(|halves| halves.map(|halves| halves[index]));
            self.emit_lstm(node, op, x, weights.of(index), states, outputs);
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

    fn emit_lstm(
        &mut self,
        node: &Node,
        op: Op,
        x: ValueId,
        weights: Weights,
        [h0, c0]: [Option<ValueId>; 2],
        outputs: Vec<Option<ValueId>>,
    ) {
        let w = self.define(weights.w);
        let r = self.define(weights.r);
        let bias = weights.bias.map(|bias| self.define(bias));
        let mut inputs = vec![Some(x), Some(w), Some(r), bias, None, h0, c0];
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

    fn lstm_weights(&self, node: &Node, hidden: usize, dirs: usize) -> Result<Weights, FoldError> {
        let w = self.fixed_float(node, 1)?;
        let r = self.fixed_float(node, 2)?;
        let bias = match node.inputs.get(3) {
            Some(Some(_)) => Some(self.fixed_float(node, 3)?),
            _ => None,
        };
        let gates = hidden.checked_mul(4).filter(|&gates| gates > 0);
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
        Ok(Weights { w, r, bias })
    }
}
