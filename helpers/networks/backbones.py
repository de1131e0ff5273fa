"""Backbones with ImageNet's weights, with an offline stand-in's, or really trained and bundled."""

import os
import re
from operator import pos
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from helpers import DATA
from helpers.networks.detector import load_body, normalize
from helpers.networks.download import DownloadError, fetch, is_whole, load_whole
from helpers.networks.lite0 import load_lite0

WEIGHTS = ("auto", "stand-in", "imagenet")
IMAGENET_URL = ResNet50_Weights.IMAGENET1K_V1.url
STATISTICS = DATA / "stand_in" / "resnet50_statistics.pt"
STATISTICS_SHA256 = "fd563e693d93baaf0413f83d923b28204fc393622cddc64a854d6a0d9addc44a"

PROVENANCE = {
    "stand-in": "ResNet-50, stand-in weights: random, not trained, statistics calibrated on four "
    "photos (`make weights` fetches ImageNet's).",
    "imagenet": "ResNet-50, trained weights: torchvision's IMAGENET1K_V1.",
    "lite0": "EfficientNet-Lite0, trained weights: ImageNet, BatchNorm eps 1e-3.",
    "detector": "Scene detector's body, trained weights: a narrow ResNet, synthetic scenes.",
}
ONE_SET = {"lite0": load_lite0, "detector": load_body}  # networks with one set of weights
NETWORKS = ("resnet50", *ONE_SET)


def load(name: str = "resnet50", weights: str = "auto") -> nn.Module:
    """Load a network in eval mode; its `provenance` says which weights it holds.

    Its `normalize` turns an image in 0–1 into what it takes. `name` is "resnet50" (torchvision's),
    "lite0" or "detector" (the scene detector's body), which have one set of weights, or
    for "resnet50" one of these `weights`:
    - "stand-in": random, needs no download, and has the same bits on every call.
    - "imagenet": IMAGENET1K_V1 from torch.hub's cache, fetched if it is not there or not whole.
    - "auto": ImageNet if the cache holds it whole, else the stand-in. It never downloads; the
      environment variable HELPERS_WEIGHTS can set it to either, or to the path of a state_dict of
      your own ResNet-50, trained on ImageNet-normalized RGB. A checkpoint may hold it under
      "state_dict" or "model", and "module." may stand before its keys.
    Raises ValueError for an unknown name or weights; RuntimeError for missing or altered files, and
    for your own if it does not fit; DownloadError if ImageNet's weights cannot be fetched.
    """
    if name not in NETWORKS:
        raise ValueError(f"No network {name!r} here: choose one of {', '.join(NETWORKS)}.")
    if weights not in WEIGHTS:
        raise ValueError(f"No weights {weights!r} here: choose one of {', '.join(WEIGHTS)}.")
    if name in ONE_SET:
        if weights != "auto":
            raise ValueError(f'{name} has one set of weights, its own: leave weights at "auto".')
        model, weights = ONE_SET[name](), name
    elif (weights := _resolve(weights)) == "stand-in":
        model = _stand_in()
    elif weights == "imagenet":
        model = _trained(torch.load(fetch_imagenet(), map_location="cpu", weights_only=True))
    else:
        model = _own(Path(weights).expanduser())
    model.provenance = PROVENANCE.get(weights, f"ResNet-50, your weights: {Path(weights).name}.")
    return model


def fetch_imagenet() -> Path:
    """Return IMAGENET1K_V1's path in torch.hub's cache; fetch 98 MB if need be: DownloadError."""
    return fetch(IMAGENET_URL, *_imagenet_file())


def draw_stand_in() -> nn.Module:
    """Draw the stand-in before calibration: ResNet-50 in eval mode, uniform weights, one seed."""
    with torch.device("meta"):
        model = resnet50()
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(20201215)

    @torch.no_grad()
    def draw(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            draw(module.weight, -((6 / fan_out) ** 0.5), (6 / fan_out) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            # small weights at the end of every block: rounding does not grow
            draw(module.weight, *((0.1, 0.3) if name.endswith("bn3") else (0.5, 1.0)))
            draw(module.bias, -0.2, 0.2)
            module.reset_running_stats()
        elif isinstance(module, nn.Linear):
            for tensor in (module.weight, module.bias):
                draw(tensor, -(module.in_features**-0.5), module.in_features**-0.5)
    return model


def _stand_in() -> nn.Module:
    state = load_whole(STATISTICS, STATISTICS_SHA256, "`git checkout -- data/stand_in`.")
    model = draw_stand_in()
    model.load_state_dict(state, strict=False)
    model.normalize = pos  # +image: the stand-in takes 0–1 as it is
    return model


def _trained(state: dict[str, Tensor], classes: int = 1000) -> nn.Module:
    with torch.device("meta"):
        model = resnet50(num_classes=classes)
    model.load_state_dict(state, assign=True)
    model.normalize = normalize
    return model.eval()


def _own(path: Path) -> nn.Module:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        held = next((held[key] for key in ("state_dict", "model") if key in held), held)
        state = {re.sub(r"^(module\.)+", "", name): _plain(t) for name, t in held.items()}
    except Exception as error:  # torch raises a dozen kinds of errors on other files
        raise RuntimeError(
            f"{path.name} is damaged, or holds more than names and tensors "
            f"({type(error).__name__}): write it anew with torch.save(model.state_dict(), path)."
        ) from None
    try:
        model = _trained(state, state["fc.bias"].numel() if "fc.bias" in state else 1000)
        for name, t in model.state_dict().items():
            if not t.isfinite().all() or (name.endswith("running_var") and t.min() < 0):
                raise RuntimeError(f"\n\t{name} holds what is not finite, or a negative variance")
    except RuntimeError as error:
        trouble = shorten(str(error).partition("\n\t")[2], 180, placeholder=" …").rstrip(". ")
        raise RuntimeError(
            f"{path.name} does not fit torchvision's resnet50 ({trouble}): give the whole "
            "state_dict of a sound one, or unset HELPERS_WEIGHTS."
        ) from None
    return model


def _plain(t: Tensor) -> Tensor:
    return torch.empty(t.shape, dtype=torch.float32 if t.ndim else torch.long).copy_(t.detach())


def _imagenet_file() -> tuple[Path, str]:
    name = IMAGENET_URL.rpartition("/")[2]
    sha256 = name.partition("-")[2].partition(".")[0]
    return Path(torch.hub.get_dir()) / "checkpoints" / name, sha256


def _resolve(weights: str) -> str:
    if weights == "auto":
        weights = os.environ.get("HELPERS_WEIGHTS", "auto")
    if weights == "auto":
        return "imagenet" if is_whole(*_imagenet_file()) else "stand-in"
    if weights not in WEIGHTS and not Path(weights).expanduser().is_file():
        raise ValueError(
            f"HELPERS_WEIGHTS is {weights!r}, which is no file: set it to one of "
            f"{', '.join(WEIGHTS)}, or the whole path of your ResNet-50's state_dict, or unset it."
        )
    return weights


if __name__ == "__main__":
    try:
        print(f"ImageNet's weights are in {fetch_imagenet()}")
    except DownloadError as error:
        raise SystemExit(str(error)) from None
