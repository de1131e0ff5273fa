"""What a normalization layer does, found by trying it alone, on a copy, with small inputs."""

import copy
import warnings
from contextlib import suppress
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import is_lazy

KNOWN = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
START = {"running_mean": 0.0, "running_var": 1.0, "weight": 1.0, "bias": 0.0}
HALVES = (torch.float16, torch.bfloat16)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
IMAGES = 4


class Mode(NamedTuple):
    """Outputs depend on other images; buffers change; one value per channel is refused."""

    mixes_images: bool
    statistics_move: bool
    refuses_one_value: bool | None = None


class Behavior(NamedTuple):
    """What a layer does: `now`, after train() and after eval(); `untried` says why it was not run.

    `eps` is solved from outputs if `eps_measured`, else an attribute, and `eps_settable` by that.
    `affine_trains`: a weight or bias gets a gradient; None without them. `dtypes`: what comes out
    of float16 and bfloat16; None where it refuses them.
    """

    now: Mode
    in_train: Mode
    in_eval: Mode
    eps: float | None
    affine_trains: bool | None
    eps_settable: bool
    eps_measured: bool = False
    dtypes: dict[torch.dtype, torch.dtype | None] = {}
    untried: str = ""

    @property
    def is_frozen(self) -> bool:
        """Whether no mode mixes images or moves statistics."""
        return not any((*self.now[:2], *self.in_train[:2]))


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Find the normalization layers, each once: first name → layer; the model is under ""."""
    return {name: module for name, module in model.named_modules() if is_norm_layer(module)}


def is_norm_layer(module: nn.Module) -> bool:
    """Tell whether a module is of a known class, holds statistics, or normalizes small inputs."""
    if isinstance(module, KNOWN) or has_statistics(module):
        return True
    own = [p for p in module.parameters(recurse=False) if not is_lazy(p)]
    if any(module.children()) or not own or any(p.is_meta for p in own):
        return False
    return all(p.dim() and p.numel() == max(p.shape) for p in own) and _normalizes(module)


def has_statistics(module: nn.Module) -> bool:
    """Tell whether a module holds running statistics, as parameters, buffers or lazy ones."""
    held = module._buffers.keys() | module._parameters.keys()
    return {"running_mean", "running_var"} <= held and module.running_var is not None


def channels(layer: nn.Module) -> int | None:
    """How many values its statistics or affine parameters hold; None where it has neither."""
    told = (getattr(layer, n, 0) for n in ("running_var", "weight", "num_features", "num_channels"))
    own = [*layer.parameters(recurse=False)] or [t for t in layer.buffers(recurse=False) if t.dim()]
    sizes = {t.numel() for t in own if not is_lazy(t)}
    counts = [t.numel() if isinstance(t, Tensor) else t for t in told if not is_lazy(t)]
    counts += sizes if len(sizes) == 1 else ()
    return next((count for count in counts if isinstance(count, int) and count), None)


def left_behind(model: nn.Module) -> dict[int, Tensor]:
    """A memo for deepcopy: what a forward pass left in attributes, without its graph."""
    held = (value for module in model.modules() for value in vars(module).values())
    return {id(t): t.detach().clone() for t in held if isinstance(t, Tensor) and not t.is_leaf}


def told_eps(layer: nn.Module) -> float | None:
    """The eps that a layer's attributes tell; None where none does."""
    told = (getattr(layer, name, None) for name in ("eps", "epsilon", "variance_epsilon"))
    return next((float(eps) for eps in told if isinstance(eps, int | float)), None)


def probe_all(layers: dict[str, nn.Module]) -> dict[str, Behavior]:
    """Try every layer, by name; of layers that differ in tensors' values and size only, one."""
    kinds = {name: _kind(layer) for name, layer in layers.items()}
    examples = {kind: layers[name] for name, kind in kinds.items()}
    tried = {kind: probe(layer) for kind, layer in examples.items()}
    return {name: tried[kind] for name, kind in kinds.items()}


def _kind(layer: nn.Module) -> tuple:
    sizes = (f"{channels(layer)}", f"({channels(layer)},)")
    facts = {n: id(v) if callable(v) else repr(v) for n, v in vars(layer).items() if n[0] != "_"}
    facts = {name: fact for name, fact in facts.items() if fact not in sizes}
    for name, t in (layer._parameters | layer._buffers).items():
        facts[name] = t is None or (t.dtype, t.device.type, t.requires_grad)
    facts |= {name: child and _kind(child) for name, child in layer._modules.items()}
    return type(layer), *facts.items()


@torch.inference_mode(False)
@torch.no_grad()
def probe(layer: nn.Module) -> Behavior:
    """Run copies of a layer on 4 small images; where that cannot be, class and attributes tell."""
    told = _told(layer)
    if any(is_lazy(t) or t.is_meta for t in (*layer.parameters(), *layer.buffers())):
        return told._replace(untried="they hold no values")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the GPUs, too
        warnings.simplefilter("ignore")  # on mixed dtypes
        try:
            return _tried(layer, told)
        except Exception as error:  # the layer is not ours
            return told._replace(untried=f"when tried, they raise {type(error).__name__}")


def _told(layer: nn.Module) -> Behavior:
    named_frozen = any("FrozenBatchNorm" in base.__name__ for base in type(layer).__mro__)
    by_batch = isinstance(layer, _BatchNorm) and not named_frozen
    stored = getattr(layer, "running_mean", None) is not None
    moves = by_batch and stored and layer.track_running_stats and layer.momentum != 0
    in_train, in_eval = Mode(by_batch, moves), Mode(by_batch and not stored, False)
    own = [p.requires_grad for p in layer.parameters(recurse=False)]
    trains = any(own) if own or layer._buffers.get("weight") is not None else None
    settable = isinstance(getattr(layer, "eps", None), int | float)
    now = in_train if layer.training else in_eval
    return Behavior(now, in_train, in_eval, told_eps(layer), trains, settable)


def _tried(layer: nn.Module, told: Behavior) -> Behavior:
    if (shape := _shape(layer)) is None:
        return told._replace(untried="no input was found that they take")
    in_train, in_eval = (_mode(layer, shape, training) for training in (True, False))
    now, eps, other = in_train if layer.training else in_eval, _eps(layer, shape), _twin(layer)
    with suppress(AttributeError, TypeError):  # a property, a buffer
        other.eps = 0.25
    settable = eps is not None and _eps(other, shape) == 0.25
    twin = _twin(layer)
    with torch.enable_grad():
        y = twin(torch.rand(shape, dtype=torch.float64))
        if y.requires_grad:
            (y * torch.rand_like(y)).sum().backward()
    gradients = [p.grad for p in twin.parameters(recurse=False) if p.grad is not None]
    trains = told.affine_trains and any(bool(gradient.any()) for gradient in gradients)
    dtypes = {h: getattr(_output(layer, torch.rand(shape).to(h)), "dtype", None) for h in HALVES}
    known = (told.eps, False) if eps is None else (eps, True)
    return Behavior(now, in_train, in_eval, known[0], trains, settable, known[1], dtypes)


def _twin(layer: nn.Module, double: bool = True) -> nn.Module:
    """A copy on the CPU that has no hooks, and scales and shifts no channel."""
    hooks = {id(vars(m)[table]): {} for m in layer.modules() for table in HOOKS}
    twin = copy.deepcopy(layer, hooks | left_behind(layer)).cpu()
    for module in twin.modules():
        if type(module) is nn.SyncBatchNorm:  # runs on GPUs only
            module.__class__ = nn.BatchNorm2d
        for name, t in (module._parameters | module._buffers).items():
            if name in START and t is not None:
                t.data.fill_(START[name])
    return twin.double() if double else twin


def _output(layer: nn.Module, x: Tensor) -> Tensor | None:
    with suppress(Exception):  # a layer refuses an input, or a copy, in any way it likes
        return _twin(layer, x.dtype is torch.float64)(x)


def _shape(layer: nn.Module) -> tuple[int, ...] | None:
    """An input shape that it takes and gives back: (N,C,H,W) if possible."""
    if (count := channels(layer)) is None:
        return None
    last = layer.normalized_shape if isinstance(layer, nn.LayerNorm | nn.RMSNorm) else (count,)
    for sizes in ((count, 2, 2), (count,), (count, 2), (count, 2, 2, 2), (2, *last)):
        y = _output(layer, torch.rand(IMAGES, *sizes, dtype=torch.float64))
        if getattr(y, "shape", None) == (IMAGES, *sizes):
            return y.shape
    return None


@torch.no_grad()
def _normalizes(module: nn.Module) -> bool:
    """Whether twice the input gives the same output, and another input another one."""
    with torch.random.fork_rng(devices=[]):
        if (shape := _shape(module)) is None:
            return False
        a, b = (100 * torch.rand(shape, dtype=torch.float64) for _ in range(2))
        once, twice, other = map(_twin(module).train(), (a, 2 * a, b))
    return torch.allclose(once, twice, rtol=1e-2) and not torch.allclose(once, other, rtol=1e-2)


def _mode(layer: nn.Module, shape: tuple[int, ...], training: bool) -> Mode:
    x, others = (1 + torch.rand(shape, dtype=torch.float64) for _ in range(2))
    others[0] = x[0]
    twin, again = (_twin(layer).train(training) for _ in range(2))
    before = [t.clone() for t in twin.buffers()]
    mixes = not torch.allclose(twin(x)[0], again(others)[0], equal_nan=True)
    pairs = zip(before, twin.buffers(), strict=True)
    moved = any(a.is_floating_point() and not torch.equal(a, b) for a, b in pairs)
    one = torch.rand(1, shape[1], *(1 for _ in shape[2:]), dtype=torch.float64)
    return Mode(mixes, moved, mixes and _output(again, one) is None)


def _eps(layer: nn.Module, shape: tuple[int, ...]) -> float | None:
    """Solved from y² = x² / (variance + eps); None where two variances give two answers."""
    if getattr(layer, "eps", 0) is None:  # torch's RMSNorm: that of the input's dtype
        return None
    indices = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    alternating = (-1.0) ** sum(indices).double()

    def solve(training: bool, size: float | None, variance: float) -> float:
        twin = _twin(layer).train(training)
        if has_statistics(twin):
            twin.running_var.fill_(variance)
        size = variance**0.5 if size is None else size  # so that it is the input's variance, too
        return (size**2 / twin(size * alternating).abs().max() ** 2 - variance).item()

    # An activation in the layer may clip the large, or bend the small.
    for training, size in product((layer.training, False), (1e4, 1e-4, None)):
        first = solve(training, size, 1e-30)
        again = solve(training, size, max(first, 1e-5))
        if abs(first - again) <= 1e-3 * max(abs(first), 1e-9):
            return float(f"{first:.5g}") if first > 1e-13 else 0.0
    return None
