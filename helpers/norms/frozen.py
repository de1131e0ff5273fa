"""One normalization layer, frozen and unfrozen; helpers.norms does it to those of a model.

Two ways: torchvision's FrozenBatchNorm2d on the tensors of the layer, or the layer itself, held in
eval mode whatever train() says, so that its forward, activation and shapes stay.
"""

import copy
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torchvision.ops import FrozenBatchNorm2d

from helpers.probe import START, channels, has_statistics, probe, probe_all

EXCHANGED = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
BEHIND = ("drop", "act")  # what timm's layers apply to the normalized values, in this order


class FrozenBatchNormMixin:
    """What a held layer derives from, before its own class: its `training` is always False."""

    __jit_unused_properties__ = ("training",)

    # False; what train() or eval() asked for is kept in `vars(layer)["training"]`.
    training = property(lambda self: False, lambda self, mode: vars(self).update(training=mode))

    def __reduce_ex__(self, protocol: int) -> tuple:
        """Pickle by the layer's own class, because the class made of both has no module."""
        return _new, (type(self).__bases__[1],), super().__reduce_ex__(protocol)[2]


@cache
def _held(kept: type[nn.Module]) -> type[nn.Module]:
    namespace = {"__module__": kept.__module__}  # torch.fx takes as leaves what torch.nn defines
    return type(f"Frozen{kept.__name__}", (FrozenBatchNormMixin, kept), namespace)


def _new(kept: type[nn.Module]) -> nn.Module:
    return _held(kept).__new__(_held(kept))


def hold(layer: nn.Module) -> None:
    """Hold a layer in eval mode, in place; its own parameters become buffers of the same names."""
    own = dict(layer.named_parameters(recurse=False))
    layer.trainable = {name: p.requires_grad for name, p in own.items()}
    layer._parameters = {name: p for name, p in layer._parameters.items() if p is None}
    layer._buffers = {name: p.detach() for name, p in own.items()} | layer._buffers
    layer.__class__ = _held(type(layer))


def release(layer: nn.Module) -> nn.Module:
    """Undo `hold`, in place, and return the layer."""
    layer.__class__ = type(layer).__bases__[1]
    for name, requires_grad in vars(layer).pop("trainable").items():
        layer._parameters[name] = nn.Parameter(layer._buffers.pop(name), requires_grad)
    return layer


def is_frozen(layer: nn.Module) -> bool:
    """Tell whether a layer is frozen for good: by `hold`, by torchvision's class or another's."""
    if isinstance(layer, FrozenBatchNormMixin | FrozenBatchNorm2d):
        return True
    if isinstance(layer, _NormBase) or not has_statistics(layer):
        return False
    return not [*layer.parameters(recurse=False)] and probe(layer).is_frozen


def frozen(layer: nn.Module, eps: float | None = None) -> FrozenBatchNorm2d:
    """Make torchvision's layer on the tensors of `layer`, or give one of these `eps`, if any."""
    eps = layer.eps if eps is None else eps
    if type(layer) is FrozenBatchNorm2d:
        layer.eps = eps
        return layer
    made = FrozenBatchNorm2d(len(layer.running_var), eps).to(layer.running_var)
    for name in START:
        if getattr(layer, name) is not None:
            setattr(made, name, getattr(layer, name).detach())
    if isinstance(layer, _BatchNorm):
        # `unfrozen` needs what buffers do not tell: which parameters existed and were trainable.
        made.trainable = {name: p.requires_grad for name, p in layer.named_parameters()}
    made.register_forward_pre_hook(_only_nchw, with_kwargs=True)
    return made


def unfrozen(layer: FrozenBatchNorm2d, momentum: float | None = 0.1) -> nn.BatchNorm2d:
    """Make a BatchNorm2d on the tensors of torchvision's layer."""
    both = {"weight": True, "bias": True}
    trainable = getattr(layer, "trainable", both)
    if any(getattr(layer, n).ne(START[n]).any() for n in both if n not in trainable):
        trainable = both  # values were loaded after freezing
    channels, device = len(layer.running_var), layer.running_var.device
    bn = nn.BatchNorm2d(channels, layer.eps, momentum, affine=bool(trainable), device=device)
    for name in both:
        parameter = nn.Parameter(getattr(layer, name), trainable.get(name, False))
        setattr(bn, name, parameter if name in trainable else None)
    bn.running_mean, bn.running_var = layer.running_mean, layer.running_var
    return bn


def _only_nchw(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    channels = len(layer.running_var)
    for x in (*args, *kwargs.values()):
        if isinstance(x, Tensor) and (x.dim() != 4 or x.shape[1] != channels):  # no Proxy of fx
            raise ValueError(f"FrozenBatchNorm2d takes (N,{channels},H,W), not {tuple(x.shape)}.")


def is_torchvisions(layer: nn.Module) -> bool:
    """Tell whether another library's frozen layer computes what torchvision's does."""
    buffers = {name for name, t in layer.named_buffers() if t.dim() == 1}
    return buffers == set(START) and not list(layer.children()) and is_plain(layer, (4,))


@torch.no_grad()
def is_plain(layer: nn.Module, dimensions: tuple[int, ...] = (4, 2, 3, 5)) -> bool:
    """Tell whether a layer in eval mode is the formula of batch normalization and what is `BEHIND`.

    The first of the numbers of dimensions that the layer takes decides.
    """
    if type(layer).__module__.startswith("torch.nn.modules"):
        return True
    does = probe(layer)
    if layer._modules.keys() - BEHIND or does.untried or does.eps is None:
        return False
    twin = copy.deepcopy(layer).cpu().double().eval()
    for name, value in zip(START, (-0.5, 2.0, 1.5, 0.5), strict=True):
        if getattr(twin, name, None) is not None:
            getattr(twin, name).data.fill_(value)
    four = [getattr(twin, name, None) for name in START]
    for count in dimensions:
        shape = (4, channels(layer), *[2] * (count - 2))
        x = torch.linspace(-5, 5, math.prod(shape), dtype=torch.float64).reshape(shape)
        try:
            y = twin.forward(x.clone())  # an activation may work in place; hooks stay out of it
        except Exception:  # a layer refuses a shape in any way it likes
            continue
        expected = F.batch_norm(x, *four, training=four[1] is None, eps=does.eps)
        for name in BEHIND:
            expected = getattr(twin, name, nn.Identity())(expected)
        return torch.allclose(y, expected, 1e-4)
    return False


def freeze_all(layers: dict[str, nn.Module], eps: float | None) -> dict[nn.Module, nn.Module]:
    """Freeze layers, those that keep their class in place; return what replaces the others."""
    swaps = {x: frozen(x, eps) for x in layers.values() if type(x) in EXCHANGED}
    others = {name: layer for name, layer in layers.items() if layer not in swaps}
    names = {name: called(name, layer) for name, layer in others.items()}
    for layer in others.values():
        if not is_frozen(layer):
            hold(layer)
    for name, does in probe_all(others).items():
        layer = others[name]
        if not does.is_frozen or does.untried and not isinstance(layer, _NormBase):
            why = does.untried or "it uses the batch even in eval mode"
            raise TypeError(f"{names[name]} and cannot be frozen, because {why}: replace it.")
        if eps is None:
            continue
        if does.eps_settable:
            layer.eps = eps
        elif is_torchvisions(layer):
            swaps[layer] = frozen(layer, eps)
        else:
            raise TypeError(f"{names[name]}, whose eps cannot be set: leave eps out.")
    return swaps


def thawed(name: str, layer: nn.Module, momentum: float | None = 0.1) -> nn.Module:
    """What `layer` is after unfreezing, or `layer` itself if it is not frozen."""
    if type(layer) in (nn.SyncBatchNorm, FrozenBatchNorm2d):
        return unfrozen(frozen(layer), momentum)
    if isinstance(layer, FrozenBatchNormMixin):
        return release(layer)
    if not is_frozen(layer):
        return layer
    if not is_torchvisions(layer):
        raise TypeError(
            f"{called(name, layer)}, which may do more than normalize: unfreeze it with its own "
            "library (timm.layers.unfreeze_batch_norm_2d)."
        )
    return unfrozen(frozen(layer, probe(layer).eps), momentum)


def called(name: str, layer: nn.Module) -> str:
    """The subject and verb of a sentence about a layer of a model."""
    subject = f"Layer {name!r}" if name else "The model"
    return f"{subject} is a {type(layer).__name__}"
