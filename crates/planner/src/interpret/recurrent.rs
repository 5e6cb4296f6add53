//! Recurrent layers: the equations of [`crate::reference`], one item's sequence from its first time to its last.

use super::element::unary;
use super::matrix::row_times_matrix;
use super::memory::Memory;
use crate::op::{CellKind, Unary};
use crate::plan::{Operand, StepKind};

pub(super) fn recurrent(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Recurrent { shape, cell, x, weights, length, h0, c0, y, y_offset, y_stride, h, c } = kind
    else {
        unreachable!("called for its own kind")
    };
    let hidden = shape.hidden;
    let gates = cell.kind.gates() * hidden;
    let x = memory.walked::<f32>(x, &[shape.time, shape.input]);
    let (w, r) = (memory.matrix(weights.w), memory.matrix(weights.r));
    let candidate = weights.candidate.map(|id| memory.matrix(id));
    let vector = |memory: &Memory<'_>, id: Option<_>, length: usize| {
        id.map_or_else(|| vec![0.0; length], |id| memory.floats(Operand::Weight(id)))
    };
    let bias = vector(memory, weights.bias, gates + hidden);
    let peephole = vector(memory, weights.peephole, 3 * hidden);
    let start = |state: Option<Operand>| state.map_or_else(|| vec![0.0; hidden], |at| memory.floats(at));
    let (mut state, mut inner) = (start(*h0), start(*c0));
    let count = length.map_or(shape.time, |length| memory.elements::<i32>(length)[0] as usize);
    let apply = |function: Unary, x: f32| {
        let bound = cell.clip.unwrap_or(f32::INFINITY);
        unary(
            function,
            if x < -bound {
                -bound
            } else if x > bound {
                bound
            } else {
                x
            },
        )
    };
    let mut written = vec![0.0; shape.time * hidden];
    for step in 0..count {
        let t = if shape.reverse { count - 1 - step } else { step };
        let from_input = row_times_matrix(x[t * shape.input..][..shape.input].iter().copied(), &w, gates);
        let together = if candidate.is_some() { gates - hidden } else { gates };
        let from_state = row_times_matrix(state.iter().copied(), &r, together);
        let sum = |column: usize| (from_input[column] + from_state[column]) + bias[column];
        match (cell.kind, cell.functions.as_slice()) {
            (CellKind::Lstm { input_forget }, &[f, g, h]) => {
                for unit in 0..hidden {
                    let peep = |which: usize, c: f32| peephole[which * hidden + unit] * c;
                    let before = inner[unit];
                    let input = apply(f, sum(unit) + peep(0, before));
                    let forget = match input_forget {
                        true => 1.0 - input,
                        false => apply(f, sum(2 * hidden + unit) + peep(2, before)),
                    };
                    inner[unit] = forget * before + input * apply(g, sum(3 * hidden + unit));
                    let output = apply(f, sum(hidden + unit) + peep(1, inner[unit]));
                    state[unit] = output * unary(h, inner[unit]);
                }
            }
            (CellKind::Gru { .. }, &[f, g]) => {
                let reset: Vec<f32> = (0..hidden).map(|unit| apply(f, sum(hidden + unit))).collect();
                // What the candidate takes from the state: its own product of the scaled one, or a scaled part of the common product.
                let taken = match &candidate {
                    Some(matrix) => {
                        row_times_matrix(state.iter().zip(&reset).map(|(s, r)| s * r), matrix, hidden)
                    }
                    None => (0..hidden)
                        .map(|unit| reset[unit] * (from_state[2 * hidden + unit] + bias[gates + unit]))
                        .collect(),
                };
                for unit in 0..hidden {
                    let update = apply(f, sum(unit));
                    let column = 2 * hidden + unit;
                    let candidate = apply(g, (from_input[column] + bias[column]) + taken[unit]);
                    state[unit] = (1.0 - update) * candidate + update * state[unit];
                }
            }
            (CellKind::Rnn, &[f]) => state = (0..hidden).map(|unit| apply(f, sum(unit))).collect(),
            _ => unreachable!("a verified step has the functions of its cell"),
        }
        written[t * hidden..][..hidden].copy_from_slice(&state);
    }
    if let Some(y) = y {
        let bytes = memory.buffer_mut(*y);
        for (index, value) in written.iter().enumerate() {
            let at = (y_offset + index / hidden * y_stride + index % hidden) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    if let Some(h) = h {
        memory.set(*h, &state);
    }
    if let Some(c) = c {
        memory.set(*c, &inner);
    }
}
