#!/usr/bin/env python3
"""Writes fixtures/onnx_nodes/cases.bin: ONNX's own backend tests of the operators that Tessera knows.

    python scripts/make-node-tests.py            (needs the PyPI packages onnx, numpy and ml_dtypes; no test needs Python)

Taken: every case of `onnx.backend.test.case.node` whose model uses operators of OPERATORS only, function bodies
(`…_expanded`) included, and cases that must be refused, too. Left out, by rule: cases whose data is larger than LARGEST.

Each case has up to three models of one meaning:
  exported   inputs that exporters write as initializers (PARAMETERS) are initializers; the others stay inputs
  given      as ONNX gives it: everything is an input. Present only where it differs from `exported`
  batched    as `exported`, axis 0 of every input free under one name. Present where all inputs agree on its length

A model of an opset below 9 is stated as opset 9 where none of its operators changed in between.

Layout, little endian: magic, u32 number of cases, cases, blobs. Offsets count from the first blob; equal blobs are one.
  case    text name, f32 rtol, f32 atol, 3 × blob (length 0: absent), u16 inputs: (text name, tensor), u16 outputs: tensor
  tensor  u8 type (place in TYPES; 255: a type that Tessera has not, without data), u8 rank, u32 dims, u32 offset
  blob    u32 offset, u32 length           text    u16 length, UTF-8
"""

import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

warnings.simplefilter("ignore")
from onnx.backend.test.case.node import collect_testcases  # noqa: E402

LARGEST = 150_000
MAGIC = b"tessera nodes 1\n"

OPERATORS = set(
    """Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape
    Conv ConvTranspose Cos CumSum DepthToSpace Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization
    HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow
    RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize RMSNormalization RotaryEmbedding Round ScatterElements ScatterND Selu Shape
    Sigmoid Sign Sin Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Where Xor""".split()
)

# Inputs that a real export holds as initializers: weights, and what fixes shapes.
PARAMETERS = {
    "BatchNormalization": [1, 2, 3, 4],
    "Clip": [1, 2],
    "ConstantOfShape": [0],
    "Conv": [1, 2],
    "ConvTranspose": [1, 2],
    "CumSum": [1],
    "Dropout": [1, 2],
    "Expand": [1],
    "GRU": [1, 2, 3],
    "Gemm": [1, 2],
    "GroupNormalization": [1, 2],
    "InstanceNormalization": [1, 2],
    "LSTM": [1, 2, 3, 7],
    "LayerNormalization": [1, 2],
    "OneHot": [1, 2],
    "PRelu": [1],
    "Pad": [1, 2, 3],
    "RMSNormalization": [1],
    "RNN": [1, 2, 3],
    "Range": [0, 1, 2],
    "Reshape": [1],
    "Resize": [1, 2, 3],
    "Slice": [1, 2, 3, 4],
    "Split": [1],
    "Squeeze": [1],
    "Tile": [1],
    "TopK": [1],
    "Trilu": [1],
    "Unsqueeze": [1],
} | {op: [1] for op in OPERATORS if op.startswith("Reduce")}

# As Tessera's `DType::ALL`.
TYPES = [
    TensorProto.BOOL,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
]


def own(node):
    return node.domain in ("", "ai.onnx")


def selected(case):
    nodes = case.model.graph.node
    return all(own(node) and node.op_type in OPERATORS for node in nodes)


def as_proto(value):
    """A TensorProto, or None for what is no tensor."""
    if isinstance(value, TensorProto):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        return numpy_helper.from_array(np.asarray(value))
    return None


def raised(model):
    """The model stated as opset 9 where it is older and that changes nothing."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx") or opset.version >= 9:
            continue
        schemas = [onnx.defs.get_schema(node.op_type, 9) for node in model.graph.node]
        if all(schema.since_version <= opset.version for schema in schemas):
            opset.version = 9
    return model


def exported(model, tensors):
    """The model with its parameters as initializers."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    names = set()
    for node in model.graph.node:
        for index in PARAMETERS.get(node.op_type, []):
            if index < len(node.input):
                names.add(node.input[index])
    kept = []
    for info in model.graph.input:
        proto = tensors.get(info.name)
        if info.name in names and proto is not None:
            held = model.graph.initializer.add()
            held.CopyFrom(proto)
            held.name = info.name
        else:
            kept.append(info)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def batched(model, tensors):
    """The model with the length of axis 0 left to the request, or None."""
    lengths = set()
    for info in model.graph.input:
        proto = tensors.get(info.name)
        if proto is None or not proto.dims:
            return None
        lengths.add(proto.dims[0])
    if len(lengths) != 1 or lengths <= {0}:
        return None
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for info in model.graph.input:
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return model


class Archive:
    def __init__(self):
        self.places, self.blobs, self.size = {}, [], 0

    def place(self, data):
        if data not in self.places:
            self.places[data] = self.size
            self.blobs.append(data)
            self.size += len(data)
        return self.places[data]

    def blob(self, data):
        return struct.pack("<II", self.place(data) if data else 0, len(data))

    def tensor(self, proto):
        if proto is None or proto.data_type not in TYPES:
            return struct.pack("<BBI", 255, 0, 0)
        data = numpy_helper.to_array(proto).tobytes()
        head = struct.pack("<BB", TYPES.index(proto.data_type), len(proto.dims))
        return head + struct.pack(f"<{len(proto.dims)}II", *proto.dims, self.place(data))


def text(string):
    data = string.encode()
    return struct.pack("<H", len(data)) + data


def main():
    archive, cases, left_out = Archive(), [], []
    for case in sorted(collect_testcases(None), key=lambda case: case.name):
        if case.model is None or not selected(case):
            continue
        (inputs, outputs), = case.data_sets
        names = [info.name for info in case.model.graph.input]
        tensors = {name: as_proto(value) for name, value in zip(names, inputs, strict=True)}
        answers = [as_proto(value) for value in outputs]
        data = [proto for proto in [*tensors.values(), *answers] if proto is not None]
        if sum(proto.ByteSize() for proto in data) > LARGEST:
            left_out.append(case.name)
            continue
        given = raised(case.model)
        model = exported(given, tensors)
        other = batched(model, tensors)
        models = [model, given if given != model else None, other]
        head = text(case.name.removeprefix("test_")) + struct.pack("<ff", case.rtol, case.atol)
        head += b"".join(archive.blob(m.SerializeToString(deterministic=True) if m else b"") for m in models)
        head += struct.pack("<H", len(tensors))
        head += b"".join(text(name) + archive.tensor(proto) for name, proto in tensors.items())
        head += struct.pack("<H", len(answers)) + b"".join(archive.tensor(proto) for proto in answers)
        cases.append(head)
    path = Path(__file__).parent.parent / "fixtures/onnx_nodes/cases.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(MAGIC + struct.pack("<I", len(cases)) + b"".join(cases) + b"".join(archive.blobs))
    print(f"onnx {onnx.__version__}: {len(cases)} cases, {path.stat().st_size} bytes; larger than {LARGEST}: {left_out}")


if __name__ == "__main__":
    sys.exit(main())
