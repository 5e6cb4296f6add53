//! Recurrent networks as torch exports them: `torch.nn.LSTM` or `torch.nn.GRU` over a series, then a linear layer of its last state.

use super::network::{Network, PLAIN, Value};
use super::scale::Scale;
use super::{Size, wide};
use crate::onnx_writer::{Attribute, Range};

/// Width of input, state and answer.
const WIDTH: usize = 512;

/// Which cell.
#[derive(Clone, Copy)]
pub(super) enum Layer {
    Lstm,
    Gru,
}

impl Layer {
    /// The operator, its gates, and the attributes that torch writes.
    fn spelled(self) -> (&'static str, usize, &'static [(&'static str, Attribute<'static>)]) {
        match self {
            Layer::Lstm => ("LSTM", 4, &[]),
            Layer::Gru => ("GRU", 3, &[("linear_before_reset", Attribute::Int(1))]),
        }
    }
}

/// Parameters: `layers·gates·(2·512² + 2·512)`, and 512² + 512 of the linear layer.
pub(super) fn build(net: &mut Network, size: &Size, kind: Layer, layers: usize) {
    let (operator, gates, attributes) = kind.spelled();
    let (steps, width) = (size.length, wide(WIDTH, size));
    let x = net.input("series", &[steps, width]);
    let time_first = [("perm", Attribute::Ints(&[1, 0, 2]))];
    let mut y = net.onnx.named("rnn/Transpose", "Transpose", &[&x.name], &time_first);
    let one = net.integers("one_axis", &[1]);
    // What torch starts with: all of a layer's weights within 1/√hidden.
    let range = Range { centre: 0.0, bound: 1.0 / (width as f32).sqrt() };
    for layer in 0..layers {
        let input = net.onnx.weight(&format!("rnn.weight_ih_l{layer}"), &[1, gates * width, width], range);
        let recurrent =
            net.onnx.weight(&format!("rnn.weight_hh_l{layer}"), &[1, gates * width, width], range);
        let bias = net.onnx.weight(&format!("rnn.bias_l{layer}"), &[1, 2 * gates * width], range);
        let name = format!("rnn.{layer}");
        let hidden = ("hidden_size", Attribute::Int(width as i64));
        let attributes: Vec<_> = std::iter::once(hidden).chain(attributes.iter().cloned()).collect();
        let weights: [&str; 4] = [&y, &input, &recurrent, &bias];
        let states = net.onnx.named(&format!("{name}/{operator}"), operator, &weights, &attributes);
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
