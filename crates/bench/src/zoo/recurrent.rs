//! LSTMs as torch exports them: `torch.nn.LSTM` over a series, then a linear layer of its last state.

use super::network::{Network, PLAIN, Value};
use super::scale::Scale;
use super::{Size, wide};
use crate::onnx_writer::{Attribute, Range};

/// Width of input, state and answer.
const WIDTH: usize = 512;

pub(super) fn lstm(net: &mut Network, size: &Size, layers: usize) {
    let (steps, width) = (size.length, wide(WIDTH, size));
    let x = net.input("series", &[steps, width]);
    let time_first = [("perm", Attribute::Ints(&[1, 0, 2]))];
    let mut y = net.onnx.named("rnn/Transpose", "Transpose", &[&x.name], &time_first);
    let one = net.integers("one_axis", &[1]);
    // What torch starts with: all of a layer's weights within 1/√hidden.
    let range = Range { centre: 0.0, bound: 1.0 / (width as f32).sqrt() };
    for layer in 0..layers {
        let input = net.onnx.weight(&format!("rnn.weight_ih_l{layer}"), &[1, 4 * width, width], range);
        let recurrent = net.onnx.weight(&format!("rnn.weight_hh_l{layer}"), &[1, 4 * width, width], range);
        let bias = net.onnx.weight(&format!("rnn.bias_l{layer}"), &[1, 8 * width], range);
        let name = format!("rnn.{layer}");
        let states = net.onnx.named(
            &format!("{name}/LSTM"),
            "LSTM",
            &[&y, &input, &recurrent, &bias],
            &[("hidden_size", Attribute::Int(width as i64))],
        );
        // One direction: [time, 1, batch, hidden].
        y = net.onnx.named(&format!("{name}/Squeeze"), "Squeeze", &[&states, &one], &[]);
    }
    let y = net.onnx.named("rnn/Transpose_1", "Transpose", &[&y], &time_first);
    let last = net.onnx.integers("last", &[], &[-1]);
    let last = net.onnx.named("last_state", "Gather", &[&y, &last], &[("axis", Attribute::Int(1))]);
    // Gates of small weights stay half open: states of about a tenth.
    let last = Value { name: last, dims: vec![width], scale: Scale::around_zero(0.01) };
    let x = net.linear("head", &last, width, PLAIN);
    net.output("output", &x);
}
