"""Exercises on freezing a layer, and on comparing two networks."""

import copy
from functools import partial

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.course.checkers.checker import (
    RETURNS_NOTHING,
    Checker,
    agree,
    form,
    is_empty,
    same_choice,
    uniform,
)


def maps():
    """Pairs: what to say to an attempt that is wrong on a and b; a, b and whether they agree."""
    a = (uniform(1, 4, 8, 8, seed=0) - 0.5).relu().float()
    a[0, 0, 0, 0] = 0
    top, rounded = a.max(), a * (1 + 5e-7)

    def with_one(value):
        b = a.clone()
        b[0, 0, 0, 0] = value
        return b

    return {
        "a difference of rounding size, 5e-7 of each feature, must pass. `torch.equal` and `==` "
        "ask for identical bits, which rounding alone breaks.": (a / 1000, rounded / 1000, True),
        "features of size 1e4 with a relative difference of 5e-7 must pass. An absolute tolerance "
        "asks for ever more digits as features grow; scale it "
        "by `max|a|`.": (a * 1e4, rounded * 1e4, True),
        "features of size 1e-8 that differ by a tenth must not pass. An absolute tolerance lets "
        "everything small through; scale it by `max|a|`.": (a * 1e-8, a * 0.9e-8, False),
        "zeros, as after a ReLU, with a difference of 3e-6 of `max|a|` must pass. A relative "
        "tolerance for each element allows nothing at a zero; give all the "
        "same bound.": (a, a + 3e-6 * top * (a == 0), True),
        "one feature of 256 is larger in b by 2e-4 of `max|a|`, and that must not pass. A mean "
        "hides it, and a signed difference does not see it; take the maximum of "
        "`|a - b|`.": (a, with_one(2e-4 * top), False),
        "a NaN must give False. Every comparison with NaN is false, so ask whether the difference "
        "is within the bound, not whether it is beyond.": (a, with_one(torch.nan), False),
        "an infinity in a must give False: no bound that grows with `max|a|` can see one, so ask "
        "for finite features.": (with_one(torch.inf), a, False),
        "a and b of different shapes must give False, though `a - b` broadcasts, so compare the "
        "shapes.": (a, a[None], False),
    }.items()


def bound(a):
    return 1e-5 * a.abs().max()


def layers():
    """Trained layers, of eps that no constant fits, with a small variance."""
    for seed, eps in enumerate((1e-3, 1e-5, 1e-2)):
        bn = nn.BatchNorm2d(4, eps=eps).eval()
        for tensor in bn.weight.data, bn.bias.data, bn.running_mean:
            tensor.copy_(uniform(4, seed=seed))
        bn.running_var.copy_(torch.tensor([2.0, 0.1, 1e-3, 1e-4]))
        yield bn


def converted(bn, eps):
    frozen = FrozenBatchNorm2d(bn.num_features, eps=eps)
    frozen.load_state_dict(bn.state_dict())
    return frozen


@torch.no_grad()
def run(layer):
    return copy.deepcopy(layer).double()(uniform(1, 4, 3, 3, seed=1, low=1.0))


def find_converters_mistake(attempt):
    given = [*layers()]
    answers = [attempt(copy.deepcopy(bn)) for bn in given]
    if all(map(is_empty, answers)):
        return RETURNS_NOTHING
    for answer in answers:
        if not isinstance(answer, FrozenBatchNorm2d):
            return f"return a FrozenBatchNorm2d, not {form(answer)}."
    values = {answer.eps for answer in answers}
    if values == {1e-5}:
        return (
            "eps is torchvision's default. No state_dict brings the layer's own: give it where the "
            "layer is built."
        )
    if len(values) == 1:
        return "eps is the same for every layer. Take that of the layer that is given."
    if not agree([*map(run, answers)], [*map(run, given)]):
        return "the frozen layer computes something else than the one that is given."
    return None


CHECKERS = {
    "01-tolerance": same_choice(
        maps,
        praise="one bound for the whole map, relative to its largest feature, at any scale.",
        wrong={
            "identical bits": torch.equal,
            "absolute tolerance asks": lambda a, b: (a - b).abs().max() <= 1e-5,
            "absolute tolerance lets": lambda a, b: (a - b).abs().max() <= 1e3,
            "for each element": lambda a, b: ((a - b).abs() <= 1e-5 * a.abs()).all(),
            "A mean hides it": lambda a, b: (a - b).abs().mean() <= bound(a),
            "a signed difference": lambda a, b: (a - b).max() <= bound(a),
            "a NaN must give False": lambda a, b: not (a - b).abs().max() > bound(a),
            "an infinity in a": lambda a, b: (a - b).abs().max() <= bound(a),
            "different shapes": lambda a, b: (
                a.isfinite().all() and b.isfinite().all() and (a - b).abs().max() <= bound(a)
            ),
            "return one of True, False": lambda a, b: (a - b).abs() <= bound(a),
        },
    ),
    "01-converter": Checker(
        find_converters_mistake,
        praise="the layer brings its eps, and the tensors stay as they were trained.",
        wrong={
            "torchvision's default": partial(converted, eps=1e-5),
            "the same for every layer": partial(converted, eps=1e-3),
            "something else than": lambda bn: FrozenBatchNorm2d(4, eps=bn.eps),
            "not a BatchNorm2d": lambda bn: bn,
        },
    ),
}
