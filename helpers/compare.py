"""Two networks, one input: where do their feature maps part, and by how much."""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from helpers.audit.layers import Exchanged
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
    so a float32 network can be compared with its float64 twin. `dtype`: run each in this dtype
    instead; "float64" shows what is left without the rounding of float32.
    `at`: "stage" for stem, layer1 … layer4; "norm" for every normalization layer of either network;
    or the names of modules that run once per forward pass. Without it, the stages that both have
    are compared; where one has none, the normalization layers of the same name that run once. For
    names the image goes into the model; otherwise into a detector's body, without its transform.

    Wrappers (torch.compile, DataParallel, DistributedDataParallel, AveragedModel) are looked
    through, and hooks count. Both models keep their training flags, statistics and hooks.
    Raises TypeError for what is not a network, for a traced or scripted one, and for an image that
    is not floating point; ValueError for a wrong shape, a value that is not finite, another dtype,
    a point that one network lacks or does not run once, and feature maps of different shape.
    """
    model_a, model_b = unwrapped(model_a), unwrapped(model_b)
    if any(is_lazy(t) or t.is_meta for m in (model_a, model_b) for t in same_tensors(m).values()):
        raise ValueError("A network holds no values (meta device, or lazy): load weights first.")
    check_image(image, (4,), finite=True)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype.removeprefix("torch."), dtype)
    if not (dtype is None or isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"No network runs in {dtype!r}: give one such as torch.float64.")
    if at in (None, "stage", "norm"):
        model_a, model_b = body(model_a), body(model_b)
    points, points_a, points_b = _points(model_a, model_b, at)
    # Of layers that nobody asked for, some may run in training only, or more than once.
    every = at is not None or points == "stage"

    maps_a, rows = {}, {}

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
        raise ValueError(f"Nothing to compare at: {reason}; give `at` names of modules of both.")
    return Comparison({point: rows[point] for point in once_a if point in once_b}, points)


def _points(model_a, model_b, at) -> tuple[str, dict[str, str], dict[str, str]]:
    """Say what a point is; and for each model, point → name of the module that gives its value."""
    models = model_a, model_b
    if at in (None, "stage"):
        points = "stage"
        try:
            a, b = map(_stage_ends, models)
        except ValueError:
            if at == "stage":
                raise
            points = "normalization layer"
            a, b = ({name: name for name in norm_layers(model)} for model in models)
        asked = a.keys() & b.keys() if at is None else a.keys() | b.keys()
    else:
        points, asked = "module", {at} if isinstance(at, str) else {*at}
        if at == "norm":
            points, asked = "normalization layer", set().union(*map(norm_layers, models))
        a, b = ({name: name for name, _ in m.named_modules(remove_duplicate=False)} for m in models)
    for letter, own in (("A", a), ("B", b)):
        if missing := sorted(map(str, asked - own.keys())):
            names = ", ".join(missing[:3]) + ", …" * (len(missing) > 3)
            raise ValueError(f"{letter} has no {names}: both networks need every point.")
    return points, *({point: own[point] for point in sorted(asked)} for own in (a, b))


def _stage_ends(model) -> dict[str, str]:
    # A stage may have hooks of its own. A ResNet's stem is no module: what its last part gives.
    names = {module: name for name, module in model.named_modules()}
    return {
        stage: names[part if part in names else list(part.children())[-1]]
        for stage, part in stages(model).items()
    }


def _run(letter, model, image, points, visit, dtype, every) -> list[str]:
    """Call visit(point, output) in one forward pass; return the points that ran once."""
    tensors = same_tensors(model)
    like = next(filter(Tensor.is_floating_point, tensors.values()), image)
    image = image.to(like.device, dtype or like.dtype)
    runs = Counter()
    with ExitStack() as stack, torch.no_grad():
        if dtype is not None:  # cast when used: a ResNet-50 in float64 would take 200 MB
            model = copy.deepcopy(model, left_behind(model) | tensors)
            cast = Exchanged(lambda t: t.to(dtype) if t.is_floating_point() else t)
            stack.enter_context(cast)
        modules = dict(model.named_modules(remove_duplicate=False))
        for module in model.modules():  # a layer that is always in eval mode keeps what it is told
            stack.callback(setattr, module, "training", vars(module).get("training"))
        model.eval()
        for point, name in points.items():

            def hook(module, args, output, point=point):
                runs[point] += 1
                if not isinstance(output, Tensor):
                    kind = type(output).__name__
                    raise TypeError(f"{point} gives a {kind}, not one tensor: ask for another.")
                if runs[point] == 1:
                    visit(point, output)

            stack.callback(modules[name].register_forward_hook(hook).remove)
        model(image)
    for point in points if every else ():
        if runs[point] != 1:
            raise ValueError(f"{letter} runs {point} {runs[point]} times: ask for what runs once.")
    return [point for point, number in runs.items() if number == 1]


def _largest(tensor: Tensor) -> float:
    low, high = tensor.aminmax()  # many times faster than a norm, and NaN stays NaN
    return torch.maximum(-low, high).abs().item()
