"""The exercise on a loader and a first layer that must agree."""

from collections.abc import Callable

import torch
from torch import Tensor

from helpers.course.checkers.checker import same_values, uniform
from helpers.inputs.pixels import MEAN, STD


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def undone(formula: Callable) -> Callable:
    """An attempt made of a formula in which mean and std have the shape of the channels."""
    return lambda x, mean, std: formula(x, mean[:, None, None], std[:, None, None])


CONSTANTS = (vector(*MEAN), vector(*STD)), (vector(0.5, 0.1, 0.3), vector(0.5, 2.0, 0.25))

CHECKERS = {
    "07-inverse": same_values(
        [(uniform(3, 3, 3, seed=seed) * 4 - 2, *CONSTANTS[seed]) for seed in range(2)],
        undone(lambda x, mean, std: 255 * (x * std + mean)),
        praise="what the loader did last is undone first, and 255 comes back last.",
        mistakes={
            "that gives 0–1, and the BatchNorm behind holds statistics of levels. Which step of "
            "the loader is not undone?": undone(lambda x, mean, std: x * std + mean),
            "255 stands at std only: the mean is one of 0–1, too.": undone(
                lambda x, mean, std: x * (255 * std) + mean
            ),
            "255 stands at the mean only: std is one of 0–1, too.": undone(
                lambda x, mean, std: x * std + 255 * mean
            ),
            "the order is turned round. Normalizing subtracts, then divides; undoing it multiplies "
            "first, then adds.": undone(lambda x, mean, std: 255 * (x + mean) * std),
            "the mean is missing: black would not come back as 0.": undone(
                lambda x, mean, std: 255 * x * std
            ),
            "that normalizes a second time.": undone(lambda x, mean, std: (x - mean) / std),
        },
    )
}
