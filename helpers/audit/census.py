"""Which normalization layers torchvision's builders make, wired for which weights: no download."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_args

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models
from torchvision.models import get_model_builder, get_model_weights, list_models

from helpers.probe import norm_layers, told_eps
from helpers.text import Table, short, table

WIRINGS = {
    "pretrained": "pretrained",
    "default": "default arguments",
    "none": "no weights",
    "coco": "COCO weights",
}

# What makes parameters and buffers. RegNet computes its widths with arange and tensor: they stay.
MAKERS = (torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros)


def census(
    builders: Iterable[str] | None = None, weights: Iterable[str] = ("default", "none", "coco")
) -> Table:
    """Count the normalization layers of `builders`, by default torchvision's detection family.

    `weights` are as in `build`, which makes every model. A cell holds `counts`; equal rows are one.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    weights = list(weights)
    for name in detection_builders() if builders is None else builders:
        known = (w if w != "coco" or _coco(name) else "" for w in weights)
        cells = ("\n".join(counts(build(name, w))) or "none" if w else "–" for w in known)
        rows.setdefault(tuple(cells), []).append(name)
    lines = [("\n".join(names), *cells) for cells, names in rows.items()]
    return table(lines, ("builder", *(WIRINGS.get(wiring, wiring) for wiring in weights)))


def counts(model: nn.Module) -> tuple[str, ...]:
    """Count the normalization layers as "53 FrozenBatchNorm2d 1e-5": number, class, eps.

    The momentum follows where it is not 0.1.
    """
    kinds = Counter(
        (type(layer).__name__, told_eps(layer), getattr(layer, "momentum", None))
        for layer in norm_layers(model).values()
    )
    return tuple(
        f"{number} {name}"
        + ("" if eps is None else f" {short(eps)}")
        + ("" if momentum in (None, 0.1) else f", momentum {short(momentum)}")
        for (name, eps, momentum), number in kinds.items()
    )


def detection_builders() -> list[str]:
    """List the names of torchvision's detection builders."""
    return list_models(module=models.detection)


def build(name: str, weights: str = "pretrained") -> nn.Module:
    """Build what torchvision's builder `name` makes for these weights, on the meta device.

    Classes, eps, momentum, requires_grad and training flags are those of the real builder; see
    `without_values`. `weights` is one of:
    - "pretrained": a pretrained backbone where the builder has a choice of it, as for detection and
      segmentation; else the whole model's weights.
    - "default": the builder called without arguments. Most detectors then have a pretrained
      backbone; the _v2 detectors and classifiers have no weights.
    - "none": no weights at all.
    - "coco": the detector's own.
    - the name of one of its weights, such as "COCO_LEGACY" or torchvision's "DEFAULT".

    ValueError for an unknown name, with the nearest ones, and for weights it does not have.
    """
    arguments = _arguments(name, weights)  # refuses an unknown name
    return without_values(get_model_builder(name), **arguments)


def _arguments(name: str, weights: str) -> dict[str, Any]:
    members = _members(name, weights).items()
    slow = {"init_weights": False} if name.endswith(("googlenet", "inception_v3")) else {}
    return slow | {key: member and _Empty(member) for key, member in members}


class _Empty:
    """What passes for a member of a torchvision enumeration of weights, and holds no values."""

    def __init__(self, member: models.WeightsEnum):
        self._member = member

    @property
    def __class__(self) -> type:  # torchvision asks isinstance()
        return type(self._member)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._member, name)

    def __eq__(self, other: object) -> bool:
        return self._member == other

    def get_state_dict(self, *args, **options) -> Mapping[str, torch.Tensor]:
        floating = (name for name in list_models() if "quantize" not in _parameters(name))
        name = next(name for name in floating if get_model_weights(name) is type(self._member))
        arguments = _arguments(name, "none")
        if "aux_loss" in _parameters(name):  # these two are as weights set them
            arguments["aux_loss"] = True
        if name.startswith("vit_"):
            arguments["image_size"] = self._member.meta["min_size"][0]
        return get_model_builder(name)(**arguments).state_dict()


def without_values(builder: Callable[..., nn.Module], *args, **options) -> nn.Module:
    """Call `builder` so that its model is on the meta device and the random state stays.

    Unlike `with torch.device("meta")`, this leaves a builder the tensors that it computes with.
    """
    with torch.random.fork_rng(devices=[]), _MakeOnMeta():
        return builder(*args, **options).to("meta")


class _MakeOnMeta(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in MAKERS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def pretrains_the_backbone(name: str, weights: str = "pretrained") -> bool:
    """Tell whether, built for these weights, the backbone is pretrained and the rest is not."""
    return _members(name, weights).get("weights_backbone") is not None


def _members(name: str, weights: str) -> dict[str, models.WeightsEnum | None]:
    parameters = _parameters(name)
    keys = [key for key in ("weights", "weights_backbone") if key in parameters]
    if weights == "none":
        return dict.fromkeys(keys)
    if weights == "default":
        return {key: parameters[key].default for key in keys}
    # the last one before None: of the two of a quantized builder, that for float
    best = get_args(parameters[keys[-1]].annotation)[-2].DEFAULT
    if weights == "pretrained":
        return {keys[-1]: best}
    own = get_model_weights(name).__members__ if "quantize" not in parameters else {"DEFAULT": best}
    chosen = _coco(name) if weights == "coco" else weights
    if chosen not in own:
        choices = ", ".join(["pretrained", "default", "none", *own])
        raise ValueError(f"{name} has no weights {weights!r}: choose one of {choices}.")
    return {"weights": own[chosen]}


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    if name not in list_models():
        near = get_close_matches(name.lower(), list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision's list_models()."
        raise ValueError(f"torchvision has no model {name!r}: {hint}")
    return inspect.signature(get_model_builder(name)).parameters


def _coco(name: str) -> str | None:
    _parameters(name)  # refuses an unknown name
    default = get_model_weights(name).DEFAULT.name
    return default if default.startswith("COCO") else None
