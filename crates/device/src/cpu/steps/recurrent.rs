//! One direction of a recurrent layer, for all items of a lane together.
//!
//! ```text
//!   x [items·time, in] · w ─▶ from the input, [item][time][gates]          one product for all times
//!   per time:  s [items, hidden] · r ─▶ sums [item][gates]                 one product for all items
//!              functions of (sums + from the input) ─▶ c, s
//! ```
//! The matrix of the state is far larger than the states, so a time costs reading it once, however many items there are. Rows of a product do not
//! see each other ([`super::gemm`]), and all else is computed item by item: who else is in the run changes no bit.

use super::activation;
use super::gemm::{Finish, Product, between_rows};
use super::{Bench, Reads, Scratch};
use crate::cpu::crew::Crew;
use crate::cpu::fence::Rows;
use tessera_planner::op::{CellKind, Unary};
use tessera_planner::plan::{Activation, Operand, StepKind};

pub(super) fn recurrent(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Recurrent { shape, y, h, c, .. } = kind else { return };
    let (items, crew) = (bench.items, bench.crew);
    match *y {
        Some(y) => {
            let per_item = bench.plan.buffer(y).elements;
            let (reads, [y], scratch, _) = bench.open([y]);
            run(kind, &reads, items, crew, scratch, Some((bytemuck::cast_slice_mut(y), per_item)));
        }
        None => {
            let (reads, [], scratch, _) = bench.open([]);
            run(kind, &reads, items, crew, scratch, None);
        }
    }
    // Working memory holds the last states of all items, as the buffers want them.
    let states = items * shape.hidden;
    for (out, first) in [(*h, 0), (*c, states)] {
        let Some(out) = out else { continue };
        let (_, [out], scratch, _) = bench.open([out]);
        bytemuck::cast_slice_mut::<u64, f32>(out)[..states]
            .copy_from_slice(&scratch.c[first..first + states]);
    }
}

const PLAIN: Finish<'static> = Finish { bias: None, residual: None, activation: Activation::Identity };

/// All times of all items. Leaves `[s | c]` of all items in the scratch's third part.
fn run(
    kind: &StepKind,
    reads: &Reads<'_>,
    items: usize,
    crew: Crew<'_>,
    scratch: &mut Scratch,
    mut y: Option<(&mut [f32], usize)>,
) {
    let StepKind::Recurrent { shape, cell, x, weights, length, h0, c0, y_offset, y_stride, .. } = kind else {
        return;
    };
    let (hidden, time) = (shape.hidden, shape.time);
    let gates = cell.kind.gates() * hidden;
    let Scratch { a: from_input, b: sums, c: states } = scratch;
    states.clear();
    [h0, c0].into_iter().for_each(|start| begin(reads, *start, items, hidden, states));
    // Beside the states, what a reset leaves of them.
    states.resize(3 * items * hidden, 0.0);
    let (state, rest) = states.split_at_mut(items * hidden);
    let (inner, scaled) = rest.split_at_mut(items * hidden);

    let bias = weights.bias.map(|bias| reads.weight(bias));
    from_input.resize(items * time * gates, 0.0);
    let source = reads.source::<f32>(x.operand);
    for (item, out) in from_input.chunks_exact_mut(time * gates).enumerate() {
        Product {
            x: &source.at(item)[x.offset..],
            x_stride: between_rows(x),
            k: shape.input,
            panels: reads.weight(weights.w),
            out: Rows::new(out, gates, time, gates),
            finish: Finish { bias, ..PLAIN },
        }
        .run(crew);
    }
    let counts: Vec<usize> = (0..items)
        .map(|item| length.map_or(time, |length| reads.source::<i32>(length).at(item)[0] as usize))
        .collect();
    let of_cell = OfCell {
        kind: cell.kind,
        functions: &cell.functions,
        clip: cell.clip,
        peephole: weights.peephole.map(|id| reads.weight(id)),
        state_bias: bias.filter(|bias| bias.len() > gates).map(|bias| &bias[gates..gates + hidden]),
    };
    let together = if weights.candidate.is_some() { gates - hidden } else { gates };
    let product = |x: &[f32], panels, n: usize, out: &mut [f32]| {
        let out = Rows::new(out, gates, items, n);
        Product { x, x_stride: hidden, k: hidden, panels, out, finish: PLAIN }.run(crew);
    };
    sums.resize(items * gates, 0.0);
    for step in 0..counts.iter().copied().max().unwrap_or(0) {
        // The time of this step for an item, while its sequence lasts.
        let now = |item: usize| {
            let count = counts[item];
            (step < count).then(|| if shape.reverse { count - 1 - step } else { step })
        };
        let input = |item: usize, t: usize| &from_input[(item * time + t) * gates..][..gates];
        product(state, reads.weight(weights.r), together, sums);
        if let Some(candidate) = weights.candidate {
            for (item, sums) in sums.chunks_exact_mut(gates).enumerate() {
                let Some(t) = now(item) else { continue };
                let one = item * hidden..(item + 1) * hidden;
                of_cell.reset(input(item, t), sums, &state[one.clone()], &mut scaled[one]);
            }
            // Into the third part of each item's sums.
            product(scaled, reads.weight(candidate), hidden, &mut sums[together..]);
        }
        for (item, sums) in sums.chunks_exact_mut(gates).enumerate() {
            let Some(t) = now(item) else { continue };
            let one = item * hidden..(item + 1) * hidden;
            of_cell.step(input(item, t), sums, &mut state[one.clone()], &mut inner[one.clone()]);
            if let Some((y, per_item)) = &mut y {
                let at = item * *per_item + y_offset + t * y_stride;
                y[at..at + hidden].copy_from_slice(&state[one]);
            }
        }
    }
    // What lies behind the end of a sequence.
    let Some((y, per_item)) = y else { return };
    for (item, &count) in counts.iter().enumerate() {
        for t in count..time {
            let at = item * per_item + y_offset + t * y_stride;
            y[at..at + hidden].fill(0.0);
        }
    }
}

/// Appends the states that all items begin with: those that they bring, or zeros.
fn begin(reads: &Reads<'_>, start: Option<Operand>, items: usize, hidden: usize, states: &mut Vec<f32>) {
    for item in 0..items {
        match start {
            Some(operand) => states.extend_from_slice(&reads.source::<f32>(operand).at(item)[..hidden]),
            None => states.resize(states.len() + hidden, 0.0),
        }
    }
}

/// The equations of one item at one time.
struct OfCell<'a> {
    kind: CellKind,
    functions: &'a [Unary],
    clip: Option<f32>,
    peephole: Option<&'a [f32]>,
    /// Of the candidate of a GRU that resets after its product.
    state_bias: Option<&'a [f32]>,
}

impl OfCell<'_> {
    fn apply(&self, function: Unary, values: &mut [f32]) {
        if let Some(bound) = self.clip {
            activation::apply(Activation::Clip { low: -bound, high: bound }, values);
        }
        activation::unary(function, values);
    }

    /// The reset gate of a GRU, in place of its sums, and the state that it leaves.
    fn reset(&self, input: &[f32], sums: &mut [f32], state: &[f32], scaled: &mut [f32]) {
        let hidden = state.len();
        let gate = hidden..2 * hidden;
        add(&mut sums[gate.clone()], &input[gate.clone()]);
        self.apply(self.functions[0], &mut sums[gate.clone()]);
        for ((scaled, state), reset) in scaled.iter_mut().zip(state).zip(&sums[gate]) {
            *scaled = state * reset;
        }
    }

    /// New states from old ones; `sums` are what the state gives to the gates.
    fn step(&self, input: &[f32], sums: &mut [f32], state: &mut [f32], inner: &mut [f32]) {
        match (self.kind, self.functions) {
            (CellKind::Lstm { input_forget }, &[f, g, h]) => {
                add(sums, input);
                self.lstm(input_forget, [f, g, h], sums, state, inner);
            }
            (CellKind::Gru { linear_before_reset }, &[f, g]) => {
                let hidden = state.len();
                let (gates, candidate) = sums.split_at_mut(2 * hidden);
                if linear_before_reset {
                    add(gates, &input[..2 * hidden]);
                    self.apply(f, gates);
                    if let Some(bias) = self.state_bias {
                        add(candidate, bias);
                    }
                    candidate.iter_mut().zip(&gates[hidden..]).for_each(|(sum, reset)| *sum *= reset);
                } else {
                    add(&mut gates[..hidden], &input[..hidden]);
                    self.apply(f, &mut gates[..hidden]);
                }
                add(candidate, &input[2 * hidden..]);
                self.apply(g, candidate);
                for ((state, update), candidate) in state.iter_mut().zip(&gates[..hidden]).zip(candidate) {
                    *state = (1.0 - update) * *candidate + update * *state;
                }
            }
            (_, functions) => {
                add(sums, input);
                self.apply(functions[0], sums);
                state.copy_from_slice(sums);
            }
        }
    }

    fn lstm(
        &self,
        input_forget: bool,
        [f, g, h]: [Unary; 3],
        sums: &mut [f32],
        state: &mut [f32],
        inner: &mut [f32],
    ) {
        let hidden = state.len();
        let (input, rest) = sums.split_at_mut(hidden);
        let (output, rest) = rest.split_at_mut(hidden);
        let (forget, candidate) = rest.split_at_mut(hidden);
        if let Some(peephole) = self.peephole {
            add_scaled(input, &peephole[..hidden], inner);
            add_scaled(forget, &peephole[2 * hidden..], inner);
        }
        self.apply(f, input);
        if input_forget {
            forget.iter_mut().zip(&*input).for_each(|(forget, input)| *forget = 1.0 - input);
        } else {
            self.apply(f, forget);
        }
        self.apply(g, candidate);
        for unit in 0..hidden {
            inner[unit] = forget[unit] * inner[unit] + input[unit] * candidate[unit];
        }
        if let Some(peephole) = self.peephole {
            add_scaled(output, &peephole[hidden..2 * hidden], inner);
        }
        self.apply(f, output);
        state.copy_from_slice(inner);
        activation::unary(h, state);
        state.iter_mut().zip(&*output).for_each(|(state, output)| *state *= output);
    }
}

fn add(to: &mut [f32], what: &[f32]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += what);
}

/// `to + weights·values`.
fn add_scaled(to: &mut [f32], weights: &[f32], values: &[f32]) {
    for ((to, weight), value) in to.iter_mut().zip(weights).zip(values) {
        *to += weight * value;
    }
}
