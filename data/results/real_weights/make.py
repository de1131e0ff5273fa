"""Measure eps against rounding on weights really trained: NAME.json and NAME.npz for each network.

    make real-weights        (or: python -m data.results.real_weights.make)

It fetches 280 MB from download.pytorch.org into torch.hub's cache, and takes some 10 minutes on one
core. A network is written as soon as it is done, whole or not at all; the next call keeps what is
there of the same checkpoint. README.md says what the files hold.
"""

import copy
import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection
from tqdm import tqdm

from helpers.audit.census import build, without_values
from helpers.compare import compare
from helpers.inputs import photos
from helpers.networks.detector import normalize
from helpers.networks.download import DownloadError, fetch, is_whole, sha256_of
from helpers.norms import freeze, norm_layers

HERE = Path(__file__).resolve().parent
RESNET, MOBILENET = "fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn"

State = Mapping[str, Tensor]
Pair = tuple[nn.Module, nn.Module]


class Network(NamedTuple):
    """A checkpoint, and the two networks that are made of it.

    `pair`: state_dict → the network as it was trained, and as a detector holds it, with another
    eps. `feed`: the name of a photo → (1,3,H,W) as the network expects it. `at`: the points to
    compare at, as helpers.compare takes them.
    """

    url: str
    pair: Callable[[State], Pair]
    feed: Callable[[str], Tensor]
    at: str | tuple[str, ...] = "stage"


def classifier(state: State) -> Pair:
    """Build the question's two: ResNet-50, and its layers frozen with the eps of that day, 0."""
    model = filled(without_values(models.resnet50), state)
    return model, freeze(model, 0.0)


def detectors_body(state: State) -> Pair:
    """Build the body for COCO's weights, eps 0, and for others, torchvision's frozen default."""
    return tuple(
        filled(build(RESNET, weights).backbone.body, state, "backbone.body.")
        for weights in ("coco", "pretrained")
    )


def mobile(state: State) -> Pair:
    """Build MobileNetV3's features as trained, eps 1e-3, and in a detector, the frozen default."""
    features = without_values(models.mobilenet_v3_large).features
    body = build(MOBILENET).backbone.body
    return tuple(filled(part, state, "features.") for part in (features, body))


def filled(model: nn.Module, state: State, prefix: str = "") -> nn.Module:
    """Fill a model without values, in eval mode; RuntimeError if the checkpoint lacks one."""
    own = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    names = dict(model.named_children())
    own = {name: t for name, t in own.items() if name.partition(".")[0] in names}  # a body: no fc
    model.load_state_dict(own, assign=True)
    return model.eval()


def cropped(photo: str, side: int = 224) -> Tensor:
    """Feed as torchvision's classifiers are fed: the middle square, normalized."""
    return normalize(photos.load(photo, side))


def resized(photo: str, builder: str, side: int = 800) -> Tensor:
    """Feed as a detector's body is fed: the whole photo through the detector's own transform."""
    transform = build(builder).transform
    transform.min_size = (side,)
    return transform(list(photos.load(photo, None)))[0].tensors


NETWORKS = {
    "resnet50": Network(models.ResNet50_Weights.IMAGENET1K_V1.url, classifier, cropped),
    "coco": Network(
        detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url,
        detectors_body,
        partial(resized, builder=RESNET),
    ),
    "mobilenet_v3": Network(
        models.MobileNet_V3_Large_Weights.IMAGENET1K_V1.url,
        mobile,
        partial(resized, builder=MOBILENET),
        ("0", "2", "4", "7", "13", "16"),  # the stem, each block with a stride of 2, the last layer
    ),
}


def effects(network: Network, pair: Pair, names: Iterable[str]) -> list[dict[str, Any]]:
    """List what eps and what rounding does, for each photo and point, over max|A|.

    `effect`: the trained network from the detector's, both in float64. `rounding`: the trained one
    in float32 from its own float64 twin; `rounding_detector`: the same of the detector's.
    """
    rows = []
    for photo in names:
        x = network.feed(photo)
        compared = {"effect": compare(*pair, x, network.at, torch.float64)}
        for column, model in zip(("rounding", "rounding_detector"), pair, strict=True):
            compared[column] = compare(copy.deepcopy(model).double(), model, x, network.at)
        for point, row in compared["effect"].items():
            values = {column: finite(found[point].relative) for column, found in compared.items()}
            rows.append({"photo": photo, "point": point, "shape": row.shape} | values)
    return rows


def finite(value: float) -> float | None:
    """Return the value in 4 digits; None, JSON's null, where a network gave NaN or infinity."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def channels(model: nn.Module) -> dict[str, np.ndarray]:
    """Collect running variance and weight of all channels, layer after layer, in float32."""
    layers = norm_layers(model)
    return {
        "layers": np.array(list(layers)),
        "sizes": np.array([len(layer.running_var) for layer in layers.values()], dtype=np.int32),
        "running_var": torch.cat([layer.running_var for layer in layers.values()]).numpy(),
        "weight": torch.cat([layer.weight.detach() for layer in layers.values()]).numpy(),
    }


def measure(name: str, network: Network, out: Path, names: Iterable[str]) -> None:
    """Fetch a network's checkpoint, measure, and write its two files, the JSON last."""
    path, begins = cached(network.url)
    fetch(network.url, path, begins)
    pair = network.pair(torch.load(path, map_location="cpu", weights_only=True))
    written(out / f"{name}.npz", lambda part: np.savez_compressed(part, **channels(pair[0])))
    about = {
        "url": network.url,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "trained": kinds(pair[0]),
        "detector": kinds(pair[1]),
        "made": date.today().isoformat(),
        "versions": {package: version(package) for package in ("torch", "torchvision", "numpy")},
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    content = {"about": about, "effects": effects(network, pair, names)}
    content["channels"] = {"file": f"{name}.npz", "sha256": sha256_of(out / f"{name}.npz")}
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    written(out / f"{name}.json", lambda part: part.write(text.encode()))


def kinds(model: nn.Module) -> list[str]:
    """Say which normalization layers a network holds, such as "FrozenBatchNorm2d, eps 0.0"."""
    return sorted({f"{type(x).__name__}, eps {x.eps}" for x in norm_layers(model).values()})


def cached(url: str) -> tuple[Path, str]:
    """Return where torch.hub keeps a checkpoint, and how its hash begins, which its name says."""
    name = url.rpartition("/")[2]
    return Path(torch.hub.get_dir(), "checkpoints", name), name[:-4].rpartition("-")[2]


def is_done(name: str, network: Network, out: Path) -> bool:
    """Tell whether both files of a network are there, and of this checkpoint."""
    try:
        content = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        return content["about"]["url"] == network.url and is_whole(
            out / content["channels"]["file"], content["channels"]["sha256"]
        )
    except (OSError, ValueError, KeyError):
        return False


def written(path: Path, write: Callable[[Any], object]) -> None:
    """Write a file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
    os.replace(part, path)


def main(
    out: Path = HERE,
    networks: Mapping[str, Network] = NETWORKS,
    names: Iterable[str] = photos.NAMES,
) -> None:
    torch.set_num_threads(1)
    for name, network in tqdm(networks.items(), unit="network", disable=None):
        if not is_done(name, network, out):
            measure(name, network, out, names)


if __name__ == "__main__":
    try:
        main()
    except DownloadError as error:
        raise SystemExit(str(error)) from None
