"""The normalization layers of a model: freeze, unfreeze, replace, fold, recalibrate.

Every function returns a deep copy, which shares no tensor with its argument; the argument never
changes. The copy keeps dtype, device, training flags, and the hooks of every layer that is not
replaced. A layer object held in two places, also in a list or a dictionary, stays one object.

BatchNorm2d, SyncBatchNorm and torchvision's FrozenBatchNorm2d turn into one another. Every other
layer that holds running statistics keeps its class, with the activation or the shapes that it adds;
GroupNorm and other layers stay.

All functions raise TypeError for a traced or scripted model and for a layer that does not allow
what is asked, ValueError for a lazy layer and for a model that deepcopy cannot copy.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase, _NormBase

from helpers.norms.folding import fold_all, same_tensors
from helpers.norms.frozen import BEHIND, EXCHANGED, called, freeze_all, is_frozen, is_plain, thawed
from helpers.probe import KNOWN, has_statistics, left_behind, norm_layers, probe, probe_all
from helpers.stages import stages as stages_of

FROZEN_EPS = {"frozen": None, "frozen, eps 0": 0.0, "frozen, eps 1e-5": 1e-5}
KINDS = ("running statistics", "batch statistics", *FROZEN_EPS, "identity", "folded")


def freeze(model: nn.Module, eps: float | None = None) -> nn.Module:
    """Copy a model with every layer that holds running statistics frozen.

    The copy computes what `model` does in eval mode, whatever train() says, and no weight or bias
    of these layers is a parameter. BatchNorm2d and SyncBatchNorm become torchvision's
    FrozenBatchNorm2d, which here refuses (ValueError) an input that is not (N,C,H,W) with its
    number of channels. Any other layer keeps its class and state_dict keys, and is held in eval
    mode by helpers.norms.frozen.FrozenBatchNormMixin. `eps`, if given, replaces that of every
    layer, also of those that were frozen before.

    Raises ValueError for a negative or infinite eps and for a layer without running statistics,
    TypeError for a layer that uses the batch even in eval mode or whose eps cannot be set.
    """
    if eps is not None and not 0 <= eps < math.inf:
        raise ValueError(f"eps must be finite and not negative, not {eps}.")
    copied = _copy(model)
    return _swap(copied, freeze_all(_chosen(copied), eps))


def unfreeze(model: nn.Module, momentum: float | None = 0.1) -> nn.Module:
    """Copy a model with every frozen layer turned back into one that trains.

    Parameters, buffers and requires_grad come back from `freeze` bit for bit. A FrozenBatchNorm2d
    becomes a BatchNorm2d of the same eps and of `momentum`, because the old momentum is lost, also
    where a SyncBatchNorm was frozen; num_batches_tracked restarts at 0. An eps of 0 stays 0, which
    torch refuses in train mode: call `freeze(model, 1e-5)` first. Raises TypeError for another
    library's frozen layer that does more than normalize.
    """
    copied = _copy(model)
    layers = {name: layer for name, layer in copied.named_modules() if is_frozen(layer)}
    return _swap(copied, {layer: thawed(name, layer, momentum) for name, layer in layers.items()})


def replace_norms(
    model: nn.Module,
    kind: str,
    stages: str | Iterable[str] | None = None,
    share_weights: bool = False,
) -> nn.Module:
    """Copy a model with another `kind` of layer for those that hold running statistics.

    - "running statistics": BatchNorm2d in eval mode (a later `.train()` on the model undoes that).
    - "batch statistics": BatchNorm2d without stored statistics, which normalizes each batch by its
      own mean and variance, in train mode and in eval mode. Needs eps > 0.
    - "frozen": as `freeze` does, with the layer's eps; "frozen, eps 0": as in torchvision 0.7 to
      0.8.2; "frozen, eps 1e-5": the default since 0.9, whatever the network was trained with.
    - "identity": no normalization, as an untrained frozen layer was before torchvision 0.13. An
      activation inside the layer stays.
    - "folded": Identity, after the layer was multiplied into the Conv2d that it directly follows,
      as torch.fx sees the model in its present mode. Both must be called and registered once, and
      the convolution must feed nothing else and have no forward hook. Other layers stay.

    `stages`: one name or several of helpers.stages.stages; None for the whole model.
    `share_weights`: let the copy hold the model's own tensors, which takes milliseconds and no
    memory. Only for inference, because training the copy would train the model.

    Raises ValueError for an unknown kind or stage, for a layer without the statistics that the kind
    needs, and if nothing could be folded; TypeError for a layer that cannot become of this kind.
    """
    copied = _copy(model, share_weights)
    if kind not in KINDS:
        raise ValueError(f"No kind {kind!r}: choose one of {', '.join(map(repr, KINDS))}.")
    layers = _chosen(copied, stages, kind not in ("batch statistics", "identity"))
    if kind in FROZEN_EPS:
        return _swap(copied, freeze_all(layers, FROZEN_EPS[kind]))
    if kind == "folded":
        return _swap(copied, fold_all(copied, layers))
    return _swap(copied, {layer: _as_kind(name, layer, kind) for name, layer in layers.items()})


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Any], key: Any = None) -> nn.Module:
    """Copy a model and recompute its running statistics from `batches`, with fixed weights.

    A batch is what the model takes: a tensor (N,C,H,W), or a list of images (C,H,W) for a detector.
    Of a pair such as (images, labels), as a DataLoader yields it, the first entry is taken, of a
    mapping that under `key`. Only layers whose statistics move run in train mode, so dropout is
    off. Every batch gets the same weight. A layer that no batch reached keeps its statistics.
    Known as precise BN: Wu and Johnson, arXiv 2105.07576, section 3.2.

    Raises ValueError if there is no batch or no layer whose statistics move, for an empty batch or
    one with NaN or infinity, and for a mapping without `key`; TypeError for a layer not of torch.
    """
    copied = _copy(model)
    if isinstance(batches, Tensor):
        raise TypeError("Give the batches in a list or loader, not one Tensor.")
    layers = _moving(copied)
    if not layers:
        raise ValueError("No layer has running statistics: a frozen model must be unfrozen first.")
    copied.eval()
    hooks = []
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # torch's way to ask for the cumulative average
        layer.training = True
        if not isinstance(layer, _BatchNorm):  # InstanceNorm takes None for 0
            hooks.append(layer.register_forward_pre_hook(_average))
    number = -1
    for number, batch in enumerate(batches):
        copied(_input(number, batch, key))
    if number < 0:
        raise ValueError("No batches to recalibrate on: give at least one.")
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        before = model.get_submodule(name)
        if not (layer.running_mean + layer.running_var).isfinite().all():
            raise ValueError(f"{called(name, layer)} that got NaN or infinity: run it in float32.")
        layer.momentum = before.momentum
        if layer.num_batches_tracked == 0:
            layer.load_state_dict(before.state_dict())
    return _flagged_as(model, copied)


def _moving(model: nn.Module) -> dict[str, nn.Module]:
    layers = {}
    for name, layer in norm_layers(model).items():
        if is_frozen(layer) or not (has_statistics(layer) or _is_own(layer)):
            continue
        if not isinstance(layer, _NormBase):
            raise TypeError(f"{called(name, layer)}, which is not torch's: replace it first.")
        if layer.track_running_stats:
            layer.momentum = 0.1
            layers[name] = layer
    tried = probe_all(layers).items()
    return {name: layers[name] for name, does in tried if does.in_train.statistics_move}


def _is_own(layer: nn.Module) -> bool:
    return not isinstance(layer, KNOWN) and any(probe(layer).in_train[:2])


def _average(layer: nn.Module, args: tuple[Any, ...]) -> None:
    layer.num_batches_tracked += 1
    layer.momentum = 1 / layer.num_batches_tracked.item()


def _input(number: int, batch: Any, key: Any) -> Any:
    if isinstance(batch, Mapping):
        if key not in batch:
            keys = ", ".join(map(repr, batch))
            raise ValueError(f"Batch {number} is a mapping: give the key of its images, of {keys}.")
        batch = batch[key]
    elif isinstance(batch, tuple | list) and any(getattr(x, "ndim", 0) != 3 for x in batch):
        batch = batch[0]
    parts = batch if isinstance(batch, tuple | list) else [batch]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if not len(parts) or any(tensor.numel() == 0 for tensor in tensors):
        raise ValueError(f"Batch {number} is empty: no statistics can be computed from it.")
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ValueError(f"Batch {number} holds NaN or infinity: its statistics would, too.")
    return batch


def _copy(model: nn.Module, share_weights: bool = False) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"{called(name, module)}: give the model before TorchScript made it.")
        if isinstance(module, _LazyNormBase):  # deepcopy's own message does not name the layer
            raise ValueError(f"{called(name, module)}: run one batch through the model first.")
    try:
        return _deepcopy(model, left_behind(model) | (same_tensors(model) if share_weights else {}))
    except Exception as error:  # whatever an attribute raises
        raise ValueError(_obstacle(model)) from error


def _obstacle(model: nn.Module) -> str:
    for name, module in reversed([*model.named_modules()]):
        for attribute, value in vars(module).items():
            try:
                copy.deepcopy(value)
            except Exception:
                what = f"{called(name, module)} whose {attribute!r} deepcopy cannot copy"
                return f"{what}: delete what a forward pass left there."
    return "deepcopy cannot copy the model."


def _deepcopy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    return _flagged_as(model, copy.deepcopy(model, memo))  # torchvision's extractors lose them


def _flagged_as(model: nn.Module, copied: nn.Module) -> nn.Module:
    # a held layer reads as False whatever it was told, so the flag comes from vars
    flags = {n: vars(m)["training"] for n, m in model.named_modules() if "training" in vars(m)}
    for name, module in copied.named_modules():
        module.training = flags.get(name, module.training)
    return copied


def _swap(model: nn.Module, swaps: dict[nn.Module, nn.Module]) -> nn.Module:
    """Replace layers wherever `model` holds them, also in lists; tensors and flags stay."""
    return _deepcopy(model, same_tensors(model) | {id(old): new for old, new in swaps.items()})


def _inside(model: nn.Module, stages: str | Iterable[str] | None) -> set[nn.Module]:
    if stages is None:
        return {*model.modules()}
    parts, inside = stages_of(model), set()
    for stage in [stages] if isinstance(stages, str) else stages:
        if stage not in parts:
            raise ValueError(f"No stage {stage!r} here: choose from {', '.join(parts)}.")
        inside |= {*parts[stage].modules()}
    return inside


def _chosen(
    model: nn.Module, stages: str | Iterable[str] | None = None, need_statistics: bool = True
) -> dict[str, nn.Module]:
    inside, layers = _inside(model, stages), {}
    for name, layer in norm_layers(model).items():
        known = has_statistics(layer) or isinstance(layer, _BatchNorm)
        known |= need_statistics and _is_own(layer)
        if known and layer in inside:
            layers[name] = layer
            if need_statistics and isinstance(layer, _BatchNorm) and not has_statistics(layer):
                what = f"{called(name, layer)} with track_running_stats=False"
                raise ValueError(f"{what}: nothing to freeze.")
    return layers


def _as_kind(name: str, layer: nn.Module, kind: str) -> nn.Module:
    layer_is = called(name, layer)
    if kind == "identity":
        if type(layer) not in EXCHANGED and not is_plain(layer):
            raise TypeError(f"{layer_is}, which does more than normalize: replace it by hand.")
        behind = OrderedDict((n, getattr(layer, n)) for n in BEHIND if hasattr(layer, n))
        bare = nn.Sequential(behind) if behind else nn.Identity()
        for module in bare.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # what it now works on may have other readers
        return bare
    if kind == "running statistics":
        return thawed(name, layer.eval())
    if layer.running_var is None:
        return layer  # has always normalized by batch statistics
    bn = thawed(name, layer)
    bn.track_running_stats = False
    bn.running_mean = bn.running_var = bn.num_batches_tracked = None
    if type(bn) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        does = probe(bn)
        if does.untried or not (does.now.mixes_images and does.in_train.mixes_images):
            raise TypeError(f"{layer_is}, which has no form without stored statistics: replace it.")
    return bn
