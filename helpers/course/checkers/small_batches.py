"""The exercise on small batches."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, is_empty, recognize, uniform


def layer(momentum: float, training: bool) -> nn.BatchNorm2d:
    """A layer whose statistics are stale, in one of its two modes."""
    bn = nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64).train(training)
    bn.running_mean.fill_(5.0)
    return bn


def batches(*sizes: int) -> list[Tensor]:
    """Batches of so many images, (n,3,2,2), each image with a light of its own."""
    light, drawn = uniform(sum(sizes), 3, 1, 1, seed=1), uniform(sum(sizes), 3, 2, 2, seed=2)
    return [*(4 * light + drawn).split(sizes)]


CASES = [(layer(0.1, False), batches(1, 1, 1, 1)), (layer(0.3, True), batches(3, 1, 2))]


def passed(momentum: float | None = 0.0, train: bool = True) -> Callable:
    """An attempt that runs the batches through the layer; with momentum 0.0 it keeps its own."""

    def attempt(bn, batches):
        before, mode = bn.momentum, bn.training
        bn.train(train).momentum = before if momentum == 0 else momentum
        bn.reset_running_stats()
        for x in batches:
            bn(x)
        bn.momentum = before
        return bn.train(mode)

    return attempt


def pooled(unbiased: bool = True, keep_momentum: bool = True, keep_mode: bool = True) -> Callable:
    """The right attempt, but for what is given."""

    def attempt(bn, batches):
        pixels = torch.cat([x.transpose(0, 1).flatten(1) for x in batches], 1)
        bn.running_mean.copy_(pixels.mean(1))
        bn.running_var.copy_(pixels.var(1, correction=int(unbiased)))
        bn.momentum = bn.momentum if keep_momentum else None
        return bn if keep_mode else bn.train()

    return attempt


AVERAGED = {
    "the batches' variances are averaged, and those of single images lack what differs between "
    "images: take mean and variance over the pixels of all batches.": passed(momentum=None),
    "that is a moving average: with the layer's own momentum the last batches weigh most, and the "
    "starting value is still in it.": passed(),
    "running_var stores the unbiased variance: divide by n − 1.": pooled(unbiased=False),
}


def find_recalibration_mistake(attempt) -> str | None:
    def statistics(bn: nn.BatchNorm2d) -> Tensor:
        return torch.stack([bn.running_mean, bn.running_var])

    layers = [attempt(*case) for case in copy.deepcopy(CASES)]
    if all(map(is_empty, layers)):
        return RETURNS_NOTHING
    if not all(isinstance(bn, nn.BatchNorm2d) for bn in layers):
        return "return the layer, with new statistics."
    if any(bn.running_mean.eq(5).all() or bn.running_mean.eq(0).all() for bn in layers):
        return "the statistics never moved: in eval mode a layer only reads them."
    known = {
        says: lambda *case, attempt=a: statistics(attempt(*copy.deepcopy(case)))
        for says, a in ({None: pooled()} | AVERAGED).items()
    }
    other = "the statistics are not mean and unbiased variance over the pixels of all batches."
    if says := recognize([*map(statistics, layers)], CASES, known, other):
        return says
    for (before, _), bn in zip(CASES, layers, strict=True):
        if bn.momentum != before.momentum:
            return f"momentum was {before.momentum} and is now {bn.momentum}: put it back."
        if bn.training != before.training:
            return "the layer is left in another mode than it came in: put `training` back."
    return None


CHECKERS = {
    "04-recalibrate": Checker(
        find_recalibration_mistake,
        praise="exact for batches of any size, and the layer is otherwise as it came.",
        wrong={
            **AVERAGED,
            "in eval mode a layer only reads them": passed(train=False),
            "momentum was 0.1 and is now None": pooled(keep_momentum=False),
            "left in another mode": pooled(keep_mode=False),
            "not mean and unbiased variance": passed(momentum=0.9),
            "return the layer": lambda bn, batches: bn.running_var,
        },
    )
}
