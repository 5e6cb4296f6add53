#!/usr/bin/env python3
"""Writes fixtures/recurrent-*.onnx and .npz: recurrent layers with what PyTorch never exports, and onnxruntime's answers.

ONNX's own tests leave clip, coupled gates, functions with parameters and both resets of a GRU without an answer, so these come from a peer.
Needs: numpy, onnx 1.23 and onnxruntime 1.23. The batch is free.
"""
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

TIME, BATCH, INPUT, HIDDEN = 5, 3, 4, 6
FOLDER = pathlib.Path(__file__).parent.parent / "fixtures"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

# name, operator, directions, attributes, has peepholes
CASES = [
    ("lstm-clip", "LSTM", 1, dict(clip=0.4), False),
    ("lstm-coupled", "LSTM", 1, dict(input_forget=1, direction="reverse"), False),
    ("lstm-peephole", "LSTM", 2, dict(direction="bidirectional", clip=0.7), True),
    ("lstm-functions", "LSTM", 2, dict(direction="bidirectional",
        activations=["HardSigmoid", "ScaledTanh", "Affine", "Sigmoid", "Softsign", "LeakyRelu"],
        activation_alpha=[0.3, 1.3, 0.9, 0.05], activation_beta=[0.4, 0.7, 0.1]), False),
    ("gru-reset-first", "GRU", 2, dict(direction="bidirectional", linear_before_reset=0), False),
    ("gru-reset-after", "GRU", 2, dict(direction="bidirectional", linear_before_reset=1, clip=0.5), False),
    ("gru-functions", "GRU", 1, dict(linear_before_reset=0, activations=["HardSigmoid", "Softsign"]), False),
    ("rnn-functions", "RNN", 2, dict(direction="bidirectional", activations=["Affine", "ThresholdedRelu"],
        activation_alpha=[0.5, 0.1], activation_beta=[0.2]), False),
]


def case(name, operator, directions, attributes, peephole, random):
    gates = GATES[operator] * HIDDEN
    weight = lambda *dims: random.uniform(-0.7, 0.7, dims).astype(np.float32)
    initializers = {
        "w": weight(directions, gates, INPUT),
        "r": weight(directions, gates, HIDDEN),
        "b": weight(directions, 2 * gates),
    }
    inputs = ["x_by_time", "w", "r", "b", "lengths", "h0_by_direction"]
    if peephole:
        initializers["p"] = weight(directions, 3 * HIDDEN)
        inputs += ["", "p"]
    outputs = ["y_by_time", "h_by_direction"] + (["c_by_direction"] if operator == "LSTM" else [])
    turn = lambda what, to, perm: helper.make_node("Transpose", [what], [to], perm=perm)
    nodes = [
        turn("x", "x_by_time", [1, 0, 2]),
        turn("h0", "h0_by_direction", [1, 0, 2]),
        helper.make_node(operator, inputs, outputs, name="layer", hidden_size=HIDDEN, **attributes),
        turn("y_by_time", "y", [2, 0, 1, 3]),
        *(turn(f"{state}_by_direction", state, [1, 0, 2]) for state in ["h", "c"][: len(outputs) - 1]),
    ]
    of = lambda name, dims, dtype=TensorProto.FLOAT: helper.make_tensor_value_info(name, dtype, dims)
    graph = helper.make_graph(
        nodes,
        name,
        [of("x", ["batch", TIME, INPUT]), of("lengths", ["batch"], TensorProto.INT32), of("h0", ["batch", directions, HIDDEN])],
        [of("y", ["batch", TIME, directions, HIDDEN])]
        + [of(state, ["batch", directions, HIDDEN]) for state in ["h", "c"][: len(outputs) - 1]],
        [numpy_helper.from_array(value, key) for key, value in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    question = {
        "x": random.uniform(-2, 2, (BATCH, TIME, INPUT)).astype(np.float32),
        "lengths": np.array([TIME, 2, 4], dtype=np.int32),
        "h0": random.uniform(-1, 1, (BATCH, directions, HIDDEN)).astype(np.float32),
    }
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answer = dict(zip(names, session.run(names, question)))
    onnx.save(model, FOLDER / f"recurrent-{name}.onnx")
    arrays = {f"in.{key}": value for key, value in question.items()} | {f"out.{key}": value for key, value in answer.items()}
    np.savez(FOLDER / f"recurrent-{name}.npz", **arrays)


for number, row in enumerate(CASES):
    case(*row, np.random.default_rng(number))
