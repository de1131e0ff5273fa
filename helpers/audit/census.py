"""torchvision's builders without values, wired for any of their weights: no download."""

import inspect
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any, get_args

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models
from torchvision.models import get_model_builder, get_model_weights, list_models

# What makes parameters and buffers. RegNet computes its widths with arange and tensor: they stay.
MAKERS = (torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros)


def build(name: str, weights: str = "pretrained") -> nn.Module:
    """Build what torchvision's builder `name` makes for these weights, on the meta device.

    Classes, eps, momentum, requires_grad and training flags are those of the real builder.
    `weights`: "pretrained" (of the backbone alone where the builder has that choice), "default"
    (what the builder takes without arguments), "none", "coco" (a detector's own), or the name of
    one of its weights, such as "COCO_LEGACY" or torchvision's "DEFAULT".

    ValueError for an unknown name, with the nearest ones, and for weights it does not have.
    """
    if weights not in (own := choices(name)):
        raise ValueError(f"{name} has no weights {weights!r}: choose one of {', '.join(own)}.")
    chosen = {key: member and _Empty(member=member) for key, member in own[weights].items()}
    slow = {"init_weights": False} if name.endswith(("googlenet", "inception_v3")) else {}
    return without_values(get_model_builder(name), **slow, **chosen)


class _Empty(SimpleNamespace):
    """What passes for a `member` of a torchvision enumeration of weights, and holds no values."""

    __class__ = property(lambda self: type(self.member))  # torchvision asks isinstance()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.member, name)

    def __eq__(self, other: object) -> bool:
        return self.member == other

    def get_state_dict(self, *args, **options) -> Mapping[str, torch.Tensor]:
        """What the model that is to load it, the local `model` of torchvision's caller, has."""
        return sys._getframe(1).f_locals["model"].state_dict()


def without_values(builder: Callable[..., nn.Module], *args, **options) -> nn.Module:
    """Call `builder` so that its model is on the meta device, and what it computes with is not."""
    with torch.random.fork_rng(devices=[]), _MakeOnMeta():
        return builder(*args, **options).to("meta")


class _MakeOnMeta(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in MAKERS and kwargs.get("device") is None:
            kwargs = kwargs | {"device": "meta"}
        return func(*args, **kwargs)


def choices(name: str) -> dict[str, dict[str, models.WeightsEnum | None]]:
    """What `build` takes as weights → the arguments of the builder that choose them."""
    if name not in list_models():
        near = get_close_matches(name.lower(), list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision's list_models()."
        raise ValueError(f"torchvision has no model {name!r}: {hint}")
    parameters = inspect.signature(get_model_builder(name)).parameters
    keys = [key for key in ("weights", "weights_backbone") if key in parameters]
    # the last one before None: of the two of a quantized builder, that for float
    best = get_args(parameters[keys[-1]].annotation)[-2].DEFAULT
    own = get_model_weights(name).__members__ if "quantize" not in parameters else {"DEFAULT": best}
    defaults = {key: parameters[key].default for key in keys}
    known = {"pretrained": {keys[-1]: best}, "default": defaults, "none": dict.fromkeys(keys)}
    known |= {key: {"weights": member} for key, member in own.items()}
    return known | ({"coco": known["DEFAULT"]} if own["DEFAULT"].name.startswith("COCO") else {})
