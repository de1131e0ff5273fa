"""Which normalization layers torchvision's builders make, wired for which weights: no download."""

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from html import escape
from itertools import chain, repeat
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models import (
    WeightsEnum,
    detection,
    get_model_builder,
    get_model_weights,
    list_models,
)

from helpers.norms import norm_layers
from helpers.text import short

WIRINGS = {
    "pretrained": "pretrained",
    "default": "default arguments",
    "none": "no weights",
    "coco": "COCO weights",
}

# What makes parameters and buffers. RegNet computes its widths with arange and tensor: they stay.
MAKERS = (torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros)


class Count(NamedTuple):
    """How many `layers` share a class, eps and momentum; None where a layer has none."""

    layers: int
    class_name: str
    eps: float | None
    momentum: float | None

    def __str__(self) -> str:
        eps = "" if self.eps is None else f" {short(self.eps)}"
        momentum = "" if self.momentum in (None, 0.1) else f", momentum {short(self.momentum)}"
        return f"{self.layers} {self.class_name}{eps}{momentum}"


class Census(dict[tuple[str, str], tuple[Count, ...]]):
    """A dictionary (builder, weights) → its `Count`s, shown as a table with equal rows as one.

    A cell reads "53 FrozenBatchNorm2d 1e-5": number, class, eps; momentum where it is not 0.1.
    """

    def table(self) -> list[tuple[str, ...]]:
        """Return the rows of text, the header first."""
        wirings = list(dict.fromkeys(weights for _, weights in self))
        rows: dict[tuple[str, ...], list[str]] = {}
        for builder in dict.fromkeys(builder for builder, _ in self):
            cells = [self.get((builder, weights)) for weights in wirings]
            rows.setdefault(tuple(map(_cell, cells)), []).append(builder)
        header = ("builder", *(WIRINGS.get(weights, weights) for weights in wirings))
        return [header, *(("\n".join(names), *cells) for cells, names in rows.items())]

    def __repr__(self) -> str:
        split = [[cell.split("\n") for cell in row] for row in self.table()]
        widths = [
            max(len(line) for cell in column for line in cell)
            for column in zip(*split, strict=True)
        ]
        lines = []
        for row in split:
            for index in range(max(map(len, row))):
                parts = [cell[index] if index < len(cell) else "" for cell in row]
                padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
                lines.append("  ".join(padded).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        header, *rows = (
            "".join(
                f'<{tag} style="text-align: left">{escape(cell).replace(chr(10), "<br>")}</{tag}>'
                for cell in row
            )
            for tag, row in zip(chain(["th"], repeat("td")), self.table(), strict=False)
        )
        lines = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table>"


def census(
    builders: Iterable[str] | None = None, weights: Iterable[str] = ("default", "none", "coco")
) -> Census:
    """Count the normalization layers of `builders`, by default torchvision's detection family.

    `weights` are as in `build`, which makes every model. A builder without COCO weights has no
    entry for them. It takes seconds and downloads nothing. Raises ValueError for an unknown name or
    weights.
    """
    found, weights = Census(), list(weights)
    for name in detection_builders() if builders is None else builders:
        for wiring in weights:
            if wiring != "coco" or _coco(name) is not None:
                found[name, wiring] = counts(build(name, wiring))
    return found


def counts(model: nn.Module) -> tuple[Count, ...]:
    """Count the normalization layers by class, eps and momentum, in order of appearance."""
    kinds = Counter(
        (type(layer).__name__, getattr(layer, "eps", None), getattr(layer, "momentum", None))
        for layer in norm_layers(model).values()
    )
    return tuple(Count(number, *kind) for kind, number in kinds.items())


def detection_builders() -> list[str]:
    """List the names of torchvision's detection builders."""
    return list_models(module=detection)


def build(name: str, weights: str = "pretrained") -> nn.Module:
    """Build what torchvision's builder `name` makes for these weights, without their values.

    Parameters and buffers are on the meta device: nothing is downloaded, no memory filled, no
    random number drawn. Classes, eps, momentum, requires_grad and training flags are those of the
    real builder, which runs with only the loading left out.

    `weights` is one of:
    - "pretrained": a pretrained backbone where the builder has a choice of it, as for detection and
      segmentation; else the whole model's weights.
    - "default": the builder called without arguments. Most detectors then have a pretrained
      backbone; the _v2 detectors and classifiers have no weights.
    - "none": no weights at all.
    - "coco": the detector's own.
    - the name of one of its weights, such as "COCO_LEGACY" or torchvision's "DEFAULT".

    Raises ValueError for an unknown name, with the nearest ones, and for weights it does not have.
    """
    arguments = _arguments(name, weights)
    with (
        patch.object(WeightsEnum, "get_state_dict", lambda *args, **options: {}),
        patch.object(nn.Module, "load_state_dict", lambda *args, **options: None),
    ):
        return without_values(get_model_builder(name), **arguments)


def without_values(builder: Callable[..., nn.Module], *args, **options) -> nn.Module:
    """Call `builder` so that its model is on the meta device and the random state stays.

    Unlike `with torch.device("meta")`, this leaves a builder the tensors that it computes with.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _MakeOnMeta():
        warnings.simplefilter("ignore", FutureWarning)  # on how Inception and GoogLeNet initialize
        return builder(*args, **options).to("meta")


def pretrains_the_backbone(name: str, weights: str = "pretrained") -> bool:
    """Tell whether, built for these weights, the backbone is pretrained and the rest is not."""
    backbone = _parameters(name).get("weights_backbone")
    if backbone is None:
        return False
    return weights == "pretrained" or weights == "default" and backbone.default is not None


def _arguments(name: str, weights: str) -> dict[str, str | None]:
    parameters = _parameters(name)
    if weights == "default":
        return {}
    if weights == "none":
        return {key: None for key in ("weights", "weights_backbone") if key in parameters}
    if weights == "pretrained":
        key = "weights_backbone" if "weights_backbone" in parameters else "weights"
        return {key: "DEFAULT"}
    # The enumeration of a quantized model's weights is not the one its builder takes by default.
    own = ["DEFAULT"] if "quantize" in parameters else [*get_model_weights(name).__members__]
    chosen = _coco(name) if weights == "coco" else weights
    if chosen not in own:
        choices = ", ".join(["pretrained", "default", "none", *own])
        raise ValueError(f"{name} has no weights {weights!r}: choose one of {choices}.")
    return {"weights": chosen}


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """Read a builder's signature. Raises ValueError, with the nearest names, if there is none."""
    if name not in list_models():
        near = get_close_matches(name.lower(), list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision's list_models()."
        raise ValueError(f"torchvision has no model {name!r}: {hint}")
    return inspect.signature(get_model_builder(name)).parameters


def _coco(name: str) -> str | None:
    """Name the builder's newest weights from COCO, if it has any."""
    _parameters(name)
    default = get_model_weights(name).DEFAULT.name
    return default if default.startswith("COCO") else None


def _cell(counts: tuple[Count, ...] | None) -> str:
    if counts is None:
        return "–"
    return "\n".join(map(str, counts)) or "none"


class _MakeOnMeta(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in MAKERS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
