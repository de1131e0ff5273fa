"""The exercise on another backbone under a detector."""

import copy
from functools import cache, partial

import torch
from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from helpers.audit import audit
from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, is_empty
from helpers.networks.lite0 import load_lite0
from helpers.norms import freeze, is_frozen, norm_layers


@cache
def lite0() -> nn.Module:
    return load_lite0()


def find_backbone_mistake(attempt) -> str | None:
    network, untouched = copy.deepcopy(lite0()), lite0()
    backbone = attempt(network)
    if is_empty(backbone):
        return RETURNS_NOTHING
    if not isinstance(backbone, BackboneWithFPN):
        return f"return a BackboneWithFPN, not {type(backbone).__name__}."
    if [*map(type, network.modules())] != [*map(type, untouched.modules())] or not all(
        map(torch.equal, network.state_dict().values(), untouched.state_dict().values())
    ):
        return "your function changes `network` itself: `freeze` gives a copy."
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(1, 3, 64, 64))
    if list(maps) != [*"0123", "pool"]:
        return (
            f"the levels are called {', '.join(maps)}: the pooler asks for 0, 1, 2 and 3, and "
            "leaves out any other without a word."
        )
    strides = [64 // x.shape[-1] for x in maps.values()]
    if strides != [4, 8, 16, 32, 64]:
        return (
            f"the levels have strides {', '.join(map(str, strides))}: P2 … P5 have 4, 8, 16 and "
            "32, and P6, taken from P5, has 64; the stem is no level."
        )
    if not all(map(is_frozen, norm_layers(backbone.body).values())):
        return "its statistics would move in training: freeze its normalization layers."
    if findings := audit(backbone, recipe=network).findings:
        return (
            f"the audit finds {findings[0].code}: Lite0 was trained with eps 1e-3, and "
            "FrozenBatchNorm2d has 1e-5 unless it is told otherwise."
        )
    return None


def backbone_on(network, kind=freeze, layers=None, channels=(24, 40, 112, 320)):
    """The right attempt, but for what is given."""
    layers = layers or {f"layer{k}": str(k - 1) for k in (1, 2, 3, 4)}
    return BackboneWithFPN(kind(network), layers, list(channels), 256)


CHECKERS = {
    "10-backbone": Checker(
        find_backbone_mistake,
        praise="five levels, and the audit finds nothing.",
        wrong={
            "eps-differs": partial(backbone_on, kind=lambda network: freeze(network, 1e-5)),
            "would move in training": partial(backbone_on, kind=lambda network: network),
            "the levels are called layer1, layer2, layer3, layer4, pool": partial(
                backbone_on, layers={f"layer{k}": f"layer{k}" for k in (1, 2, 3, 4)}
            ),
            "the stem is no level": partial(
                backbone_on,
                layers={"stem": "0", "layer1": "1", "layer2": "2", "layer3": "3"},
                channels=(16, 24, 40, 112),
            ),
            "changes `network` itself": partial(
                backbone_on, kind=lambda network: freeze(network.half().float())
            ),
            "return a BackboneWithFPN": freeze,
        },
    ),
}
