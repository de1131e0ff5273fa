"""Exercises on input formats."""

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.course.checkers.task import (
    RETURNS_NOTHING,
    Task,
    Verdict,
    has_shape,
    is_empty,
    name_checker,
    same_formula,
)
from helpers.inputs.pixels import MEAN, PLAIN, STD, convert


def _uniform(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _inverse(x, mean, std):
    return x * std[:, None, None] + mean[:, None, None]


_INVERSE_CASES = [
    (_uniform(3, 3, 3, seed=1) * 4 - 2, _vector(*MEAN), _vector(*STD)),
    (_uniform(3, 2, 3, seed=2) * 4 - 2, _vector(0.5, 0.1, 0.3), _vector(0.5, 2.0, 0.25)),
]


def _inverse_with(formula):
    return lambda x, mean, std: formula(x, mean[:, None, None], std[:, None, None])


def _fold(weight, mean, std):
    scaled = weight / std[:, None, None]
    return scaled, -(scaled.sum((2, 3)) @ mean), mean


_WEIGHT = _uniform(4, 3, 3, 3, seed=3) - 0.5
_IMAGE = _uniform(2, 3, 6, 7, seed=4)


def _wanted(mean, std):
    normalized = (_IMAGE - mean[:, None, None]) / std[:, None, None]
    return F.conv2d(normalized, _WEIGHT, padding=1)


def _run(weight, bias, color):
    padded = color[:, None, None].expand(2, 3, 8, 9).clone()
    padded[..., 1:-1, 1:-1] = _IMAGE
    return F.conv2d(padded, weight, bias)


def _check_fold(attempt) -> Verdict:
    for mean, std in (
        (_vector(*MEAN), _vector(*STD)),
        (_vector(0.2, 0.7, 0.4), _vector(0.5, 0.3, 1.5)),
    ):
        weight, *given = _WEIGHT.clone(), mean.clone(), std.clone()
        answer = attempt(weight, *given)
        if is_empty(answer):
            return RETURNS_NOTHING
        if not torch.equal(weight, _WEIGHT):
            return Verdict(False, "your function changes `weight` in place: return a new tensor.")
        if not (isinstance(answer, tuple) and len(answer) == 3):
            return Verdict(False, "return three tensors: weight, bias and color.")
        shapes = ((4, 3, 3, 3), (4,), (3,))
        if not all(has_shape(a, s) for a, s in zip(answer, shapes, strict=True)):
            return Verdict(False, "the shapes must be weight (O,3,k,k), bias (O,) and color (3,).")
        weight, bias, color = (a.to(_IMAGE) for a in answer)
        right_weight, right_bias, right_color = _fold(_WEIGHT, mean, std)
        inside = (..., slice(1, -1), slice(1, -1))
        off = (_run(weight, bias, color) - _wanted(mean, std)).abs()
        if off.max() < 1e-9:
            continue
        if off[inside].max() < 1e-9:
            if color.abs().max() < 1e-9:
                mistake = (
                    "the interior is right, and the border is wrong: you pad with black. What the "
                    "convolution padded, 0, stood for the mean color. Pad with that"
                )
            elif torch.allclose(color, -mean / std):
                mistake = (
                    "the interior is right, and the border is wrong: that color is what black "
                    "becomes by normalizing. Ask the other way round: which color becomes 0?"
                )
            else:
                mistake = (
                    "the interior is right, and the border is wrong: which color does normalizing "
                    "make 0?"
                )
        elif torch.allclose(weight, _WEIGHT * std[:, None, None]):
            mistake = "the weight is multiplied by std: normalizing divides by it"
        elif torch.allclose(weight, right_weight) and torch.allclose(bias, -right_bias):
            mistake = "the bias has the wrong sign: the mean is subtracted"
        elif torch.allclose(bias, -(_WEIGHT.sum((2, 3)) @ mean)):
            mistake = "the bias is made of the old weight: the mean is divided by std, too"
        elif torch.allclose(weight, right_weight):
            mistake = "the weight is right, and the bias is not: it is what the mean alone gives"
        else:
            mistake = "the weight is not that of normalizing: each input channel is divided by std"
        return Verdict(False, f"{mistake}.")
    return Verdict(True, "the interior and the border agree: the padding is the mean color.")


_NAMES = {
    "right": PLAIN,
    "0-255": "0-255",
    "halved": "halved",
    "normalized": "torchvision",
    "-1 to 1": "keras-tf",
}
_HINTS_AT = {
    "right": "an image in 0–1 is right: its largest value is near 1, its smallest near 0",
    "0-255": "values up to 255 are levels that nobody divided",
    "halved": "nothing above 0.5, in an image that has white in it: it was halved",
    "normalized": "the smallest value is about −2 and the largest above 2: it was normalized",
    "-1 to 1": "the values run from −1 to 1, both about equally far",
}


def _pictures():
    for seed in range(3):
        picture = _uniform(3, 8, 8, seed=seed) ** (1 + seed)
        picture[:, 0, 0], picture[:, 0, 1] = 0, 1  # black and white occur
        yield picture


def _accidents():
    for picture in _pictures():
        for name, format in _NAMES.items():
            yield name, (convert(picture, PLAIN, format),)


TASKS: dict[str, Task] = {
    "05-inverse": Task(
        "Undo a normalization",
        difficulty=1,
        minutes=1,
        checker=same_formula(
            _INVERSE_CASES,
            _inverse,
            "multiply by std, then add the mean: what came last is undone first.",
            (
                (
                    "the order is turned round. Normalizing subtracts, then divides; undoing it "
                    "multiplies first, then adds.",
                    _inverse_with(lambda x, mean, std: (x + mean) * std),
                ),
                (
                    "the mean is missing: black would not come back as 0. (So it was in GluonCV's "
                    "layer, for two days.)",
                    _inverse_with(lambda x, mean, std: x * std),
                ),
                (
                    "that normalizes a second time.",
                    _inverse_with(lambda x, mean, std: (x - mean) / std),
                ),
                (
                    "divided where you have to multiply.",
                    _inverse_with(lambda x, mean, std: x / std + mean),
                ),
                ("the mean is subtracted: add it.", _inverse_with(lambda x, m, s: x * s - m)),
                (
                    "mean and std lie along the last axis, the columns: give them the shape "
                    "(3, 1, 1).",
                    lambda x, mean, std: x * std + mean,
                ),
            ),
            lambda answer: (
                f"the first value of the first case is {_inverse(*_INVERSE_CASES[0])[0, 0, 0]:.4f},"
                f" and yours is {answer[0, 0, 0]:.4f}."
            ),
            "a value for each of x",
        ),
        hints=(
            "Write down what was done, `(p - mean) / std`, and solve for p.",
            "The common errors are adding before multiplying, and (3,) tensors that are broadcast "
            "along the columns: `mean[:, None, None]` has the shape of the channels.",
        ),
        solution="""\
def undo(x, mean, std):
    return x * std[:, None, None] + mean[:, None, None]
""",
    ),
    "05-fold": Task(
        "Fold, with the right border",
        difficulty=3,
        minutes=2,
        checker=_check_fold,
        hints=(
            "Convolution is linear: w * ((p − mean)/std) is (w/std) * p less a constant. Divide "
            "each input channel of the weight by its std; the constant is what the new weight "
            "gives on an image that is `mean` everywhere.",
            "The common error is the border. The convolution used to pad with 0 after normalizing. "
            "Which color does normalizing make 0?",
        ),
        solution="""\
def fold_normalization(weight, mean, std):
    weight = weight / std[:, None, None]
    bias = -(weight.sum((2, 3)) @ mean)
    return weight, bias, mean
""",
    ),
    "05-accident": Task(
        "Find the accident",
        difficulty=1,
        minutes=1,
        checker=name_checker(
            _accidents,
            _HINTS_AT,
            "the range tells these five apart. It could not tell BGR, or gamma.",
        ),
        hints=(
            "Print `x.min()` and `x.max()` of the photo in each of the five forms: two numbers "
            "are enough.",
            "The common error is to ask for negative values alone: only those below −1 tell "
            "normalized from −1…1. Ask for the largest values first.",
        ),
        solution="""\
def which(x):
    low, high = x.min(), x.max()
    if high > 10:
        return "0-255"
    if low < -1.2:
        return "normalized"
    if low < -0.5:
        return "-1 to 1"
    return "halved" if high < 0.75 else "right"
""",
    ),
}
