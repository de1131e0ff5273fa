"""What weights were trained as: a network built anew, found by its name or its shapes."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from difflib import SequenceMatcher

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torchvision.models import get_model_builder
from torchvision.ops import FeaturePyramidNetwork

from helpers import DATA
from helpers.audit.census import build, without_values
from helpers.audit.report import NOTES
from helpers.probe import channels, norm_layers

FINGERPRINTS = DATA / "recipes" / "torchvision.json"


def look_up(model: nn.Module) -> tuple[str, nn.Module | None, str]:
    """Find what a model was trained as, by timm's `pretrained_cfg` or torchvision's shapes.

    Returns its name, itself as built, and a note that says why it is not used or not looked for.
    """
    for module in model.modules():
        configuration = getattr(module, "pretrained_cfg", None)
        if type(module).__module__.startswith("timm.") and isinstance(configuration, dict):
            name, timm = configuration.get("architecture") or "", sys.modules["timm"]
            network = without_values(timm.create_model, name) if timm.is_model(name) else None
            return f"timm's {name}", network, ""
    name, share = nearest(model)
    if name is None:
        return "", None, "" if FINGERPRINTS.exists() else NOTES["no-data"]
    modules, family = [*model.modules()], get_model_builder(name).__module__
    if all(type(module).__module__ != family for module in modules):
        return name, None, NOTES["same-shapes"].format(name) if share > 0.9 else ""
    fpns = [module for module in modules if isinstance(module, FeaturePyramidNetwork)]
    biases = (p for fpn in fpns for key, p in fpn.named_parameters() if key.endswith("bias"))
    if any(not bias.is_meta and bool(bias.any()) for bias in biases):
        return name, None, NOTES["trained-fpn"].format(name)
    return name, build(name, "DEFAULT"), ""


def nearest(model: nn.Module) -> tuple[str | None, float]:
    """Name the torchvision classifier whose shapes a model has, if more than half; what share."""
    if not FINGERPRINTS.exists():
        return None, 0.0
    own, best, most = shapes(model), None, (0, 0.5)
    for name, text in json.loads(FINGERPRINTS.read_text(encoding="utf-8")).items():
        theirs = text.split()
        if (Counter(own) & Counter(theirs)).total() >= most[0]:
            matched = sum(block.size for block in blocks(own, theirs))
            share = matched / len(theirs)
            if share > 0.5 and (matched, share) > most:
                best, most = name, (matched, share)
    return best, most[1]


def shapes(model: nn.Module) -> tuple[str, ...]:
    """List the weights of convolutions, as "64,3,7,7", and the channels of normalizations."""
    norms = set(norm_layers(model).values())
    return tuple(
        str(channels(m)) if m in norms else ",".join(map(str, m.weight.shape))
        for m in model.modules()
        if m in norms or isinstance(m, _ConvNd) and not is_lazy(m.weight)
    )


def blocks(a: Iterable, b: Iterable) -> list:
    """Return the runs that two sequences share, in order; difflib's, the last of size 0."""
    return SequenceMatcher(None, list(a), list(b), autojunk=False).get_matching_blocks()
