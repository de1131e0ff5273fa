"""Two networks, one input: where do their feature maps part, and by how much."""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from helpers.audit.traps import unwrapped
from helpers.inputs.pixels import check_image
from helpers.norms.folding import same_tensors
from helpers.probe import left_behind, norm_layers
from helpers.stages import body, stages
from helpers.text import Table, short, table

ROUNDING = 1e-5  # float32 networks that compute one function part by less, relative to max|A|


class Row(NamedTuple):
    """How far the feature map of B is from that of A at one point, over all their elements.

    `max_abs`: max|A−B|; `mean_abs`: mean|A−B|; `relative`: max|A−B| / max|A|; `rounding`: the
    relative difference that rounding can make, in the coarser of both dtypes.
    """

    shape: tuple[int, ...]
    max_abs: float
    mean_abs: float
    relative: float
    rounding: float

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> "Row":
        """Measure two feature maps in floating point; ValueError for different shapes."""
        if a.shape != b.shape:
            raise ValueError(
                f"A gives {tuple(a.shape)} and B {tuple(b.shape)}: "
                "only feature maps of the same shape can be compared."
            )
        difference, size = a - b, _largest(a)
        max_abs = _largest(difference)
        relative = max_abs / size if size else (0.0 if max_abs == 0 else float("inf"))
        coarser = max(torch.finfo(tensor.dtype).eps for tensor in (a, b))
        rounding = ROUNDING * coarser / torch.finfo(torch.float32).eps
        mean_abs = difference.abs().mean().item()
        return cls(tuple(a.shape), max_abs, mean_abs, relative, rounding)

    def cells(self) -> tuple[str, ...]:
        """Return shape and differences as text, without digits where they are only rounding."""
        shape = " × ".join(map(str, self.shape))
        if self.relative <= self.rounding:
            # The digits of a rounding difference belong to the processor, not to the networks.
            return shape, "rounding", "rounding", f"≤ {short(self.rounding, 1)}"
        return shape, short(self.max_abs), short(self.mean_abs), short(self.relative)


class Comparison(dict[str, Row]):
    """A dictionary point → `Row`, in the order of the forward pass, shown as a table.

    `points` says what a point is: "stage", "normalization layer", or "module" for asked names.
    """

    def __init__(self, rows: Mapping[str, Row], points: str = "point"):
        super().__init__(rows)
        self.points = points

    def table(self) -> Table:
        """Lay out the rows."""
        header = (self.points, "shape", "max|A−B|", "mean|A−B|", "relative")
        return table([(point, *row.cells()) for point, row in self.items()], header)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def compare(
    model_a: nn.Module,
    model_b: nn.Module,
    image: Tensor,
    at: str | Iterable[str] | None = None,
    dtype: torch.dtype | str | None = None,
) -> Comparison:
    """Compare the feature maps of two networks, run in eval mode on the same image.

    `image`: floating point (N,3,H,W). Each network gets it in its own dtype and on its own device,
    so a float32 network can be compared with its float64 twin. `dtype`: run a copy of each network
    in this dtype instead; "float64" shows what is left without the rounding of float32.
    `at`: "stage" for stem, layer1 … layer4; "norm" for every normalization layer of either network;
    or the names of modules that run once per forward pass. Without it, the stages that both have
    are compared; where one has none, the normalization layers of the same name that run once. For
    names the image goes into the model as given; otherwise into the body of a detector, without the
    detector's own transform.

    Wrappers (torch.compile, DataParallel, DistributedDataParallel, AveragedModel) are looked
    through, and hooks count. Both models keep their training flags, statistics and hooks.
    Raises TypeError for what is not a network, for a traced or scripted one, and for what is not a
    floating point image or dtype; ValueError for a wrong shape, a value that is not finite, an
    unknown dtype, a point that one network lacks, and feature maps of different shape.
    """
    model_a, model_b = unwrapped(model_a), unwrapped(model_b)
    if any(is_lazy(t) or t.is_meta for m in (model_a, model_b) for t in same_tensors(m).values()):
        raise ValueError("A network holds no values (meta device, or lazy): load weights first.")
    check_image(image, (4,), finite=True)
    dtype = _dtype(dtype)
    if at in (None, "stage", "norm"):
        model_a, model_b = body(model_a), body(model_b)
    points, points_a, points_b = _points(model_a, model_b, at)
    # Of layers that nobody asked for, some may run in training only, or more than once.
    every = at is not None or points == "stage"

    maps_a: dict[str, Tensor] = {}
    rows: dict[str, Row] = {}

    def keep(point, feature_map):
        maps_a[point] = feature_map.clone()  # in-place ReLU and add overwrite the original

    def measure(point, b):
        try:
            rows[point] = Row.of(maps_a.pop(point).to(b.device), b)
        except ValueError as error:
            raise ValueError(f"At {point} {error}") from None

    once_a = _run("A", model_a, image, points_a, keep, dtype, every)
    once_b = _run("B", model_b, image, {p: points_b[p] for p in once_a}, measure, dtype, every)
    if not once_b:
        reason = "no stages, nor normalization layers of the same name that run once"
        raise ValueError(f"The networks have {reason}: give `at` names of modules of both.")
    return Comparison({point: rows[point] for point in once_a if point in once_b}, points)


def _points(model_a, model_b, at) -> tuple[str, dict[str, str], dict[str, str]]:
    """Say what a point is; and for each model, point → name of the module that gives its value."""
    if at is None:
        return _common(model_a, model_b)
    if at == "stage":
        points, points_a, points_b = "stage", _stage_ends(model_a), _stage_ends(model_b)
    else:
        points = "normalization layer" if at == "norm" else "module"
        points_a = points_b = {name: name for name in _asked(model_a, model_b, at)}
    for letter, model, own in (("A", model_a, points_a), ("B", model_b, points_b)):
        names = dict(model.named_modules(remove_duplicate=False))
        lacking = (points_a.keys() | points_b.keys()) - own.keys()
        if missing := lacking | {name for name in own.values() if name not in names}:
            raise ValueError(f"{letter} has no {_some(missing)}: both networks need every point.")
    return points, points_a, points_b


def _common(model_a, model_b) -> tuple[str, dict[str, str], dict[str, str]]:
    try:
        ends_a, ends_b = _stage_ends(model_a), _stage_ends(model_b)
    except ValueError:
        names_b = norm_layers(model_b)
        names = {name: name for name in norm_layers(model_a) if name in names_b}
        return "normalization layer", names, names
    common = [stage for stage in ends_a if stage in ends_b]
    return "stage", *({stage: ends[stage] for stage in common} for ends in (ends_a, ends_b))


def _asked(model_a, model_b, at) -> list[str]:
    if at == "norm":
        asked = list(norm_layers(model_a) | norm_layers(model_b))
    else:
        asked = [at] if isinstance(at, str) or not isinstance(at, Iterable) else list(at)
    if not asked:
        raise ValueError(f"Nothing is there to compare at {at!r}: give names of modules.")
    return asked


def _stage_ends(model) -> dict[str, str]:
    # A stage may have hooks of its own. A ResNet's stem is no module: what its last part gives.
    names = {module: name for name, module in model.named_modules()}
    return {
        stage: names[part if part in names else list(part.children())[-1]]
        for stage, part in stages(model).items()
    }


def _run(letter, model, image, points, visit, dtype, every) -> list[str]:
    """Call visit(point, output) in one forward pass; return the points that ran once.

    With `every`, any other raises ValueError.
    """
    if dtype is not None:
        model, image = _in(dtype, model), image.to(dtype)
    else:
        like = filter(Tensor.is_floating_point, same_tensors(model).values())
        image = image.to(next(like, image))
    modules = dict(model.named_modules(remove_duplicate=False))
    runs = Counter()
    with ExitStack() as stack, torch.no_grad(), _evaluating(model):
        for point, name in points.items():

            def hook(module, args, output, point=point):
                runs[point] += 1
                if not isinstance(output, Tensor):
                    kind = type(output).__name__
                    raise TypeError(f"{point} gives a {kind}, not one tensor: ask for another.")
                if runs[point] == 1:
                    visit(point, output)
                elif every:
                    raise ValueError(f"{point} runs more than once: ask for one that runs once.")

            stack.callback(modules[name].register_forward_hook(hook).remove)
        model(image)
    if every and (missed := points.keys() - runs.keys()):
        raise ValueError(f"{letter} never reaches {_some(missed)}: ask for other points.")
    return [point for point, number in runs.items() if number == 1]


def _in(dtype, model):
    """Make a copy that computes in `dtype`.

    In a plain convolutional network a layer's tensors are cast when it runs and dropped afterwards,
    because all at once they take 200 MB for a ResNet-50 in float64. Other networks are cast as a
    whole: attention, for example, reads the tensors of layers that it never runs.
    """
    tensors = (*model.parameters(), *model.buffers())
    plain = (nn.Conv2d, nn.Linear, *map(type, norm_layers(model).values()))
    owners = [layer for layer in model.modules() if layer._parameters or layer._buffers]
    if not all(isinstance(layer, plain) and "weight" not in vars(layer) for layer in owners):
        memo = {id(tensor): _cast(tensor, dtype) for tensor in tensors}
        return copy.deepcopy(model, left_behind(model) | memo)
    copied = copy.deepcopy(model, left_behind(model) | same_tensors(model))
    for layer in copied.modules():
        own = layer._parameters, layer._buffers
        if any(own):

            def cast(layer, args, own=own):
                layer._parameters, layer._buffers = (
                    {name: _cast(tensor, dtype) for name, tensor in named.items()} for named in own
                )

            def drop(layer, args, output, own=own):
                layer._parameters, layer._buffers = own

            layer.register_forward_pre_hook(cast)
            layer.register_forward_hook(drop)
    return copied


def _cast(tensor, dtype):
    if tensor is None or not tensor.is_floating_point():
        return tensor
    cast = tensor.detach().to(dtype)
    return nn.Parameter(cast, False) if isinstance(tensor, nn.Parameter) else cast


@contextmanager
def _evaluating(model):
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


def _dtype(dtype):
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype.removeprefix("torch."), dtype)
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ValueError(f"There is no dtype {dtype!r}: give torch.float64, or its name.")
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"A network cannot run in {dtype}: give a floating point dtype.")
    return dtype


def _largest(tensor: Tensor) -> float:
    low, high = tensor.aminmax()  # many times faster than a norm, and NaN stays NaN
    return torch.maximum(-low, high).abs().item()


def _some(names) -> str:
    names = sorted(map(str, names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
