"""Exercises on input formats."""

from collections.abc import Callable

import torch
from torch import Tensor

from helpers.course.checkers.checker import same_choice, same_values, uniform
from helpers.inputs.pixels import MEAN, PLAIN, STD, convert


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def channels(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def undone(formula: Callable) -> Callable:
    return lambda x, mean, std: formula(x, channels(mean), channels(std))


WEIGHT = uniform(4, 3, 3, 3, seed=3) - 0.5


def fold(weight, mean, std):
    weight = weight / channels(std)
    return weight, -(weight.sum((2, 3)) @ mean), mean


def with_bias(bias: Callable) -> Callable:
    """A fold that is right but for its bias, made of (the right bias, the old weight, mean)."""

    def attempt(weight, mean, std):
        scaled, right, color = fold(weight, mean, std)
        return scaled, bias(right, weight, mean), color

    return attempt


def with_color(color: Callable) -> Callable:
    """A fold that is right but for its color, made of (mean, std)."""
    return lambda weight, mean, std: (*fold(weight, mean, std)[:2], color(mean, std))


FORMATS = {  # name → format, by what it can be told
    "right": (PLAIN, "an image in 0–1 is right: its largest value is near 1, its smallest near 0"),
    "0-255": ("0-255", "values up to 255 are levels that nobody divided"),
    "halved": ("halved", "nothing above 0.5, in an image that has white in it: it was halved"),
    "normalized": ("torchvision", "the smallest value is about −2, the largest above 2"),
    "-1 to 1": ("keras-tf", "the values run from −1 to 1, both about equally far"),
}


def accidents():
    """Pairs for same_choice, of three pictures with black and white in them."""
    for seed in range(3):
        picture = uniform(3, 8, 8, seed=seed) ** (1 + seed)
        picture[:, 0, 0], picture[:, 0, 1] = 0, 1
        for name, (format, symptom) in FORMATS.items():
            says = f'you call "{{answer}}" what is "{name}": {symptom}.'
            yield says, (convert(picture, PLAIN, format), name)


def by_thresholds(high=10.0, low=-1.2, middle=-0.5, half=0.75) -> Callable:
    def attempt(x):
        if x.max() > high:
            return "0-255"
        if x.min() < low:
            return "normalized"
        if x.min() < middle:
            return "-1 to 1"
        return "halved" if x.max() < half else "right"

    return attempt


CHECKERS = {
    "07-inverse": same_values(
        [
            (uniform(3, 3, 3, seed=1) * 4 - 2, vector(*MEAN), vector(*STD)),
            (uniform(3, 2, 3, seed=2) * 4 - 2, vector(0.5, 0.1, 0.3), vector(0.5, 2.0, 0.25)),
        ],
        undone(lambda x, mean, std: x * std + mean),
        praise="multiply by std, then add the mean: what came last is undone first.",
        mistakes={
            "the order is turned round. Normalizing subtracts, then divides; undoing it multiplies "
            "first, then adds.": undone(lambda x, mean, std: (x + mean) * std),
            "the mean is missing: black would not come back as 0. (So it was in GluonCV's layer, "
            "for two days.)": undone(lambda x, mean, std: x * std),
            "that normalizes a second time.": undone(lambda x, mean, std: (x - mean) / std),
            "divided where you have to multiply.": undone(lambda x, mean, std: x / std + mean),
            "the mean is subtracted: add it.": undone(lambda x, mean, std: x * std - mean),
            "mean and std lie along the last axis, the columns: give them the shape "
            "(3, 1, 1).": lambda x, mean, std: x * std + mean,
        },
    ),
    "07-fold": same_values(
        [
            (WEIGHT, vector(*MEAN), vector(*STD)),
            (WEIGHT, vector(0.2, 0.7, 0.4), vector(0.5, 0.3, 1.5)),
        ],
        fold,
        praise="the interior and the border agree: the padding is the mean color.",
        mistakes={
            "the weight is multiplied by std: normalizing divides by it.": lambda *given: (
                given[0] * channels(given[2]),
                *fold(*given)[1:],
            ),
            "the bias has the wrong sign: the mean is subtracted.": with_bias(
                lambda bias, weight, mean: -bias
            ),
            "the bias is made of the old weight: the mean is divided by std, too.": with_bias(
                lambda bias, weight, mean: -(weight.sum((2, 3)) @ mean)
            ),
            "the interior is right, and the border is wrong: you pad with black. What the "
            "convolution padded, 0, stood for "
            "the mean color. Pad with that.": with_color(lambda mean, std: torch.zeros_like(mean)),
            "the interior is right, and the border is wrong: that color is what black becomes by "
            "normalizing. Ask the "
            "other way round: which color becomes 0?": with_color(lambda mean, std: -mean / std),
        },
        wrong={
            "weight is not that": lambda *given: (given[0], *fold(*given)[1:]),
            "the weight is right, and the bias": with_bias(lambda bias, weight, mean: 0 * bias),
            "border is wrong: which color does": with_color(lambda mean, std: 1 - mean),
            "shape (3,), not a tuple of a tensor": lambda *given: fold(*given)[:2],
            "in place": lambda *given: fold(given[0].mul_(2), *given[1:]),
        },
        parts={
            0: "the weight is not that of normalizing: each input channel is divided by std.",
            1: "the weight is right, and the bias is not: it is what the mean alone gives.",
            2: "the interior is right, the border is wrong: which color does normalizing make 0?",
        },
    ),
    "07-accident": same_choice(
        accidents,
        praise="the range tells these five apart. It could not tell BGR, or gamma.",
        wrong={
            'you call "0-255" what is "normalized"': by_thresholds(high=2),
            'you call "normalized" what is "-1 to 1"': by_thresholds(low=-0.9),
            'you call "right" what is "halved"': by_thresholds(half=0.4),
            'you call "-1 to 1" what is "normalized"': by_thresholds(low=-9),
            'you call "right" what is "0-255"': by_thresholds(high=1000),
            'you call "halved" what is "right"': by_thresholds(half=1.5),
            "return one of 'right', '0-255', 'halved'": lambda x: "BGR",
        },
    ),
}
