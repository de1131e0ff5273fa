"""The normalization layers of a model: freeze, unfreeze, replace, fold, recalibrate.

Every function returns a deep copy, which shares no tensor with its argument, and the argument never
changes, not even its statistics. The copy keeps dtype, device and training flags, and the hooks of
every layer that is not replaced. A layer object used in two places stays one object in two places.

The functions replace the exact types BatchNorm2d, SyncBatchNorm and torchvision's
FrozenBatchNorm2d. A subclass raises TypeError because it may do more than normalize (timm's
BatchNormAct2d contains the activation), and so do BatchNorm1d and BatchNorm3d. GroupNorm and other
layers stay. A lazy layer raises ValueError because deepcopy refuses it.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.lazy import LazyModuleMixin
from torchvision.ops import FrozenBatchNorm2d

from helpers.stages import stages as stages_of

FROZEN_EPS = {"frozen": None, "frozen, eps 0": 0.0, "frozen, eps 1e-5": 1e-5}
KINDS = ("running statistics", "batch statistics", *FROZEN_EPS, "identity", "folded")
REPLACEABLE = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
NEED_NO_STATISTICS = ("batch statistics", "identity")


def freeze(model: nn.Module, eps: float | None = None) -> nn.Module:
    """Copy a model with torchvision's FrozenBatchNorm2d for every BatchNorm2d and SyncBatchNorm.

    The copy computes what `model` does in eval mode, up to rounding. Each layer keeps its eps;
    `eps`, if given, replaces that of every layer, also of those that were frozen before. Without
    affine parameters the frozen weight is 1 and the bias 0. The new layers raise ValueError for an
    input that is not (N,C,H,W), which torchvision's class broadcasts to a wrong result.

    Raises TypeError for a layer that cannot be frozen (see the module) and ValueError for one
    without running statistics. Like timm.layers.freeze_batch_norm_2d (1.0), with the layers of
    torchvision 0.29.
    """
    copied = _copy(model)
    return _swap(copied, {layer: _frozen(layer, eps) for layer in _batch_norms(copied)})


def unfreeze(model: nn.Module, momentum: float | None = 0.1) -> nn.Module:
    """Copy a model with a BatchNorm2d of the same eps for every FrozenBatchNorm2d.

    Parameters and buffers come back from `freeze` bit for bit, and so do affine=False and the
    requires_grad of the affine parameters; num_batches_tracked restarts at 0. The affine parameters
    of a layer that was not frozen by `freeze` become trainable. The old momentum is lost, and a
    SyncBatchNorm comes back as BatchNorm2d (see nn.SyncBatchNorm.convert_sync_batchnorm).

    An eps of 0 stays 0, which torch accepts in eval mode and refuses in train mode: to train, call
    `freeze(model, 1e-5)` first. Raises TypeError for another library's frozen layer.
    """
    copied = _copy(model)
    frozen = {layer for layer in norm_layers(copied).values() if is_frozen(layer)}
    layers = _batch_norms(copied, frozen)
    return _swap(copied, {layer: _unfrozen(layer, momentum) for layer in layers})


def replace_norms(
    model: nn.Module,
    kind: str,
    stages: str | Iterable[str] | None = None,
    share_weights: bool = False,
) -> nn.Module:
    """Copy a model with another `kind` of layer for its batch normalization, frozen or not.

    - "running statistics": BatchNorm2d in eval mode (a later `.train()` on the model undoes that).
    - "batch statistics": BatchNorm2d without stored statistics, which normalizes each batch by its
      own mean and variance, in train mode and in eval mode. Needs eps > 0.
    - "frozen": FrozenBatchNorm2d with the layer's eps; "frozen, eps 0": as in torchvision 0.7 to
      0.8.2; "frozen, eps 1e-5": the default since 0.9, whatever the network was trained with.
    - "identity": no normalization, as an untrained frozen layer was before torchvision 0.13.
    - "folded": Identity, after the running statistics and affine parameters were multiplied into
      the convolution's weight and bias. A layer is folded only where it directly follows a Conv2d,
      as torch.fx sees the model in its present mode. Both must be called and registered once, and
      the convolution must feed nothing else and have no forward hook. Other layers stay.

    `stages`: one name or several of helpers.stages.stages; None for the whole model.
    `share_weights`: let the copy hold the model's own tensors, which takes milliseconds and no
    memory. Only for inference, because training the copy would train the model.
    Raises ValueError for an unknown kind or stage, for a layer without running statistics (unless
    the kind needs none), and if nothing could be folded; TypeError for a layer that cannot be
    replaced (see the module).
    """
    copied = _copy(model, share_weights)
    if kind not in KINDS:
        raise ValueError(f"No kind {kind!r}: choose one of {', '.join(map(repr, KINDS))}.")
    chosen = None if stages is None else _inside(copied, stages)
    layers = _batch_norms(copied, chosen, kind not in NEED_NO_STATISTICS)
    if kind == "folded":
        pairs = [(conv, norm) for conv, norm in _foldable(copied) if norm in layers]
        if not pairs:
            raise ValueError("Nothing to fold: no chosen layer directly follows its convolution.")
        for conv, norm in pairs:
            _fold(conv, norm)
        layers = [norm for _, norm in pairs]
    return _swap(copied, {layer: _as_kind(layer, kind) for layer in layers})


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Copy a model and recompute its running statistics from `batches`, with fixed weights.

    A batch is what the model takes: a tensor (N,C,H,W), or a list of images for a detector. Only
    the BatchNorm layers (also 1d, 3d and subclasses) run in train mode, so dropout is off. The
    running variance becomes the mean of the batches' variances, each with the same weight. Small
    batches bias it low. A layer that no batch reached keeps its statistics.

    Raises ValueError if there is no batch or no layer with running statistics. The average is that
    of torch.optim.swa_utils.update_bn (2.15), which runs the whole model in train mode. Known as
    precise BN: Wu and Johnson, arXiv 2105.07576, section 3.2.
    """
    copied = _copy(model)
    layers = {
        name: layer
        for name, layer in norm_layers(copied).items()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    }
    if not layers:
        raise ValueError("No layer has running statistics: a frozen model must be unfrozen first.")
    copied.eval()
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # torch's way to ask for the cumulative average
        layer.training = True
    batch = None
    for batch in batches:
        copied(batch)
    if batch is None:
        raise ValueError("No batches to recalibrate on: give at least one.")
    for name, layer in layers.items():
        before = model.get_submodule(name)
        layer.momentum = before.momentum
        if layer.num_batches_tracked == 0:
            layer.load_state_dict(before.state_dict())
    _copy_flags(model, copied)
    return copied


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Find every Batch-, Sync-, Instance-, Group- and LayerNorm: a dictionary name → layer.

    Subclasses count, and so does any class named FrozenBatchNorm… (torchvision's, timm's, DETR's).
    A shared layer appears once, under its first name. The name is "" if the model is the layer.
    """
    known = (_NormBase, nn.GroupNorm, nn.LayerNorm)
    modules = model.named_modules()
    return {name: m for name, m in modules if isinstance(m, known) or is_frozen(m)}


def is_frozen(layer: nn.Module) -> bool:
    """Tell whether a layer is a FrozenBatchNorm… of any library, or of a class derived from one."""
    return any("FrozenBatchNorm" in base.__name__ for base in type(layer).__mro__)


def _copy(model: nn.Module, share_weights: bool = False) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    for name, layer in norm_layers(model).items():
        if isinstance(layer, LazyModuleMixin):  # deepcopy's own message does not name the layer
            raise ValueError(f"{_called(name, layer)}: run one batch through the model first.")
    copied = copy.deepcopy(model, _tensors(model) if share_weights else None)
    _copy_flags(model, copied)  # deepcopy loses those of torchvision's feature extractors
    return copied


def _tensors(model: nn.Module) -> dict[int, Tensor]:
    """A memo for deepcopy that makes it keep the parameters and buffers themselves."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


def _copy_flags(model: nn.Module, copied: nn.Module) -> None:
    for name, module in copied.named_modules():
        module.training = model.get_submodule(name).training


def _called(name: str, layer: nn.Module) -> str:
    subject = f"Layer {name!r}" if name else "The model"
    return f"{subject} is a {type(layer).__name__}"


def _swap(model: nn.Module, swaps: dict[nn.Module, nn.Module]) -> nn.Module:
    """Replace modules of `model` in place, and return it, or what replaces `model` itself."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # named_children() lists a shared layer once
            if child in swaps:
                parent._modules[name] = swaps[child]
    return swaps.get(model, model)


def _inside(model: nn.Module, stages: str | Iterable[str]) -> set[nn.Module]:
    """The modules inside the chosen stages."""
    parts = stages_of(model)
    chosen = [stages] if isinstance(stages, str) else list(stages)
    for stage in chosen:
        if stage not in parts:
            raise ValueError(f"No stage {stage!r} here: choose from {', '.join(parts)}.")
    return {module for stage in chosen for module in parts[stage].modules()}


def _batch_norms(
    model: nn.Module, chosen: set[nn.Module] | None = None, need_statistics: bool = True
) -> list[nn.Module]:
    """Find the layers to replace among those `chosen`; raise for one that cannot be replaced."""
    layers = []
    for name, layer in norm_layers(model).items():
        if chosen is not None and layer not in chosen:
            continue
        if not isinstance(layer, _BatchNorm) and not is_frozen(layer):
            continue
        layer_is = _called(name, layer)
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm3d):
            raise TypeError(f"{layer_is}: only layers for (N,C,H,W) can be frozen or replaced.")
        if type(layer) not in REPLACEABLE:
            raise TypeError(
                f"{layer_is}, which may do more than normalize: convert it with its own library "
                "(timm.layers.freeze_batch_norm_2d, unfreeze_batch_norm_2d)."
            )
        if need_statistics and layer.running_var is None:
            raise ValueError(f"{layer_is} with track_running_stats=False: nothing to freeze.")
        layers.append(layer)
    return layers


def _as_kind(layer: nn.Module, kind: str) -> nn.Module:
    if kind in ("identity", "folded"):
        return nn.Identity().train(layer.training)
    if kind in FROZEN_EPS:
        return _frozen(layer, FROZEN_EPS[kind])
    if kind == "running statistics":
        return (layer if type(layer) is nn.BatchNorm2d else _unfrozen(_frozen(layer))).eval()
    if layer.running_var is None:
        return layer  # has always normalized by batch statistics
    bn = _unfrozen(_frozen(layer))
    bn.track_running_stats = False
    bn.running_mean = bn.running_var = bn.num_batches_tracked = None
    return bn


def _frozen(layer: nn.Module, eps: float | None = None) -> FrozenBatchNorm2d:
    """Freeze a layer on its own tensors; a frozen one only gets `eps`, if given."""
    eps = layer.eps if eps is None else eps
    if type(layer) is FrozenBatchNorm2d:
        layer.eps = eps
        return layer
    frozen = FrozenBatchNorm2d(layer.num_features, eps).to(layer.running_var)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(layer, name) is not None:
            setattr(frozen, name, getattr(layer, name).detach())
    # `unfreeze` needs what buffers do not tell: which affine parameters existed and were trainable.
    frozen.trainable = {name: p.requires_grad for name, p in layer.named_parameters()}
    frozen.register_forward_pre_hook(_only_4d)
    return frozen.train(layer.training)


def _unfrozen(frozen: FrozenBatchNorm2d, momentum: float | None = 0.1) -> nn.BatchNorm2d:
    """Make a BatchNorm2d on the tensors of `frozen`."""
    both = {"weight": True, "bias": True}
    trainable = getattr(frozen, "trainable", both)
    for name, default in (("weight", 1), ("bias", 0)):
        if name not in trainable and getattr(frozen, name).ne(default).any():
            trainable = both  # values were loaded after freezing
    channels, device = len(frozen.running_var), frozen.running_var.device
    bn = nn.BatchNorm2d(channels, frozen.eps, momentum, affine=bool(trainable), device=device)
    for name in both:
        parameter = nn.Parameter(getattr(frozen, name), trainable.get(name, False))
        setattr(bn, name, parameter if name in trainable else None)
    bn.running_mean, bn.running_var = frozen.running_mean, frozen.running_var
    return bn.train(frozen.training)


def _only_4d(layer: nn.Module, args: tuple[Any, ...]) -> None:
    """A forward pre-hook, at module level so that a frozen model can be pickled."""
    for x in args:
        if isinstance(x, Tensor) and x.dim() != 4:  # torch.fx passes a Proxy
            raise ValueError(f"FrozenBatchNorm2d takes (N,C,H,W), not {x.dim()} dimensions.")


def _foldable(model: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Pairs of a convolution and the normalization layer that may be folded into it."""
    # Tracing may leave proxies in attributes, so it runs on a twin that shares only the tensors.
    twin = copy.deepcopy(model, _tensors(model))
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
            if type(conv) is not nn.Conv2d or type(norm) not in REPLACEABLE:
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
    frozen = _frozen(norm).double()
    scale = frozen.weight * (frozen.running_var + frozen.eps).rsqrt()
    shift = frozen.bias - frozen.running_mean * scale
    if conv.bias is not None:
        shift += conv.bias.double() * scale
    weight = conv.weight.double() * scale.reshape(-1, 1, 1, 1)
    for name, tensor in {"bias": shift, "weight": weight}.items():
        parameter = nn.Parameter(tensor.to(conv.weight.dtype), conv.weight.requires_grad)
        setattr(conv, name, parameter)
