"""The exercise on a loader and a first layer that must agree."""

from collections.abc import Callable

from helpers.course.checkers.checker import same_values, uniform


def undone(formula: Callable) -> Callable:
    """An attempt made of a formula in which mean and std have the shape of the channels."""
    return lambda x, mean, std: formula(x, mean[:, None, None], std[:, None, None])


CHECKERS = {
    "07-inverse": same_values(
        [(4 * uniform(3, 3, 3, seed=0) - 2, uniform(3, seed=1), uniform(3, seed=2, low=0.1))],
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
        },
        wrong={"in place": undone(lambda x, mean, std: x.mul_(std).add_(mean).mul_(255))},
    )
}
