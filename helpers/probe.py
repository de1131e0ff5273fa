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
HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks"
IMAGES = 4


class Mode(NamedTuple):
    """What a layer does in train or eval mode; None where it was not tried.

    `mixes_images`: an output depends on other images of the batch. `statistics_move`: a forward
    pass changes its buffers. `refuses_one_value`: it takes no batch of one value per channel.
    """

    mixes_images: bool | None = None
    statistics_move: bool | None = None
    refuses_one_value: bool | None = None


class Behavior(NamedTuple):
    """What a layer does: `now`, after train() and after eval(); `untried` says why it was not run.

    `eps` is solved from outputs if `eps_measured`, else told by an attribute. `eps_settable`: the
    layer uses its attribute `eps`. `affine_trains`: a weight or bias gets a gradient; None without
    them. `dtypes`: what comes out of float16 and bfloat16; None where it refuses them.
    """

    untried: str
    now: Mode
    in_train: Mode
    in_eval: Mode
    eps: float | None
    eps_measured: bool
    eps_settable: bool
    affine_trains: bool | None
    dtypes: dict[torch.dtype, torch.dtype | None]

    @property
    def is_frozen(self) -> bool:
        """Whether no mode mixes images or moves statistics."""
        return not any((*self.now[:2], *self.in_train[:2]))

    @property
    def is_held_by_eval(self) -> bool:
        """Whether it neither mixes images nor moves statistics, but would after train()."""
        return not any(self.now[:2]) and any(self.in_train[:2])


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Find the normalization layers of a model: qualified name → layer, in order of registration.

    A layer is of a known class, holds running statistics, or shows with small inputs that it
    normalizes. A shared layer appears once, under its first name; the model itself under "".
    """
    return {name: module for name, module in model.named_modules() if is_norm_layer(module)}


def is_norm_layer(module: nn.Module) -> bool:
    """Tell whether a module is a normalization layer; see `norm_layers`."""
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
    for name in ("running_var", "weight", "num_features", "num_channels"):
        value = getattr(layer, name, None)
        if isinstance(value, Tensor) and not is_lazy(value):
            return value.numel()
        if isinstance(value, int) and value:
            return value
    sizes = {p.numel() for p in layer.parameters(recurse=False) if not is_lazy(p)}
    return sizes.pop() if len(sizes) == 1 else None


def told_eps(layer: nn.Module) -> float | None:
    """The eps that a layer's attributes tell; None where none does."""
    for name in ("eps", "epsilon", "variance_epsilon"):
        if isinstance(value := getattr(layer, name, None), int | float):
            return float(value)
    return None


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


@torch.no_grad()
def probe(layer: nn.Module) -> Behavior:
    """Run copies of a layer on 4 small images; the layer and the random state stay.

    Where it cannot be run (no values, no input that it takes), its class and attributes tell.
    """
    told = _told(layer)
    if any(is_lazy(t) or t.is_meta for t in (*layer.parameters(), *layer.buffers())):
        return told._replace(untried="they hold no values")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the GPUs, too
        warnings.simplefilter("ignore")  # on mixed dtypes
        if (shape := _shape(layer)) is None:
            return told._replace(untried="no input was found that they take")
        try:
            return _tried(layer, shape, told)
        except Exception as error:  # the layer is not ours
            return told._replace(untried=f"when tried, they raise {type(error).__name__}")


def _told(layer: nn.Module) -> Behavior:
    by_batch = isinstance(layer, _BatchNorm) and not _is_called_frozen(layer)
    stored = getattr(layer, "running_mean", None) is not None
    moves = by_batch and stored and layer.track_running_stats and layer.momentum != 0
    in_train, in_eval = Mode(by_batch, moves), Mode(by_batch and not stored, False)
    settable = isinstance(getattr(layer, "eps", None), int | float)
    own = [*layer.parameters(recurse=False)]
    affine = own or isinstance(layer._buffers.get("weight"), Tensor)
    trains = any(p.requires_grad for p in own) if affine else None
    now = in_train if layer.training else in_eval
    return Behavior("", now, in_train, in_eval, told_eps(layer), False, settable, trains, {})


def _tried(layer: nn.Module, shape: tuple[int, ...], told: Behavior) -> Behavior:
    in_train, in_eval = (_mode(layer, shape, training) for training in (True, False))
    other = _twin(layer, None)
    with suppress(AttributeError):  # a property
        other.eps = 0.25
    eps = _eps(layer, shape)
    outputs = {half: _output(_twin(layer, None), torch.rand(shape).to(half)) for half in HALVES}
    return told._replace(
        now=in_train if layer.training else in_eval,
        in_train=in_train,
        in_eval=in_eval,
        eps=told.eps if eps is None else eps,
        eps_measured=eps is not None,
        eps_settable=eps is not None and _eps(other, shape) == 0.25,
        affine_trains=told.affine_trains and _gets_gradient(_twin(layer), shape),
        dtypes={half: None if y is None else y.dtype for half, y in outputs.items()},
    )


def _is_called_frozen(layer: nn.Module) -> bool:
    return any("FrozenBatchNorm" in base.__name__ for base in type(layer).__mro__)


def _twin(layer: nn.Module, dtype: torch.dtype | None = torch.float64) -> nn.Module:
    """A copy on the CPU that shares no tensor, has no hooks, and scales and shifts no channel."""
    twin = copy.copy(layer)
    if isinstance(layer, nn.SyncBatchNorm) and not _is_called_frozen(layer):  # runs on GPUs only
        twin.__class__, twin._check_input_dim = nn.BatchNorm2d, lambda _: None
    empty = {table: {} for table in HOOKS}
    children = {name: child and _twin(child, dtype) for name, child in layer._modules.items()}
    parameters, buffers = dict(layer._parameters), dict(layer._buffers)
    vars(twin).update(empty, _parameters=parameters, _buffers=buffers, _modules=children)
    for held in (vars(twin), parameters, buffers):
        for name, t in held.items():
            if isinstance(t, Tensor):
                clone = t.detach().cpu().clone().to(dtype if t.is_floating_point() else None)
                if name in START:
                    clone.fill_(START[name])
                parameter = isinstance(t, nn.Parameter)
                held[name] = nn.Parameter(clone, t.requires_grad) if parameter else clone
    return twin


def _output(layer: nn.Module, x: Tensor) -> Tensor | None:
    try:
        return layer(x)
    except Exception:  # a layer refuses an input in any way it likes
        return None


def _shape(layer: nn.Module) -> tuple[int, ...] | None:
    """An input shape that it takes and gives back: (N,C,H,W) if possible."""
    if (count := channels(layer)) is None:
        return None
    last = layer.normalized_shape if isinstance(layer, nn.LayerNorm | nn.RMSNorm) else (count,)
    for sizes in ((count, 2, 2), (count,), (count, 2), (count, 2, 2, 2), (2, *last)):
        y = _output(_twin(layer), torch.rand(IMAGES, *sizes, dtype=torch.float64))
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


def _gets_gradient(twin: nn.Module, shape: tuple[int, ...]) -> bool:
    with torch.enable_grad():
        y = twin(torch.rand(shape, dtype=torch.float64))
        if y.requires_grad:
            (y * torch.rand_like(y)).sum().backward()
    return any(p.grad is not None and bool(p.grad.any()) for p in twin.parameters(recurse=False))
