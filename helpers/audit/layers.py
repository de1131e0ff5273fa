"""The normalization layers of a model, with what they do and what stands around them."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from helpers.audit.report import Layer
from helpers.probe import START, Behavior, channels, norm_layers, probe_all

USUAL_EPS = 1e-5
OWN = vars(nn.Module())  # attributes that hold registered modules and hooks


class Norm(NamedTuple):
    """A layer with all that the findings are made from.

    `fed_by`: the convolution or linear layer whose output it got from the example, else the one
    registered right before it, if it has as many outputs. `inputs`: the shapes that it got.
    """

    name: str
    layer: nn.Module
    does: Behavior
    fed_by: nn.Module | None
    inputs: list[torch.Size] | None

    def values(self, name: str) -> Tensor | None:
        """A float64 (C,) on the CPU, or None: not there, lazy, empty, or on the meta device."""
        t = getattr(self.layer, name, None)
        if not isinstance(t, Tensor) or is_lazy(t) or t.is_meta or not t.numel():
            return None
        return t.detach().cpu().double()

    @property
    def variance(self) -> Tensor | None:
        """Its running variances, float64 (C,)."""
        return self.values("running_var")

    def is_at_start(self, *names: str) -> bool:
        """Whether what it holds of these is as it was made; detectron2 begins with 1 − eps."""
        held = {name: v for name in names if (v := self.values(name)) is not None}
        near = 2 * max(self.does.eps or 0, USUAL_EPS)
        return all(((v - START[name]).abs() < near).all() for name, v in held.items())

    @property
    def is_fixed(self) -> bool:
        """Whether its affine parameters, or those of what feeds it, take no gradient."""
        in_front = (
            [] if self.fed_by is None else [p.requires_grad for p in self.fed_by.parameters()]
        )
        return self.does.affine_trains is False or bool(in_front) and not any(in_front)

    def row(self) -> Layer:
        """What the audit's result has of it."""
        variance, out = self.variance, self.does.dtypes.get(torch.float16)
        return Layer(
            name=self.name,
            class_name=type(self.layer).__name__,
            channels=channels(self.layer),
            eps=self.does.eps,
            momentum=getattr(self.layer, "momentum", None),
            training=self.layer.training,
            trainable=self.does.affine_trains,
            smallest_variance=None if variance is None else variance.min().item(),
            median_variance=None if variance is None else variance.median().item(),
            eps_measured=self.does.eps_measured,
            statistics_move=self.does.now.statistics_move,
            mixes_images=self.does.now.mixes_images,
            dtype=out and str(out).removeprefix("torch."),
            untried=self.does.untried,
        )


def gather(model: nn.Module, example: Any = None) -> tuple[list[Norm], str]:
    """The normalization layers of a model, tried; and why it did not run on the example, if so."""
    layers, inputs, fed_by, said, last = norm_layers(model), {}, {}, "", None
    for name, module in model.named_modules():
        if name in layers:
            if last is not None and channels(module) == last.weight.shape[0]:
                fed_by[name] = last
            last = None
        elif isinstance(module, _ConvNd | nn.Linear) and not is_lazy(module.weight):
            last = module
    if example is not None:
        inputs, order, said = _run(model, layers, example)
        inputs = inputs if said else dict.fromkeys(layers, []) | inputs
        fed_by |= {name: order.get(name) for name in inputs}
    does = probe_all(layers)
    return [Norm(n, x, does[n], fed_by.get(n), inputs.get(n)) for n, x in layers.items()], said


def _run(model: nn.Module, layers: Mapping[str, nn.Module], example: Any) -> tuple[dict, dict, str]:
    """Run a copy on the example: what shapes a layer gets, and from which one; why it stopped."""
    shapes, fed_by, last = {}, {}, {}

    def before(name: str, _, args: tuple, kwargs: dict) -> None:
        x = next(iter((*args, *kwargs.values())))
        shapes.setdefault(name, []).append(x.shape)
        if x is last.get("output"):
            fed_by[name] = last["module"]

    def after(module: nn.Module, _, args: tuple, output: Tensor) -> None:
        last.update(module=module, output=output)

    args, kwargs = example if isinstance(example, tuple) else (example,), {}
    if isinstance(example, Mapping):
        args, kwargs = (), example
    try:
        copied = copy.deepcopy(model)
        for (name, module), twin in zip(model.named_modules(), copied.modules(), strict=True):
            if name in layers:
                twin.register_forward_pre_hook(partial(before, name), with_kwargs=True)
            elif isinstance(module, _ConvNd | nn.Linear):
                twin.register_forward_hook(partial(after, module))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            copied(*args, **kwargs)
            if not model.training and len(shapes) < len(layers):
                with suppress(Exception):  # what only training uses, such as auxiliary classifiers
                    copied.train()(*args, **kwargs)
    except Exception as error:  # the model is not ours
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return shapes, fed_by, f"The model did not run on the example to the end: {said}"
    return shapes, fed_by, ""


def held_in_containers(model: nn.Module) -> Iterator[str]:
    """The layers in plain lists, tuples and dicts: their registered names, or where they stand."""
    names = {layer: name for name, layer in norm_layers(model).items()}

    def inside(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, nn.Module):
            for name, layer in norm_layers(value).items():
                yield names.get(layer, f"{path}.{name}".rstrip("."))
        elif isinstance(value, list | tuple | dict):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from inside(item, f"{path}.{key}")

    for owner, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in OWN and not isinstance(value, nn.Module):
                yield from inside(value, f"{owner}.{attribute}".lstrip("."))
