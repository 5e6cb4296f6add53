#!/usr/bin/env python3
"""How far Tessera's answers and PyTorch's own are from the exact ones, in one precision: is Tessera no worse than 1.5 times PyTorch?

    python3 bench/precision.py --device cuda:0 --precision bf16,fp16 [--models resnet-50,bert-base] [--json FILE]

Each model of `tessera zoo` is written once, with seeded weights. Then
  exact     the graph in float64, by PyTorch
  torch     the same graph in the precision, by PyTorch: weights and inputs rounded to it, attention and GELU as its fused operators; beside
            it with every BatchNorm folded into the convolution before it, and the better of the two counts
  tessera   a server of that precision, asked over HTTP
Errors are relative L2, over all items together. Exit status 1 when Tessera's is more than LIMIT times PyTorch's anywhere.
TESSERA_BIN is the binary (default target/release/tessera). Needs numpy and PyTorch.
"""
import argparse, json, math, os, re, struct, subprocess, sys, tempfile, time, urllib.request
from dataclasses import dataclass, field
import numpy as np
import torch
import torch.nn.functional as F

LIMIT = 1.5
TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# What is measured by default: model, its flags, items.
MODELS = {"resnet-50": [], "resnet-18": [], "mobilenet-v2": [], "bert-base": [], "lstm": [], "gru": [], "vit-ti": []}


# ONNX is protobuf: a message is fields, a field a number, a kind and a value.
def fields(message):
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 2: varint() if kind == 2 else 0, 5: 4}[kind]
            value = message[at:at + size]
            at += size
        yield number, kind, value


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def integers(kind, value):
    if kind == 0:
        return [signed(value)]
    # Packed: as a message whose keys are values is read, one varint after the other.
    found, current, shift = [], 0, 0
    for byte in value:
        current |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(signed(current))
            current = shift = 0
    return found


def tensor(message):
    dims, dtype, name, raw, floats, longs = [], 1, "", None, [], []
    for number, kind, value in fields(message):
        if number == 1:
            dims += integers(kind, value)
        elif number == 2:
            dtype = value
        elif number == 4:
            floats += np.frombuffer(value, "<f4").tolist()
        elif number == 7:
            longs += integers(kind, value)
        elif number == 8:
            name = value.tobytes().decode()
        elif number == 9:
            raw = value
    numpy_type = {1: "<f4", 7: "<i8", 6: "<i4"}[dtype]
    array = np.frombuffer(raw, numpy_type) if raw is not None else np.array(floats or longs, numpy_type)
    return name, torch.from_numpy(array.reshape(dims).copy())


def attribute(message):
    name, value, ints = "", None, []
    for number, kind, found in fields(message):
        if number == 1:
            name = found.tobytes().decode()
        elif number == 2:
            value = struct.unpack("<f", found)[0]
        elif number == 3:
            value = signed(found)
        elif number == 4:
            value = found.tobytes().decode()
        elif number == 5:
            value = tensor(found)[1]
        elif number == 8:
            ints += integers(kind, found)
    return name, ints if value is None else value


@dataclass
class Node:
    op: str = ""
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    attributes: dict = field(default_factory=dict)


@dataclass
class Graph:
    nodes: list
    weights: dict
    inputs: list  # (name, ONNX type, dims, 0 where free)
    outputs: list


def declared(message):
    name, dtype, dims = "", 1, []
    for number, _, value in fields(message):
        if number == 1:
            name = value.tobytes().decode()
        elif number == 2:
            of_tensor = next(v for n, _, v in fields(value) if n == 1)
            for n, _, v in fields(of_tensor):
                if n == 1:
                    dtype = v
                elif n == 2:
                    dims = [next((d for k, _, d in fields(dim) if k == 1), 0) for _, _, dim in fields(v)]
    return name, dtype, dims


def load(path):
    with open(path, "rb") as file:
        model = memoryview(file.read())
    graph = Graph([], {}, [], [])
    for number, _, value in fields(next(value for number, _, value in fields(model) if number == 7)):
        if number == 1:
            node = Node()
            for n, _, v in fields(value):
                if n in (1, 2):
                    (node.inputs if n == 1 else node.outputs).append(v.tobytes().decode())
                elif n == 4:
                    node.op = v.tobytes().decode()
                elif n == 5:
                    name, found = attribute(v)
                    node.attributes[name] = found
            graph.nodes.append(node)
        elif number == 5:
            name, found = tensor(value)
            graph.weights[name] = found
        elif number in (11, 12):
            (graph.inputs if number == 11 else graph.outputs).append(declared(value))
    graph.inputs = [port for port in graph.inputs if port[0] not in graph.weights]
    return graph


# Where PyTorch has one operator for what exporters spell in several, it is the one that a user runs.
def fused(graph):
    made = {output: node for node in graph.nodes for output in node.outputs}
    readers = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)

    def only_reader(name, op):
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and found[0].op == op else None

    gone, put = set(), {}
    for node in graph.nodes:
        if node.op == "Erf":  # Div, Erf, Add, Mul, Mul
            x = made[node.inputs[0]].inputs[0]
            add = only_reader(node.outputs[0], "Add")
            product = add and only_reader(add.outputs[0], "Mul")
            last = product and only_reader(product.outputs[0], "Mul")
            if last and x in product.inputs:
                gone |= {id(n) for n in (made[node.inputs[0]], node, add, product)}
                put[id(last)] = Node("Gelu", [x], last.outputs)
        if node.op == "Softmax":  # MatMul, Div, Softmax, MatMul
            scale = made.get(node.inputs[0])
            scores = scale and scale.op == "Div" and made.get(scale.inputs[0])
            mixed = only_reader(node.outputs[0], "MatMul")
            if scores and scores.op == "MatMul" and mixed:
                gone |= {id(n) for n in (scores, scale, node)}
                put[id(mixed)] = Node("Attention", scores.inputs + [mixed.inputs[1], scale.inputs[1]], mixed.outputs)
    return Graph([put.get(id(n), n) for n in graph.nodes if id(n) not in gone], graph.weights, graph.inputs, graph.outputs)


def folded(graph):
    """Every BatchNorm that follows a convolution becomes part of it, in float64."""
    made = {node.outputs[0]: node for node in graph.nodes}
    nodes, weights = [], dict(graph.weights)
    for node in graph.nodes:
        conv = made.get(node.inputs[0]) if node.op == "BatchNormalization" else None
        if conv is None or conv.op != "Conv":
            nodes.append(node)
            continue
        gamma, beta, mean, variance = (weights[name].double() for name in node.inputs[1:])
        factor = gamma / torch.sqrt(variance + node.attributes["epsilon"])
        w = weights[conv.inputs[1]].double()
        bias = weights[conv.inputs[2]].double() if len(conv.inputs) > 2 else torch.zeros(len(w), dtype=torch.float64)
        names = [f"{node.outputs[0]}/{part}" for part in ("weight", "bias")]
        weights[names[0]] = w * factor.reshape(-1, *[1] * (w.dim() - 1))
        weights[names[1]] = (bias - mean) * factor + beta
        nodes.remove(conv)
        nodes.append(Node("Conv", [conv.inputs[0], *names], node.outputs, conv.attributes))
    return Graph(nodes, weights, graph.inputs, graph.outputs)


def recurrent(node, x, w, r, bias):
    """torch.nn.LSTM and GRU, whose gates are in another order than ONNX's."""
    gates, hidden = {"LSTM": (4, [0, 2, 3, 1]), "GRU": (3, [1, 0, 2])}[node.op], node.attributes["hidden_size"]
    count, order = gates
    rows = lambda t: torch.cat([t.split(hidden)[gate] for gate in order])
    made = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}[node.op](x.shape[-1], hidden, device=x.device, dtype=x.dtype)
    halves = bias[0].split(count * hidden)
    for name, value in [("weight_ih_l0", w[0]), ("weight_hh_l0", r[0]), ("bias_ih_l0", halves[0]), ("bias_hh_l0", halves[1])]:
        getattr(made, name).data.copy_(rows(value))
    made.flatten_parameters()
    return made(x)[0].unsqueeze(1)


def pooled(x, node, pool, **more):
    a = node.attributes
    return pool(x, a["kernel_shape"], a["strides"], a.get("pads", [0, 0])[:2], ceil_mode=bool(a.get("ceil_mode", 0)), **more)


def gathered(table, ids, axis):
    shape = table.shape[:axis] + ids.shape + table.shape[axis + 1:]
    return table.index_select(axis, ids.reshape(-1) % table.shape[axis]).reshape(shape)


def reshaped(x, shape):
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())])


OPERATORS = {
    "Identity": lambda n, x: x,
    "Relu": lambda n, x: F.relu(x),
    "Clip": lambda n, x, low, high: x.clamp(low.item(), high.item()),
    "Sigmoid": lambda n, x: torch.sigmoid(x),
    "Tanh": lambda n, x: torch.tanh(x),
    "Add": lambda n, a, b: a + b,
    "Mul": lambda n, a, b: a * b,
    "Div": lambda n, a, b: a / b,
    "MatMul": lambda n, a, b: a @ b,
    "Gelu": lambda n, x: F.gelu(x),
    "Attention": lambda n, q, k, v, root: F.scaled_dot_product_attention(q, k.mT, v, scale=1 / root.item()),
    "Softmax": lambda n, x: F.softmax(x, n.attributes.get("axis", -1)),
    "Gemm": lambda n, x, w, b: F.linear(x, w if n.attributes.get("transB") else w.mT, b),
    "Conv": lambda n, x, w, b=None: F.conv2d(x, w, b, n.attributes["strides"], n.attributes["pads"][:2], n.attributes["dilations"], n.attributes["group"]),
    "BatchNormalization": lambda n, x, g, b, m, v: F.batch_norm(x, m, v, g, b, eps=n.attributes["epsilon"]),
    "LayerNormalization": lambda n, x, g, b: F.layer_norm(x, g.shape, g, b, n.attributes["epsilon"]),
    "MaxPool": lambda n, x: pooled(x, n, F.max_pool2d),
    "AveragePool": lambda n, x: pooled(x, n, F.avg_pool2d, count_include_pad=False),
    "GlobalAveragePool": lambda n, x: x.mean((2, 3), keepdim=True),
    "Flatten": lambda n, x: x.flatten(n.attributes["axis"]),
    "Concat": lambda n, *x: torch.cat(x, n.attributes["axis"]),
    "Transpose": lambda n, x: x.permute(n.attributes["perm"]),
    "Reshape": lambda n, x, shape: reshaped(x, shape),
    "Expand": lambda n, x, shape: x.expand(torch.broadcast_shapes(x.shape, shape.tolist())),
    "Shape": lambda n, x: torch.tensor(x.shape, device=x.device),
    "Squeeze": lambda n, x, axes: x.squeeze(tuple(axes.tolist())),
    "Unsqueeze": lambda n, x, axes: x.unsqueeze(axes.item()),
    "Gather": lambda n, table, ids: gathered(table, ids, n.attributes.get("axis", 0)),
    "LSTM": recurrent,
    "GRU": recurrent,
}


@torch.no_grad()
def run(graph, inputs, dtype, device):
    to = lambda t: t.to(device, dtype) if t.is_floating_point() else t.to(device)
    values = {name: to(value) for name, value in (graph.weights | inputs).items()}
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    wanted = [name for name, *_ in graph.outputs]
    for index, node in enumerate(graph.nodes):
        try:
            operator = OPERATORS[node.op]
        except KeyError:
            sys.exit(f"no {node.op} here; add it to OPERATORS")
        values[node.outputs[0]] = operator(node, *(values[name] for name in node.inputs if name))
        for name in node.inputs:
            if last[name] == index and name not in wanted:
                values.pop(name, None)
    return [values[name].double().cpu() for name in wanted]


def drawn(graph, items, seed):
    random = np.random.default_rng(seed)
    made = {}
    for name, dtype, dims in graph.inputs:
        shape = [items, *dims[1:]]
        array = random.integers(0, 1000, shape) if dtype == 7 else random.uniform(-3 ** 0.5, 3 ** 0.5, shape).astype("f4")
        made[name] = torch.from_numpy(array)
    return made


class Server:
    """`tessera serve` over a folder of models, ready when this is entered."""

    def __init__(self, folder, device, precision):
        binary = os.environ.get("TESSERA_BIN", "target/release/tessera")
        flags = ["--model-repository", folder, "--device", device, "--precision", precision, "--http-port", "0", "--metrics-port", "0"]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([binary, "serve", *flags], stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http on (http://\S+)", line)
        if not found:
            self.fail(f"the server said {line!r}")
        self.url = found[1]

    def fail(self, why):
        self.process.kill()
        self.log.seek(0)
        sys.exit(f"{why}\n{self.log.read()[-4000:]}")

    def __enter__(self):
        until = time.time() + 300
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/v2/health/ready").close()
                return self
            except OSError as error:
                if time.time() > until or self.process.poll() is not None:
                    self.fail(f"the server is not ready: {error}")
                time.sleep(0.2)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, model, inputs, outputs):
        names = {torch.int64: "INT64", torch.float32: "FP32"}
        tensors = [{"name": n, "shape": list(t.shape), "datatype": names[t.dtype], "data": t.reshape(-1).tolist()} for n, t in inputs.items()]
        request = urllib.request.Request(f"{self.url}/v2/models/{model}/infer", json.dumps({"inputs": tensors}).encode(), {"Content-Type": "application/json"})
        try:
            answer = json.load(urllib.request.urlopen(request))
        except urllib.error.HTTPError as error:
            self.fail(f"{model}: {error.read().decode()}")
        by_name = {t["name"]: torch.tensor(t["data"], dtype=torch.float64).reshape(t["shape"]) for t in answer["outputs"]}
        return [by_name[name] for name, *_ in outputs]


def error(exact, got):
    flat = lambda tensors: torch.cat([t.reshape(-1) for t in tensors])
    return (torch.linalg.norm(flat(exact) - flat(got)) / torch.linalg.norm(flat(exact))).item()


def main():
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--device", default="cuda:0", help="Tessera's device; PyTorch takes the same card, or the CPU")
    said.add_argument("--precision", default="bf16,fp16")
    said.add_argument("--models", default=",".join(MODELS))
    said.add_argument("--items", type=int, default=4)
    said.add_argument("--size", default="", help="flags for `tessera zoo`, such as `--width 0.25`")
    said.add_argument("--seed", type=int, default=1)
    said.add_argument("--json")
    said = said.parse_args()
    torch_device = said.device if said.device.startswith("cuda") else "cpu"
    rows, models = [], said.models.split(",")
    with tempfile.TemporaryDirectory() as folder:
        binary = os.environ.get("TESSERA_BIN", "target/release/tessera")
        asked = {}
        for model in models:
            subprocess.run([binary, "zoo", model, *said.size.split(), "--out", folder], check=True, stdout=subprocess.DEVNULL)
            graph = fused(load(f"{folder}/{model}-0.onnx"))
            inputs = drawn(graph, said.items, said.seed)
            asked[model] = graph, inputs, run(graph, inputs, torch.float64, torch_device)
        print(f"{'model':<14} {'precision':<9} {'tessera':>10} {'torch':>10} {'folded':>10} {'ratio':>7}")
        for precision in said.precision.split(","):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
            with Server(folder, said.device, precision) as server:
                for model, (graph, inputs, exact) in asked.items():
                    ours = error(exact, server.ask(f"{model}-0", inputs, graph.outputs))
                    theirs = [error(exact, run(g, inputs, TYPES[precision], torch_device)) for g in (graph, folded(graph))]
                    ratio = ours / min(theirs)
                    rows.append({"model": model, "precision": precision, "tessera": ours, "torch": theirs[0], "torch_folded": theirs[1], "ratio": ratio, "within": math.isfinite(ratio) and ratio <= LIMIT})
                    print(f"{model:<14} {precision:<9} {ours:>10.3e} {theirs[0]:>10.3e} {theirs[1]:>10.3e} {ratio:>7.3f}{'' if rows[-1]['within'] else '  beyond ' + str(LIMIT)}", flush=True)
    if said.json:
        with open(said.json, "w") as file:
            json.dump({"bench": "precision", "torch": torch.__version__, "device": said.device, "items": said.items, "seed": said.seed, "limit": LIMIT, "rows": rows}, file, indent=2)
    return 0 if all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
