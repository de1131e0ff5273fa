"""Multiplying normalization layers into the convolutions that they follow, for helpers.norms."""

import copy
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.norms.frozen import EXCHANGED, called, frozen


def fold_all(model: nn.Module, layers: dict[str, nn.Module]) -> dict[nn.Module, nn.Module]:
    """Fold layers in place; return what replaces them."""
    for name, layer in layers.items():
        if type(layer) not in EXCHANGED:
            raise TypeError(f"{called(name, layer)}, and only layers of 2d images can be folded.")
    swaps = {}
    for conv, norm in _foldable(model):
        if norm in layers.values():
            _fold(conv, norm)
            swaps[norm] = nn.Identity().train(norm.training)
    if not swaps:
        raise ValueError("Nothing to fold: no chosen layer directly follows its convolution.")
    return swaps


def same_tensors(model: nn.Module) -> dict[int, Tensor]:
    """A memo for deepcopy that makes it keep the parameters and buffers themselves."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


def _foldable(model: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    # Tracing may leave proxies in attributes, so it runs on a twin that shares only the tensors.
    twin = copy.deepcopy(model, same_tensors(model))
    names = defaultdict(list)
    for name, module in twin.named_modules(remove_duplicate=False):
        names[module].append(name)
    return [
        (model.get_submodule(names[conv][0]), model.get_submodule(names[norm][0]))
        for conv, norm in _directly_following(twin)
        if len(names[conv]) == len(names[norm]) == 1
    ]


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
            if type(conv) is not nn.Conv2d or type(norm) not in EXCHANGED:
                continue
            once = times[conv] == times[norm] == len(source.users) == 1
            if once and not conv._forward_hooks and not conv._forward_pre_hooks:
                pairs.append((conv, norm))
    return pairs


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module) is FrozenBatchNorm2d or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        return super().call_module(module, module.forward, args, kwargs)  # past the user's hooks


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Multiply the affine map of `norm` into `conv`, in float64 and rounded once."""
    four = frozen(norm).double()
    scale = four.weight * (four.running_var + four.eps).rsqrt()
    shift = four.bias - four.running_mean * scale
    if conv.bias is not None:
        shift += conv.bias.double() * scale
    weight = conv.weight.double() * scale.reshape(-1, 1, 1, 1)
    for name, tensor in {"bias": shift, "weight": weight}.items():
        parameter = nn.Parameter(tensor.to(conv.weight.dtype), conv.weight.requires_grad)
        setattr(conv, name, parameter)
