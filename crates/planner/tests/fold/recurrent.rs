//! Recurrent layers: weights turned, biases summed, directions side by side.

use super::{folded, layer, lines, lstm};
use crate::support::Builder;
use tessera_core::DType;
use tessera_planner::graph::ParamData;
use tessera_planner::op::{CellKind, Direction};
use tessera_planner::tensor::Tensor;

#[test]
fn an_lstm_has_its_weights_turned_and_its_biases_summed() {
    let mut b = Builder::default();
    let x = b.input("x", &[5, 1, 3]);
    let w = [b.weight("w", &[1, 8, 3]), b.weight("r", &[1, 8, 2]), b.weight("b", &[1, 16])];
    let op = lstm(2, Direction::Reverse);
    let y = b.node(op, &[x, w[0], w[1], w[2]], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y = LSTM[Reverse](x, w0, w1, w2)
             w0 matrix [3, 8] = Transpose(Reshape(w, [8, 3]))
             w1 matrix [2, 8] = Transpose(Reshape(r, [8, 2]))
             w2 plain [8] = Add(Slice(Reshape(b, [16]), [0], [8], [0]), Slice(Reshape(b, [16]), [8], [16], [0]))"
        )
    );
}

#[test]
fn two_directions_are_two_layers_side_by_side() {
    let mut b = Builder::default();
    let (x, h0) = (b.input("x", &[5, 1, 3]), b.input("h0", &[2, 1, 2]));
    let (w, r) = (b.weight("w", &[2, 8, 3]), b.weight("r", &[2, 8, 2]));
    let op = lstm(2, Direction::Bidirectional);
    let inputs = [Some(x), Some(w), Some(r), None, None, Some(h0)];
    let outputs = b.optional(op, &inputs, &["y", "h"]);
    b.output(outputs[0]);
    assert_eq!(
        folded(b, outputs[1]),
        lines(
            "h0.0, h0.1 = Split(h0, sizes)
             y.0, h.0 = LSTM[Forward](x, w0, w1, -, -, h0.0)
             y.1, h.1 = LSTM[Reverse](x, w2, w3, -, -, h0.1)
             y = Concat[1](y.0, y.1)
             h = Concat[0](h.0, h.1)
             w0 matrix [3, 8] = Transpose(Reshape(Slice(w, [0], [1], [0]), [8, 3]))
             w1 matrix [2, 8] = Transpose(Reshape(Slice(r, [0], [1], [0]), [8, 2]))
             w2 matrix [3, 8] = Transpose(Reshape(Slice(w, [1], [2], [0]), [8, 3]))
             w3 matrix [2, 8] = Transpose(Reshape(Slice(r, [1], [2], [0]), [8, 2]))"
        )
    );
}

#[test]
fn lengths_are_passed_on_and_peepholes_are_weights() {
    let mut b = Builder::default();
    let lengths = ParamData::Literal(Tensor::from_elements(&[1], &[3i32]));
    let (x, lengths) = (b.input("x", &[5, 1, 3]), b.param("lengths", DType::I32, &[1], lengths));
    let (w, r, p) = (b.weight("w", &[1, 8, 3]), b.weight("r", &[1, 8, 2]), b.weight("p", &[1, 6]));
    let inputs = [Some(x), Some(w), Some(r), None, Some(lengths), None, None, Some(p)];
    let outputs = b.optional(lstm(2, Direction::Forward), &inputs, &["y"]);
    assert_eq!(
        folded(b, outputs[0]),
        lines(
            "y = LSTM[Forward](x, w0, w1, -, lengths, -, -, w2)
             w0 matrix [3, 8] = Transpose(Reshape(w, [8, 3]))
             w1 matrix [2, 8] = Transpose(Reshape(r, [8, 2]))
             w2 plain [6] = Reshape(p, [6])"
        )
    );
}

#[test]
fn a_gru_keeps_apart_what_its_reset_stands_between() {
    for (linear_before_reset, expected) in [
        (
            false,
            "y = GRU[Forward](x, w0, w1, w2, -, -, -, -, w3)
             w0 matrix [3, 6] = Transpose(Reshape(w, [6, 3]))
             w1 matrix [2, 4] = Slice(Transpose(Reshape(r, [6, 2])), [0], [4], [1])
             w2 plain [6] = Add(Slice(Reshape(b, [12]), [0], [6], [0]), Slice(Reshape(b, [12]), [6], [12], [0]))
             w3 matrix [2, 2] = Slice(Transpose(Reshape(r, [6, 2])), [4], [6], [1])",
        ),
        (
            true,
            "y = GRU[Forward](x, w0, w1, w2)
             w0 matrix [3, 6] = Transpose(Reshape(w, [6, 3]))
             w1 matrix [2, 6] = Transpose(Reshape(r, [6, 2]))
             w2 plain [8] = Concat[0](Add(Slice(Reshape(b, [12]), [0], [4], [0]), Slice(Reshape(b, [12]), [6], [10], [0])), \
             Slice(Reshape(b, [12]), [4], [6], [0]), Slice(Reshape(b, [12]), [10], [12], [0]))",
        ),
    ] {
        let mut b = Builder::default();
        let x = b.input("x", &[5, 1, 3]);
        let w = [b.weight("w", &[1, 6, 3]), b.weight("r", &[1, 6, 2]), b.weight("b", &[1, 12])];
        let op = layer(CellKind::Gru { linear_before_reset }, 2, Direction::Forward);
        let y = b.node(op, &[x, w[0], w[1], w[2]], "y");
        assert_eq!(folded(b, y), lines(expected));
    }
}
