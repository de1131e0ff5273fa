"""Multiplying normalization layers into the convolutions that they follow, for helpers.norms."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

from helpers.norms.frozen import EXCHANGED, called


def fold_all(model: nn.Module, layers: dict[str, nn.Module]) -> dict[nn.Module, nn.Module]:
    """Fold layers in place; return what replaces them."""
    for name, layer in layers.items():
        if type(layer) not in EXCHANGED:
            raise TypeError(f"{called(name, layer)}, and only layers of 2d images can be folded.")
    # Tracing may leave proxies in attributes, so it runs on a twin that shares only the tensors.
    twin = copy.deepcopy(model, same_tensors(model))
    own = dict(zip(twin.modules(), model.modules(), strict=True))
    held = Counter(module for _, module in twin.named_modules(remove_duplicate=False))
    swaps = {}
    for conv, norm in _directly_following(twin):
        if held[conv] == held[norm] == 1 and own[norm] in layers.values():
            _fold(own[conv], own[norm])
            swaps[own[norm]] = nn.Identity()
    if not swaps:
        raise ValueError("Nothing to fold: no chosen layer directly follows its convolution.")
    return swaps


def same_tensors(model: nn.Module) -> dict[int, Tensor]:
    """A memo for deepcopy that makes it keep the parameters and buffers themselves."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


def _directly_following(model: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    try:
        graph = _Tracer().trace(model)
    except Exception:  # forward may fail on proxies in any way, while its parts can be traced
        return [pair for child in model.children() for pair in _directly_following(child)]
    calls = {n: model.get_submodule(n.target) for n in graph.nodes if n.op == "call_module"}
    times = Counter(calls.values())
    pairs = []
    for node, norm in calls.items():
        for source in node.all_input_nodes:
            conv = calls.get(source)
            if type(conv) is not nn.Conv2d or conv._forward_hooks or conv._forward_pre_hooks:
                continue
            if times[conv] == times[norm] == len(source.users) == 1:
                pairs.append((conv, norm))
    return pairs


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module) is FrozenBatchNorm2d or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        return super().call_module(module, module.forward, args, kwargs)  # past the user's hooks


def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Multiply the affine map of `norm` into `conv`, in float64 and rounded once."""
    fused = fuse_conv_bn_eval(*(copy.deepcopy(layer).double().eval() for layer in (conv, norm)))
    for name in ("bias", "weight"):
        tensor = getattr(fused, name).detach().to(conv.weight.dtype)
        setattr(conv, name, nn.Parameter(tensor, conv.weight.requires_grad))
