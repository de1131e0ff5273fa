"""Exercises on freezing a layer, and on comparing two networks."""

import copy

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from helpers.course.checkers.checker import (
    RETURNS_NOTHING,
    Checker,
    agree,
    form,
    is_empty,
    recognize,
    same_choice,
    uniform,
)


def maps():
    """Pairs: what to say to an attempt that is wrong on a and b; a, b and whether they agree."""
    relu = (uniform(1, 4, 8, 8, seed=0) - 0.5).relu().float()
    relu[0, 0, 0, 0] = 0
    top, zeros = relu.max(), torch.zeros(3)
    at_zeros = torch.where(relu == 0, top, 0.0)
    at_first = torch.zeros_like(relu)
    at_first[0, 0, 0, 0] = top
    nan = torch.where(at_first > 0, torch.nan, relu)
    rounding = 1 + 5e-7
    cases = {
        "a difference of rounding size, 5e-7 of each feature, must pass. `torch.equal` and `==` "
        "ask for identical bits, which rounding alone "
        "breaks.": (relu / 1000, relu / 1000 * rounding, True),
        "features of size 1e4 with a relative difference of 5e-7 must pass. An absolute tolerance "
        "asks for ever more digits as features grow; scale it "
        "by `max|a|`.": (relu * 1e4, relu * 1e4 * rounding, True),
        "features of size 1e-8 that differ by a tenth must not pass. An absolute tolerance lets "
        "everything small through; scale it by `max|a|`.": (relu * 1e-8, relu * 0.9e-8, False),
        "zeros, as after a ReLU, with a difference of 3e-6 of `max|a|` must pass. A relative "
        "tolerance for each element allows nothing at a zero; give all the "
        "same bound.": (relu, relu + 3e-6 * at_zeros, True),
        "features without a positive value must be measured by `max|a|`: `max(a)` is 0 there.": (
            -relu,
            -relu * rounding,
            True,
        ),
        "one feature of b is larger than in a by a tenth of `max|a|`, and that must not pass. A "
        "signed difference, or one of two maxima, does not see it; take `|a - b|` "
        "first.": (relu.flatten(), (relu + 0.1 * at_first).flatten(), False),
        "one feature of 256 off by 2e-4 of `max|a|` must not pass. A mean hides it among the "
        "others; take the maximum.": (relu, relu - 2e-4 * at_first, False),
        "a difference of 2e-5 of `max|a|` must not pass: the bound is 1e-5.": (
            relu,
            relu - 2e-5 * at_first,
            False,
        ),
        "a difference of 5e-6 of `max|a|` must pass: the bound is 1e-5.": (
            relu,
            relu - 5e-6 * at_first,
            True,
        ),
        "two maps of zeros agree: 0 <= 1e-5 * 0 holds. `<` denies it, and so does dividing by "
        "`max|a|`.": (zeros, zeros, True),
    }
    for a, b, where in (nan, relu, "a"), (relu, nan, "b"), (nan, nan, "both"):
        says = (
            f"a NaN in {where} must give False. Every comparison with NaN is false, so ask whether "
            "the difference is within the bound, not whether it is beyond."
        )
        cases[says] = a, b, False
    infinite = torch.where(at_first > 0, torch.inf, relu)
    says = "an infinity in a must give False: no bound that grows with `max|a|` can see it."
    cases[says] = infinite, relu * 2, False
    says = "a and b of different shapes must give False, though `a - b` broadcasts: compare shapes."
    cases[says] = relu, relu[None], False
    return cases.items()


def bound(a):
    return 1e-5 * a.abs().max()


X = uniform(1, 4, 3, 3, seed=1, low=1.0)
SAYS = {  # what is said → an attempt: the layer frozen with another eps, or running_var changed
    "eps is torchvision's default. No state_dict brings the layer's own: give it where the layer "
    "is built.": lambda bn: converted(bn, 1e-5),
    "eps is 0: then nothing is added to the variance.": lambda bn: converted(bn, 0.0),
    "eps is the same for every layer. Take that of the layer that is given.": lambda bn: converted(
        bn, 1e-3
    ),
    "eps is added twice: the frozen layer adds its own to what running_var holds.": lambda bn: (
        converted(bn, bn.eps, bn.eps)
    ),
    "eps is in running_var, and the layer adds its default on top of it.": lambda bn: converted(
        bn, 1e-5, bn.eps
    ),
}
MOVED = (
    "the output is right, but running_var was changed. These tensors now fit this eps only, and "
    "would be wrong in any other layer: keep them, and give the layer its eps."
)


def layers():
    """Trained layers, of eps that no constant fits, with a small variance."""
    for seed, eps in enumerate((1e-3, 1e-5, 1e-2)):
        bn = nn.BatchNorm2d(4, eps=eps).eval()
        for tensor in bn.weight.data, bn.bias.data, bn.running_mean:
            tensor.copy_(uniform(4, seed=seed))
        bn.running_var.copy_(torch.tensor([2.0, 0.1, 1e-3, 1e-4]))
        yield bn


def converted(bn, eps, more=0.0):
    """The layer frozen with this eps, with `more` added to its running variance."""
    frozen = FrozenBatchNorm2d(bn.num_features, eps=eps)
    frozen.load_state_dict(bn.state_dict())
    frozen.running_var += more
    return frozen


def run(layer):
    with torch.no_grad():
        return copy.deepcopy(layer).double()(X)


def find_converters_mistake(attempt):
    given = [*layers()]
    answers = [attempt(copy.deepcopy(bn)) for bn in given]
    if all(map(is_empty, answers)):
        return RETURNS_NOTHING
    for answer in answers:
        if not isinstance(answer, FrozenBatchNorm2d):
            return f"return a FrozenBatchNorm2d, not {form(answer)}."
    values = [run(answer) for answer in answers]
    if not agree(values, [run(bn) for bn in given]):
        attempts = {
            says: lambda bn, freeze=freeze: run(freeze(bn)) for says, freeze in SAYS.items()
        }
        otherwise = "the frozen layer computes something else than the one that is given."
        return recognize(values, [(bn,) for bn in given], attempts, otherwise)
    pairs = zip(answers, given, strict=True)
    return None if all(a.running_var.equal(bn.running_var) for a, bn in pairs) else MOVED


CHECKERS = {
    "01-tolerance": same_choice(
        maps,
        praise="one bound for the whole map, relative to its largest feature, at any scale.",
        wrong={
            "absolute tolerance asks": lambda a, b: (a - b).abs().max() <= 1e-5,
            "absolute tolerance lets": lambda a, b: (a - b).abs().max() <= 1e3,
            "for each element": lambda a, b: ((a - b).abs() <= 1e-5 * a.abs()).all(),
            "A mean hides it": lambda a, b: (a - b).abs().mean() <= bound(a),
            "A signed difference": lambda a, b: (a - b).max() <= bound(a),
            "or one of two maxima": lambda a, b: (a.max() - b.max()).abs() <= bound(a),
            "`max(a)` is 0": lambda a, b: (a - b).abs().max() <= 1e-5 * a.max(),
            "identical bits": torch.equal,
            "2e-5 of `max|a|` must not pass": lambda a, b: (a - b).abs().max() <= 10 * bound(a),
            "5e-6 of `max|a|` must pass": lambda a, b: (a - b).abs().max() <= bound(a) / 3,
            "`<` denies it": lambda a, b: (a - b).abs().max() < bound(a),
            "dividing by `max|a|`": lambda a, b: (a - b).abs().max() / a.abs().max() <= 1e-5,
            "NaN in a must give False": lambda a, b: not (a - b).abs().max() > bound(a),
            "NaN in b": lambda a, b: not (a.isnan().any() or (a - b).abs().max() > bound(a)),
            "NaN in both": lambda a, b: (
                torch.equal(a.isnan(), b.isnan()) and not (a - b).abs().max() > bound(a)
            ),
            "an infinity in a": lambda a, b: (a - b).abs().max() <= bound(a),
            "different shapes": lambda a, b: bool(
                a.isfinite().all() and b.isfinite().all() and (a - b).abs().max() <= bound(a)
            ),
            "return one of True, False": lambda a, b: (a - b).abs() <= bound(a),
            "one of True, False": lambda a, b: float((a - b).abs().max() <= bound(a)),
        },
    ),
    "01-converter": Checker(
        find_converters_mistake,
        praise="the layer brings its eps, and the tensors stay as they were trained.",
        wrong={
            **SAYS,
            MOVED: lambda bn: converted(bn, 1e-5, bn.eps - 1e-5),
            "something else than": lambda bn: FrozenBatchNorm2d(4, eps=bn.eps),
            "not a BatchNorm2d": lambda bn: bn,
        },
    ),
}
