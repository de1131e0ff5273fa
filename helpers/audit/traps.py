"""The audit: the layers of a model, and the findings."""

import math
import statistics
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from html import escape
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torchvision.models import get_model_builder, list_models
from torchvision.ops import FeaturePyramidNetwork

from helpers.audit.census import WIRINGS, Count, build, pretrains_the_backbone, without_values
from helpers.norms import is_frozen, norm_layers
from helpers.text import short

USUAL_EPS = 1e-5
EXAMPLES = (1e-2, 1e-3, 1e-4)  # variances to show a scale error at where the model holds none
NAMED = 2  # of a finding's layers, so many names; .layers has all of them
WIDTH = 100

NO_VALUES = (
    "The model holds no values (meta device): eps-zero and never-calibrated, which need them, are "
    "not judged."
)

POOLINGS = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)

POINTWISE = (nn.Linear, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)
TORCHVISION = "torchvision.models."


@dataclass(frozen=True)
class Layer:
    """A normalization layer. What it does not have, or does not tell, is None.

    `channels`: of affine parameters and statistics, so for LayerNorm all it normalizes over.
    `trainable`: whether an affine parameter requires a gradient; the buffers of a frozen layer
    never do. The variances are those of its running statistics, over the channels.
    """

    name: str
    class_name: str
    channels: int | None
    eps: float | None
    momentum: float | None
    training: bool
    trainable: bool | None
    smallest_variance: float | None
    median_variance: float | None


@dataclass(frozen=True)
class Finding:
    """`code` names the trap, `layers` (their names) are in it; `meaning`, `advice` say the rest."""

    code: str
    layers: tuple[str, ...]
    meaning: str
    advice: str

    @property
    def subject(self) -> str:
        """How many layers, with the names of the first ones."""
        named = ", ".join(name or "the model" for name in self.layers[:NAMED])
        more = ", …" if len(self.layers) > NAMED else ""
        return f"{len(self.layers)} layer{'s' * (len(self.layers) != 1)} ({named}{more})"


@dataclass(frozen=True, repr=False)
class Audit:
    """What `audit` found. A notebook and a terminal show the summary, not the layers.

    `model`: the name of its class or builder. `recipe`: the name of what eps was compared with, or
    None. `notes`: sentences about what could not be judged.
    """

    model: str
    layers: tuple[Layer, ...]
    findings: tuple[Finding, ...]
    recipe: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[Count, ...]:
        """How many layers of each class, eps and momentum, as in helpers.audit.census."""
        kinds = Counter((layer.class_name, layer.eps, layer.momentum) for layer in self.layers)
        return tuple(Count(number, *kind) for kind, number in kinds.items())

    @property
    def headline(self) -> str:
        """One sentence: the layers, the findings, and what eps was compared with."""
        kinds = Counter((layer.class_name, layer.eps) for layer in self.layers)
        layers = "; ".join(
            f"{number} {name}" + ("" if eps is None else f", eps {short(eps)}")
            for (name, eps), number in kinds.items()
        )
        found = len(self.findings)
        words = "No findings" if not found else f"{found} finding{'s' * (found != 1)}"
        compared = f", eps compared with {self.recipe}" if self.recipe else ""
        return f"{self.model}: {layers or 'no normalization layers'}. {words}{compared}."

    def to_dict(self) -> dict[str, Any]:
        """All of it in lists, dicts, strings and numbers; a number that is not finite is None."""
        facts = {
            "model": self.model,
            "recipe": self.recipe,
            "counts": [count._asdict() for count in self.counts],
            "findings": [asdict(finding) for finding in self.findings],
            "notes": self.notes,
            "layers": [asdict(layer) for layer in self.layers],
        }
        return _plain(facts)

    def __repr__(self) -> str:
        lines = _wrapped(self.headline)
        for finding in self.findings:
            lines += ["", *_wrapped(f"{finding.code}: {finding.subject}")]
            lines += _wrapped(finding.meaning, "  ") + _wrapped(f"→ {finding.advice}", "  ")
        for note in self.notes:
            lines += ["", *_wrapped(f"Note: {note}")]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        color = "warn" if self.findings else "success"
        parts = [f"<strong>{escape(self.headline)}</strong>"]
        for finding in self.findings:
            parts.append(
                f"<strong>{escape(finding.code)}:</strong> {escape(finding.subject)}<br>"
                f"{escape(finding.meaning)}<br><em>What to do:</em> {escape(finding.advice)}"
            )
        parts += [f"<em>Note:</em> {escape(note)}" for note in self.notes]
        style = f"border-left: 4px solid var(--jp-{color}-color1, currentColor); padding: 2px 0.8em"
        paragraphs = "".join(f'<p style="margin: 0 0 0.6em">{part}</p>' for part in parts)
        return f'<div style="{style}">{paragraphs}</div>'


class Recipe(NamedTuple):
    """A network as trained. `layers`: name, channels and eps of its normalization layers, in order;
    `shapes`: of its convolutions' weights and its normalization layers, in order."""

    name: str
    layers: tuple[tuple[str, int | None, float | None], ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, name: str, model: nn.Module) -> "Recipe":
        """Take the recipe from a model that is built as the one that was trained."""
        layers = norm_layers(model).items()
        facts = [(key, _channels(layer), _eps(layer)) for key, layer in layers]
        return cls(name, tuple(facts), tuple(_shapes(model)))


def audit(
    model: nn.Module, recipe: nn.Module | str | None = None, batch_size: int | None = None
) -> Audit:
    """The normalization layers of `model`, and a finding for every trap that they are in.

    Nothing runs and nothing changes; on the meta device all works that needs no values. Layers are
    those of helpers.norms.norm_layers: modules, so normalization written as a function call is not
    seen. A model wrapped by torch.compile, DataParallel or DistributedDataParallel is looked at
    without its wrapper.

    `recipe`: what the weights were trained as: a model; the name of a torchvision builder, which
    stands for that model with its own weights (for a detector, those from COCO); or None. Then it
    is looked up: torchvision's by the blocks it is built of and their shapes, timm's by its
    `pretrained_cfg`, both as trained on ImageNet. Nothing is looked up for layers that store no
    trained statistics, nor for a torchvision detector whose FPN has been trained: its weights may
    have been trained with the eps they have, as fasterrcnn_mobilenet_v3_large_fpn's from COCO were
    (1e-5, where ImageNet's had 1e-3), or all of v1's ResNet detectors' (0). Layers are matched by
    name, or else by channels and order.

    `batch_size`: images per forward pass and process in training, if known.

    The findings, each once for all layers in the same trap:

    - eps-differs: a layer's eps is not its recipe's. `meaning` has the scale error,
      sqrt((v + eps trained) / (v + eps)), at the smallest running variance v of these layers and
      at the median of their medians.
    - eps-zero: a frozen layer with eps 0 and a running variance below 1e-5.
    - statistics-move: running statistics that train mode updates, in a layer whose affine
      parameters are all frozen, or those of the convolution in front of it: the one registered
      right before it, if it has as many output channels.
    - batch-of-one: a BatchNorm in train mode behind a pooling to 1×1 of the same nn.Sequential,
      with nothing wider than a 1×1 convolution between, unless `batch_size` is above 1. With
      `batch_size` 1 also every other BatchNorm that normalizes by batch statistics; not a
      SyncBatchNorm, whose batch is that of all processes.
    - not-synced: frozen layers in a model that holds a SyncBatchNorm.
    - never-calibrated: a frozen layer with mean 0, variance 1, weight 1 and bias 0 throughout.
    - promotes: a frozen layer whose buffers are of a wider dtype than its convolution.

    TypeError for what is no model, and for a scripted one; ValueError for an unknown name, a recipe
    that does not match, and a batch size below 1.
    """
    model = _unwrapped(model)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, or None if not known, not {batch_size}.")
    found = norm_layers(model)
    layers = tuple(_layer(name, layer) for name, layer in found.items())
    notes = []
    if any(_is_meta(layer) for layer in found.values()):
        notes.append(NO_VALUES)
    if recipe is None:
        known, note = _looked_up(model) if _holds_trained_statistics(found) else (None, "")
        notes += [note] if note else []
    elif isinstance(recipe, nn.Module):
        known = Recipe.of(type(recipe).__name__, _unwrapped(recipe))
    elif isinstance(recipe, str):
        known = _torchvision_recipe(recipe)
    else:
        raise TypeError(f"The recipe must be a model or a name, not {type(recipe).__name__}.")
    pairs = _pairs(layers, known) if known else []
    if recipe is not None and layers and not pairs:
        raise ValueError(
            f"The recipe {known.name} has other normalization layers than {type(model).__name__}: "
            "give one of the same architecture."
        )
    fed_by = _fed_by(model)
    findings = [
        *_eps_differs(pairs, known),
        *_eps_zero(found),
        *_statistics_move(found, fed_by),
        *_batch_of_one(model, found, batch_size),
        *_not_synced(found),
        *_never_calibrated(found),
        *_promotes(model, found, fed_by),
    ]
    compared = known.name if pairs else None
    return Audit(type(model).__name__, layers, tuple(findings), compared, tuple(notes))


def audit_builder(name: str, weights: str = "pretrained", batch_size: int | None = None) -> Audit:
    """The audit of torchvision's builder `name`, wired as census.build does for `weights`.

    It holds no values. Where only its backbone is pretrained, eps is compared with what that was
    trained with; otherwise with nothing: the builder itself is the recipe of its own weights.
    ValueError for an unknown name or weights.
    """
    model = build(name, weights)
    recipe = _torchvision_body(model) if pretrains_the_backbone(name, weights) else None
    found = audit(model, recipe and recipe.name, batch_size)
    return replace(found, model=f"{name}, {WIRINGS.get(weights, weights)}")


def _unwrapped(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch.compile's
            model = model._orig_mod
        else:
            break
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            "A scripted model hides the classes of its layers: audit it before torch.jit.script."
        )
    return model


# One layer


def _layer(name: str, layer: nn.Module) -> Layer:
    variance = _values(layer, "running_var")
    parameters = list(layer.parameters(recurse=False))
    frozen = is_frozen(layer)
    return Layer(
        name,
        type(layer).__name__,
        _channels(layer),
        _eps(layer),
        getattr(layer, "momentum", None),
        layer.training,
        any(p.requires_grad for p in parameters) if parameters or frozen else None,
        None if variance is None else variance.min().item(),
        None if variance is None else variance.median().item(),
    )


def _channels(layer: nn.Module) -> int | None:
    for attribute in ("num_features", "num_channels", "normalized_shape"):
        if channels := getattr(layer, attribute, None):
            return channels if isinstance(channels, int) else math.prod(channels)
    statistics = getattr(layer, "running_var", None)
    return None if statistics is None or is_lazy(statistics) else len(statistics)


def _eps(layer: nn.Module) -> float | None:
    eps = getattr(layer, "eps", None)
    return None if eps is None else float(eps)


def _values(layer: nn.Module, name: str) -> torch.Tensor | None:
    """A float64 (C,) on the CPU, or None: not there, lazy, empty, or on the meta device."""
    tensor = getattr(layer, name, None)
    if tensor is None or is_lazy(tensor) or tensor.is_meta or not tensor.numel():
        return None
    return tensor.detach().cpu().double()


def _is_meta(layer: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in (*layer.parameters(), *layer.buffers()))


def _uses_batch_statistics(layer: nn.Module) -> bool:
    if not isinstance(layer, _BatchNorm) or is_frozen(layer):
        return False
    return layer.training or layer.running_mean is None


# What stands around it


def _fed_by(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Normalization layer → the convolution or linear layer registered right before it.

    Only where its output channels are as many as the layer has.
    """
    fed_by, norms, last = {}, set(norm_layers(model).values()), None
    for module in model.modules():
        if module in norms:
            if last is not None and _channels(module) == _out_channels(last):
                fed_by[module] = last
            last = None
        elif isinstance(module, _ConvNd | nn.Linear):
            last = module
    return fed_by


def _out_channels(module: nn.Module) -> int:
    return module.out_channels if isinstance(module, _ConvNd) else module.out_features


def _is_fixed(module: nn.Module) -> bool:
    """Whether it has parameters, and none requires a gradient."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _behind_global_pooling(model: nn.Module) -> set[nn.Module]:
    """BatchNorm layers that see one value per channel and image, as far as nn.Sequential tells."""
    found = set()
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            pooled = False
            for leaf in _leaves(module):
                if isinstance(leaf, POOLINGS):
                    size = leaf.output_size
                    pooled = all(n == 1 for n in (size if isinstance(size, tuple) else (size,)))
                elif isinstance(leaf, _ConvNd):
                    pooled &= all(n == 1 for n in leaf.kernel_size) and not any(leaf.padding)
                elif isinstance(leaf, _BatchNorm):
                    found |= {leaf} if pooled else set()
                else:
                    pooled &= isinstance(leaf, POINTWISE) or _is_activation(leaf)
    return found


def _leaves(sequential: nn.Sequential) -> Iterator[nn.Module]:
    for child in sequential:
        yield from _leaves(child) if isinstance(child, nn.Sequential) else (child,)


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.activation"


# The recipe


@lru_cache
def _torchvision_recipe(name: str) -> Recipe:
    return Recipe.of(name, build(name, "DEFAULT"))


@lru_cache
def _timm_recipe(architecture: str | None) -> Recipe | None:
    timm = sys.modules["timm"]
    if architecture is None or not timm.is_model(architecture):
        return None
    return Recipe.of(f"timm's {architecture}", without_values(timm.create_model, architecture))


def _looked_up(model: nn.Module) -> tuple[Recipe | None, str]:
    """What the model's class tells of its recipe, or why it is not used."""
    for module in model.modules():
        configuration = getattr(module, "pretrained_cfg", None)
        if type(module).__module__.startswith("timm.models.") and isinstance(configuration, dict):
            return _timm_recipe(configuration.get("architecture")), ""
    recipe = _torchvision_body(model)
    if recipe and _fpn_is_trained(model):
        return None, (
            "The FPN has been trained, and the backbone perhaps with the eps it has, so eps is not "
            f"compared: audit(model, {recipe.name!r}) compares it with ImageNet's."
        )
    return recipe, ""


def _torchvision_body(model: nn.Module) -> Recipe | None:
    """The classification network of torchvision whose blocks and shapes the model has, if any."""
    homes = {base.__module__ for m in model.modules() for base in type(m).__mro__}
    homes = {home for home in homes if home.count(".") == 2 and home.startswith(TORCHVISION)}
    shapes, best, share = _shapes(model), None, 0.5
    for name in list_models():
        if get_model_builder(name).__module__ in homes:
            recipe = _torchvision_recipe(name)
            matched = sum(block.size for block in _blocks(shapes, recipe.shapes))
            if matched / len(recipe.shapes) > share:
                best, share = recipe, matched / len(recipe.shapes)
    return best


def _fpn_is_trained(model: nn.Module) -> bool:
    fpns = (module for module in model.modules() if isinstance(module, FeaturePyramidNetwork))
    biases = (p for fpn in fpns for name, p in fpn.named_parameters() if name.endswith("bias"))
    return any(not bias.is_meta and bool(bias.any()) for bias in biases)


def _holds_trained_statistics(found: dict[str, nn.Module]) -> bool:
    return any(
        (values := _values(layer, name)) is not None and bool((values != start).any())
        for layer in found.values()
        for name, start in (("running_mean", 0), ("running_var", 1))
    )


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    norms = set(norm_layers(model).values())
    return [
        (_channels(module),) if module in norms else tuple(module.weight.shape)
        for module in model.modules()
        if module in norms or isinstance(module, _ConvNd) and not is_lazy(module.weight)
    ]


def _blocks(a: Iterable, b: Iterable) -> list:
    return SequenceMatcher(None, list(a), list(b), autojunk=False).get_matching_blocks()


def _pairs(layers: tuple[Layer, ...], recipe: Recipe) -> list[tuple[Layer, float | None]]:
    """Each layer that the recipe has, with the eps it has there; empty if they do not match.

    They match if more than half of the recipe's layers are there, by name or in one run.
    """
    there = {name: (channels, eps) for name, channels, eps in recipe.layers}
    named = [layer for layer in layers if layer.name in there]
    if 2 * len(named) > len(there) and all(there[x.name][0] == x.channels for x in named):
        return [(layer, there[layer.name][1]) for layer in named]
    blocks = _blocks(
        (layer.channels for layer in layers), (channels for _, channels, _ in recipe.layers)
    )
    if 2 * max(block.size for block in blocks) <= len(there):
        return []
    return [
        (layers[block.a + i], recipe.layers[block.b + i][2])
        for block in blocks
        for i in range(block.size)
    ]


# The findings


def _eps_differs(
    pairs: list[tuple[Layer, float | None]], recipe: Recipe | None
) -> Iterator[Finding]:
    groups: dict[tuple[float, float], list[Layer]] = {}
    for layer, trained in pairs:
        if None not in (layer.eps, trained) and not math.isclose(layer.eps, trained, rel_tol=1e-5):
            groups.setdefault((layer.eps, trained), []).append(layer)
    for (own, trained), layers in groups.items():
        variances = [x.smallest_variance for x in layers if x.smallest_variance is not None]
        if variances:
            median = statistics.median(
                x.median_variance for x in layers if x.median_variance is not None
            )
            at = {"smallest": min(variances), "median": median}
            where = [f"at their {which} v, {short(v)}" for which, v in at.items()]
            errors = [_scale_error(v, trained, own) for v in at.values()]
        else:
            where = [f"at v = {short(v)}" for v in EXAMPLES]
            errors = [_scale_error(v, trained, own) for v in EXAMPLES]
        examples = ", ".join(f"{e} {w}" for e, w in zip(errors, where, strict=True))
        yield Finding(
            "eps-differs",
            tuple(layer.name for layer in layers),
            f"They have eps {short(own)}; the weights of {recipe.name} were trained with "
            f"{short(trained)}. Their scale is off by sqrt({_plus(trained)} / {_plus(own)}), v the "
            f"running variance: {examples}.",
            f"Set eps of these layers to {short(trained)}, or build the model with norm_layer="
            f"partial({layers[0].class_name}, eps={short(trained)}); for weights trained "
            "otherwise, give their recipe.",
        )


def _plus(eps: float) -> str:
    return f"(v + {short(eps)})" if eps else "v"


def _scale_error(variance: float, trained: float, own: float) -> str:
    """×1.41, or +0.5 % where it is small."""
    if variance + own <= 0:
        return "×∞"
    factor = math.sqrt((variance + trained) / (variance + own))
    if not abs(factor - 1) < 0.1:
        return f"×{short(factor)}"
    percent = 100 * abs(factor - 1)
    sign = "+" if factor > 1 else "−"
    return f"{sign}{short(percent, 2)} %" if percent >= 0.01 else "less than 0.01 %"


def _eps_zero(found: dict[str, nn.Module]) -> Iterator[Finding]:
    names, small, channels = [], [], 0
    for name, layer in found.items():
        variance = _values(layer, "running_var")
        if is_frozen(layer) and _eps(layer) == 0 and variance is not None:
            if (variance < USUAL_EPS).any():
                names.append(name)
                small.append(variance[variance < USUAL_EPS])
                channels += len(variance)
    if names:
        small = torch.cat(small)
        lowest = small.min().item()
        gain = f"{short(lowest**-0.5)}" if lowest > 0 else "infinite, and NaN comes out"
        yield Finding(
            "eps-zero",
            tuple(names),
            f"Frozen with eps 0, and {len(small)} of their {channels} channels have a running "
            f"variance below {short(USUAL_EPS)}, down to {short(lowest)}: there the gain "
            f"1/sqrt(v) is up to {gain}.",
            "Set eps to what the weights were trained with. If that was 0, as for the COCO weights "
            "of torchvision's v1 detectors, keep these layers in float32: float16 has no such "
            "variances but 0.",
        )


def _statistics_move(
    found: dict[str, nn.Module], fed_by: dict[nn.Module, nn.Module]
) -> Iterator[Finding]:
    names = [
        name
        for name, layer in found.items()
        if isinstance(layer, _NormBase)
        and not is_frozen(layer)
        and layer.training
        and layer.track_running_stats
        and layer.momentum != 0
        and (_is_fixed(layer) or layer in fed_by and _is_fixed(fed_by[layer]))
    ]
    if names:
        yield Finding(
            "statistics-move",
            tuple(names),
            "Their affine parameters, or the convolution in front, take no gradient; yet they are "
            "in train mode, where every forward pass moves their running statistics.",
            "Call eval() on these layers after every model.train(), or freeze them "
            "(helpers.norms.freeze). torchvision's v2 detectors are built so on purpose, to be "
            "trained with SyncBatchNorm (issue #6543).",
        )


def _batch_of_one(
    model: nn.Module, found: dict[str, nn.Module], batch_size: int | None
) -> Iterator[Finding]:
    if batch_size is not None and batch_size > 1:
        return
    pooled = _behind_global_pooling(model)
    refused = [n for n, x in found.items() if x in pooled and _uses_batch_statistics(x)]
    if refused:
        yield Finding(
            "batch-of-one",
            tuple(refused),
            "Behind a pooling to 1×1 they normalize one value per channel and image by statistics "
            "of the batch: torch refuses a batch of one image.",
            "Train with two images or more in every batch, the last one of an epoch too "
            "(drop_last=True), or put these layers in eval mode.",
        )
    alone = [
        name
        for name, layer in found.items()
        if _uses_batch_statistics(layer)
        and not isinstance(layer, nn.SyncBatchNorm)
        and name not in refused
    ]
    if batch_size == 1 and alone:
        yield Finding(
            "batch-of-one",
            tuple(alone),
            "With one image per batch they normalize every image by its own statistics, which the "
            "running ones, used in eval mode, do not match.",
            "Freeze these layers, convert them to SyncBatchNorm when training on several devices, "
            "or use GroupNorm, which knows no batch.",
        )


def _not_synced(found: dict[str, nn.Module]) -> Iterator[Finding]:
    frozen = [name for name, layer in found.items() if is_frozen(layer)]
    if frozen and any(isinstance(layer, nn.SyncBatchNorm) for layer in found.values()):
        yield Finding(
            "not-synced",
            tuple(frozen),
            "The model holds SyncBatchNorm, but the conversion passes over frozen layers: these "
            "go on with stored statistics and are not synchronized.",
            "If they are to stay frozen, nothing; otherwise unfreeze them (helpers.norms.unfreeze) "
            "before convert_sync_batchnorm.",
        )


def _never_calibrated(found: dict[str, nn.Module]) -> Iterator[Finding]:
    names = [n for n, layer in found.items() if is_frozen(layer) and _does_nothing(layer)]
    if names:
        yield Finding(
            "never-calibrated",
            tuple(names),
            "Frozen with mean 0, variance 1, weight 1 and bias 0, as they were made: they do "
            "nothing, and never will.",
            "Load trained weights, or build the model with BatchNorm2d (norm_layer=) and freeze "
            "it after training or calibrating it.",
        )


def _does_nothing(layer: nn.Module) -> bool:
    starts = {"running_mean": 0, "running_var": 1, "weight": 1, "bias": 0}
    values = {name: _values(layer, name) for name in starts}
    return values["running_var"] is not None and all(
        tensor is None or bool((tensor == starts[name]).all()) for name, tensor in values.items()
    )


def _promotes(
    model: nn.Module, found: dict[str, nn.Module], fed_by: dict[nn.Module, nn.Module]
) -> Iterator[Finding]:
    everywhere = {module.weight.dtype for module in model.modules() if isinstance(module, _ConvNd)}
    groups: dict[tuple[torch.dtype, torch.dtype], list[str]] = {}
    for name, layer in found.items():
        if not is_frozen(layer) or _casts(layer) or _channels(layer) is None:
            continue
        own, given = layer.running_var.dtype, everywhere
        if layer in fed_by:
            given = {fed_by[layer].weight.dtype}
        if len(given) == 1 and torch.promote_types(own, *given) not in given:
            groups.setdefault((own, *given), []).append(name)
    for (own, given), names in groups.items():
        own, given, out = (
            str(dtype).removeprefix("torch.")
            for dtype in (own, given, torch.promote_types(own, given))
        )
        yield Finding(
            "promotes",
            tuple(names),
            f"Their buffers are {own}, the convolutions {given}: they turn {given} into {out}, "
            "which the next convolution refuses. Under autocast a frozen layer does the same, even "
            "in a float32 model, and costs memory; BatchNorm2d keeps the dtype of its input.",
            f"Convert the whole model, these layers included: model.to(torch.{given}). Or make "
            "them BatchNorm2d in eval mode (helpers.norms.unfreeze).",
        )


def _casts(layer: nn.Module) -> bool:
    """detectron2's frozen layer casts scale and shift to the input's dtype."""
    return type(layer).__module__.startswith("detectron2.")


# The command line


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
