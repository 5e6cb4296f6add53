//! Recurrent layers: ONNX's equations, with `f`, `g` and `h` the layer's functions.
//!
//! ```text
//!   LSTM  i = f(x·Wi + s·Ri + bi + pi⊙c)    f' = f(x·Wf + s·Rf + bf + pf⊙c)    c̃ = g(x·Wc + s·Rc + bc)
//!         c' = f'⊙c + i⊙c̃                   o  = f(x·Wo + s·Ro + bo + po⊙c')   s' = o⊙h(c')
//!   GRU   z = f(x·Wz + s·Rz + bz)           r  = f(x·Wr + s·Rr + br)
//!         h̃ = g(x·Wh + (r⊙s)·Rh + bh), or, with the reset after the product, g(x·Wh + Wbh + r⊙(s·Rh + Rbh))
//!         s' = (1 − z)⊙h̃ + z⊙s
//!   RNN   s' = f(x·W + s·R + b)
//! ```
//! Gates stand in ONNX's order: i, o, f, c and z, r, h. A sequence shorter than the longest keeps its state beyond its end, and its outputs
//! there are zero. The reverse direction starts at a sequence's own last element. Where ONNX leaves open what `clip` bounds we follow onnxruntime:
//! the arguments of `f` and `g`, not that of `h`.

use super::EvalError;
use super::element::{floats, from_floats};
use super::elementwise::of_float;
use super::error::Args;
use crate::op::{Cell, CellKind, Direction, Recurrent, Unary};
use crate::tensor::Tensor;

/// One direction's weights as f64: matrices `[gates·hidden, columns]`, each bias `[gates·hidden]`.
struct Weights {
    w: Vec<f64>,
    r: Vec<f64>,
    of_input: Vec<f64>,
    of_state: Vec<f64>,
    peephole: Vec<f64>,
}

/// The rows become columns.
fn turned(list: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..rows * cols).map(|at| list[at % rows * cols + at / rows]).collect()
}

/// The lengths that a layer's weights have.
#[derive(Clone, Copy)]
struct Sizes {
    input: usize,
    hidden: usize,
    gates: usize,
    directions: usize,
}

pub(super) fn recurrent(layer: &Recurrent, args: Args<'_>) -> Result<Vec<Tensor>, EvalError> {
    let (x, hidden) = (args.get(0)?, layer.hidden);
    let &[time, batch, input] = x.dims() else {
        return Err(args.misfit("the sequence is not [time, batch, in]"));
    };
    let directions = layer.direction.count();
    if layer.cell.functions.len() != directions * layer.cell.kind.functions() {
        return Err(args.misfit("it does not have as many functions as its equations"));
    }
    let gates = hidden.checked_mul(8).ok_or_else(|| args.misfit("the state is too large"))? / 8
        * layer.cell.kind.gates();
    let sizes = Sizes { input, hidden, gates, directions };
    let folded = args.get(1)?.dims().len() == 2 && directions == 1;
    let weights =
        if folded { vec![folded_weights(layer.cell.kind, sizes, args)?] } else { onnx_weights(sizes, args)? };
    let states = args.count(x.dtype(), &[time, directions, batch, hidden])?;
    let state = args.count(x.dtype(), &[directions, batch, hidden])?;
    let first = |index: usize| {
        let given = fitting(args, index, &[directions, batch, hidden])?;
        Ok::<_, EvalError>(given.unwrap_or_else(|| vec![0.0; state]))
    };
    let (mut s, mut c) = (first(5)?, first(6)?);
    let lengths = lengths(args, time, batch)?;
    let sequence = floats(args, x)?;
    let mut y = vec![0.0; states];
    for (direction, weights) in weights.iter().enumerate() {
        let cell = layer.cell.of_direction(direction);
        let reverse = layer.direction == Direction::Reverse || direction == 1;
        for item in 0..batch {
            let at = (direction * batch + item) * hidden;
            for step in 0..lengths[item] {
                let t = if reverse { lengths[item] - 1 - step } else { step };
                let x = &sequence[(t * batch + item) * input..][..input];
                weights.step(&cell, x, &mut s[at..][..hidden], &mut c[at..][..hidden]);
                y[((t * directions + direction) * batch + item) * hidden..][..hidden]
                    .copy_from_slice(&s[at..][..hidden]);
            }
        }
    }
    let last = [directions, batch, hidden];
    let mut made = vec![
        from_floats(x.dtype(), &[time, directions, batch, hidden], &y),
        from_floats(x.dtype(), &last, &s),
    ];
    if let CellKind::Lstm { .. } = layer.cell.kind {
        made.push(from_floats(x.dtype(), &last, &c));
    }
    Ok(made)
}

/// An input that may be left out, of one shape.
fn fitting(args: Args<'_>, index: usize, dims: &[usize]) -> Result<Option<Vec<f64>>, EvalError> {
    match args.opt(index) {
        None => Ok(None),
        Some(tensor) if tensor.dims() == dims => floats(args, tensor).map(Some),
        Some(_) => Err(args.misfit(format!("input {index} is not of shape {dims:?}"))),
    }
}

fn needed(args: Args<'_>, index: usize, dims: &[usize]) -> Result<Vec<f64>, EvalError> {
    fitting(args, index, dims)?.ok_or_else(|| args.misfit(format!("input {index} is missing")))
}

/// The weights of every direction, as ONNX has them.
fn onnx_weights(sizes: Sizes, args: Args<'_>) -> Result<Vec<Weights>, EvalError> {
    let Sizes { input, hidden, gates, directions } = sizes;
    let w = needed(args, 1, &[directions, gates, input])?;
    let r = needed(args, 2, &[directions, gates, hidden])?;
    let bias = fitting(args, 3, &[directions, 2 * gates])?;
    let peephole = fitting(args, 7, &[directions, 3 * hidden])?;
    let own = |all: &[f64], direction: usize, length: usize| all[direction * length..][..length].to_vec();
    let one = |direction: usize| {
        let bias = bias.as_ref().map_or_else(|| vec![0.0; 2 * gates], |all| own(all, direction, 2 * gates));
        Weights {
            w: own(&w, direction, gates * input),
            r: own(&r, direction, gates * hidden),
            of_input: bias[..gates].to_vec(),
            of_state: bias[gates..].to_vec(),
            peephole: peephole
                .as_ref()
                .map_or_else(|| vec![0.0; 3 * hidden], |all| own(all, direction, 3 * hidden)),
        }
    };
    Ok((0..directions).map(one).collect())
}

/// The weights of a folded graph's one direction: see [`crate::fold::Folded`].
fn folded_weights(kind: CellKind, sizes: Sizes, args: Args<'_>) -> Result<Weights, EvalError> {
    let Sizes { input, hidden, gates, .. } = sizes;
    let w = turned(&needed(args, 1, &[input, gates])?, input, gates);
    // A reset before the product keeps the candidate's matrix apart; one after it keeps the candidate's two biases apart.
    let (apart, two_biases) = match kind {
        CellKind::Gru { linear_before_reset } => (!linear_before_reset, linear_before_reset),
        CellKind::Lstm { .. } | CellKind::Rnn => (false, false),
    };
    let together = if apart { gates - hidden } else { gates };
    let mut r = turned(&needed(args, 2, &[hidden, together])?, hidden, together);
    if apart {
        r.extend(turned(&needed(args, 8, &[hidden, hidden])?, hidden, hidden));
    }
    let length = if two_biases { gates + hidden } else { gates };
    let mut of_input = fitting(args, 3, &[length])?.unwrap_or_else(|| vec![0.0; length]);
    let mut of_state = vec![0.0; gates];
    if two_biases {
        of_state[gates - hidden..].copy_from_slice(&of_input[gates..]);
        of_input.truncate(gates);
    }
    let peephole = fitting(args, 7, &[3 * hidden])?.unwrap_or_else(|| vec![0.0; 3 * hidden]);
    Ok(Weights { w, r, of_input, of_state, peephole })
}

/// How many elements of each sequence count.
fn lengths(args: Args<'_>, time: usize, batch: usize) -> Result<Vec<usize>, EvalError> {
    if args.opt(4).is_none() {
        return Ok(vec![time; batch]);
    }
    let list = args.integers(4)?;
    if list.len() != batch {
        return Err(args.misfit(format!("{} lengths are given for {batch} sequences", list.len())));
    }
    let one = |&length: &i64| usize::try_from(length).ok().filter(|&length| length <= time);
    list.iter()
        .map(one)
        .collect::<Option<_>>()
        .ok_or_else(|| args.misfit(format!("a length is not in 0..={time}")))
}

impl Weights {
    /// One element of the sequence: new states from old ones, in place.
    fn step(&self, cell: &Cell, x: &[f64], s: &mut [f64], c: &mut [f64]) {
        let hidden = s.len();
        let dot = |matrix: &[f64], row: usize, v: &[f64]| {
            matrix[row * v.len()..][..v.len()].iter().zip(v).map(|(m, v)| m * v).sum::<f64>()
        };
        let before = s.to_vec();
        let of_input = |row: usize| dot(&self.w, row, x) + self.of_input[row];
        let of_state = |row: usize, state: &[f64]| dot(&self.r, row, state) + self.of_state[row];
        let sum = |gate: usize, unit: usize| {
            of_input(gate * hidden + unit) + of_state(gate * hidden + unit, &before)
        };
        let apply = |function: Unary, x: f64| {
            let bound = cell.clip.map_or(f64::INFINITY, f64::from);
            of_float(function, x.clamp(-bound, bound))
        };
        match (cell.kind, cell.functions.as_slice()) {
            (CellKind::Lstm { input_forget }, &[f, g, h]) => {
                let peephole = |which: usize, unit: usize| self.peephole[which * hidden + unit];
                for unit in 0..hidden {
                    let input = apply(f, sum(0, unit) + peephole(0, unit) * c[unit]);
                    let forget = match input_forget {
                        true => 1.0 - input,
                        false => apply(f, sum(2, unit) + peephole(2, unit) * c[unit]),
                    };
                    c[unit] = forget * c[unit] + input * apply(g, sum(3, unit));
                    let output = apply(f, sum(1, unit) + peephole(1, unit) * c[unit]);
                    s[unit] = output * of_float(h, c[unit]);
                }
            }
            (CellKind::Gru { linear_before_reset }, &[f, g]) => {
                let reset: Vec<f64> = (0..hidden).map(|unit| apply(f, sum(1, unit))).collect();
                let scaled: Vec<f64> = before.iter().zip(&reset).map(|(s, r)| s * r).collect();
                for unit in 0..hidden {
                    let row = 2 * hidden + unit;
                    let from_state = match linear_before_reset {
                        true => reset[unit] * of_state(row, &before),
                        false => of_state(row, &scaled),
                    };
                    let (update, candidate) = (apply(f, sum(0, unit)), apply(g, of_input(row) + from_state));
                    s[unit] = (1.0 - update) * candidate + update * before[unit];
                }
            }
            (CellKind::Rnn, &[f]) => {
                (0..hidden).for_each(|unit| s[unit] = apply(f, sum(0, unit)));
            }
            _ => unreachable!("the number of functions was checked"),
        }
    }
}
