//! The LSTM layer: ONNX's equations, gates in the order i, o, f, c.
//!
//! ```text
//!   i = σ(x·Wi + h·Ri + bi + pi⊙c)     f = σ(x·Wf + h·Rf + bf + pf⊙c)     g = tanh(x·Wc + h·Rc + bc)
//!   c' = f⊙c + i⊙g                     o = σ(x·Wo + h·Ro + bo + po⊙c')    h' = o⊙tanh(c')
//! ```
//! A sequence shorter than the longest keeps its state beyond its end, and its outputs there are zero. The reverse direction starts at a
//! sequence's own last element.

use super::EvalError;
use super::element::{floats, from_floats};
use super::error::Args;
use crate::op::{Direction, Recurrent};
use crate::tensor::Tensor;

/// One direction's weights as f64, whichever way they lay: `w(gate, input)`, `r(gate, hidden)`, summed biases.
struct Cell {
    w: Vec<f64>,
    r: Vec<f64>,
    bias: Vec<f64>,
    peephole: Vec<f64>,
}

/// The rows become columns.
fn turned(list: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..rows * cols).map(|at| list[at % rows * cols + at / rows]).collect()
}

pub(super) fn lstm(layer: &Recurrent, args: Args<'_>) -> Result<Vec<Tensor>, EvalError> {
    let (x, w, hidden) = (args.get(0)?, args.get(1)?, layer.hidden);
    let &[time, batch, input] = x.dims() else {
        return Err(args.misfit("the sequence is not [time, batch, in]"));
    };
    let directions = if layer.direction == Direction::Bidirectional { 2 } else { 1 };
    let overflow = || args.misfit("the state is too large");
    let gates = hidden.checked_mul(8).ok_or_else(overflow)? / 2;
    // A folded graph's one direction: matrices transposed, biases summed, no axis for the direction.
    let folded = w.dims().len() == 2 && directions == 1;
    let fitting = |index: usize, dims: &[usize]| match args.opt(index) {
        None => Ok(None),
        Some(tensor) if tensor.dims() == dims => floats(args, tensor).map(Some),
        Some(_) => Err(args.misfit(format!("input {index} is not of shape {dims:?}"))),
    };
    let missing = |index: usize| args.misfit(format!("input {index} is missing"));
    let (w, r, bias) = if folded {
        (fitting(1, &[input, gates])?, fitting(2, &[hidden, gates])?, fitting(3, &[gates])?)
    } else {
        let (w, r) = (fitting(1, &[directions, gates, input])?, fitting(2, &[directions, gates, hidden])?);
        (w, r, fitting(3, &[directions, 2 * gates])?)
    };
    let (w, r) = (w.ok_or_else(|| missing(1))?, r.ok_or_else(|| missing(2))?);
    let peephole = fitting(7, &[directions, 3 * hidden])?;
    let states = args.count(x.dtype(), &[time, directions, batch, hidden])?;
    let state = args.count(x.dtype(), &[directions, batch, hidden])?;
    let mut h = fitting(5, &[directions, batch, hidden])?.unwrap_or_else(|| vec![0.0; state]);
    let mut c = fitting(6, &[directions, batch, hidden])?.unwrap_or_else(|| vec![0.0; state]);
    let lengths = lengths(args, time, batch)?;
    let sequence = floats(args, x)?;
    let mut y = vec![0.0; states];
    for direction in 0..directions {
        let cell = Cell {
            w: if folded {
                turned(&w, input, gates)
            } else {
                w[direction * gates * input..][..gates * input].to_vec()
            },
            r: if folded {
                turned(&r, hidden, gates)
            } else {
                r[direction * gates * hidden..][..gates * hidden].to_vec()
            },
            bias: match &bias {
                None => vec![0.0; gates],
                Some(bias) if folded => bias.clone(),
                Some(bias) => {
                    let own = &bias[direction * 2 * gates..][..2 * gates];
                    (0..gates).map(|gate| own[gate] + own[gates + gate]).collect()
                }
            },
            peephole: peephole
                .as_ref()
                .map_or(vec![0.0; 3 * hidden], |list| list[direction * 3 * hidden..][..3 * hidden].to_vec()),
        };
        let reverse = layer.direction == Direction::Reverse || direction == 1;
        for item in 0..batch {
            let at = (direction * batch + item) * hidden;
            for step in 0..lengths[item] {
                let t = if reverse { lengths[item] - 1 - step } else { step };
                let x = &sequence[(t * batch + item) * input..][..input];
                cell.step(x, &mut h[at..][..hidden], &mut c[at..][..hidden]);
                y[((t * directions + direction) * batch + item) * hidden..][..hidden]
                    .copy_from_slice(&h[at..][..hidden]);
            }
        }
    }
    let last = [directions, batch, hidden];
    Ok(vec![
        from_floats(x.dtype(), &[time, directions, batch, hidden], &y),
        from_floats(x.dtype(), &last, &h),
        from_floats(x.dtype(), &last, &c),
    ])
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

impl Cell {
    /// One element of the sequence: new states from old ones, in place.
    fn step(&self, x: &[f64], h: &mut [f64], c: &mut [f64]) {
        let hidden = h.len();
        let dot = |matrix: &[f64], gate: usize, v: &[f64]| {
            matrix[gate * v.len()..][..v.len()].iter().zip(v).map(|(m, v)| m * v).sum::<f64>()
        };
        let sums: Vec<f64> = (0..4 * hidden)
            .map(|gate| dot(&self.w, gate, x) + dot(&self.r, gate, h) + self.bias[gate])
            .collect();
        let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
        let gate = |gate: usize, at: usize| sums[gate * hidden + at];
        let peephole = |which: usize, at: usize| self.peephole[which * hidden + at];
        for at in 0..hidden {
            let i = sigmoid(gate(0, at) + peephole(0, at) * c[at]);
            let f = sigmoid(gate(2, at) + peephole(2, at) * c[at]);
            c[at] = f * c[at] + i * libm::tanh(gate(3, at));
            let o = sigmoid(gate(1, at) + peephole(1, at) * c[at]);
            h[at] = o * libm::tanh(c[at]);
        }
    }
}
