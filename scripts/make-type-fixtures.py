#!/usr/bin/env python3
"""Writes fixtures/types: models whose inputs and outputs are not f32, as PyTorch exports them, with its answers.

    pip install torch onnx onnxscript numpy    # 2.15, 1.23, 0.7, 2.4 made what is committed
    scripts/make-type-fixtures.py

Answers of the half-precision models are computed in single precision from the halves' weights and rounded once, so that they are what the model
says rather than what one machine's halves add up to.
"""

import pathlib

import numpy as np
import torch
from torch import nn

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "types"


class Net(nn.Module):
    """Convolution, normalisations, attention, GELU: what a small vision model is made of."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.attend = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.layer_norm = nn.LayerNorm(8)
        self.grow, self.shrink = nn.Linear(8, 24), nn.Linear(24, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, image):
        x = torch.relu(self.norm(self.stem(image))).flatten(2).transpose(1, 2)
        q, k, v, o = self.attend
        scores = torch.softmax(q(x) @ k(x).transpose(1, 2) * 8**-0.5, dim=-1)
        x = x + o(scores @ v(x))
        x = x + self.shrink(nn.functional.gelu(self.grow(self.layer_norm(x))))
        return self.head(x.mean(1))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5))

    def forward(self, x):
        return self.layers(x)


class Pixels(nn.Module):
    """Bytes in; bytes, booleans and whole numbers out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image, offset):
        x = self.conv(image.float() / 255 - 0.5)
        # Whole-number arithmetic wraps to eight bits.
        turned = image + offset
        gate = torch.sigmoid(x)
        return x > 0.1, (gate * 255).to(torch.uint8), gate, turned.amax((2, 3)).to(torch.int32), turned


def shaken(model, seed):
    """No weight is trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value += 0.2 * torch.randn(value.shape, generator=generator)
                if "var" in name:
                    value.abs_()
    return model.eval()


def write(name, model, inputs, answers, names, dynamo=False):
    path = OUT / f"{name}.onnx"
    batch = {"dynamic_shapes": tuple({0: "batch"} for _ in inputs)} if dynamo else {"dynamic_axes": {n: {0: "batch"} for n in sum(names, [])}}
    torch.onnx.export(
        model, tuple(inputs), path, input_names=names[0], output_names=names[1], dynamo=dynamo, opset_version=18, external_data=False, **batch
    )
    arrays = {f"in.{n}": t.numpy() for n, t in zip(names[0], inputs)} | {f"out.{n}": t.numpy() for n, t in zip(names[1], answers)}
    np.savez(OUT / f"{name}.npz", **arrays)


@torch.no_grad()
def main():
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(0)
    image = torch.randn(3, 3, 12, 12).half()
    net = shaken(Net(), 1).half()
    single = Net()
    single.load_state_dict(net.state_dict())
    answer = single.eval()(image.float()).half()
    write("half", net, [image], [answer], (["image"], ["scores"]))
    write("half_dynamo", net, [image], [answer], (["image"], ["scores"]), dynamo=True)
    mlp = shaken(Mlp(), 2).double()
    x = torch.randn(3, 12).double()
    write("double", mlp, [x], [mlp(x)], (["x"], ["y"]))
    pixels = shaken(Pixels(), 3)
    question = [torch.randint(0, 256, (3, 3, 6, 6), dtype=torch.uint8), torch.randint(0, 256, (3, 3, 6, 6), dtype=torch.uint8)]
    write("pixels", pixels, question, pixels(*question), (["image", "offset"], ["bright", "bytes", "float", "most", "turned"]))


main()
