"""The normalization layers of a model, with what they do and what stands around them."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only

from helpers.audit.report import NOTES, Layer
from helpers.probe import START, Behavior, channels, left_behind, norm_layers, probe_all

USUAL_EPS = 1e-5
OWN = vars(nn.Module())  # attributes that hold registered modules and hooks
POINTWISE = (nn.Sequential, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)


class Norm(NamedTuple):
    """A layer with all that the findings are made from.

    `held`: its statistics and affine values, float64 (C,) on the CPU, as far as they have any.
    `is_fixed`: its affine parameters, or those of what feeds it, take no gradient. `given`: the
    dtype that it gets, if known. `gets_one_value`: per channel, from a batch.
    """

    row: Layer
    layer: nn.Module
    does: Behavior
    held: dict[str, Tensor]
    is_fixed: bool
    given: torch.dtype | None
    gets_one_value: bool
    is_reached: bool

    def is_at_start(self, *names: str) -> bool:
        """Whether what it holds of these is as it was made; detectron2 begins with 1 − eps."""
        near = 2 * max(self.row.eps or 0, USUAL_EPS)
        return all(((self.held[n] - START[n]).abs() < near).all() for n in names if n in self.held)


def gather(model: nn.Module, batch_size: int | None, example: Any) -> tuple[dict[str, Norm], str]:
    """The normalization layers of a model, tried; and why it did not run on the example, if so."""
    layers, norms = norm_layers(model), {}
    tried, (fed_by, behind_one) = probe_all(layers), _registered(model, layers)
    inputs, order, said = ({}, {}, "") if example is None else _run(model, layers, example)
    if example is not None:
        fed_by = {n: fed for n, fed in fed_by.items() if said and n not in inputs} | order
    dtypes = {module.weight.dtype for module in model.modules() if isinstance(module, _ConvNd)}
    for name, x in layers.items():
        does, fed, shapes = tried[name], fed_by.get(name), inputs.get(name, ())
        held = {n: t for n in START if isinstance(t := getattr(x, n, None), Tensor)}
        held = {n: t for n, t in held.items() if not (is_lazy(t) or t.is_meta) and t.numel()}
        held = {n: t.detach().cpu().double() for n, t in held.items()}
        smallest = held["running_var"].min().item() if "running_var" in held else None
        shown = does.eps_measured, does.now.statistics_move, does.now.mixes_images
        dtype = (out := does.dtypes.get(torch.float16)) and str(out).removeprefix("torch.")
        facts = channels(x), does.eps, does.affine_trains, smallest, *shown, dtype, does.untried
        row = Layer(name, type(x).__name__, *facts)

        in_front = [p.requires_grad for p in fed.parameters()] if fed else []
        is_reached = example is None or bool(said) or name in inputs
        is_fixed = does.affine_trains is False or bool(in_front) and not any(in_front)
        given = fed.weight.dtype if fed else [*dtypes][0] if len(dtypes) == 1 else None
        alone = batch_size == 1 and isinstance(fed, nn.Linear)
        one = alone or batch_size in (None, 1) and name in behind_one
        if shapes:
            one = any(shape.numel() == shape[1] for shape in shapes if len(shape) > 1)
        norms[name] = Norm(row, x, does, held, is_fixed and is_reached, given, one, is_reached)
    return norms, said


def _registered(model: nn.Module, layers: Mapping[str, nn.Module]) -> tuple[dict, set]:
    """What the order of registration tells: the convolution or linear layer in front of a layer,
    if it has as many outputs; and, in nn.Sequential, which get one value per channel and image."""
    fed_by, behind_one, last, one = {}, set(), None, False
    for name, module in model.named_modules():
        in_order = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Sequential)
        one &= in_order
        if name in layers:
            behind_one |= {name} if one else set()
            if last is not None and channels(module) == last.weight.shape[0]:
                fed_by[name] = last
            last = None
        elif isinstance(module, _ConvNd | nn.Linear):
            last = None if is_lazy(module.weight) else module
            one = in_order if isinstance(module, nn.Linear) else one and not any(module.padding)
        elif (size := getattr(module, "output_size", None)) is not None:
            one = {*(size if isinstance(size, tuple) else (size,))} == {1}
        elif type(module).__module__ != "torch.nn.modules.activation":
            one &= isinstance(module, POINTWISE)
    return fed_by, behind_one


def _run(model: nn.Module, layers: Mapping[str, nn.Module], example: Any) -> tuple[dict, dict, str]:
    """Run a copy on the example: what shapes a layer gets, and from which one; why it stopped."""
    shapes, fed_by, last, copies, owners = {}, {}, {}, left_behind(model), {}

    def before(name: str, _, args: tuple, kwargs: dict) -> None:
        x = next(iter((*args, *kwargs.values())))
        shapes.setdefault(name, []).append(x.shape)
        if x is last.get("output"):
            fed_by[name] = last["module"]

    def on_copy(tensor: Tensor) -> Tensor:  # also where a closure holds what is of the model
        tensor = copies.get(id(tensor), tensor)
        if id(tensor) in owners:  # the layer may not be called, but its tensors take part
            shapes.setdefault(owners[id(tensor)], [])
        return tensor

    args = example if isinstance(example, tuple) else (example,)
    args, kwargs = ((), example) if isinstance(example, Mapping) else (args, {})
    try:
        copied = copy.deepcopy(model, copies)
        for name, module in copied.named_modules():
            if name in layers:
                module.register_forward_pre_hook(partial(before, name), with_kwargs=True)
                owners |= {id(t): name for t in (*module.parameters(), *module.buffers())}
            elif isinstance(module, _ConvNd | nn.Linear):
                module.register_forward_hook(lambda m, _, y: last.update(module=m, output=y))
        with torch.random.fork_rng(devices=[]), torch.no_grad(), Exchanged(on_copy):
            copied(*args, **kwargs)
            if not model.training and len(shapes) < len(layers):
                with suppress(Exception):  # what only training uses, such as auxiliary classifiers
                    copied.train()(*args, **kwargs)
    except Exception as error:  # the model is not ours
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return shapes, fed_by, NOTES["not-run"].format(said)
    return shapes, fed_by, ""


class Exchanged(TorchFunctionMode):
    """Inside, torch's functions get `exchange(tensor)` for every tensor that they are given."""

    def __init__(self, exchange: Callable[[Tensor], Tensor]):
        super().__init__()
        self.exchange = exchange

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Tensor, self.exchange, (args, kwargs or {}))
        return func(*args, **kwargs)


def held_in_containers(model: nn.Module) -> Iterator[str]:
    """The layers in plain lists, tuples and dicts: their registered names, or where they stand."""
    names = {layer: name for name, layer in norm_layers(model).items()}
    for owner, module in model.named_modules():
        held = {key: x for key, x in vars(module).items() if key not in OWN}
        held = {key: x for key, x in held.items() if isinstance(x, list | tuple | dict)}
        for (attribute, *path), x in tree_flatten_with_path(held)[0]:
            place = f"{owner}.{attribute.key}".lstrip(".") + keystr(path)
            for name, layer in norm_layers(x).items() if isinstance(x, nn.Module) else ():
                yield names.get(layer, f"{place}.{name}".rstrip("."))
