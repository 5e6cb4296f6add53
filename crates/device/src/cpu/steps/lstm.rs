//! One direction of an LSTM layer: the inputs of all times in one product, then one small product per time.

use super::activation::sigmoid;
use super::gemm::{Finish, Product};
use super::{Bench, Reads, Scratch};
use tessera_planner::plan::{Activation, StepKind};

pub(super) fn lstm(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Lstm { y, h, c, .. } = kind else { return };
    let items = bench.items;
    let y_per_item = y.map_or(0, |y| bench.plan.buffer(y).elements);
    // A layer's outputs are three buffers, of which any may be unwanted; the borrow of the arena names those that are.
    match (*y, *h, *c) {
        (Some(y), Some(h), Some(c)) => {
            let (reads, [y, h, c], scratch, _) = bench.open([y, h, c]);
            run(kind, &reads, items, y_per_item, scratch, [Some(y), Some(h), Some(c)]);
        }
        (Some(y), Some(h), None) => {
            let (reads, [y, h], scratch, _) = bench.open([y, h]);
            run(kind, &reads, items, y_per_item, scratch, [Some(y), Some(h), None]);
        }
        (Some(y), None, Some(c)) => {
            let (reads, [y, c], scratch, _) = bench.open([y, c]);
            run(kind, &reads, items, y_per_item, scratch, [Some(y), None, Some(c)]);
        }
        (Some(y), None, None) => {
            let (reads, [y], scratch, _) = bench.open([y]);
            run(kind, &reads, items, y_per_item, scratch, [Some(y), None, None]);
        }
        (None, Some(h), Some(c)) => {
            let (reads, [h, c], scratch, _) = bench.open([h, c]);
            run(kind, &reads, items, y_per_item, scratch, [None, Some(h), Some(c)]);
        }
        (None, Some(h), None) => {
            let (reads, [h], scratch, _) = bench.open([h]);
            run(kind, &reads, items, y_per_item, scratch, [None, Some(h), None]);
        }
        (None, None, Some(c)) => {
            let (reads, [c], scratch, _) = bench.open([c]);
            run(kind, &reads, items, y_per_item, scratch, [None, None, Some(c)]);
        }
        (None, None, None) => {}
    }
}

fn run(
    kind: &StepKind,
    reads: &Reads<'_>,
    items: usize,
    y_per_item: usize,
    scratch: &mut Scratch,
    outs: [Option<&mut [u64]>; 3],
) {
    let StepKind::Lstm { shape, x, w, r, bias, h0, c0, y_offset, y_stride, .. } = kind else { return };
    let (hidden, time) = (shape.hidden, shape.time);
    let gates = 4 * hidden;
    let [mut y, mut h, mut c] = outs.map(|out| out.map(bytemuck::cast_slice_mut::<u64, f32>));
    let (w, r) = (reads.weight(*w), reads.weight(*r));
    let source = reads.source::<f32>(x.operand);
    let x_stride = x.strides[0].unsigned_abs();
    let plain = Finish {
        bias: bias.map(|bias| reads.weight(bias)),
        residual: None,
        activation: Activation::Identity,
    };
    for item in 0..items {
        let x = &source.at(item)[x.offset..];
        scratch.a.resize(time * gates, 0.0);
        Product {
            x,
            x_stride,
            rows: time,
            k: shape.input,
            panels: w,
            n: gates,
            out: &mut scratch.a,
            out_stride: gates,
            out_first: 0,
            finish: plain,
        }
        .run();
        let state = |of: &Option<tessera_planner::plan::Operand>, to: &mut Vec<f32>| {
            to.clear();
            match of {
                Some(operand) => to.extend_from_slice(&reads.source::<f32>(*operand).at(item)[..hidden]),
                None => to.resize(hidden, 0.0),
            }
        };
        let (mut hidden_state, cell) = (Vec::with_capacity(hidden), &mut scratch.c);
        state(h0, &mut hidden_state);
        state(c0, cell);
        scratch.b.resize(gates, 0.0);
        for step in 0..time {
            let t = if shape.reverse { time - 1 - step } else { step };
            let input = &scratch.a[t * gates..(t + 1) * gates];
            let finish = Finish { bias: None, residual: Some(input), activation: Activation::Identity };
            Product {
                x: &hidden_state,
                x_stride: hidden,
                rows: 1,
                k: hidden,
                panels: r,
                n: gates,
                out: &mut scratch.b,
                out_stride: gates,
                out_first: 0,
                finish,
            }
            .run();
            let (i, rest) = scratch.b.split_at(hidden);
            let (o, rest) = rest.split_at(hidden);
            let (f, g) = rest.split_at(hidden);
            for n in 0..hidden {
                cell[n] = sigmoid(f[n]) * cell[n] + sigmoid(i[n]) * g[n].tanh();
                hidden_state[n] = sigmoid(o[n]) * cell[n].tanh();
            }
            if let Some(y) = &mut y {
                let at = item * y_per_item + y_offset + t * y_stride;
                y[at..at + hidden].copy_from_slice(&hidden_state);
            }
        }
        for (out, state) in [(&mut h, &hidden_state), (&mut c, cell)] {
            if let Some(out) = out {
                out[item * hidden..(item + 1) * hidden].copy_from_slice(state);
            }
        }
    }
}
