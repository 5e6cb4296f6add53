#!/usr/bin/env python3
"""Exports of torchvision's and timm's models with both of PyTorch's exporters, and PyTorch's answers.

    python scripts/make-exports.py fixtures                     writes fixtures/exports: small variants, a few of each idiom
    python scripts/make-exports.py survey DIR [NAME …]          writes the wide survey to DIR (gigabytes); what is there is kept
    python scripts/make-exports.py each COMMAND DIR [NAME …]    the same one model at a time: runs COMMAND in a shell, then empties DIR

Needs the PyPI packages torch, torchvision, timm, onnx and onnxscript; no test needs Python. `crates/device/tests/exports.rs` reads both:

    cargo test -p tessera-device --test exports                                                the fixtures
    TESSERA_EXPORTS=DIR cargo test -p tessera-device --test exports -- --ignored --nocapture   the survey, as a table

A file is MODEL.EXPORTER-OPSET.WEIGHTS.onnx: the exporter is `script` (torch.onnx.export(dynamo=False)) or `dynamo`; WEIGHTS are `tuned` (no branch
is zero, no gamma one, no bias zero) or `other`: as the library initialises them, with biases of zeros that `dynamo` takes out of the graph.
One MODEL.EXPORTER-OPSET is one class. Beside a tuned one stands an .npz with in.x, out.y and, for another batch, alt.in.x, alt.out.y. Answers
are computed in f64 and rounded, so that what is measured is our error alone; the survey's have others beside them, which tell how much of a
distance is the network's: PyTorch's own in f32 (single.y, alt.single.y), and those in f64 of weights of which each is another one within its last bit
(moved-0.y, alt.moved-0.y, …). An export of the survey that takes more than a minute of CPU is given up.
"""

import contextlib
import copy
import io
import signal
import subprocess
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
import torchvision
from torch import nn

warnings.simplefilter("ignore")
torch.set_num_threads(1)
tv = torchvision.models


def shufflenet():
    return tv.ShuffleNetV2([1, 2, 1], [8, 16, 32, 32, 48], num_classes=10)


def densenet():
    return tv.DenseNet(growth_rate=4, block_config=(2, 2, 2), num_init_features=8, num_classes=10)


def regnet():
    from torchvision.models.regnet import BlockParams

    params = BlockParams.from_init_params(depth=4, w_0=16, w_a=8.0, w_m=2.0, group_width=8, se_ratio=0.25)
    return tv.RegNet(params, num_classes=10, stem_width=8)


def efficientnet():
    from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig

    stages = [FusedMBConvConfig(1, 3, 1, 8, 8, 1), FusedMBConvConfig(2, 3, 2, 8, 16, 1), MBConvConfig(4, 5, 2, 16, 24, 2, 1.0, 1.0)]
    return tv.EfficientNet(stages, dropout=0.2, num_classes=10, last_channel=32)


def convnext():
    from torchvision.models.convnext import CNBlockConfig

    return tv.ConvNeXt([CNBlockConfig(12, 24, 1), CNBlockConfig(24, None, 1)], num_classes=10, layer_scale=0.5)


def swin():
    return tv.SwinTransformer([4, 4], 12, [2, 1], [2, 3], [4, 4], num_classes=10)


def swin_v2():
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

    sizes = dict(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)
    return tv.SwinTransformer([4, 4], 12, [2], [2], [4, 4], num_classes=10, **sizes)


def vit():
    return tv.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=10)


def mixer():
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=10, img_size=32, patch_size=8, num_blocks=2, embed_dim=24)


def poolformer():
    from timm.models.metaformer import GroupNorm1, MetaFormer, Pooling

    sizes = dict(depths=(1, 1), dims=(12, 16), token_mixers=Pooling, norm_layers=GroupNorm1)
    return MetaFormer(num_classes=10, **sizes)


def xcit():
    from timm.models.xcit import Xcit

    return Xcit(num_classes=10, img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, eta=1.0)


def beit():
    from timm.models.beit import Beit

    sizes = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, init_values=0.1)
    return Beit(num_classes=10, use_abs_pos_emb=False, use_rel_pos_bias=True, **sizes)


def repvgg():
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    blocks = tuple(ByoBlockCfg(type="rep", d=depth, c=width, s=2, gs=1) for depth, width in [(1, 8), (2, 12), (1, 16)])
    return ByobNet(ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=8), num_classes=10)


def ghostnet():
    from timm.models.ghostnet import GhostNet

    config = [[[3, 16, 16, 0, 1]], [[3, 24, 16, 0.25, 2]], [[5, 24, 16, 0.25, 1]]]
    return GhostNet(config, num_classes=10, width=0.5)


def nfnet():
    from timm.layers import ScaledStdConv2d

    convolutions = ScaledStdConv2d(3, 8, 3, stride=2), ScaledStdConv2d(8, 12, 3, groups=2)
    for convolution in convolutions:
        nn.init.zeros_(convolution.bias)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)]
    return nn.Sequential(convolutions[0], nn.SiLU(), convolutions[1], nn.SiLU(), *head)


class Chooser(nn.Module):
    """Of each image one patch, as language models take each sequence's last token; it has values on both sides of its own."""

    def __init__(self):
        super().__init__()
        self.patches, self.score, self.head = nn.Conv2d(3, 12, 8, stride=8), nn.Linear(12, 1), nn.Linear(36, 10)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        chosen = self.score(tokens)[..., 0].argmax(1)
        rows = torch.arange(x.shape[0])
        around = torch.stack([chosen - 1, chosen], 1)
        return self.head(torch.cat([tokens[rows, chosen], tokens[rows[:, None], around].flatten(1)], 1))


# name: how it is made, image side, exporters with opsets.
FIXTURES = {
    "beit": (beit, 32, ["script-17"]),
    "chooser": (Chooser, 32, ["script-17", "dynamo-18"]),
    "convnext": (convnext, 32, ["script-20", "dynamo-20"]),
    "densenet": (densenet, 32, ["script-13", "dynamo-20"]),
    "efficientnet": (efficientnet, 32, ["script-13", "dynamo-18"]),
    "ghostnet": (ghostnet, 32, ["script-11", "dynamo-18"]),
    "mixer": (mixer, 32, ["script-17", "dynamo-18"]),
    "nfnet": (nfnet, 32, ["script-20", "dynamo-18"]),
    "poolformer": (poolformer, 32, ["script-13", "dynamo-18"]),
    "regnet": (regnet, 32, ["script-17", "dynamo-18"]),
    "repvgg": (repvgg, 32, ["script-11", "dynamo-18"]),
    "shufflenet": (shufflenet, 32, ["script-11", "dynamo-18"]),
    "swin": (swin, 32, ["script-17", "dynamo-18"]),
    "swin_v2": (swin_v2, 32, ["script-16"]),
    "vit": (vit, 32, ["script-14", "dynamo-18", "dynamo-23"]),
    "xcit": (xcit, 32, ["script-17", "dynamo-18"]),
}

TORCHVISION = """alexnet squeezenet1_0 squeezenet1_1 resnet18 resnext50_32x4d densenet121 googlenet inception_v3 mobilenet_v2
mobilenet_v3_small mobilenet_v3_large mnasnet0_5 mnasnet1_0 shufflenet_v2_x0_5 shufflenet_v2_x1_0 efficientnet_b0
efficientnet_v2_s regnet_y_400mf regnet_x_400mf convnext_tiny swin_t swin_v2_t maxvit_t""".split()

TIMM = """convnext_atto convnextv2_atto mobilenetv3_small_050 mobilenetv4_conv_small efficientnet_lite0 ghostnet_050
ghostnetv2_100 resnext26ts vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 mixer_s32_224 resmlp_12_224 poolformer_s12
poolformerv2_s12 coat_lite_tiny levit_128s edgenext_xx_small xcit_nano_12_p16_224 mobilevit_xxs mobilevitv2_050
efficientformer_l1 efficientvit_b0 efficientvit_m0 fastvit_t8 repvgg_a0 res2net50_26w_4s resnest14d skresnet18 eca_nfnet_l0
pit_ti_224 cait_xxs24_224 pvt_v2_b0 mambaout_femto starnet_s1 tiny_vit_5m_224 repghostnet_050 lcnet_050 tinynet_e fbnetc_100
rexnet_100 gernet_s ese_vovnet19b_dw selecsls42b visformer_tiny inception_next_atto gcvit_xxtiny shvit_s1 swiftformer_xs
sequencer2d_s eva02_tiny_patch14_224 hrnet_w18_small focalnet_tiny_srf crossvit_9_240 twins_svt_small cspresnet50
darknet53 dla34 hardcorenas_a test_byobnet test_efficientnet_gn test_nfnet""".split()

LARGE_IMAGE = {"inception_v3": 96, "alexnet": 64}


def survey_models():
    """As FIXTURES, at the size that they are published in, with small images where the architecture takes them."""
    opsets = ["script-11", "script-13", "script-17", "script-20"], ["dynamo-18", "dynamo-20", "dynamo-23"]
    for place, name in enumerate(TORCHVISION + TIMM):
        exporters = [opsets[0][place % 4], opsets[1][place % 3]]
        if name in TORCHVISION:
            options = dict(aux_logits=True) if name in ("googlenet", "inception_v3") else {}
            side = LARGE_IMAGE.get(name, 224 if name in ("maxvit_t",) else 64)
            yield "tv_" + name, partial(tv.get_model, name, weights=None, num_classes=100, **options), side, exporters
        else:
            config = timm.get_pretrained_cfg(name)
            fixed = config.fixed_input_size or any(word in name for word in ("gcvit", "crossvit", "twins", "levit", "focalnet", "coat"))
            side = config.input_size[1] if fixed else 96
            yield "timm_" + name, partial(timm.create_model, name, num_classes=100), side, exporters
    beit = dict(embed_dim=192, depth=4, num_heads=3)
    yield "timm_beit_small", partial(timm.create_model, "beit_base_patch16_224", num_classes=100, **beit), 224, ["script-17", "dynamo-18"]
    vit = partial(tv.get_model, "vit_b_16", weights=None, num_classes=100, image_size=64)
    yield "tv_vit_b_16", vit, 64, ["script-14", "dynamo-18"]
    for name, exporters in [("deeplabv3_mobilenet_v3_large", ["script-13", "dynamo-18"]), ("lraspp_mobilenet_v3_large", ["script-17", "dynamo-20"]), ("fcn_resnet50", ["script-11", "dynamo-18"])]:
        yield "tv_" + name, partial(Segmentation, name), 64, exporters


class Segmentation(nn.Module):
    """The map alone, not a dictionary of maps."""

    def __init__(self, name):
        super().__init__()
        self.inner = tv.get_model(name, weights=None, weights_backbone=None, num_classes=5)

    def forward(self, x):
        return self.inner(x)["out"]


def tune(model):
    """Weights that training could have left: nothing zero, nothing one, nothing equal to another."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif tensor.dim() < 2 or min(tensor.shape) == 1 and tensor.dim() < 4:
                constant = bool((tensor == tensor.flatten()[0]).all()) if tensor.numel() else True
                if isinstance(tensor, nn.Parameter) and constant:
                    near = 1.0 if float(tensor.flatten()[0]) > 0.5 else 0.0
                    tensor.copy_(near + (torch.rand_like(tensor) - 0.5) * 0.6)
                elif isinstance(tensor, nn.Parameter):
                    tensor.add_(torch.randn_like(tensor) * 0.02)
            elif isinstance(tensor, nn.Parameter):
                fan = tensor[0].numel()
                tensor.normal_(0, (1.5 / fan) ** 0.5 if fan > 1 else 0.5)


def exported(model, exporter, x, path):
    kind, opset = exporter.split("-")
    names = dict(input_names=["x"], output_names=["y"], opset_version=int(opset))
    if kind == "script":
        free = {"x": {0: "batch"}, "y": {0: "batch"}}
        torch.onnx.export(model, (x,), path, dynamo=False, dynamic_axes=free, **names)
    else:
        free = ({0: torch.export.Dim("batch", min=1, max=64)},)
        torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=free, external_data=False, verbose=False, **names)


@contextlib.contextmanager
def no_longer_than(seconds):
    """Of CPU time, so that the answer is the same on a busy machine."""

    def give_up(*_):
        raise TimeoutError(f"it takes longer than {seconds} s")

    signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def without_stories(path):
    """Takes out what exporters tell of the Python code, most of a small file, and what nobody reads but people."""
    model = onnx.load(path)
    for holder in [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    onnx.save(model, path)


# A network may jump for few of all last bits.
MOVED = 4


def write(folder, name, make, side, exporters, small):
    for exporter in exporters:
        for seed, weights in enumerate(["other", "tuned"]):
            path = folder / f"{name}.{exporter}.{weights}.onnx"
            if path.exists() or path.with_suffix(".failed").exists():
                continue
            torch.manual_seed(len(name) * 2 + seed)
            model = make().eval()
            if weights == "tuned":
                tune(model)
            inputs = [torch.randn(batch, 3, side, side) for batch in (2, 1)]
            if weights == "tuned":
                exact = copy.deepcopy(model).double()
                with torch.no_grad():
                    answers = [exact(x.double()).float() for x in inputs]
                if not all(bool(answer.isfinite().all()) for answer in answers):
                    raise ValueError(f"{name}: the answer is not finite")
                arrays = {"in.x": inputs[0], "out.y": answers[0], "alt.in.x": inputs[1], "alt.out.y": answers[1]}
                if not small:
                    with torch.no_grad():
                        arrays |= {"single.y": model(inputs[0]), "alt.single.y": model(inputs[1])}
                        for number in range(MOVED):
                            moved = copy.deepcopy(exact)
                            for weight in moved.parameters():
                                weight.mul_(1 + (torch.rand_like(weight) - 0.5) * 2**-23)
                            answers = [moved(x.double()).float() for x in inputs]
                            arrays |= {f"moved-{number}.y": answers[0], f"alt.moved-{number}.y": answers[1]}
                np.savez(path.with_suffix(".npz"), **{key: value.numpy() for key, value in arrays.items()})
            elif not small:
                with torch.no_grad():
                    model(inputs[0])  # some keep what they computed once, and are exported with it
            try:
                with contextlib.redirect_stdout(io.StringIO()), no_longer_than(None if small else 60):
                    exported(model, exporter, inputs[0], path)
            except Exception as error:  # an exporter may not know a model: that is a line of the survey
                path.unlink(missing_ok=True)
                path.with_suffix(".npz").unlink(missing_ok=True)
                while error.__cause__ is not None:
                    error = error.__cause__
                first = next(iter(str(error).strip().splitlines()), "")
                path.with_suffix(".failed").write_text(f"{type(error).__name__}: {first[:160]}\n")
                continue
            if small:
                without_stories(path)
            print(f"{path.name:<56} {path.stat().st_size / 1e3:>9.0f} kB", flush=True)


def main():
    survey = sys.argv[1:2] != ["fixtures"]
    command = None
    match sys.argv[1:]:
        case ["fixtures"]:
            folder = Path(__file__).parent.parent / "fixtures/exports"
            models = [(name, *made) for name, made in FIXTURES.items()]
            chosen = []
        case ["survey", folder, *chosen]:
            folder, models = Path(folder), list(survey_models())
        case ["each", command, folder, *chosen]:
            folder, models = Path(folder), list(survey_models())
        case _:
            sys.exit(__doc__)
    folder.mkdir(parents=True, exist_ok=True)
    for name, make, side, exporters in models:
        if chosen and name not in chosen:
            continue
        try:
            write(folder, name, make, side, exporters, small=not survey)
        except Exception:
            print(f"{name}: {traceback.format_exc(limit=1)}", flush=True)
        if command:
            subprocess.run(command, shell=True, check=False)
            for made in folder.glob(f"{name}.*"):
                made.unlink()


if __name__ == "__main__":
    main()
